"""Ctrl-C and SIGTERM: once to stop, twice to stop at once, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulk_updater.cli.signals import INTERRUPTED

from .conftest import (
    MAPPING,
    PATIENCE_S,
    Ran,
    Served,
    Warm,
    environment,
    export_of,
    ledger_of,
    standing,
    state_of,
)
from .interrupted import PHASES

BIN = Path(sys.executable).parent
STOPPING = "Stopping: what is under way is settled first. Once more to stop at once."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_settles_what_is_under_way(shell, served, number):
    """Exit code 130, a summary, and a last line that a shell can be given to finish the run."""
    prefix = f"first-{number.name}-"
    shell.write("mapping.yaml", MAPPING)
    shell.write("my export.csv", export_of(600, 600, prefix))
    before = served.received()
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    program = (
        ("bulk-updater",) if number is signal.SIGINT else (sys.executable, "-m", "bulk_updater")
    )
    started = shell.start(
        *("run", "mapping.yaml", "my export.csv", "--endpoint-url", served.url, "--rate", "200"),
        argv=program,
        env=environment(PATH=path),
    )
    served.wait_for(50, of=started)
    started.signal(number)
    ran = started.wait()
    assert ran.code == 130
    assert STOPPING in ran.err
    assert ran.out.startswith("Interrupted after ")
    (ledger,) = shell.folder.glob("runs/*/*/ledger.jsonl")
    settled = {record["contact_id"] for record in ledger_of(ledger)}
    assert set(served.contacts(prefix)) == settled  # nothing was applied that has no result
    assert f"  UPDATED      {len(settled):>3}\n  FAILED         0\n" in ran.out
    assert f"\n  not settled  {600 - len(settled):>3}\n" in ran.out

    last_line = ran.out.splitlines()[-1]
    assert last_line.startswith(f"{shlex.join(program)} run ")
    again = subprocess.run(
        last_line.replace("--rate 200", "--rate 5000"),
        shell=True,
        cwd=shell.folder,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert again.returncode == 0, again
    assert again.stdout.startswith("Finished in ")
    assert served.attributes(prefix) == state_of(600, 600, prefix)
    assert served.received() - before == 600


def test_the_second_signal_waits_for_nothing(shell):
    """With requests that take a minute: exit code 130 at once, and a ledger that is whole."""
    slow = Served(shell, "--rate", "1000", "--burst", "1000", "--latency-ms", "60000")
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", "Contact,Number,Note\n" + ",1,x\n" * 20 + "c,1,x\n" * 20)
    started = shell.start(
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", slow.url, "--run-dir", "run")
    )
    slow.wait_for(1, of=started)
    started.signal(signal.SIGINT)
    started.read_until(STOPPING, "err")
    signalled = time.monotonic()
    started.signal(signal.SIGINT)
    ran = started.wait()
    assert time.monotonic() - signalled < 30
    assert ran.code == 130
    assert f"error: {INTERRUPTED} What was settled is in the ledger.\n" in ran.err
    assert ran.out.startswith("\nTo go on:\n")
    assert ran.out.splitlines()[-1].endswith("--run-dir run")
    records = ledger_of(shell.folder / "run" / "ledger.jsonl")
    assert sorted(record["row"] for record in records) == list(range(1, 21))


MOMENTS = ("click.core", "numpy", "pandas.core.frame", "aiohttp.client", "bulk_updater.connect")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_while_it_starts_is_no_reason_for_a_traceback(shell, moment):
    """Whatever is being imported: exit code 130, one line of error, nothing on output."""
    number = signal.SIGTERM if MOMENTS.index(moment) % 3 == 2 else signal.SIGINT
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(5, 5))
    started = shell.start(
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", "http://127.0.0.1:1"),
        # Names every module on standard error as soon as it is imported.
        argv=(sys.executable, "-X", "importtime", "-m", "bulk_updater"),
    )
    started.read_until(f" {moment}\n", "err")
    started.signal(number)
    ran = started.wait()
    said = [line for line in ran.err.splitlines() if not line.startswith("import time:")]
    assert (ran.code, ran.out) == (130, ""), said
    assert said == [f"error: {INTERRUPTED}"]
    assert not (shell.folder / "runs").exists()


@pytest.fixture(scope="module")
def interrupted():
    with contextlib.closing(Warm("tests.e2e.interrupted")) as opened:
        yield opened


BEFORE_SENDING = (
    *("options", "mapping", "fingerprint", "count"),
    *("lock", "run.json", "ledger", "connection", "quotas"),
)
SETTLED = ("drain", "failed.csv", "last run.json", "closing", "printing", "exit")
"""Phases in which every row has its result, or gets it at once."""


@pytest.mark.parametrize(
    ("phase", "n_prints"), [("count", 0), ("ledger", 0), ("connection", 1), ("quotas", 1)]
)
def test_a_script_gets_a_summary_as_soon_as_there_is_one(
    interrupted, shell, served, phase, n_prints
):
    """With --json: 130 and nothing on output until the ledger is read, and then a summary."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(300, 300, f"begun-{phase}-"))
    before = served.received()
    ran = interrupted.run(
        shell.folder,
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url, "--json"),
        prepare={"phase": phase, "signals": ["SIGTERM"]},
    )
    assert ran.code == 130, ran
    assert served.received() == before
    if n_prints:
        summary = json.loads(ran.out)
        assert summary["state"] == "interrupted"
        assert (summary["outcomes"]["UPDATED"], summary["unsettled"]) == (0, 300)
    else:
        assert ran.out == ""
        assert ran.error.endswith(f"error: {INTERRUPTED} Nothing was sent.\n")


def test_the_phases_are_those_of_a_run():
    """Signals are sent in all of them."""
    assert {*BEFORE_SENDING, "first request", "sending", "sync", *SETTLED} == set(PHASES)


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_is_obeyed_in_every_phase(interrupted, shell, served, phase):
    """Ctrl-C or SIGTERM, once and twice: 130 unless all was done, nothing is sent that had not
    begun, no traceback, and the same command finishes the run."""
    prefix = f"{phase.replace(' ', '-')}-"
    first, second = ("SIGINT", "SIGTERM")[:: -1 if list(PHASES).index(phase) % 2 else 1]
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(40, 40, prefix) + ",1,x\n")
    ledger = shell.folder / "run" / "ledger.jsonl"
    command = (
        *("run", "mapping.yaml", "export.csv", "--run-dir", "run", "--endpoint-url", served.url),
        *("--max-in-flight", "4"),
    )

    def start(*signals: str, more: tuple[str, ...] = ()) -> tuple[Ran, int]:
        before = served.received()
        # Quotas are asked for only where they decide about the rate.
        rate = () if phase == "quotas" and signals else ("--rate", "1000")
        prepare = {"phase": phase, "signals": signals} if signals else None
        ran = interrupted.run(shell.folder, *command, *rate, *more, prepare=prepare)
        assert ("the phase has begun" in ran.err) == bool(signals)
        return ran, served.received() - before

    ran, n_sent = start(first)
    if phase in BEFORE_SENDING:
        assert (ran.code, n_sent) == (130, 0)
    elif phase in SETTLED:
        # What is left is to say so; only while that is said there is nothing to wait for.
        assert ran.code == (130 if phase in ("printing", "exit") else 1), ran
        assert len(standing(ledger)) == 41
    else:
        assert ran.code == 130
        assert ran.out.startswith("Interrupted after ")
        # The first four had begun; the invalid row comes after the last one.
        assert len(ledger_of(ledger)) == n_sent < 40
    ran, n_sent = start(first, second, more=("--fresh",))
    assert ran.code == 130, ran
    assert INTERRUPTED in ran.err
    n_settled = len(ledger_of(ledger)) if ledger.exists() else 0
    if phase in BEFORE_SENDING:
        assert (n_sent, n_settled) == (0, 0)
    elif phase not in SETTLED:
        assert n_settled <= n_sent + 1

    ran, n_again = start()
    assert ran.code == 1, ran
    assert 40 <= n_sent + n_again <= 44
    assert len(standing(ledger)) == len(ledger_of(ledger)) == 41
    assert served.attributes(prefix) == state_of(40, 40, prefix)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_ends_when_it_is_told(shell, number):
    """Exit code 0, and nothing but its URL was printed."""
    served = Served(shell)
    assert served.received() == 0
    ran = served.stop(number)
    assert (ran.code, ran.out, ran.err) == (0, f"{served.url}\n", "")
