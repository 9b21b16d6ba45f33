"""Lines of the ledger for thousands of rows that are not sent, made a column at a time.

The lines are, byte for byte, those that `encode` makes of the same rows' results one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from bulk_updater.ledger.records import encode
from bulk_updater.model import Result

if TYPE_CHECKING:
    import numpy.typing as npt

    from bulk_updater.model import Outcome

__all__ = ["UnsentBlock", "encode_block", "longest_line"]

_ANY = "1"
"""What stands for a row's own text where a line is cut into what all rows share and what not."""

_CHUNK_BYTES = 16 << 20
"""Lines that are held as one Arrow array, which takes 2 GiB at the most."""

_MOST_ESCAPED = 6
"""A byte becomes so many at the most: `\\u0001`."""

_ROOM_BYTES = 128
"""More than a row's number and a digest take."""

_NEEDS_ESCAPE = np.zeros(256, dtype=np.bool_)
"""The bytes of UTF-8 text that stand in JSON as an escape, as orjson writes it."""
_NEEDS_ESCAPE[: ord(" ")] = True
_NEEDS_ESCAPE[[ord('"'), ord("\\")]] = True

_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), dtype=np.uint16)
_DIGITS = 16


class UnsentBlock(Protocol):
    """Rows of one operation and source that end in the same way without being sent."""

    def __len__(self) -> int: ...

    @property
    def source(self) -> str:
        """The source of the rows."""

    @property
    def operation(self) -> str:
        """The operation's snake_case name."""

    @property
    def outcome(self) -> Outcome:
        """How they end."""

    @property
    def error_code(self) -> str | None:
        """Why, as a rule's name; None where the outcome says it."""

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Their numbers, from 1."""

    @property
    def instance_ids(self) -> Any:
        """Each row's instance, an Arrow array of text without nulls."""

    @property
    def contact_ids(self) -> Any:
        """Each row's contact, likewise."""

    @property
    def digests(self) -> npt.NDArray[np.uint64]:
        """Each row's digest of what it writes; 0 where there is none."""


def longest_line(block: UnsentBlock, run_id: str) -> int:
    """A number of bytes that no line of a block is above.

    Raises:
        ValueError: Recovery would not take the lines for records, such as one of row 0.
    """
    if block.rows.min(initial=1) < 1:
        raise ValueError("A row's number is below 1; rows are counted from 1.")
    ids = (pc.max(pc.binary_length(texts)) for texts in (block.instance_ids, block.contact_ids))
    n_bytes = sum(longest.as_py() or 0 for longest in ids)
    return len(encode(_result(block, 0.0), run_id)) + _ROOM_BYTES + _MOST_ESCAPED * int(n_bytes)


def encode_block(block: UnsentBlock, run_id: str, finished_at: float) -> bytes:
    """The lines of a block, in its order, each with its newline.

    Can be called in a thread; takes some 0.5 us a row, a fifteenth of `encode`.

    Args:
        block: The rows.
        run_id: The run that they belong to, not empty.
        finished_at: When they ended, in seconds since the epoch.
    """
    line = encode(_result(block, finished_at), run_id).decode()
    n_together = max(1, _CHUNK_BYTES // longest_line(block, run_id))
    starts = range(0, len(block.rows), n_together)
    return b"".join(_encode(block, line, slice(start, start + n_together)) for start in starts)


def _encode(block: UnsentBlock, line: str, span: slice) -> bytes:
    """The lines of some rows, like the line of one whose own texts are all `_ANY`."""
    pieces: list[Any] = []
    for name, quote, texts in (
        ("row", "", pa.array(block.rows[span]).cast(pa.string())),
        ("instance_id", '"', _shared(_escaped(block.instance_ids[span]))),
        ("contact_id", '"', _escaped(block.contact_ids[span])),
        ("payload_digest", '"', _hex_digits(block.digests[span])),
    ):
        # Cut at what no text can hold: within one, JSON escapes the quotation marks.
        before, line = line.split(f'"{name}":{quote}{_ANY}{quote},', 1)
        pieces += [before, *_member(f'"{name}":{quote}', texts, f"{quote},")]
    return _joined([*pieces, line])


def _result(block: UnsentBlock, finished_at: float) -> Result:
    return Result(
        row=int(_ANY),
        source=block.source,
        operation=block.operation,
        outcome=block.outcome,
        instance_id=_ANY,
        contact_id=_ANY,
        error_code=block.error_code,
        payload_digest=_ANY,
        finished_at=finished_at,
    )


def _member(before: str, texts: Any, behind: str) -> list[Any]:
    """The pieces of a member of each line; nothing where there is no text."""
    pieces = [before, texts, behind]
    if isinstance(texts, str):
        return pieces if texts else []
    is_empty = pc.equal(pc.binary_length(texts), 0)
    if not pc.any(is_empty).as_py():
        return pieces
    return [pc.if_else(is_empty, "", pc.binary_join_element_wise(*pieces, ""))]


def _shared(texts: Any) -> Any:
    """The one text that all are, as a str; the texts where they are not all the same."""
    distinct = texts.dictionary_encode().dictionary
    return distinct[0].as_py() if len(distinct) == 1 else texts


def _escaped(texts: Any) -> Any:
    """Texts as they stand between the quotation marks of JSON."""
    if not _NEEDS_ESCAPE[_raw(texts)].any():
        return texts
    escaped = [orjson.dumps(text)[1:-1].decode() for text in texts.to_pylist()]
    return pa.array(escaped, pa.string())


def _joined(pieces: list[Any]) -> bytes:
    """Texts of each row, and such as all rows share, one behind the other."""
    merged: list[Any] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return _raw(pc.binary_join_element_wise(*merged, "")).tobytes()


def _raw(texts: Any) -> npt.NDArray[np.uint8]:
    """The bytes of all texts, one behind the other."""
    _, offsets, content = texts.buffers()
    if not len(texts) or content is None:
        return np.empty(0, dtype=np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    start, end = int(bounds[0]), int(bounds[-1])
    return np.frombuffer(content, np.uint8, end - start, offset=start)


def _hex_digits(numbers: npt.NDArray[np.uint64]) -> Any:
    """16 hexadecimal digits of each number, no text for 0."""
    digits = _HEX[numbers.astype(">u8").view(np.uint8)]
    offsets = np.arange(0, _DIGITS * len(numbers) + 1, _DIGITS, dtype=np.int32)
    texts = pa.StringArray.from_buffers(
        len(numbers), pa.py_buffer(offsets), pa.py_buffer(digits.tobytes())
    )
    return pc.if_else(pa.array(numbers == 0), "", texts) if (numbers == 0).any() else texts
