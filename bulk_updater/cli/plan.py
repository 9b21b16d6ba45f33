"""`bulk-updater plan`."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import click

from bulk_updater.cli.exits import EXIT_BAD_ROWS
from bulk_updater.cli.options import (
    changes_options,
    connection_options,
    guard_options,
    job_arguments,
    make_run_config,
    output_options,
    pacing_options,
    schedule_options,
)
from bulk_updater.cli.output import print_json, reader_may_leave, set_up_logging
from bulk_updater.cli.plan_text import print_plan
from bulk_updater.pipeline import plan as make_plan

__all__ = ["plan"]

log = logging.getLogger(__name__)

_EPILOG = """\b
Examples:
  bulk-updater plan mapping.yaml export.csv
  bulk-updater plan mapping.yaml export.parquet --rate 50       reads no quota
  bulk-updater plan mapping.yaml export.csv --window 22:00-06:00
  bulk-updater plan mapping.yaml export.csv --json | jq .operations[0].invalid

Exit codes: 0 every row can be sent or is skipped; 1 some rows are INVALID; 2 usage.
"""


@click.command(epilog=_EPILOG)
@job_arguments
@pacing_options
@schedule_options
@changes_options
@guard_options
@connection_options
@output_options
def plan(**flags: Any) -> int:
    """Do everything but the sending.

    Says how many requests SOURCE... makes as MAPPING says, which rows are invalid and why, how
    long the run would take, and shows one request as the AWS CLI would take it. The request
    holds the cells of a row; nothing else does. No row is sent; Service Quotas is asked for the
    quota, as a run does.
    """
    set_up_logging(color=flags["color"], debug=flags["debug"])
    said: list[str] = []

    def warn(warning: str) -> None:
        log.warning("%s", warning)
        said.append(warning)

    made = make_plan(make_run_config(flags), warn=warn)
    with reader_may_leave():
        if flags["json"]:
            print_json(asdict(made))
        else:
            unsaid = tuple(warning for warning in made.warnings if warning not in said)
            print_plan(replace(made, warnings=unsaid))
    return EXIT_BAD_ROWS if any(part.n_invalid for part in made.operations) else 0
