"""`bulk-updater plan`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
import orjson
from rich.text import Text

from bulk_updater.cli.exits import EXIT_BAD_ROWS
from bulk_updater.cli.options import (
    job_arguments,
    make_run_config,
    output_options,
    pacing_options,
)
from bulk_updater.cli.output import output_console, print_json, set_up_logging
from bulk_updater.cli.progress import duration
from bulk_updater.operations import get_operation
from bulk_updater.pipeline import InvalidGroup, OperationPlan, Plan
from bulk_updater.pipeline import plan as make_plan

__all__ = ["plan"]

_GROUPS_SHOWN = 20

_EPILOG = """\b
Examples:
  bulk-updater plan mapping.yaml export.csv
  bulk-updater plan mapping.yaml export.parquet --rate 50
  bulk-updater plan mapping.yaml export.csv --json | jq .operations[0].invalid

\b
Exit codes: 0 every row can be sent or is skipped; 1 some rows are INVALID; 2 usage.
"""


@click.command(epilog=_EPILOG)
@job_arguments
@pacing_options
@output_options
def plan(**flags: Any) -> int:
    """Do everything but the sending.

    Says how many requests SOURCE... makes as MAPPING says, which rows are invalid and why, how
    long the run would take, and shows one request as the AWS CLI would take it. The request
    holds the cells of a row; nothing else does.
    """
    set_up_logging(color=flags["color"], debug=flags["debug"])
    made = make_plan(make_run_config(flags))
    if flags["as_json"]:
        print_json(asdict(made))
    else:
        _print(made)
    return EXIT_BAD_ROWS if any(part.n_invalid for part in made.operations) else 0


def _print(plan: Plan) -> None:
    console = output_console()

    def say(line: str = "", style: str = "") -> None:
        console.print(Text(line, style=style))

    for source, n_rows in plan.sources:
        say(f"{source}: {n_rows:,} rows")
    if len(plan.sources) > 1 or plan.n_rows != sum(n for _, n in plan.sources):
        say(f"{plan.n_rows:,} rows in all")
    for warning in plan.warnings:
        say(f"warning: {warning}", "yellow")
    for part in plan.operations:
        say()
        say(part.operation, "bold")
        for line in _operation_lines(part, plan):
            say(f"  {line}")
        if part.example is not None:
            say()
            say(
                f"  The first request, for: aws connect {part.operation.replace('_', '-')} "
                "--cli-input-json file://request.json"
            )
            console.print_json(orjson.dumps(part.example).decode(), indent=2)
    say()
    say(
        f"Nothing was sent. The run takes {duration(plan.takes_s)} at {plan.ceiling_per_s:g} "
        "requests a second for each operation.",
        "bold",
    )


def _operation_lines(part: OperationPlan, plan: Plan) -> list[str]:
    quota = get_operation(part.operation).quota_code
    skipped = [f"{count:,} {reason}" for reason, count in part.skipped.items() if count]
    lines = [
        f"{part.n_requests:,} requests, {duration(part.takes_s)} at {plan.ceiling_per_s:g}/s",
        f"quota code {quota}",
        f"{sum(part.skipped.values()):,} rows skipped" + "".join(f", {kind}" for kind in skipped),
        f"{part.n_invalid:,} rows invalid" + (":" if part.invalid else ""),
    ]
    lines += [f"  {_group_line(group)}" for group in part.invalid[:_GROUPS_SHOWN]]
    if len(part.invalid) > _GROUPS_SHOWN:
        lines.append(f"  and {len(part.invalid) - _GROUPS_SHOWN} more kinds; --json has all")
    if part.n_requests:
        lines.append(f"largest payload {part.max_payload_bytes:,} bytes")
    return lines


def _group_line(group: InvalidGroup) -> str:
    rows = ", ".join(f"{row:,}" for row in group.first_rows)
    more = " …" if group.n_rows > len(group.first_rows) else ""
    where = f" in {group.member}" if group.member else ""
    return f"{group.n_rows:,} x {group.rule}{where}: rows {rows}{more}. First: {group.example}"
