"""What a throttled answer says about the service's bucket, counted exactly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing import Start
from bulk_updater.pacing.tally import Level, Mark, Tally
from tests.pacing.by_hand import Service


def test_taken_is_started_less_throttled():
    """What was started counts until it turns out throttled, in whatever order that is told."""
    tally = Tally()
    for n in range(5):
        tally.started(Start(n / 10, n))
    assert tally.n_taken == 5
    assert tally.throttled(Start(0.3, 3)) == Mark(0.3, 3)  # 0, 1 and 2 were taken by then
    assert tally.throttled(Start(0.4, 4)) == Mark(0.4, 3)
    assert tally.n_taken == 3


def test_first_request_throttled():
    """The very first request may be throttled: nothing was taken then."""
    tally = Tally()
    tally.started(Start(0.0, 0))
    assert tally.throttled(Start(0.0, 0)) == Mark(0.0, 0)
    assert tally.n_taken == 0


def send(service: Service, tally: Tally, per_s: float, from_s: float, n: int) -> list[Mark | None]:
    """Sends n requests at a rate; returns for each the mark if it was throttled."""
    marks: list[Mark | None] = []
    for at in range(n):
        now_s = from_s + at / per_s
        start = Start(now_s, tally._n_started)
        tally.started(start)
        marks.append(None if service.takes(now_s) else tally.throttled(start))
    return marks


@settings(max_examples=30, deadline=None)
@given(quota=st.floats(0.5, 200), burst_s=st.floats(0.2, 3), faster=st.floats(1.02, 3))
def test_between_two_empties_is_the_quota(quota: float, burst_s: float, faster: float):
    """Between any two moments at which the bucket was empty, the measure is the quota, to within
    a request, if it holds two tokens and so never overflows in between."""
    tally, level = Tally(), Level()
    marks = send(Service(quota, max(2.0, burst_s * quota)), tally, faster * quota, 0.0, 500)
    found = [mark for mark in marks if mark is not None]
    if len(found) < 2:
        return
    level.empty(found[0], 0)
    for mark in found[1:]:
        measured = level.measure(mark)
        assert measured is not None
        per_s, span_s = measured
        assert span_s == pytest.approx(mark.at_s - found[0].at_s)
        assert abs(per_s - quota) * span_s <= 1 + 1e-6


@settings(max_examples=30, deadline=None)
@given(
    quota=st.floats(0.5, 200),
    burst=st.floats(1, 1000),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_a_lower_bound_whatever_the_burst(quota: float, burst: float, gaps: list[float]):
    """What was taken since the bucket was empty is no more than the quota gave, burst or no, to
    within the one request whose token was not quite there."""
    tally, level, service = Tally(), Level(), Service(quota, burst)
    while service.takes(0.0):
        pass
    level.empty(Mark(0.0, 0), -1)
    now_s = 0.0
    for number, gap_s in enumerate(gaps):
        now_s += gap_s / quota
        start = Start(now_s, number)
        tally.started(start)
        if not service.takes(now_s):
            tally.throttled(start)
        measured = level.measure(Mark(now_s, tally.n_taken))
        if measured is not None:
            assert measured[0] * measured[1] < quota * measured[1] + 1 + 1e-6


def test_no_measure_without_two_moments():
    """Without an anchor, or without time since, nothing is measured; nothing is divided by 0."""
    level = Level()
    assert level.measure(Mark(5.0, 5)) is None
    assert level.tokens(Mark(5.0, 5), 10.0) == 0.0
    level.empty(Mark(5.0, 5), 4)
    assert level.measure(Mark(5.0, 5)) is None
    assert level.measure(Mark(4.0, 5)) is None
    assert level.measure(Mark(6.0, 15)) == (10.0, 1.0)


def test_level():
    """What drips in at the quota that is believed, less what was taken; below zero it may be."""
    level = Level()
    level.empty(Mark(0.0, 0), 0)
    assert level.tokens(Mark(1.0, 5), 10.0) == pytest.approx(5.0)
    assert level.tokens(Mark(2.0, 25), 10.0) == pytest.approx(-5.0)
    # The quota that is believed now holds from now on.
    assert level.tokens(Mark(3.0, 25), 20.0) == pytest.approx(15.0)


def test_overflow_is_flagged():
    """A bucket that may have been full makes the measure a lower bound, until it is empty again."""
    level = Level()
    level.empty(Mark(0.0, 0), 0)
    assert level.tokens(Mark(1.5, 0), 10.0) == pytest.approx(15.0)
    assert not level.overflowed
    assert level.tokens(Mark(1.6, 0), 10.0) == pytest.approx(15.0)
    assert level.overflowed
    assert level.tokens(Mark(2.6, 20), 10.0) == pytest.approx(5.0)
    assert level.overflowed
    level.empty(Mark(3.0, 30), 30)
    assert not level.overflowed


def test_a_learnt_burst_overflows_later():
    """A bucket that is known to be deeper overflows later; one that is shallower, as documented."""
    level = Level()
    level.burst = 40.0
    level.empty(Mark(0.0, 0), 0)
    assert level.tokens(Mark(5.0, 10), 10.0) == pytest.approx(40.0)
    assert not level.overflowed
    level.burst = 1.0
    assert level.tokens(Mark(5.0, 10), 10.0) == pytest.approx(15.0)


def test_volley_in_order():
    """The anchor moves to the last of a volley."""
    level = Level()
    level.empty(Mark(1.0, 10), 10)
    level.empty_in_volley(Mark(1.2, 11), 12)
    assert level.anchor == Mark(1.2, 11)


def test_volley_out_of_order():
    """One that began before the anchor and is told of after it had not been taken after all."""
    tally, level = Tally(), Level()
    starts = [Start(n / 10, n) for n in range(13)]
    for start in starts:
        tally.started(start)
    level.empty(tally.throttled(starts[12]), 12)
    level.empty_in_volley(tally.throttled(starts[10]), 10)
    assert level.anchor == Mark(1.2, 11)
    # As if they had been told in order.
    in_order, ordered = Tally(), Level()
    for start in starts:
        in_order.started(start)
    ordered.empty(in_order.throttled(starts[10]), 10)
    ordered.empty_in_volley(in_order.throttled(starts[12]), 12)
    assert ordered.anchor == level.anchor
    assert in_order.n_taken == tally.n_taken
    assert level.measure(Mark(2.2, 21)) == (pytest.approx(10.0), pytest.approx(1.0))


@given(
    throttled=st.lists(st.integers(0, 29), min_size=1, max_size=12, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_a_volley_in_any_order(throttled: list[int], order):
    """In whatever order a volley is told, the anchor and what was taken by then are the same."""
    starts = [Start(n / 10, n) for n in range(30)]
    order.shuffle(throttled)
    tally, level = Tally(), Level()
    for start in starts:
        tally.started(start)
    for at, number in enumerate(throttled):
        mark = tally.throttled(starts[number])
        (level.empty_in_volley if at else level.empty)(mark, number)
    last = max(throttled)
    assert level.anchor == Mark(last / 10, last + 1 - len(throttled))


def test_volley_without_an_anchor():
    """A volley that was doubted set no anchor, and what follows of it sets none for the past."""
    level = Level()
    level.note(12)
    level.empty_in_volley(Mark(1.0, 9), 10)
    assert level.anchor is None
    level.empty_in_volley(Mark(1.3, 10), 13)
    assert level.anchor == Mark(1.3, 10)
