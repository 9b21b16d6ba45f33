"""What was started and what was throttled, and what that says about the service's bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bulk_updater.pacing.controller import Start

__all__ = ["Level", "Mark", "Tally"]


class Mark(NamedTuple):
    """A moment, and how many tokens had been taken by then.

    Attributes:
        at_s: In seconds of a monotonic clock.
        n_taken: Requests started and not throttled.
    """

    at_s: float
    n_taken: int


class Tally:
    """Counts the requests that took a token of the service's: started, and not throttled.

    A request counts from its start: when it is answered says more about the network than about
    the quota. Those still in flight count as accepted until they turn out throttled. One whose
    answer says nothing, an error of the service or none at all, counts as accepted: the pace is
    set in requests started, so whether such a one took a token cancels out.
    """

    def __init__(self) -> None:
        self._n_started = 0
        self._n_throttled = 0

    @property
    def n_taken(self) -> int:
        """Tokens taken so far."""
        return self._n_started - self._n_throttled

    def started(self, start: Start) -> None:
        """A request began."""
        self._n_started = start.number + 1

    def throttled(self, start: Start) -> Mark:
        """A request was throttled; returns the moment at which the bucket was empty."""
        self._n_throttled += 1
        return Mark(start.at_s, start.number + 1 - self._n_throttled)


class Level:
    """The tokens that the service's bucket holds if the quota is what we believe.

    Known from an anchor on: a throttled answer, at which the bucket was empty. It falls below
    zero where more was taken than that quota allows, which proves that the quota is larger. It
    does not rise above the burst, as the service's own does not; what overflows is lost.

    Attributes:
        anchor: The last moment at which the bucket was empty; None before there was one.
        is_assumed: Whether it was full at the anchor, as we think, and not empty, as we know.
        overflowed: Whether tokens may have been lost since. Then what was taken per second is
            only a lower bound of the quota.
        burst: Tokens that the bucket holds at the most; None where that was not learnt.
    """

    # The burst in seconds of the rate: 15 tokens at 10 a second, as documented ("Amazon Connect
    # service quotas"); all other documented pairs lie between 1 and 2.5.
    BURST_S = 1.5

    def __init__(self) -> None:
        self.anchor: Mark | None = None
        self.is_assumed = False
        self.overflowed = False
        self.burst: float | None = None
        self._number = -1
        self._tokens = 0.0
        self._as_of: Mark = Mark(0.0, 0)

    def assume(self, mark: Mark, tokens: float) -> None:
        """The bucket holds so many tokens at a mark, before the first request."""
        self.anchor = self._as_of = mark
        self._tokens = self.burst = max(1.0, tokens)
        self.is_assumed = True

    def empty(self, mark: Mark, number: int) -> None:
        """The bucket was empty at a mark, when request `number` came."""
        if self.is_assumed:
            self.is_assumed = False
            self.burst = None
        self.anchor = self._as_of = mark
        self._number = number
        self._tokens = 0.0
        self.overflowed = False

    def empty_in_volley(self, mark: Mark, number: int) -> None:
        """Another request of a volley was throttled: the anchor moves to the latest of them.

        One that began before the anchor had been counted as taken by then.
        """
        if number > self._number:
            self.empty(mark, number)
        elif self.anchor is not None:
            self.anchor = Mark(self.anchor.at_s, self.anchor.n_taken - 1)
            self._as_of = Mark(self._as_of.at_s, self._as_of.n_taken - 1)

    def note(self, number: int) -> None:
        """Request `number` was throttled, but that may mean nothing: the anchor stays."""
        self._number = number

    def tokens(self, mark: Mark, quota_per_s: float) -> float:
        """The level at a mark, not before an earlier call's; 0 before there is an anchor."""
        if self.anchor is None:
            return 0.0
        gained = quota_per_s * (mark.at_s - self._as_of.at_s)
        tokens = self._tokens + gained - (mark.n_taken - self._as_of.n_taken)
        burst = max(quota_per_s * self.BURST_S, self.burst or 0.0)
        if tokens > burst:
            tokens = burst
            self.overflowed = True
        self._tokens = tokens
        self._as_of = mark
        return tokens

    def measure(self, mark: Mark) -> tuple[float, float] | None:
        """What was taken per second since the anchor, and over how many seconds.

        Between two moments at which the bucket was empty that is the quota, to within a request,
        unless it overflowed; else it is less.
        """
        if self.anchor is None or mark.at_s <= self.anchor.at_s:
            return None
        span_s = mark.at_s - self.anchor.at_s
        return (mark.n_taken - self.anchor.n_taken) / span_s, span_s
