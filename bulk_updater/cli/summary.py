"""The summary at the end of a run, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from bulk_updater.cli.output import output_console, print_wrapped
from bulk_updater.config import DOCUMENTED_RATE_PER_S
from bulk_updater.model import QuotaOrigin
from bulk_updater.words import count, duration, figure, percent

if TYPE_CHECKING:
    from bulk_updater.model import FoundQuota, PaceSummary, RunSummary

__all__ = ["headline", "print_how_to_go_on", "print_summary"]

_STYLES = {
    "UPDATED": "green",
    "FAILED": "red",
    "INVALID": "yellow",
    "SKIPPED": "dim",
    "UNCHANGED": "dim",
    "SUPERSEDED": "dim",
}

_WHERE_ANY = {"UNCHANGED", "SUPERSEDED"}
"""Outcomes that most runs cannot have: shown where there are any."""

_WENT = {"stopped": "Stopped", "deadline": "The deadline came"}


def print_summary(summary: RunSummary) -> None:
    """Print what a run came to, where to look, and in the last line how to go on."""
    console = output_console()
    console.print(Text(headline(summary), style="bold"))
    console.print()
    _print_outcomes(summary)
    console.print()
    console.print(Text(f"{_what_was_read(summary)}; {_what_was_sent(summary)}."))
    if summary.drift is not None:
        print_wrapped(_what_drifted(summary.drift))
    for line in _what_was_found(summary):
        print_wrapped(line)
    console.print(Text(f"ledger  {summary.ledger}"), soft_wrap=True)
    if summary.failed:
        console.print(Text(f"failed  {summary.failed}"), soft_wrap=True)
        console.print(Text("        Mend these rows and run this file with the same mapping."))
    if summary.resume:
        print_how_to_go_on(summary.resume)


def print_how_to_go_on(command: str) -> None:
    """Print the command that goes on, on a line of its own, to be copied."""
    console = output_console()
    console.print()
    console.print(Text("To go on:", style="bold"))
    console.print(Text(command), soft_wrap=True)


def headline(summary: RunSummary) -> str:
    """How a run went, in one sentence."""
    took = duration(summary.took_s)
    if summary.state != "finished":
        went = _WENT.get(summary.state, "Interrupted")
        to_go = count(summary.unsettled, "result")
        return f"{went} after {took}, with {to_go} to go."
    bad = summary.outcomes["FAILED"] + summary.outcomes["INVALID"]
    if not bad:
        return f"Finished in {took}: every row settled well."
    return f"Finished in {took}: {count(bad, 'result needs', 'results need')} a look."


def _print_outcomes(summary: RunSummary) -> None:
    numbers = {
        label: number
        for label, number in summary.outcomes.items()
        if number or label not in _WHERE_ANY
    }
    if summary.unsettled:
        numbers["not settled"] = summary.unsettled
    label_width = max(map(len, numbers))
    number_width = max(len(f"{number:,}") for number in numbers.values())
    for label, number in numbers.items():
        style = _STYLES.get(label, "") if number else "dim"
        line = f"  {label:<{label_width}}  {number:>{number_width},}"
        output_console().print(Text(line, style=style))


def _what_was_read(summary: RunSummary) -> str:
    rows = count(summary.rows_read, "row")
    n_results = sum(summary.outcomes.values()) + summary.unsettled
    if n_results == summary.rows_read:
        return rows
    return f"{rows}, {count(n_results, 'result')}"


def _what_was_sent(summary: RunSummary) -> str:
    if not summary.attempts:
        return "nothing was sent"
    sent = f"{count(summary.attempts, 'request was', 'requests were')} sent"
    if not summary.throttled:
        return sent
    share = percent(summary.throttled / summary.attempts)
    return f"{sent}, {summary.throttled:,} of them throttled ({share})"


def _what_drifted(drift: dict[str, int]) -> str:
    n_read = drift["same"] + drift["drifted"]
    read = count(n_read, "unchanged row was", "unchanged rows were")
    mended = f"{drift['drifted']:,} had been changed by somebody else and sent again"
    parts = [f"{read} read back, {mended}"]
    if drift["gone"]:
        parts.append(f"{drift['gone']:,} are of contacts that Connect does not know any more")
    if drift["unread"]:
        parts.append(f"{drift['unread']:,} could not be read")
    return f"{'; '.join(parts)}."


def _what_was_found(summary: RunSummary) -> list[str]:
    """What the quota looks like, for each operation where it showed."""
    found = [_quota_found(pace, pace.found) for pace in summary.pace if pace.found is not None]
    if len(summary.pace) == 1:
        return [f"{each[:1].upper()}{each[1:]}" for each in found]
    names = [pace.operation for pace in summary.pace if pace.found is not None]
    return [f"{name}: {each}" for name, each in zip(names, found, strict=True)]


def _quota_found(pace: PaceSummary, found: FoundQuota) -> str:
    beside = "" if pace.exclusive else " next to what others took"
    burst = "" if found.burst is None else f" with burst about {found.burst:.0f}"
    if beside and burst:
        burst = f",{burst}"
    told = (
        f"Service Quotas says {figure(pace.quota_per_s)}"
        if pace.origin is QuotaOrigin.APPLIED
        else f"documented {figure(DOCUMENTED_RATE_PER_S)}"
    )
    return f"your quota looks like {figure(found.rate_per_s, 1)}/s{beside}{burst}; {told}."
