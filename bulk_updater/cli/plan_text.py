"""A plan, for a person."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import orjson
from rich.text import Text

from bulk_updater.cli.output import output_console, print_wrapped
from bulk_updater.schedule import describe_moment
from bulk_updater.words import count, duration, figure

if TYPE_CHECKING:
    from rich.console import Console

    from bulk_updater.pipeline import InvalidGroup, OperationPlan, Plan

__all__ = ["print_plan"]

_GROUPS_SHOWN = 20

_REASONS = {"filtered": "left out by `where`", "nothing_to_send": "with nothing to send"}


def print_plan(plan: Plan) -> None:
    """Print what a run would do."""
    console = output_console()
    for source, n_rows in plan.sources:
        console.print(Text(f"{source}: {count(n_rows, 'row')}"), soft_wrap=True)
    if len(plan.sources) > 1:
        console.print(Text(f"together: {count(plan.n_rows, 'row')}"))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    for part in plan.operations:
        console.print()
        console.print(Text(part.operation, style="bold"))
        _print_requests(part)
        _print_pace(part)
        _print_unsent(part)
        _print_example(console, part)
    console.print()
    if plan.n_nights is not None:
        console.print(Text(_nights(plan, plan.n_nights)))
    console.print(Text(_last_line(plan), style="bold"))


def _nights(plan: Plan, n_nights: int) -> str:
    if plan.ends_at is None:
        return (
            f"The time that it has is too short: after {count(n_nights, 'night')} it would not be "
            "done. Give it more time, or a higher rate."
        )
    ends_at = datetime.fromisoformat(plan.ends_at).timestamp()
    return f"It takes {count(n_nights, 'night')}, and is done at {describe_moment(ends_at)}."


def _last_line(plan: Plan) -> str:
    if not any(part.n_requests for part in plan.operations):
        return "Nothing was sent, and a run would send nothing."
    takes = f"Nothing was sent. A run takes {duration(plan.takes_s)}"
    rates = {figure(part.initial_rate_per_s) for part in plan.operations}
    if len(rates) > 1:
        return f"{takes}."
    each = " for each operation" if len(plan.operations) > 1 else ""
    return f"{takes} at {rates.pop()} requests a second{each}."


def _print_requests(part: OperationPlan) -> None:
    requests = f"{duration(part.takes_s)} at {figure(part.initial_rate_per_s)}/s"
    if part.n_requests:
        requests += f"; the largest has {count(part.max_payload_bytes, 'byte')}"
    what = "request" if part.n_requests == 1 else "requests"
    _print_row(f"{part.n_requests:,}", what, requests)


def _print_pace(part: OperationPlan) -> None:
    _print_row("", "pace", part.pace)
    if not part.at_other_quotas:
        _print_row("", "quota", f"code {part.quota_code}")
        return
    _print_row("", "quota", f"code {part.quota_code}; AWS raises it on request. With")
    rates = [f"{figure(each.rate_per_s)}/s" for each in part.at_other_quotas]
    width = max(map(len, rates))
    for rate, each in zip(rates, part.at_other_quotas, strict=True):
        print_wrapped(f"{rate:>{width}}  {duration(each.takes_s)}", indent=23)


def _print_row(number: str, what: str, more: str) -> None:
    first = f"{number:>9}  {what:<8}  " if more else f"{number:>9}  {what}"
    print_wrapped(more, indent=21, first=first)


def _print_unsent(part: OperationPlan) -> None:
    skipped = ", ".join(
        f"{number:,} {_REASONS.get(reason, reason)}"
        for reason, number in part.skipped.items()
        if number
    )
    if part.n_unchanged:
        _print_row(f"{part.n_unchanged:,}", "unchanged", "")
    _print_row(f"{sum(part.skipped.values()):,}", "skipped", skipped)
    _print_row(f"{part.n_invalid:,}", "invalid", "")
    for group in part.invalid[:_GROUPS_SHOWN]:
        print_wrapped(_rows_of(group), indent=11)
        print_wrapped(_fault_of(group), indent=13, style="yellow")
    if len(part.invalid) > _GROUPS_SHOWN:
        kinds = count(len(part.invalid) - _GROUPS_SHOWN, "more kind")
        print_wrapped(f"and {kinds}; --json has all", indent=11)


def _print_example(console: Console, part: OperationPlan) -> None:
    if part.example is not None:
        command = part.operation.replace("_", "-")
        console.print()
        console.print(Text(f"First request, for aws connect {command} --cli-input-json:"))
        console.print_json(orjson.dumps(part.example).decode(), indent=2)


def _rows_of(group: InvalidGroup) -> str:
    """`row 57: too_long`, `2 rows (211, 432): no_date`; the numbers can be copied as they are."""
    if group.n_rows == 1:
        return f"row {group.first_rows[0]}: {group.rule}"
    rows = ", ".join(map(str, group.first_rows))
    more = ", ..." if group.n_rows > len(group.first_rows) else ""
    return f"{group.n_rows:,} rows ({rows}{more}): {group.rule}"


def _fault_of(group: InvalidGroup) -> str:
    return group.example.removeprefix(f"row {group.first_rows[0]}: ")
