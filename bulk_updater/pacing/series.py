"""How a run's pace went, in bounded space: a few hundred intervals, however long it lasts."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["PaceSeries"]


class PaceSeries:
    """Requests started and throttled by interval, and the rate that was allowed.

    Begins with intervals of a second. When there are `_MOST` of them, each two become one, so
    that a run of weeks has as many as one of an hour.

    Args:
        began_s: When the first interval begins, in seconds of a monotonic clock.
    """

    _MOST: Final = 720  # a point for each pixel of a chart as wide as a page, or so

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._interval_s = 1.0
        self._started: list[int] = []
        self._throttled: list[int] = []
        self._allowed_per_s: list[float] = []

    def started(self, now_s: float, allowed_per_s: float) -> None:
        """A request began.

        Args:
            now_s: When, in seconds; not before an earlier call's.
            allowed_per_s: Requests that might start per second then.
        """
        at = self._interval(now_s, allowed_per_s)
        self._started[at] += 1

    def throttled(self, now_s: float, allowed_per_s: float) -> None:
        """A request was throttled; the arguments are those of `started`."""
        at = self._interval(now_s, allowed_per_s)
        self._throttled[at] += 1

    def to_record(self) -> dict[str, Any]:
        """Lists of equal length, one figure an interval, and the interval's seconds."""
        return {
            "interval_s": self._interval_s,
            "started": list(self._started),
            "throttled": list(self._throttled),
            "allowed_per_s": [round(rate, 3) for rate in self._allowed_per_s],
        }

    def _interval(self, now_s: float, allowed_per_s: float) -> int:
        at = int((now_s - self._began_s) / self._interval_s)
        while at >= self._MOST:
            self._halve()
            at = int((now_s - self._began_s) / self._interval_s)
        while len(self._started) <= at:
            # In a silence nothing is heard, so the rate stays as it was.
            self._allowed_per_s.append(self._allowed_per_s[-1] if self._started else allowed_per_s)
            self._started.append(0)
            self._throttled.append(0)
        self._allowed_per_s[at] = allowed_per_s
        return at

    def _halve(self) -> None:
        self._interval_s *= 2.0
        self._started = _in_pairs(self._started)
        self._throttled = _in_pairs(self._throttled)
        # The last of two, as within an interval.
        self._allowed_per_s = self._allowed_per_s[1::2] + (
            self._allowed_per_s[-1:] if len(self._allowed_per_s) % 2 else []
        )


def _in_pairs(counts: list[int]) -> list[int]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
