# ruff: noqa: ARG002 - what a controller is told, these do not all make use of
"""What others do, for comparison: a fixed rate, AIMD, and CUBIC with botocore's own arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.retries.adaptive import RateClocker
from botocore.retries.throttling import CubicCalculator

if TYPE_CHECKING:
    from bulk_updater.model import FoundQuota
    from bulk_updater.pacing import Start

__all__ = ["Aimd", "Cubic", "Fixed"]


class Fixed:
    """A rate that somebody named, whatever is answered."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s

    def started(self, start: Start) -> None:
        """Means nothing."""

    def accepted(self, start: Start, now_s: float) -> None:
        """Means nothing."""

    def throttled(self, start: Start, now_s: float) -> float | None:
        """Means nothing."""

    def rate_per_s(self, now_s: float) -> float:
        """The rate."""
        return self._rate_per_s

    def held(self, limit_per_s: float, now_s: float) -> None:
        pass

    def found(self) -> FoundQuota | None:
        """Nothing."""


class Aimd(Fixed):
    """Additive increase, multiplicative decrease, as TCP's.

    Up by half a request per second every second, down by three tenths, once a second.
    """

    _INCREASE_PER_S2 = 0.5
    _DECREASE = 0.7
    _DEAF_S = 1.0

    def __init__(self, rate_per_s: float) -> None:
        super().__init__(rate_per_s)
        self._deaf_until_s = float("-inf")

    def accepted(self, start: Start, now_s: float) -> None:
        """Each of a second's acceptances adds its part."""
        self._rate_per_s += self._INCREASE_PER_S2 / max(1.0, self._rate_per_s)

    def throttled(self, start: Start, now_s: float) -> float | None:
        """Less, once for a volley."""
        if now_s >= self._deaf_until_s:
            self._rate_per_s = max(0.5, self._rate_per_s * self._DECREASE)
            self._deaf_until_s = now_s + self._DEAF_S


class _Clock:
    """botocore's clock, set by hand."""

    now_s = 0.0

    def current_time(self) -> float:
        return self.now_s


class Cubic(Fixed):
    """botocore's adaptive mode: its calculator and its clocker, joined as in `adaptive.py`."""

    def __init__(self) -> None:
        super().__init__(1e6)  # not enabled before the first throttled answer
        self._clock = _Clock()
        self._calculator = CubicCalculator(starting_max_rate=0, start_time=0.0)
        self._clocker = RateClocker(self._clock)
        self._enabled = False

    def accepted(self, start: Start, now_s: float) -> None:
        """As `ClientRateLimiter.on_receiving_response`."""
        measured = self._measure(now_s)
        wanted = self._calculator.success_received(now_s)
        if self._enabled:
            self._set(wanted, measured)

    def throttled(self, start: Start, now_s: float) -> float | None:
        """As `ClientRateLimiter.on_receiving_response`."""
        measured = self._measure(now_s)
        used = min(measured, self._rate_per_s) if self._enabled else measured
        self._enabled = True
        self._set(self._calculator.error_received(used, now_s), measured)

    def _measure(self, now_s: float) -> float:
        self._clock.now_s = now_s
        return self._clocker.record()

    def _set(self, wanted: float, measured: float) -> None:
        self._rate_per_s = max(0.5, min(wanted, 2.0 * measured))
