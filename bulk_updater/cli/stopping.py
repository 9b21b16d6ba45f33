"""Ctrl-C and SIGTERM while a run goes on: once to stop, twice to cancel, thrice to leave."""

from __future__ import annotations

import asyncio
import logging

from bulk_updater.cli.output import say_error
from bulk_updater.cli.signals import INTERRUPTED, SIGNALS, leave

__all__ = ["stop_on_signals"]

log = logging.getLogger(__name__)

_STOP, _CANCEL = 1, 2


def stop_on_signals() -> asyncio.Event:
    """Take over the signals for the run that is the current task.

    The ledger is whole after each of them. The third is for a disk that does not answer; so is
    the second where the run has ended, and the loop only waits for a thread.

    Returns:
        The event that the first signal sets. The second cancels the task.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    n_heard = 0

    def heard() -> None:
        nonlocal n_heard
        n_heard += 1
        if n_heard == _STOP:
            stop.set()
            log.warning("Stopping: what is under way is settled first. Once more to stop at once.")
        elif n_heard == _CANCEL and task is not None and not task.done():
            task.cancel()
        else:
            say_error(INTERRUPTED)
            leave()

    for number in SIGNALS:
        loop.add_signal_handler(number, heard)
    return stop
