"""A Connect without a network, and a ledger without a disk, that note what was asked of them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulk_updater.config import PacingConfig, RetryConfig, RunConfig
from bulk_updater.connect import Receipt
from bulk_updater.model import Progress, Quota, QuotaOrigin, Request, Result
from bulk_updater.operations import OPERATION_NAMES
from bulk_updater.pacing import Pacer
from bulk_updater.pipeline.breaker import Breaker
from bulk_updater.pipeline.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"

QUOTA = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)


def attributes_request(row: int, contact: str, **attributes: str) -> Request:
    """A request of UpdateContactAttributes, with the row's number as an attribute by default."""
    attributes = attributes or {"row": str(row)}
    return Request(
        row=row,
        source="export.csv",
        operation="update_contact_attributes",
        instance_id=INSTANCE,
        contact_id=contact,
        params={"InstanceId": INSTANCE, "InitialContactId": contact, "Attributes": attributes},
        payload_bytes=sum(len(key) + len(value) for key, value in attributes.items()),
    )


@dataclass
class FakeConnect:
    """Answers after `latency_s`; `script` may raise or return for a request.

    Attributes:
        calls: Every attempt, in the order they began.
        applied: What was applied, in the order they ended.
        peak: The most attempts open at once.
        overlaps: Attempts that began while another for the same contact was open.
    """

    latency_s: float = 0.1
    script: Callable[[Request], Exception | None] = lambda _request: None
    calls: list[Request] = field(default_factory=list)
    applied: list[Request] = field(default_factory=list)
    open_now: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    peak: int = 0
    overlaps: int = 0

    async def send(self, request: Request) -> Receipt:
        self.calls.append(request)
        self.overlaps += self.open_now[request.contact_id] > 0
        self.open_now[request.contact_id] += 1
        self.peak = max(self.peak, sum(self.open_now.values()))
        try:
            await asyncio.sleep(self.latency_s)
            error = self.script(request)
            if error is not None:
                raise error
            self.applied.append(request)
            return Receipt(request_id=f"request-{len(self.calls)}", http_status=200)
        finally:
            self.open_now[request.contact_id] -= 1

    def state(self) -> dict[str, dict[str, Any]]:
        """Each contact's attributes after all that was applied."""
        contacts: dict[str, dict[str, Any]] = defaultdict(dict)
        for request in self.applied:
            contacts[request.contact_id].update(request.params["Attributes"])
        return dict(contacts)


@dataclass
class FakeLedger:
    """Makes results durable after `latency_s`, unless `failure` is set."""

    latency_s: float = 0.0
    failure: Exception | None = None
    results: list[Result] = field(default_factory=list)

    async def append(self, *results: Result) -> None:
        await asyncio.sleep(self.latency_s)
        if self.failure is not None:
            raise self.failure
        self.results.extend(results)

    def by_row(self) -> dict[int, Result]:
        return {result.row: result for result in self.results}


def make_sender(
    connect: FakeConnect, ledger: FakeLedger, progress: Progress | None = None, **settings: Any
) -> Sender:
    """A sender with everything behind it faked, as fast as the fakes are."""
    config = RunConfig(
        mapping=Path("mapping.yaml"),
        sources=(Path("export.csv"),),
        pacing=PacingConfig(rate=1_000_000),
        retry=RetryConfig(max_attempts=2),
        **settings,
    )
    return Sender(
        config,
        send=connect.send,
        pacer=Pacer(config.pacing, dict.fromkeys(OPERATION_NAMES, QUOTA)),
        ledger=ledger,  # type: ignore[arg-type]
        breaker=Breaker(config.max_failures),
        progress=progress or Progress(),
        rng=random.Random(7),
        now=lambda: 1_000_000_000.0 + asyncio.get_running_loop().time(),
    )
