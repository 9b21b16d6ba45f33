"""The ledger's records in the formats that `bulk-updater ledger` knows, one at a time."""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from bulk_updater.cli.output import output_console, print_wrapped
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Record", "print_table", "write_csv", "write_json", "write_parquet"]

Record = dict[str, Any]

_COLUMNS: dict[str, pa.DataType] = {
    "run_id": pa.string(),
    "row": pa.int64(),
    "source": pa.string(),
    "operation": pa.string(),
    "instance_id": pa.string(),
    "contact_id": pa.string(),
    "outcome": pa.string(),
    "attempts": pa.int64(),
    "throttled": pa.int64(),
    "http_status": pa.int64(),
    "error_code": pa.string(),
    "error": pa.string(),
    "request_id": pa.string(),
    "payload_digest": pa.string(),
    "attribute_names": pa.list_(pa.string()),
    "payload_bytes": pa.int64(),
    "merged_into": pa.int64(),
    "started_at": pa.string(),
    "finished_at": pa.string(),
    "took_ms": pa.int64(),
}
_RECORDS_AT_ONCE = 10_000

_OUTCOME_STYLES = {"UPDATED": "green", "FAILED": "red", "INVALID": "yellow", "SKIPPED": "dim"}
_LINE = "{row:>7} {outcome:<7} {contact:<36} {operation}"
"""Fits 80 columns with six digits of rows, a contact's UUID and the longer operation."""


def print_table(records: Iterator[Record]) -> None:
    """A line for each result as it is read, and what is wrong with it below, indented."""
    console = output_console()
    header = _LINE.format(row="row", outcome="outcome", contact="contact", operation="operation")
    n_records = 0
    for record in records:
        if not n_records:
            console.print(Text(header, style="bold"), soft_wrap=True)
        n_records += 1
        line = _LINE.format(
            row=record["row"],
            outcome=record["outcome"],
            contact=_shortened(record.get("contact_id", "-"), 36),
            operation=record["operation"],
        )
        style = _OUTCOME_STYLES.get(record["outcome"], "")
        console.print(Text(line, style=style), soft_wrap=True)
        if "error" in record:
            print_wrapped(_fault_of(record), indent=8)
    console.print(Text(f"{count(n_records, 'result')}." if n_records else "No results."))


def _shortened(text: str, n_characters: int) -> str:
    return text if len(text) <= n_characters else text[: n_characters - 3] + "..."


def _fault_of(record: Record) -> str:
    """The error, with its code where it does not quote it, without the row's number."""
    error = str(record["error"]).removeprefix(f"row {record['row']}: ")
    code = str(record.get("error_code", ""))
    return error if not code or code in error else f"{code}: {error}"


def write_csv(records: Iterator[Record], file: IO[bytes]) -> None:
    """One line for each result; names of attributes are joined with spaces."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for record in records:
            names = record.get("attribute_names")
            writer.writerow(record | ({"attribute_names": " ".join(names)} if names else {}))
    finally:
        text.detach()


def write_json(records: Iterator[Record], file: IO[bytes]) -> None:
    """One array, a line for each result."""
    before = b"["
    for record in records:
        file.write(before + b"\n  " + orjson.dumps(record))
        before = b","
    file.write(b"\n]\n" if before == b"," else b"[]\n")


def write_parquet(records: Iterator[Record], file: IO[bytes]) -> None:
    """One table; what a result leaves out is null."""
    schema = pa.schema(list(_COLUMNS.items()))
    with pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(records, _RECORDS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
