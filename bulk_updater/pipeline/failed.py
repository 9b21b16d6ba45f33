"""`failed.csv`: the rows that are FAILED or INVALID, to be mended and run again.

Made from the ledger in a second pass over the sources, so that reading stays narrow and a resumed
run misses no row. The file is written as the mapping says that sources are written, so the same
mapping reads it; where a source is in another encoding than it says, as UTF-8 with a byte order
mark, which outranks it.

A row that could not be read stands there as it was, and stays unreadable until it is mended: with
the columns behind it, it never has as many cells as the header. Otherwise a short row would come
back as a whole one with empty cells. The same holds for a row with a cell that cannot be written
as it was.

A row that comes from an earlier `failed.csv` stands there with the number that it has in that one:
see `mended`.
"""

from __future__ import annotations

import codecs
import csv
import os
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from bulk_updater.errors import LedgerWriteError
from bulk_updater.ledger import standing_results
from bulk_updater.model import FAILED_COLUMNS, Outcome
from bulk_updater.pipeline.mended import BAD_ORIGIN
from bulk_updater.pipeline.numbered import ORIGIN_COLUMNS, mends

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bulk_updater.ledger import RunDir, SettledRows
    from bulk_updater.pipeline.job import Job
    from bulk_updater.readers import RawRow, Source

__all__ = ["write_failed"]

_AT_ONCE = 100_000
"""Rows whose errors are held in memory at once: some 100 MB. More failed rows, more passes."""

_BOM = "\ufeff"

_WANTED = (Outcome.FAILED, Outcome.INVALID)


def write_failed(run_dir: RunDir, job: Job, settled: SettledRows) -> Path | None:
    """Write `failed.csv`, or remove one that nothing belongs into any more. Blocks.

    Args:
        run_dir: The run directory.
        job: What was run.
        settled: Which rows are settled, and how.

    Returns:
        The file; None if no row is FAILED or INVALID.

    Raises:
        LedgerWriteError: If it cannot be written.
        SourceError: If a source cannot be read again.
    """
    path = run_dir.failed_path
    rows = _distinct(row for row, _ in settled.rows_with(_WANTED))
    first = list(islice(rows, _AT_ONCE))
    partial = path.with_name(path.name + ".tmp")
    try:
        if not first:
            path.unlink(missing_ok=True)
            return None
        columns = _columns(job)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(
            fd, "w", encoding=_encoding(job, columns), errors="surrogateescape", newline=""
        ) as file:
            _write(file, columns, run_dir, job, _chunks(first, rows))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise LedgerWriteError(
            f"the failed rows cannot be written ({error.strerror}). The ledger holds all results; "
            "make room or mend the permissions, and run the same command again.",
            path=path,
        ) from None
    return path


def _distinct(rows: Iterable[int]) -> Iterator[int]:
    before = 0
    for row in rows:
        if row != before:
            yield row
        before = row


def _chunks(first: list[int], rest: Iterator[int]) -> Iterator[list[int]]:
    chunk = first
    while chunk:
        yield chunk
        chunk = list(islice(rest, _AT_ONCE))


def _write(
    file: TextIO, columns: list[str], run_dir: RunDir, job: Job, chunks: Iterator[list[int]]
) -> None:
    fmt = job.spec.source.format
    delimiter = job.sources[0].source.delimiter if fmt.delimiter == "auto" else fmt.delimiter
    # Before Python 3.13, csv puts a cell in quotes for a CR only where one ends the rows. Outside
    # of quotes it would end the row, and what is behind it would be another row, perhaps with
    # another contact.
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    header = [*columns, *FAILED_COLUMNS]
    writer.writerow([_writable(name, file.encoding) for name in header])
    for chunk in chunks:
        errors = _errors(run_dir, set(chunk))
        for part in job.sources:
            if part.first_row > chunk[-1] or part.first_row + part.n_rows <= chunk[0]:
                continue
            for raw in part.source.read_raw_rows(errors.__contains__, first_row=part.first_row):
                reasons = _with_origin(raw, part.source, errors[raw.row])
                line = _line(raw, part.source, columns, reasons, file.encoding)
                writer.writerow(line)


def _columns(job: Job) -> list[str]:
    """Every source's own columns, each once, in order."""
    names = (name for part in job.sources for name in part.source.columns)
    return [name for name in dict.fromkeys(names) if name not in FAILED_COLUMNS]


def _errors(run_dir: RunDir, rows: set[int]) -> dict[int, list[str]]:
    """For each row the cells of `FAILED_COLUMNS`; those of two operations joined by `; `."""
    cells: dict[int, list[str]] = {}
    for record in standing_results(run_dir.ledger_path):
        if record["row"] not in rows or record["outcome"] not in _WANTED:
            continue
        new = [
            str(record["row"]),
            record["operation"],
            record["outcome"],
            str(record.get("error_code", "")),
            str(record.get("error", "")),
        ]
        old = cells.get(record["row"])
        cells[record["row"]] = (
            new if old is None else [new[0], *map("; ".join, zip(old[1:], new[1:], strict=True))]
        )
    return cells


def _with_origin(raw: RawRow, source: Source, errors: list[str]) -> list[str]:
    """The cells of `FAILED_COLUMNS`; of a mended row, what it was in the run that it comes from."""
    if not mends(source):
        return errors
    if not raw.readable:
        return ["", *errors[1:]]  # nobody can tell which of its cells is the number
    by_name = dict(zip(source.columns, raw.cells, strict=True))
    row, operation = (
        by_name[name].decode(source.encoding, "backslashreplace") for name in ORIGIN_COLUMNS
    )
    # Where it could not be read, the row is INVALID for operations that it never failed for.
    return [row, operation if BAD_ORIGIN in errors[3] else errors[1], *errors[2:]]


def _encoding(job: Job, columns: Sequence[str]) -> str:
    """The codec in which the same mapping reads every source's cells again.

    It is the mapping's own, unless a source is really in another: a Parquet file, or one whose
    byte order mark says so. A name that begins with a mark would be read without it, unless
    another one stands before it.
    """
    named = job.spec.source.format.encoding
    as_named = all(_family(part.source.encoding) == _family(named) for part in job.sources)
    return named if as_named and not "".join(columns).startswith(_BOM) else "utf-8-sig"


def _family(encoding: str) -> str:
    """A codec's name, whatever it is called by, without byte order and its mark."""
    name = codecs.lookup(encoding).name
    return name.removesuffix("-sig").removesuffix("-le").removesuffix("-be")


def _line(
    raw: RawRow, source: Source, columns: Sequence[str], errors: Sequence[str], encoding: str
) -> list[str]:
    texts = [_text(cell, source.encoding, encoding) for cell in raw.cells]
    cells = [text for text, _ in texts]
    reasons = [_writable(cell, encoding) for cell in errors]
    if raw.readable:
        by_name = dict(zip(source.columns, cells, strict=True))
        cells = [by_name.get(name, "") for name in columns]
        if all(as_it_was for _, as_it_was in texts):
            return [*cells, *reasons]
    if len(cells) > len(columns):
        return [*cells, *reasons]
    return [*cells, *[""] * (len(columns) - len(cells)), *reasons[:-1]]


def _text(cell: bytes, encoding: str, file_encoding: str) -> tuple[str, bool]:
    """A cell as it is written, and whether it is read again as it was."""
    try:
        text = cell.decode(encoding)
    except UnicodeDecodeError:
        return _keep_undecodable(cell, encoding, file_encoding)
    written = _writable(text, file_encoding)
    return written, written == text


def _keep_undecodable(cell: bytes, encoding: str, file_encoding: str) -> tuple[str, bool]:
    """As `_text`: the bytes themselves where the file can hold them, else their numbers.

    In another encoding they could mean something: the two bytes of a UTF-8 `é` are undecodable in
    an `ascii` source, and in a UTF-8 file they are not. UTF-16 cannot hold single bytes at all.
    """
    if _family(encoding) == _family(file_encoding):
        try:
            text = cell.decode(encoding, "surrogateescape")
            if text.encode(encoding, "surrogateescape") == cell:
                return text, True
        except UnicodeError:
            pass
    return _writable(cell.decode(encoding, "backslashreplace"), file_encoding), False


def _writable(text: str, encoding: str) -> str:
    """A text whose characters that an encoding cannot hold are their numbers after a backslash."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text
