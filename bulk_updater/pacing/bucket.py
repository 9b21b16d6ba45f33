"""A token bucket to wait at."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.pacing.tokens import Tokens

__all__ = ["TokenBucket"]

# The shortest timer, in seconds. Below the resolution of a clock, time may not move on at all.
_SHORTEST_TIMER_S: Final = 1e-6


class _Turn(NamedTuple):
    number: int
    future: asyncio.Future[None]


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
        self._front: deque[_Turn] = deque()
        self._queue: deque[_Turn] = deque()
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False

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
        if not self._front and (front or not self._queue) and self._take(self._clock()):
            return
        number, queue = next(self._numbers), self._front if front else self._queue
        while True:
            turn = _Turn(number, asyncio.get_running_loop().create_future())
            _put_in_order(queue, turn)
            self._schedule()
            try:
                await turn.future
            except asyncio.CancelledError:
                if not turn.future.cancelled():
                    # The turn came in the same moment; its token goes to the next.
                    self.tokens.give_back()
                    self._grant()
                elif turn in queue:
                    queue.remove(turn)
                raise
            if not self._is_paused:
                return
            # The pause came between the turn and this task: it waits where it stood.
            self.tokens.give_back()

    def pause(self) -> None:
        """Hands out no token any more, not even to those who wait; they keep their places."""
        self._is_paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Goes on handing out tokens."""
        self._is_paused = False
        self._schedule()

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
            if waiting[0].future.done():  # cancelled, and its task has not run yet
                waiting.popleft()
            elif self._take(now_s):
                waiting.popleft().future.set_result(None)
            else:
                break
        self._schedule()

    def _take(self, now_s: float) -> bool:
        return not self._is_paused and self.tokens.take(now_s)

    def _schedule(self) -> None:
        if self._timer is None and not self._is_paused and (self._front or self._queue):
            now_s = self._clock()
            delay_s = max(_SHORTEST_TIMER_S, self.tokens.ready_at_s(now_s) - now_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._grant)


def _put_in_order(queue: deque[_Turn], turn: _Turn) -> None:
    """Puts a turn behind all that were asked for before it: at the end, but after a pause."""
    at = len(queue)
    while at and queue[at - 1].number > turn.number:
        at -= 1
    queue.insert(at, turn)
