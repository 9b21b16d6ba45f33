"""Finding the quota, holding it, and following it.

What there is to hear. The service refuses at once, so latency carries no signal; only a throttled
answer does. At the default quota less than one request is in flight, so a bound on concurrency
controls nothing; the rate has to be set. The saw-tooth of TCP, and of the SDK's adaptive mode,
treats each refusal as a surprise and learns nothing from it. But it says something exact.

**A throttled answer says: the bucket is empty now.** What a token bucket hands out between two
moments at which it is empty is what dripped in, if it did not overflow in between. So the requests
accepted between two refusals, over the time between them, *are* the quota, to within one request:
two refusals half a minute apart know a quota of 10 to a third of a percent. Whether it can have
overflowed is arithmetic, too (`tally.Level`). And what was accepted per second since a refusal is
a lower bound of the quota in any case, burst or no burst: the bucket began empty.

From this the phases follow:

    HOLD     a third of a percent under the quota that is known. Nothing is throttled; the bucket
             fills slowly
    PROBE    a little above it, from time to time. Either it ends in a refusal, which measures the
             quota again, over a longer time than before, and costs that one refusal; or more is
             taken than the quota that is known allows, and so it must be larger:
    CLIMB    faster and faster, each step long enough to outlive a burst, until a refusal. The last
             steps, less a burst, are a first estimate
    BUDGET   where the evidence contradicts itself (see below)

Probes come the more rarely the more is known: after 2 seconds, 4, 8 ... until they cost a tenth of
a percent of the requests. Between them the average is the quota itself, for what HOLD leaves in the
bucket PROBE takes out.

**A refusal while holding is a surprise.** It may mean nothing (a stray one), that someone else
drinks, or that the quota fell. One alone is doubted, and lowers the rate by next to nothing. Doubt
that is fed by further ones moves it: each lowers the quota a little, which with several
clients on one bucket makes their shares converge (additive gains, multiplicative losses), and
widens the margin, for traffic at random needs room. With the third the quota is measured between
the first and the last of them. If it fell far, the rate goes further down than that, for while
both are refused each seems to have a larger part than it will.

**Where even that does not make it quiet**, the evidence contradicts itself: enforcement is spread
over several nodes, or the refusals have another reason than an empty bucket. Then the quota cannot
be known, and the rate is kept at which a small share is refused (`budget.ThrottleBudget`), until
refusals stop, or come so regularly that it is one bucket after all.

**Overshoot.** Requests in flight when the first refusal is heard meet the same empty bucket; they
are one volley and one piece of news. What they have overdrawn is not sent for, so that the bucket
is not met empty again: that is the debt that `throttled` returns.

All figures without another source were found by the simulation of `tests/pacing`, whose table of
scenarios and bounds they meet together.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Final

from bulk_updater.model import FoundQuota
from bulk_updater.pacing.belief import Belief
from bulk_updater.pacing.budget import SLOWEST_PER_S, ThrottleBudget
from bulk_updater.pacing.doubt import Doubt
from bulk_updater.pacing.tally import Level, Mark, Tally

if TYPE_CHECKING:
    from bulk_updater.pacing.controller import Start

__all__ = ["Phase", "SeekingController"]


class Phase(Enum):
    """What a seeking controller is doing."""

    CLIMB = "climb"
    HOLD = "hold"
    PROBE = "probe"
    BUDGET = "budget"


class SeekingController:
    """Finds the quota, upward or downward, and holds just under it.

    Args:
        quota_per_s: What is believed of the quota, in requests per second, above 0.
        now_s: The time now, in seconds of a monotonic clock.
        ceiling_per_s: The most requests per second, above 0, whatever the quota is.
        is_sure: Whether somebody knows the quota, and it is not just the documented one: then it
            is tried, not searched for.
    """

    # Long enough to outlive the documented burst at twice the rate.
    _CLIMB_STEP_S: Final = Level.BURST_S
    _CLIMB_FACTOR: Final = 2.0
    _LOWEST_ESTIMATE: Final = 0.25  # of the rate that a climb had reached
    _SMALLEST_PROBE: Final = 0.04
    _SMALLEST_PROBE_PER_S: Final = 0.4  # or at 2 a second a probe would take minutes
    _LARGEST_PROBE: Final = 0.5
    _FIRST_PROBE: Final = 0.25  # where somebody knows the quota
    _LOSS: Final = 0.02
    _LEAST_LOSS: Final = 0.05  # of that, for a surprise that stands alone
    _FAR: Final = 0.92
    _FURTHER: Final = 0.4
    _LONGEST_BUDGET_S: Final = 3600.0
    _LONGEST_ROUND_TRIP_S: Final = 5.0  # one that hangs says nothing about the others

    def __init__(
        self,
        quota_per_s: float,
        now_s: float,
        *,
        ceiling_per_s: float = math.inf,
        is_sure: bool = False,
    ) -> None:
        self._ceiling_per_s = ceiling_per_s
        self._limit_per_s = math.inf
        self._tally = Tally()
        self._level = Level()
        self._quota = Belief(quota_per_s, now_s)
        self._doubt = Doubt(now_s)
        # Where it stands.
        self._phase = Phase.CLIMB
        self._since = Mark(now_s, 0)
        self._probe_gap_s = 2.0
        self._excess = 1.0  # of PROBE and CLIMB, over the quota that is believed
        self._steps = [self._since]
        self._climbed_from_per_s = 0.0
        self._first_overflow: tuple[int, float] | None = None
        self._budget: ThrottleBudget | None = None
        # What is on its way.
        self._round_trip_s = 0.1
        self._deaf_until_s = -math.inf
        self._volley_met = Phase.CLIMB
        if is_sure:
            self._trust(self._since)

    # ------------------------------------------------------------------------------------------
    # The seam

    def started(self, start: Start) -> None:
        """Counts it."""
        self._tally.started(start)

    def accepted(self, start: Start, now_s: float) -> None:
        """Moves on in the phase that it is in."""
        self._time(start, now_s)
        now = Mark(now_s, self._tally.n_taken)
        tokens = self._level.tokens(now, self._quota.per_s)
        if self._phase is Phase.HOLD:
            self._hold_on(now)
        elif self._phase is Phase.PROBE:
            # More was taken than the quota that is known could give, late and early answers
            # allowed for: there is more.
            if tokens < -(2.0 + self._scatter() + self._in_flight() / 2):
                began = [self._since] if self._level.is_assumed else []
                self._climb_on(now, self._quota.per_s, began)
        elif self._phase is Phase.CLIMB:
            self._step_up_if_outlived(now)
        elif self._budget is not None:
            overdue = now_s - self._since.at_s > self._LONGEST_BUDGET_S
            if self._budget.accepted(now) or overdue:
                self._leave_budget(now, self._budget.rate_per_s, known_s=0.0)
        self._doubt.heard(now_s)

    def throttled(self, start: Start, now_s: float) -> float | None:
        """Learns from it, once for a volley."""
        self._time(start, now_s)
        mark = self._tally.throttled(start)
        if start.at_s < self._deaf_until_s:
            if self._volley_met is Phase.HOLD and self._phase is Phase.HOLD:
                self._doubt.amount += 1.0
            self._level.empty_in_volley(mark, start.number)
            return None
        self._deaf_until_s = now_s
        self._volley_met = self._phase
        now = Mark(now_s, self._tally.n_taken)
        if self._phase is Phase.HOLD:
            return self._doubt_it(mark, start.number, now)
        if self._phase is Phase.BUDGET:
            self._spend(mark, start.number, now)
            return None
        if self._phase is Phase.CLIMB:
            self._end_climb(mark)
        else:
            self._end_probe(mark)
        return self._hold_after(mark, start.number, now)

    def held(self, limit_per_s: float, now_s: float) -> None:
        """Breaks off what it is trying out, where that takes more than is allowed."""
        self._limit_per_s = limit_per_s
        if limit_per_s >= self.rate_per_s(now_s):
            return
        now = Mark(now_s, self._tally.n_taken)
        # Or an hour at the limit would look like an hour in which there was no more.
        self._steps = [now]
        if self._phase is Phase.PROBE:
            self._enter(Phase.HOLD, now)
        elif self._phase is Phase.CLIMB:
            self._since = now

    def rate_per_s(self, now_s: float) -> float:  # noqa: ARG002 - it moves by answers alone
        """Requests that may start per second."""
        return min(self._ceiling_per_s, max(SLOWEST_PER_S, self._aim_per_s()))

    def found(self) -> FoundQuota | None:
        """The quota, once it was measured over half a minute."""
        if self._phase is Phase.BUDGET or not self._quota.is_certain:
            return None
        return FoundQuota(rate_per_s=self._quota.per_s, burst=self._level.burst)

    # ------------------------------------------------------------------------------------------
    # The phases

    def _trust(self, now: Mark) -> None:
        """Begins with a quota that somebody knows: what is in the bucket is used up, to see."""
        self._quota.suppose(self._quota.per_s, Belief.CERTAIN_AFTER_S)
        self._probe_gap_s = self._quota.probe_gap_s(now)
        self._level.assume(now, self._quota.per_s * Level.BURST_S)
        self._excess = self._FIRST_PROBE
        self._enter(Phase.PROBE, now)

    def _aim_per_s(self) -> float:
        if self._phase is Phase.HOLD:
            return self._quota.per_s * (1.0 - self._doubt.margin)
        if self._budget is not None:
            return self._budget.rate_per_s
        return self._quota.per_s * (1.0 + self._excess)

    def _has_room(self) -> bool:
        """Whether more than now would be allowed to start."""
        return self._aim_per_s() < min(self._ceiling_per_s, self._limit_per_s)

    def _enter(self, phase: Phase, now: Mark) -> None:
        self._phase = phase
        self._since = now

    def _hold_on(self, now: Mark) -> None:
        """Doubt fades, the margin narrows, and when it is time a probe begins."""
        self._doubt.fade(now.at_s, self._quota.per_s)
        # Nobody asks for more while it is in doubt whether there is less.
        is_time = now.at_s - self._since.at_s >= self._probe_gap_s and self._doubt.amount < 1.0
        if is_time and self._has_room():
            self._excess = self._probe_excess()
            self._enter(Phase.PROBE, now)

    def _probe_excess(self) -> float:
        """How far a probe goes beyond the quota that is known: the less is known, the further."""
        by_ignorance = 1.0 / (self._quota.known_s + 2.0)
        least = max(self._SMALLEST_PROBE, self._SMALLEST_PROBE_PER_S / self._quota.per_s)
        return min(self._LARGEST_PROBE, max(least, by_ignorance))

    def _climb_on(self, now: Mark, from_per_s: float | None, steps: list[Mark]) -> None:
        if from_per_s is not None:
            self._climbed_from_per_s = from_per_s
        self._quota.suppose(self._quota.per_s * (1.0 + self._excess), self._quota.known_s)
        self._excess = min(1.0, self._CLIMB_FACTOR * self._excess)
        self._steps = [*steps, now]
        self._enter(Phase.CLIMB, now)

    def _step_up_if_outlived(self, now: Mark) -> None:
        """Climbs on once this step's rate was made use of, for longer than a burst lasts."""
        took_s = now.at_s - self._since.at_s
        n_due = took_s * self._aim_per_s()
        was_used = now.n_taken - self._since.n_taken >= 0.8 * n_due - 2.0
        has_outlived = took_s >= self._CLIMB_STEP_S + self._round_trip_s
        if not has_outlived or not self._has_room():
            return
        if was_used:
            self._climb_on(now, None, self._steps)
        else:
            # Something else was slower, and may have been for an hour. The step begins anew, or
            # that hour's average would have to be made up for first.
            self._since = now

    def _end_climb(self, mark: Mark) -> None:
        """The first estimate: what the last steps took, less the burst that they began with."""
        reached_per_s = self._aim_per_s()
        # Steps slower than the quota lower the estimate, as do too few of the faster ones, which
        # are charged for all of the burst: the largest is right.
        taken = [
            (mark.n_taken - step.n_taken, mark.at_s - step.at_s)
            for step in self._steps
            if step.at_s <= mark.at_s
        ]
        estimate_per_s, overflow = max(
            ((n_taken / (took_s + Level.BURST_S), (n_taken, took_s)) for n_taken, took_s in taken),
            default=(0.0, None),
        )
        if self._first_overflow is None:
            self._first_overflow = overflow  # the bucket was full when the run began
        if overflow is None or overflow[0] < Belief.FEW:
            # Others had emptied the bucket before: that says little.
            estimate_per_s = max(self._LOWEST_ESTIMATE * reached_per_s, estimate_per_s)
        estimate_per_s = max(self._climbed_from_per_s, min(estimate_per_s, reached_per_s))
        self._quota.suppose(estimate_per_s, known_s=0.0)
        self._probe_gap_s = 2.0
        measured = None if self._level.is_assumed else self._level.measure(mark)
        if measured is not None and measured[0] >= self._quota.per_s:
            self._quota.learn(*measured, tolerance=0.0)
            self._probe_gap_s = 4.0

    def _end_probe(self, mark: Mark) -> None:
        """Measures the quota again."""
        tokens = self._level.tokens(mark, self._quota.per_s)
        if self._level.is_assumed:
            # The first refusal of all. Where the bucket should not have been empty yet, the quota
            # is not what we were told, or the burst is not.
            if tokens > 2.0 + self._scatter():
                self._end_climb(mark)
            else:
                self._first_overflow = mark.n_taken, mark.at_s - self._since.at_s
            return
        if tokens > 0.5:  # noqa: PLR2004 - half a request
            self._doubt.surprise()
        measured = self._level.measure(mark)
        if measured is not None:
            taken_per_s, span_s = measured
            if taken_per_s > self._quota.per_s or not self._level.overflowed:
                self._learn(taken_per_s, span_s)
        self._probe_gap_s = min(2.0 * self._probe_gap_s, self._quota.probe_gap_s(mark))

    def _hold_after(self, mark: Mark, number: int, now: Mark) -> float:
        """Holds after a refusal that was asked for; returns what was overdrawn."""
        overdrawn = self._scatter() + self._in_flight() * self._excess
        self._level.empty(mark, number)
        self._doubt.resolve()
        self._enter(Phase.HOLD, now)
        return overdrawn

    def _doubt_it(self, mark: Mark, number: int, now: Mark) -> float | None:
        """A refusal while holding."""
        self._level.note(number)
        self._doubt.surprise()
        if self._doubt.is_noisy(mark.at_s, self._quota.per_s):
            self._budget = ThrottleBudget(self._quota.per_s, mark)
            self._doubt.explain()
            self._enter(Phase.BUDGET, now)
            return None
        fed = self._doubt.feed()
        self._quota.lower(self._LOSS * max(self._LEAST_LOSS, min(1.0, self._doubt.amount - 1.0)))
        if fed > 0.1:  # noqa: PLR2004 - not just begun
            self._probe_gap_s = min(
                self._probe_gap_s, max(Belief.SHORTEST_PROBE_GAP_S, self._probe_gap_s / 2)
            )
        since = self._doubt.since
        if not fed or since is None:
            self._doubt.since = mark
            return None
        self._level.empty(mark, number)
        took_s = mark.at_s - since.at_s
        if self._doubt.amount >= Doubt.ENOUGH and took_s > self._round_trip_s / 2:
            self._doubt.resolve(mark)
            return self._act(mark.n_taken - since.n_taken, took_s, now)
        return 0.0

    def _act(self, n_taken: int, took_s: float, now: Mark) -> float:
        """Follows the quota down: so much was taken between surprises, so no more is left."""
        aim_per_s, quota_per_s = self._aim_per_s(), self._quota.per_s
        left_per_s = n_taken / took_s
        if left_per_s >= aim_per_s:
            return 0.0
        if left_per_s < 0.95 * aim_per_s:
            self._doubt.explain()  # it fell
        if left_per_s < self._FAR * quota_per_s:
            further = left_per_s - self._FURTHER * (quota_per_s - left_per_s)
            left_per_s = max(0.3 * quota_per_s, 0.8 * left_per_s, further)
            self._probe_gap_s = 4.0
            self._since = now
        floor_per_s = self._quota.floor_per_s(n_taken, now)
        self._quota.suppose(max(left_per_s, floor_per_s), took_s)
        return max(0.0, aim_per_s - self._quota.per_s) * self._round_trip_s

    def _spend(self, mark: Mark, number: int, now: Mark) -> None:
        """A refusal that the budget pays for."""
        assert self._budget is not None  # noqa: S101 - the phase says so
        measured = self._budget.throttled(mark)
        if measured is not None:
            left_per_s, span_s = measured
            floor_per_s = self._quota.floor_per_s(round(left_per_s * span_s), now)
            self._leave_budget(now, max(left_per_s, floor_per_s), span_s)
            self._probe_gap_s = 8.0
            self._doubt.narrow()
        self._level.empty(mark, number)

    def _leave_budget(self, now: Mark, quota_per_s: float, known_s: float) -> None:
        self._budget = None
        self._quota.suppose(quota_per_s, known_s)
        self._probe_gap_s = 2.0
        self._doubt.amount = 0.0
        self._doubt.explain()
        self._enter(Phase.HOLD, now)

    # ------------------------------------------------------------------------------------------
    # What is known

    def _learn(self, taken_per_s: float, span_s: float) -> None:
        """Learns a measurement, and once the quota is certain the burst."""
        agreed = self._quota.learn(taken_per_s, span_s, 2.0 + self._scatter())
        if agreed and self._quota.is_certain and self._level.burst is None:
            self._level.burst = self._burst()

    def _burst(self) -> float | None:
        """The tokens that the first overflow took beyond what dripped in; None before it."""
        if self._first_overflow is None:
            return None
        n_taken, took_s = self._first_overflow
        return max(1.0, n_taken - self._quota.per_s * took_s)

    def _time(self, start: Start, now_s: float) -> None:
        took_s = min(now_s - start.at_s, self._LONGEST_ROUND_TRIP_S)
        self._round_trip_s += 0.05 * (took_s - self._round_trip_s)

    def _in_flight(self) -> float:
        """Requests on their way, on average (Little's law)."""
        return self._quota.per_s * self._round_trip_s

    def _scatter(self) -> float:
        """By how many requests the order of arrival may differ from that of starting."""
        return math.sqrt(self._in_flight())
