"""Disks that fail where results are made durable: nothing is lost, and everybody is told."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import MAPPING, Served, Shell, Warm, export_of, ledger_of, standing, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import Ran

N_ROWS = 80
MAX_IN_FLIGHT = 8
CALLS_OF_A_START = 5
"""The folder, the lock, run.json.tmp and its new name, the ledger: all that a start changes."""


@pytest.fixture(scope="module")
def failing():
    with contextlib.closing(Warm("tests.e2e.failing")) as opened:
        yield opened


@dataclass
class Run:
    """A run in a folder of its own, and how to start it with a disk that fails."""

    failing: Warm
    shell: Shell
    served: Served
    prefix: str

    def __post_init__(self) -> None:
        self.folder = self.shell.folder
        self.run_dir = self.folder / "run"
        self.ledger = self.run_dir / "ledger.jsonl"
        self.shell.write("mapping.yaml", MAPPING)
        # Every contact twice, and a last row that is invalid, for failed.csv.
        export = export_of(N_ROWS, N_ROWS // 2, self.prefix)
        self.shell.write("export.csv", export + ",1,x\n")
        self.received_before = self.served.received()

    def start(self, *more: str, **prepare: Any) -> Ran:
        return self.failing.run(
            self.folder,
            *("run", "mapping.yaml", "export.csv", "--run-dir", "run"),
            *("--endpoint-url", self.served.url, "--rate", "1000"),
            *("--max-in-flight", str(MAX_IN_FLIGHT), *more),
            prepare=prepare or None,
        )

    def received(self) -> int:
        return self.served.received() - self.received_before

    def expect_finished(self, ran: Ran) -> None:
        """Every row has one result, and the contacts are as the export leaves them."""
        assert ran.code == 1, ran
        assert len(standing(self.ledger)) == len(ledger_of(self.ledger)) == N_ROWS + 1
        assert (self.run_dir / "failed.csv").read_text().count("\n") == 2
        assert json.loads((self.run_dir / "run.json").read_bytes())["summary"]["unsettled"] == 0
        state = state_of(N_ROWS, N_ROWS // 2, self.prefix)
        assert self.served.attributes(self.prefix) == state


@pytest.fixture
def run(failing, shell, served, request) -> Run:
    prefix = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return Run(failing, shell, served, f"{prefix}-")


@pytest.mark.parametrize("n", [1, 4])
def test_a_sync_that_fails_stops_the_sending_at_once(run, n):
    """Exit code 3; file, reason and room are told; at most what was in flight has no result, and
    the resume ends as if nothing had been."""
    ran = run.start(call="fsync", path=str(run.ledger), error="EIO", n=n)
    assert ran.code == 3, ran
    said = re.search(
        r"error: run/ledger\.jsonl: cannot be written behind byte (\d+): Input/output error "
        r"\(EIO\), [\d,]+ bytes free\. ",
        ran.err,
    )
    assert said, ran.err
    assert ran.out.startswith("Stopped after ")
    # What was not synced is not in the file, though it was written.
    assert run.ledger.stat().st_size == int(said[1])
    n_settled = len(ledger_of(run.ledger))
    assert (n_settled > 0) == (n > 1)
    n_received = run.received()
    assert 0 <= n_received - n_settled <= MAX_IN_FLIGHT
    run.expect_finished(run.start())
    assert run.received() <= N_ROWS + n_received - n_settled


def test_a_ledger_that_cannot_be_synced_when_it_is_read_back_takes_no_request(run):
    """A resume that cannot make sure of what it finds: exit code 2, and nothing is sent."""
    assert run.start("--limit", "20").code == 0
    before, n_received = run.ledger.read_bytes(), run.received()
    ran = run.start(call="fsync", path=str(run.ledger), error="EIO", n=1)
    assert (ran.code, ran.out) == (2, ""), ran
    assert "Input/output error (EIO)" in ran.err
    assert "Nothing was sent." in ran.err
    assert (run.ledger.read_bytes(), run.received()) == (before, n_received)
    run.expect_finished(run.start())


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_write_that_fails_in_the_middle_of_a_block_stops_the_sending(run, error):
    """Half a block is on the disk: it is cut off, and its rows are sent again."""
    ran = run.start(call="write", path=str(run.ledger), error=error, n=3)
    assert ran.code == 3, ran
    assert f"({error}), " in ran.err
    assert run.ledger.read_bytes().endswith(b"}\n")
    n_settled, n_received = len(ledger_of(run.ledger)), run.received()
    assert n_settled > 0
    assert n_received - n_settled <= MAX_IN_FLIGHT
    run.expect_finished(run.start())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("mkdir", "run"),
        ("open", "run/lock"),
        ("open", "run/run.json.tmp"),
        ("open", "run/ledger.jsonl"),
    ],
)
def test_no_room_for_a_file_that_a_run_needs_takes_no_run(run, call, name):
    """Exit code 2: the reason is told, nothing is sent, and nothing is in the next run's way."""
    ran = run.start(call=call, path=str(run.folder / name), error="ENOSPC")
    assert (ran.code, ran.out) == (2, ""), ran
    assert "No space left on device (ENOSPC)" in ran.err
    assert "error: run" in ran.err
    assert ran.error.count("\n") == 1
    assert run.received() == 0
    run.expect_finished(run.start())
    assert run.received() == N_ROWS


@pytest.mark.parametrize(
    ("call", "name", "n"),
    [
        ("open", "run/failed.csv.tmp", 1),
        ("fsync", "run/failed.csv.tmp", 1),
        ("fsync", "run/run.json.tmp", 2),
    ],
)
def test_no_room_for_what_is_written_at_the_end_is_told(run, call, name, n):
    """Every row has its result: exit code 3, and the same command only writes what is missing."""
    ran = run.start(call=call, path=str(run.folder / name), error="ENOSPC", n=n)
    assert ran.code == 3, ran
    assert name.removesuffix(".tmp") in ran.err
    assert "No space left on device" in ran.err
    assert len(standing(run.ledger)) == N_ROWS + 1
    # Half a file is in nobody's way, and is not taken for a whole one.
    assert json.loads((run.run_dir / "run.json").read_bytes())["summary"] is None
    run.expect_finished(run.start())
    assert run.received() == N_ROWS


@pytest.mark.parametrize(
    ("call", "name"), [("open", "runs/quotas.json.tmp"), ("open", "runs/quotas.json.lock")]
)
def test_no_room_for_what_was_learnt_stops_no_run(run, call, name):
    """A warning, and the exit code and the results of a run that could keep it."""
    ran = run.start(call=call, path=str(run.folder / name), error="ENOSPC", found=20.0)
    assert "quotas.json cannot be brought up to date: No space left on device (ENOSPC)" in ran.err
    assert not (run.folder / "runs" / "quotas.json").exists()
    run.expect_finished(ran)
    assert run.start(found=20.0).code == 1


@dataclass
class Switch:
    """Makes a folder read-only, and writable again.

    Attributes:
        turn_on: Returns what the process is to be prepared with.
        turn_off: Takes it back.
    """

    turn_on: Callable[[], dict[str, Any]]
    turn_off: Callable[[], object] = lambda: None


@contextlib.contextmanager
def a_mount_for_reading(path: Path) -> Iterator[Switch]:
    """A file system that is mounted anew for reading; else, where this user may not mount one,
    calls that fail in the same way."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    if not is_mounted:
        with calls_that_fail(path) as switch:
            yield switch
        return

    def remount(how: str) -> dict[str, Any]:
        words = ["mount", "-o", f"remount,{how}", str(path)]
        subprocess.run(words, capture_output=True, check=True)
        return {}

    try:
        yield Switch(lambda: remount("ro"), lambda: remount("rw"))
    finally:
        subprocess.run(["umount", str(path)], capture_output=True, check=True)


@contextlib.contextmanager
def calls_that_fail(path: Path) -> Iterator[Switch]:
    """Whatever would change something in a folder fails, as on a file system for reading."""
    yield Switch(lambda: {"call": "change", "path": str(path), "error": "EROFS"})


@pytest.mark.parametrize("read_only", [a_mount_for_reading, calls_that_fail])
def test_a_folder_that_turned_read_only_takes_no_run(run, read_only):
    """Between two runs: exit code 2 and the reason, nothing is sent, and nothing has changed;
    when it can be written again, the same command finishes the run."""
    with read_only(run.run_dir) as switch:
        assert run.start("--limit", "20").code == 0
        before, n_received = run.ledger.read_bytes(), run.received()
        ran = run.start(**switch.turn_on())
        assert (ran.code, ran.out) == (2, ""), ran
        assert "(EROFS)" in ran.err
        assert ran.error.count("\n") == 1
        assert (run.ledger.read_bytes(), run.received()) == (before, n_received)
        switch.turn_off()
        run.expect_finished(run.start())


def test_a_folder_that_turns_read_only_meanwhile_stops_the_run(run):
    """What is open goes on: every row has its result; what cannot be created is told, code 3."""
    ran = run.start(call="change", path=str(run.run_dir), error="EROFS", n=CALLS_OF_A_START + 1)
    assert ran.code == 3, ran
    assert "Read-only file system" in ran.err
    assert len(standing(run.ledger)) == N_ROWS + 1
    run.expect_finished(run.start())
    assert run.received() == N_ROWS
