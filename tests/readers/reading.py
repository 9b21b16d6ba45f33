"""What a source says, in plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulk_updater.model import UnreadableRow
    from bulk_updater.readers import Source


def read_all(source: Source, columns=None, *, first_row: int = 1):
    """All readable rows and all unreadable ones, by row number, and the number of frames."""
    columns = source.columns if columns is None else columns
    rows: dict[int, tuple[str, ...]] = {}
    unreadable: dict[int, UnreadableRow] = {}
    last = first_row - 1
    for frame in source.read_frames(columns, first_row=first_row):
        numbers = frame.rows.tolist()
        assert list(frame.cells.columns) == list(dict.fromkeys(columns))
        assert len(frame.cells) == len(numbers)
        assert not frame.cells.isna().to_numpy().any()
        here = sorted([*numbers, *(bad.row for bad in frame.unreadable)])
        assert here == list(range(last + 1, last + 1 + len(here)))
        assert here
        last = here[-1]
        texts = [frame.cells[column].tolist() for column in frame.cells.columns]
        rows |= {row: tuple(text[at] for text in texts) for at, row in enumerate(numbers)}
        unreadable |= {bad.row: bad for bad in frame.unreadable}
    return rows, unreadable


def rules(unreadable) -> dict[int, str]:
    """Which rule each unreadable row breaks."""
    return {row: bad.error.rule for row, bad in unreadable.items()}
