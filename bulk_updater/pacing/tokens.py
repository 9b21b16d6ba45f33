"""A token bucket as arithmetic: the time comes in as a number, and nothing waits."""

from __future__ import annotations

from typing import Final

__all__ = ["Tokens", "depth"]

# Sums of floats: a bucket that holds this little less than a token holds one. What is lent here is
# paid back by the next refill, so it does not add up.
_TOLERANCE: Final = 1e-6

_LATE_TIMER_S: Final = 0.05
"""Seconds of the rate that are kept for timers that fire late. A loop that is busy is late by tens
of milliseconds; with a bucket that holds one token, that is a tenth of a quota of 100."""


def depth(rate_per_s: float) -> float:
    """How many tokens our own bucket holds at a rate: what late timers need, and no more.

    A deep bucket would let a run begin with a burst, at the live contact centre's expense.

    Args:
        rate_per_s: Requests per second, above 0.

    Returns:
        Tokens, at least 2.
    """
    return max(2.0, _LATE_TIMER_S * rate_per_s)


class Tokens:
    """What a token bucket holds.

    Tokens drip in continuously at `rate_per_s` up to `burst`. Between any two moments `t` seconds
    apart, no more than `burst + rate_per_s * t` can be taken.

    Args:
        rate_per_s: Tokens per second, above 0.
        burst: The most tokens that it holds; less than 1 counts as 1. It begins full.
        now_s: The time now, in seconds of a monotonic clock.
    """

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        # A bucket that never holds a whole token lets nothing through.
        self._burst = max(1.0, burst)
        self._tokens = self._burst
        self._refilled_at_s = now_s

    @property
    def rate_per_s(self) -> float:
        """Tokens per second."""
        return self._rate_per_s

    def take(self, now_s: float) -> bool:
        """Takes one token; False where there is none."""
        self._refill(now_s)
        if self._tokens < 1.0 - _TOLERANCE or self._refilled_at_s > now_s:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self) -> None:
        """Puts a token back that was taken and not used."""
        self._tokens = min(self._burst, self._tokens + 1.0)

    def ready_at_s(self, now_s: float) -> float:
        """When there is a token, in the clock's seconds; not before `now_s`."""
        self._refill(now_s)
        missing = max(0.0, 1.0 - _TOLERANCE - self._tokens)
        return max(now_s, self._refilled_at_s + missing / self._rate_per_s)

    def set_rate(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """Changes rate and burst from now on."""
        self._refill(now_s)  # what has passed, passed at the old rate
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, burst)
        self._tokens = min(self._tokens, self._burst)

    def drain(self, now_s: float, debt: float = 0.0) -> None:
        """Empties it: the tokens turned out to be worth nothing.

        Args:
            now_s: The time now, in seconds.
            debt: Tokens to be paid off before there is one again, 0 or more.
        """
        self._refill(now_s)
        self._tokens = min(self._tokens, -debt)

    def close_until(self, moment_s: float, now_s: float) -> None:
        """Lets no token be taken, and none drip in, before a moment.

        Args:
            moment_s: In the clock's seconds. One before an earlier call's changes nothing.
            now_s: The time now, in seconds.
        """
        self._refill(now_s)
        # Refilled in the future: that is what a closed bucket is.
        self._refilled_at_s = max(self._refilled_at_s, moment_s)
        self._tokens = min(self._tokens, 0.0)

    def _refill(self, now_s: float) -> None:
        passed_s = now_s - self._refilled_at_s
        if passed_s > 0:
            self._tokens = min(self._burst, self._tokens + passed_s * self._rate_per_s)
            self._refilled_at_s = now_s
