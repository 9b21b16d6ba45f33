"""The pace: exact counts in virtual time, order, cancellation, and giving way."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import looptime as looptime_module
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.config import PacingConfig
from bulk_updater.pacing import Controller, Pacer, TokenBucket, YieldingController

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTES = "update_contact_attributes"
CONTACT = "update_contact"


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def take(acquire: Callable[[], object], n: int, at_s: list[float]) -> None:
    for _ in range(n):
        await acquire()  # type: ignore[misc]
        at_s.append(loop_time())


async def settle() -> None:
    """Lets every task that can run do so, without any time passing."""
    for _ in range(5):
        await asyncio.sleep(0)


# ----------------------------------------------------------------------------------------------
# The bucket


@pytest.mark.looptime
async def test_burst_then_rate():
    """A full bucket lets its burst through at once and then one request every 1/rate seconds."""
    bucket = TokenBucket(8.0, 12.0)
    at_s: list[float] = []
    await take(bucket.acquire, 100, at_s)
    assert at_s[:12] == [0.0] * 12
    assert at_s[12:] == pytest.approx([n / 8 for n in range(1, 89)], abs=1e-3)


@pytest.mark.looptime
@pytest.mark.parametrize("rate_per_s", [0.1, 1.0, 7.3, 1000.0])
async def test_rate_is_kept_by_many(rate_per_s: float):
    """However many ask at once, the last of n goes exactly when the rate says."""
    bucket = TokenBucket(rate_per_s, 2.0)
    await asyncio.gather(*(bucket.acquire() for _ in range(202)))
    assert loop_time() == pytest.approx(200 / rate_per_s, rel=1e-3, abs=1e-3)


@pytest.mark.looptime
async def test_pause_refills_no_more_than_the_burst():
    """After a long pause the bucket holds its burst, not what the pause would have been worth."""
    bucket = TokenBucket(10.0, 3.0)
    await asyncio.gather(*(bucket.acquire() for _ in range(3)))
    await asyncio.sleep(1000)
    began_s = loop_time()
    at_s: list[float] = []
    await take(bucket.acquire, 5, at_s)
    assert [round(at - began_s, 3) for at in at_s] == [0.0, 0.0, 0.0, 0.1, 0.2]


@pytest.mark.looptime
async def test_first_come_first_served():
    """Those who wait are served in the order in which they asked."""
    bucket = TokenBucket(10.0, 1.0)
    order: list[int] = []

    async def ask(n: int) -> None:
        await bucket.acquire()
        order.append(n)

    await asyncio.gather(*map(ask, range(50)))
    assert order == list(range(50))


async def test_nobody_overtakes():
    """Who asks while others wait queues behind them, even if a token has just come in."""
    now = [0.0]
    bucket = TokenBucket(10.0, 1.0, clock=lambda: now[0])
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
    bucket = TokenBucket(10.0, 1.0)
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
    bucket = TokenBucket(10.0, 1.0)
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
    bucket = TokenBucket(10.0, 1.0)
    await bucket.acquire()
    first, second = (asyncio.create_task(bucket.acquire()) for _ in range(2))
    await settle()
    # The timer of the bucket is older than this one, so the turn comes and then the cancellation,
    # before the task has run.
    asyncio.get_running_loop().call_at(0.1, first.cancel)
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert loop_time() == pytest.approx(0.1, abs=1e-3)


async def test_cancelled_just_before_its_turn():
    """Who has been cancelled is passed over, even if he does not know yet."""
    now = [0.0]
    bucket = TokenBucket(10.0, 1.0, clock=lambda: now[0])
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
    bucket = TokenBucket(1.0, 1.0)
    at_s: list[float] = []
    task = asyncio.create_task(take(bucket.acquire, 4, at_s))
    await asyncio.sleep(0.5)
    bucket.set_rate_per_s(10.0)  # half a token is there; the other half takes 50 ms now
    await task
    assert [round(at, 3) for at in at_s] == [0.0, 0.55, 0.65, 0.75]
    task = asyncio.create_task(take(bucket.acquire, 2, at_s))
    await asyncio.sleep(0.05)
    bucket.set_rate_per_s(0.1)  # half a token, and five seconds for the rest
    await task
    assert [round(at, 3) for at in at_s[4:]] == [5.8, 15.8]


@pytest.mark.looptime
async def test_closed():
    """A closed bucket lets nobody through, at the front or not, and begins empty."""
    bucket = TokenBucket(10.0, 5.0)
    bucket.close_until(30.0)
    bucket.close_until(20.0)  # takes nothing back
    at_s: list[float] = []
    await asyncio.gather(*(take(lambda: bucket.acquire(front=True), 1, at_s) for _ in range(3)))
    assert [round(at, 3) for at in at_s] == [30.1, 30.2, 30.3]


@pytest.mark.looptime
async def test_closed_and_cancelled():
    """A token given back while the bucket is closed waits until it opens."""
    bucket = TokenBucket(10.0, 1.0)
    await bucket.acquire()
    first, second = (asyncio.create_task(bucket.acquire()) for _ in range(2))
    await settle()
    asyncio.get_running_loop().call_at(0.1, lambda: (bucket.close_until(5.0), first.cancel()))
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert loop_time() >= 5.0


@pytest.mark.looptime
async def test_drained():
    """A drained bucket begins from nothing."""
    bucket = TokenBucket(10.0, 5.0)
    bucket.drain()
    at_s: list[float] = []
    await take(bucket.acquire, 2, at_s)
    assert [round(at, 3) for at in at_s] == [0.1, 0.2]


async def test_late_timers_lose_nothing():
    """A timer that fires late hands out all that came in meanwhile, up to the burst."""
    now = [0.0]
    bucket = TokenBucket(10.0, 4.0, clock=lambda: now[0])
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
    assert bucket._tokens == pytest.approx(1.0)


@pytest.mark.looptime
async def test_no_polling():
    """Waiting costs one timer, however long and however many wait."""
    bucket = TokenBucket(0.01, 1.0)
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
        bucket = TokenBucket(rate_per_s, burst)
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


# ----------------------------------------------------------------------------------------------
# The controller


def test_begins_at_the_ceiling():
    """The pace is the ceiling until somebody complains, and acceptances never exceed it."""
    controller = YieldingController(8.0)
    for n in range(1000):
        controller.accepted(float(n))
        assert controller.rate_per_s(float(n)) == 8.0


def test_throttling_slows_at_once():
    """One throttled answer takes three tenths off, at once."""
    controller = YieldingController(10.0)
    controller.throttled(5.0)
    assert controller.rate_per_s(5.0) == pytest.approx(7.0)


def test_a_volley_counts_once():
    """Thirty throttled answers to requests that were in flight together are one piece of news."""
    controller = YieldingController(10.0)
    for n in range(30):
        controller.throttled(5.0 + n / 40)
    assert controller.rate_per_s(6.0) == pytest.approx(7.0)
    controller.throttled(6.0)
    assert controller.rate_per_s(6.0) == pytest.approx(4.9)


def test_floor():
    """However long the throttling, the pace does not fall below a twentieth of the ceiling."""
    controller = YieldingController(10.0)
    for n in range(100):
        controller.throttled(float(n))
    assert controller.rate_per_s(100.0) == pytest.approx(0.5)


def test_slow_return():
    """From the floor it takes half a minute of acceptances to be back, and no step is a jump."""
    controller = YieldingController(10.0)
    for n in range(100):
        controller.throttled(float(n))
    now, rates = 100.0, [controller.rate_per_s(100.0)]
    while rates[-1] < 10.0:
        now += 1 / rates[-1]
        controller.accepted(now)
        rates.append(controller.rate_per_s(now))
    assert 28 <= now - 100 <= 36
    assert all(0 < after - before <= 10 / 30 + 1e-9 for before, after in pairwise(rates))


def test_silence_teaches_nothing():
    """A pause does not bring the pace back; one acceptance after it counts as one."""
    controller = YieldingController(10.0)
    for n in range(5):
        controller.throttled(float(n))
    before = controller.rate_per_s(5.0)
    assert controller.rate_per_s(5000.0) == before
    controller.accepted(5000.0)
    assert controller.rate_per_s(5000.0) - before <= 10 / 30 + 1e-9


@given(events=st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=100))
def test_controller_stays_within_bounds(events: list[tuple[bool, float]]):
    """Whatever is answered and when, the pace stays between floor and ceiling."""
    controller = YieldingController(8.0)
    now = 0.0
    for throttled, passed_s in events:
        now += passed_s
        (controller.throttled if throttled else controller.accepted)(now)
        assert 0.4 - 1e-9 <= controller.rate_per_s(now) <= 8.0


# ----------------------------------------------------------------------------------------------
# The pacer


@pytest.mark.looptime
async def test_default_pace():
    """By default an operation starts 12 at once and 8 a second: four fifths of the quota."""
    pacer = Pacer(PacingConfig(), [ATTRIBUTES])
    at_s: list[float] = []
    await take(lambda: pacer.acquire(ATTRIBUTES), 92, at_s)
    assert at_s.count(0.0) == 12
    assert at_s[-1] == pytest.approx(10.0, abs=1e-3)
    assert pacer.ceiling_per_s == 8.0


@pytest.mark.looptime
async def test_named_pace():
    """A rate that somebody named is kept from the first second on."""
    pacer = Pacer(PacingConfig(rate_per_s=10.0), [ATTRIBUTES])
    at_s: list[float] = []
    await take(lambda: pacer.acquire(ATTRIBUTES), 100, at_s)
    assert sum(at <= 1.0 for at in at_s) <= 12
    assert at_s[-1] == pytest.approx(9.8, abs=1e-3)


@pytest.mark.looptime
async def test_operations_have_buckets_of_their_own():
    """Two operations run side by side; throttling one leaves the other as it is."""
    pacer = Pacer(PacingConfig(), [ATTRIBUTES, CONTACT])
    pacer.throttled(ATTRIBUTES, retry_after_s=60.0)
    at_s: list[float] = []
    await take(lambda: pacer.acquire(CONTACT), 52, at_s)
    assert at_s[-1] == pytest.approx(5.0, abs=1e-3)
    assert (pacer.rate_per_s(CONTACT), pacer.ceiling_per_s) == (8.0, 16.0)
    assert pacer.rate_per_s(ATTRIBUTES) == pytest.approx(5.6)


@pytest.mark.looptime
async def test_retry_after_holds_for_everybody():
    """Nobody comes back before the service said, whether throttled himself or not."""
    pacer = Pacer(PacingConfig(), [ATTRIBUTES])
    at_s: list[float] = []

    async def ask(*, front: bool) -> None:
        await pacer.acquire(ATTRIBUTES, front=front)
        at_s.append(loop_time())

    waiting = [asyncio.create_task(ask(front=n % 2 == 0)) for n in range(30)]
    await settle()
    n_before = len(at_s)
    pacer.throttled(ATTRIBUTES, retry_after_s=45.0)
    await asyncio.gather(*waiting)
    assert n_before == 12
    assert min(at_s[12:]) >= 45.0


@pytest.mark.looptime
async def test_throttling_empties_the_bucket():
    """The burst that is left is not spent against a service that has just said no."""
    pacer = Pacer(PacingConfig(), [ATTRIBUTES])
    await pacer.acquire(ATTRIBUTES)
    pacer.throttled(ATTRIBUTES)
    await pacer.acquire(ATTRIBUTES)
    assert loop_time() == pytest.approx(1 / 5.6, abs=1e-3)


@pytest.mark.looptime
async def test_acceptances_bring_the_pace_back():
    """After a volley of throttling the bucket itself is back at the ceiling within a minute."""
    pacer = Pacer(PacingConfig(), [ATTRIBUTES])
    pacer.throttled(ATTRIBUTES)
    assert pacer.rate_per_s(ATTRIBUTES) == pytest.approx(5.6)
    while pacer.rate_per_s(ATTRIBUTES) < 8.0:
        await pacer.acquire(ATTRIBUTES)
        pacer.accepted(ATTRIBUTES)
    assert 8 <= loop_time() <= 10


@pytest.mark.looptime
async def test_started_per_second():
    """What is shown is what was started in the last ten seconds, over all operations."""
    pacer = Pacer(PacingConfig(rate_per_s=10.0), [ATTRIBUTES, CONTACT])
    assert pacer.started_per_s() == 0.0
    await asyncio.gather(
        *(
            take(lambda name=name: pacer.acquire(name), 300, [])  # type: ignore[misc]
            for name in (ATTRIBUTES, CONTACT)
        )
    )
    assert pacer.started_per_s() == pytest.approx(20.0, rel=0.05)
    await asyncio.sleep(5)
    assert pacer.started_per_s() == pytest.approx(10.0, rel=0.2)
    await asyncio.sleep(6)
    assert pacer.started_per_s() == 0.0


@pytest.mark.looptime
async def test_another_controller_takes_the_seam():
    """A controller is made from the ceiling, hears answers with their time, and sets the rate."""
    heard: list[tuple[str, float]] = []

    class Deciding:
        def __init__(self, ceiling_per_s: float) -> None:
            self.rate = ceiling_per_s / 2

        def accepted(self, now: float) -> None:
            heard.append(("accepted", now))
            self.rate = 3.0

        def throttled(self, now: float) -> None:
            heard.append(("throttled", now))
            self.rate = 1.0

        def rate_per_s(self, now: float) -> float:
            assert now >= 0
            return self.rate

    controller: Controller = Deciding(8.0)
    assert controller.rate_per_s(0.0) == 4.0
    pacer = Pacer(PacingConfig(), [ATTRIBUTES], controller=Deciding)
    assert pacer.rate_per_s(ATTRIBUTES) == 4.0
    pacer.accepted(ATTRIBUTES)
    assert pacer.rate_per_s(ATTRIBUTES) == 3.0
    await asyncio.sleep(2)
    pacer.throttled(ATTRIBUTES)
    assert pacer.rate_per_s(ATTRIBUTES) == 1.0
    assert heard == [("accepted", 0.0), ("throttled", 2.0)]
