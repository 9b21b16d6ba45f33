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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulk_updater.model import Progress

__all__ = ["describe", "duration", "show_progress"]

log = logging.getLogger(__name__)

_REDRAW_S = 0.25
_LOG_EVERY_S = 15.0


@contextlib.asynccontextmanager
async def show_progress(progress: Progress, *, quiet: bool = False) -> AsyncIterator[None]:
    """Show a run's progress while inside.

    Args:
        progress: What the run keeps up to date.
        quiet: Log instead of drawing, whatever standard error is.
    """
    console = error_console()
    display = _log_lines(progress)
    if console.is_terminal and not quiet:
        display = _draw(progress)
    task = asyncio.create_task(display)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _log_lines(progress: Progress) -> None:
    while True:
        await asyncio.sleep(_LOG_EVERY_S)
        if progress.results_total:
            log.info("%s", describe(progress))


async def _draw(progress: Progress) -> None:
    with Live(console=error_console(), auto_refresh=False, transient=True) as live:
        while True:
            if progress.results_total:
                live.update(_bar(progress), refresh=True)
            await asyncio.sleep(_REDRAW_S)


def _bar(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(total=progress.results_total, completed=progress.settled, width=24),
        Text(describe(progress)),
    )
    return grid


def describe(progress: Progress) -> str:
    """One line: settled of all, rate against the ceiling, throttled, failed, time left."""
    share = progress.settled / progress.results_total if progress.results_total else 1.0
    bad = progress.outcomes.get(Outcome.FAILED, 0) + progress.outcomes.get(Outcome.INVALID, 0)
    parts = [
        f"{progress.settled:,}/{progress.results_total:,} settled ({share:.0%})",
        f"{progress.started_per_s():.1f} of {progress.ceiling_per_s:g}/s",
        f"{progress.throttled:,} throttled",
        f"{bad:,} failed",
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


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 20 s`, `27 h 46 min`, `12 d 3 h`."""
    whole = round(seconds)
    for unit, next_unit, size, next_size in (
        ("d", "h", 86_400, 3_600),
        ("h", "min", 3_600, 60),
        ("min", "s", 60, 1),
    ):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"
