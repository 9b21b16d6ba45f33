"""Readers that leave, streams that are closed, and an environment with nothing in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .conftest import MAPPING, PATIENCE_S, environment, export_of, standing

MODULE = f"{sys.executable} -m bulk_updater"


@pytest.fixture
def files(shell):
    """A mapping, an export of ten rows, and a ledger of 20,000 results."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(10, 10, "streams"))
    (shell.folder / "big").mkdir()
    record = {"run_id": "r", "operation": "update_contact", "outcome": "FAILED", "error": "x" * 80}
    lines = (json.dumps({"row": row} | record) + "\n" for row in range(1, 20_001))
    shell.write("big/ledger.jsonl", "".join(lines))
    return shell


def in_shell(folder, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "first"),
    [
        ("", "    row outcome contact                              operation\n"),
        ("--format csv", "run_id,row,source,"),
        ("--format json", "[\n"),
    ],
)
def test_a_reader_may_leave_after_the_first_line(files, flags, first):
    """`ledger | head -1`: that line, exit code 0 in spite of pipefail, and not a word more."""
    ran = in_shell(files.folder, f"{MODULE} ledger big {flags} | head -1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(first)
    assert ran.stdout.count("\n") == 1


def test_a_run_ends_as_it_ends_whoever_reads(files, served):
    """`run | true` and `run 2>&1 | true`: every row is settled, and the exit code says so."""
    command = f"{MODULE} run mapping.yaml export.csv --endpoint-url {served.url} --rate 500"
    told = "summary state=finished exit=0"
    for number, (pipe, summaries) in enumerate((("| true", [told]), ("2>&1 | true", []))):
        ran = in_shell(files.folder, f"{command} --run-dir run{number} {pipe}")
        assert ran.returncode == 0
        # In the first of the two its log and the line for whoever greps logs, and nothing else.
        lines = [line for line in ran.stderr.splitlines() if " INFO " not in line]
        assert [line.split(" run_id=")[0] for line in lines] == summaries
        assert len(standing(files.folder / f"run{number}" / "ledger.jsonl")) == 10


def test_closed_streams_do_not_get_into_the_ledger(files, served):
    """Without stdin, stdout and stderr their numbers are free; no file of the run gets them."""
    command = f"{MODULE} run mapping.yaml export.csv --endpoint-url {served.url} --rate 500"
    ran = in_shell(files.folder, f"{command} --run-dir run <&- >&- 2>&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert len(standing(files.folder / "run" / "ledger.jsonl")) == 10


def test_json_can_be_piped_into_a_parser(files, served):
    """One object, from the process to the parser."""
    command = f"{MODULE} run mapping.yaml export.csv --endpoint-url {served.url} --rate 500 --json"
    parser = f"{sys.executable} -c 'import json, sys; print(json.load(sys.stdin)[\"outcomes\"])'"
    ran = in_shell(files.folder, f"{command} | {parser}")
    assert ran.returncode == 0
    others = ("FAILED", "INVALID", "SKIPPED", "UNCHANGED", "SUPERSEDED")
    assert ran.stdout == f"{ {'UPDATED': 10} | dict.fromkeys(others, 0) }\n"


def test_an_empty_environment_is_enough_for_a_rehearsal(files):
    """`env -i` with PATH and HOME: the sandbox needs no credentials, no region and no locale."""
    env = {"PATH": os.environ["PATH"], "HOME": str(files.folder)}
    words = ("run", "mapping.yaml", "export.csv", "--sandbox", "--rate", "100")
    ran = files.run(*words, env=env)
    assert ran.code == 0, ran
    assert ran.out.startswith("Finished in ")
    assert "\n  UPDATED  10\n" in ran.out


def test_an_empty_environment_is_said_to_lack_credentials(files, served, warm):
    """`env -i` against a real endpoint: exit code 2, and nothing is sent."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(files.folder),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = served.received()
    words = ("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url)
    ran = warm.run(files.folder, *words, "--region", "eu-west-1", env=env)
    assert ran.code == 2
    assert ran.err.startswith("error: There are no AWS credentials;")
    assert served.received() == before
