"""Waiting for a thread to its end, whatever happens to the waiter."""

from __future__ import annotations

import asyncio

import pytest

from bulk_updater.outlast import outlast

pytestmark = pytest.mark.looptime


async def test_the_result_is_handed_on():
    """Nobody cancels: it is as if the future had been awaited."""
    assert await outlast(asyncio.ensure_future(asyncio.sleep(1, "done"))) == "done"


async def test_a_failure_is_handed_on():
    """What the future fails with reaches the waiter."""

    async def fail() -> None:
        raise OSError(5, "no disk")

    with pytest.raises(OSError, match="no disk"):
        await outlast(asyncio.ensure_future(fail()))


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_twice_it_waits_all_the_same(fails, caplog):
    """Two cancellations in ten seconds: heard twice, obeyed after ten, and no failure is logged."""
    heard = []

    async def work() -> None:
        await asyncio.sleep(10)
        if fails:
            raise OSError(5, "no disk")

    working = asyncio.create_task(work())
    waiter = asyncio.create_task(outlast(working, on_cancel=lambda: heard.append(True)))
    for _ in range(2):
        await asyncio.sleep(2)
        waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert working.done()
    assert len(heard) == 2
    assert asyncio.get_running_loop().time() == 10
    del working
    assert not caplog.records
