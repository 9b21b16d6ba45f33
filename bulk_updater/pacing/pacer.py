"""The pace of a run, over all of its operations."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from bulk_updater.pacing.bucket import TokenBucket
from bulk_updater.pacing.choosing import ceiling_per_s, choose_controller
from bulk_updater.pacing.controller import Regulator
from bulk_updater.pacing.series import PaceSeries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bulk_updater.config import PacingConfig
    from bulk_updater.model import FoundQuota, Quota
    from bulk_updater.pacing.controller import Controller, Start

__all__ = ["Pacer"]


class _RecentStarts:
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


class _Lane:
    """One operation's controller, bucket and record."""

    def __init__(
        self, controller: Controller, ceiling: float | None, clock: Callable[[], float]
    ) -> None:
        self.regulator = Regulator(controller, clock())
        self.bucket = TokenBucket(self.regulator.tokens, clock)
        self.series = PaceSeries(clock())
        self.recent = _RecentStarts()
        self.ceiling_per_s = ceiling

    @property
    def rate_per_s(self) -> float:
        return self.regulator.tokens.rate_per_s


class Pacer:
    """The pace of a run: one bucket and one controller for each operation.

    Has to be made on the running loop, unless it is given a clock.

    Args:
        config: What the user asked for; it holds for each operation by itself.
        quotas: What is believed of the quotas of the operations that will be sent, by their
            snake_case names.
        clock: Seconds of a monotonic clock; the running loop's by default.
        choose: Makes an operation's controller.
    """

    def __init__(
        self,
        config: PacingConfig,
        quotas: Mapping[str, Quota],
        clock: Callable[[], float] | None = None,
        choose: Callable[[PacingConfig, Quota, float], Controller] = choose_controller,
    ) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._lanes = {
            name: _Lane(
                choose(config, quota, self._clock()), ceiling_per_s(config, quota), self._clock
            )
            for name, quota in quotas.items()
        }
        self._pauses: set[str] = set()
        self._paused_at_s = 0.0
        self._paused_before_s = 0.0

    async def acquire(self, operation: str, *, front: bool = False) -> Start:
        """Waits until a request of the operation may start.

        Args:
            operation: One of the pacer's operations.
            front: Whether to go before those who have not been throttled.

        Returns:
            The request's start, for `accepted` or `throttled`.
        """
        lane = self._lanes[operation]
        await lane.bucket.acquire(front=front)
        now_s = self._clock()
        lane.recent.add(now_s)
        lane.series.started(self.awake_s(), lane.rate_per_s)
        return lane.regulator.started(now_s)

    def accepted(self, operation: str, start: Start) -> None:
        """Tells that Connect took a request, whatever it then thought of what it says."""
        lane = self._lanes[operation]
        before = lane.rate_per_s
        lane.regulator.accepted(start, self._clock())
        if lane.rate_per_s != before:
            lane.bucket.adjusted()

    def throttled(self, operation: str, start: Start, retry_after_s: float | None = None) -> None:
        """Tells that Connect answered a request with throttling.

        Args:
            operation: One of the pacer's operations.
            start: The request's start.
            retry_after_s: Seconds that the service asked to wait. Nobody starts a request of this
                operation before they have passed.
        """
        lane = self._lanes[operation]
        now_s = self._clock()
        lane.regulator.throttled(start, now_s, retry_after_s)
        lane.series.throttled(self.awake_s(), lane.rate_per_s)
        lane.bucket.adjusted()

    def pause(self, reason: str) -> None:
        """Lets no request start any more, also none that waits already; they keep their order.

        What is asked of the service besides, such as to be left alone until a moment, holds all
        the same.

        Args:
            reason: Who asks. The pause lasts until every reason is taken back.
        """
        if not self._pauses:
            now_s = self._paused_at_s = self._clock()
            for lane in self._lanes.values():
                lane.bucket.pause()
                lane.regulator.pause(now_s)
        self._pauses.add(reason)

    def resume(self, reason: str) -> None:
        """Takes a reason to pause back; one that there is not changes nothing."""
        if reason not in self._pauses:
            return
        self._pauses.remove(reason)
        if self._pauses:
            return
        now_s = self._clock()
        self._paused_before_s += now_s - self._paused_at_s
        for lane in self._lanes.values():
            lane.regulator.resume(now_s)
            lane.bucket.resume()

    @property
    def pauses(self) -> frozenset[str]:
        """The reasons for which no request may start now; empty where some may."""
        return frozenset(self._pauses)

    def paused_s(self) -> float:
        """Seconds for which no request might start, in all pauses until now."""
        now_s = self._clock()
        return self._paused_before_s + (now_s - self._paused_at_s if self._pauses else 0.0)

    def awake_s(self) -> float:
        """The time now on a clock that stands still while there is a pause, in seconds."""
        return self._clock() - self.paused_s()

    def limit(self, rate_per_s: float | None) -> None:
        """Lets no more requests of each operation start than this, whatever its controller says.

        Args:
            rate_per_s: Requests per second, above 0; None lifts the limit.
        """
        for lane in self._lanes.values():
            lane.regulator.limit(rate_per_s, self._clock())
            lane.bucket.adjusted()

    def rate_per_s(self, operation: str) -> float:
        """Requests of the operation that may start per second now, but for a pause."""
        return self._lanes[operation].rate_per_s

    def ceiling_per_s(self, operation: str) -> float | None:
        """Requests of the operation per second that are never exceeded; None under `auto`."""
        return self._lanes[operation].ceiling_per_s

    def allowed_per_s(self, operations: Iterable[str] | None = None) -> float:
        """Requests that may start per second now, over some or all operations; 0 in a pause."""
        return 0.0 if self._pauses else sum(lane.rate_per_s for lane in self._some(operations))

    def started_per_s(self, operations: Iterable[str] | None = None) -> float:
        """Requests started per second over the last ten seconds, over some or all operations."""
        now = self._clock()
        return sum(lane.recent.per_s(now) for lane in self._some(operations))

    def _some(self, operations: Iterable[str] | None) -> list[_Lane]:
        return [self._lanes[name] for name in (self._lanes if operations is None else operations)]

    def found(self, operation: str) -> FoundQuota | None:
        """What was learnt about the operation's quota; None where that is nothing certain."""
        return self._lanes[operation].regulator.controller.found()

    def series(self) -> list[dict[str, Any]]:
        """How the pace went, for each operation: see `PaceSeries.to_record`.

        Pauses are left out of the intervals; `paused_s` says how long they were, if there were any.
        """
        paused_s = round(self.paused_s(), 3)
        paused = {"paused_s": paused_s} if paused_s else {}
        return [
            {"operation": name, **lane.series.to_record(), **paused}
            for name, lane in self._lanes.items()
        ]
