"""Requests in, durable results out: bounded, in order for each contact, merged where they wait.

A contact has a *lane* for each operation while it has requests under way. The lane's first
request takes a slot before its task is made, so the reader waits when the service is slow; the
lane's later requests wait behind it without slots of their own, so rows of one contact never
overtake each other. What waits when the lane is free again goes as one request where the
operation's merge rule allows.

A slot and a lane are freed when the result is on the disk, not when the server answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from bulk_updater.connect import Scene, advise
from bulk_updater.errors import (
    BulkUpdaterError,
    RequestRejected,
    RunStopped,
    SendError,
    Throttled,
    TransientError,
)
from bulk_updater.model import Outcome, Request, Result, Verdict
from bulk_updater.operations import OPERATION_NAMES, get_operation
from bulk_updater.pipeline.drought import Drought
from bulk_updater.retry import (
    LONGEST_RETRY_AFTER_S,
    Sent,
    may_concern_one_row,
    may_have_been_applied,
    send_until_settled,
    verdict,
)
from bulk_updater.words import count

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from bulk_updater.config import RetryConfig, RunConfig
    from bulk_updater.connect import Receipt
    from bulk_updater.ledger import Ledger
    from bulk_updater.model import Progress
    from bulk_updater.pacing import Pacer
    from bulk_updater.pipeline.breaker import Breaker

__all__ = ["Sender"]

LaneKey = tuple[str, str, str]

_T = TypeVar("_T")

_DENIALS_THAT_STOP = 50
"""Denied requests, with no success before or among them, that stop a run whose `--max-failures`
sets no other number: the breaker's own default."""


class _Halted(Exception):  # noqa: N818 - no error: how a lane leaves a run that is stopping
    """No attempt begins any more; the row stays unsettled."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one contact in order, and the last one's request, with the others' merged in."""

    rows: list[Request]
    request: Request


@dataclass(slots=True)
class _Lane:
    waiting: deque[Request] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    holds_slot: bool = True


@dataclass(slots=True)
class _Hearing:
    """What was heard of one operation: whether anything succeeded, and which wait for that."""

    success: asyncio.Event = field(default_factory=asyncio.Event)
    n_denied: int = 0
    last_denial: SendError | None = None


class Sender:
    """Sends requests until they are settled; one for each execution of a run.

    Attributes:
        halted_by: Why it stopped before it was drained; None if it did not, or was told to.
        is_halted: Whether it takes no more requests.
        listeners: Each is told results when they are durable; none may raise.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        send: Callable[[Request], Awaitable[Receipt]],
        pacer: Pacer,
        ledger: Ledger,
        breaker: Breaker,
        progress: Progress,
        rng: random.Random,
        now: Callable[[], float],
        explain: Callable[..., str] | None = None,
    ) -> None:
        self.halted_by: BaseException | None = None
        self.is_halted = False
        self.listeners: list[Callable[[Sequence[Result]], None]] = []
        self._retry: RetryConfig = config.retry
        self._max_in_flight = config.max_in_flight
        self._max_waiting = config.max_waiting
        self._send_once = send
        self._pacer = pacer
        self._ledger = ledger
        self._breaker = breaker
        self._progress = progress
        self._rng = rng
        self._now = now
        self._explain = explain or partial(advise, scene=Scene())
        self._drought = Drought(clock=pacer.awake_s)
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._lanes: dict[LaneKey, _Lane] = {}
        self._n_waiting = 0
        self._room = asyncio.Event()
        self._feeder_waits = False
        # Tasks in the middle of an attempt or of an append: halting lets them end it.
        self._busy: set[asyncio.Task[Any]] = set()
        self._denials_that_stop = config.max_failures.in_a_row or _DENIALS_THAT_STOP
        self._hearings = {name: _Hearing() for name in OPERATION_NAMES}
        self._in_doubt: set[tuple[str, int]] = set()

    @property
    def n_in_doubt(self) -> int:
        """Requests that may have been applied, and whose rows have no durable result."""
        return len(self._in_doubt)

    def in_doubt(self) -> frozenset[tuple[str, int]]:
        """Operation and row of the requests that `n_in_doubt` counts."""
        return frozenset(self._in_doubt)

    async def submit(self, request: Request) -> None:
        """Take a request; waits until there is a slot, or room behind its contact's others.

        To be called by one task, in the order of the rows.
        """
        while not self.is_halted:
            lane = self._lanes.get(request.lane)
            if lane is None:
                await self._open_lane(request)
                return
            if self._n_waiting < self._max_waiting:
                lane.waiting.append(request)
                self._n_waiting += 1
                return
            self._room.clear()
            await self._feeder_rests(self._room.wait())

    async def drain(self) -> None:
        """Return when every lane has ended.

        Raises:
            BaseException: `halted_by`, if that is why.
        """
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await self._feeder_rests(asyncio.wait(tasks))
        if self.halted_by is not None:
            raise self.halted_by

    def halt(self, why: BaseException | None = None) -> None:
        """Begin no attempt any more; those under way end, and are settled if they can be.

        Requests that wait, for a token, for a backoff or for their contact, stay unsettled.

        Args:
            why: What `drain` raises; None if the caller knows.
        """
        if self.is_halted:
            return
        self.is_halted = True
        self.halted_by = why
        self._room.set()
        current = asyncio.current_task()
        for lane in self._lanes.values():
            if lane.task is not None and lane.task is not current and lane.task not in self._busy:
                lane.task.cancel()

    async def abort(self) -> None:
        """Cancel whatever is under way, and return when all of it has ended."""
        self.is_halted = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _feeder_rests(self, until: Awaitable[Any]) -> None:
        """Wait, while it is known that no further request comes until then."""
        self._feeder_waits = True
        try:
            self._stop_if_all_are_denied()
            await until
        finally:
            self._feeder_waits = False

    async def _open_lane(self, request: Request) -> None:
        await self._slots.acquire()
        if self.is_halted:
            self._slots.release()
            return
        lane = _Lane(deque([request]))
        self._n_waiting += 1
        self._lanes[request.lane] = lane
        lane.task = asyncio.create_task(self._run_lane(request.lane, lane))
        lane.task.add_done_callback(partial(self._lane_ended, request.lane, lane))

    def _lane_ended(self, key: LaneKey, lane: _Lane, task: asyncio.Task[None]) -> None:
        self._close_lane(key, lane)  # a task that is cancelled before it begins never came to it
        if not task.cancelled() and (error := task.exception()) is not None:
            self.halt(error)  # a fault of our own ends the run; nothing is swallowed

    def _close_lane(self, key: LaneKey, lane: _Lane) -> None:
        """Give back what a lane holds, once."""
        if self._lanes.get(key) is not lane:
            return
        del self._lanes[key]
        self._n_waiting -= len(lane.waiting)
        if lane.holds_slot:
            self._slots.release()
        self._room.set()
        self._stop_if_all_are_denied()

    async def _run_lane(self, key: LaneKey, lane: _Lane) -> None:
        try:
            while lane.waiting and not self.is_halted:
                await self._settle(self._take(lane), lane)
        except _Halted:
            pass
        except BulkUpdaterError as error:
            self.halt(error)
        finally:
            # Here, not only when the task has ended: in between, a row would join a dead lane.
            self._close_lane(key, lane)

    def _take(self, lane: _Lane) -> _Batch:
        """The lane's next request, with those behind it that can be merged into one."""
        rows = [lane.waiting.popleft()]
        params = rows[0].params
        operation = get_operation(rows[0].operation)
        while lane.waiting:
            merged = operation.merge(params, lane.waiting[0].params)
            if merged is None:
                break
            params = merged
            rows.append(lane.waiting.popleft())
        self._n_waiting -= len(rows)
        self._room.set()
        if len(rows) == 1:
            return _Batch(rows, rows[0])
        payload_bytes = operation.payload_bytes(params)
        return _Batch(rows, replace(rows[-1], params=params, payload_bytes=payload_bytes))

    async def _settle(self, batch: _Batch, lane: _Lane) -> None:
        """Send one request for these rows, and make the result of each durable."""
        sent = await send_until_settled(
            batch.request, self._send, self._pacer, self._retry, self._rng, now=self._now
        )
        if sent.verdict is Verdict.STOP_RUN and sent.error is not None:
            if not may_concern_one_row(sent.error):
                self._stop_for(sent.error, _on_one_request(sent), batch.request.operation)
                raise _Halted
            await self._hear_of_another(sent.error, lane, batch.request)
        elif len(batch.rows) > 1 and isinstance(sent.error, RequestRejected):
            # What one row asked for must not fail the others: each for itself, in order.
            for row in batch.rows:
                await self._settle(_Batch([row], row), lane)
            return
        await self._append(batch, sent)

    async def _append(self, batch: _Batch, sent: Sent) -> None:
        # In the rows' order: a torn tail may cut the later ones, whose changes then come again
        # after the earlier ones', never before.
        results = [_result(row, batch.request, sent) for row in batch.rows]
        await self._undisturbed(self._ledger.append(*results))
        self._in_doubt.discard(_key(batch.request))
        self._progress.count(results[-1].outcome, len(results))
        for listener in self.listeners:
            listener(results)
        operation = batch.request.operation
        if sent.error is None:
            self._hearings[operation].success.set()
            self._breaker.updated(operation)
        elif (where := self._breaker.failed(operation, sent.error.code)) is not None:
            self._stop_for(sent.error, where, operation)

    def _stop_for(self, error: SendError, where: str, operation: str) -> None:
        """Halt, with the one sentence that says why."""
        asks_too_long = (error.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S
        self.halt(
            RunStopped(
                self._explain(error, where, operation=operation, asks_too_long=asks_too_long)
            )
        )

    async def _send(self, request: Request) -> Receipt:
        """One attempt; when it fails in a run that was halted meanwhile, no other is waited for."""
        self._expect_going_on()
        try:
            return await self._attempt(request)
        except SendError as error:
            if verdict(error) is Verdict.RETRY:
                # Or it would sleep through its backoff, and through a bucket that may be closed
                # for an hour, only to find out then that it may not begin.
                self._expect_going_on()
            raise

    def _expect_going_on(self) -> None:
        if self.is_halted:
            raise _Halted

    async def _attempt(self, request: Request) -> Receipt:
        self._progress.sent += 1
        self._progress.in_flight += 1
        try:
            receipt = await self._undisturbed(self._send_once(request))
        except Throttled as error:
            self._progress.throttled += 1
            self._drought.throttled(request.operation, error)
            raise
        except (TransientError, asyncio.CancelledError) as error:
            if not isinstance(error, TransientError) or may_have_been_applied(error):
                self._in_doubt.add(_key(request))
            raise
        else:
            self._in_doubt.add(_key(request))
            self._drought.accepted(request.operation)
            return receipt
        finally:
            self._progress.in_flight -= 1

    async def _undisturbed(self, work: Awaitable[_T]) -> _T:
        """Await what halting does not cancel."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._busy.add(task)
        try:
            return await work
        finally:
            self._busy.discard(task)

    async def _hear_of_another(self, error: SendError, lane: _Lane, request: Request) -> None:
        """Return when another request succeeded, so that a denial concerned only its own row.

        A policy with conditions may deny some contacts; a missing permission denies all. Until
        one request of the operation succeeds nobody knows which it is, so denied rows are kept
        unsettled, and their slots go to others. Enough of them, or nothing else left to hear of,
        stop the run.

        One that an earlier attempt may have applied keeps its slot, so that no more requests are
        ever in doubt than there are slots.
        """
        operation = request.operation
        hearing = self._hearings[operation]
        if hearing.success.is_set():
            return
        hearing.n_denied += 1
        if hearing.n_denied >= self._denials_that_stop:
            self._stop_for_denials(error, hearing.n_denied, operation)
            raise _Halted
        hearing.last_denial = error
        if _key(request) not in self._in_doubt:
            lane.holds_slot = False
            self._slots.release()
        try:
            self._stop_if_all_are_denied()
            if self.is_halted:
                raise _Halted
            await hearing.success.wait()
        finally:
            hearing.n_denied -= 1
        if not lane.holds_slot:
            await self._slots.acquire()
            lane.holds_slot = True

    def _stop_if_all_are_denied(self) -> None:
        n_denied = sum(hearing.n_denied for hearing in self._hearings.values())
        if not n_denied or len(self._lanes) != n_denied:
            return
        if not self._feeder_waits and self._has_free_slot():
            return
        for operation, hearing in self._hearings.items():
            if hearing.n_denied and hearing.last_denial is not None:
                self._stop_for_denials(hearing.last_denial, hearing.n_denied, operation)
                return

    def _has_free_slot(self) -> bool:
        return sum(lane.holds_slot for lane in self._lanes.values()) < self._max_in_flight

    def _stop_for_denials(self, error: SendError, n_denied: int, operation: str) -> None:
        first = "request" if n_denied == 1 else f"{n_denied:,} requests"
        self._stop_for(error, f"on the first {first}", operation)


def _key(request: Request) -> tuple[str, int]:
    return request.operation, request.row


def _on_one_request(sent: Sent) -> str:
    if sent.attempts + sent.throttled <= 1:
        return "on one request"
    return f"on {count(sent.attempts + sent.throttled, 'attempt')} at one request"


def _result(row: Request, request: Request, sent: Sent) -> Result:
    """A row's result; `request` is what was sent for it, alone or with earlier rows merged in."""
    carrier = row.row == request.row
    written = request if carrier else row
    return Result(
        row=row.row,
        source=row.source,
        operation=row.operation,
        outcome=Outcome.UPDATED if sent.error is None else Outcome.FAILED,
        instance_id=row.instance_id,
        contact_id=row.contact_id,
        attempts=sent.attempts if carrier else 0,
        throttled=sent.throttled if carrier else 0,
        http_status=sent.receipt.http_status if sent.receipt else _status(sent.error),
        error_code=None if sent.error is None else sent.error.code,
        error=None if sent.error is None else f"row {row.row}: {sent.error.message}",
        request_id=sent.receipt.request_id if sent.receipt else _request_id(sent.error),
        payload_digest=row.payload_digest or None,
        attribute_names=get_operation(row.operation).written_names(row.params),
        payload_bytes=written.payload_bytes,
        merged_into=None if carrier else request.row,
        started_at=sent.started_at,
        finished_at=sent.started_at + sent.took_ms / 1000,
        took_ms=sent.took_ms,
    )


def _status(error: SendError | None) -> int | None:
    return None if error is None else error.http_status


def _request_id(error: SendError | None) -> str | None:
    return None if error is None else error.request_id
