"""The bucket's arithmetic: time is an argument, so every count is exact."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing import Tokens
from bulk_updater.pacing.tokens import depth


def taken_at_s(tokens: Tokens, n: int, now_s: float) -> list[float]:
    """When each of the next n tokens can be taken, each taken as soon as it is there."""
    at_s: list[float] = []
    while len(at_s) < n:
        now_s = tokens.ready_at_s(now_s)
        if tokens.take(now_s):
            at_s.append(now_s)
        else:
            now_s = math.nextafter(now_s, math.inf)
    return at_s


@pytest.mark.parametrize("rate_per_s", [0.05, 1.0, 7.3, 10.0, 1000.0])
def test_burst_then_rate(rate_per_s: float):
    """A full bucket gives its burst at once and then one token every 1/rate seconds."""
    at_s = taken_at_s(Tokens(rate_per_s, 12.0, 100.0), 112, 100.0)
    assert at_s[:12] == [100.0] * 12
    assert at_s[12:] == pytest.approx([100 + n / rate_per_s for n in range(1, 101)], abs=1e-4)


def test_depth():
    """Our own bucket holds what comes in while a timer is late, and at least two tokens."""
    assert [depth(rate) for rate in (0.05, 1.0, 10.0, 40.0)] == [2.0] * 4
    assert [depth(rate) for rate in (100.0, 1000.0)] == [5.0, 50.0]


@pytest.mark.parametrize("rate_per_s", [2.0, 10.0, 30.0, 100.0, 1000.0])
def test_late_takes_lose_nothing(rate_per_s: float):
    """Who comes late every time, by the tokens that the bucket still has room for, loses none."""
    late_s = (depth(rate_per_s) - 1) / rate_per_s
    assert late_s >= 0.03
    tokens = Tokens(rate_per_s, depth(rate_per_s), 0.0)
    while tokens.take(0.0):
        pass
    n_taken, now_s = 0, 0.0
    while now_s < 100.0:
        now_s = tokens.ready_at_s(now_s) + late_s
        while tokens.take(now_s):
            n_taken += 1
    assert n_taken == pytest.approx(rate_per_s * now_s, abs=1.001)


def test_later_than_the_depth():
    """However late somebody comes, the bucket holds its burst and no more."""
    tokens = Tokens(10.0, 3.0, 0.0)
    taken_at_s(tokens, 3, 0.0)
    assert [tokens.take(1000.0) for _ in range(5)] == [True, True, True, False, False]
    assert taken_at_s(tokens, 2, 1000.0) == pytest.approx([1000.1, 1000.2])


def test_a_burst_below_one():
    """A bucket that could never hold a whole token holds one."""
    tokens = Tokens(10.0, 0.2, 0.0)
    assert taken_at_s(tokens, 3, 0.0) == pytest.approx([0.0, 0.1, 0.2], abs=1e-5)
    tokens.set_rate(5.0, 0.0, 0.2)
    assert taken_at_s(tokens, 2, 0.2) == pytest.approx([0.4, 0.6], abs=1e-5)


def test_drained():
    """A drained bucket begins from nothing, whatever it held."""
    tokens = Tokens(10.0, 5.0, 0.0)
    tokens.drain(0.0)
    assert taken_at_s(tokens, 2, 0.0) == pytest.approx([0.1, 0.2], abs=1e-5)


def test_drained_with_debt():
    """A debt is paid off before there is a token; a smaller debt does not forgive a larger one."""
    tokens = Tokens(10.0, 5.0, 0.0)
    tokens.drain(0.0, 4.0)
    tokens.drain(0.0, 1.0)
    tokens.drain(0.0)
    assert not tokens.take(0.49)
    assert taken_at_s(tokens, 3, 0.49) == pytest.approx([0.5, 0.6, 0.7], abs=1e-5)


def test_given_back():
    """A token that was not used is there again, and a full bucket does not overflow for it."""
    tokens = Tokens(10.0, 2.0, 0.0)
    assert (tokens.take(0.0), tokens.take(0.0), tokens.take(0.0)) == (True, True, False)
    tokens.give_back()
    assert (tokens.take(0.0), tokens.take(0.0)) == (True, False)
    for _ in range(5):
        tokens.give_back()
    assert [tokens.take(0.0) for _ in range(3)] == [True, True, False]


def test_closed():
    """A closed bucket gives nothing, nothing drips in, and it opens empty."""
    tokens = Tokens(10.0, 5.0, 0.0)
    tokens.close_until(30.0, 0.0)
    tokens.close_until(20.0, 0.0)  # takes nothing back
    assert not tokens.take(29.999)
    assert taken_at_s(tokens, 3, 0.0) == pytest.approx([30.1, 30.2, 30.3])


def test_closed_with_debt():
    """What was owed when the bucket was closed is paid off after it opened."""
    tokens = Tokens(10.0, 5.0, 0.0)
    tokens.drain(0.0, 2.0)
    tokens.close_until(30.0, 0.0)
    assert taken_at_s(tokens, 1, 0.0) == pytest.approx([30.3])


def test_given_back_to_a_closed_bucket():
    """A token that comes back while the bucket is closed is not given out before it opens."""
    tokens = Tokens(10.0, 5.0, 0.0)
    tokens.take(0.0)
    tokens.close_until(30.0, 0.0)
    tokens.give_back()
    assert not tokens.take(29.999)
    assert taken_at_s(tokens, 2, 0.0) == pytest.approx([30.0, 30.1])


def test_closed_in_the_past():
    """A moment that has passed closes nothing; only what was saved is gone."""
    tokens = Tokens(10.0, 5.0, 0.0)
    tokens.close_until(5.0, 10.0)
    assert taken_at_s(tokens, 1, 10.0) == pytest.approx([10.1])


def test_new_rate():
    """A new rate holds from now on; what has dripped in stays."""
    tokens = Tokens(1.0, 1.0, 0.0)
    tokens.take(0.0)
    tokens.set_rate(10.0, 1.0, 0.5)  # half a token is there; the other half takes 50 ms now
    assert taken_at_s(tokens, 2, 0.5) == pytest.approx([0.55, 0.65], abs=1e-5)
    tokens.set_rate(0.1, 1.0, 0.7)  # half a token, and five seconds for the rest
    assert taken_at_s(tokens, 2, 0.7) == pytest.approx([5.7, 15.7], abs=1e-4)
    assert tokens.rate_per_s == 0.1


def test_new_rate_while_closed():
    """A new rate does not open a closed bucket."""
    tokens = Tokens(10.0, 2.0, 0.0)
    tokens.close_until(30.0, 0.0)
    tokens.set_rate(1000.0, 50.0, 1.0)
    assert taken_at_s(tokens, 1, 1.0) == pytest.approx([30.001])


def test_new_burst():
    """A bucket that becomes shallower keeps what fits; one that becomes deeper gets no present."""
    tokens = Tokens(10.0, 50.0, 0.0)
    tokens.set_rate(10.0, 3.0, 0.0)
    tokens.set_rate(10.0, 50.0, 0.0)
    assert [tokens.take(0.0) for _ in range(4)] == [True, True, True, False]


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "drain", "close", "rate", "give back"]),
        st.floats(0, 3) | st.just(0.0),  # after so many seconds
        st.floats(0, 3),  # how much
    ),
    max_size=80,
)


def do(tokens: Tokens, deed: str, much: float, now_s: float) -> bool:
    if deed == "drain":
        tokens.drain(now_s, much)
    elif deed == "close":
        tokens.close_until(now_s + much - 1.0, now_s)
    elif deed == "rate":
        tokens.set_rate(0.05 + 20 * much, 1 + 3 * much, now_s)
    elif deed == "take":
        return tokens.take(now_s)
    return False


@settings(max_examples=100, deadline=None)
@given(deeds=DEEDS, rate_per_s=st.floats(0.05, 500), burst=st.floats(0, 20))
def test_ready_when_it_says(deeds: list[tuple[str, float, float]], rate_per_s: float, burst: float):
    """Whatever was done to it: no token before `ready_at_s`, and one within a microsecond of it."""
    now_s = 1000.0
    tokens = Tokens(rate_per_s, burst, now_s)
    for deed, passed_s, much in deeds:
        now_s += passed_s
        do(tokens, deed, much, now_s)
        ready_at_s = tokens.ready_at_s(now_s)
        assert ready_at_s >= now_s
        assert tokens.ready_at_s(now_s) == ready_at_s  # asking changes nothing
        if ready_at_s > now_s:
            assert not tokens.take(now_s)
            before_s = (now_s + ready_at_s) / 2
            if before_s < ready_at_s - 1e-6:
                now_s = before_s
                assert not tokens.take(now_s)
    assert tokens.take(tokens.ready_at_s(now_s) + 1e-6)


@settings(max_examples=100, deadline=None)
@given(deeds=DEEDS, rate_per_s=st.floats(0.05, 500), burst=st.floats(1, 20))
def test_never_overdrawn(deeds: list[tuple[str, float, float]], rate_per_s: float, burst: float):
    """However it is drained and closed, no window of time sees more than burst + rate * t takes."""
    now_s, at_s = 0.0, []
    tokens = Tokens(rate_per_s, burst, now_s)
    for deed, passed_s, much in deeds:
        now_s += passed_s
        if deed == "take":
            while len(at_s) < 400 and tokens.take(now_s):
                at_s.append(now_s)
        elif deed in {"drain", "close"}:
            do(tokens, deed, much, now_s)
    for first in range(0, len(at_s), 1 + len(at_s) // 60):
        for last in range(first, len(at_s)):
            assert last - first + 1 <= burst + rate_per_s * (at_s[last] - at_s[first]) + 1e-4


@settings(max_examples=40, deadline=None)
@given(
    rates_per_s=st.lists(st.floats(0.05, 500), min_size=1, max_size=20),
    spans_s=st.lists(st.floats(0.01, 5), min_size=20, max_size=20),
)
def test_never_overdrawn_at_changing_rates(rates_per_s: list[float], spans_s: list[float]):
    """However the rate moves, all that is ever taken is the first depth and what dripped in."""
    now_s, n_taken, dripped = 0.0, 0, 0.0
    tokens = Tokens(rates_per_s[0], depth(rates_per_s[0]), now_s)
    for rate_per_s, span_s in zip(rates_per_s, spans_s, strict=False):
        tokens.set_rate(rate_per_s, depth(rate_per_s), now_s)
        dripped += rate_per_s * span_s
        until_s = now_s + span_s
        while tokens.ready_at_s(now_s) <= until_s:
            now_s = max(math.nextafter(now_s, math.inf), tokens.ready_at_s(now_s))
            n_taken += tokens.take(now_s)
        now_s = until_s
        assert n_taken <= depth(rates_per_s[0]) + dripped + 1e-3
    assert n_taken >= dripped - 2 - 1e-3 * len(rates_per_s)


def test_spacing_never_shrinks():
    """After the burst no two tokens are closer together than the rate says."""
    at_s = taken_at_s(Tokens(8.0, 2.0, 0.0), 1000, 0.0)
    assert min(b - a for a, b in pairwise(at_s[2:])) == pytest.approx(1 / 8)
