"""Cutting a ledger before damage in its middle: a copy first, and in the order of the rows."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from ledger_cases import line, no_sync, rows_in

from bulk_updater.errors import LedgerCorrupt, LedgerError, LedgerWriteError
from bulk_updater.ledger import Repair, recover, repair_ledger
from bulk_updater.ledger import records as records_module
from bulk_updater.ledger import repair as repairing

WHOLE = b"".join(line(row) for row in (1, 2, 3))
BEHIND = b"".join(line(row) for row in (5, 6)) + b"more damage\n" + line(7)
DAMAGED = WHOLE + b"garbage\n" + BEHIND


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(DAMAGED)
    return path


@pytest.fixture
def kept_path(path):
    return path.with_name(f"ledger.jsonl.damaged-{len(WHOLE)}")


def names_in(path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_ledger_is_cut_before_the_first_damage_and_kept_whole(path, kept_path):
    """The prefix stays, all of it is in a private copy, and the figures tell what was cut."""
    repaired = repair_ledger(path)
    assert repaired == Repair(
        n_lines=3,
        size_bytes=len(WHOLE),
        cut_bytes=len(DAMAGED) - len(WHOLE),
        n_behind=3,
        kept_path=kept_path,
    )
    assert path.read_bytes() == WHOLE
    assert kept_path.read_bytes() == DAMAGED
    assert stat.S_IMODE(kept_path.stat().st_mode) == 0o600
    assert names_in(path) == [path.name, kept_path.name]
    assert recover(path, sync=no_sync).n_lines == 3


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
def test_records_behind_the_damage_are_counted_however_it_is_read(path, monkeypatch, block_bytes):
    """Whole records behind several bad lines, and behind one that is longer than any record."""
    monkeypatch.setattr(records_module, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(records_module, "MAX_RECORD_BYTES", 200)
    path.write_bytes(DAMAGED + b"x" * 1000 + line(8) + line(9) + line(10)[:-1])
    # Row 8 is the end of an overlong line, row 10 has no newline.
    assert repair_ledger(path).n_behind == 4


def test_a_second_damage_at_the_same_place_keeps_both_copies(path, kept_path):
    """No older copy is overwritten, not even one that is only a dangling link."""
    kept = [repair_ledger(path).kept_path]
    path.with_name(f"{kept_path.name}.2").symlink_to("nowhere")
    again = WHOLE + b"other garbage\n" + line(9)
    path.write_bytes(again)
    kept.append(repair_ledger(path).kept_path)
    assert [each.name for each in kept] == [kept_path.name, f"{kept_path.name}.3"]
    assert [each.read_bytes() for each in kept] == [DAMAGED, again]


def test_a_whole_ledger_and_a_missing_one_are_left_alone(path):
    """Nothing is cut, nothing is kept, nothing is created."""
    path.write_bytes(WHOLE)
    assert repair_ledger(path) == Repair(n_lines=3, size_bytes=len(WHOLE))
    assert (path.read_bytes(), names_in(path)) == (WHOLE, [path.name])
    path.unlink()
    assert repair_ledger(path) == Repair(n_lines=0, size_bytes=0)
    assert names_in(path) == []


def test_a_torn_tail_is_cut_as_recovery_does_it(path):
    """Without a record behind the bad line, only the tail is kept."""
    path.write_bytes(WHOLE + b"garbage\nhalf")
    repaired = repair_ledger(path)
    assert (repaired.cut_bytes, repaired.n_behind) == (12, 0)
    assert path.read_bytes() == WHOLE
    assert repaired.kept_path.name == f"ledger.jsonl.torn-{len(WHOLE)}"
    assert repaired.kept_path.read_bytes() == b"garbage\nhalf"


def test_the_copy_is_on_the_disk_before_the_ledger_is_cut(path, kept_path, monkeypatch):
    """Synced in turn: the copy, its name, the cut ledger; the ledger is whole until the third."""
    steps = []

    def note(what):
        steps.append((what, path.stat().st_size, kept_path.exists()))

    monkeypatch.setattr(
        repairing, "sync_file", lambda fd: note(f"file of {os.fstat(fd).st_size} bytes")
    )
    monkeypatch.setattr(repairing, "sync_directory", lambda _: note("directory"))
    repair_ledger(path)
    assert steps == [
        (f"file of {len(DAMAGED)} bytes", len(DAMAGED), False),
        ("directory", len(DAMAGED), True),
        (f"file of {len(WHOLE)} bytes", len(WHOLE), True),
    ]


@pytest.mark.parametrize("step", ["sync_file", "private_opener", "_free_name"])
def test_a_copy_that_cannot_be_made_changes_nothing(path, monkeypatch, step):
    """The reason and the room are told; the ledger stays, and half a copy goes."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(repairing, step, full)
    with pytest.raises(LedgerWriteError, match=r"No space left on device \(ENOSPC\), .*free\. The"):
        repair_ledger(path)
    assert (path.read_bytes(), names_in(path)) == (DAMAGED, [path.name])


def test_a_name_that_may_not_be_on_the_disk_is_no_copy(path, kept_path, monkeypatch):
    """When the directory cannot be synced nothing is cut, and the copy stays."""

    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(repairing, "sync_directory", broken)
    with pytest.raises(LedgerWriteError, match="The ledger was not changed"):
        repair_ledger(path)
    assert path.read_bytes() == kept_path.read_bytes() == DAMAGED


def test_a_ledger_that_cannot_be_cut_names_its_copy(path, kept_path, monkeypatch):
    """The cut fails: the message says where the ledger is kept as it was."""

    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(repairing, "cut", broken)
    with pytest.raises(
        LedgerWriteError, match=r"could not be cut at byte \d+: .*\(EIO\)"
    ) as caught:
        repair_ledger(path)
    assert str(kept_path) in caught.value.message
    assert path.read_bytes() == kept_path.read_bytes() == DAMAGED


def test_what_an_earlier_attempt_left_is_in_nobody_s_way(path, kept_path):
    """Half a copy of a repair that was killed is replaced, mode and all."""
    path.with_name("ledger.jsonl.damaged.tmp").write_bytes(b"half" * 1000)
    repair_ledger(path)
    assert kept_path.read_bytes() == DAMAGED
    assert names_in(path) == [path.name, kept_path.name]
    assert rows_in(path) == [1, 2, 3]


def test_a_ledger_that_cannot_be_read_is_a_ledger_error(path):
    """A directory in its place is named."""
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerError, match=r"\(EISDIR\)"):
        repair_ledger(path)


def test_only_repair_cuts(path):
    """Recovery of the same ledger is refused and changes nothing, before and after."""
    with pytest.raises(LedgerCorrupt):
        recover(path)
    assert (path.read_bytes(), names_in(path)) == (DAMAGED, [path.name])
    repair_ledger(path)
    assert recover(path, sync=no_sync).settled.count() == 3
