"""Thousands of rows that are not sent at once: the lines and the promises of `append`."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_cases import CONTACT, RUN_ID, HeldSync, line, no_sync, result, rows_in

from bulk_updater.errors import LedgerWriteError
from bulk_updater.ledger import Ledger, bulk, recover, writer
from bulk_updater.ledger.bulk import encode_block, longest_line
from bulk_updater.ledger.records import MAX_RECORD_BYTES, encode
from bulk_updater.model import Outcome, Result

NOON_S = 1_772_352_000.25


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that are not sent, as the mapping makes them."""

    rows: Any
    source: str = "crm.csv"
    operation: str = CONTACT
    outcome: Outcome = Outcome.UNCHANGED
    error_code: str | None = None
    instance_ids: Any = field(default=None)
    contact_ids: Any = field(default=None)
    digests: Any = field(default=None)

    def __len__(self):
        return len(self.rows)


def block_of(rows, instances=None, contacts=None, digests=None, **more):
    rows = list(rows)

    def texts(given, default):
        found = given if given is not None else [default.format(row) for row in rows]
        return pa.array(["cut off", *found], pa.string()).slice(1)  # as a part of a frame has them

    return Block(
        np.array(rows, dtype=np.int64),
        instance_ids=texts(instances, "instance"),
        contact_ids=texts(contacts, "contact-{}"),
        digests=np.array(digests if digests is not None else rows, dtype=np.uint64),
        **more,
    )


def results_of(block, finished_at):
    """What the rows' results are one by one."""
    return [
        Result(
            row=row,
            source=block.source,
            operation=block.operation,
            outcome=block.outcome,
            instance_id=instance_id,
            contact_id=contact_id,
            error_code=block.error_code,
            payload_digest=f"{digest:016x}" if digest else None,
            finished_at=finished_at,
        )
        for row, instance_id, contact_id, digest in zip(
            block.rows.tolist(),
            block.instance_ids.to_pylist(),
            block.contact_ids.to_pylist(),
            block.digests.tolist(),
            strict=True,
        )
    ]


def lines_of(block, finished_at=NOON_S):
    return b"".join(encode(each, RUN_ID) for each in results_of(block, finished_at))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", '"', "\\", '\\"row":1,', '"row":1,', "\0\x1f\x7f\u2028", "1", '","outcome":"', "é😀"]
)
ROWS = st.lists(
    st.tuples(
        st.integers(1, 1 << 60), TEXT, TEXT, st.integers(0, (1 << 64) - 1) | st.integers(0, 2)
    ),
    min_size=1,
    max_size=6,
)


@given(
    rows=ROWS,
    one_instance=st.booleans(),
    names=st.fixed_dictionaries(
        {
            "source": TEXT | st.just("export-\udcff.csv"),
            "operation": st.text(min_size=1, max_size=8),
            "outcome": st.sampled_from(Outcome),
            "error_code": st.none() | TEXT,
        }
    ),
    finished_at=st.floats(min_value=0, max_value=4e9),
)
def test_a_blocks_lines_are_those_of_its_results(rows, one_instance, names, finished_at):
    """Whatever stands in ids and names, each line is byte for byte what `encode` makes of it."""
    numbers, instances, contacts, digests = zip(*rows, strict=True)
    if one_instance:
        instances = instances[:1] * len(rows)
    block = block_of(numbers, instances, contacts, digests, **names)
    lines = encode_block(block, RUN_ID, finished_at)
    assert lines == lines_of(block, finished_at)
    assert max(map(len, lines.splitlines(keepends=True))) <= longest_line(block, RUN_ID)


def test_a_block_that_is_made_in_parts_has_its_lines_in_order(monkeypatch):
    """More rows than are held at once are made a few at a time, and none is lost or twice."""
    block = block_of(range(1, 1001))
    monkeypatch.setattr(bulk, "_CHUNK_BYTES", 7 * longest_line(block, RUN_ID))
    assert encode_block(block, RUN_ID, NOON_S) == lines_of(block)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


async def test_a_block_is_settled_when_it_is_durable(path):
    """While the sync is held the bytes are in the file, and neither caller nor `settled` knows."""
    sync = HeldSync()
    block = block_of(range(1, 2001), outcome=Outcome.SKIPPED, error_code="expired")
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        appending = asyncio.create_task(ledger.append_unsent(block, finished_at=NOON_S))
        await sync.until_begun()
        assert path.read_bytes() == lines_of(block)
        assert not appending.done()
        assert ledger.settled.count() == ledger.size_bytes == 0
        sync.let_go()
        await appending
        assert sync.n_syncs == 1
        assert ledger.settled.outcomes(CONTACT)[Outcome.SKIPPED] == ledger.settled.count() == 2000
        assert ledger.size_bytes == len(path.read_bytes())
    recovered = await asyncio.to_thread(recover, path)
    assert recovered.settled.outcomes() == ledger.settled.outcomes()


async def test_blocks_and_results_stand_in_the_order_of_the_calls_and_share_a_sync(path):
    """Whatever is appended in whatever way during a sync is the next group, in order."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        async with asyncio.TaskGroup() as group:
            group.create_task(ledger.append(result(1)))
            await sync.until_begun()
            group.create_task(ledger.append_unsent(block_of([9, 8]), finished_at=NOON_S))
            group.create_task(ledger.append(result(5), result(4)))
            group.create_task(ledger.append_unsent(block_of([7]), finished_at=NOON_S))
            sync.let_go()
        assert sync.n_syncs == 2
    assert rows_in(path) == [1, 9, 8, 5, 4, 7]


async def test_lines_are_made_in_the_ledgers_thread(path, monkeypatch):
    """The event loop makes no line of a block: every call is the thread's that syncs."""
    threads = []

    def encode_there(*arguments):
        threads.append(threading.get_ident())
        return encode_block(*arguments)

    monkeypatch.setattr(writer, "encode_block", encode_there)
    sync = HeldSync()
    sync.let_go()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        for first in (1, 11, 21):
            await ledger.append_unsent(block_of(range(first, first + 10)), finished_at=NOON_S)
    assert len(threads) == 3
    assert set(threads) == sync.thread_ids
    assert threading.get_ident() not in threads


async def test_a_later_outcome_replaces_those_of_a_block(path):
    """Rows that were settled before count once, as what they ended as last."""
    async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
        await ledger.append(*(result(row, Outcome.FAILED) for row in range(1, 11)))
        await ledger.append_unsent(block_of(range(6, 16)), finished_at=NOON_S)
        await ledger.append(result(15))
        counts = ledger.settled.outcomes()
    assert counts[Outcome.FAILED] == 5
    assert counts[Outcome.UNCHANGED] == 9
    assert counts[Outcome.UPDATED] == 1


async def test_no_row_of_a_block_is_durable_after_a_failed_sync(path):
    """A disk that fails leaves none of the rows settled, and none of them in the ledger."""
    sync = HeldSync(at_1=OSError(errno.EIO, os.strerror(errno.EIO)))
    sync.let_go()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        await ledger.append(result(1))
        for _ in range(2):
            with pytest.raises(LedgerWriteError, match="EIO"):
                await ledger.append_unsent(block_of(range(2, 500)), finished_at=NOON_S)
        assert ledger.settled.count() == 1
        assert sync.n_syncs == 2
    assert path.read_bytes() == line(1)


async def test_a_closed_ledger_takes_no_block(path):
    """After the close a block is refused, an empty one as well."""
    async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
        pass
    for rows in ([1], []):
        with pytest.raises(LedgerWriteError, match="closed"):
            await ledger.append_unsent(block_of(rows), finished_at=NOON_S)


async def test_an_empty_block_needs_no_sync(path):
    """A block of no rows returns at once."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        await ledger.append_unsent(block_of([]), finished_at=NOON_S)
    assert sync.n_syncs == 0


async def test_what_recovery_would_not_take_back_is_not_written(path):
    """A row 0, no operation, or an id as long as a record is refused, and the next block taken."""
    async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
        with pytest.raises(ValueError, match="below 1"):
            await ledger.append_unsent(block_of([1, 0]), finished_at=NOON_S)
        with pytest.raises(ValueError, match="is not a result"):
            await ledger.append_unsent(block_of([1], operation=""), finished_at=NOON_S)
        long = block_of([1], contacts=["c" * MAX_RECORD_BYTES])
        with pytest.raises(LedgerWriteError, match="cannot take a result of"):
            await ledger.append_unsent(long, finished_at=NOON_S)
        await ledger.append_unsent(block_of([2]), finished_at=NOON_S)
        assert ledger.settled.count() == 1
    assert rows_in(path) == [2]
