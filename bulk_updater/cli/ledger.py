"""`bulk-updater ledger`."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulk_updater.cli.output import reader_may_leave, set_up_logging
from bulk_updater.cli.records import print_table, write_csv, write_json, write_parquet
from bulk_updater.errors import ConfigError, LedgerError, LedgerMismatch
from bulk_updater.ledger import RunDir, repair_ledger, standing_results
from bulk_updater.model import Outcome
from bulk_updater.words import count

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
  bulk-updater ledger RUN_DIR --repair
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
@click.option(
    "--repair",
    is_flag=True,
    help="Cut a ledger that was damaged in the middle before the damage, after keeping a copy; "
    "the rows from there on are sent again. Prints no results.",
)
def ledger(
    run_dir: Path,
    outcomes: tuple[str, ...],
    fmt: str | None,
    output: Path | None,
    *,
    repair: bool,
) -> None:
    """Print the results in RUN_DIR, the last one for each row and operation.

    Works on a run that is still going on, too. The table names the contact and what is wrong;
    the other formats hold everything that the ledger knows.
    """
    set_up_logging(color="auto", debug=False)
    if repair:
        _expect_typed("repair")
        if outcomes or fmt is not None or output is not None:
            raise ConfigError(
                "--repair prints no results, so --outcome, --format and --output have no place "
                "beside it. Repair the ledger first."
            )
        _repair(_ledger_path(run_dir))
        return
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


def _expect_typed(name: str) -> None:
    """Refuse a flag that a variable sets: it is a person's decision about one ledger."""
    source = click.get_current_context().get_parameter_source(name)
    if source is not click.core.ParameterSource.COMMANDLINE:
        raise ConfigError(
            "--repair has to be typed; unset BULK_UPDATER_LEDGER_REPAIR, or every ledger that is "
            "looked at from here would be repaired."
        )


def _repair(path: Path) -> None:
    """Repair a ledger while no run works on it, and say what was done."""
    with RunDir.open(path.parent) as run_dir:
        repaired = repair_ledger(path)
        with suppress(LedgerError):  # `run` says what is wrong with run.json
            run_dir.add_doubt(repaired.n_behind)
        command = _command_of(run_dir)
    if repaired.kept_path is None:
        said = f"{path} is whole ({count(repaired.n_lines, 'result')}): nothing is to be repaired."
    elif not repaired.n_behind:
        said = (
            f"{path} ended in the middle of a result: {count(repaired.cut_bytes, 'byte')} from "
            f"byte {repaired.size_bytes} on were cut off, and are kept in {repaired.kept_path}.\n"
            f"To go on: {command}"
        )
    else:
        said = (
            f"{path} was cut at byte {repaired.size_bytes}, before the damage. Cut off were "
            f"{count(repaired.cut_bytes, 'byte')}, with {count(repaired.n_behind, 'whole result')} "
            "in them; what they settled is sent again, in order. The ledger as it was is kept in "
            f"{repaired.kept_path}.\nTo go on: {command}"
        )
    with reader_may_leave():
        click.echo(said)


def _command_of(run_dir: RunDir) -> str:
    """The command that goes on with a run, as far as `run.json` tells it."""
    with suppress(LedgerError, KeyError, TypeError):  # it may be missing, damaged or older
        note = run_dir.read_run_json() or {}
        words = [note["mapping"]["path"], *(source["path"] for source in note["sources"])]
        return (
            "give the same command again, with the options that it had: bulk-updater run "
            f"{shlex.join(words)}"
        )
    return "give the run's command again, with the options that it had."


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
    _refuse_newer(path)
    return path


def _refuse_newer(path: Path) -> None:
    """Leave a ledger alone that may be written in another way: its end would seem to be torn.

    Raises:
        LedgerMismatch: The run's `run.json` says that a newer version wrote it.
    """
    try:
        RunDir(path.parent).read_run_json()
    except LedgerMismatch:
        raise
    except LedgerError:
        return  # a damaged note does not concern the results


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
