"""Ctrl-C and SIGTERM: once to stop, twice to stop at once, and never a traceback."""

from __future__ import annotations

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
    Served,
    environment,
    export_of,
    ledger_of,
    state_of,
)

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


def test_a_signal_before_the_first_request_is_obeyed_like_any_other(shell, served):
    """As soon as the run directory is there: what was settled is counted, and 130."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(3000, 3000, "begun"))
    before = served.received()
    started = shell.start(
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url, "--run-dir", "run"),
        "--json",
    )
    started.watch((shell.folder / "run" / "run.json").exists, "the run directory")
    started.signal(signal.SIGINT)
    ran = started.wait()
    assert ran.code == 130
    summary = json.loads(ran.out)
    assert summary["state"] == "interrupted"
    assert summary["outcomes"]["UPDATED"] == served.received() - before < 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_ends_when_it_is_told(shell, number):
    """Exit code 0, and nothing but its URL was printed."""
    served = Served(shell)
    assert served.received() == 0
    ran = served.stop(number)
    assert (ran.code, ran.out, ran.err) == (0, f"{served.url}\n", "")
