"""`bulk-updater ledger`."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from bulk_updater.cli.output import output_console, set_up_logging
from bulk_updater.errors import ConfigError
from bulk_updater.ledger import RunDir, standing_results
from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ledger"]

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
_TABLE_COLUMNS = ("row", "operation", "outcome", "attempts", "contact_id", "error_code", "error")
_RECORDS_AT_ONCE = 10_000

_EPILOG = """\b
Examples:
  bulk-updater ledger runs/mapping/export-0123456789ab
  bulk-updater ledger RUN_DIR --outcome failed --outcome invalid
  bulk-updater ledger RUN_DIR --format csv > results.csv
  bulk-updater ledger RUN_DIR --format parquet --output results.parquet
"""


@click.command(epilog=_EPILOG)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice([outcome.value for outcome in Outcome], case_sensitive=False),
    help="Only results of this outcome; may be given more than once.",
)
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="How to write them.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file instead of standard output.",
)
def ledger(run_dir: Path, outcomes: tuple[str, ...], fmt: str, output: Path | None) -> None:
    """Print the results in RUN_DIR, the last one for each row and operation.

    Works on a run that is still going on, too.
    """
    set_up_logging(color="auto", debug=False)
    path = RunDir(run_dir).ledger_path
    if not path.is_file():
        raise ConfigError(
            f"{run_dir} is no run directory: there is no {path.name} in it. A run's summary names "
            "its ledger; the directory is the one that it is in."
        )
    wanted = {outcome.upper() for outcome in outcomes}
    records = (
        record for record in standing_results(path) if not wanted or record["outcome"] in wanted
    )
    if fmt == "table" and output is None:
        _print_table(records)
        return
    if fmt == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is nothing for a terminal; name a file with --output.")
    try:
        with open(output or sys.stdout.fileno(), "wb", closefd=output is not None) as file:
            _WRITERS[fmt](records, file)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ConfigError(f"{output} cannot be written ({error.strerror}).") from error


def _print_table(records: Iterator[Record]) -> None:
    console = output_console()
    table = Table(box=None, pad_edge=False)
    for name in _TABLE_COLUMNS:
        table.add_column(name, justify="right" if name in ("row", "attempts") else "left")
    for record in records:
        table.add_row(*(Text(str(record.get(name, ""))) for name in _TABLE_COLUMNS))
    console.print(table)


def _write_csv(records: Iterator[Record], file: Any) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        names = record.get("attribute_names")
        writer.writerow(record | ({"attribute_names": " ".join(names)} if names else {}))
    text.detach()


def _write_json(records: Iterator[Record], file: Any) -> None:
    before = b"["
    for record in records:
        file.write(before + b"\n  " + orjson.dumps(record))
        before = b","
    file.write(b"\n]\n" if before == b"," else b"[]\n")


def _write_parquet(records: Iterator[Record], file: Any) -> None:
    schema = pa.schema(list(_COLUMNS.items()))
    with pq.ParquetWriter(file, schema) as writer:
        batch: list[Record] = []
        for record in records:
            batch.append(record)
            if len(batch) == _RECORDS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))


_WRITERS = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet, "table": _write_csv}
