"""How fast requests start: a token bucket for each operation, and a controller that sets its rate.

    Pacer          what the run talks to: one bucket and one controller for each operation
    TokenBucket    enforces a rate, in order of asking
    Controller     decides the rate: a pure function of what was answered, and when

Why a bucket of our own. Connect counts requests in a token bucket per operation, account and region
(10 a second, 15 deep, unless raised), and the live contact centre drinks from the same one. The
SDK's retries do not pace: against such a bucket its standard mode lost 251 of 300 rows. Its
adaptive mode does pace, but with one bucket for all operations, and it waits after it has signed.
So here every attempt, first or repeated, pays one token before it is signed, and the SDK's retries
are off.

Why a controller. The ceiling is a share of a quota that we believe the account has, and others use
it too. A 429 is the only word that the service has for "less"; errors of the service and timeouts
say nothing about the quota and do not move the rate. A volley of 429s from requests that were in
flight together is one piece of news, not thirty. An acceptance is the only word for "as much as
this is fine", so only acceptances raise the rate again: a run that stands still learns nothing.

Another controller takes the same seam: it hears `accepted` and `throttled` with the time, and is
asked for the rate. It has no clock, no loop and no bucket, so that its tests are lists of events.
One that estimates the quota needs no more than that. `Pacer` takes it as a factory, called once
for each operation with the ceiling.

Time is the loop's, monotonic, and everything waits by timers, so that a run can be tested in
virtual time. Not for threads: all of this belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bulk_updater.config import PacingConfig

__all__ = ["Controller", "Pacer", "TokenBucket", "YieldingController"]

# Sums of floats: a bucket that holds this little less than a token holds one. What is lent here is
# paid back by the next refill, so it does not add up.
_TOLERANCE: Final = 1e-6

# The shortest timer, in seconds. Below the resolution of a clock, time may not move on at all.
_SHORTEST_TIMER_S: Final = 1e-6


class TokenBucket:
    """Lets requests start at a rate, in the order in which they ask.

    Tokens drip in continuously at `rate_per_s` up to `burst`; a request takes one. Between any two
    moments `t` seconds apart, no more than `burst + rate_per_s * t` requests are let through.

    A timer that fires late costs nothing: the tokens that came in meanwhile are handed out
    together, as many as the bucket holds.

    Args:
        rate_per_s: Tokens per second, above 0.
        burst: The most tokens that the bucket holds, at least 1; it begins full.
        clock: Seconds of a monotonic clock; the running loop's by default.
    """

    def __init__(
        self, rate_per_s: float, burst: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._rate_per_s = rate_per_s
        self._burst = max(
            1.0, burst
        )  # a bucket that never holds a whole token lets nothing through
        self._tokens = self._burst
        self._now = self._refilled_at = self._clock()
        self._front: deque[asyncio.Future[None]] = deque()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate_per_s(self) -> float:
        """Tokens per second."""
        return self._rate_per_s

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a token."""
        return len(self._front) + len(self._queue)

    async def acquire(self, *, front: bool = False) -> None:
        """Takes one token, and waits for it if need be.

        Args:
            front: Whether to go before everybody who waits without it. Those at the front keep
                their order among themselves.

        Raises:
            asyncio.CancelledError: If the task is cancelled; then no token is taken.
        """
        # Who finds nobody before him need not queue, which is how all go while there are tokens.
        if not self._front and (front or not self._queue):
            self._refill()
            if self._may_take():
                self._tokens -= 1.0
                return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._front if front else self._queue
        queue.append(turn)
        self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The turn came in the same moment; its token goes to the next.
                self._tokens = min(self._burst, self._tokens + 1.0)
                self._grant()
            elif turn in queue:
                queue.remove(turn)
            raise

    def set_rate_per_s(self, rate_per_s: float) -> None:
        """Changes the rate from now on, for those already waiting too.

        Args:
            rate_per_s: Tokens per second, above 0.
        """
        if rate_per_s == self._rate_per_s:
            return
        self._refill()  # what has passed, passed at the old rate
        self._rate_per_s = rate_per_s
        self._reschedule()

    def drain(self) -> None:
        """Empties the bucket: the tokens turned out to be worth nothing."""
        self._refill()
        self._tokens = min(self._tokens, 0.0)
        self._reschedule()

    def close_until(self, moment: float) -> None:
        """Lets nobody through before a moment, and no token drip in.

        Args:
            moment: In the clock's seconds. One that lies before an earlier call's changes nothing.
        """
        self._refill()
        # Refilled in the future: that is what a closed bucket is.
        self._refilled_at = max(self._refilled_at, moment)
        self._tokens = min(self._tokens, 0.0)
        self._reschedule()

    def _refill(self) -> None:
        self._now = self._clock()
        passed_s = self._now - self._refilled_at
        if passed_s > 0:
            self._tokens = min(self._burst, self._tokens + passed_s * self._rate_per_s)
            self._refilled_at = self._now

    def _may_take(self) -> bool:
        """Whether there is a token, as of the last refill."""
        return self._tokens >= 1.0 - _TOLERANCE and self._refilled_at <= self._now

    def _grant(self) -> None:
        """Hands out what is there, and comes back when the next token is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._refill()
        while self._may_take() and (waiting := self._front or self._queue):
            turn = waiting.popleft()
            if not turn.done():  # else cancelled, and its task has not run yet
                self._tokens -= 1.0
                turn.set_result(None)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and (self._front or self._queue):
            token_at = self._refilled_at + (1.0 - self._tokens) / self._rate_per_s
            delay_s = max(_SHORTEST_TIMER_S, token_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._grant)

    def _reschedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._schedule()


class Controller(Protocol):
    """Decides how fast one operation's requests may start, from what was answered and when.

    `now` is in seconds of a monotonic clock and never goes back from one call to the next.
    """

    def accepted(self, now: float) -> None:
        """Connect took a request."""

    def throttled(self, now: float) -> None:
        """Connect answered a request with throttling."""

    def rate_per_s(self, now: float) -> float:
        """Requests that may start per second from now on, above 0."""


class YieldingController:
    """Gives way to other traffic at once, and comes back slowly.

    A throttled answer multiplies the rate by `_DECREASE`, down to a floor; then further ones say
    nothing new for `_DEAF_S` seconds, for they answer requests that had started at the old rate.
    Each acceptance adds what has passed since the last one, at a slope that leads from nothing to
    the ceiling in `_RECOVERY_S` seconds, never above it.

    Args:
        ceiling_per_s: The most requests per second, above 0; where it begins.
    """

    # What TCP's CUBIC and botocore's adaptive mode leave (botocore/retries/throttling.py).
    _DECREASE: Final = 0.7
    # Longer than a request takes: Connect answers in about 0.2 s, slow answers in less than 1 s.
    _DEAF_S: Final = 1.0
    # Long enough that a live contact centre's burst of traffic is over before we are back.
    _RECOVERY_S: Final = 30.0
    # The most that one acceptance may make up for, so that the first one after a pause, which
    # proves no more than any other, does not bring the whole rate back.
    _LONGEST_STEP_S: Final = 1.0
    # A part of the ceiling. Below it nothing would be learnt for minutes.
    _FLOOR: Final = 0.05

    def __init__(self, ceiling_per_s: float) -> None:
        self._ceiling_per_s = ceiling_per_s
        self._rate_per_s = ceiling_per_s
        self._raised_at = float("-inf")
        self._deaf_until = float("-inf")

    def accepted(self, now: float) -> None:
        """Raises the rate by what one acceptance is worth."""
        if self._rate_per_s < self._ceiling_per_s:
            step_s = min(now - self._raised_at, self._LONGEST_STEP_S)
            self._rate_per_s = min(
                self._ceiling_per_s,
                self._rate_per_s + step_s * self._ceiling_per_s / self._RECOVERY_S,
            )
            self._raised_at = now

    def throttled(self, now: float) -> None:
        """Lowers the rate, once for a volley."""
        if now >= self._deaf_until:
            self._rate_per_s = max(
                self._FLOOR * self._ceiling_per_s, self._rate_per_s * self._DECREASE
            )
            self._raised_at = now
            self._deaf_until = now + self._DEAF_S

    def rate_per_s(self, now: float) -> float:  # noqa: ARG002  # it moves by answers alone
        """Requests that may start per second."""
        return self._rate_per_s


class _Starts:
    """How many requests started per second, lately; constant in time and space.

    Counts by whole seconds, so that a start costs an addition.
    """

    _WINDOW_S: Final = 10

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque(maxlen=self._WINDOW_S)
        self._began_at: float | None = None

    def add(self, now: float) -> None:
        if self._began_at is None:
            self._began_at = now
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + 1)
        else:
            self._counts.append((second, 1))

    def per_s(self, now: float) -> float:
        if self._began_at is None:
            return 0.0
        first = int(now) - self._WINDOW_S + 1
        n_started = sum(count for second, count in self._counts if second >= first)
        # At least one second, or the first burst would look like thousands.
        return n_started / max(1.0, now - max(self._began_at, first))


class Pacer:
    """The pace of a run: one bucket and one controller for each operation.

    Has to be made on the running loop, unless it is given a clock.

    Args:
        config: Ceiling and burst, which hold for each operation by itself.
        operations: The operations that will be sent, by their snake_case names.
        clock: Seconds of a monotonic clock; the running loop's by default.
        controller: Makes an operation's controller from its ceiling.
    """

    def __init__(
        self,
        config: PacingConfig,
        operations: Iterable[str],
        clock: Callable[[], float] | None = None,
        controller: Callable[[float], Controller] = YieldingController,
    ) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        ceiling_per_s = config.ceiling_per_s
        self._controllers = {name: controller(ceiling_per_s) for name in operations}
        self._buckets = {
            name: TokenBucket(made.rate_per_s(self._clock()), config.burst, self._clock)
            for name, made in self._controllers.items()
        }
        self._starts = _Starts()
        self.ceiling_per_s = ceiling_per_s * len(self._buckets)
        """Requests that may start per second at the most, over all operations."""

    async def acquire(self, operation: str, *, front: bool = False) -> None:
        """Waits until a request of the operation may start.

        Args:
            operation: One of the pacer's operations.
            front: Whether to go before those who have not been throttled.
        """
        await self._buckets[operation].acquire(front=front)
        self._starts.add(self._clock())

    def accepted(self, operation: str) -> None:
        """Tells that Connect took a request, whatever it then thought of what it says."""
        now = self._clock()
        controller = self._controllers[operation]
        controller.accepted(now)
        self._buckets[operation].set_rate_per_s(controller.rate_per_s(now))

    def throttled(self, operation: str, retry_after_s: float | None = None) -> None:
        """Tells that Connect answered a request with throttling.

        The service's bucket is empty then, so ours is no use: it begins anew, at the new rate.

        Args:
            operation: One of the pacer's operations.
            retry_after_s: Seconds that the service asked to wait. Nobody starts a request of this
                operation before they have passed.
        """
        now = self._clock()
        controller = self._controllers[operation]
        controller.throttled(now)
        bucket = self._buckets[operation]
        bucket.set_rate_per_s(controller.rate_per_s(now))
        if retry_after_s is None:
            bucket.drain()
        else:
            bucket.close_until(now + retry_after_s)

    def rate_per_s(self, operation: str) -> float:
        """Requests of the operation that may start per second now."""
        return self._buckets[operation].rate_per_s

    def started_per_s(self) -> float:
        """Requests started per second over the last ten seconds, over all operations."""
        return self._starts.per_s(self._clock())
