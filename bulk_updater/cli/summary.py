"""The summary at the end of a run, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bulk_updater.cli.output import output_console
from bulk_updater.cli.progress import duration

if TYPE_CHECKING:
    from bulk_updater.model import RunSummary

__all__ = ["print_summary"]

_STYLES = {"UPDATED": "green", "FAILED": "red", "INVALID": "yellow", "SKIPPED": "dim"}


def print_summary(summary: RunSummary) -> None:
    """Print what a run came to, where to look, and how to go on."""
    console = output_console()
    console.print(Text(_headline(summary), style="bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right")
    for outcome, count in summary.outcomes.items():
        table.add_row(
            Text(f"  {outcome}", style=_STYLES.get(outcome, "") if count else "dim"), f"{count:,}"
        )
    if summary.unsettled:
        table.add_row(Text("  not settled"), f"{summary.unsettled:,}")
    console.print(table)
    console.print(Text(f"ledger: {summary.ledger}"))
    if summary.failed:
        console.print(Text(f"failed: {summary.failed}  (mend it and run it with the same mapping)"))
    if summary.resume:
        console.print(Text(f"go on:  {summary.resume}"))


def _headline(summary: RunSummary) -> str:
    bad = summary.outcomes["FAILED"] + summary.outcomes["INVALID"]
    if summary.state == "finished":
        verdict = (
            f"Finished, and {bad:,} {'results need' if bad > 1 else 'result needs'} a look"
            if bad
            else "Finished: every row settled well"
        )
    else:
        verdict = f"{summary.state.capitalize()} with {summary.unsettled:,} results to go"
    return (
        f"{verdict}. {summary.rows_read:,} rows, {summary.attempts:,} requests of which "
        f"{summary.throttled:,} were throttled, in {duration(summary.took_s)}."
    )
