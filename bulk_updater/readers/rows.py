"""Where the rows of delimited text begin and end, found at numpy's speed.

Arrow parses cells, but it cannot be asked which row it stopped at, fails a whole block for one
ragged row that is not UTF-8, and takes an unclosed quote for a cell. So rows are told apart here,
by the same rules: a quote opens only at the beginning of a cell, two quotes inside are one, what
follows the closing quote belongs to the cell, and CR, LF or both end a row outside of quotes.
Whatever stands between two such ends is a row, unless it is nothing: a blank line is no row, also
where there is only one column (an empty cell is then written `""`, as Python's csv module does).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["BrokenRow", "RowBlock", "lay_out", "scan_rows", "split_cells"]

_QUOTE, _LF, _CR = b'"\n\r'
_HEAD_BYTES = 65_536
_ZERO = np.zeros(1, np.int64)
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be held as a whole.

    Attributes:
        rule: `unclosed_quote` or `row_too_long`.
        line: The line that it begins in, from 1, the header's included.
        cells: The cells that can be told apart in its first 64 KiB. Of an unclosed quote, the
            last is what stands behind the quote in the same line.
    """

    rule: str
    line: int
    cells: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Whole rows of one stretch of text.

    Attributes:
        data: The text.
        starts: Where each row begins in it.
        ends: Where each row ends, its line end not counted.
        quotes: Where quotes open and close, in turn; those that are plain text are left out, the
            two of a doubled one close and open.
        broken: The row after these, where that one is broken.
    """

    data: bytes
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    quotes: npt.NDArray[np.int64]
    broken: BrokenRow | None = None

    @property
    def n_rows(self) -> int:
        """How many rows there are, the broken one included."""
        return len(self.starts) + (self.broken is not None)

    def row(self, index: int) -> bytes:
        """The text of one row, from 0, without its line end."""
        return self.data[self.starts[index] : self.ends[index]]

    def without_first(self) -> RowBlock:
        """The same block from its second row on."""
        return RowBlock(self.data, self.starts[1:], self.ends[1:], self.quotes, self.broken)

    def count_cells(self, delimiter: bytes) -> npt.NDArray[np.int64]:
        """How many cells each row has."""
        found = np.flatnonzero(np.frombuffer(self.data, np.uint8) == delimiter[0])
        found = _outside(found, self.quotes)
        n_cells: npt.NDArray[np.int64] = (
            np.searchsorted(found, self.ends) - np.searchsorted(found, self.starts) + 1
        )
        return n_cells


def split_cells(row: bytes, delimiter: bytes) -> tuple[bytes, ...]:
    """The cells of one row, unquoted."""
    if b'"' not in row:
        return tuple(row.split(delimiter))
    cell = re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"?)?+([^%b]*+)' % re.escape(delimiter))
    cells = []
    position = 0
    while position <= len(row) and (found := cell.match(row, position)):
        cells.append((found[1] or b"").replace(b'""', b'"') + found[2])
        position = found.end() + 1
    return tuple(cells)


def lay_out(data: bytes, delimiter: bytes, *, whole: bool) -> RowBlock:
    """The rows of a text that begins with one.

    Args:
        data: The text.
        delimiter: One byte.
        whole: Whether the text ends here, so that what stands behind the last line end is a row,
            too. An unclosed quote and what it swallows never is.
    """
    return _block(data, _find(data, delimiter), whole=whole)


def scan_rows(
    chunks: Iterator[bytes], delimiter: bytes, *, max_row_bytes: int
) -> Iterator[RowBlock]:
    """Tell the rows of a text apart.

    Args:
        chunks: The text, as UTF-8 without a byte order mark.
        delimiter: One byte.
        max_row_bytes: The longest row to hold, from 1; a longer one is `row_too_long`.

    Yields:
        Blocks of rows, some of them without any. Memory is bounded by `max_row_bytes` and a few
        chunks, whatever the text holds.
    """
    pending = b""
    line = 1
    while True:
        # At least doubles what is pending, so that a long row is not scanned over and over.
        more = _take(chunks, max(1, min(len(pending), max_row_bytes + 1 - len(pending))))
        data = pending + more
        layout = _find(data, delimiter)
        if more and not len(layout.breaks):
            pending = data
            if len(data) > max_row_bytes:
                broken, n_lines, pending = _pass_over(data, layout, chunks, delimiter, line)
                yield _only(broken)
                line += n_lines
            continue
        block = _block(data, layout, whole=not more)
        yield from _without_long_rows(block, delimiter, max_row_bytes, line)
        cut = int(layout.breaks[-1]) + 1 if len(layout.breaks) else 0
        if not more:
            if len(layout.quotes) % 2:
                line += _count_lines(data[:cut])
                cells = _first_cells(data, cut, layout, delimiter)
                yield _only(BrokenRow("unclosed_quote", line, cells))
            return
        if cut == len(data) and data.endswith(b"\r"):
            cut -= 1  # it may be half of a CRLF, which is one line
        line += _count_lines(data[:cut])
        pending = data[cut:]


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What stands where in a text that begins with a row.

    Attributes:
        quotes: As in `RowBlock`; an odd number of them means that the last is not closed.
        breaks: Every CR and LF outside of quotes.
    """

    quotes: npt.NDArray[np.int64]
    breaks: npt.NDArray[np.int64]


def _find(data: bytes, delimiter: bytes) -> _Layout:
    text = np.frombuffer(data, np.uint8)
    is_break = text == _LF
    if b"\r" in data:
        is_break |= text == _CR
    quotes = _find_quotes(text, delimiter) if b'"' in data else _NONE
    return _Layout(quotes, _outside(np.flatnonzero(is_break), quotes))


def _find_quotes(text: npt.NDArray[np.uint8], delimiter: bytes) -> npt.NDArray[np.int64]:
    quotes = np.flatnonzero(text == _QUOTE)
    before = text[quotes - 1]
    at_home = (before == delimiter[0]) | (before == _LF) | (before == _CR)
    at_home[:1] |= quotes[:1] == 0
    # If quotes open and close in turn, every opening one stands at the beginning of a cell, or
    # right behind the last closing one: the two are then a doubled quote. Where all do, quotes
    # do open and close in turn, because the first one to differ would stand elsewhere.
    opening = quotes[::2]
    doubled = opening[1:] == quotes[1::2][: len(opening) - 1] + 1
    if at_home[0] and (at_home[2::2] | doubled).all():
        return quotes
    return _walk_quotes(quotes.tolist(), np.flatnonzero(at_home).tolist())


def _walk_quotes(quotes: list[int], openers: list[int]) -> npt.NDArray[np.int64]:
    """Those quotes that open and close, where others are plain text, as in `5" pipe`.

    Args:
        quotes: Where quotes stand.
        openers: The places in `quotes` of those at the beginning of a cell.
    """
    found = []
    at = 0
    for opener in openers:
        if opener < at:
            continue  # inside of the last pair
        found.append(quotes[opener])
        at = opener + 1
        while at + 1 < len(quotes) and quotes[at + 1] == quotes[at] + 1:
            at += 2
        found.extend(quotes[at : at + 1])
        at += 1
    return np.array(found, np.int64)


def _outside(
    positions: npt.NDArray[np.int64], quotes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    if not len(quotes):
        return positions
    outside: npt.NDArray[np.int64] = positions[np.searchsorted(quotes, positions) % 2 == 0]
    return outside


def _block(data: bytes, layout: _Layout, *, whole: bool) -> RowBlock:
    ends = layout.breaks
    if whole and len(layout.quotes) % 2 == 0:
        ends = np.append(ends, len(data))
    starts = np.concatenate((_ZERO, ends[:-1] + 1))[: len(ends)]
    is_row = ends > starts  # not so for a blank line, nor between the CR and the LF of one end
    return RowBlock(data, starts[is_row], ends[is_row], layout.quotes)


def _only(broken: BrokenRow) -> RowBlock:
    return RowBlock(b"", _NONE, _NONE, _NONE, broken)


def _without_long_rows(
    block: RowBlock, delimiter: bytes, max_row_bytes: int, line: int
) -> Iterator[RowBlock]:
    """The block, cut where a row is longer than allowed."""
    done = 0
    for at in np.flatnonzero(block.ends - block.starts > max_row_bytes).tolist():
        start, end = int(block.starts[at]), int(block.ends[at])
        cells = split_cells(block.data[start : min(end, start + _HEAD_BYTES)], delimiter)
        broken = BrokenRow(
            "row_too_long",
            line + _count_lines(block.data[:start]),
            cells if end - start <= _HEAD_BYTES else cells[:-1],
        )
        yield RowBlock(block.data, block.starts[done:at], block.ends[done:at], block.quotes, broken)
        done = at + 1
    yield RowBlock(block.data, block.starts[done:], block.ends[done:], block.quotes)


def _pass_over(
    data: bytes, layout: _Layout, chunks: Iterator[bytes], delimiter: bytes, line: int
) -> tuple[BrokenRow, int, bytes]:
    """Read on to the end of a row that is too long to hold.

    Returns:
        The row, how many line ends it has inside, and what of the text was read behind it.
    """
    row_end = _RowEnd(data, layout, delimiter)
    cells = _first_cells(data, 0, layout, delimiter)
    n_lines = _count_lines(data)
    for chunk in chunks:
        end = row_end.find(chunk)
        if end is not None:
            return BrokenRow("row_too_long", line, cells), n_lines, chunk[end:]
        n_lines += _count_lines(chunk)
    rule = "unclosed_quote" if row_end.in_quotes else "row_too_long"
    return BrokenRow(rule, line, cells), n_lines, b""


def _first_cells(data: bytes, start: int, layout: _Layout, delimiter: bytes) -> tuple[bytes, ...]:
    """The cells of the row from `start` on, up to the line in which its last quote opens."""
    end = len(data)
    whole = len(layout.quotes) % 2 == 1
    if whole:
        line_end = re.compile(rb"[\r\n]").search(data, int(layout.quotes[-1]))
        end = line_end.start() if line_end else end
    cells = split_cells(data[start : min(end, start + _HEAD_BYTES)], delimiter)
    return cells if whole and end - start <= _HEAD_BYTES else cells[:-1]


class _RowEnd:
    """Looks for the end of one row, through as many chunks as it takes.

    Args:
        data: How the row begins, which is no whole row.
        layout: What stands where in it.
        delimiter: One byte.

    Attributes:
        in_quotes: Whether what comes next stands in quotes.
    """

    def __init__(self, data: bytes, layout: _Layout, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._cell_end = re.compile(rb"[%b\r\n]" % re.escape(delimiter))
        self.in_quotes = len(layout.quotes) % 2 == 1
        self._in_cell = not data.endswith(delimiter)
        # Whether the last byte was a quote inside quotes: one that closes, unless another follows.
        self._at_quote = len(layout.quotes) > 0 and layout.quotes[-1] == len(data) - 1
        if self._at_quote and self.in_quotes:
            self._at_quote = False  # it opened

    def find(self, chunk: bytes) -> int | None:
        """Where the row ends in the next chunk; None where it does not."""
        position = 0
        while position < len(chunk):
            is_quote = chunk[position] == _QUOTE
            if self.in_quotes:
                position = chunk.find(b'"', position) + 1
                if not position:
                    return None
                self.in_quotes, self._at_quote = False, True
            elif is_quote and (self._at_quote or not self._in_cell):
                self.in_quotes, self._at_quote, self._in_cell = True, False, True
                position += 1
            else:
                self._at_quote, self._in_cell = False, True
                found = self._cell_end.search(chunk, position)
                if found is None:
                    return None
                if found[0] != self._delimiter:
                    return found.start()
                self._in_cell = False
                position = found.end()
        return None


def _count_lines(data: bytes) -> int:
    """How many line ends there are, in quotes or not; CRLF is one."""
    text = np.frombuffer(data, np.uint8)
    n_lines = np.count_nonzero(text == _LF)
    if b"\r" in data:
        is_cr = text == _CR
        n_lines += np.count_nonzero(is_cr) - np.count_nonzero(is_cr[:-1] & (text[1:] == _LF))
    return int(n_lines)


def _take(chunks: Iterator[bytes], n_bytes: int) -> bytes:
    """The next chunks, until they are at least so many bytes; `b""` at the end."""
    taken: list[bytes] = []
    n_taken = 0
    while n_taken < n_bytes and (chunk := next(chunks, None)) is not None:
        taken.append(chunk)
        n_taken += len(chunk)
    return b"".join(taken)
