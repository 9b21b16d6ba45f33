"""What is believed of the quota, how well it is known, and how often that is looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bulk_updater.pacing.budget import SLOWEST_PER_S

if TYPE_CHECKING:
    from bulk_updater.pacing.tally import Mark

__all__ = ["Belief"]


class Belief:
    """What is believed of the quota, and over how many seconds it was measured.

    Measurements that agree are averaged, each by the seconds that it took; one that contradicts
    them takes their place.

    Attributes:
        per_s: Requests per second, above 0.
        known_s: Seconds that it was measured over; 0 for a guess.
        is_hearsay: Whether somebody said so, and nothing was measured yet.
    """

    CERTAIN_AFTER_S: Final = 30.0
    """Two refusals so far apart know a quota of 10 to a third of a percent."""

    FEW: Final = 3
    """Requests taken that are too few to measure a quota by."""

    SHORTEST_PROBE_GAP_S: Final = 10.0
    """Between two probes, however fast the requests are."""

    _LONGEST_MEMORY_S: Final = 120.0
    # Of what is accepted, one throttled answer. The second for a quarter of an hour after a fall,
    # as what fell often comes back.
    _PROBE_COST: Final = 0.0012
    _PROBE_COST_AFTER_FALL: Final = 0.0035
    _FALL_IS_RECENT_S: Final = 900.0
    _FALLEN: Final = 0.8
    _LONGEST_PROBE_GAP_S: Final = 300.0
    # Of what it was lately: no lower while nothing is accepted that could be measured.
    _FLOOR: Final = 0.05

    def __init__(self, per_s: float, now_s: float) -> None:
        self.per_s = per_s
        self.known_s = 0.0
        self.is_hearsay = True
        self._high_per_s = 0.0  # what it was before it fell
        self._was_high_at_s = now_s

    @property
    def is_certain(self) -> bool:
        """Whether it was measured for long enough to be told."""
        return self.known_s >= self.CERTAIN_AFTER_S and not self.is_hearsay

    def suppose(self, per_s: float, known_s: float) -> None:
        """Takes this for the quota, whatever was believed."""
        # No less than is ever sent: from there it would take too long to come back.
        self.per_s = max(SLOWEST_PER_S, per_s)
        self.known_s = known_s

    def learn(self, taken_per_s: float, span_s: float, tolerance: float) -> bool:
        """Puts a measurement to the others, or in their place; returns whether it agreed.

        Args:
            taken_per_s: What was measured, in requests per second.
            span_s: Over how many seconds, above 0.
            tolerance: By how many requests it may be wrong.
        """
        self.is_hearsay = False
        difference = taken_per_s - self.per_s
        agrees = abs(difference) * span_s <= tolerance
        if agrees:
            self.suppose(
                self.per_s + difference * span_s / (span_s + self.known_s),
                min(self.known_s + span_s, self._LONGEST_MEMORY_S),
            )
        else:
            self.suppose(taken_per_s, span_s)
        return agrees

    def lower(self, share: float) -> None:
        """Takes a part of it away; it is known as well as before."""
        self.suppose(self.per_s * (1.0 - share), self.known_s)

    def floor_per_s(self, n_taken: int, now: Mark) -> float:
        """How low it may be supposed when so many were taken while all else was refused.

        While everything is refused nothing is known but that the quota was another lately.

        Returns:
            Requests per second, 0 where enough were taken to measure it.
        """
        is_long_ago = now.at_s - self._was_high_at_s > self._FALL_IS_RECENT_S
        if n_taken >= self.FEW or is_long_ago:
            return 0.0
        return self._FLOOR * self._high_per_s

    def probe_gap_s(self, now: Mark) -> float:
        """Seconds between probes, so that they cost no more than their share."""
        if now.at_s - self._was_high_at_s > self._FALL_IS_RECENT_S:
            self._high_per_s = 0.0  # what it is now, it is
        fell = self.per_s < self._FALLEN * self._high_per_s
        if not fell:
            self._high_per_s = max(self._high_per_s, self.per_s)
            self._was_high_at_s = now.at_s
        cost = self._PROBE_COST_AFTER_FALL if fell else self._PROBE_COST
        gap_s = 1.0 / (cost * self.per_s)
        return max(self.SHORTEST_PROBE_GAP_S, min(self._LONGEST_PROBE_GAP_S, gap_s))
