"""Every way of breaking a ledger, and what is left of it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_cases import ATTRIBUTES, CONTACT, RUN_ID, line, no_sync, result, results, rows_in

from bulk_updater.errors import LedgerCorrupt, LedgerError, LedgerWriteError
from bulk_updater.ledger import Ledger, Recovery, read_results, records, recover, recovery
from bulk_updater.ledger.records import encode
from bulk_updater.model import Outcome

WHOLE = b"".join(line(row) for row in (1, 2, 3))

TORN_TAILS = {
    "half a record": line(4)[:40],
    "a record without its newline": line(4)[:-1],
    "NULs": bytes(5000),
    "NULs and a newline": bytes(100) + b"\n",
    "garbage": bytes(range(256)) + b"\n\xff\xfe\n{}",
    "an empty line": b"\n",
    "a record of row 0": line(4).replace(b'"row":4', b'"row":0'),
    "a record whose row is true": line(4).replace(b'"row":4', b'"row":true'),
    "a record whose row is a fraction": line(4).replace(b'"row":4', b'"row":4.0'),
    "a record whose row is text": line(4).replace(b'"row":4', b'"row":"4"'),
    "a record without a row": line(4).replace(b'"row":4', b'"now":4'),
    "an outcome with a letter damaged": line(4).replace(b"UPDATED", b"UPDATES"),
    "an outcome that is a list": line(4).replace(b'"UPDATED"', b'["UPDATED"]'),
    "an operation that is a number": line(4).replace(b'"update_contact"', b"5"),
    "a run that is null": line(4).replace(b'"run-1"', b"null"),
    "JSON that is no object": b"[1]\n5\nnull\n",
    "a record that begins behind NULs": bytes(10) + line(4),
    "longer than any record, without a newline": b"x" * (3 << 20),
    "longer than any record, with a newline": line(4)[:-2] + b" " * (2 << 20) + b"}\n",
    "longer than any record, then half a record": b"x" * (3 << 20) + b"\n" + line(4)[:-9],
}


def test_a_missing_ledger_is_empty_and_is_not_created(tmp_path):
    """Recovering what is not there yields nothing and leaves nothing."""
    recovered = recover(tmp_path / "ledger.jsonl")
    assert (recovered.n_lines, recovered.size_bytes, recovered.torn_path) == (0, 0, None)
    assert recovered.settled.count() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_whole_ledger_is_read_back_and_left_as_it_is(tmp_path):
    """Rows, outcomes, runs and lengths come back; not a byte of the file changes."""
    path = tmp_path / "ledger.jsonl"
    content = (
        line(1)
        + line(2, Outcome.FAILED)
        + line(1, operation=ATTRIBUTES)
        + encode(result(2), "run-2")
        + line(3, Outcome.SKIPPED)
    )
    path.write_bytes(content)
    recovered = recover(path)
    assert recovered.n_lines == 5
    assert recovered.size_bytes == len(content)
    assert (recovered.torn_bytes, recovered.torn_path) == (0, None)
    assert recovered.run_ids == (RUN_ID, "run-2")
    assert recovered.settled.count() == 4
    assert recovered.settled.outcome_of(2, CONTACT) is Outcome.UPDATED
    assert recovered.settled.outcomes()[Outcome.FAILED] == 0
    assert path.read_bytes() == content


def test_records_that_a_killed_run_left_are_synced_before_they_count(tmp_path):
    """Recovery syncs the ledger also when there is nothing to cut."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(WHOLE)
    inodes = []
    recover(path, sync=lambda fd: inodes.append(os.fstat(fd).st_ino))
    assert inodes == [path.stat().st_ino]


@pytest.mark.parametrize("tail", TORN_TAILS.values(), ids=TORN_TAILS)
def test_a_torn_tail_is_kept_beside_the_ledger_and_cut(tmp_path, tail):
    """Whatever is behind the last record goes to its own file, byte for byte, mode 0600."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(WHOLE + tail)
    recovered = recover(path)
    torn_path = tmp_path / f"ledger.jsonl.torn-{len(WHOLE)}"
    assert recovered.n_lines == recovered.settled.count() == 3
    assert recovered.size_bytes == len(WHOLE)
    assert (recovered.torn_bytes, recovered.torn_path) == (len(tail), torn_path)
    assert path.read_bytes() == WHOLE
    assert torn_path.read_bytes() == tail
    assert stat.S_IMODE(torn_path.stat().st_mode) == 0o600

    assert recover(path).torn_bytes == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.jsonl", torn_path.name]


@pytest.mark.parametrize("damage", TORN_TAILS.values(), ids=TORN_TAILS)
def test_the_same_bytes_before_a_record_are_damage_and_nothing_is_touched(tmp_path, damage):
    """A bad line with a record behind it is refused, with its offset and what to do."""
    path = tmp_path / "ledger.jsonl"
    damage = damage if damage.endswith(b"\n") else damage + b"\n"
    if damage == line(4):  # ended by the newline that it lacked, it is a record
        damage = line(4)[:-2] + b"\n"
    content = WHOLE + damage + line(5)
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt) as caught:
        recover(path)
    assert caught.value.offset == len(WHOLE)
    assert caught.value.path == path
    assert "line 4, from byte" in caught.value.message
    assert f"from byte {len(WHOLE + damage)}:" in caught.value.message
    assert f"`bulk-updater ledger {tmp_path} --repair`" in caught.value.message
    assert f"cuts the ledger at byte {len(WHOLE)};" in caught.value.message
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.jsonl"]

    with pytest.raises(LedgerCorrupt):
        rows_in(path)


async def test_cut_at_every_byte_what_is_left_can_be_gone_on_with(tmp_path):
    """At every length, whole lines survive, and ten more records are appended and read back."""
    lines = [
        line(1),
        line(2, Outcome.FAILED, error="Zeile 2, Regel »länge«: 5 > 4", attempts=8),
        line(2),
        line(3, operation=ATTRIBUTES, attribute_names=("a", "b")),
    ]
    content = b"".join(lines)
    ends = [len(b"".join(lines[:n])) for n in range(len(lines) + 1)]
    n_settled = [0, 1, 2, 2, 3]  # row 2 has two lines
    more = [result(row) for row in range(100, 110)]
    for length in range(len(content) + 1):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(content[:length])
        n_whole = sum(end <= length for end in ends) - 1
        async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
            assert ledger.recovery.n_lines == n_whole
            assert ledger.recovery.size_bytes == ends[n_whole]
            assert ledger.recovery.torn_bytes == length - ends[n_whole]
            await ledger.append(*more)
            assert ledger.settled.count() == n_settled[n_whole] + 10
        after = path.read_bytes()
        assert after == content[: ends[n_whole]] + b"".join(encode(r, RUN_ID) for r in more)
        assert len(await asyncio.to_thread(rows_in, path)) == n_whole + 10


def test_two_tears_at_one_offset_keep_both_tails(tmp_path):
    """The tail of the first time is not overwritten by that of the second."""
    path = tmp_path / "ledger.jsonl"
    tails = [b"first", b"second", b"third"]
    kept = []
    for tail in tails:
        path.write_bytes(WHOLE + tail)
        kept.append(recover(path).torn_path)
    first = f"ledger.jsonl.torn-{len(WHOLE)}"
    assert [p.name for p in kept] == [first, f"{first}.2", f"{first}.3"]
    assert [p.read_bytes() for p in kept] == tails


def test_the_tail_is_on_the_disk_before_it_is_cut(tmp_path):
    """The first sync is of the whole copy, while the ledger has its tail; the second its own."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(WHOLE + b"torn")
    seen = []

    def sync(fd):
        seen.append((os.fstat(fd).st_size, path.stat().st_size))

    recover(path, sync=sync)
    assert seen == [(len(b"torn"), len(WHOLE + b"torn")), (len(WHOLE), len(WHOLE))]


def test_a_tail_that_cannot_be_kept_is_not_cut(tmp_path):
    """On a full disk nothing is lost: the ledger stays, half a copy goes, the message says why."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(WHOLE + b"torn")

    def sync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(LedgerWriteError, match=r"No space left on device \(ENOSPC\).*bytes free"):
        recover(path, sync=sync)
    assert path.read_bytes() == WHOLE + b"torn"
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.jsonl"]
    assert recover(path).torn_bytes == 4


def test_the_directory_is_synced_after_the_copy_and_after_the_cut(tmp_path, monkeypatch):
    """A power failure takes neither the copy's name nor the cut."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(WHOLE + b"torn")
    sizes = []
    monkeypatch.setattr(recovery, "sync_directory", lambda _: sizes.append(path.stat().st_size))
    recover(path)
    assert sizes == [len(WHOLE + b"torn"), len(WHOLE)]


def test_recovery_that_is_stopped_changes_nothing(tmp_path):
    """Who gives up reading finds the ledger as it was, torn tail and all."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(WHOLE + b"torn")
    stop = threading.Event()
    stop.set()
    with pytest.raises(LedgerError, match="given up"):
        recover(path, stop=stop)
    assert path.read_bytes() == WHOLE + b"torn"


def test_a_ledger_that_cannot_be_opened_is_a_ledger_error(tmp_path):
    """A directory in the ledger's place is named, not a traceback."""
    path = tmp_path / "ledger.jsonl"
    path.mkdir()
    with pytest.raises(LedgerError, match=r"cannot be read: .*\(EISDIR\)"):
        recover(path)


def _parse(raw: bytes, max_bytes: int) -> dict | None:
    """A record by the letter of the format, with another parser."""
    if len(raw) > max_bytes:
        return None
    try:
        value = json.loads(raw.decode())
    except ValueError:
        return None
    is_record = (
        isinstance(value, dict)
        and isinstance(value.get("row"), int)
        and not isinstance(value["row"], bool)
        and value["row"] >= 1
        and value.get("outcome") in [str(outcome) for outcome in Outcome]
        and isinstance(value.get("operation"), str)
        and isinstance(value.get("run_id"), str)
    )
    return value if is_record else None


def _expected(content: bytes, max_bytes: int) -> tuple[list[dict], int, bool]:
    """The records before the first bad line, where they end, and whether a record follows."""
    lines = content.split(b"\n")[:-1]
    parsed = [_parse(raw, max_bytes) for raw in lines]
    n_good = parsed.index(None) if None in parsed else len(parsed)
    end = sum(len(raw) + 1 for raw in lines[:n_good])
    return parsed[:n_good], end, any(record is not None for record in parsed[n_good:])


PIECES = (
    st.integers(1, 9).map(line)
    | st.builds(line, st.integers(1, 9), st.sampled_from(Outcome))
    | results(9).map(lambda r: encode(r, RUN_ID))
    | st.sampled_from([*TORN_TAILS.values()]).filter(lambda tail: len(tail) < 10_000)
    | st.binary(max_size=40)
    | st.sampled_from([b"\n", b"{}\n", b"\0", b"\r\n"])
)


@given(
    content=st.binary() | st.lists(PIECES, max_size=8).map(b"".join),
    block_bytes=st.sampled_from([1, 7, 64, 1 << 20]),
    max_bytes=st.sampled_from([94, 200, 1 << 20]),
)
def test_any_bytes_are_recovered_or_refused_and_nothing_is_lost(content, block_bytes, max_bytes):
    """Any file: what the valid prefix holds, or LedgerCorrupt; every byte is still somewhere."""
    good, end, is_damaged = _expected(content, max_bytes)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(records, "_BLOCK_BYTES", block_bytes),
        patch.object(records, "MAX_RECORD_BYTES", max_bytes),
    ):
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(content)
        streamed = read_results(path)
        if is_damaged:
            with pytest.raises(LedgerCorrupt) as caught:
                recover(path, sync=no_sync)
            assert caught.value.offset == end
            assert path.read_bytes() == content
            assert [next(streamed) for _ in good] == good
            with pytest.raises(LedgerCorrupt):
                next(streamed)
            return
        assert list(streamed) == good
        recovered = recover(path, sync=no_sync)
        last = {(record["row"], record["operation"]): record["outcome"] for record in good}
        assert recovered.n_lines == len(good)
        assert recovered.size_bytes == end
        assert recovered.settled.count() == len(last)
        assert all(recovered.settled.outcome_of(*key) == last[key] for key in last)
        assert recovered.run_ids == tuple(dict.fromkeys(record["run_id"] for record in good))
        kept = recovered.torn_path.read_bytes() if recovered.torn_path else b""
        assert path.read_bytes() + kept == content
        assert recover(path, sync=no_sync).torn_bytes == 0


@given(many=st.lists(results(), max_size=10))
def test_any_results_come_back_as_they_were_written(many):
    """What `to_record` says is what a reader gets, whatever characters are in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(b"".join(encode(r, RUN_ID) for r in many))
        expected = [r.to_record(RUN_ID) for r in many]
        for record in expected:
            if "attribute_names" in record:
                record["attribute_names"] = list(record["attribute_names"])
        assert list(read_results(path)) == expected
        assert isinstance(recover(path, sync=no_sync), Recovery)
