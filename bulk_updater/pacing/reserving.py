"""Finding the quota beside a live contact centre, which is not to notice.

To find out how much there is, somebody has to come to an empty bucket, and for that moment live
requests are refused, too. So here it is done at the start, for as short as can be, and then the
reserve stays untouched for `_PROBE_GAP_S`: the run takes its share of what was found, and gives
way below that (`yielding.Courtesy`).

A bucket that is drawn on with a reserve is full nearly always. So unlike an exclusive run's, its
probes begin with a burst to be used up, and are larger and shorter; what they take is no measure of
the quota but where nothing is throttled at all, and then there is more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from bulk_updater.model import FoundQuota
from bulk_updater.pacing.doubt import Doubt
from bulk_updater.pacing.seeking import Phase, SeekingController
from bulk_updater.pacing.tally import Level
from bulk_updater.pacing.yielding import Courtesy

if TYPE_CHECKING:
    from bulk_updater.pacing.controller import Start
    from bulk_updater.pacing.tally import Mark

__all__ = ["ReservingController"]


class ReservingController(SeekingController):
    """Finds the quota, takes a share of it, and gives way to others below that.

    Args:
        quota_per_s: What is believed of the quota, in requests per second, above 0.
        now_s: The time now, in seconds of a monotonic clock.
        share: The part of the quota to take, above 0 and up to 1.
        ceiling_per_s: The most requests per second, above 0, whatever the quota is.
        is_sure: Whether somebody knows the quota, and it is not just the documented one.
    """

    # Figures found by simulation (tests/pacing).
    _PROBE_GAP_S: Final = 600.0
    _PROBE_GAP_AFTER_FALL_S: Final = 30.0
    _FIRST_PROBE_GAP_S: Final = 60.0  # where somebody knows the quota
    _PROBE: Final = 0.25
    # Measured over so many seconds, a quota of 10 is known to 5 %: enough to take a share of it.
    _SETTLED_AFTER_S: Final = 6.0

    def __init__(
        self,
        quota_per_s: float,
        now_s: float,
        *,
        share: float,
        ceiling_per_s: float = math.inf,
        is_sure: bool = False,
    ) -> None:
        self._share = share
        self._courtesy = Courtesy(now_s)
        self._is_settled = False
        super().__init__(quota_per_s, now_s, ceiling_per_s=ceiling_per_s, is_sure=is_sure)

    def accepted(self, start: Start, now_s: float) -> None:
        """Moves on in the phase that it is in, and comes back from giving way."""
        if self._reserves():
            self._courtesy.accepted(now_s)
        super().accepted(start, now_s)

    def found(self) -> FoundQuota | None:
        """The quota, once it was measured well enough to take a share of it."""
        if not self._is_settled or self._quota.is_hearsay:
            return None
        return FoundQuota(rate_per_s=self._quota.per_s, burst=self._burst())

    def _trust(self, now: Mark) -> None:
        """Begins with a quota that somebody knows: at its share of it."""
        self._quota.suppose(self._quota.per_s, self._SETTLED_AFTER_S)
        self._enter(Phase.HOLD, now)
        self._probe_gap_s = self._FIRST_PROBE_GAP_S

    def _reserves(self) -> bool:
        return self._is_settled and self._phase is Phase.HOLD

    def _aim_per_s(self) -> float:
        if self._reserves():
            share = min(self._share, 1.0 - self._doubt.margin)
            return self._quota.per_s * share * self._courtesy.share
        return super()._aim_per_s()

    def _enter(self, phase: Phase, now: Mark) -> None:
        super()._enter(phase, now)
        if phase is Phase.HOLD:
            self._is_settled = False
            if self._quota.known_s >= self._SETTLED_AFTER_S:
                self._settle()
        elif phase is Phase.CLIMB:
            self._is_settled = False

    def _settle(self) -> None:
        if not self._is_settled:
            self._is_settled = True
            known_s = max(self._quota.known_s, self._SETTLED_AFTER_S)
            self._quota.suppose(self._quota.per_s, known_s)
            self._probe_gap_s = self._PROBE_GAP_S

    def _probe_excess(self) -> float:
        return self._PROBE if self._is_settled else super()._probe_excess()

    def _doubt_it(self, mark: Mark, number: int, now: Mark) -> float | None:
        """A refusal while holding: somebody else drinks, and is in need of it."""
        self._settle()  # what was found until now has to do
        self._courtesy.throttled(now.at_s)
        since = self._doubt.since
        if not self._doubt.feed() or since is None:
            since = self._doubt.since = mark
        self._level.empty(mark, number)
        took_s = mark.at_s - since.at_s
        if self._doubt.amount >= Doubt.ENOUGH and took_s > self._round_trip_s / 2:
            self._follow_down(mark.n_taken - since.n_taken, took_s, now)
            self._doubt.resolve(mark)
        return 0.0

    def _follow_down(self, n_taken: int, took_s: float, now: Mark) -> None:
        """Takes its share of what is left, where that is far less than it was."""
        left_per_s = max(n_taken / took_s, self._quota.floor_per_s(n_taken, now))
        if left_per_s < self._FAR * self._share * self._quota.per_s:
            self._quota.suppose(left_per_s, max(took_s, self._SETTLED_AFTER_S))
            self._probe_gap_s = self._PROBE_GAP_AFTER_FALL_S
            self._since = now
            self._courtesy = Courtesy(now.at_s)

    def _end_probe(self, mark: Mark) -> None:
        """Where the bucket should not have been empty yet, the quota is less than believed."""
        too_early = self._level.tokens(mark, self._quota.per_s) > 2.0 + self._scatter()
        measured, took_s = self._level.measure(mark), mark.at_s - self._since.at_s
        super()._end_probe(mark)
        if too_early and took_s > 0 and measured is not None:
            estimate_per_s = (mark.n_taken - self._since.n_taken) / (took_s + Level.BURST_S)
            estimate_per_s = max(estimate_per_s, measured[0])  # it was let have that much
            self._quota.suppose(min(self._quota.per_s, estimate_per_s), self._quota.known_s)
