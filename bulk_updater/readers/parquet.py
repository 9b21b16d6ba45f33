"""Parquet: typed columns, which become text that keeps their meaning."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from os import SEEK_END
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from bulk_updater.errors import SourceError
from bulk_updater.readers.frames import Cells, make_frames
from bulk_updater.readers.source import (
    RawRow,
    check_header,
    choose,
    expect_wanted,
    fingerprint_file,
    quote,
)
from bulk_updater.readers.text import find_obstacle, is_binary, to_text

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bulk_updater.model import Frame

__all__ = ["ParquetSource"]

_MAGIC, _MAGIC_ENCRYPTED = b"PAR1", b"PARE"
_MIN_BYTES = 12  # two magics and the length of the metadata
_BATCH_ROWS = 8192
_BUFFER_BYTES = 1 << 20
# The names in the metadata need not be UTF-8.
_READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class ParquetSource:
    """A `Source` of a Parquet file; `text` says what becomes of the values.

    A row is unreadable, by one of these rules:

    - `undecodable`: a cell that was asked for holds a string that is not UTF-8, or a time that
      is too far off to be written;
    - `nul_character`: a cell that was asked for has a NUL character.

    Such a row comes without cells: reading is narrow. `read_raw_rows` has them, binary as Base64
    and what has no text otherwise as an empty cell.

    Args:
        path: The file.
        name: The path as it was given.
        batch_rows: The most rows of a frame, from 1.

    Raises:
        SourceError: The file is not whole or is encrypted, its metadata contradicts itself, or its
            header cannot be used. What is damaged further on is noticed while it is read: by the
            pages' checksums, where it has them, and by the number of rows.
    """

    delimiter = ","
    encoding = "utf-8"

    def __init__(self, path: Path, *, name: str, batch_rows: int = _BATCH_ROWS) -> None:
        self.name = name
        self.path = path
        self._batch_rows = batch_rows
        _check_magic(path, name)
        try:
            with self._open() as file:
                self._schema = file.schema_arrow
                metadata = file.metadata
                self._n_rows = int(metadata.num_rows)
                groups = map(metadata.row_group, range(metadata.num_row_groups))
                if sum(group.num_rows for group in groups) != self._n_rows:
                    raise pa.ArrowInvalid("the row groups have other rows than the file")
        except _READ_ERRORS as error:
            raise SourceError(
                "its Parquet metadata cannot be read; write the file again.", source=name
            ) from error
        self.columns = tuple(self._schema.names)
        check_header(self.columns, name=name)

    def fingerprint(self, *, stop: threading.Event | None = None) -> str:
        """See `Source`."""
        return fingerprint_file(self.path, name=self.name, stop=stop)

    def count_rows(self, *, stop: threading.Event | None = None) -> int:
        """See `Source`; from the metadata, so at once."""
        expect_wanted(stop, name=self.name)
        return self._n_rows

    def read_frames(self, columns: Sequence[str], *, first_row: int = 1) -> Iterator[Frame]:
        """See `Source`."""
        chosen = choose(columns, self.columns, name=self.name)
        for column in chosen:
            kind = self._schema.field(column).type
            obstacle = find_obstacle(kind)
            if obstacle is not None:
                raise SourceError(
                    f"column {quote(column)} cannot be used, because {obstacle}.",
                    source=self.name,
                )
        return self._read_frames(chosen, first_row)

    def read_raw_rows(
        self, wanted: Callable[[int], bool], *, first_row: int = 1
    ) -> Iterator[RawRow]:
        """See `Source`."""
        for first, batch in self._read_batches(self.columns, first_row):
            places = [at for at in range(batch.num_rows) if wanted(first + at)]
            with self._told_of_damage(first):
                cells = [_to_bytes(_take(column, places)) for column in batch.columns]
            for at, row_cells in zip(places, zip(*cells, strict=True), strict=True):
                yield RawRow(first + at, row_cells)

    def _read_frames(self, columns: tuple[str, ...], first_row: int) -> Iterator[Frame]:
        for first, batch in self._read_batches(columns, first_row):
            with self._told_of_damage(first):
                cells = {column: to_text(batch.column(column)) for column in columns}
            yield from make_frames(
                self.name,
                Cells(
                    rows=np.arange(first, first + batch.num_rows),
                    columns=cells,
                    not_text="a string that is not UTF-8, or a time too far off",
                    raw=lambda _: (),
                ),
                [],
            )

    def _read_batches(
        self, columns: Sequence[str], first_row: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows in batches, with the number of each batch's first row."""
        row, end = first_row, first_row + self._n_rows
        with self._told_of_damage(row):
            file = self._open()
        with file:
            batches = file.iter_batches(self._batch_rows, columns=list(columns), use_threads=False)
            while True:
                with self._told_of_damage(row):
                    batch = next(batches, None)
                    if row + (0 if batch is None else batch.num_rows) > end or (
                        batch is None and row < end
                    ):
                        raise pa.ArrowInvalid("the data has other rows than the metadata")
                if batch is None:
                    return
                yield row, batch
                row += batch.num_rows

    @contextmanager
    def _told_of_damage(self, row: int) -> Iterator[None]:
        """Makes one error of whatever Arrow raises about the rows from this one on."""
        try:
            yield
        except _READ_ERRORS as error:
            raise SourceError(
                f"its Parquet data cannot be read behind row {row - 1}; write the file again.",
                source=self.name,
            ) from error

    def _open(self) -> parquet.ParquetFile:
        return parquet.ParquetFile(
            self.path,
            # Page by page: else Arrow holds whole columns of a row group, however large.
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            # As nanoseconds, Spark's 9999-12-31 would silently be some day of 1816.
            coerce_int96_timestamp_unit="us",
            page_checksum_verification=True,  # where the file has checksums
        )


def _check_magic(path: Path, name: str) -> None:
    """See to it that the file is Parquet from its first to its last bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            n_bytes = file.seek(0, SEEK_END)
            file.seek(max(0, n_bytes - len(_MAGIC)))
            tail = file.read()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}.", source=name) from error
    if not n_bytes:
        raise SourceError("is empty: it has not even a header.", source=name)
    if _MAGIC_ENCRYPTED in (head, tail):
        raise SourceError("is encrypted Parquet; write it without encryption.", source=name)
    if head != _MAGIC:
        raise SourceError("is not Parquet, whatever its name says.", source=name)
    if tail != _MAGIC or n_bytes < _MIN_BYTES:
        raise SourceError("is cut short; copy the file again.", source=name)


def _take(column: pa.Array, places: list[int]) -> pa.Array:
    """Some values of a column."""
    try:
        return column.take(pa.array(places, pa.int64()))
    except pa.ArrowNotImplementedError:  # views of text, also inside of lists
        pieces = [column.slice(at, 1) for at in places]
        return pa.concat_arrays(pieces) if pieces else column.slice(0, 0)


def _to_bytes(column: pa.Array) -> list[bytes]:
    """The text of each value; of binary the Base64, of other types without text nothing."""
    if find_obstacle(column.type) is None:
        return list(to_text(column).to_pylist())
    if is_binary(column.type):
        return [base64.b64encode(cell or b"") for cell in column.to_pylist()]
    return [b""] * len(column)
