"""Deadlines, live control and questions, with real processes. All in all 25 s."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import time
from typing import TYPE_CHECKING

import pytest

from .conftest import MAPPING, Warm, export_of, ledger_of, standing, state_of
from .interrupted import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def interrupted() -> Iterator[Warm]:
    with contextlib.closing(Warm("tests.e2e.interrupted")) as opened:
        yield opened


def test_a_run_is_steered_and_asked(shell, served):
    """A run that is going on answers SIGUSR1 as often as it is asked, pauses, goes on, changes its
    rate and ends when it is told; `ctl` then finds nobody, and the same command does the rest."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(1000, 1000, "steered-"))
    before = served.received()
    command = ("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url)
    started = shell.start(*command, "--run-dir", "run", "--rate", "20")
    served.wait_for(20, of=started)
    for n_asked in range(3):
        started.signal(signal.SIGUSR1)
        started.watch(
            lambda n=n_asked: started.printed["err"].count(b"/1,000 settled (") > n,
            "an answer to SIGUSR1",
        )

    def ctl(*words: str) -> str:
        ran = shell.run("ctl", "run", *words)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out

    assert ctl("pause").startswith("The run pauses")
    n_paused = served.received()
    assert ctl("rate", "40") == (
        "The run sends at most 40 requests a second for each operation, as soon as it goes on: it "
        "pauses now.\n"
    )
    assert served.received() - n_paused <= 1  # one may have been on its way
    assert ctl("resume") == "The run goes on.\n"
    served.wait_for(5, of=started)
    assert ctl("drain").startswith("The run settles what is in flight")
    ran = started.wait()
    assert ran.code == 130
    assert ran.out.startswith("Interrupted after ")
    ledger = shell.folder / "run" / "ledger.jsonl"
    assert len(ledger_of(ledger)) == served.received() - before < 1000
    notes = map(json.loads, (shell.folder / "run" / "log.jsonl").read_text().splitlines())
    assert [note["event"] for note in notes] == ["pause", "rate", "resume", "drain"]

    refused = shell.run("ctl", "run", "pause")
    assert refused.code == 2
    assert "No run is going on in run" in refused.err
    again = shell.run(*command, "--run-dir", "run", "--rate", "10000")
    assert again.code == 0
    assert served.attributes("steered-") == state_of(1000, 1000, "steered-")
    assert served.received() - before == 1000


def test_a_deadline_ends_the_night_and_the_next_goes_on(shell, served):
    """At the deadline the exit code is 4, everything that was sent is settled, and the last line
    is the command that goes on, at the row where it stopped."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(500, 500, "night-"))
    before = served.received()
    command = (
        "run",
        "mapping.yaml",
        "export.csv",
        "--endpoint-url",
        served.url,
        "--run-dir",
        "run",
    )
    ran = shell.run(*command, "--for", "4s", "--rate", "20")
    assert ran.code == 4, ran
    assert "Stopping for the deadline" in ran.err
    n_sent = served.received() - before
    ledger = shell.folder / "run" / "ledger.jsonl"
    assert sorted(row for row, _ in standing(ledger)) == list(range(1, n_sent + 1))
    assert n_sent < 500
    words = shlex.split(ran.out.splitlines()[-1])
    assert words[-len(command) - 4 :] == [*command, "--for", "4s", "--rate", "20"]
    again = shell.run(*command, "--for", "8h", "--rate", "10000")
    assert again.code == 0
    assert served.received() - before == 500
    assert served.attributes("night-") == state_of(500, 500, "night-")


def test_a_deadline_before_anything_was_sent(interrupted, shell, served):
    """The exit code is 4, one sentence says why, and the last line is the command that goes on."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(10, 10, "early-"))
    command = ("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url)
    ran = interrupted.run(shell.folder, *command, "--for", "0.0001s")
    assert ran.code == 4, ran
    assert "error: The deadline came before the run had sent anything." in ran.err
    assert ran.out.splitlines()[-1].endswith(shlex.join([*command, "--for", "0.0001s"]))
    assert served.contacts("early-") == {}


def test_a_window_that_is_closed_is_waited_for(shell, served):
    """A run outside its window waits and sends nothing; SIGTERM ends it at once."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(10, 10, "window-"))
    started = shell.start(
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url),
        *("--window", closed_now()),
    )
    started.read_until("Waiting for the window: opens at ", "err")
    started.signal(signal.SIGTERM)
    ran = started.wait()
    assert ran.code == 130
    assert served.contacts("window-") == {}


def closed_now() -> str:
    """A window of an hour around noon, in a zone where it is not yet one o'clock in the night."""
    return f"12:00-13:00-{time.gmtime().tm_hour:02}:00"


@pytest.mark.parametrize("phase", PHASES)
def test_a_question_never_ends_a_run(interrupted, shell, served, phase):
    """SIGUSR1 in whatever phase, three times: the run ends as if nobody had asked."""
    prefix = f"asked-{phase.replace(' ', '-')}-"
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(40, 40, prefix) + ",1,x\n")  # one is invalid
    rate = () if phase == "quotas" else ("--rate", "1000")
    ran = interrupted.run(
        shell.folder,
        *("run", "mapping.yaml", "export.csv", "--run-dir", "run", "--endpoint-url", served.url),
        *("--max-in-flight", "4"),
        *rate,
        prepare={"phase": phase, "signals": ["SIGUSR1"] * 3},
    )
    assert "the phase has begun" in ran.err
    assert ran.code == 1, ran
    assert len(standing(shell.folder / "run" / "ledger.jsonl")) == 41
    assert served.attributes(prefix) == state_of(40, 40, prefix)
