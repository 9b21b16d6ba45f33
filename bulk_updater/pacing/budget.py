"""Living with a small budget of throttled requests, where the quota cannot be known.

Where enforcement is spread over several nodes, each has a bucket of its own, and a request meets
any of them: some requests are refused long before the quota is used up, and "empty now" is true of
one node only. Then no rate is quiet, and the question is how many refusals a little more is worth.

The rate that has a given share of its requests throttled is found as Robbins and Monro find a
root ("A Stochastic Approximation Method", 1951): every throttled answer lowers it by a step, every
acceptance raises it by so much that the two cancel out at that share, and the step shrinks.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulk_updater.pacing.tally import Mark

__all__ = ["SLOWEST_PER_S", "ThrottleBudget"]

SLOWEST_PER_S: Final = 0.05
"""Requests per second that are sent however much is throttled, or nothing would be learnt."""


class ThrottleBudget:
    """The rate at which `SHARE` of the requests are throttled.

    Args:
        rate_per_s: Where it begins, in requests per second, above 0.
        began: When, and what had been taken by then.
    """

    SHARE: Final = 0.0285
    # Of what is accepted, over three nodes: 0.85 of the quota, which is as good as any fixed rate
    # can be at this share (tests/pacing).

    _FIRST_STEP: Final = 0.02
    _LAST_STEP: Final = 0.006
    _STEPS_HALVE_AFTER: Final = 300
    # So many shares without a throttled answer: whatever made them has gone.
    _QUIET_AFTER: Final = int(24 / SHARE)
    _QUIET_AFTER_S: Final = 300.0
    # In one bucket that is drawn on a little too fast, throttled answers come like clockwork.
    # Ten gaps of random ones vary by as much as their mean, and by less than this part of it three
    # times in a thousand.
    _N_GAPS: Final = 10
    _REGULAR: Final = 0.4

    def __init__(self, rate_per_s: float, began: Mark) -> None:
        self.rate_per_s = rate_per_s
        """Requests per second, above 0."""
        self._began = self._last = began
        self._throttled: deque[Mark] = deque(maxlen=self._N_GAPS + 1)

    def accepted(self, now: Mark) -> bool:
        """Raises the rate a little; returns whether there is no more need for a budget."""
        self.rate_per_s *= 1.0 + self._step(now.n_taken) * self.SHARE / (1.0 - self.SHARE)
        return (
            now.n_taken - self._last.n_taken > self._QUIET_AFTER
            or now.at_s - self._last.at_s > self._QUIET_AFTER_S
        )

    def throttled(self, mark: Mark) -> tuple[float, float] | None:
        """Lowers the rate.

        Returns:
            What was accepted per second, and the seconds that it was measured over, where that is
            the quota: the answers come so regularly that there is one bucket after all, or so
            often that no bucket was ever far from empty. Else None.
        """
        slower_per_s = self.rate_per_s * (1.0 - self._step(mark.n_taken))
        self.rate_per_s = max(SLOWEST_PER_S, slower_per_s)
        self._last = mark
        self._throttled.append(mark)
        if len(self._throttled) <= self._N_GAPS:
            return None
        marks = list(self._throttled)
        gaps = [b.n_taken - a.n_taken for a, b in pairwise(marks)]
        first, last = marks[0], marks[-1]
        span_s = last.at_s - first.at_s
        is_regular = pstdev(gaps) < self._REGULAR * fmean(gaps)
        if span_s <= 0 or not (is_regular or sum(gaps) < self._N_GAPS):
            return None
        return (last.n_taken - first.n_taken) / span_s, span_s

    def _step(self, n_taken: int) -> float:
        n_since = n_taken - self._began.n_taken
        return max(self._LAST_STEP, self._FIRST_STEP / (1.0 + n_since / self._STEPS_HALVE_AFTER))
