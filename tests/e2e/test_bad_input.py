"""Everything that people get wrong: a clear message, the right exit code, and nothing sent."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pytest

from .conftest import MAPPING, Ran, Served, Shell, Warm, environment
from .mistakes import HEADER, REFUSED, TAKEN, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CASES = {case.name: case for case in (*REFUSED, *TAKEN)}


@dataclass(frozen=True)
class Shown:
    """What a case came to, and the folder it was in."""

    ran: Ran
    folder: Path

    def summary(self) -> dict:
        (path,) = self.folder.glob("runs/*/*/run.json")
        return json.loads(path.read_text())["summary"]

    def codes(self) -> dict[int, str]:
        """The error codes by row."""
        (path,) = self.folder.glob("runs/*/*/ledger.jsonl")
        records = map(json.loads, path.read_text().splitlines())
        return {each["row"]: each["error_code"] for each in records if "error_code" in each}


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A sandbox that nothing may be sent to."""
    with contextlib.closing(Shell(tmp_path_factory.mktemp("never"))) as shell:
        yield Served(shell)


@pytest.fixture(scope="module")
def show(
    served: Served, never: Served, warm: Warm, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Case], Shown]:
    """Runs a case, in a folder of its own, once."""

    @cache
    def show(name: str) -> Shown:
        case = CASES[name]
        folder = tmp_path_factory.mktemp("case")
        source = folder / ("export.parquet" if "parquet" in case.words else "export.csv")
        for path, content in ((folder / "mapping.yaml", case.mapping), (source, case.source)):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        env = {k: v for k, v in (environment() | case.changes).items() if v is not None}
        url = (never if case in REFUSED else served).url
        return Shown(warm.run(folder, "run", *case.words.format(url=url).split(), env=env), folder)

    return show


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_is_wrong_is_said_and_nothing_is_sent(case, show, never):
    """Exit code 2, one line of error that names the fault, no output, and no request."""
    ran = show(case.name).ran
    assert (ran.code, ran.out) == (2, ""), ran
    assert ran.err.startswith("error: ")
    assert ran.error.count("\n") == 1, ran.err
    for text in case.says:
        assert text.lower() in ran.err.lower(), ran.err
    assert never.received() == 0


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.name)
def test_what_can_be_run_is_run(case, show):
    """The exit code says how it ended, and the outcomes and unsettled rows add up."""
    found = show(case.name)
    assert found.ran.code == case.code, found.ran
    for text in case.says:
        assert text in found.ran.err
    summary = found.summary()
    n_rows = case.source.count("\n" if isinstance(case.source, str) else b"\n") - 1
    assert sum(summary["outcomes"].values()) + summary["unsettled"] == n_rows


@pytest.mark.parametrize(
    ("name", "codes", "contacts"),
    [
        ("a header alone", {}, set()),
        ("Windows-1252 read as UTF-8", {2: "undecodable"}, {"u-1", "u-3"}),
        ("a ragged row", {2: "ragged_row", 3: "ragged_row"}, {"r-1", "r-4"}),
        ("a NUL byte", {2: "nul_character"}, {"n-1", "n-3"}),
        ("a long contact id", {1: "too_long"}, {"l-2"}),
        ("33,000 bytes of attributes", {1: "too_long"}, {"b-2"}),
    ],
)
def test_a_bad_row_is_that_row_s_and_the_others_go_on(served, show, name, codes, contacts):
    """INVALID with its rule and its line in failed.csv; the others are at the service."""
    found = show(name)
    outcomes = found.summary()["outcomes"]
    assert outcomes == {
        "UPDATED": len(contacts),
        "FAILED": 0,
        "INVALID": len(codes),
        "SKIPPED": 0,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    assert found.codes() == codes
    failed = found.summary()["failed"]
    assert (failed is None) == (not codes)
    if codes:
        assert (found.folder / failed).read_bytes().count(b"\n") == len(codes) + 1
    for prefix in {contact[:2] for contact in contacts}:
        assert set(served.contacts(prefix)) == contacts


def test_an_endpoint_that_refuses_leaves_its_rows_unsettled(show):
    """Exit code 3, and the last line is the command that tries again."""
    found = show("an endpoint that refuses the connection")
    summary = found.summary()
    assert summary["state"] == "stopped"
    assert summary["unsettled"] > 0
    assert found.ran.out.splitlines()[-1].endswith("--endpoint-url http://127.0.0.1:1")


def test_no_fault_quotes_a_cell(show):
    """What a source holds is in no message, whatever is wrong with it."""
    for name in (case.name for case in TAKEN):
        ran = show(name).ran
        assert not [cell for cell in ("caf", "t\0wo", "xxxx", "three") if cell in ran.out + ran.err]


def test_two_runs_in_one_directory_at_a_time_are_refused(shell, served, warm):
    """The second says who is at work, exit code 2; `ledger` reads along; the first goes on."""
    rows = "".join(f"t-{row},{row},x\n" for row in range(2000))
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", HEADER + rows)
    command = ("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url, "--json")
    first = shell.start(*command, "--rate", "50")
    served.wait_for(10, of=first)
    second = warm.run(shell.folder, *command)
    assert (second.code, second.out) == (2, "")
    assert f"is in use by process {first.process.pid} on host" in second.err
    table = warm.run(shell.folder, "ledger", f"runs/mapping/{directory_of(shell)}")
    assert 10 <= table.out.count("UPDATED") < 2000
    first.signal(15)
    summary = json.loads(first.wait().out)
    assert summary["state"] == "interrupted"
    assert summary["outcomes"]["UPDATED"] == len(served.contacts("t-"))


def directory_of(shell: Shell) -> str:
    """The one run directory that was derived."""
    (path,) = shell.folder.glob("runs/mapping/*")
    return path.name


def test_an_output_that_cannot_be_written_is_refused(shell, warm):
    """`ledger --output` under a file: exit code 2, and what to do."""
    shell.write("ledger.jsonl", "")
    ran = warm.run(shell.folder, "ledger", ".", "--output", "ledger.jsonl/x.csv")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: ledger.jsonl/x.csv cannot be written (Not a directory); name another file with "
        "--output, or make room.\n"
    )


def test_an_output_that_is_full_is_refused(shell, warm):
    """A device without room: exit code 2 as well, since the ledger itself is whole."""
    record = {"run_id": "r", "row": 1, "operation": "update_contact", "outcome": "UPDATED"}
    shell.write("ledger.jsonl", json.dumps(record) + "\n")
    ran = warm.run(shell.folder, "ledger", ".", "--output", "/dev/full", "--format", "csv")
    assert ran.code == 2
    assert "/dev/full cannot be written (No space left on device);" in ran.err
