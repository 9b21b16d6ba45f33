"""A token bucket to wait at."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.pacing.tokens import Tokens

__all__ = ["TokenBucket"]

# The shortest timer, in seconds. Below the resolution of a clock, time may not move on at all.
_SHORTEST_TIMER_S: Final = 1e-6


class TokenBucket:
    """Hands a bucket's tokens out, in the order in which they are asked for.

    A timer that fires late costs nothing: the tokens that came in meanwhile are handed out
    together, as many as the bucket holds.

    Args:
        tokens: The bucket. Whoever changes it calls `adjusted` afterwards.
        clock: Seconds of a monotonic clock; the running loop's by default.
    """

    def __init__(self, tokens: Tokens, clock: Callable[[], float] | None = None) -> None:
        self.tokens = tokens
        self._clock = clock or asyncio.get_running_loop().time
        self._front: deque[asyncio.Future[None]] = deque()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

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
        if not self._front and (front or not self._queue) and self.tokens.take(self._clock()):
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
                self.tokens.give_back()
                self._grant()
            elif turn in queue:
                queue.remove(turn)
            raise

    def adjusted(self) -> None:
        """The bucket's rate or tokens have changed: whoever waits, waits anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._schedule()

    def _grant(self) -> None:
        """Hands out what is there, and comes back when the next token is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._clock()
        while waiting := self._front or self._queue:
            if waiting[0].done():  # cancelled, and its task has not run yet
                waiting.popleft()
            elif self.tokens.take(now_s):
                waiting.popleft().set_result(None)
            else:
                break
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and (self._front or self._queue):
            now_s = self._clock()
            delay_s = max(_SHORTEST_TIMER_S, self.tokens.ready_at_s(now_s) - now_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._grant)
