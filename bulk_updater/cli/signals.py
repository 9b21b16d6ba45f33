"""Ctrl-C and SIGTERM while nothing is open that an end could hurt: before a run and after it.

Imports next to nothing, so that it can take over before the rest is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from bulk_updater.cli.exits import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["INTERRUPTED", "SIGNALS", "leave", "leave_on_signals", "leaving_on_signals"]

INTERRUPTED: Final = "Interrupted. Give the same command again to go on."

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def leave_on_signals() -> None:
    """From now on a signal ends the process at once, with a sentence and the right exit code.

    An exception would not do: it comes with a traceback from wherever the process is, and while
    modules are imported, and in callbacks, it can get lost.
    """
    with suppress(ValueError):  # only the main thread may, and only there do signals arrive
        for number in SIGNALS:
            signal.signal(number, _heard)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """The same, only while inside."""
    before = [signal.getsignal(number) for number in SIGNALS]
    leave_on_signals()
    try:
        yield
    finally:
        with suppress(ValueError):
            for number, handler in zip(SIGNALS, before, strict=True):
                signal.signal(number, handler)


def leave(code: int = EXIT_INTERRUPTED) -> NoReturn:
    """End the process, and wait for no thread.

    The ordinary end waits for them, and one may be reading a source of gigabytes.

    Args:
        code: The exit code; of an interruption by default.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _heard(_number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        # Straight to the descriptor: the stream may be in the middle of a write.
        os.write(2, f"error: {INTERRUPTED}\n".encode())
    os._exit(EXIT_INTERRUPTED)
