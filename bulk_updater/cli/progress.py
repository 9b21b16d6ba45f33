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
from bulk_updater.cli.words import duration
from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulk_updater.model import Progress

__all__ = ["describe", "show_progress", "time_left_s"]

log = logging.getLogger(__name__)

_REDRAW_S = 0.25
_LOG_EVERY_S = 15.0
_BAR_COLUMNS = 60


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
    """One line: settled of all, rate against the ceiling, throttled, bad, time left."""
    if not progress.results_total:
        return "Reading the mapping and the source."
    # Rounded down: 100% is for the end.
    percent = 100 * progress.settled // progress.results_total
    parts = [f"{progress.settled:,}/{progress.results_total:,} settled ({percent}%)"]
    if progress.ceiling_per_s:
        parts.append(f"{progress.started_per_s():.1f} of {progress.ceiling_per_s:g}/s")
    if progress.throttled:
        parts.append(f"{progress.throttled:,} throttled")
    parts += [
        f"{progress.outcomes[outcome]:,} {outcome}"
        for outcome in (Outcome.FAILED, Outcome.INVALID)
        if progress.outcomes.get(outcome)
    ]
    left_s = time_left_s(progress)
    if left_s is not None:
        parts.append(f"{duration(left_s)} left")
    return " · ".join(parts)


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
