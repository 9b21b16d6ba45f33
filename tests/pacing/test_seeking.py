"""Finding, holding and following a quota, as lists of events against one exact bucket."""

from __future__ import annotations

import itertools
import math
import random
from itertools import pairwise

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing import SeekingController, Start
from bulk_updater.pacing.seeking import Phase
from tests.pacing.by_hand import EVENTS, Hand, Service, play

QUOTAS = [5.0, 10.0, 30.0]


def refuses(_: float) -> bool:
    """A service that takes nothing."""
    return False


def holding(quota_per_s: float = 10.0, for_s: float = 600.0) -> tuple[Hand, Service]:
    """A run that knows its quota, while it holds."""
    hand, service = Hand(SeekingController(quota_per_s, 0.0)), Service(quota_per_s)
    hand.run(service.takes, for_s)
    while hand.controller._phase is not Phase.HOLD:
        hand.run(service.takes, 1.0)
    return hand, service


# ----------------------------------------------------------------------------------------------
# Finding


@pytest.mark.parametrize("is_sure", [False, True])
@pytest.mark.parametrize("believed_per_s", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("quota_per_s", QUOTAS)
def test_finds_the_quota(quota_per_s: float, believed_per_s: float, *, is_sure: bool):
    """Whatever is believed at first: a minute on, 97 % of the quota is used, and then all of it,
    at the cost of a throttled request every 25 seconds or every 250th."""
    hand = Hand(SeekingController(believed_per_s, 0.0, is_sure=is_sure))
    service = Service(quota_per_s)
    hand.run(service.takes, 60)
    hand.run(service.takes, 60)
    assert hand.accepted_per_s(60) >= 0.97 * quota_per_s
    hand.run(service.takes, 600)
    assert hand.accepted_per_s(500) >= 0.99 * quota_per_s
    assert hand.throttled_within(500) <= max(20, 0.004 * 500 * quota_per_s)


@pytest.mark.parametrize("believed_per_s", [1.0, 10.0, 100.0])
def test_learns_fast(believed_per_s: float):
    """Finding the quota costs two dozen throttled requests in the first two minutes, not more."""
    hand = Hand(SeekingController(believed_per_s, 0.0))
    hand.run(Service(10.0).takes, 120)
    assert len(hand.throttled_at_s) <= 24


@pytest.mark.parametrize("believed_per_s", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("quota_per_s", QUOTAS)
def test_found(quota_per_s: float, believed_per_s: float):
    """Nothing is certain for half a minute; what is then called found is right to half a percent,
    and so is the burst, to within three requests."""
    hand, service = Hand(SeekingController(believed_per_s, 0.0)), Service(quota_per_s)
    n_found = 0
    for _ in range(300):
        hand.run(service.takes, 1.0)
        found = hand.controller.found()
        if hand.now_s < 30:
            assert found is None
        if found is not None:
            n_found += 1
            assert found.rate_per_s == pytest.approx(quota_per_s, rel=0.005)
            assert found.burst is None or abs(found.burst - service.burst) <= 3
    assert n_found > 150


def test_a_deeper_bucket():
    """A burst far beyond what is documented delays the search; it does not mislead it."""
    hand, service = Hand(SeekingController(10.0, 0.0)), Service(10.0, 200.0)
    hand.run(service.takes, 900)
    assert 0.99 * 10 <= hand.accepted_per_s(300) <= 10.01
    found = hand.controller.found()
    assert found is not None
    assert found.rate_per_s == pytest.approx(10.0, rel=0.005)


@pytest.mark.parametrize(("before", "after"), [(10.0, 5.0), (10.0, 25.0), (10.0, 9.0), (50.0, 10)])
def test_follows(before: float, after: float):
    """A quota that changes is followed, up or down: five minutes on, 95 % of it is used."""
    hand, service = holding(before)
    service.rate_per_s, service.burst = after, 1.5 * after
    hand.run(service.takes, 300)
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(300) >= 0.95 * after
    assert hand.throttled_within(300) <= max(10, 0.01 * 300 * after)


# ----------------------------------------------------------------------------------------------
# Holding


@pytest.mark.parametrize("quota_per_s", QUOTAS)
def test_a_stray_refusal_is_doubted(quota_per_s: float):
    """One throttled answer while holding, to a bucket that was not empty, moves next to nothing."""
    hand, service = holding(quota_per_s)
    before = hand.controller.rate_per_s(hand.now_s)
    n_before = len(hand.throttled_at_s)
    while len(hand.throttled_at_s) == n_before:
        hand.run(refuses, 0.1 / quota_per_s)
    assert hand.controller.rate_per_s(hand.now_s) == pytest.approx(before, rel=0.01)
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(300) >= 0.98 * quota_per_s


def test_refusals_that_leave_as_much_as_is_sent_are_no_fall():
    """Five of them, one in forty: the fifth costs what the fourth did, and measures nothing."""
    hand, service = holding()
    n_sent, refused_at = itertools.count(1), []

    def refuses_each_fortieth(now_s: float) -> bool:
        if next(n_sent) % 40:
            return service.takes(now_s)
        refused_at.append(len(hand.rates_per_s))
        return False

    while len(refused_at) < 5:
        hand.run(refuses_each_fortieth, 0.1)
    assert hand.controller._doubt.amount == 0.0  # resolved by the fifth
    rates_per_s = [hand.rates_per_s[at - 1 : at + 1] for at in refused_at]
    lost = [round(1 - after / before, 3) for before, after in rates_per_s]
    assert lost == [0.001, 0.015, 0.025, 0.025, 0.025]
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(200) >= 0.97 * 10


def test_an_answer_as_old_as_the_last_refusal_measures_nothing():
    """Between two requests of one moment nothing dripped in, however late the second's answer."""
    controller = SeekingController(10.0, 0.0)
    old, last = Start(0.0, 0), Start(0.0, 1)
    controller.started(old)
    controller.started(last)
    controller.throttled(old, 0.0)
    assert controller._phase is Phase.HOLD
    held_per_s, now_s, number = controller.rate_per_s(0.0), 0.0, 2
    while controller._phase is Phase.HOLD:
        now_s += 1.0 / held_per_s
        start = Start(now_s, number)
        controller.started(start)
        controller.accepted(start, now_s)
        number += 1
    assert controller._phase is Phase.PROBE
    controller.throttled(last, now_s)
    assert controller._phase is Phase.HOLD
    assert controller.rate_per_s(now_s) == pytest.approx(held_per_s)
    assert controller.found() is None


def test_quiet_while_it_holds():
    """Between probes nothing is refused: each refusal is one that a probe asked for."""
    hand, service = holding()
    asked_for = 0
    for _ in range(3000):
        phase, n_before = hand.controller._phase, len(hand.throttled_at_s)
        hand.run(service.takes, 0.1)
        if len(hand.throttled_at_s) > n_before:
            assert phase is Phase.PROBE
            asked_for += 1
    assert 1 <= asked_for <= 20


def test_no_jumps():
    """Once the quota is known, no answer moves the rate by more than a probe does."""
    hand, service = holding()
    hand.rates_per_s.clear()
    hand.run(service.takes, 1800)
    assert all(abs(b - a) <= 0.06 * a for a, b in pairwise(hand.rates_per_s))


# ----------------------------------------------------------------------------------------------
# The ceiling


@pytest.mark.parametrize("ceiling_per_s", [0.01, 0.5, 8.0, 20.0])
@pytest.mark.parametrize("quota_per_s", [0.2, 10.0, 40.0])
def test_never_above_the_ceiling(quota_per_s: float, ceiling_per_s: float):
    """Whatever the quota is, no more than the ceiling is ever asked for, and that much if it may
    be."""
    controller = SeekingController(ceiling_per_s, 0.0, ceiling_per_s=ceiling_per_s)
    hand = Hand(controller)
    assert controller.rate_per_s(0.0) <= ceiling_per_s
    hand.run(Service(quota_per_s, max(2.0, 1.5 * quota_per_s)).takes, 600)
    assert max(hand.rates_per_s) <= ceiling_per_s
    if quota_per_s > ceiling_per_s:
        assert hand.throttled_at_s == []
        assert hand.accepted_per_s(500) == pytest.approx(ceiling_per_s, abs=0.01)


def test_reaches_the_ceiling_and_stays():
    """A belief below the ceiling is left behind, and at the ceiling nothing is refused."""
    hand = Hand(SeekingController(1.0, 0.0, ceiling_per_s=20.0))
    hand.run(Service(50.0).takes, 600)
    assert hand.throttled_at_s == []
    assert hand.accepted_per_s(500) == pytest.approx(20.0, rel=0.001)


@settings(max_examples=80, deadline=None)
@given(
    events=EVENTS,
    quota_per_s=st.floats(0.01, 1000),
    ceiling_per_s=st.floats(0.01, 1000) | st.just(math.inf),
    is_sure=st.booleans(),
)
def test_whatever_happens(
    events: list[tuple[str, float, int]], quota_per_s: float, ceiling_per_s: float, *, is_sure: bool
):
    """Answers in any order or none at all, times that stand still or leap: the rate stays a number
    above 0 and not above the ceiling, and nothing is raised."""
    controller = SeekingController(quota_per_s, 0.0, ceiling_per_s=ceiling_per_s, is_sure=is_sure)
    for rate_per_s in play(Hand(controller), events):
        assert 0 < rate_per_s <= ceiling_per_s
        assert math.isfinite(rate_per_s)
        found = controller.found()
        assert found is None or (found.rate_per_s > 0 and (found.burst or 1.0) >= 1.0)


@settings(max_examples=25, deadline=None)
@given(events=EVENTS, quota_per_s=st.floats(0.1, 100))
def test_the_same_events_give_the_same_rates(
    events: list[tuple[str, float, int]], quota_per_s: float
):
    """It has no clock, no loop and no dice; and to ask it changes nothing."""
    first, second = (Hand(SeekingController(quota_per_s, 0.0)) for _ in range(2))
    rates = play(first, events)
    for at in range(len(events)):
        second.controller.rate_per_s(second.now_s)
        second.controller.found()
        assert second.controller.rate_per_s(second.now_s) == second.controller.rate_per_s(1e9)
        if at == 0:
            assert play(second, events) == rates


# ----------------------------------------------------------------------------------------------
# Trouble


def test_throttled_on_the_first_request():
    """A run that begins against an empty bucket, with nothing accepted yet, finds the quota."""
    hand, service = Hand(SeekingController(10.0, 0.0)), Service(10.0)
    while service.takes(0.0):
        pass
    hand.run(service.takes, 0.0)
    assert len(hand.throttled_at_s) >= 1
    assert hand.accepted_at_s == []
    hand.run(service.takes, 240)
    assert hand.accepted_per_s(120) >= 0.97 * 10


def test_silence_for_a_day():
    """A day without a request changes nothing, and what follows is as it was."""
    hand, service = holding()
    before = hand.controller.rate_per_s(hand.now_s)
    hand.now_s += 86_400.0
    assert hand.controller.rate_per_s(hand.now_s) == before
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(300) >= 0.97 * 10
    assert hand.throttled_within(300) <= 15


def test_nothing_is_answered():
    """Requests that nobody answers, as in an outage of the network, move nothing."""
    hand, service = holding()
    before = hand.controller.rate_per_s(hand.now_s)
    for _ in range(1000):
        hand.now_s += 0.1
        hand.regulator.started(hand.now_s)
    assert hand.controller.rate_per_s(hand.now_s) == before
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(200) >= 0.97 * 10


@pytest.mark.parametrize("late_s", [60.0, 3600.0, 86_400.0])
@pytest.mark.parametrize("knew", [False, True])
def test_answers_that_are_late(late_s: float, *, knew: bool):
    """Answers that come very late, a refusal among them, cost no more than minutes."""
    hand, service = holding() if knew else (Hand(SeekingController(10.0, 0.0)), Service(10.0))
    starts = [hand.regulator.started(hand.now_s) for _ in range(10)]
    hand.now_s += late_s
    for start in starts[:-1]:
        hand.regulator.accepted(start, hand.now_s)
    hand.regulator.throttled(starts[-1], hand.now_s)
    hand.run(service.takes, 300)
    hand.run(service.takes, 600)
    assert hand.accepted_per_s(600) >= 0.95 * 10


def test_time_stands_still():
    """A thousand answers in one moment are no rate, and divide nothing by 0."""
    for refused in (1, 2, 3, 10):
        hand = Hand(SeekingController(10.0, 0.0))
        starts = [hand.regulator.started(0.0) for _ in range(1000)]
        for start in starts:
            told = hand.regulator.accepted if start.number % refused else hand.regulator.throttled
            told(start, 0.0)
            assert 0 < hand.controller.rate_per_s(0.0) <= 20.0


def test_hardly_anything_while_all_is_refused():
    """While everything is refused for an hour, it asks a few hundred times, not thousands."""
    hand, _ = holding()
    hand.run(refuses, 3600)
    assert hand.throttled_within(3600) <= 720
    assert hand.controller.rate_per_s(hand.now_s) < 0.5
    assert hand.throttled_within(1800) <= 240


@pytest.mark.parametrize(
    "for_s",
    [10.0, 60.0, 900.0, 3600.0, 43_200.0],
)
@pytest.mark.parametrize("knew", [False, True])
def test_comes_back_after_an_outage(for_s: float, *, knew: bool):
    """However long everything was refused, half an hour later 90 % of the quota is used again."""
    hand = holding()[0] if knew else Hand(SeekingController(10.0, 0.0))
    hand.run(refuses, for_s)
    hand.run(Service(10.0, now_s=hand.now_s).takes, 1800)
    assert hand.accepted_per_s(300) >= 0.9 * 10


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_comes_back_after_noise(share: float):
    """Whatever share was refused at random for a while, half an hour later all is well again."""
    rng = random.Random(2)
    hand = holding()[0]
    hand.run(lambda _: rng.random() > share, 1200)
    hand.run(Service(10.0, now_s=hand.now_s).takes, 1800)
    assert hand.accepted_per_s(300) >= 0.9 * 10


@settings(max_examples=8, deadline=None, phases=(HypothesisPhase.generate,))
@given(events=EVENTS)
def test_comes_back(events: list[tuple[str, float, int]]):
    """From whatever has happened, half an hour of an honest bucket brings 90 % of its quota."""
    hand = Hand(SeekingController(10.0, 0.0))
    play(hand, events, patience_s=60.0)
    hand.run(Service(8.0, now_s=hand.now_s).takes, 1800)
    assert hand.accepted_per_s(300) >= 0.9 * 8
