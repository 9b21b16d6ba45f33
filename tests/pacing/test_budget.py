"""The budget of throttled requests, against refusers of known curves and a fixed seed."""

from __future__ import annotations

import random
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from bulk_updater.pacing.budget import ThrottleBudget
from bulk_updater.pacing.tally import Mark
from tests.pacing.by_hand import Service

if TYPE_CHECKING:
    from collections.abc import Callable


class Spender:
    """Sends at the budget's rate for so many requests, and keeps what was said."""

    def __init__(self, budget: ThrottleBudget, refuses: Callable[[float, float], bool]) -> None:
        self.now_s = 0.0
        self.n_taken = self.n_throttled = 0
        self.rates: list[float] = []
        self.left_after: int | None = None
        self.measured: tuple[float, float] | None = None
        self._budget, self._refuses = budget, refuses

    def send(self, n: int, *, heedless: bool = False) -> None:
        """Sends until the budget has had enough; heedless, until n were sent."""
        for _ in range(n):
            self.now_s += 1 / self._budget.rate_per_s
            if self._refuses(self._budget.rate_per_s, self.now_s):
                self.n_throttled += 1
                self.measured = self._budget.throttled(Mark(self.now_s, self.n_taken))
            else:
                self.n_taken += 1
                if self._budget.accepted(Mark(self.now_s, self.n_taken)):
                    self.left_after = self.n_taken
            self.rates.append(self._budget.rate_per_s)
            if not heedless and (self.left_after is not None or self.measured is not None):
                return


@pytest.mark.parametrize("began_per_s", [4.0, 10.0, 20.0])
@pytest.mark.parametrize("power", [1, 4])
def test_settles_where_its_share_is_throttled(began_per_s: float, power: int):
    """Where the share refused grows with the rate, it settles where that share is `SHARE`."""
    right_per_s = 10.0 * (ThrottleBudget.SHARE / 0.1) ** (1 / power)
    n_throttled, rates = 0, []
    for seed in range(4):
        rng = random.Random(seed)

        def refuses(rate_per_s: float, _: float, rng: random.Random = rng) -> bool:
            return rng.random() < 0.1 * (rate_per_s / 10.0) ** power

        spender = Spender(ThrottleBudget(began_per_s, Mark(0.0, 0)), refuses)
        spender.send(16_000, heedless=True)
        n_before = spender.n_throttled
        spender.send(14_000, heedless=True)
        n_throttled += spender.n_throttled - n_before
        rates += spender.rates[16_000:]
    assert fmean(rates) == pytest.approx(right_per_s, rel=0.1)
    assert n_throttled / 56_000 == pytest.approx(ThrottleBudget.SHARE, rel=0.1)


@pytest.mark.parametrize("rate_per_s", [5.0, 10.0, 1000.0])
def test_leaves_when_quiet(rate_per_s: float):
    """Where nothing is throttled any more it says so, after two dozen shares' worth of requests."""
    spender = Spender(ThrottleBudget(rate_per_s, Mark(0.0, 0)), lambda *_: False)
    spender.send(2000)
    assert spender.left_after is not None
    assert 23 <= spender.left_after * ThrottleBudget.SHARE <= 25
    # It rose on the way, and not by much: an acceptance is worth little.
    assert rate_per_s < spender.rates[-1] < 1.5 * rate_per_s


@pytest.mark.parametrize("rate_per_s", [0.1, 1.0])
def test_leaves_when_quiet_for_minutes(rate_per_s: float):
    """At a low rate that would take hours: five quiet minutes are enough."""
    spender = Spender(ThrottleBudget(rate_per_s, Mark(0.0, 0)), lambda *_: False)
    spender.send(2000)
    assert 300 <= spender.now_s <= 300 + 2 / rate_per_s


def test_quiet_counts_from_the_last():
    """What is quiet counts from the last throttled answer, not from the beginning."""
    budget = ThrottleBudget(10.0, Mark(0.0, 0))
    for n in range(1, 801):
        assert not budget.accepted(Mark(n / 10, n))
    budget.throttled(Mark(80.0, 800))
    for n in range(801, 1601):
        assert not budget.accepted(Mark(n / 10, n))


def test_stays_while_it_is_random():
    """Random refusals are never quiet for long, and are seldom taken for clockwork."""
    n_judged = n_taken_in = 0
    for seed in range(400):
        rng = random.Random(seed)
        refuses = lambda *_, rng=rng: rng.random() < 0.03  # noqa: E731
        spender = Spender(ThrottleBudget(10.0, Mark(0.0, 0)), refuses)
        while spender.n_throttled <= 12 and spender.measured is None:
            spender.send(1)
        assert spender.left_after is None
        n_judged += 1
        n_taken_in += spender.measured is not None
    assert n_taken_in / n_judged <= 0.01


@pytest.mark.parametrize("quota", [1.0, 7.0, 10.0, 100.0])
def test_leaves_when_regular(quota: float):
    """One bucket drawn on a little too fast refuses like clockwork: it leaves with the quota."""
    # Two deep at least: a bucket that holds one token loses what comes in while it is full.
    service = Service(quota, max(2.0, 1.5 * quota))
    budget = ThrottleBudget(1.1 * quota, Mark(0.0, 0))
    spender = Spender(budget, lambda _, now_s: not service.takes(now_s))
    spender.send(5000)
    assert spender.measured is not None
    per_s, span_s = spender.measured
    assert abs(per_s - quota) * span_s <= 1 + 1e-6
    assert span_s > 0


def test_times_that_stand_still():
    """Refusals in one moment are no clockwork and no rate."""
    budget = ThrottleBudget(10.0, Mark(0.0, 0))
    assert [budget.throttled(Mark(1.0, 5)) for _ in range(100)] == [None] * 100
    assert [budget.throttled(Mark(1.0, n)) for n in range(100)] == [None] * 100
    assert 0 < budget.rate_per_s < 10.0


def test_each_word_moves_it_its_own_way():
    """A refusal lowers the rate by a hundredth or two; an acceptance raises it far less."""
    budget = ThrottleBudget(10.0, Mark(0.0, 0))
    for n in range(1, 400):
        before = budget.rate_per_s
        budget.accepted(Mark(n / 10, n))
        assert before < budget.rate_per_s < 1.001 * before
        if n % 40 == 0:
            before = budget.rate_per_s
            budget.throttled(Mark(n / 10, n))
            assert 0.98 * before <= budget.rate_per_s < before


def test_the_step_shrinks():
    """The first refusals move the rate more than later ones, and those still enough to follow."""
    first, later = ThrottleBudget(10.0, Mark(0.0, 0)), ThrottleBudget(10.0, Mark(0.0, 0))
    first.throttled(Mark(1.0, 1))
    later.throttled(Mark(1e4, 100_000))
    assert first.rate_per_s < later.rate_per_s < 10.0 * (1 - 0.005)
