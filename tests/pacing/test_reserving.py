"""Finding a quota and taking a share of it, as lists of events against one exact bucket."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing import ReservingController
from bulk_updater.pacing.seeking import Phase
from tests.pacing.by_hand import EVENTS, Hand, Service, play


def refuses(_: float) -> bool:
    """A service that takes nothing."""
    return False


def reserving(believed_per_s: float = 10.0, share: float = 0.8) -> Hand:
    return Hand(ReservingController(believed_per_s, 0.0, share=share))


def settled(share: float = 0.8) -> tuple[Hand, Service]:
    """A run that has found 10 a second, and holds its share of it."""
    hand, service = reserving(share=share), Service(10.0)
    hand.run(service.takes, 120)
    assert hand.controller._phase is Phase.HOLD
    return hand, service


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("believed_per_s", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("quota_per_s", [5.0, 10.0, 30.0])
def test_takes_its_share(quota_per_s: float, believed_per_s: float, share: float):
    """Whatever is believed at first, two minutes on it takes its share of what there is, to within
    a tenth, and hardly anything is refused any more."""
    hand, service = reserving(believed_per_s, share), Service(quota_per_s)
    hand.run(service.takes, 120)
    assert len(hand.throttled_at_s) <= 16
    hand.run(service.takes, 500)
    assert hand.accepted_per_s(500) == pytest.approx(share * quota_per_s, rel=0.1)
    assert hand.throttled_within(500) <= 4


def test_what_was_found():
    """Nothing before it is settled; then the quota to within a tenth, and the burst."""
    hand = reserving(believed_per_s=10.0)
    hand.run(Service(20.0).takes, 0.5)
    assert hand.controller.found() is None
    hand.run(Service(20.0, now_s=hand.now_s).takes, 120)
    found = hand.controller.found()
    assert found is not None
    assert found.rate_per_s == pytest.approx(20.0, rel=0.1)
    assert found.burst == pytest.approx(30.0, rel=0.2)


def test_a_burst_that_was_never_used_up_is_not_found():
    """A quota below what somebody said is measured between two refusals; its burst is not."""
    hand = Hand(ReservingController(10.0, 0.0, share=1.0, is_sure=True))
    hand.run(Service(4.0).takes, 60)
    found = hand.controller.found()
    assert found is not None
    assert found.rate_per_s == pytest.approx(4.0, rel=0.01)
    assert found.burst is None


def test_what_somebody_said_was_not_found():
    """A run that began with a quota that AWS told has found nothing while nothing is refused."""
    hand = Hand(ReservingController(10.0, 0.0, share=0.8, is_sure=True))
    hand.run(Service(10.0).takes, 50)
    assert hand.controller.found() is None


def test_never_beyond_the_margin():
    """A share of all there is leaves the margin that an exclusive run leaves."""
    hand, service = settled(share=1.0)
    hand.run(service.takes, 300)
    assert hand.controller._phase is Phase.HOLD
    assert 0.9 * 10 <= hand.controller.rate_per_s(hand.now_s) < 10.5


def test_leaves_the_reserve_alone():
    """Once it knows, it does not ask for the reserve again for minutes."""
    hand, service = settled()
    hand.rates_per_s.clear()
    hand.run(service.takes, 400)
    assert hand.throttled_within(400) == 0
    assert max(hand.rates_per_s) <= 8.8


def test_gives_way():
    """One refusal that nobody asked for halves the rate, at once; it comes back to a little less
    than before."""
    hand, service = settled()
    before = hand.controller.rate_per_s(hand.now_s)
    while not hand.throttled_within(60):
        hand.run(refuses, 0.01)
    assert hand.controller.rate_per_s(hand.now_s) == pytest.approx(before / 2)
    hand.run(service.takes, 30)
    assert 0.88 * before <= hand.controller.rate_per_s(hand.now_s) < before


def test_gives_way_to_a_live_contact_centre():
    """Next to others who take half of the quota, it takes what they leave, and they and it are
    refused next to nothing."""
    hand, service = settled()
    live_at_s, n_refused = [hand.now_s], 0

    def beside_live(now_s: float) -> bool:
        nonlocal n_refused
        while live_at_s[-1] + 0.2 <= now_s:
            live_at_s.append(live_at_s[-1] + 0.2)
            n_refused += not service.takes(live_at_s[-1])
        return service.takes(now_s)

    hand.run(beside_live, 1800)
    assert n_refused <= 0.015 * len(live_at_s)
    assert hand.accepted_per_s(600) >= 0.7 * 5


def test_more_is_found_in_the_end():
    """A quota that was raised is found out at the next look, within a quarter of an hour."""
    hand, service = settled()
    service.rate_per_s, service.burst = 20.0, 30.0
    hand.run(service.takes, 900)
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(300) == pytest.approx(16.0, rel=0.1)


def test_less_is_followed():
    """A quota that was halved is followed down within five minutes."""
    hand, service = settled()
    service.rate_per_s, service.burst = 5.0, 7.5
    hand.run(service.takes, 300)
    hand.run(service.takes, 600)
    assert 0.65 * 5 <= hand.accepted_per_s(600) <= 5
    assert hand.throttled_within(600) <= 0.01 * 600 * 5


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_never_above_the_ceiling(share: float):
    """A ceiling holds whatever the quota is, in every phase."""
    for ceiling_per_s in (0.01, 3.0, 8.0):
        hand = Hand(ReservingController(10.0, 0.0, share=share, ceiling_per_s=ceiling_per_s))
        hand.run(Service(50.0).takes, 300)
        assert max(hand.rates_per_s) <= ceiling_per_s


@settings(max_examples=80, deadline=None)
@given(
    events=EVENTS,
    quota_per_s=st.floats(0.01, 1000),
    share=st.floats(0.01, 1),
    ceiling_per_s=st.floats(0.01, 1000) | st.just(math.inf),
    is_sure=st.booleans(),
)
def test_whatever_happens(
    events: list[tuple[str, float, int]],
    quota_per_s: float,
    share: float,
    ceiling_per_s: float,
    *,
    is_sure: bool,
):
    """Answers in any order or none at all, times that stand still or leap: the rate stays a number
    above 0 and not above the ceiling, and nothing is raised."""
    controller = ReservingController(
        quota_per_s, 0.0, share=share, ceiling_per_s=ceiling_per_s, is_sure=is_sure
    )
    for rate_per_s in play(Hand(controller), events):
        assert 0 < rate_per_s <= ceiling_per_s
        assert math.isfinite(rate_per_s)
        found = controller.found()
        assert found is None or (found.rate_per_s > 0 and (found.burst or 1.0) >= 1.0)


@settings(max_examples=25, deadline=None)
@given(events=EVENTS)
def test_the_same_events_give_the_same_rates(events: list[tuple[str, float, int]]):
    """It has no clock, no loop and no dice."""
    assert play(reserving(), events) == play(reserving(), events)


def test_no_jumps():
    """While nothing is refused, the rate never leaps: the others have time to be noticed."""
    hand, service = settled()
    while not hand.throttled_within(60):
        hand.run(refuses, 0.01)
    hand.rates_per_s.clear()
    hand.run(service.takes, 300)
    assert all(b - a <= 0.4 for a, b in pairwise(hand.rates_per_s))


def test_silence_for_a_day():
    """A day without a request changes nothing, and what follows is as it was."""
    hand, service = settled()
    before = hand.controller.rate_per_s(hand.now_s)
    hand.now_s += 86_400.0
    assert hand.controller.rate_per_s(hand.now_s) == before
    hand.run(service.takes, 300)
    assert hand.accepted_per_s(200) == pytest.approx(8.0, rel=0.1)
    assert hand.throttled_within(300) <= 4


@pytest.mark.parametrize("for_s", [10.0, 60.0, 900.0, 3600.0, 43_200.0])
@pytest.mark.parametrize("knew", [False, True])
def test_comes_back_after_an_outage(for_s: float, *, knew: bool):
    """However long everything was refused, half an hour later 90 % of the share is used again."""
    hand = settled()[0] if knew else reserving()
    hand.run(refuses, for_s)
    hand.run(Service(10.0, now_s=hand.now_s).takes, 1800)
    assert hand.accepted_per_s(300) >= 0.9 * 8


@settings(max_examples=8, deadline=None, phases=(HypothesisPhase.generate,))
@given(events=EVENTS)
def test_comes_back(events: list[tuple[str, float, int]]):
    """From whatever has happened, half an hour of an honest bucket brings 90 % of the share."""
    hand = reserving()
    play(hand, events, patience_s=60.0)
    hand.run(Service(8.0, now_s=hand.now_s).takes, 1800)
    assert hand.accepted_per_s(300) >= 0.9 * 0.8 * 8
