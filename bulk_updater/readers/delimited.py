"""CSV and its kin: cells of text between delimiters."""

from __future__ import annotations

import codecs
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import csv

from bulk_updater.errors import RowError, SourceError
from bulk_updater.model import UnreadableRow
from bulk_updater.readers.frames import MAX_FRAME_ROWS, Cells, make_frames
from bulk_updater.readers.rows import lay_out, scan_rows, split_cells
from bulk_updater.readers.source import (
    RawRow,
    check_header,
    choose,
    expect_wanted,
    fingerprint_file,
)
from bulk_updater.readers.stream import STREAM_ERRORS, explain, open_text

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from bulk_updater.model import Frame
    from bulk_updater.readers.rows import BrokenRow, RowBlock

__all__ = ["DelimitedSource"]

_BLOCK_BYTES = 2 << 20  # measured: a third faster than 1 MiB, and no slower than 4
_MAX_ROW_BYTES = 64 << 20
_DELIMITERS = (",", ";", "\t", "|")
_TELLING_ROWS = 50


class DelimitedSource:
    """A `Source` of delimited text: RFC 4180, and what is written under its name.

    Cells arrive as they stand, as text. Quoted cells may hold delimiters, line ends and doubled
    quotes; rows end with LF, CRLF or CR, the last one also with the file. Blank lines are no
    rows. A row is unreadable, by one of these rules:

    - `ragged_row`: it has more or fewer cells than the header;
    - `undecodable`: a cell that was asked for has bytes that are not in the encoding;
    - `nul_character`: a cell that was asked for has a NUL character;
    - `row_too_long`: it is longer than 64 MiB;
    - `unclosed_quote`: a quote in it runs to the end of the file, so it is the last row.

    Args:
        path: The file.
        encoding: A Python codec name; a byte order mark is understood.
        delimiter: One ASCII character, or `auto` to tell it from the first rows.
        packed: Whether the file is gzip.
        name: The path as it was given.
        block_bytes: How much is read at a time, from 1.
        max_row_bytes: The longest row to read, from 1.
        max_frame_rows: The most rows of a frame, from 1.

    Raises:
        SourceError: The file or its header cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoding: str = "utf-8",
        delimiter: str = ",",
        packed: bool = False,
        name: str,
        block_bytes: int = _BLOCK_BYTES,
        max_row_bytes: int = _MAX_ROW_BYTES,
        max_frame_rows: int = MAX_FRAME_ROWS,
    ) -> None:
        self.name = name
        self.path = path
        self._block_bytes = block_bytes
        self._max_row_bytes = max_row_bytes
        self._max_frame_rows = max_frame_rows
        self._text = open_text(path, encoding=encoding, packed=packed, name=name)
        self.encoding = self._text.encoding
        try:
            self.delimiter = self._tell_delimiter() if delimiter == "auto" else delimiter
            if not _is_delimiter(self.delimiter):
                raise SourceError(
                    f"`source.delimiter` is {delimiter!r}; it must be one ASCII character that "
                    "is neither a quote nor a line end, or `auto`.",
                    source=name,
                )
            self._delimiter = self.delimiter.encode()
            self.columns = self._read_header()
        except STREAM_ERRORS as error:
            raise SourceError(f"{explain(error)}.", source=name) from error

    def fingerprint(self, *, stop: threading.Event | None = None) -> str:
        """See `Source`."""
        return fingerprint_file(self.path, name=self.name, stop=stop)

    def count_rows(self, *, stop: threading.Event | None = None) -> int:
        """See `Source`."""
        return sum(block.n_rows for _, block in self._read_blocks(1, stop))

    def read_frames(self, columns: Sequence[str], *, first_row: int = 1) -> Iterator[Frame]:
        """See `Source`."""
        chosen = choose(columns, self.columns, name=self.name)
        return self._read_frames(chosen, first_row)

    def read_raw_rows(
        self, wanted: Callable[[int], bool], *, first_row: int = 1
    ) -> Iterator[RawRow]:
        """See `Source`."""
        for first, block in self._read_blocks(first_row):
            for at in range(block.n_rows):
                if wanted(first + at):
                    cells = self._raw_cells(block, at)
                    whole = at < len(block.starts)
                    yield RawRow(first + at, cells, whole and len(cells) == len(self.columns))

    def _read_frames(self, columns: tuple[str, ...], first_row: int) -> Iterator[Frame]:
        parser = _CellParser(self.columns, columns, self.delimiter)
        for first, block in self._read_blocks(first_row):
            try:
                readable, cells, ragged = parser.parse(block)
            except _RowsDifferError as error:
                raise SourceError(
                    f"Arrow tells the rows from row {first} on apart in another way than "
                    "bulk_updater; please report it, with the version of pyarrow.",
                    source=self.name,
                ) from error
            unreadable = [
                UnreadableRow(
                    first + at,
                    _ragged(first + at, n_cells, len(self.columns)),
                    self._raw_cells(block, at),
                )
                for at, n_cells in ragged
            ]
            if block.broken is not None:
                at = len(block.starts)
                broken = self._broken(first + at, block.broken)
                unreadable.append(UnreadableRow(first + at, broken, self._raw_cells(block, at)))
            yield from make_frames(
                self.name,
                Cells(
                    rows=first + readable,
                    columns=dict(zip(columns, cells, strict=False)),
                    not_text=f"bytes that are not {self.encoding}",
                    raw=partial(self._raw_cells, block, places=readable),
                ),
                unreadable,
                max_rows=self._max_frame_rows,
            )

    def _read_blocks(
        self, first_row: int, stop: threading.Event | None = None
    ) -> Iterator[tuple[int, RowBlock]]:
        """The data rows in blocks, with the number of each block's first row."""
        row = first_row
        header_seen = False
        try:
            for block in self._scan(stop):
                data_block = block if header_seen else block.without_first()
                header_seen = header_seen or len(block.starts) > 0
                if data_block.n_rows:
                    yield row, data_block
                row += data_block.n_rows
        except STREAM_ERRORS as error:
            read = f"it was read up to row {row - 1}" if row > first_row else "no row was read"
            raise SourceError(f"{explain(error)}; {read}.", source=self.name) from error

    def _scan(self, stop: threading.Event | None = None) -> Iterator[RowBlock]:
        return scan_rows(
            self._read_chunks(stop), self._delimiter, max_row_bytes=self._max_row_bytes
        )

    def _read_chunks(self, stop: threading.Event | None) -> Iterator[bytes]:
        """The text, as long as it is wanted: also where no row ends in a hundred blocks."""
        expect_wanted(stop, name=self.name)
        for chunk in self._text.read_chunks(self._block_bytes):
            yield chunk
            expect_wanted(stop, name=self.name)

    def _read_header(self) -> tuple[str, ...]:
        block = next((block for block in self._scan() if block.n_rows), None)
        if block is None:
            raise SourceError("is empty: it has not even a header.", source=self.name)
        if not len(block.starts):
            raise SourceError(
                "the header has no end: a quote in it is never closed, or this is no CSV.",
                source=self.name,
            )
        header = block.row(0)
        if b"\0" in header:
            raise SourceError(
                f"the header has NUL characters, so it is hardly {self.encoding}; if this is "
                "UTF-16 text, set `source.encoding: utf-16` in the mapping.",
                source=self.name,
            )
        columns = []
        for at, cell in enumerate(split_cells(header, self._delimiter), 1):
            try:
                columns.append(cell.decode())
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"the header is not {self.encoding} (column {at}); set `source.encoding` in "
                    "the mapping, to cp1252 for many exports from Windows.",
                    source=self.name,
                ) from error
        check_header(columns, name=self.name)
        return tuple(columns)

    def _tell_delimiter(self) -> str:
        """The delimiter that gives most of the first rows as many cells as the header."""
        chunks = self._text.read_chunks(self._block_bytes)
        sample = next(chunks, b"")
        whole = next(chunks, None) is None
        best, best_score = _DELIMITERS[0], (0.0, 1)
        for delimiter in _DELIMITERS:
            block = lay_out(sample, delimiter.encode(), whole=whole)
            n_cells = block.count_cells(delimiter.encode())[:_TELLING_ROWS]
            if len(n_cells) and n_cells[0] > 1:
                score = (float(np.mean(n_cells == n_cells[0])), int(n_cells[0]))
                if score > best_score:
                    best, best_score = delimiter, score
        return best

    def _raw_cells(
        self, block: RowBlock, at: int, places: npt.NDArray[np.int64] | None = None
    ) -> tuple[bytes, ...]:
        """All cells of a row in the file's own encoding, by its place in `places` or the block."""
        if places is not None:
            at = int(places[at])
        if at < len(block.starts):
            cells = split_cells(block.row(at), self._delimiter)
        else:
            cells = () if block.broken is None else block.broken.cells
        return tuple(map(self._text.encode, cells))

    def _broken(self, row: int, broken: BrokenRow) -> RowError:
        why = {
            "unclosed_quote": "a quote in it is never closed, so nothing behind it could be read",
            "row_too_long": f"it is longer than {self._max_row_bytes:,} bytes",
        }[broken.rule]
        return RowError(f"row {row}, from line {broken.line} on: {why}", rule=broken.rule)


class _RowsDifferError(Exception):
    """Arrow found other rows in a block than there are."""


class _CellParser:
    """Lets Arrow take the cells of some columns out of whole rows.

    Args:
        header: All columns.
        columns: Those to take; with none, the first is taken all the same, because Arrow's
            parsing is what tells ragged rows.
        delimiter: One ASCII character.
    """

    def __init__(self, header: Sequence[str], columns: Sequence[str], delimiter: str) -> None:
        # Arrow knows the columns by number: a name may be anything.
        taken = [str(header.index(column)) for column in columns] or ["0"]
        self._n_columns = len(header)
        self._delimiter = delimiter.encode()
        self._names = [str(at) for at in range(len(header))]
        self._parse_options = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        self._convert_options = csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(taken, pa.binary()),
            include_columns=taken,
            null_values=[],
            strings_can_be_null=False,
        )

    def parse(
        self, block: RowBlock
    ) -> tuple[npt.NDArray[np.int64], list[pa.Array], list[tuple[int, int]]]:
        """Take the cells out of a block.

        Returns:
            The places of the rows that have as many cells as the header, the cells of these rows
            by column, and the place and number of cells of every other row.

        Raises:
            _RowsDifferError: Arrow found other rows.
        """
        places = np.arange(len(block.starts))
        ragged: list[tuple[int, int]] = []
        if not len(places):
            return places, self._no_cells(), ragged
        begin, end = int(block.starts[0]), int(block.ends[-1])
        try:
            cells = self._take(pa.py_buffer(block.data).slice(begin, end - begin))
        except pa.ArrowInvalid:
            # Arrow can leave ragged rows out, but not where one of them is not UTF-8.
            n_cells = block.count_cells(self._delimiter)
            is_ragged = n_cells != self._n_columns
            ragged = [(int(at), int(n_cells[at])) for at in np.flatnonzero(is_ragged)]
            places = np.flatnonzero(~is_ragged)
            if not len(places):
                return places, self._no_cells(), ragged
            try:
                cells = self._take(pa.py_buffer(_cut_out(block, ragged)))
            except pa.ArrowInvalid as error:
                raise _RowsDifferError from error
        if len(cells[0]) != len(places):
            raise _RowsDifferError
        return places, cells, ragged

    def _take(self, text: pa.Buffer) -> list[pa.Array]:
        if text.slice(0, 1).to_pybytes() == codecs.BOM_UTF8[:1]:
            # The file's own mark is gone by now, so this one is text. Arrow would drop it, and
            # fails where only a part of one stands; behind a blank line it does neither.
            text = pa.py_buffer(b"\n" + text.to_pybytes())
        read_options = csv.ReadOptions(
            block_size=text.size + 1,  # in one piece, so that no row spans two
            column_names=self._names,
            use_threads=False,
        )
        table = csv.read_csv(
            pa.BufferReader(text), read_options, self._parse_options, self._convert_options
        )
        return [column.chunk(0) for column in table.columns]  # one block is one chunk

    def _no_cells(self) -> list[pa.Array]:
        return [pa.array([], pa.binary()) for _ in self._convert_options.include_columns]


def _cut_out(block: RowBlock, ragged: list[tuple[int, int]]) -> bytes:
    """The block's text with these rows made blank lines."""
    pieces = []
    begin = int(block.starts[0])
    for at, _ in ragged:
        pieces.append(block.data[begin : block.starts[at]])
        begin = int(block.ends[at])
    pieces.append(block.data[begin : block.ends[-1]])
    return b"".join(pieces)


def _ragged(row: int, n_cells: int, n_columns: int) -> RowError:
    cells = "1 cell" if n_cells == 1 else f"{n_cells} cells"
    return RowError(f"row {row}: {cells} where the header has {n_columns}", rule="ragged_row")


def _is_delimiter(delimiter: str) -> bool:
    return len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n\0'
