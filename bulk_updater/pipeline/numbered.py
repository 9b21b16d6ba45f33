"""What the rows of a mended `failed.csv` were, as its own columns tell it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bulk_updater.model import Request
from bulk_updater.operations import OPERATION_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from bulk_updater.model import Frame
    from bulk_updater.pipeline.job import OpenedJob
    from bulk_updater.pipeline.later import LaneKey
    from bulk_updater.readers import Source

__all__ = [
    "CODE_COLUMN",
    "ORIGIN_COLUMNS",
    "UNREADABLE",
    "Origins",
    "bit_of",
    "mends",
    "read_origins",
]

ORIGIN_COLUMNS: Final = ("_row", "_operation")
"""Columns of `failed.csv` that say what a row was; a source with both of them comes from a run."""

CODE_COLUMN: Final = "_error_code"
"""What tells of the run, too, as long as nobody took it out."""

_ROW = re.compile(r" *[0-9]{1,18} *")
_BITS: Final = {name: 1 << bit for bit, name in enumerate(OPERATION_NAMES)}
UNREADABLE: Final = -1


def mends(source: Source) -> bool:
    """Whether a source is a mended `failed.csv`."""
    return set(ORIGIN_COLUMNS) <= set(source.columns)


@dataclass(frozen=True, slots=True)
class Origins:
    """What the rows of mended sources were, by their number; the first is of no row.

    Attributes:
        rows: The row that each was; 0 where the cell is no number, `UNREADABLE` where the whole
            row cannot be read.
        operations: The operations that it failed for, as bits; 0 where that cannot be read.
        codes: For those that say both, the row, the operation and its error code; None where there
            is no code, or not one for each operation.
    """

    rows: npt.NDArray[np.int64]
    operations: npt.NDArray[np.uint8]
    codes: dict[tuple[int, str], str | None]


def bit_of(operation: str) -> int:
    """An operation's bit in `Origins.operations`."""
    return _BITS[operation]


class _WithOrigins:
    """A compiled mapping that has the origins of rows read, too, and the codes if there are any."""

    def __init__(self, mapping: Any, source: Source) -> None:
        self._mapping = mapping
        more = (*ORIGIN_COLUMNS, *({CODE_COLUMN} & set(source.columns)))
        self.columns = tuple(dict.fromkeys((*mapping.columns, *more)))

    def map_frame(self, frame: Frame) -> Any:
        return self._mapping.map_frame(frame)


def read_origins(opened: OpenedJob, contacts: set[LaneKey] | None) -> Origins:
    """Read what every row was, and the contacts that requests are made for."""
    sources = tuple((source, _WithOrigins(mapping, source)) for source, mapping in opened.sources)
    codes: dict[tuple[int, str], str | None] = {}
    rows, operations = [np.zeros(1, np.int64)], [np.zeros(1, np.uint8)]
    n_rows = 0
    for frame in replace(opened, sources=sources).mapped_frames():  # type: ignore[arg-type]
        n_more = len(frame.frame.rows) + len(frame.frame.unreadable)
        of_frame, bits = np.full(n_more, UNREADABLE, np.int64), np.zeros(n_more, np.uint8)
        at = frame.frame.rows - n_rows - 1
        of_frame[at] = [_row(cell) for cell in frame.frame.cells["_row"]]
        bits[at] = [_operations(cell) for cell in frame.frame.cells["_operation"]]
        codes.update(_codes_of(frame.frame.cells))
        rows.append(of_frame)
        operations.append(bits)
        n_rows += n_more
        if contacts is not None:
            contacts.update(entry.lane for entry in frame.entries() if isinstance(entry, Request))
    return Origins(np.concatenate(rows), np.concatenate(operations), codes)


def _codes_of(cells: Any) -> Iterator[tuple[tuple[int, str], str | None]]:
    """The rows of a frame that say what they were, each with the operation and its error code."""
    codes = cells[CODE_COLUMN] if CODE_COLUMN in cells else [""] * len(cells)
    for row, operation, code in zip(cells["_row"], cells["_operation"], codes, strict=True):
        if not _row(row) or not _operations(operation):
            continue
        names = [name.strip() for name in operation.split(";")]
        each = [one.strip() or None for one in code.split(";")]
        told = each if len(each) == len(names) else [None] * len(names)
        for name, one in zip(names, told, strict=True):
            yield (_row(row), name), one


def _row(cell: str) -> int:
    return int(cell) if _ROW.fullmatch(cell) else 0


def _operations(cell: str) -> int:
    """The operations that a cell names, as bits; 0 where it names none, or anything else."""
    bits = 0
    for name in cell.split(";"):
        bit = _BITS.get(name.strip())
        if bit is None:
            return 0
        bits |= bit
    return bits
