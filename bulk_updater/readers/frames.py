"""Cells as bytes -> frames of text; rows with a cell that is no text are set aside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.arrays import ArrowExtensionArray

from bulk_updater.errors import RowError
from bulk_updater.model import Frame, UnreadableRow
from bulk_updater.readers.source import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

__all__ = ["MAX_FRAME_ROWS", "Cells", "make_frames"]

MAX_FRAME_ROWS = 16_384
"""The most rows of a frame, unreadable ones included."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Some rows of a source, by column.

    Attributes:
        rows: Their numbers, ascending.
        columns: For each column that was asked for, the cells as bytes, none of them null.
        not_text: What a cell has that is not UTF-8, for messages.
        raw: All cells of one of these rows, by its place in `rows`, in the source's encoding.
    """

    rows: npt.NDArray[np.int64]
    columns: Mapping[str, pa.Array]
    not_text: str
    raw: Callable[[int], tuple[bytes, ...]]


def make_frames(
    source: str, cells: Cells, unreadable: list[UnreadableRow], *, max_rows: int = MAX_FRAME_ROWS
) -> Iterator[Frame]:
    """Make frames of a stretch of rows.

    Args:
        source: The source, as it was named.
        cells: The rows whose cells could be told apart.
        unreadable: The rows among these that have none.
        max_rows: The most rows of a frame, from 1.

    Yields:
        Frames in file order; none where there are no rows.
    """
    texts, errors = _decode(cells)
    rows = cells.rows
    if errors:
        readable = np.ones(len(rows), np.bool_)
        readable[list(errors)] = False
        keep = pa.array(readable)
        texts = {name: cells.columns[name].filter(keep).cast(pa.string()) for name in texts}
        unreadable = sorted(
            [
                *unreadable,
                *(UnreadableRow(int(rows[at]), errors[at], cells.raw(at)) for at in errors),
            ],
            key=lambda bad: bad.row,
        )
        rows = rows[readable]
    bad_rows = np.array([bad.row for bad in unreadable], np.int64)
    both = np.union1d(rows, bad_rows) if len(bad_rows) else rows
    n_frames = max(1, math.ceil(len(both) / max_rows))
    n_rows = max(1, math.ceil(len(both) / n_frames))  # so that no frame is a mere remainder
    for begin in range(0, len(both), n_rows):
        last = both[begin : begin + n_rows][-1]
        low, high = np.searchsorted(rows, (both[begin], last + 1))
        bad_low, bad_high = np.searchsorted(bad_rows, (both[begin], last + 1))
        yield Frame(
            source=source,
            rows=rows[low:high],
            cells=pd.DataFrame(
                {
                    name: ArrowExtensionArray(text.slice(low, high - low))
                    for name, text in texts.items()
                },
                index=pd.RangeIndex(high - low),
                copy=False,
            ),
            unreadable=tuple(unreadable[bad_low:bad_high]),
        )


def _decode(cells: Cells) -> tuple[dict[str, pa.Array], dict[int, RowError]]:
    """The columns as text, and the rows with a cell that is none, by their place.

    The columns are of use only where there is no such row.
    """
    texts: dict[str, pa.Array] = {}
    errors: dict[int, RowError] = {}
    for name, column in cells.columns.items():
        try:
            texts[name] = column.cast(pa.string())
        except pa.ArrowInvalid:
            texts[name] = column
            for at, cell in enumerate(column.to_pylist()):
                if not _is_utf8(cell):
                    errors.setdefault(
                        at,
                        RowError(
                            f"row {cells.rows[at]}: column {quote(name)} has {cells.not_text}",
                            rule="undecodable",
                            column=name,
                        ),
                    )
        if _may_hold_nul(column):
            for at in np.flatnonzero(pc.match_substring(column, "\0")).tolist():
                message = f"row {cells.rows[at]}: column {quote(name)} has a NUL character"
                errors.setdefault(at, RowError(message, rule="nul_character", column=name))
    return texts, errors


def _may_hold_nul(column: pa.Array) -> bool:
    """Whether there is a NUL among the bytes that the cells are cut from: one search for all."""
    content = column.buffers()[2]
    return content is not None and b"\0" in content.to_pybytes()


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True
