"""`retry` and a mended `failed.csv` as real processes, against a sandbox that is served."""

from __future__ import annotations

import csv
import json
import signal

import pytest

from .conftest import INSTANCE, MAPPING, Served, ledger_of, standing

ATTRIBUTES = "update_contact_attributes"
RUN = ("--run-dir", "run", "--rate", "1000", "--max-failures", "none", "--max-attempts", "1")


@pytest.fixture
def contacts(shell):
    """Serves a sandbox that knows some contacts."""

    def serve(*names: str, latency_ms: int = 5) -> Served:
        shell.write("contacts.txt", "\n".join(names) + "\n")
        flags = ("--rate", "100000", "--burst", "100000", "--latency-ms", str(latency_ms))
        return Served(shell, *flags, "--contacts", "contacts.txt")

    return serve


def write_export(shell, *rows: str) -> None:
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", "\n".join(["Contact,Number,Note", *rows, ""]))


def test_failed_rows_are_retried_when_their_contacts_are_there(shell, contacts):
    """Exit code 1, then 0: the failed row and nothing else is sent, to where the command says."""
    write_export(shell, "c-1,1,one", "late,2,two", "late,,older", "c-3,3,three", "late,4,")
    served = contacts("c-1", "c-3")
    first = shell.run("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url, *RUN)
    assert first.code == 1
    assert served.stop().code == 0

    served = contacts("late")
    nothing = shell.run("retry", "run", "--code", "Other", "--endpoint-url", served.url)
    assert nothing.code == 1
    assert "Nothing to retry; 3 with other codes left as they are" in nothing.err
    assert served.received() == 0
    again = shell.run("retry", "run", "--endpoint-url", served.url, "--json")
    assert again.code == 0
    assert json.loads(again.out)["outcomes"]["UPDATED"] == 5
    assert served.attributes() == {"late": {"number": "4", "note": "older"}}
    ledger = shell.folder / "run" / "ledger.jsonl"
    assert set(standing(ledger).values()) == {"UPDATED"}
    assert len(ledger_of(ledger)) == 8
    assert not (shell.folder / "run" / "failed.csv").exists()


def test_a_retry_that_is_killed_is_gone_on_with_by_the_same_command(shell, contacts):
    """SIGKILL in the middle: what it settled is not sent again, but for what was in flight."""
    names = [f"c-{row}" for row in range(40)]
    write_export(shell, *(f"{name},{row},note" for row, name in enumerate(names)))
    served = contacts("nobody")
    flags = ("--endpoint-url", served.url, *RUN)
    assert shell.run("run", "mapping.yaml", "export.csv", *flags).code == 1
    served.stop()

    served = contacts(*names, latency_ms=50)
    command = ("retry", "run", "--endpoint-url", served.url, "--max-in-flight", "2")
    started = shell.start(*command)
    served.wait_for(10, of=started)
    started.signal(signal.SIGKILL)
    started.wait()
    ledger = shell.folder / "run" / "ledger.jsonl"
    left = list(standing(ledger).values()).count("FAILED")
    assert 0 < left < 40
    n_before = served.received()
    assert shell.run(*command).code == 0
    assert served.received() - n_before == left
    assert served.received() <= 40 + 2
    assert served.attributes() == {
        name: {"number": str(row), "note": "note"} for row, name in enumerate(names)
    }


def test_a_changed_mapping_is_refused_with_what_to_do(shell, contacts):
    """Exit code 2, nothing sent: the failed rows are a run of their own, by the command shown."""
    write_export(shell, "c-1,1,one")
    served = contacts("nobody")
    flags = ("--endpoint-url", served.url, *RUN)
    assert shell.run("run", "mapping.yaml", "export.csv", *flags).code == 1
    shell.write("mapping.yaml", MAPPING + "    more: x\n")
    n_before = served.received()
    refused = shell.run("retry", "run")
    assert refused.code == 2
    assert "the mapping is not what the run had" in refused.err
    assert "bulk-updater run mapping.yaml run/failed.csv" in refused.err
    assert served.received() == n_before


@pytest.mark.parametrize("flags_of_mending", [(), ("--mends", "run")])
def test_the_run_of_a_mended_copy_is_found_or_told(shell, contacts, flags_of_mending):
    """Saved beside its run or told with --mends: exit code 0, and nothing is undone."""
    rows = ["c-1,old,older", "c-1,new,"]
    write_export(shell, *rows)
    shell.write("mapping.yaml", MAPPING.replace('"{Note}"', "{column: Note, map: {good: good}}"))
    served = contacts("c-1")
    flags = ("--endpoint-url", served.url, "--rate", "1000")
    assert shell.run("run", "mapping.yaml", "export.csv", "--run-dir", "run", *flags).code == 1
    with (shell.folder / "run" / "failed.csv").open(newline="") as file:
        header, failed = csv.reader(file)
    failed[header.index("Note")] = "good"
    with (shell.folder / "mended.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, failed])
    told = shell.run("run", "mapping.yaml", "mended.csv", *flags_of_mending, *flags)
    assert told.code == 0
    is_found = "mended.csv: its rows come from the run in run." in told.err
    assert is_found == (not flags_of_mending)
    assert "warning" not in told.err.lower()
    assert served.attributes() == {"c-1": {"number": "new", "note": "good"}}
    assert INSTANCE not in told.err


def test_a_mended_copy_of_a_run_that_is_not_there_is_warned_of(shell, contacts):
    """Exit code 0: its rows are sent whole, and standard error says what that may overwrite."""
    write_export(shell, "c-1,old,older")
    header = "Contact,Number,Note,_row,_operation"
    shell.write("mended.csv", f"{header}\nc-1,old,older,1,{ATTRIBUTES}\n")
    served = contacts("c-1")
    flags = ("--endpoint-url", served.url, "--rate", "1000")
    ran = shell.run("run", "mapping.yaml", "mended.csv", *flags)
    assert ran.code == 0
    assert ran.err.count("its rows may overwrite later ones") == 1
    assert served.attributes() == {"c-1": {"number": "old", "note": "older"}}
    assert served.received() == 1
