"""Which reader a file's name calls for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulk_updater.errors import SourceError
from bulk_updater.readers.delimited import DelimitedSource
from bulk_updater.readers.parquet import ParquetSource
from bulk_updater.readers.source import check_regular_file

if TYPE_CHECKING:
    from pathlib import Path

    from bulk_updater.config import SourceFormat
    from bulk_updater.readers.source import Source

__all__ = ["open_source"]

_DELIMITED = (".csv", ".tsv", ".txt")
_PARQUET = (".parquet", ".pq")


def open_source(path: Path, fmt: SourceFormat) -> Source:
    """Open a source and read its header.

    Args:
        path: A `.csv`, `.tsv` or `.txt` file, any of them also as `.gz`, or a `.parquet` or `.pq`
            file; upper and lower case are the same.
        fmt: How a CSV source is written; Parquet does not need it.

    Raises:
        SourceError: The file cannot be read, is of another kind than its name says, or its
            header cannot be used.
    """
    name = str(path)
    check_regular_file(path, name=name)
    plain = path.name.lower()
    packed = plain.endswith(".gz")
    plain = plain.removesuffix(".gz")
    if plain.endswith(_DELIMITED):
        # The default of `source.delimiter` says nothing; the file's name does.
        delimiter = "\t" if plain.endswith(".tsv") and fmt.delimiter == "," else fmt.delimiter
        return DelimitedSource(
            path, encoding=fmt.encoding, delimiter=delimiter, packed=packed, name=name
        )
    if plain.endswith(_PARQUET) and not packed:
        return ParquetSource(path, name=name)
    raise SourceError(
        "its name does not say what it is; a source ends with .csv, .tsv, .txt (or one of these "
        "and .gz), .parquet or .pq.",
        source=name,
    )
