"""Work that blocks, done in threads: what is begun is always ended."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from bulk_updater.outlast import outlast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

__all__ = ["entered_in_thread", "in_abandoned_thread", "in_obedient_thread"]

_T = TypeVar("_T")


@asynccontextmanager
async def entered_in_thread(context: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """A context manager that blocks, entered and left in a thread; always left if entered."""
    stack = ExitStack()
    entering = asyncio.create_task(asyncio.to_thread(stack.enter_context, context))
    try:
        yield await outlast(entering)
    finally:
        await outlast(asyncio.create_task(asyncio.to_thread(stack.close)))


async def in_abandoned_thread(function: Callable[[threading.Event], _T]) -> _T:
    """Call a function in a thread; nobody who is cancelled waits for it.

    Args:
        function: Given an event that is set when nobody waits any more.
    """
    stop = threading.Event()
    # Not the event loop's own executor, whose threads are waited for when the loop ends.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="abandoned")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function, stop)
    finally:
        stop.set()
        executor.shutdown(wait=False)


async def in_obedient_thread(function: Callable[[threading.Event], _T]) -> _T:
    """Call a function in a thread; whoever is cancelled tells it to stop, and waits until it has.

    For a function that works with what is closed next.

    Args:
        function: Given an event; once that is set it has to return or raise before long.
    """
    stop = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(function, stop))
    return await outlast(working, on_cancel=stop.set)
