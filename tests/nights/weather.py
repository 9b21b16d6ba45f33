"""What goes wrong at the service and on the way in one night."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from bulk_updater.sandbox.answers import Answer, error_answer
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.faults import DROP_AFTER, ERROR, HTML, Fault
from tests.simulation.scenario import ATTRIBUTES, CONTACT

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.sandbox import Sandbox
    from tests.simulation.network import Network

    from .scenario import Night

RATE_PER_S, BURST = 10.0, 15.0
"""The documented quota of both operations."""

READ_TIMEOUT_S = 10.0

_UNKNOWN = Answer(
    status=400,
    body=b'{"message":"never heard of"}',
    headers={"Content-Type": "application/json", "x-amzn-ErrorType": "BrandNewException"},
)


def _make(kind: str) -> Fault:
    faults = {
        "drop_after": DROP_AFTER,
        "error_after": Fault(kind=kind, answer=ERROR.answer, applied=True),
        "half_answer": Fault(kind=kind, applied=True, breaks_off=True),
        "hang_after": Fault(kind=kind, applied=True, late_s=READ_TIMEOUT_S + 1),
        "unknown": Fault(kind=kind, answer=_UNKNOWN),
        "slow": Fault(kind=kind, applied=True, late_s=3.0),
    }
    return faults[kind]


class Weather:
    """Chooses the fault of each request that passed its bucket, and turns what lasts on and off."""

    def __init__(self, seed: int, sandbox: Callable[[], Sandbox], network: Network) -> None:
        self.happened: Counter[str] = Counter()
        self._seed = seed
        self._sandbox = sandbox
        self._network = network
        self._night: Night | None = None
        self._seen: Counter[tuple[str, str]] = Counter()
        self._going_on: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_unreachable(self) -> bool:
        """Whether connections are refused now."""
        return "unreachable" in self._going_on

    def begin(self, night: Night) -> None:
        """A night begins."""
        self.end()
        self._night = night
        self._tasks = [
            asyncio.create_task(self._turn(each.kind, each.begins_s, each.ends_s))
            for each in night.episodes
        ]
        bucket = self._sandbox()._entered()._buckets
        for each in bucket.values():
            now_s = asyncio.get_running_loop().time()
            each.catch_up(now_s)
            each._live_per_s = night.live_per_s
            each._next_live_s = each._live_after(now_s)

    def end(self) -> None:
        """All is well from now on."""
        for task in self._tasks:
            task.cancel()
        self._night = None
        self._seen.clear()
        self._going_on.clear()
        self._apply()

    async def _turn(self, kind: str, begins_s: float, ends_s: float) -> None:
        await asyncio.sleep(begins_s)
        self.happened[kind] += 1
        self._going_on.add(kind)
        self._apply()
        await asyncio.sleep(ends_s - begins_s)
        self._going_on.discard(kind)
        self._apply()

    def _apply(self) -> None:
        self._network.refuses = self.is_unreachable
        scale = 0.1 if "quota" in self._going_on else 1.0
        self._sandbox().change_quota(rate_per_s=RATE_PER_S * scale, burst=max(1.0, BURST * scale))

    def fault(self, operation: str, members: dict[str, Any]) -> Fault | None:
        """The sandbox's script."""
        if operation not in (ATTRIBUTES, CONTACT) or self._night is None:
            return None
        if "storm" in self._going_on:
            code = "TooManyRequestsException" if operation == ATTRIBUTES else "ThrottlingException"
            return Fault(kind="storm", answer=error_answer(ServiceError(code, "Too many.")))
        if "outage" in self._going_on:
            return HTML
        contact = members.get("InitialContactId") or members["ContactId"]
        self._seen[operation, contact] += 1
        told = self._seed, self._night.number, operation, contact, self._seen[operation, contact]
        number = random.Random(repr(told)).random()
        for kind, share in self._night.faults.items():
            number -= share
            if number < 0:
                self.happened[kind] += 1
                return _make(kind)
        return None
