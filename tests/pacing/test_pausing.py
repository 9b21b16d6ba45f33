"""Pauses and limits that come from outside, in virtual time. All in all 4 s."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.config import PacingConfig
from bulk_updater.model import Quota, QuotaOrigin
from bulk_updater.pacing import (
    Pacer,
    Regulator,
    SeekingController,
    TokenBucket,
    Tokens,
    choose_controller,
)
from bulk_updater.pacing.seeking import Phase
from tests.pacing.by_hand import Hand, Service

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTES = "update_contact_attributes"
CONTACT = "update_contact"
DOCUMENTED = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)
DAY_S = 16 * 3600.0
"""What lies between two nights."""

KINDS: dict[str, dict[str, object]] = {
    "yielding": {},
    "seeking": {"rate": "auto", "exclusive": True},
    "reserving": {"rate": "auto"},
    "seeking below a ceiling": {"rate": 20.0, "exclusive": True},
}


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def pacer_of(*operations: str, **config: object) -> Pacer:
    names = operations or (ATTRIBUTES,)
    return Pacer(PacingConfig(**config), dict.fromkeys(names, DOCUMENTED))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Asking:
    """Asks a pacer for tokens, and notes who got one when."""

    def __init__(self, pacer: Pacer, operation: str = ATTRIBUTES) -> None:
        self._pacer, self._operation = pacer, operation
        self.got: list[tuple[str, float]] = []

    def ask(self, name: str, *, front: bool = False) -> asyncio.Task[None]:
        async def one() -> None:
            await self._pacer.acquire(self._operation, front=front)
            self.got.append((name, loop_time()))

        return asyncio.create_task(one())

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.got]


@pytest.mark.looptime
async def test_nobody_starts_in_a_pause():
    """Not who waited before the pause, not who asks in it; afterwards all go in their order."""
    pacer = pacer_of(rate=1.0)
    asking = Asking(pacer)
    tasks = [asking.ask(f"before {n}") for n in range(4)]
    await settle()
    assert asking.names == ["before 0", "before 1"]
    pacer.pause("night")
    tasks += [asking.ask(f"in {n}") for n in range(2)]
    tasks.append(asking.ask("front", front=True))
    await asyncio.sleep(1000)
    assert len(asking.got) == 2
    assert pacer.allowed_per_s() == pacer.started_per_s() == 0.0
    pacer.resume("night")
    await asyncio.gather(*tasks)
    assert asking.names[2:] == ["front", "before 2", "before 3", "in 0", "in 1"]
    # What has dripped in is what an idle bucket holds, and no more.
    assert [at for _, at in asking.got[2:]] == pytest.approx([1000, 1000, 1001, 1002, 1003])


@pytest.mark.looptime
async def test_a_pause_that_begins_with_a_turn():
    """Whose turn has come in the very moment in which the pause begins, waits in his old place."""
    tokens = Tokens(10.0, 3.0, loop_time())
    bucket, got = TokenBucket(tokens), []

    async def one(name: str, *, front: bool) -> None:
        await bucket.acquire(front=front)
        got.append(name)

    tokens.drain(loop_time())
    asked = [("a", False), ("b", False), ("c", True), ("d", False)]
    tasks = [asyncio.create_task(one(name, front=front)) for name, front in asked]
    await settle()
    await asyncio.sleep(0.0999)
    # The timer fires late: three turns come at once, and the pause right behind them.
    tokens.set_rate(1e6, 3.0, loop_time())
    bucket.adjusted()
    handle = bucket._timer
    assert handle is not None
    handle.cancel()
    await asyncio.sleep(0.01)
    bucket._grant()
    bucket.pause()
    await asyncio.sleep(60)
    assert got == []
    assert bucket.n_waiting == 4
    bucket.resume()
    await asyncio.gather(*tasks)
    assert got == ["c", "a", "b", "d"]


@pytest.mark.looptime
async def test_a_cancellation_in_a_pause_loses_nothing():
    """Who gives up in a pause leaves the others' order and the tokens as they were."""
    pacer = pacer_of(rate=1.0)
    asking = Asking(pacer)
    tasks = [asking.ask(str(n)) for n in range(6)]
    await settle()
    pacer.pause("night")
    await asyncio.sleep(100)
    tasks[3].cancel()
    await settle()
    pacer.resume("night")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert asking.names == ["0", "1", "2", "4", "5"]
    assert [at for _, at in asking.got[2:]] == pytest.approx([100, 100, 101])


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["ask", "front", "cancel", "pause", "resume"]), st.integers(0, 9)
        ),
        max_size=40,
    )
)
def test_whatever_happens(events):
    """However people ask, give up, pause and go on: in a pause nobody starts, of each queue the
    first goes first, and no faster than the rate and the bucket allow."""

    async def play() -> None:
        pacer = pacer_of(rate=2.0)
        asking, tasks = Asking(pacer), []
        for number, (event, which) in enumerate(events):
            if event in ("ask", "front"):
                tasks.append(asking.ask(f"{event} {number:03}", front=event == "front"))
            elif event == "cancel" and tasks:
                tasks[which % len(tasks)].cancel()
            elif event == "pause":
                pacer.pause("test")
            elif event == "resume":
                pacer.resume("test")
            n_got = len(asking.got)
            await asyncio.sleep(which / 7)
            assert not pacer.pauses or len(asking.got) == n_got
        pacer.resume("test")
        await asyncio.gather(*tasks, return_exceptions=True)
        for queue in ("ask", "front"):
            names = [name for name in asking.names if name.startswith(queue)]
            assert names == sorted(names)
        expect_paced([at for _, at in asking.got], rate_per_s=2.0, burst=2)

    with contextlib.closing(looptime.new_event_loop()) as loop:
        loop.run_until_complete(play())


def expect_paced(moments: list[float], *, rate_per_s: float, burst: int) -> None:
    """Between any two of them there are no more than the bucket and the rate give."""
    for first in range(len(moments)):
        for last in range(first, len(moments)):
            span_s = moments[last] - moments[first]
            assert last - first + 1 <= burst + rate_per_s * span_s + 1e-3


@pytest.mark.looptime
async def test_every_reason_has_to_go():
    """With two reasons to pause, one that is taken back, be it twice, lets nobody start."""
    pacer = pacer_of(ATTRIBUTES, CONTACT)
    pacer.pause("window")
    pacer.pause("ctl")
    pacer.pause("ctl")
    assert pacer.pauses == {"window", "ctl"}
    asking = [Asking(pacer, name) for name in (ATTRIBUTES, CONTACT)]
    tasks = [each.ask("x") for each in asking]
    await asyncio.sleep(10)
    pacer.resume("ctl")
    pacer.resume("ctl")
    pacer.resume("nobody")
    await asyncio.sleep(10)
    assert [each.names for each in asking] == [[], []]
    pacer.resume("window")
    await asyncio.gather(*tasks)
    assert [at for each in asking for _, at in each.got] == pytest.approx([20.0, 20.0])
    assert pacer.paused_s() == pytest.approx(20.0)


@pytest.mark.looptime
async def test_what_the_service_asked_for_holds_in_a_pause():
    """A pause neither shortens nor lengthens the time for which the service is left alone."""
    pacer = pacer_of()
    pacer.throttled(ATTRIBUTES, await pacer.acquire(ATTRIBUTES), retry_after_s=100.0)
    pacer.pause("ctl")
    await asyncio.sleep(30)
    pacer.resume("ctl")
    assert (await pacer.acquire(ATTRIBUTES)).at_s >= 0
    assert loop_time() == pytest.approx(100.25, abs=0.01)


class Night(Hand):
    """A controller that is driven, in pauses too; the service's quota is 25 a second."""

    @classmethod
    def begin(cls, kind: str, quota_per_s: float = 25.0) -> Night:
        night = cls(choose_controller(PacingConfig(**KINDS[kind]), DOCUMENTED, 0.0))
        night.service = Service(quota_per_s)
        return night

    def work(self, for_s: float) -> None:
        self.run(self.service.takes, for_s)

    def pause(self, for_s: float) -> None:
        self.regulator.pause(self.now_s)
        self.now_s += for_s
        self.regulator.resume(self.now_s)

    def limit(self, rate_per_s: float | None) -> None:
        self.regulator.limit(rate_per_s, self.now_s)


@pytest.mark.parametrize("between_s", [0.7, 3.0, 12.5, 60.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_day_between_two_nights(kind, between_s):
    """After pauses of sixteen hours, in whatever phase they came, a run is within minutes as fast
    as one that never paused, and is throttled hardly more often."""
    unpaused, paused = Night.begin(kind), Night.begin(kind)
    for _ in range(3):
        unpaused.work(between_s)
        paused.work(between_s)
        paused.pause(DAY_S)
    for night in (unpaused, paused):
        night.work(300)
    assert paused.accepted_per_s(120) >= 0.97 * unpaused.accepted_per_s(120)
    assert len(paused.throttled_at_s) <= len(unpaused.throttled_at_s) + 4


@pytest.mark.parametrize("kind", KINDS)
def test_night_after_night(kind):
    """Thirty short nights in one process: in none of them is there more throttling than one
    night explains, and the last is as fast as the tenth."""
    night = Night.begin(kind)
    rates = []
    for _ in range(30):
        n_throttled = len(night.throttled_at_s)
        night.work(60)
        rates.append(night.accepted_per_s(30))
        assert len(night.throttled_at_s) - n_throttled <= 12
        night.pause(DAY_S)
    assert min(rates[10:]) >= 0.9 * rates[10]


@pytest.mark.parametrize("limit_per_s", [0.5, 5.0])
@pytest.mark.parametrize("before_s", [0.5, 11.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_is_never_exceeded(kind, before_s, limit_per_s):
    """From the moment at which a person names a limit no more start, and as many as that where
    there is room; when it is lifted the run is soon as fast as without, and nothing that it took
    for the quota meanwhile was less."""
    freely, night = Night.begin(kind), Night.begin(kind)
    freely.work(before_s)
    night.work(before_s)
    n_before = len(night.rates_per_s)
    night.limit(limit_per_s)
    night.work(900)
    n_limited = len(night.rates_per_s) - n_before
    assert max(night.rates_per_s[n_before:]) <= limit_per_s
    assert 0.98 * limit_per_s * 900 <= n_limited <= 2 + limit_per_s * 900
    night.limit(None)
    n_throttled = len(night.throttled_at_s), len(freely.throttled_at_s)
    freely.work(300)
    night.work(300)
    assert night.accepted_per_s(120) >= 0.97 * freely.accepted_per_s(120)
    assert len(night.throttled_at_s) - n_throttled[0] <= len(freely.throttled_at_s) + 4


def test_a_climb_goes_on_where_it_was_held_up():
    """An hour at a limit, or a day's pause, costs a climb some seconds, not an hour's average."""

    def known_after_s(hold: Callable[[Night], None]) -> float:
        night = Night.begin("seeking", 400.0)
        night.work(4.0)
        assert night.controller._phase is Phase.CLIMB
        hold(night)
        began_s = night.now_s
        while night.accepted_per_s(2) < 380:
            night.work(1.0)
            assert night.now_s - began_s < 600
        return night.now_s - began_s

    def limited(night: Night) -> None:
        night.limit(2.0)
        night.work(3600)
        night.limit(None)

    freely = known_after_s(lambda _: None)
    assert known_after_s(limited) <= freely + 10
    assert known_after_s(lambda night: night.pause(DAY_S)) <= freely + 10


@pytest.mark.parametrize("kind", KINDS)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["work", "pause", "limit", "lift", "throttle"]), st.floats(0.01, 20)
        ),
        max_size=30,
    )
)
def test_holding_never_lets_more_start(kind, events):
    """Whatever is held, lifted and throttled in whatever order: rates stay above 0 and under the
    limit, and time never goes back for the controller."""
    night, limit_per_s, heard = Night.begin(kind), math.inf, []
    for event, figure in events:
        if event == "work":
            night.work(figure)
        elif event == "pause":
            night.pause(figure * 1000)
        elif event == "limit":
            limit_per_s = figure
            night.limit(figure)
        elif event == "lift":
            limit_per_s = math.inf
            night.limit(None)
        else:
            night.run(lambda _: False, 0.5)
        heard.append(night.regulator._heard_at(night.now_s))
        assert 0 < night.regulator.tokens.rate_per_s <= limit_per_s
    assert heard == sorted(heard)


@pytest.mark.looptime
async def test_a_limit_in_a_pause_holds_after_it():
    """What is said in a pause is not forgotten, and lets nobody start in it."""
    pacer = pacer_of(rate="auto", exclusive=True)
    pacer.pause("window")
    pacer.limit(2.0)
    asking = Asking(pacer)
    tasks = [asking.ask(str(n)) for n in range(10)]
    await asyncio.sleep(100)
    assert asking.got == []
    pacer.resume("window")
    await asyncio.gather(*tasks)
    assert pacer.allowed_per_s() == 2.0
    assert loop_time() == pytest.approx(104, abs=0.01)


@pytest.mark.looptime
async def test_a_controller_hears_no_time_go_back():
    """Answers that come within a pause, and the first after it, are heard in order, and of a day
    ten seconds."""
    heard: list[float] = []

    class Hearing(SeekingController):
        def accepted(self, start, now_s):
            heard.append(now_s)
            super().accepted(start, now_s)

    regulator = Regulator(Hearing(10.0, 0.0), 0.0)
    starts = [regulator.started(float(n)) for n in range(4)]
    regulator.accepted(starts[0], 4.0)
    regulator.pause(5.0)
    regulator.accepted(starts[1], 7.0)
    regulator.accepted(starts[2], 60.0)
    regulator.resume(5.0 + DAY_S)
    regulator.accepted(starts[3], 6.0 + DAY_S)
    assert heard == [4.0, 7.0, 15.0, 16.0]
    assert regulator.started(7.0 + DAY_S).at_s == 17.0


@pytest.mark.looptime
async def test_a_series_knows_no_pause():
    """Weeks of nights leave a record of the nights alone, second by second while there is room."""
    pacer = pacer_of(rate=1.0)
    for _ in range(20):
        for _ in range(10):
            await pacer.acquire(ATTRIBUTES)
        pacer.pause("window")
        await asyncio.sleep(DAY_S)
        pacer.resume("window")
    (series,) = pacer.series()
    assert sum(series["started"]) == 200
    assert series["interval_s"] == 1.0
    assert len(series["started"]) <= 200
    assert series["paused_s"] == pytest.approx(20 * DAY_S, rel=1e-6)
    assert pacer.awake_s() == pytest.approx(loop_time() - 20 * DAY_S)


@pytest.mark.looptime
async def test_a_series_without_a_pause_says_nothing_of_it():
    """Where nothing was paused, the record has no figure for it."""
    pacer = pacer_of()
    await pacer.acquire(ATTRIBUTES)
    assert "paused_s" not in pacer.series()[0]


@pytest.mark.looptime
async def test_a_limit_above_what_is_allowed():
    """A limit only ever lowers; and each operation has it by itself."""
    pacer = pacer_of(ATTRIBUTES, CONTACT)
    pacer.limit(100.0)
    assert pacer.allowed_per_s() == 16.0
    pacer.limit(5.0)
    assert pacer.allowed_per_s() == 10.0
    pacer.throttled(ATTRIBUTES, await pacer.acquire(ATTRIBUTES))
    assert pacer.rate_per_s(ATTRIBUTES) == 4.0  # half of 8: the controller says less
    assert pacer.ceiling_per_s(ATTRIBUTES) == 8.0


@pytest.mark.looptime
async def test_a_limit_reaches_those_who_wait():
    """Who waits at a slow limit goes at once when it is lifted."""
    pacer = pacer_of(rate=100.0)
    pacer.limit(0.01)
    asking = Asking(pacer)
    tasks = [asking.ask(str(n)) for n in range(20)]
    await asyncio.sleep(5)
    assert len(asking.got) <= 5
    pacer.limit(None)
    await asyncio.gather(*tasks)
    assert loop_time() < 6
