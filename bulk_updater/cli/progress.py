"""What a run shows while it goes on: a bar on a terminal, a line every so often elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bulk_updater.cli.output import error_console
from bulk_updater.model import Outcome
from bulk_updater.words import duration, figure, percent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulk_updater.model import Progress

__all__ = ["describe", "show_progress", "time_left_s"]

log = logging.getLogger(__name__)

_REDRAW_S = 0.25
_LOG_EVERY_S = 15.0
_BAR_COLUMNS = 60

_CLEARLY_BELOW = 0.9
"""The part of the ceiling below which it is worth saying."""


@contextlib.asynccontextmanager
async def show_progress(progress: Progress, *, quiet: bool = False) -> AsyncIterator[None]:
    """Show a run's progress while inside.

    Args:
        progress: What the run keeps up to date.
        quiet: Log instead of drawing, whatever standard error is.
    """
    draws = error_console().is_terminal and not quiet
    task = asyncio.create_task(_draw(progress) if draws else _log_lines(progress))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _log_lines(progress: Progress) -> None:
    while True:
        await asyncio.sleep(_LOG_EVERY_S)
        log.info("%s", describe(progress))


async def _draw(progress: Progress) -> None:
    with Live(console=error_console(), auto_refresh=False, transient=True) as live:
        while True:
            live.update(_bar(progress), refresh=True)
            await asyncio.sleep(_REDRAW_S)


def _bar(progress: Progress) -> Table:
    """The bar above the line, which may be as long as the screen."""
    grid = Table.grid()
    if progress.results_total:
        grid.add_row(ProgressBar(progress.results_total, progress.settled, width=_BAR_COLUMNS))
    grid.add_row(Text(describe(progress)))
    return grid


def describe(progress: Progress) -> str:
    """One line: settled of all, pace against what is allowed, throttled, bad, time left.

    In a pause it says who asked for that instead of the pace, and no time: nobody knows when a
    person lets it go on.
    """
    if not progress.results_total:
        return "Reading the mapping and the source."
    # Rounded down: 100% is for the end.
    done = 100 * progress.settled // progress.results_total
    parts = [f"{progress.settled:,}/{progress.results_total:,} settled ({done}%)"]
    paused = progress.paused()
    if paused is not None:
        parts.append(f"paused: {paused}")
    elif progress.allowed_per_s():
        parts.append(_pace(progress))
    if progress.throttled:
        share = percent(progress.throttled / max(progress.sent, 1)).replace(" ", "")
        parts.append(f"{progress.throttled:,} throttled ({share})")
    parts += [
        f"{progress.outcomes[outcome]:,} {outcome}"
        for outcome in (Outcome.FAILED, Outcome.INVALID)
        if progress.outcomes.get(outcome)
    ]
    left_s = time_left_s(progress)
    if left_s is not None and paused is None:
        parts.append(f"{duration(left_s)} left")
    return " · ".join(parts)


def _pace(progress: Progress) -> str:
    """`7.9 of 8/s`, or `4.1 of 4.2/s, giving way (ceiling 8)`."""
    allowed_per_s, ceiling_per_s = progress.allowed_per_s(), progress.ceiling_per_s
    pace = f"{progress.started_per_s():.1f} of {figure(allowed_per_s, 1)}/s"
    if ceiling_per_s is None or allowed_per_s >= _CLEARLY_BELOW * ceiling_per_s:
        return pace
    # A run that has the account to itself gives way to nobody: its quota is less than was thought.
    why = "" if progress.exclusive else ", giving way"
    return f"{pace}{why} (ceiling {figure(ceiling_per_s)})"


def time_left_s(progress: Progress) -> float | None:
    """Seconds until the end at the rate of late; None before there is one."""
    rate = progress.started_per_s()
    left = progress.results_total - progress.settled
    if not left or rate <= 0:
        return None
    # Some attempts are throttled and some requests are tried again: what counts is what settles.
    sent = max(progress.sent, 1)
    useful = min(1.0, max(progress.settled - progress.settled_before, 1) / sent)
    return left / (rate * useful)
