"""Signals while a run goes on.

Ctrl-C and SIGTERM: once to stop, twice to cancel, thrice to leave. SIGUSR1 asks how far it is, and
from the beginning of the process to its end does no more than that.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bulk_updater.cli.exits import EXIT_INTERRUPTED
from bulk_updater.cli.night import how_to_go_on, last_words
from bulk_updater.cli.output import say_error
from bulk_updater.cli.signals import INTERRUPTED, SIGNALS, leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

__all__ = ["bear_questions", "stop_on_signals", "tell_on_signal"]

log = logging.getLogger(__name__)

_STOP, _CANCEL = 1, 2

_COMMANDS_THAT_SEND = ("run", "retry")


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
            say_error(INTERRUPTED, go_on=how_to_go_on())
            last_words(EXIT_INTERRUPTED)
            leave()

    for number in SIGNALS:
        loop.add_signal_handler(number, heard)
    return stop


def bear_questions(words: Sequence[str]) -> None:
    """Have SIGUSR1 do nothing, if this process is to send; by itself it would end the process.

    Args:
        words: What was typed behind the program's name.
    """
    command = next((word for word in words if not word.startswith("-")), "")
    if command in _COMMANDS_THAT_SEND:
        with suppress(ValueError):  # only the main thread may, and only there do signals arrive
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@contextmanager
def tell_on_signal(describe: Callable[[], str]) -> Iterator[None]:
    """Log how far the run is at each SIGUSR1, on the running loop, while inside.

    Args:
        describe: Says it, in one line.
    """
    loop = asyncio.get_running_loop()

    def tell() -> None:
        log.info("%s", describe())

    def asked(_number: int, _frame: FrameType | None) -> None:
        # Not here: the log may be in the middle of a line. Nor by the loop's own handlers, which
        # leave the signal deadly for a moment when the loop is closed.
        loop.call_soon_threadsafe(tell)

    try:
        before = signal.signal(signal.SIGUSR1, asked)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
