"""What happened while a scenario ran, as far as the oracle is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulk_updater.model import Progress

if TYPE_CHECKING:
    from bulk_updater.model import RunSummary

    from .scenario import Ending, Scenario


@dataclass
class Attempt:
    """One call of `Connect.send`, as the client saw it."""

    execution: int
    operation: str
    contact: str
    row: int
    members: dict[str, Any]
    begun_s: float
    ended_s: float | None = None
    code: str | None = None
    request_id: str | None = None
    throttled: bool = False
    rejected: bool = False

    @property
    def lane(self) -> tuple[str, str]:
        return self.operation, self.contact

    @property
    def succeeded(self) -> bool:
        return self.request_id is not None


@dataclass
class Arrival:
    """One request, as the service saw it."""

    at_s: float
    operation: str
    contact: str
    row: int
    written: dict[str, str]
    request_id: str


@dataclass
class Execution:
    """One execution of the run, and what was left of it."""

    number: int
    begun_s: float
    ending: Ending | None = None
    max_in_flight: int = 1
    ended_s: float = 0.0
    crashed_s: float | None = None
    durable_before: frozenset[tuple[int, str]] = frozenset()
    summary: RunSummary | None = None
    error: str | None = None
    stop_s: float | None = None
    """When it was told to stop."""
    said: list[str] = field(default_factory=list)
    """What it logged."""
    progress: Progress = field(default_factory=Progress)
    left_over: list[str] = field(default_factory=list)


@dataclass
class History:
    """All that the oracle is told."""

    scenario: Scenario
    executions: list[Execution] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    durable_at: dict[tuple[int, str], float] = field(default_factory=dict)
    """When a result first was on the disk, of those that still are."""
    durable_first_s: dict[tuple[int, int, str], float] = field(default_factory=dict)
    """The same, by the execution that made it durable, whatever became of it."""
    writes: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    ledger: bytes = b""
    failed_rows: set[int] | None = None
    modes: dict[str, int] = field(default_factory=dict)
    hit: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rival_refused: bool | None = None
