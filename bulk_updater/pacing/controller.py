"""What decides how fast: the seam between a bucket and the arithmetic that sets its rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from bulk_updater.pacing.tokens import Tokens, depth

if TYPE_CHECKING:
    from bulk_updater.model import FoundQuota

__all__ = ["Controller", "Regulator", "Start"]


class Start(NamedTuple):
    """A request that was let through.

    Attributes:
        at_s: When, in seconds of a monotonic clock.
        number: How many of its operation's were let through before it, from 0.
    """

    at_s: float
    number: int


class Controller(Protocol):
    """Decides how fast one operation's requests may start, from what was answered and when.

    It has no clock, no loop and no bucket: the same events give the same rates. `now_s` is in
    seconds of a monotonic clock and never goes back from one call to the next. Requests may be
    answered in any order, and some are never answered. What says nothing about the quota, as
    errors of the service and timeouts, it is not told of.
    """

    def started(self, start: Start) -> None:
        """A request was let through; numbers are consecutive."""

    def accepted(self, start: Start, now_s: float) -> None:
        """Connect took a request."""

    def throttled(self, start: Start, now_s: float) -> float | None:
        """Connect answered a request with throttling.

        Returns:
            How many tokens to go without before the next request, 0 or more; None where the
            answer is no news, and the bucket stays as it is.
        """

    def rate_per_s(self, now_s: float) -> float:
        """Requests that may start per second from now on, above 0."""

    def found(self) -> FoundQuota | None:
        """What was learnt about the quota; None where that is nothing certain."""


class Regulator:
    """Joins a controller to a bucket: the one decides, the other enforces.

    Args:
        controller: Decides.
        now_s: The time now, in seconds of a monotonic clock.
    """

    def __init__(self, controller: Controller, now_s: float) -> None:
        rate_per_s = controller.rate_per_s(now_s)
        self.controller = controller
        self.tokens = Tokens(rate_per_s, depth(rate_per_s), now_s)
        self._n_started = 0

    def started(self, now_s: float) -> Start:
        """A request begins whose token was taken."""
        start = Start(now_s, self._n_started)
        self._n_started += 1
        self.controller.started(start)
        return start

    def accepted(self, start: Start, now_s: float) -> None:
        """Connect took a request."""
        self.controller.accepted(start, now_s)
        self._follow(now_s)

    def throttled(self, start: Start, now_s: float, retry_after_s: float | None = None) -> None:
        """Connect answered a request with throttling.

        Args:
            start: The request.
            now_s: The time now, in seconds.
            retry_after_s: Seconds that the service asked to wait; nobody starts before.
        """
        debt = self.controller.throttled(start, now_s)
        self._follow(now_s)
        if debt is not None:
            self.tokens.drain(now_s, debt)
        if retry_after_s is not None:
            self.tokens.close_until(now_s + retry_after_s, now_s)

    def _follow(self, now_s: float) -> None:
        rate_per_s = self.controller.rate_per_s(now_s)
        if rate_per_s != self.tokens.rate_per_s:
            self.tokens.set_rate(rate_per_s, depth(rate_per_s), now_s)
