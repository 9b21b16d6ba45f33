"""Giving way to the live contact centre, at once and further than our share of the blame.

The service refuses whoever comes to an empty bucket, so of the refusals the live contact centre
hears about as large a part as it has of the traffic. A throttled answer below our own ceiling
means that others are drinking what we took for ours, and that some of their calls were refused,
too. So the answer is not the small step back that would just do:

- the rate is halved, which fills the bucket again within seconds, and comes back within half a
  minute, for the others' traffic comes in bursts;
- it comes back to a little under where it was throttled, not to the ceiling. Next to 2 live
  requests a second and a run at 8 of a quota of 10, the bucket's level wanders without a drift, and
  reaches zero again and again; a little less, and it hardly ever does. That memory fades within
  an hour.

In the simulation of `tests/pacing`, against fixed 8 a second, this takes the share of refused
live requests from 3 % to under 0.5 %, and costs 5 % of the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulk_updater.model import FoundQuota
    from bulk_updater.pacing.controller import Start

__all__ = ["Courtesy", "YieldingController"]


class Courtesy:
    """The part of a rate that is left when others have been given way to.

    Raised by acceptances only: a run that stands still learns nothing. One acceptance makes up
    for a second at the most, so that the first after a pause does not bring it all back.

    Args:
        now_s: The time now, in seconds of a monotonic clock.
    """

    # Figures found by simulation (tests/pacing), but for the two that say from where.
    _DECREASE: Final = 0.5
    _RETURN_S: Final = 30.0
    _BACK_OFF: Final = 0.92
    _IS_BACK: Final = 0.9
    _STEP_BACK: Final = 0.85
    _LET_IN: Final = 3  # requests since the last refusal
    _FADE_S: Final = 3600.0
    # Longer than a request takes: Connect answers in about 0.2 s, slow answers in less than 1 s.
    # Answers to requests that had started at the old rate say nothing new.
    _DEAF_S: Final = 1.0
    # Below it nothing would be learnt for minutes.
    _FLOOR: Final = 0.05
    _LONGEST_STEP_S: Final = 1.0

    def __init__(self, now_s: float) -> None:
        self.share = 1.0
        """Above 0 and up to 1."""
        self._comfort = 1.0
        self._n_accepted = 0
        self._raised_at_s = now_s
        self._deaf_until_s = float("-inf")

    def accepted(self, now_s: float) -> None:
        """Raises the share by what one acceptance is worth."""
        self._n_accepted += 1
        if self.share < 1.0 or self._comfort < 1.0:
            step_s = min(now_s - self._raised_at_s, self._LONGEST_STEP_S)
            self._comfort = min(1.0, self._comfort + step_s / self._FADE_S)
            self.share = min(self._comfort, self.share + step_s / self._RETURN_S)
        self._raised_at_s = now_s

    def throttled(self, now_s: float) -> bool:
        """Lowers the share, once for a volley; False where the answer is no news."""
        if now_s < self._deaf_until_s:
            return False
        # Where it was let in and then refused is more than others leave. On the way back that is
        # told less surely; and where it was not let in at all, as in an outage, not at all.
        if self._n_accepted >= self._LET_IN:
            proven = self.share
            if proven < self._IS_BACK * self._comfort:
                proven = max(proven, self._STEP_BACK * self._comfort)
            self._comfort = max(self._FLOOR, proven * self._BACK_OFF)
        self._n_accepted = 0
        self.share = max(self._FLOOR, self.share * self._DECREASE)
        self._raised_at_s = now_s
        self._deaf_until_s = now_s + self._DEAF_S
        return True


class YieldingController:
    """Holds a rate that is given, and gives way to others below it.

    Args:
        ceiling_per_s: The most requests per second, above 0; where it begins.
        now_s: The time now, in seconds of a monotonic clock.
    """

    def __init__(self, ceiling_per_s: float, now_s: float) -> None:
        self._ceiling_per_s = ceiling_per_s
        self._courtesy = Courtesy(now_s)

    def started(self, start: Start) -> None:
        """Means nothing here."""

    def accepted(self, start: Start, now_s: float) -> None:  # noqa: ARG002 - the time is enough
        """Comes back a little."""
        self._courtesy.accepted(now_s)

    def throttled(self, start: Start, now_s: float) -> float | None:  # noqa: ARG002
        """Gives way."""
        return 0.0 if self._courtesy.throttled(now_s) else None

    def held(self, limit_per_s: float, now_s: float) -> None:
        """Means nothing here."""

    def rate_per_s(self, now_s: float) -> float:  # noqa: ARG002 - it moves by answers alone
        """Requests that may start per second."""
        return self._ceiling_per_s * self._courtesy.share

    def found(self) -> FoundQuota | None:
        """Nothing: it never asks for more than it was given."""
        return None
