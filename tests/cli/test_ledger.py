"""`bulk-updater ledger`: the results, in four formats."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from bulk_updater.ledger import RunDir

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("run_dir")

RUN = "20260301T080000Z-abcdef"
RECORDS = [
    {
        "run_id": RUN,
        "row": 1,
        "source": "export.csv",
        "operation": "update_contact_attributes",
        "instance_id": "i",
        "contact_id": "1c08909d-bafe-40bd-a6ab-ae9d3cd45d75",
        "outcome": "UPDATED",
        "attempts": 2,
        "throttled": 1,
        "http_status": 200,
        "attribute_names": ["crm_id", "tier"],
        "took_ms": 0,
    },
    {
        "run_id": RUN,
        "row": 2,
        "source": "export.csv",
        "operation": "update_contact_attributes",
        "contact_id": "x" * 200,
        "outcome": "FAILED",
        "attempts": 1,
        "http_status": 404,
        "error_code": "ResourceNotFoundException",
        "error": "row 2: There is no such contact in this instance and region, or it is older "
        "than 24 months (ResourceNotFoundException, HTTP 404).",
        "took_ms": 90,
    },
    {
        "run_id": RUN,
        "row": 3,
        "source": "export.csv",
        "operation": "update_contact_attributes",
        "outcome": "INVALID",
        "error_code": "too_long",
        "error": 'row 3: InitialContactId (from "Key") has 295 characters; at most 256 are '
        "allowed.",
    },
    {
        "run_id": RUN,
        "row": 4,
        "source": "export.csv",
        "operation": "update_contact_attributes",
        "outcome": "SKIPPED",
        "error_code": "filtered",
    },
]
AGAIN = RECORDS[1] | {"outcome": "UPDATED", "attempts": 3, "error": "", "error_code": ""}


def lines_of(records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / "ledger.jsonl").write_text(lines_of(RECORDS))
    return path


TABLE = """\
    row outcome contact                              operation
      1 UPDATED 1c08909d-bafe-40bd-a6ab-ae9d3cd45d75 update_contact_attributes
      2 FAILED  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... update_contact_attributes
        There is no such contact in this instance and region, or it is older
        than 24 months (ResourceNotFoundException, HTTP 404).
      3 INVALID -                                    update_contact_attributes
        too_long: InitialContactId (from "Key") has 295 characters; at most 256
        are allowed.
      4 SKIPPED -                                    update_contact_attributes
4 results.
"""


def test_the_table_fits_80_columns(call, monkeypatch):
    """A line for each result, what is wrong below it, and how many there are."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = call("ledger run")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == TABLE
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("name", ["run", "run/", "run/ledger.jsonl"])
def test_the_ledger_itself_may_be_named(call, name):
    """The summary prints the ledger's path; that is as good as its directory's."""
    assert call(f"ledger {name}").out.endswith("\n4 results.\n")


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        ("", [1, 2, 3, 4]),
        ("--outcome failed", [2]),
        ("--outcome FAILED --outcome invalid", [2, 3]),
        ("--outcome skipped", [4]),
        ("--outcome updated", [1]),
    ],
)
def test_every_format_holds_the_same_rows(call, tmp_path, flags, rows):
    """Filtered by outcome, read back, and counted."""
    found = [
        [record["row"] for record in json.loads(call(f"ledger run {flags} --format json").out)],
        [
            int(record["row"])
            for record in csv.DictReader(io.StringIO(call(f"ledger run {flags} --format csv").out))
        ],
        [
            int(line[:7])
            for line in call(f"ledger run {flags}").out.splitlines()
            if line[:7].strip().isdigit()
        ],
    ]
    assert call(f"ledger run {flags} --output out.parquet").code == 0
    found.append(pq.read_table(tmp_path / "out.parquet")["row"].to_pylist())
    assert found == [rows] * 4


def test_no_format_loses_a_member(call, tmp_path):
    """JSON is the record as it stands, Parquet typed with nulls, CSV as text."""
    assert json.loads(call("ledger run --format json").out) == RECORDS
    call("ledger run --format parquet --output out.parquet")
    typed = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for record, row in zip(RECORDS, typed, strict=True):
        assert {key: value for key, value in row.items() if value is not None} == record
    rows = list(csv.DictReader(io.StringIO(call("ledger run --format csv").out)))
    assert rows[0]["attribute_names"] == "crm_id tier"
    assert rows[0]["took_ms"] == "0"
    assert rows[2]["error"] == RECORDS[2]["error"]
    assert len(rows[0]) == len(typed[0]) == 20


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_the_format_follows_the_name_of_the_file(call, tmp_path, suffix):
    """--output results.SUFFIX is written as its name says, and nothing is printed."""
    ran = call(f"ledger run --output results.{suffix}")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    start = {"csv": b"run_id,row,", "json": b"[\n  {", "parquet": b"PAR1"}[suffix]
    assert (tmp_path / f"results.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("flags", "out"), [("", "No results.\n"), ("--format json", "[]\n"), ("--format csv", None)]
)
def test_no_results_are_said_or_written_as_none(call, run_dir, flags, out):
    """An empty array, a header alone, a sentence."""
    (run_dir / "ledger.jsonl").write_text("")
    ran = call(f"ledger run --outcome failed {flags}")
    assert ran.code == 0
    assert ran.out == out or (out is None and ran.out.count("\n") == 1)


def test_a_row_that_was_settled_twice_counts_once(call, run_dir):
    """Of two results for one row and operation, the later one stands."""
    with (run_dir / "ledger.jsonl").open("a") as file:
        file.write(lines_of([AGAIN]))
    found = json.loads(call("ledger run --format json").out)
    assert [(record["row"], record["outcome"]) for record in found] == [
        (1, "UPDATED"),
        (3, "INVALID"),
        (4, "SKIPPED"),
        (2, "UPDATED"),
    ]


def test_a_run_that_is_still_going_on_can_be_looked_at(call, run_dir):
    """Half a record at the end is not there yet, and the lock is nobody else's business."""
    with (run_dir / "ledger.jsonl").open("a") as file:
        file.write(lines_of([AGAIN])[:50])
    (run_dir / "lock").write_text('{"pid": 1}')
    before = (run_dir / "ledger.jsonl").read_bytes()
    assert call("ledger run").out.endswith("\n4 results.\n")
    assert (run_dir / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ledger nowhere", "nowhere is no run directory: there is no ledger.jsonl in it."),
        ("ledger mapping.yaml", "mapping.yaml is no run directory"),
        ("ledger run --outcome good", "'good' is not one of"),
        ("ledger run --output results.xlsx", "does not end in .csv, .json or .parquet; say with"),
        ("ledger run --format table --output x", "A table is for the eye; for a file choose"),
        ("ledger run --output no/such/x.csv", "cannot be written (No such file or directory);"),
        ("ledger run --output run --format csv", "run cannot be written (Is a directory);"),
    ],
)
def test_what_cannot_be_done_is_refused(call, line, says):
    """Exit code 2, one line, nothing on standard output."""
    ran = call(line)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_a_ledger_that_is_damaged_in_the_middle_is_refused(call, run_dir):
    """Exit code 2, the file and the place of the damage."""
    path = run_dir / "ledger.jsonl"
    path.write_text("no result\n" + path.read_text())
    ran = call("ledger run --format json")
    assert ran.code == 2
    assert "ledger.jsonl" in ran.err


def files_of(path) -> dict[str, bytes]:
    """What is in a run directory; the lock has nothing to say when nobody holds it."""
    return {each.name: each.read_bytes() for each in path.iterdir() if each.name != "lock"}


@pytest.fixture
def damaged(run_dir) -> bytes:
    """A ledger of four results, the second of which was overwritten."""
    lines = lines_of(RECORDS).encode().splitlines(keepends=True)
    content = b"".join([lines[0], bytes(len(lines[1]) - 1) + b"\n", *lines[2:]])
    (run_dir / "ledger.jsonl").write_bytes(content)
    note = {"mapping": {"path": "mapping.yaml"}, "sources": [{"path": "my export.csv"}]}
    (run_dir / "run.json").write_text(json.dumps(note))
    return content


def test_repair_cuts_before_the_damage_and_says_what_it_did(call, run_dir, damaged):
    """What was cut, what comes again, where the original is, and how to go on; then it opens."""
    offset = damaged.index(b"\n") + 1
    ran = call("ledger run --repair")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"run/ledger.jsonl was cut at byte {offset}, before the damage. Cut off were "
        f"{len(damaged) - offset:,} bytes, with 2 whole results in them; what they settled is "
        f"sent again, in order. The ledger as it was is kept in run/ledger.jsonl.damaged-{offset}."
        "\nTo go on: give the same command again, with the options that it had: "
        "bulk-updater run mapping.yaml 'my export.csv'\n"
    )
    kept = files_of(run_dir)
    # The next run says that the two may have been sent already.
    assert json.loads(kept.pop("run.json"))["in_doubt"] == 2
    assert kept == {
        "ledger.jsonl": damaged[:offset],
        f"ledger.jsonl.damaged-{offset}": damaged,
    }
    assert call("ledger run").out.endswith("\n1 result.\n")


def test_the_command_that_the_refusal_names_is_this_one(call, run_dir, damaged):
    """Whoever is refused and does as told has a ledger that opens."""
    refused = call("ledger run").err
    command = refused.partition("`bulk-updater ")[2].partition("`")[0]
    assert call(command).code == 0
    assert call("ledger run").code == 0
    assert damaged in files_of(run_dir).values()


@pytest.mark.parametrize(
    "note",
    [None, "{", "[]", "{}", '{"mapping": 5, "sources": []}', '{"mapping": {"path": "m"}}'],
)
def test_repair_does_not_need_the_note_of_the_run(call, run_dir, damaged, note):
    """Without run.json, or with one that tells nothing, the command is not quoted."""
    assert damaged
    (run_dir / "run.json").unlink()
    if note is not None:
        (run_dir / "run.json").write_text(note)
    ran = call("ledger run/ledger.jsonl --repair")
    assert ran.code == 0
    assert ran.out.endswith(
        "\nTo go on: give the run's command again, with the options that it had.\n"
    )


@pytest.mark.parametrize("line", ["ledger run --repair", "ledger run", "ledger run --format json"])
def test_a_newer_version_s_ledger_is_neither_read_nor_repaired(call, run_dir, damaged, line):
    """What cannot be read here may be whole: exit code 2, what to install, and nothing is cut."""
    assert damaged
    (run_dir / "run.json").write_text(
        json.dumps({"format": 2, "versions": {"bulk_updater": "9.1.0"}})
    )
    before = files_of(run_dir)
    ran = call(line)
    assert (ran.code, ran.out) == (2, "")
    assert "run.json: was written by a newer version of bulk_updater (9.1.0)" in ran.err
    assert "Install that version" in ran.err
    assert files_of(run_dir) == before


def test_a_newer_version_s_run_is_not_gone_on_with(call, run_dir, tmp_path):
    """Exit code 2 and nothing is sent or written, by `run` and by `retry`; --fresh begins anew."""
    (run_dir / "ledger.jsonl").unlink()
    words = "run mapping.yaml export.csv --sandbox --run-dir run"
    assert call(words).code == 1  # some of its rows are bad
    note = json.loads((run_dir / "run.json").read_bytes())
    assert note["format"] == 1
    (run_dir / "run.json").write_text(json.dumps(note | {"format": 2}))
    before = files_of(run_dir)
    for line in (words, "retry run"):
        ran = call(line)
        assert (ran.code, ran.out) == (2, "")
        assert "written by a newer version of bulk_updater" in ran.err
        assert files_of(run_dir) == before
    assert call(f"{words} --fresh").code == 1
    assert files_of(tmp_path / "run.1") == before


def test_there_may_be_nothing_to_repair(call, run_dir):
    """A whole ledger: a sentence, exit code 0, and every file as it was."""
    before = files_of(run_dir)
    ran = call("ledger run --repair")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "run/ledger.jsonl is whole (4 results): nothing is to be repaired.\n"
    assert files_of(run_dir) == before


def test_repair_cuts_a_torn_tail_as_a_run_would(call, run_dir):
    """Half a result at the end: kept beside the ledger, and nothing is said to come again."""
    path = run_dir / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    ran = call("ledger run --repair")
    assert ran.code == 0
    assert ran.out.startswith(
        f"run/ledger.jsonl ended in the middle of a result: 50 bytes from byte {len(whole)} on "
        f"were cut off, and are kept in run/ledger.jsonl.torn-{len(whole)}.\n"
    )
    assert files_of(run_dir) == {
        "ledger.jsonl": whole,
        f"ledger.jsonl.torn-{len(whole)}": whole[:50],
    }


def test_repair_is_refused_while_a_run_works_there(call, run_dir, damaged):
    """Exit code 2, who holds the lock, and not a byte changed."""
    before = files_of(run_dir)
    with RunDir.open(run_dir):
        ran = call("ledger run --repair")
    assert (ran.code, ran.out) == (2, "")
    assert f"error: run: is in use by process {os.getpid()} on host " in ran.err
    assert files_of(run_dir) == before
    assert damaged in before.values()


def test_repair_without_room_for_the_copy_changes_nothing(call, run_dir, damaged, monkeypatch):
    """Exit code 2, the reason and the room, and every file as it was."""
    before = files_of(run_dir)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bulk_updater.ledger.repair.sync_file", full)
    ran = call("ledger run --repair")
    assert (ran.code, ran.out) == (2, "")
    assert "no copy of it can be kept: No space left on device (ENOSPC), " in ran.err
    assert " bytes free. The ledger was not changed. Make room" in ran.err
    assert files_of(run_dir) == before
    assert damaged in before.values()


@pytest.mark.parametrize("flags", ["--output x.csv", "--format csv", "--outcome failed"])
def test_repair_prints_no_results(call, run_dir, damaged, flags):
    """Together with a flag about results it is refused, before anything is touched."""
    before = files_of(run_dir)
    ran = call(f"ledger run --repair {flags}")
    assert (ran.code, ran.out) == (2, "")
    assert "--repair prints no results, so --outcome, --format and --output have no" in ran.err
    assert files_of(run_dir) == before
    assert damaged in before.values()


def test_the_environment_repairs_nothing(call, run_dir, damaged, monkeypatch):
    """A variable that was left in a shell is no decision about this ledger: exit code 2."""
    before = files_of(run_dir)
    monkeypatch.setenv("BULK_UPDATER_LEDGER_REPAIR", "1")
    for command in ("ledger run", "ledger run --format csv"):
        ran = call(command)
        assert (ran.code, ran.out) == (2, "")
        assert "--repair has to be typed; unset BULK_UPDATER_LEDGER_REPAIR" in ran.err
    assert files_of(run_dir) == before
    assert damaged in before.values()


def test_a_run_never_repairs_by_itself(call, run_dir, damaged):
    """A run over a damaged ledger: exit code 2, the offset, and every file byte for byte."""
    (run_dir / "ledger.jsonl").unlink()
    (run_dir / "run.json").unlink()
    assert call("run mapping.yaml export.csv --sandbox --run-dir run --limit 2").code == 0
    path = run_dir / "ledger.jsonl"
    path.write_bytes(b"X" + path.read_bytes())
    before = path.read_bytes()
    ran = call("run mapping.yaml export.csv --sandbox --run-dir run")
    assert (ran.code, ran.out) == (2, "")
    assert "line 1, from byte 0, is not a result, but results follow it from byte " in ran.err
    assert "`bulk-updater ledger run --repair` keeps a copy" in ran.err
    assert path.read_bytes() == before
    assert not list(run_dir.glob("ledger.jsonl.*"))
    assert damaged


def test_parquet_is_not_written_to_a_terminal(call, monkeypatch):
    """A screen full of bytes helps nobody."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    ran = call("ledger run --format parquet")
    assert ran.code == 2
    assert "Parquet is nothing for a terminal; name a file with --output." in ran.err
