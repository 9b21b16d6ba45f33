"""`bulk-updater ctl`, against a run that is played by a thread. All in all 3 s."""

from __future__ import annotations

import json
import shlex
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.ledger import RunDir
from bulk_updater.pipeline.control import CONTROL, LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GUARD_S = 30.0


class Played:
    """A run that holds the lock of its directory, and notes what it is told.

    Attributes:
        heard: The commands.
        answer: What it notes of one, besides id and event; None: it says nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: {}
        self._open = RunDir.open(folder)
        self._open.__enter__()
        self._is_open = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        path = self.folder / CONTROL
        while not self._over.wait(0.01):
            lines = path.read_bytes().splitlines() if path.exists() else []
            for line in lines[len(self.heard) :]:
                self.heard.append(json.loads(line))
                more = self.answer(self.heard[-1])
                if more is not None:
                    self.note({"id": self.heard[-1]["id"], **more})

    def note(self, record: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def unlock(self) -> None:
        if self._is_open:
            self._is_open = False
            self._open.__exit__(None, None, None)

    def close(self) -> None:
        self._over.set()
        self._thread.join(GUARD_S)
        self.unlock()


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setattr("bulk_updater.cli.ctl._LOOKS_EVERY_S", 0.01)
    playing = Played(tmp_path / "run dir")
    yield playing
    playing.close()


@pytest.mark.parametrize(
    ("words", "value", "noted", "told"),
    [
        ("pause", None, {"paused_by": ["ctl"]}, "The run pauses; what is in flight is settled."),
        ("resume", None, {}, "The run goes on."),
        ("resume", None, {"paused_by": ["window"]}, "The run still waits for its window."),
        ("rate 5", 5.0, {"limit_per_s": 5.0}, "The run sends at most 5 requests a second for "),
        (
            "rate 0.5",
            0.5,
            {"limit_per_s": 0.5, "paused_by": ["ctl"]},
            "for each operation, as soon as it goes on: it pauses now.",
        ),
        ("rate auto", None, {}, "The run goes at its own pace again."),
        ("rate none", None, {}, "The run goes at its own pace again."),
        ("drain", None, {}, "The run settles what is in flight, and ends;"),
    ],
)
def test_what_a_run_is_told(call, played, words, value, noted, told):  # noqa: PLR0917
    """The run hears the command with its value, once, in a private file; when it has noted it,
    the command says what the run now does, and exits with 0."""
    played.answer = lambda _: noted
    ran = call(f"ctl {shlex.quote(str(played.folder))} {words}")
    assert (ran.code, ran.err) == (0, "")
    assert told in ran.out
    assert [(each["command"], each["value"]) for each in played.heard] == [
        (words.split()[0], value)
    ]
    assert played.heard[0]["at"].endswith("Z")
    assert stat.S_IMODE((played.folder / CONTROL).stat().st_mode) == 0o600


def test_the_way_back_is_said(call, played):
    """A run that is paused tells the command that has it go on, which a shell takes."""
    ran = call(f"ctl {shlex.quote(str(played.folder))} pause")
    words = shlex.split(ran.out.partition("To go on: ")[2])
    assert words == ["bulk-updater", "ctl", str(played.folder), "resume"]


def test_the_ledger_may_be_named(call, played):
    """What a summary names is enough: the ledger, and not its directory."""
    ran = call(f"ctl {shlex.quote(str(played.folder / 'ledger.jsonl'))} resume")
    assert (ran.code, len(played.heard)) == (0, 1)


def test_other_notes_are_no_answer(call, played):
    """Only the note of this very command counts, and a line that is being written is waited for."""
    played.note({"id": "another", "event": "pause"})

    def answer(command):
        played.note({"id": "another", "event": "pause"})
        with (played.folder / LOG).open("a") as file:
            file.write("[1]\n")
            file.write('{"id": "' + command["id"])
            file.flush()
            file.write('", "limit_per_s": 3}\n')

    played.answer = answer
    ran = call(f"ctl {shlex.quote(str(played.folder))} rate 3")
    assert "at most 3 requests a second" in ran.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("rate", "rate needs a number"),
        ("rate 0", '"0" is no rate'),
        ("rate -- -1", '"-1" is no rate'),
        ("rate nan", '"nan" is no rate'),
        ("rate inf", '"inf" is no rate'),
        ("rate fast", '"fast" is no rate'),
        ("pause 5", "pause takes no value"),
        ("stop", "'stop' is not one of"),
    ],
)
def test_what_cannot_be_said(call, played, words, told):
    """A command that is none is refused with exit code 2, and the run hears nothing."""
    ran = call(f"ctl {shlex.quote(str(played.folder))} {words}")
    assert ran.code == 2
    assert told in ran.err
    assert not (played.folder / CONTROL).exists()


def test_where_no_run_is_going_on(call, played, tmp_path):
    """A directory whose run has ended, one of another kind and one that is not there are refused,
    and nothing is written into them."""
    played.unlock()
    (tmp_path / "empty").mkdir()
    for name in ("run dir", "empty", "nowhere"):
        ran = call(f"ctl {shlex.quote(str(tmp_path / name))} pause")
        assert ran.code == 2
        assert f"No run is going on in {tmp_path / name}" in ran.err
        assert not (tmp_path / name / CONTROL).exists()


def test_a_run_that_ends_meanwhile(call, played):
    """It is said that the run has ended before it heard of it."""

    def answer(_):
        played.unlock()

    played.answer = answer
    ran = call(f"ctl {shlex.quote(str(played.folder))} pause")
    assert ran.code == 2
    assert "has ended before it heard" in ran.err


def test_a_last_word_counts(call, played):
    """A run that notes the command and ends at once has done it."""

    def answer(command):
        played.note({"id": command["id"]})
        played.unlock()

    played.answer = answer
    assert call(f"ctl {shlex.quote(str(played.folder))} drain").code == 0


def test_a_run_that_does_not_answer(call, played, monkeypatch):
    """After its patience the command says where to look, and exits with 2."""
    monkeypatch.setattr("bulk_updater.cli.ctl._PATIENCE_S", 0.05)
    played.answer = lambda _: None
    ran = call(f"ctl {shlex.quote(str(played.folder))} pause")
    assert ran.code == 2
    assert "did not answer within 0.05 seconds" in ran.err
    assert LOG in ran.err


def test_files_that_are_not_to_be_used(call, played):
    """A control file that cannot be written, and a log that cannot be read, are named."""
    (played.folder / LOG).mkdir()
    played.answer = lambda _: None
    ran = call(f"ctl {shlex.quote(str(played.folder))} pause")
    assert ran.code == 2
    assert f"{LOG} cannot be read: Is a directory" in ran.err
    (played.folder / CONTROL).unlink()
    (played.folder / CONTROL).mkdir()
    ran = call(f"ctl {shlex.quote(str(played.folder))} pause")
    assert ran.code == 2
    assert "The run was told nothing" in ran.err
    (played.folder / CONTROL).rmdir()


def test_a_lock_that_cannot_be_looked_at(call, tmp_path):
    """Where nobody can tell whether a run is going on, that is what is said."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "lock").symlink_to("lock")
    ran = call(f"ctl {shlex.quote(str(tmp_path / 'odd'))} pause")
    assert ran.code == 2
    assert "cannot be told: Too many levels of symbolic links" in ran.err
