"""Nights of `--only-changed`: a folder, a sandbox that notes what it is sent, and its state."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bulk_updater.config import ChangesConfig, RetryConfig
from bulk_updater.pipeline import run
from bulk_updater.sandbox.answers import error_answer
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.faults import Fault
from bulk_updater.state import State

from .again import export
from .helpers import config_for, ledger_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bulk_updater.config import RunConfig
    from bulk_updater.model import RunSummary
    from bulk_updater.sandbox import Sandbox

ATTRIBUTES = "update_contact_attributes"
CONTACT = "update_contact"
READ = "get_contact_attributes"
OTHER_INSTANCE = "87654321-90ab-cdef-1234-567890abcdef"

NIGHT_S = 86_400
FIRST_NIGHT_S = 1_772_352_000
"""2026-03-01T08:00:00Z."""


class Service:
    """A sandbox's script, that notes what it is sent as an export's rows say it: `c-1 a=1`.

    Attributes:
        sent: Every attempt to write, in order.
        read: The contacts that were read back.
        faults: What becomes of requests that write a value, by the value.
        also: Called at every request to write.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.read: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.refuses_reads = False
        self.also: Callable[[], None] = lambda: None

    def __call__(self, operation: str, members: dict[str, Any]) -> Fault | None:
        contact_id = members.get("InitialContactId") or members.get("ContactId", "")
        if operation == READ:
            self.read.append(contact_id)
            return denied() if self.refuses_reads else None
        if operation not in (ATTRIBUTES, CONTACT):
            return None
        written = {**members.get("Attributes", {})}
        if "Name" in members:
            written["n"] = members["Name"]
        said = " ".join(f"{name}={value}" for name, value in sorted(written.items()))
        self.sent.append(f"{contact_id} {said}")
        self.also()
        return next(
            (self.faults[value] for value in written.values() if value in self.faults), None
        )

    def take_sent(self) -> list[str]:
        """What was sent since this was asked last."""
        sent, self.sent = self.sent, []
        return sent


def refused() -> Fault:
    error = ServiceError("InvalidRequestException", "It is refused.")
    return Fault(kind="refused", answer=error_answer(error))


def denied() -> Fault:
    error = ServiceError("AccessDeniedException", "You may not.")
    return Fault(kind="denied", answer=error_answer(error))


class Nights:
    """One folder, one sandbox and one state file, and every night an export."""

    def __init__(self, folder: Path, sandbox: Sandbox, service: Service) -> None:
        self.folder, self.sandbox, self.service = folder, sandbox, service
        self.state = folder / "runs" / "state.sqlite"
        self.night = 0
        self._loop = asyncio.get_running_loop()

    def config(self, *rows: str, name: str | None = None, **settings: Any) -> RunConfig:
        """A run of tonight's export, in a run directory of its own unless it has one by name."""
        name = name or f"night-{self.night}"
        source = self.folder / f"{name}.csv"
        if rows:
            export(source, *rows)
        changes = settings.pop("changes", {})
        settings.setdefault("run_dir", self.folder / name)
        settings.setdefault("max_in_flight", 1)
        settings.setdefault("retry", RetryConfig(max_attempts=2))
        rehearsal = settings.pop("rehearsal", False)
        only_changed = settings.pop("only_changed", True)
        config = config_for(
            self.sandbox,
            self.folder,
            source,
            changes=ChangesConfig(only_changed=only_changed, **changes),
            **settings,
        )
        return replace(config, sandbox=rehearsal)

    def now(self) -> float:
        return FIRST_NIGHT_S + self.night * NIGHT_S + self._loop.time()

    async def run(self, *rows: str, stop: asyncio.Event | None = None, **settings: Any) -> Night:
        """A night: the outcomes that there are, and what was sent."""
        self.night += 1
        return await self.same_night(*rows, stop=stop, **settings)

    async def same_night(
        self, *rows: str, stop: asyncio.Event | None = None, **settings: Any
    ) -> Night:
        """One more run in the same night."""
        return await self.run_as(self.config(*rows, **settings), stop=stop)

    async def run_as(self, config: RunConfig, *, stop: asyncio.Event | None = None) -> Night:
        """Tonight, a run as it is."""
        self.service.take_sent()
        night = self.night  # a later one may begin while this goes on
        summary = await run(
            config, stop=stop, now=lambda: FIRST_NIGHT_S + night * NIGHT_S + self._loop.time()
        )
        return Night(config, summary, self.service.take_sent())

    async def stopped(self, *rows: str, after: int, **settings: Any) -> Night:
        """A night that is told to stop when so many requests have come in."""
        stop = asyncio.Event()
        count = itertools.count(1)
        self.service.also = lambda: stop.set() if next(count) >= after else None
        try:
            return await self.run(*rows, stop=stop, **settings)
        finally:
            self.service.also = lambda: None

    async def doubts(self) -> dict[str, bool]:
        """What is remembered: each contact, and whether it is in doubt."""

        def read() -> dict[str, bool]:
            with State.read_only(self.state) as state:
                return {known.contact_id: known.in_doubt for known in state.rows()}

        return await asyncio.to_thread(read)


class Night:
    """How a night ended."""

    def __init__(self, config: RunConfig, summary: RunSummary, sent: list[str]) -> None:
        self.config, self.summary, self.sent = config, summary, sent
        self.outcomes = {name: n for name, n in summary.outcomes.items() if n}

    def by_row(self, operation: str = ATTRIBUTES) -> list[str]:
        """The standing outcome of each row, in order of rows."""
        standing = {
            record["row"]: record["outcome"]
            for record in ledger_of(self.summary)
            if record["operation"] == operation
        }
        return [standing[row] for row in sorted(standing)]
