"""Waiting at the bucket: order, cancellation and timers, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import looptime as looptime_module
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing import TokenBucket, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def bucket_of(rate_per_s: float, burst: float) -> TokenBucket:
    return TokenBucket(Tokens(rate_per_s, burst, loop_time()))


async def take(acquire: Callable[[], object], n: int, at_s: list[float]) -> None:
    for _ in range(n):
        await acquire()  # type: ignore[misc]
        at_s.append(loop_time())


async def settle() -> None:
    """Lets every task that can run do so, without any time passing."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.looptime
async def test_burst_then_rate():
    """A full bucket lets its burst through at once and then one request every 1/rate seconds."""
    bucket = bucket_of(8.0, 12.0)
    at_s: list[float] = []
    await take(bucket.acquire, 100, at_s)
    assert at_s[:12] == [0.0] * 12
    assert at_s[12:] == pytest.approx([n / 8 for n in range(1, 89)], abs=1e-3)


@pytest.mark.looptime
@pytest.mark.parametrize("rate_per_s", [0.1, 1.0, 7.3, 1000.0])
async def test_rate_is_kept_by_many(rate_per_s: float):
    """However many ask at once, the last of n goes exactly when the rate says."""
    bucket = bucket_of(rate_per_s, 2.0)
    await asyncio.gather(*(bucket.acquire() for _ in range(202)))
    assert loop_time() == pytest.approx(200 / rate_per_s, rel=1e-3, abs=1e-3)


@pytest.mark.looptime
async def test_pause_refills_no_more_than_the_burst():
    """After a long pause the bucket holds its burst, not what the pause would have been worth."""
    bucket = bucket_of(10.0, 3.0)
    await asyncio.gather(*(bucket.acquire() for _ in range(3)))
    await asyncio.sleep(1000)
    began_s = loop_time()
    at_s: list[float] = []
    await take(bucket.acquire, 5, at_s)
    assert [round(at - began_s, 3) for at in at_s] == [0.0, 0.0, 0.0, 0.1, 0.2]


@pytest.mark.looptime
async def test_first_come_first_served():
    """Those who wait are served in the order in which they asked."""
    bucket = bucket_of(10.0, 1.0)
    order: list[int] = []

    async def ask(n: int) -> None:
        await bucket.acquire()
        order.append(n)

    await asyncio.gather(*map(ask, range(50)))
    assert order == list(range(50))


async def test_nobody_overtakes():
    """Who asks while others wait queues behind them, even if a token has just come in."""
    now = [0.0]
    bucket = TokenBucket(Tokens(10.0, 1.0, 0.0), clock=lambda: now[0])
    await bucket.acquire()
    first = asyncio.create_task(bucket.acquire())
    await settle()
    now[0] = 0.1  # a token is there, and the timer has not fired yet
    second = asyncio.create_task(bucket.acquire())
    await settle()
    assert not second.done()
    bucket._grant()
    await settle()
    assert (first.done(), second.done()) == (True, False)
    second.cancel()


@pytest.mark.looptime
async def test_front():
    """A throttled request goes before all others, and behind those throttled before it."""
    bucket = bucket_of(10.0, 1.0)
    await bucket.acquire()
    order: list[str] = []

    async def ask(name: str, *, front: bool = False) -> None:
        await bucket.acquire(front=front)
        order.append(name)

    await asyncio.gather(
        ask("a"), ask("b"), ask("front a", front=True), ask("front b", front=True), ask("c")
    )
    assert order == ["front a", "front b", "a", "b", "c"]


@pytest.mark.looptime
async def test_cancelled_while_waiting():
    """Who is cancelled while he waits costs nobody anything."""
    bucket = bucket_of(10.0, 1.0)
    await bucket.acquire()
    waiting = [asyncio.create_task(bucket.acquire()) for _ in range(10)]
    await settle()
    for task in waiting[:9]:
        task.cancel()
    await settle()
    assert bucket.n_waiting == 1
    await waiting[9]
    assert loop_time() == pytest.approx(0.1, abs=1e-3)
    assert all(task.cancelled() for task in waiting[:9])
    assert bucket.n_waiting == 0


@pytest.mark.looptime
async def test_cancelled_when_served():
    """A token that comes in the same moment as the cancellation goes to the next in line."""
    bucket = bucket_of(10.0, 1.0)
    await bucket.acquire()
    first, second = (asyncio.create_task(bucket.acquire()) for _ in range(2))
    await settle()
    # The timer of the bucket is older than this one, so the turn comes and then the cancellation,
    # before the task has run.
    asyncio.get_running_loop().call_at(0.1, first.cancel)
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert loop_time() == pytest.approx(0.1, abs=1e-3)


async def test_cancelled_when_served_with_nobody_behind():
    """The token of the only one who waited stays in the bucket, for whoever asks next."""
    now = [0.0]
    bucket = TokenBucket(Tokens(10.0, 1.0, 0.0), clock=lambda: now[0])
    await bucket.acquire()
    waiting = asyncio.create_task(bucket.acquire())
    await settle()
    now[0] = 0.1
    bucket._grant()
    waiting.cancel()
    await settle()
    assert (waiting.cancelled(), bucket.n_waiting) == (True, 0)
    await asyncio.wait_for(bucket.acquire(), 10.0)  # the time stands still: no other token comes
    assert not bucket.tokens.take(now[0])


async def test_cancelled_just_before_its_turn():
    """Who has been cancelled is passed over, even if he does not know yet."""
    now = [0.0]
    bucket = TokenBucket(Tokens(10.0, 1.0, 0.0), clock=lambda: now[0])
    await bucket.acquire()
    first, second = (asyncio.create_task(bucket.acquire()) for _ in range(2))
    await settle()
    now[0] = 0.1
    first.cancel()
    bucket._grant()
    await settle()
    assert (first.cancelled(), second.done()) == (True, True)


@pytest.mark.looptime
async def test_rate_changes_for_those_who_wait():
    """A new rate holds from now on, for those already waiting; what has passed stays as it was."""
    bucket = bucket_of(1.0, 1.0)
    at_s: list[float] = []
    task = asyncio.create_task(take(bucket.acquire, 4, at_s))
    await asyncio.sleep(0.5)
    bucket.tokens.set_rate(10.0, 1.0, 0.5)  # half a token; the other half takes 50 ms now
    bucket.adjusted()
    await task
    assert [round(at, 3) for at in at_s] == [0.0, 0.55, 0.65, 0.75]
    task = asyncio.create_task(take(bucket.acquire, 2, at_s))
    await asyncio.sleep(0.05)
    bucket.tokens.set_rate(0.1, 1.0, loop_time())  # half a token, and five seconds for the rest
    bucket.adjusted()
    await task
    assert [round(at, 3) for at in at_s[4:]] == [5.8, 15.8]


@pytest.mark.looptime
async def test_closed():
    """A closed bucket lets nobody through, at the front or not, and begins empty."""
    bucket = bucket_of(10.0, 5.0)
    bucket.tokens.close_until(30.0, 0.0)
    bucket.tokens.close_until(20.0, 0.0)  # takes nothing back
    bucket.adjusted()
    at_s: list[float] = []
    await asyncio.gather(*(take(lambda: bucket.acquire(front=True), 1, at_s) for _ in range(3)))
    assert [round(at, 3) for at in at_s] == [30.1, 30.2, 30.3]


@pytest.mark.looptime
async def test_closed_and_cancelled():
    """A token given back while the bucket is closed waits until it opens."""
    bucket = bucket_of(10.0, 1.0)
    await bucket.acquire()
    first, second = (asyncio.create_task(bucket.acquire()) for _ in range(2))
    await settle()

    def close_and_cancel() -> None:
        bucket.tokens.close_until(5.0, loop_time())
        bucket.adjusted()
        first.cancel()

    asyncio.get_running_loop().call_at(0.1, close_and_cancel)
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert loop_time() >= 5.0


@pytest.mark.looptime
@pytest.mark.parametrize("debt", [0.0, 3.0])
async def test_drained_under_those_who_wait(debt: float):
    """A bucket that is drained while somebody waits lets him wait for all of his token again."""
    bucket = bucket_of(10.0, 1.0)
    await bucket.acquire()
    at_s: list[float] = []
    task = asyncio.create_task(take(bucket.acquire, 2, at_s))
    await asyncio.sleep(0.09)
    bucket.tokens.drain(loop_time(), debt)
    bucket.adjusted()
    await task
    again_s = 0.09 + (debt + 1) / 10  # nine tenths of a token are gone
    assert at_s == pytest.approx([again_s, again_s + 0.1], abs=1e-3)


@pytest.mark.looptime
async def test_adjusted_with_nobody_there():
    """A bucket that nobody waits at sets no timer when it is changed."""
    bucket = bucket_of(10.0, 1.0)
    bucket.tokens.close_until(30.0, 0.0)
    bucket.adjusted()
    assert (bucket.n_waiting, bucket._timer) == (0, None)
    await bucket.acquire()
    assert loop_time() == pytest.approx(30.1, abs=1e-3)


async def test_late_timers_lose_nothing():
    """A timer that fires late hands out all that came in meanwhile, up to the burst."""
    now = [0.0]
    bucket = TokenBucket(Tokens(10.0, 4.0, 0.0), clock=lambda: now[0])
    for _ in range(4):
        await bucket.acquire()
    waiting = [asyncio.create_task(bucket.acquire()) for _ in range(6)]
    await settle()
    now[0] = 0.3  # the loop was busy for three tokens' time
    bucket._grant()
    await settle()
    assert sum(task.done() for task in waiting) == 3
    now[0] = 100.0  # far longer than the bucket is deep
    bucket._grant()
    await settle()
    assert sum(task.done() for task in waiting) == 6
    assert (bucket.tokens.take(100.0), bucket.tokens.take(100.0)) == (True, False)


@pytest.mark.looptime
async def test_no_polling():
    """Waiting costs one timer, however long and however many wait."""
    bucket = bucket_of(0.01, 1.0)
    await bucket.acquire()
    calls = 0
    clock = bucket._clock

    def counting() -> float:
        nonlocal calls
        calls += 1
        return clock()

    bucket._clock = counting
    await asyncio.gather(*(bucket.acquire() for _ in range(10)))
    assert loop_time() == pytest.approx(1000, abs=0.1)
    # Each of the ten looks at the clock to be sure, and each token once or twice.
    assert calls < 60


WISHES = st.lists(
    st.tuples(
        st.floats(0, 20, allow_nan=False),  # when it asks
        st.booleans(),  # at the front?
        st.none() | st.floats(0, 5, allow_nan=False),  # how long it is patient
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(
    wishes=WISHES,
    rate_per_s=st.floats(0.2, 200),
    burst=st.floats(1, 20),
)
def test_never_overdrawn(
    wishes: list[tuple[float, bool, float | None]], rate_per_s: float, burst: float
):
    """Whoever asks, waits or gives up: no window of time sees more than burst + rate * t starts."""
    at_s: list[float] = []

    async def ask(bucket: TokenBucket, when_s: float, patience_s: float | None, *, front: bool):
        await asyncio.sleep(when_s)
        try:
            async with asyncio.timeout(patience_s):
                await bucket.acquire(front=front)
        except TimeoutError:
            return
        at_s.append(loop_time())

    async def play() -> None:
        bucket = bucket_of(rate_per_s, burst)
        await asyncio.gather(
            *(ask(bucket, when, patience, front=front) for when, front, patience in wishes)
        )
        assert bucket.n_waiting == 0

    loop = looptime_module.new_event_loop(start=0)
    try:
        loop.run_until_complete(play())
    finally:
        loop.close()

    assert at_s == sorted(at_s)
    assert len(at_s) >= sum(patience is None for *_, patience in wishes)
    # Virtual time moves in microseconds, and the bucket lends a millionth of a token.
    slack = 1e-5 * (1 + rate_per_s)
    for first, began_s in enumerate(at_s):
        for last in range(first, len(at_s)):
            assert last - first + 1 <= burst + rate_per_s * (at_s[last] - began_s) + slack


@pytest.mark.looptime
async def test_a_hundred_cancellations_in_one_moment():
    """Of a whole queue that is served and cancelled at once, every token goes to who is left."""
    bucket = bucket_of(10.0, 5.0)
    await asyncio.gather(*(bucket.acquire() for _ in range(5)))
    waiting = [asyncio.create_task(bucket.acquire()) for _ in range(100)]
    left = asyncio.create_task(bucket.acquire())
    await settle()
    asyncio.get_running_loop().call_at(0.1, lambda: [task.cancel() for task in waiting])
    await asyncio.wait([*waiting, left])
    assert all(task.cancelled() for task in waiting)
    assert loop_time() == pytest.approx(0.1, abs=1e-3)
    assert bucket.n_waiting == 0
