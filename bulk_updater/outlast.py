"""Waiting for what cannot be cancelled, and obeying the cancellation afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["outlast"]

_T = TypeVar("_T")


async def outlast(
    future: asyncio.Future[_T], *, on_cancel: Callable[[], None] = lambda: None
) -> _T:
    """Wait for a future to its end, however often the waiter is cancelled; then obey.

    A thread cannot be cancelled. Going on without it would give up the run directory's lock
    while its files are still being written.

    Args:
        future: What is waited for.
        on_cancel: Called at each cancellation, to make it end sooner.

    Returns:
        The future's result.

    Raises:
        asyncio.CancelledError: If the waiter was cancelled, when the future has ended.
        BaseException: What the future ended with, unless the waiter was cancelled.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # it counts as heard: the cancellation says enough
        raise cancelled
    return future.result()
