"""Reading a ledger that is finished, or that a run is writing."""

from __future__ import annotations

import errno
import os
import tempfile
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_cases import ATTRIBUTES, CONTACT, RUN_ID, line, result, rows_in

from bulk_updater._version import __version__
from bulk_updater.errors import LedgerCorrupt, LedgerError, LedgerMismatch
from bulk_updater.ledger import (
    read_results,
    records,
    recover,
    recovery,
    repair_ledger,
    standing_results,
)
from bulk_updater.ledger.records import encode
from bulk_updater.model import Outcome, Result


def test_a_missing_ledger_has_no_results(tmp_path):
    """A run that has not written yet reads as empty, both ways."""
    assert list(read_results(tmp_path / "ledger.jsonl")) == []
    assert list(standing_results(tmp_path / "ledger.jsonl")) == []


def test_a_record_that_is_being_written_is_left_out_until_it_is_whole(tmp_path):
    """A reader beside a run sees whole records only, and the file is not touched."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line(1) + line(2)[:-1])
    assert rows_in(path) == [1]
    assert path.read_bytes() == line(1) + line(2)[:-1]
    with path.open("ab") as file:
        file.write(b"\n")
    assert rows_in(path) == [1, 2]


def test_a_reader_takes_what_is_appended_while_it_reads(tmp_path):
    """Records that come after the file was opened are read too."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line(1))
    records = read_results(path)
    assert next(records)["row"] == 1
    with path.open("ab") as file:
        file.write(line(2))
    assert [record["row"] for record in records] == [2]


class _BadSector(FileIO):
    """A file of which only the beginning can be read."""

    readable_bytes = 0

    def read(self, size=-1):
        if self.tell() >= self.readable_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """A ledger of three results, on a disk that gives only the first two."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line(1) + line(2) + line(3))
    monkeypatch.setattr(records, "_BLOCK_BYTES", len(line(1)))
    monkeypatch.setattr(_BadSector, "readable_bytes", len(line(1) + line(2)))
    for module in (records, recovery):
        monkeypatch.setattr(module, "open_to_read", _BadSector)
    return path


def test_a_disk_that_fails_while_it_is_read_is_told_after_what_was_read(failing):
    """A reader gets every result before the bad sector, then an error that names the ledger."""
    reading, rows = read_results(failing), []
    with pytest.raises(LedgerError, match=r"cannot be read: .*\(EIO\).*the disk") as caught:
        rows.extend(record["row"] for record in reading)
    assert (rows, caught.value.path) == ([1, 2], failing)
    with pytest.raises(LedgerError, match="EIO"):
        next(standing_results(failing))  # which result stands, nobody knows


def test_a_disk_that_fails_while_it_is_read_is_no_torn_tail(failing):
    """Recovery cuts nothing that it could not read: the ledger stays, and no copy is made."""
    whole = failing.read_bytes()
    with pytest.raises(LedgerError, match=r"\(EIO\)"):
        recover(failing)
    assert failing.read_bytes() == whole
    assert [entry.name for entry in failing.parent.iterdir()] == [failing.name]


def test_standing_results_are_told_before_any_is_yielded_whether_the_ledger_is_damaged(tmp_path):
    """A damaged ledger yields no standing result: a later one might have replaced it."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line(1) + b"garbage\n" + line(2))
    with pytest.raises(LedgerCorrupt):
        next(standing_results(path))


def test_standing_results_leave_out_what_came_after_they_were_counted(tmp_path):
    """A run that goes on does not change which result stands for a reader that has begun."""
    path = tmp_path / "ledger.jsonl"
    for first in (line(1) + line(2, Outcome.FAILED), line(1) + line(1) + line(2, Outcome.FAILED)):
        path.write_bytes(first)
        standing = standing_results(path)
        assert next(standing)["row"] == 1
        with path.open("ab") as file:
            file.write(line(2, Outcome.UPDATED) + line(3))
        assert [(r["row"], r["outcome"]) for r in standing] == [(2, "FAILED")]


NEWER = line(3).replace(b"UPDATED", b"DEFERRED_LATER")


@pytest.mark.parametrize("behind", [b"", line(4), line(4)[:20], bytes(100)])
@pytest.mark.parametrize("before", [b"", line(1) + line(2)])
@pytest.mark.parametrize(
    "read",
    [
        recover,
        repair_ledger,
        lambda path: list(read_results(path)),
        lambda p: next(standing_results(p)),
    ],
    ids=["recover", "repair", "read", "standing"],
)
def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path, read, before, behind):
    """An outcome unknown here is no torn tail and no damage: nothing is cut; upgrading helps."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(before + NEWER + behind)
    with pytest.raises(LedgerMismatch) as caught:
        read(path)
    assert caught.value.message == (
        f"{path}: was written by a newer version of bulk_updater: behind byte {len(before)} it "
        f"holds a result with the outcome DEFERRED_LATER, which this one, {__version__}, does not "
        "know. Nothing was changed. Install that version and give the same command again, or "
        "begin anew with --fresh."
    )
    assert path.read_bytes() == before + NEWER + behind
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_newer_outcome_behind_a_bad_line_is_no_torn_tail(tmp_path):
    """What follows a bad line is not cut where a newer version wrote it."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line(1) + b"garbage\n" + NEWER)
    for read in (recover, repair_ledger):
        with pytest.raises(LedgerMismatch):
            read(path)
    assert path.read_bytes() == line(1) + b"garbage\n" + NEWER


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_with_a_letter_damaged_is_no_newer_one(tmp_path, outcome):
    """One letter changed, lost or added is damage, as anywhere else in a line."""
    name = outcome.value.encode()
    for at in range(len(name)):
        for damaged in (b"Q" + name[at + 1 :], name[at + 1 :], b"Q" + name[at:]):
            path = tmp_path / "ledger.jsonl"
            bad = line(2, outcome).replace(name, name[:at] + damaged)
            path.write_bytes(line(1) + bad + line(3))
            with pytest.raises(LedgerCorrupt):
                recover(path)


@given(
    keys=st.lists(
        st.tuples(
            st.integers(1, 3), st.sampled_from([ATTRIBUTES, CONTACT]), st.sampled_from(Outcome)
        ),
        max_size=120,
    )
)
def test_the_last_record_of_each_row_and_operation_stands(keys):
    """Each (row, operation) comes once, as its last line has it, in file order, however often."""
    lines = [
        encode(result(row, outcome, operation=operation, attempts=number), RUN_ID)
        for number, (row, operation, outcome) in enumerate(keys, start=1)
    ]
    last = {(row, operation): number for number, (row, operation, _) in enumerate(keys, start=1)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(b"".join(lines))
        standing = list(standing_results(path))
    assert [record["attempts"] for record in standing] == sorted(last.values())


def test_a_row_with_many_records_stands_once(tmp_path):
    """Forty lines of one row, more than half a byte counts, still end in the fortieth."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(line(1, attempts=n) + line(2, attempts=n) for n in range(1, 41)))
    assert [(r["row"], r["attempts"]) for r in standing_results(path)] == [(1, 40), (2, 40)]


def test_a_source_whose_name_is_not_utf_8_is_written_with_escapes(tmp_path):
    """A name that UTF-8 cannot hold costs no row its result."""
    path = tmp_path / "ledger.jsonl"
    odd = Result(
        row=1,
        source="export-\udcff.csv",
        operation=CONTACT,
        outcome=Outcome.UPDATED,
        attribute_names=("\ud800", "plain"),
    )
    path.write_bytes(encode(odd, RUN_ID))
    (record,) = read_results(path)
    assert record["source"] == "export-\\udcff.csv"
    assert record["attribute_names"] == ["\\ud800", "plain"]


@pytest.mark.parametrize(
    ("row", "operation", "run_id"),
    [
        (0, CONTACT, RUN_ID),
        (-1, CONTACT, RUN_ID),
        (True, CONTACT, RUN_ID),
        (1, "", RUN_ID),
        (1, CONTACT, ""),
    ],
)
def test_what_recovery_would_not_take_back_is_not_written(row, operation, run_id):
    """A result without a row number, an operation or a run is refused before it is in the file."""
    with pytest.raises(ValueError, match="is not a result"):
        encode(result(row, operation=operation), run_id)
