"""Keeping an execution to its deadline and its window, by the wall clock.

Shortly before the deadline nothing is begun any more, so that what is in flight is settled by then;
`schedule.margin_s` says how shortly. What still hangs at the deadline itself is given up: its rows
stay unsettled, and count as perhaps sent. Outside its window an execution pauses, and keeps the run
directory's lock.

What decides is the wall clock. It may be corrected, and a machine may be suspended, when the event
loop's own clock stands still; so it is looked at again every half a minute at the latest.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from bulk_updater.errors import TransientError
from bulk_updater.pipeline.control import Helm
from bulk_updater.schedule import describe_moment, margin_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bulk_updater.config import ConnectionConfig, RunConfig

__all__ = ["WINDOW", "DeadlinePassed", "Watch", "attempt_s", "steering"]

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

WINDOW: Final = "window"
"""The reason of a pause that the clock asks for."""

_LOOKS_EVERY_S: Final = 30.0
_SHORTEST_S: Final = 0.001
"""Between two looks: a timer may fire a moment before a clock has come so far."""


class DeadlinePassed(Exception):  # noqa: N818 - no error: why a run has sent nothing
    """The deadline came before there was anything to settle.

    Attributes:
        MESSAGE: What is said then.
    """

    MESSAGE: Final = "The deadline came before the run had sent anything."


def attempt_s(connection: ConnectionConfig) -> float:
    """Seconds that an attempt may take: to connect, and to be answered; infinite without limit."""
    parts = connection.connect_timeout_s, connection.read_timeout_s
    return sum(math.inf if part is None else part for part in parts)


@asynccontextmanager
async def steering(
    config: RunConfig, *, stop: asyncio.Event, now: Callable[[], float]
) -> AsyncIterator[Watch]:
    """Keep an execution to its schedule while inside.

    Args:
        config: The run.
        stop: The caller's; what is set there stops the execution.
        now: Seconds since the epoch.

    Yields:
        The watch, with the helm that the execution goes by.

    Raises:
        ConfigError: If the deadline has passed already.
    """
    watch = Watch(config, now=now)
    if stop.is_set():
        watch.helm.stop.set()
    tasks = [
        asyncio.create_task(_pass_on(stop, watch.helm.stop)),
        asyncio.create_task(watch.keep()),
    ]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _pass_on(heard: asyncio.Event, to: asyncio.Event) -> None:
    await heard.wait()
    to.set()


class Watch:
    """Looks at the wall clock, and steers.

    Args:
        config: The run; its schedule counts from now.
        now: Seconds since the epoch.

    Attributes:
        helm: What it steers by.

    Raises:
        ConfigError: If the deadline has passed already.
    """

    def __init__(self, config: RunConfig, *, now: Callable[[], float]) -> None:
        self.helm = Helm()
        self._now = now
        self._attempt_s = attempt_s(config.connection)
        self._window = config.schedule.window
        began_at = now()
        deadline_at = config.schedule.deadline_at(began_at)
        self._deadline_at = math.inf if deadline_at is None else deadline_at
        self._stop_at = self._deadline_at - (
            0.0 if deadline_at is None else margin_s(deadline_at - began_at, self._attempt_s)
        )
        self._open: set[asyncio.Timeout] = set()
        if self._window is not None:
            self._keep_window(began_at)

    async def keep(self) -> None:
        """Do what the clock says until there is nothing left to do."""
        if self._deadline_at < math.inf:
            log.info(
                "This run ends by %s; from %s on nothing is begun.",
                describe_moment(self._deadline_at),
                describe_moment(self._stop_at),
            )
        while True:
            moment = self._now()
            if moment >= self._deadline_at:
                self._stop()
                self._cut()
                return
            next_at = self._deadline_at
            if moment < self._stop_at:
                next_at = self._stop_at
            else:
                self._stop()
            if self._window is not None:
                next_at = min(next_at, self._keep_window(moment))
            if math.isinf(next_at):
                return
            wait_s = max(_SHORTEST_S, min(next_at - moment, _LOOKS_EVERY_S))
            await asyncio.sleep(wait_s)

    def cutting(self, send: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        """What makes attempts, made so that the deadline ends those that hang.

        An attempt that is cut off fails as one whose answer was lost does: it may have been
        applied.
        """
        if math.isinf(self._deadline_at):
            return send

        async def send_until_then(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                async with asyncio.timeout(None) as limit:
                    self._open.add(limit)
                    try:
                        return await send(*args, **kwargs)
                    finally:
                        self._open.discard(limit)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise TransientError(
                    "There was no answer before the deadline.", code="DeadlinePassed"
                ) from error

        return send_until_then

    def _keep_window(self, moment: float) -> float:
        """Pause or go on; returns when to look again, in seconds since the epoch."""
        assert self._window is not None  # noqa: S101 - the callers look
        window, helm = self._window, self.helm
        span = window.span_at(moment)
        lasts_s = span.ends_at - span.begins_at
        closes_at = span.ends_at - margin_s(lasts_s, self._attempt_s)
        is_paused = WINDOW in helm.pauses
        if span.begins_at <= moment < closes_at:
            if is_paused:
                told = describe_moment(span.ends_at, window.zone)
                log.info("The window is open until %s.", told)
                helm.resume(WINDOW)
            return closes_at
        has_closed = moment >= closes_at
        opens_at = window.span_at(span.ends_at).begins_at if has_closed else span.begins_at
        if opens_at >= self._stop_at:
            self._stop()  # there is nothing to wait for
        elif not is_paused:
            told = describe_moment(opens_at, window.zone)
            log.info("Waiting for the window: opens at %s.", told)
        helm.pause(WINDOW)
        return opens_at

    def _stop(self) -> None:
        if not self.helm.stop.is_set():
            self.helm.met_deadline = True
            self.helm.stop.set()
            log.warning("Stopping for the deadline: what is under way is settled first.")

    def _cut(self) -> None:
        """Wait for no answer any more."""
        if self._open:
            log.warning("The deadline has come: what is not answered by now is given up.")
        moment_s = asyncio.get_running_loop().time()
        for limit in self._open:
            limit.reschedule(moment_s)
