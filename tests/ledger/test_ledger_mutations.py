"""Real ledgers with bytes changed: recovery keeps a prefix of the lines, or refuses.

A line has no checksum, so a changed letter within a text is not seen; nothing else passes. What a
disk does to a file is not what the tests of recovery think of: blocks of 512 or 4,096 bytes that
were never written and come back as zeros, that were written twice, or to the wrong place, and
single bits.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ledger_cases import ATTRIBUTES, RUN_ID, line, no_sync, result

from bulk_updater.errors import LedgerCorrupt, LedgerMismatch
from bulk_updater.ledger import Ledger, recover, repair_ledger
from bulk_updater.ledger.records import encode
from bulk_updater.model import Outcome

LINES = [
    line(
        row,
        Outcome.FAILED if row % 7 == 0 else Outcome.UPDATED,
        operation=ATTRIBUTES,
        contact_id=f"c-{row:04d}",
        attempts=1 + row % 3,
        request_id=f"00000000-0000-0000-0000-{row:012d}",
        attribute_names=("number", "note"),
        error=f"row {row}: »Zeile« is no good" if row % 7 == 0 else None,
    )
    for row in range(1, 61)
]
LEDGER = b"".join(LINES)
SECTORS = (512, 4096)
MORE = [result(row) for row in range(1000, 1010)]

assert len(LEDGER) > 3 * max(SECTORS)


def prefix_of(n_lines: int) -> bytes:
    return b"".join(LINES[:n_lines])


def n_common(content: bytes) -> int:
    """How many whole lines two ledgers begin with in common."""
    return next(
        (n for n, each in enumerate(LINES) if not content.startswith(each, len(prefix_of(n)))),
        len(LINES),
    )


@pytest.mark.parametrize("sector", [512, 4096])
async def test_zeros_from_any_block_to_the_end_are_a_torn_tail(tmp_path, sector):
    """What was never written back is cut, however much it is, and the ledger is gone on with."""
    for begin in range(0, len(LEDGER), sector):
        content = LEDGER[:begin] + bytes(len(LEDGER) - begin)
        n_whole = n_common(content)
        path = tmp_path / f"{begin}.jsonl"
        path.write_bytes(content)
        async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
            assert ledger.recovery.n_lines == n_whole
            assert ledger.recovery.torn_bytes == len(LEDGER) - len(prefix_of(n_whole))
            await ledger.append(*MORE)
        more = b"".join(encode(each, RUN_ID) for each in MORE)
        assert path.read_bytes() == prefix_of(n_whole) + more


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_block_of_zeros_before_the_last_is_refused_at_its_line(tmp_path, sector):
    """One block anywhere, a whole record behind it: the offset of its line, and no byte changed."""
    n_refused = 0
    for begin in range(0, len(LEDGER) - sector - len(LINES[-1]), sector):
        content = LEDGER[:begin] + bytes(sector) + LEDGER[begin + sector :]
        path = tmp_path / f"{begin}.jsonl"
        path.write_bytes(content)
        with pytest.raises(LedgerCorrupt) as caught:
            recover(path, sync=no_sync)
        assert caught.value.offset == len(prefix_of(n_common(content)))
        assert path.read_bytes() == content
        n_refused += 1
    assert n_refused >= 2
    assert not list(tmp_path.glob("*.torn-*"))


def flipped(content: bytes, bit: int) -> bytes:
    at, mask = divmod(bit, 8)
    return content[:at] + bytes([content[at] ^ 1 << mask]) + content[at + 1 :]


@st.composite
def mutations(draw):
    """The ledger, with up to three things done to it."""
    content = LEDGER
    for _ in range(draw(st.integers(1, 3))):
        size = len(content)
        if not size:
            break
        sector = draw(st.sampled_from(SECTORS))
        at = draw(st.integers(0, size - 1) | st.integers(0, size // sector).map(sector.__mul__))
        length = draw(st.sampled_from([1, 100, *SECTORS]))
        piece = content[at : at + length]
        content = draw(
            st.sampled_from(
                [
                    content[:at],  # cut
                    content[:at] + bytes(size - at),  # zeros to the end
                    content[:at] + bytes(len(piece)) + content[at + length :],  # zeros within
                    content[:at] + content[at + length :],  # lost
                    content[: at + length] + piece + content[at + length :],  # twice
                    content[:at] + draw(st.binary(max_size=60)) + content[at:],  # inserted
                    content[:at] + b"\n" + content[at:],
                    flipped(content, min(at * 8 + draw(st.integers(0, 7)), size * 8 - 1)),
                ]
            )
        )
    return content


@given(content=mutations())
@example(content=LEDGER)
@example(content=b"")
@example(content=bytes(len(LEDGER)))
@example(content=LEDGER + LEDGER[:512])
@example(content=LEDGER[:-1])
def test_a_changed_ledger_is_refused_as_it_is_or_read_up_to_a_line(content):
    """LedgerCorrupt with every byte in place, or a prefix of the lines, which grows well; what
    repair makes of the refused one is the same prefix."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(content)
        refused = None
        try:
            recovered = recover(path, sync=no_sync)
        except LedgerCorrupt as error:
            refused = error
        except LedgerMismatch:  # letters that none of our outcomes becomes by one change
            assert path.read_bytes() == content
            with pytest.raises(LedgerMismatch):
                repair_ledger(path)
            assert path.read_bytes() == content
            return
        if refused is not None:
            assert path.read_bytes() == content
            assert [each.name for each in path.parent.iterdir()] == [path.name]
            try:
                repaired = repair_ledger(path)
            except LedgerMismatch:  # such letters behind the damage
                assert path.read_bytes() == content
                return
            assert repaired.n_behind > 0
            assert repaired.size_bytes == refused.offset
            assert repaired.kept_path is not None
            assert repaired.kept_path.read_bytes() == content
            recovered = recover(path, sync=no_sync)
            assert recovered.n_lines == repaired.n_lines
        left = path.read_bytes()
        assert content.startswith(left)
        assert recovered.size_bytes == len(left)
        assert left == b"".join(left.splitlines(keepends=True)[: recovered.n_lines])
        asyncio.run(_append_and_read_back(path, left))


async def _append_and_read_back(path: Path, left: bytes) -> None:
    async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
        assert ledger.recovery.torn_bytes == 0
        await ledger.append(*MORE)
        assert all((each.row, each.operation) in ledger.settled for each in MORE)
    more = b"".join(encode(each, RUN_ID) for each in MORE)
    assert path.read_bytes() == left + more  # noqa: ASYNC240 - nothing else runs
