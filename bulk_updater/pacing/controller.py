"""What decides how fast: the seam between a bucket and the arithmetic that sets its rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from bulk_updater.pacing.tokens import Tokens, depth

if TYPE_CHECKING:
    from bulk_updater.model import FoundQuota

__all__ = ["Controller", "Regulator", "Start"]


class Start(NamedTuple):
    """A request that was let through.

    Attributes:
        at_s: When, in seconds of the controller's clock: a monotonic one that stands still for
            most of a pause.
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

    def held(self, limit_per_s: float, now_s: float) -> None:
        """From now on no more starts than this, whatever is decided here.

        What is accepted then says nothing about how much there would be.

        Args:
            limit_per_s: Requests per second; 0 in a pause, infinite where nobody holds it.
            now_s: The time now.
        """

    def found(self) -> FoundQuota | None:
        """What was learnt about the quota; None where that is nothing certain."""


class Regulator:
    """Joins a controller to a bucket: the one decides, the other enforces.

    Of a pause the controller hears next to nothing. To it, hours without a request would look
    like hours at a rate that was not made use of, like a quiet that proves something, or like a
    long time since the last probe.

    Args:
        controller: Decides.
        now_s: The time now, in seconds of a monotonic clock.
    """

    PAUSE_COUNTS_S: Final = 10.0
    """So long is a pause to the controller at the most, in seconds. Long enough for it to know
    that the service's bucket, which holds 1 to 2.5 seconds of its rate as documented, has filled
    up; no longer than a reader who is slow makes it wait."""

    def __init__(self, controller: Controller, now_s: float) -> None:
        rate_per_s = controller.rate_per_s(now_s)
        self.controller = controller
        self.tokens = Tokens(rate_per_s, depth(rate_per_s), now_s)
        self._n_started = 0
        self._skipped_s = 0.0
        self._paused_at_s = math.inf
        self._limit_per_s = math.inf

    def started(self, now_s: float) -> Start:
        """A request begins whose token was taken."""
        start = Start(self._heard_at(now_s), self._n_started)
        self._n_started += 1
        self.controller.started(start)
        return start

    def accepted(self, start: Start, now_s: float) -> None:
        """Connect took a request."""
        self.controller.accepted(start, self._heard_at(now_s))
        self._follow(now_s)

    def throttled(self, start: Start, now_s: float, retry_after_s: float | None = None) -> None:
        """Connect answered a request with throttling.

        Args:
            start: The request.
            now_s: The time now, in seconds.
            retry_after_s: Seconds that the service asked to wait; nobody starts before.
        """
        debt = self.controller.throttled(start, self._heard_at(now_s))
        self._follow(now_s)
        if debt is not None:
            self.tokens.drain(now_s, debt)
        if retry_after_s is not None:
            self.tokens.close_until(now_s + retry_after_s, now_s)

    def limit(self, rate_per_s: float | None, now_s: float) -> None:
        """Lets no more start than this, whatever the controller decides.

        Args:
            rate_per_s: Requests per second, above 0; None lifts the limit.
            now_s: The time now, in seconds.
        """
        self._limit_per_s = math.inf if rate_per_s is None else rate_per_s
        if math.isinf(self._paused_at_s):
            self.controller.held(self._limit_per_s, self._heard_at(now_s))
        self._follow(now_s)

    def pause(self, now_s: float) -> None:
        """No request starts from now on; those in flight may still be answered."""
        self._paused_at_s = now_s
        self.controller.held(0.0, self._heard_at(now_s))

    def resume(self, now_s: float) -> None:
        """Requests start again."""
        self._skipped_s = now_s - self._heard_at(now_s)
        self._paused_at_s = math.inf
        self.controller.held(self._limit_per_s, self._heard_at(now_s))

    def _heard_at(self, now_s: float) -> float:
        """The time on the controller's clock, which stands still for most of a pause."""
        return min(now_s, self._paused_at_s + self.PAUSE_COUNTS_S) - self._skipped_s

    def _follow(self, now_s: float) -> None:
        rate_per_s = min(self._limit_per_s, self.controller.rate_per_s(self._heard_at(now_s)))
        if rate_per_s != self.tokens.rate_per_s:
            self.tokens.set_rate(rate_per_s, depth(rate_per_s), now_s)
