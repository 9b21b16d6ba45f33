"""`bulk-updater ledger`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulk_updater.cli.output import reader_may_leave, set_up_logging
from bulk_updater.cli.records import print_table, write_csv, write_json, write_parquet
from bulk_updater.errors import ConfigError
from bulk_updater.ledger import RunDir, standing_results
from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.cli.records import Record

__all__ = ["ledger"]

_WRITERS = {"csv": write_csv, "json": write_json, "parquet": write_parquet}

_EPILOG = """\b
Examples:
  bulk-updater ledger runs/mapping/export-0123456789ab
  bulk-updater ledger RUN_DIR --outcome failed --outcome invalid
  bulk-updater ledger RUN_DIR --format csv > results.csv
  bulk-updater ledger RUN_DIR --output results.parquet
"""


@click.command(epilog=_EPILOG, short_help="Print or export the results of a run.")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--outcome",
    "outcomes",
    envvar="BULK_UPDATER_LEDGER_OUTCOME",
    multiple=True,
    type=click.Choice([outcome.value for outcome in Outcome], case_sensitive=False),
    help="Only results of this outcome; may be given more than once.",
)
@click.option(
    "--format",
    "fmt",
    envvar="BULK_UPDATER_LEDGER_FORMAT",
    type=click.Choice(["table", *_WRITERS]),
    help="How to write them; by default what --output ends in, or a table.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to this file instead of standard output.",
)
def ledger(run_dir: Path, outcomes: tuple[str, ...], fmt: str | None, output: Path | None) -> None:
    """Print the results in RUN_DIR, the last one for each row and operation.

    Works on a run that is still going on, too. The table names the contact and what is wrong;
    the other formats hold everything that the ledger knows.
    """
    set_up_logging(color="auto", debug=False)
    fmt = fmt or _format_of(output)
    if fmt == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is nothing for a terminal; name a file with --output.")
    if fmt == "table" and output is not None:
        raise ConfigError(
            "A table is for the eye; for a file choose --format csv, json or parquet."
        )
    wanted = {outcome.upper() for outcome in outcomes}
    records = (
        record
        for record in standing_results(_ledger_path(run_dir))
        if not wanted or record["outcome"] in wanted
    )
    if fmt == "table":
        with reader_may_leave():
            print_table(records)
    elif output is None:
        with reader_may_leave():
            _WRITERS[fmt](records, sys.stdout.buffer)
    else:
        _write_file(records, fmt, output)


def _ledger_path(run_dir: Path) -> Path:
    """The ledger in a run directory, which may itself be named, as the summary names it."""
    path = RunDir(run_dir).ledger_path
    if run_dir.name == path.name:
        path = run_dir
    if not path.is_file():
        raise ConfigError(
            f"{run_dir} is no run directory: there is no ledger.jsonl in it. A run's summary "
            "names its ledger; give its path, or the directory that it is in."
        )
    return path


def _format_of(output: Path | None) -> str:
    if output is None:
        return "table"
    suffix = output.suffix.lower().removeprefix(".")
    if suffix not in _WRITERS:
        raise ConfigError(
            f"{output} does not end in .csv, .json or .parquet; say with --format what it is to be."
        )
    return suffix


def _write_file(records: Iterator[Record], fmt: str, output: Path) -> None:
    try:
        with output.open("wb") as file:  # what is left in its buffer is written when it is closed
            _WRITERS[fmt](records, file)
    except OSError as error:
        raise ConfigError(
            f"{output} cannot be written ({error.strerror}); name another file with --output, "
            "or make room."
        ) from error
