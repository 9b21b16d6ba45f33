"""`bulk-updater retry`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bulk_updater.cli.night import open_night
from bulk_updater.cli.options import (
    connection_options,
    make_run_config,
    night_options,
    output_options,
    pacing_options,
    schedule_options,
    sending_options,
)
from bulk_updater.cli.output import set_up_logging
from bulk_updater.cli.run import carry_out
from bulk_updater.config import MaxFailures
from bulk_updater.errors import UsageError
from bulk_updater.pipeline.again import retry as retry_pipeline
from bulk_updater.pipeline.identity import read_run

__all__ = ["retry"]

_EPILOG = """\b
Examples:
  bulk-updater retry runs/mapping/export-0123456789ab
  bulk-updater retry RUN_DIR --code ReadTimeoutError --code ConflictException
  bulk-updater retry RUN_DIR --rate 5       slower than the run was

Exit codes are those of run: 1 where some rows are FAILED or INVALID at the end,
whether this has tried them again or not. After 3, 4 and 130 the same command
goes on.
"""

_WHY_NOT = {
    "updated": "what Connect has said yes to is not sent again; change the export and run that.",
    "invalid": "an INVALID row makes no request before it is mended. Mend it in the run's "
    "failed.csv, and run that file.",
    "skipped": "a SKIPPED row makes no request; see `where` in the mapping.",
    "unchanged": "an UNCHANGED row's contact holds already what it says.",
    "superseded": "a SUPERSEDED row is older than what stands for its contact.",
}


def _parse_outcome(_context: click.Context, _option: click.Parameter, value: str) -> str:
    outcome = value.lower()
    if outcome in _WHY_NOT:
        raise click.BadParameter(f"only FAILED rows are retried: {_WHY_NOT[outcome]}")
    if outcome != "failed":
        raise click.BadParameter(f'"{value}" is no outcome; only "failed" can be retried.')
    return outcome


@click.command(epilog=_EPILOG, short_help="Send the failed rows of a finished run again.")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--outcome",
    callback=_parse_outcome,
    default="failed",
    show_default=True,
    metavar="OUTCOME",
    help="Which rows: those that are FAILED.",
)
@click.option(
    "--code",
    multiple=True,
    metavar="CODE",
    help="Only rows with this error code; may be given more than once.",
)
@pacing_options
@schedule_options
@sending_options
@connection_options
@night_options
@output_options
@click.pass_context
def retry(context: click.Context, /, **flags: Any) -> int:
    """Send the failed rows of the finished run in RUN_DIR again, into the same ledger.

    The mapping, the sources and whatever is not typed here are as the run had them. A row never
    undoes a later one: what a later row of the same contact wrote is left out, and a row of
    which nothing is left is SUPERSEDED.
    """
    set_up_logging(color=flags["color"], debug=flags["debug"])
    open_night(flags)
    noted = read_run(flags["run_dir"])
    typed = {
        name for name in flags if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    made = make_run_config(flags | _as_noted(noted, typed))
    mends = noted.get("mends")
    # The night's own state file is the one that is told.
    state_file = _path(noted.get("configuration", {}).get("changes", {}).get("state_file"))
    config = replace(
        made,
        changes=replace(made.changes, state_file=state_file),
        mends=None if mends is None else Path(mends["run_dir"]),
    )
    execute = partial(retry_pipeline, codes=flags["code"], obeys_ctl=True)
    return carry_out(config, as_json=flags["json"], execute=execute)


# The rows of a run are those that it had.
retry.params = [param for param in retry.params if param.name != "limit"]


def _as_noted(noted: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    """The flags that the run had, but for those that were typed.

    Raises:
        UsageError: If the mapping or a source is not there.
    """
    before = noted.get("configuration", {})
    sandbox = before.get("sandbox", False) and "endpoint_url" not in typed
    flags = {
        **_connection_flags(before.get("connection", {})),
        **_pacing_flags(before.get("pacing", {}), typed),
        "quota_file": _path(before.get("quota_file")),
        "sandbox": sandbox,
    }
    if sandbox:
        flags["endpoint_url"] = None  # each rehearsal has an endpoint of its own
    if "max_in_flight" in before:
        flags["max_in_flight"] = before["max_in_flight"]
    if "max_attempts" in before.get("retry", {}):
        flags["max_attempts"] = before["retry"]["max_attempts"]
    if "max_failures" in before:
        flags["max_failures"] = MaxFailures(**before["max_failures"])
    kept = {name: value for name, value in flags.items() if name not in typed}
    return kept | {
        "mapping": _existing(noted["mapping"]["path"], "mapping"),
        "sources": [_existing(source["path"], "source") for source in noted["sources"]],
        "limit": before.get("limit"),
    }


def _connection_flags(before: dict[str, Any]) -> dict[str, Any]:
    flags: dict[str, Any] = {
        name: before[name]
        for name in ("region", "profile", "endpoint_url", "ca_bundle", "allow_http")
        if name in before
    }
    for flag, name in (("no_verify_ssl", "verify_ssl"), ("no_sign_request", "sign_requests")):
        if name in before:
            flags[flag] = not before[name]
    for name in ("connect_timeout_s", "read_timeout_s"):
        if name in before:
            flags[f"cli_{name.removesuffix('_s')}"] = before[name]
    return flags


def _pacing_flags(before: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    flags: dict[str, Any] = {name: before[name] for name in ("rate", "exclusive") if name in before}
    # The two exclude each other: what is typed of one decides both.
    if "quota_share" in typed:
        flags["exclusive"] = False
    elif "exclusive" not in typed and not before.get("exclusive"):
        flags["quota_share"] = before.get("quota_share")
    return flags


def _existing(name: str, what: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise UsageError(
            f"{name}: the run's {what} is not there. Nothing was sent. Give the command in the "
            "folder in which the run was given, or put the file back."
        )
    return path


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
