"""The way of one request, from its arrival to its answer.

Signature, bucket, latency, what it says, what goes wrong, what it does: in this order. All that
is left to chance is drawn on arrival, so that two runs in which the same requests arrive in the
same order go alike, however long each of them takes.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from bulk_updater.sandbox.answers import Answer, error_answer, success_answer
from bulk_updater.sandbox.counters import OperationCounters
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.faults import FaultDice
from bulk_updater.sandbox.routes import OPERATIONS, Call, Operation, Route, find_route
from bulk_updater.sandbox.signing import WireRequest, verify
from bulk_updater.sandbox.state import Receipt
from bulk_updater.sandbox.throttle import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bulk_updater.sandbox.config import SandboxConfig
    from bulk_updater.sandbox.faults import Fault, FaultScript
    from bulk_updater.sandbox.state import State

__all__ = ["Service"]

_UNKNOWN = "unknown"
"""The name under which requests are counted that found no operation."""


class Service:
    """Answers requests; knows nothing of sockets.

    Attributes:
        state: The contacts.
    """

    def __init__(
        self,
        config: SandboxConfig,
        state: State,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        rng: random.Random,
        script: FaultScript | None,
    ) -> None:
        """Begin with full buckets.

        Args:
            config: How to behave.
            state: The contacts.
            clock: The time in seconds, for the buckets and the log.
            now: The time of day, aware of its zone, for signatures.
            rng: Chance. Latency, faults and the live traffic of each operation get a stream of
                their own from it, so that turning one on leaves the others as they were.
            script: A test's own choice of faults; it is asked first.
        """
        self.state = state
        self._config = config
        self._clock = clock
        self._now = now
        self._script = script
        self._latency_rng = _fork(rng)
        self._dice = FaultDice(config, _fork(rng))
        self._buckets = {
            operation.name: Bucket(
                rate_per_s=config.rate_per_s,
                burst=config.burst,
                now_s=clock(),
                live_per_s=config.live_per_s if operation.writes else 0.0,
                rng=_fork(rng),
            )
            for operation in OPERATIONS
            if operation.throttle_code is not None
        }
        self._counters = {operation.name: OperationCounters() for operation in OPERATIONS}
        self._counters[_UNKNOWN] = OperationCounters()

    @property
    def counters(self) -> dict[str, OperationCounters]:
        """What happened until now, by operation; `unknown` for what found none."""
        now_s = self._clock()
        for name, bucket in self._buckets.items():
            bucket.catch_up(now_s)
            self._counters[name].live_accepted = bucket.live_accepted
            self._counters[name].live_refused = bucket.live_refused
        return self._counters

    def change_quota(self, *, rate_per_s: float, burst: float) -> None:
        """Change the buckets from now on; what is said of the quota changes, too."""
        self._config = replace(self._config, rate_per_s=rate_per_s, burst=burst)
        for bucket in self._buckets.values():
            bucket.change(rate_per_s=rate_per_s, burst=burst, now_s=self._clock())

    async def answer(self, request: WireRequest, request_id: str) -> Answer | None:
        """Answer one request.

        A request whose client goes away meanwhile is carried out all the same, as at the real
        service: a client that gave up waiting does not know what became of it.

        Args:
            request: The request as it came.
            request_id: The id that it was given.

        Returns:
            The answer; None drops the connection instead.
        """
        try:
            route = find_route(request)
        except ServiceError as error:
            counters = self._counters[_UNKNOWN]
            counters.arrived()
            counters.left()
            counters.rejected[error.code] += 1
            return error_answer(error)
        counters = self._counters[route.operation.name]
        counters.arrived()
        try:
            return await self._answer(route, request, Receipt(request_id, self._clock()), counters)
        except ServiceError as error:
            counters.rejected[error.code] += 1
            return error_answer(error, content_type=route.operation.content_type)
        finally:
            counters.left()

    async def _answer(
        self, route: Route, request: WireRequest, receipt: Receipt, counters: OperationCounters
    ) -> Answer | None:
        operation = route.operation
        latency_s = self._latency_s()
        scope = verify(
            request,
            access_key=self._config.access_key,
            secret_key=self._config.secret_key,
            service=operation.service,
            now=self._now(),
        )
        bucket = self._buckets.get(operation.name)
        if bucket is not None and not bucket.take(receipt.started_s):
            counters.throttled += 1
            await _pause(latency_s)
            return _throttled(operation)
        by_chance = self._dice.roll(operation.name) if operation.service == "connect" else None
        await _pause(latency_s)
        call = Call(
            state=self.state,
            request=route.parse(request),
            receipt=receipt,
            scope=scope,
            quota_per_s=self._quota_per_s(),
        )
        scripted = self._script(operation.name, call.request) if self._script else None
        fault = scripted or by_chance
        if fault is None:
            return _carry_out(operation, call, counters)
        counters.faults[fault.kind] += 1
        await _pause(fault.delay_s)
        answer = _fail(fault, operation, call, counters)
        await _pause(fault.late_s)
        return replace(answer, breaks_off=True) if answer and fault.breaks_off else answer

    def _quota_per_s(self) -> float | None:
        if self._config.quotas_denied:
            return None
        applied_per_s = self._config.applied_quota_per_s
        return self._config.rate_per_s if applied_per_s is None else applied_per_s

    def _latency_s(self) -> float:
        swing = self._config.latency_jitter * self._latency_rng.uniform(-1.0, 1.0)
        return self._config.latency_ms / 1000 * (1.0 + swing)


def _carry_out(operation: Operation, call: Call, counters: OperationCounters) -> Answer:
    members = operation.run(call)
    counters.accepted += 1
    return success_answer(members, content_type=operation.content_type)


def _fail(
    fault: Fault, operation: Operation, call: Call, counters: OperationCounters
) -> Answer | None:
    if fault.keeps_answer:
        return _carry_out(operation, call, counters)
    if fault.applied:
        try:
            _carry_out(operation, call, counters)
        except ServiceError as error:
            counters.rejected[error.code] += 1
    return None if fault.drop else fault.answer


def _throttled(operation: Operation) -> Answer:
    code = operation.throttle_code or "ThrottlingException"
    message = "Too Many Requests" if code == "TooManyRequestsException" else "Rate exceeded"
    return error_answer(ServiceError(code, message), content_type=operation.content_type)


async def _pause(delay_s: float) -> None:
    # A sleep of nothing would still let other requests overtake this one.
    if delay_s > 0:
        await asyncio.sleep(delay_s)


def _fork(rng: random.Random) -> random.Random:
    return random.Random(rng.getrandbits(64))  # noqa: S311 - replayed, not secret
