"""Giving way, as lists of events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing import Start, YieldingController
from bulk_updater.pacing.yielding import Courtesy
from tests.pacing.by_hand import Hand, Service


def accept(controller: YieldingController, now_s: float) -> None:
    controller.accepted(Start(now_s, 0), now_s)


def throttle(controller: YieldingController, now_s: float) -> float | None:
    return controller.throttled(Start(now_s, 0), now_s)


def accept_for(controller: YieldingController, began_s: float, for_s: float) -> list[float]:
    """Accepts a request a second, or all if there are fewer; returns the rates on the way."""
    now_s, rates = began_s, [controller.rate_per_s(began_s)]
    while now_s < began_s + for_s:
        now_s += max(1.0, 1 / rates[-1])
        accept(controller, now_s)
        rates.append(controller.rate_per_s(now_s))
    return rates


def test_begins_at_the_ceiling():
    """The pace is the ceiling until somebody complains, and acceptances never exceed it."""
    controller = YieldingController(8.0, 0.0)
    assert set(accept_for(controller, 0.0, 1000.0)) == {8.0}


def test_throttling_slows_at_once():
    """One throttled answer halves the rate, at once, and empties the bucket."""
    controller = YieldingController(10.0, 0.0)
    assert throttle(controller, 5.0) == 0.0
    assert controller.rate_per_s(5.0) == pytest.approx(5.0)


def test_a_volley_counts_once():
    """Thirty throttled answers to requests that were in flight together are one piece of news."""
    controller = YieldingController(10.0, 0.0)
    news = [throttle(controller, 5.0 + n / 40) for n in range(30)]
    assert news == [0.0] + [None] * 29
    assert controller.rate_per_s(6.0) == pytest.approx(5.0)
    assert throttle(controller, 6.0) == 0.0
    assert controller.rate_per_s(6.0) == pytest.approx(2.5)


def test_floor():
    """However long the throttling, the pace does not fall below a twentieth of the ceiling."""
    controller = YieldingController(10.0, 0.0)
    for n in range(10_000):
        throttle(controller, float(n))
    assert controller.rate_per_s(10_000.0) == pytest.approx(0.5)


def test_slow_return():
    """What it makes up for fast takes seconds, not one: no acceptance is a jump."""
    controller = YieldingController(10.0, 0.0)
    throttle(controller, 0.0)
    rates = accept_for(controller, 0.0, 30.0)
    assert all(0 <= after - before <= 10 / 30 + 1e-9 for before, after in pairwise(rates))
    back_s = next(at for at, rate in enumerate(rates) if rate >= 9.0)
    assert 12 <= back_s <= 13  # four tenths at a thirtieth a second


def test_back_under_where_it_was_throttled():
    """It is back fast to a little under where it was throttled, and from there hardly moves."""
    under, fades = Courtesy._BACK_OFF, 30 / Courtesy._FADE_S
    assert 0.9 <= under < 1.0
    controller = YieldingController(10.0, 0.0)
    accept_for(controller, 0.0, 5.0)
    now_s, before = 5.0, 10.0
    for _ in range(5):
        throttle(controller, now_s)
        rates = accept_for(controller, now_s, 30.0)
        assert under * before - 1e-9 <= rates[-1] <= under * before + 10 * fades + 1e-9
        now_s, before = now_s + 30.0, rates[-1]


def test_below_where_others_drink():
    """Refused each time it is back at a rate, it is soon back there only every few minutes."""
    controller = YieldingController(10.0, 0.0)
    now_s, throttled_at_s = 0.0, []
    while now_s < 3600.0:
        now_s += 1 / controller.rate_per_s(now_s)
        if controller.rate_per_s(now_s) > 8.0:
            throttle(controller, now_s)
            throttled_at_s.append(now_s)
        else:
            accept(controller, now_s)
    gap_s = (1 - Courtesy._BACK_OFF) * 0.8 * Courtesy._FADE_S
    assert min(b - a for a, b in pairwise(throttled_at_s[5:])) >= 0.95 * gap_s
    assert len(throttled_at_s) <= 6 + 3600 / gap_s


@pytest.mark.parametrize("n_throttled", [1, 3, 100])
def test_back_at_the_ceiling(n_throttled: int):
    """However far it had to give way, the ceiling is back when the memory has faded."""
    controller = YieldingController(8.0, 0.0)
    for n in range(n_throttled):
        throttle(controller, float(n))
    assert accept_for(controller, float(n_throttled), 1.05 * Courtesy._FADE_S)[-1] == 8.0


def test_silence_teaches_nothing():
    """A pause does not bring the pace back; one acceptance after it counts as one."""
    controller = YieldingController(10.0, 0.0)
    for n in range(5):
        throttle(controller, float(n))
    before = controller.rate_per_s(5.0)
    assert controller.rate_per_s(5000.0) == before
    accept(controller, 5000.0)
    assert controller.rate_per_s(5000.0) - before <= 10 / 30 + 1e-9


def test_a_pause_at_the_ceiling_saves_nothing():
    """Long acceptance before a complaint is no credit against it."""
    controller = YieldingController(10.0, 0.0)
    accept_for(controller, 0.0, 100.0)
    throttle(controller, 101.0)
    accept(controller, 101.0)
    assert controller.rate_per_s(101.0) == pytest.approx(5.0)


def test_never_asks_for_more():
    """It finds nothing out: beneath its ceiling there is nothing to find."""
    hand = Hand(YieldingController(8.0, 0.0))
    hand.run(Service(5.0).takes, 600)
    assert hand.throttled_at_s
    assert hand.controller.found() is None


@pytest.mark.parametrize("rate_per_s", [2.0, 5.0, 7.5])
def test_under_a_quota_that_is_smaller(rate_per_s: float):
    """Against a quota below its ceiling, hardly anything is refused, and most of it is used."""
    hand = Hand(YieldingController(8.0, 0.0))
    hand.run(Service(rate_per_s).takes, 1800)
    assert hand.accepted_per_s(1200) >= 0.85 * rate_per_s
    assert hand.throttled_within(1200) <= 0.01 * 1200 * rate_per_s


EVENTS = st.lists(st.tuples(st.booleans(), st.floats(0, 100) | st.just(0.0)), max_size=100)


@given(events=EVENTS)
def test_stays_within_bounds(events: list[tuple[bool, float]]):
    """Whatever is answered and when, the pace stays between floor and ceiling."""
    controller = YieldingController(8.0, 0.0)
    now_s = 0.0
    for throttled, passed_s in events:
        now_s += passed_s
        (throttle if throttled else accept)(controller, now_s)
        assert 0.4 - 1e-9 <= controller.rate_per_s(now_s) <= 8.0


@given(events=EVENTS)
def test_each_word_moves_it_its_own_way(events: list[tuple[bool, float]]):
    """A complaint never raises the share, an acceptance never lowers it, and no news is no news."""
    courtesy = Courtesy(0.0)
    now_s = 0.0
    for throttled, passed_s in events:
        now_s += passed_s
        before = courtesy.share
        if throttled:
            is_news = courtesy.throttled(now_s)
            assert courtesy.share <= before
            assert is_news or courtesy.share == before
        else:
            courtesy.accepted(now_s)
            assert before <= courtesy.share <= 1.0


@settings(max_examples=15, deadline=None)
@given(events=EVENTS)
def test_recovers(events: list[tuple[bool, float]]):
    """From whatever has happened, acceptances alone bring the ceiling back."""
    controller = YieldingController(8.0, 0.0)
    now_s = 0.0
    for throttled, passed_s in events:
        now_s += passed_s
        (throttle if throttled else accept)(controller, now_s)
    assert accept_for(controller, now_s, 1.05 * Courtesy._FADE_S)[-1] == 8.0


@pytest.mark.parametrize("for_s", [1.0, 5.0, 60.0, 3600.0])
def test_comes_back_after_an_outage(for_s: float):
    """However long everything was refused, half an hour later 90 % of the ceiling is used again."""
    hand = Hand(YieldingController(8.0, 0.0))
    hand.run(lambda _: False, for_s)
    hand.run(Service(10.0, now_s=hand.now_s).takes, 1800)
    assert hand.accepted_per_s(60) >= 0.9 * 8
