"""`bulk-updater state`."""

from __future__ import annotations

import csv
import io
import sys
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from bulk_updater.cli.exits import EXIT_BAD_ROWS
from bulk_updater.cli.output import output_console, reader_may_leave, set_up_logging
from bulk_updater.errors import ConfigError
from bulk_updater.model import to_iso
from bulk_updater.state import Known, ScopeSummary, State
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["state"]

_DEFAULT = Path("runs", "state.sqlite")

_EPILOG = """\b
Examples:
  bulk-updater state show
  bulk-updater state show 1c08909d-bafe-40bd-a6ab-ae9d3cd45d75
  bulk-updater state forget 1c08909d-bafe-40bd-a6ab-ae9d3cd45d75
  bulk-updater state export > state.csv
"""
_FORGET_EPILOG = """\b
Examples:
  bulk-updater state forget 1c08909d-bafe-40bd-a6ab-ae9d3cd45d75
  bulk-updater state forget --operation update_contact
  bulk-updater state forget --all --state other.sqlite
"""
_EXPORT_EPILOG = """\b
Examples:
  bulk-updater state export --output state.parquet
  bulk-updater state export --format json | jq .in_doubt
"""

_COLUMNS: dict[str, pa.DataType] = {
    "account": pa.string(),
    "region": pa.string(),
    "instance_id": pa.string(),
    "operation": pa.string(),
    "contact_id": pa.string(),
    "digest": pa.string(),
    "applied_at": pa.string(),
    "in_doubt": pa.bool_(),
}
_ROWS_AT_ONCE = 10_000

_LINE = "{contacts:>12} {in_doubt:>9}  {last:<20}  {operation}, {where}"

_state_option = click.option(
    "--state",
    "state",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_DEFAULT,
    show_default=True,
    metavar="FILE",
    help="The state file, as it was given to run.",
)


@click.group(epilog=_EPILOG, short_help="See, export or forget what was last applied.")
def state() -> None:
    """What was last applied to each contact, which `run --only-changed` goes by.

    Kept apart by account, region, instance and operation. A contact is in doubt while something
    was sent to it that is not known to be applied; its next row is sent whatever it is.
    """
    set_up_logging(color="auto", debug=False)


@state.command(short_help="Count what is known, or show one contact.")
@click.argument("contact_id", required=False)
@_state_option
def show(contact_id: str | None, state: Path) -> None:
    """Count the contacts, or show what is known of CONTACT_ID.

    Works while a run is going on, too. Exit code 1 where nothing is known of CONTACT_ID.
    """
    _expect_file(state)
    with State.read_only(state) as opened, reader_may_leave():
        if contact_id is None:
            _print_scopes(opened.scopes())
            return
        n_known = 0
        for known in opened.rows(contact_id):
            n_known += 1
            _print_contact(known)
    if not n_known:
        click.echo(f"Nothing is known of {contact_id}.")
        raise click.exceptions.Exit(EXIT_BAD_ROWS)


@state.command(epilog=_FORGET_EPILOG, short_help="Forget contacts, so that they are sent again.")
@click.argument("contact_ids", nargs=-1, metavar="[CONTACT_ID]...")
# What is forgotten is a person's decision about one file: no variable may make it.
@click.option(
    "--instance",
    allow_from_autoenv=False,
    metavar="ID",
    help="Only what is known of contacts of this instance.",
)
@click.option(
    "--operation",
    allow_from_autoenv=False,
    metavar="NAME",
    help="Only what this operation applied, such as update_contact.",
)
@click.option(
    "--all", "everything", is_flag=True, allow_from_autoenv=False, help="All that is known."
)
@_state_option
def forget(
    contact_ids: tuple[str, ...],
    instance: str | None,
    operation: str | None,
    state: Path,
    *,
    everything: bool,
) -> None:
    """Forget the contacts named, or all of an instance, of an operation, or of the file.

    The next row of each is sent, whether or not it has changed. Refused while a run works with
    the file.
    """
    narrowed = bool(contact_ids) or instance is not None or operation is not None
    if everything and narrowed:
        raise ConfigError(
            "--all forgets everything, so contacts, --instance and --operation have no place "
            "beside it. Leave one or the other out."
        )
    if not everything and not narrowed:
        raise ConfigError(
            "Say what to forget: contact ids, --instance, --operation, or --all. Nothing was "
            "forgotten."
        )
    _expect_file(state)
    with State.open(state, undone="Nothing was forgotten.") as opened:
        n_forgotten = sum(
            opened.forget(contact_id, instance_id=instance, operation=operation)
            for contact_id in dict.fromkeys(contact_ids or (None,))
        )
    with reader_may_leave():
        click.echo(
            f"{count(n_forgotten, 'contact was', 'contacts were')} forgotten."
            if n_forgotten
            else f"Nothing of that is known in {state}; nothing was forgotten."
        )


@state.command(
    epilog=_EXPORT_EPILOG, short_help="Write all that is known as CSV, JSON lines or Parquet."
)
@click.option(
    "--format",
    "fmt",
    envvar="BULK_UPDATER_STATE_EXPORT_FORMAT",
    type=click.Choice(["csv", "json", "parquet"]),
    help="How to write it, json being one object a line; by default what --output ends in, or csv.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file instead of standard output.",
)
@_state_option
def export(fmt: str | None, output: Path | None, state: Path) -> None:
    """Write a line for each contact in each scope: digest, when it was applied, and doubts.

    Works while a run is going on, too; what it changes meanwhile may or may not be in it.
    """
    fmt = fmt or _format_of(output)
    if fmt == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is nothing for a terminal; name a file with --output.")
    _expect_file(state)
    if output is not None and output.exists() and output.samefile(state):
        raise ConfigError(f"--output {output} is the state file itself; name another file.")
    with State.read_only(state) as opened:
        records = map(_record_of, opened.rows())
        if output is None:
            with reader_may_leave():
                _WRITERS[fmt](records, sys.stdout.buffer)
        else:
            _write_file(records, fmt, output)


def _expect_file(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            f"There is no state file {path}; `run --only-changed` makes one. Name another with "
            "--state."
        )


def _print_scopes(scopes: list[ScopeSummary]) -> None:
    console = output_console()
    if not scopes:
        console.print(Text("Nothing is known of any contact."))
        return
    header = _LINE.format(
        contacts="contacts",
        in_doubt="in doubt",
        last="last applied",
        operation="operation",
        where="instance, region, account",
    )
    console.print(Text(header, style="bold"), soft_wrap=True)
    for summary in scopes:
        scope = summary.scope
        line = _LINE.format(
            contacts=f"{summary.n_contacts:,}",
            in_doubt=f"{summary.n_in_doubt:,}",
            last=_second_of(summary.last_applied_at) or "never",
            operation=scope.operation,
            where=f"{scope.instance_id}, {scope.region}, {scope.account}",
        )
        console.print(Text(line), soft_wrap=True)


def _print_contact(known: Known) -> None:
    scope = known.scope
    said = (
        "nothing was applied for certain"
        if known.digest is None
        else f"digest {known.digest:016x} applied at {_second_of(known.applied_at)}"
    )
    doubt = "; something sent since may or may not be applied (in doubt)" if known.in_doubt else ""
    click.echo(
        f"{scope.operation}, {scope.instance_id}, {scope.region}, {scope.account}: {said}{doubt}"
    )


def _second_of(epoch_s: int | None) -> str | None:
    """As ISO 8601 in whole seconds: a moment is kept no finer."""
    return None if epoch_s is None else to_iso(epoch_s).replace(".000Z", "Z")


def _record_of(known: Known) -> dict[str, Any]:
    scope = known.scope
    return {
        "account": scope.account,
        "region": scope.region,
        "instance_id": scope.instance_id,
        "operation": scope.operation,
        "contact_id": known.contact_id,
        "digest": None if known.digest is None else f"{known.digest:016x}",
        "applied_at": _second_of(known.applied_at),
        "in_doubt": known.in_doubt,
    }


def _write_csv(records: Iterator[dict[str, Any]], file: IO[bytes]) -> None:
    """A header, and a line for each record; what is not known is empty."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow(record | {"in_doubt": "true" if record["in_doubt"] else "false"})
    finally:
        text.detach()


def _write_json(records: Iterator[dict[str, Any]], file: IO[bytes]) -> None:
    """One object a line; what is not known is null."""
    for record in records:
        file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def _write_parquet(records: Iterator[dict[str, Any]], file: IO[bytes]) -> None:
    """One table; what is not known is null."""
    schema = pa.schema(list(_COLUMNS.items()))
    with pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(records, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


_WRITERS = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def _format_of(output: Path | None) -> str:
    if output is None:
        return "csv"
    fmt = _SUFFIXES.get(output.suffix.lower())
    if fmt is None:
        raise ConfigError(
            f"{output} does not end in .csv, .json, .jsonl or .parquet; say with --format what it "
            "is to be."
        )
    return fmt


def _write_file(records: Iterator[dict[str, Any]], fmt: str, output: Path) -> None:
    try:
        with output.open("wb") as file:  # what is left in its buffer is written when it is closed
            _WRITERS[fmt](records, file)
    except OSError as error:
        raise ConfigError(
            f"{output} cannot be written ({error.strerror}); name another file with --output, "
            "or make room."
        ) from error
