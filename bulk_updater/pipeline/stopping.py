"""Being told to stop before the first request: there is nothing to settle, so nothing to wait for.

Counting the rows of a large source, reading a ledger back and asking for credentials may each
take minutes.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ToldToStop", "cut_short"]


class ToldToStop(Exception):  # noqa: N818 - no error: how what was cut short is left
    """The run was told to stop; it goes no further than the `cut_short` that raised this."""


@asynccontextmanager
async def cut_short(stop: asyncio.Event) -> AsyncIterator[None]:
    """Cancel whatever is awaited inside, once `stop` is set.

    What has to clean up, or to wait for a thread, does so when it is cancelled, before this ends.

    Args:
        stop: Tells the run to stop. Where it is set already, the first thing awaited is cancelled.

    Raises:
        ToldToStop: It was set before this ended.
    """
    try:
        # A deadline without a time: `timeout` tells its own cancellation from anybody else's.
        async with asyncio.timeout(None) as deadline:
            watching = asyncio.create_task(_expire(deadline, stop))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise ToldToStop from error
    if stop.is_set():
        raise ToldToStop  # what is inside ended in the same moment, or awaited nothing


async def _expire(deadline: asyncio.Timeout, stop: asyncio.Event) -> None:
    await stop.wait()
    deadline.reschedule(asyncio.get_running_loop().time())
