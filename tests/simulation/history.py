"""What happened while a scenario ran, as far as the oracle is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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


class Line(NamedTuple):
    """What a line of the ledger says."""

    row: int
    operation: str
    outcome: str
    code: str

    @property
    def key(self) -> tuple[int, str]:
        return self.row, self.operation


@dataclass
class Execution:
    """One execution of the run, and what was left of it."""

    number: int
    begun_s: float
    ending: Ending | None = None
    max_in_flight: int = 1
    command: Literal["run", "retry"] = "run"
    codes: tuple[str, ...] = ()
    """What a retry asks for; nothing: whatever the code."""
    ended_s: float = 0.0
    crashed_s: float | None = None
    before: tuple[Line, ...] = ()
    """The lines of the ledger when it began."""
    summary: RunSummary | None = None
    error: str | None = None
    stop_s: float | None = None
    """When it was told to stop."""
    said: list[str] = field(default_factory=list)
    """What it logged."""
    progress: Progress = field(default_factory=Progress)
    left_over: list[str] = field(default_factory=list)
    older: tuple[bytes, dict[str, Any]] | None = None
    """What was durable of the older run's ledger and `run.json` when the first request was sent."""

    @cached_property
    def durable_before(self) -> frozenset[tuple[int, str]]:
        """What had a result when it began."""
        return frozenset(self.standing)

    @cached_property
    def standing(self) -> dict[tuple[int, str], Line]:
        """The result that stood when it began, of each row and operation."""
        return {line.key: line for line in self.before}

    def sends_again(self, key: tuple[int, str]) -> bool:
        """Whether it is a retry that this result is to be replaced by."""
        line = self.standing.get(key)
        if self.command != "retry" or line is None or line.outcome != "FAILED":
            return False
        return not self.codes or line.code in self.codes


@dataclass
class History:
    """All that the oracle is told of one run directory.

    Attributes:
        scenario: What the run was about.
        snapshots: The same at moments when all was at rest, before anything else was begun: each
            is to be judged, too.
        older: What happened in the directory of the run that this one took over from.
        ledger_left: Its ledger when it was left to be taken over from; None: it was not.
    """

    scenario: Scenario
    executions: list[Execution] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    durable_first_s: dict[tuple[int, int, str], float] = field(default_factory=dict)
    """When an execution had a result on the disk, whatever became of it."""
    writes: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    ledger: bytes = b""
    failed_rows: set[int] | None = None
    modes: dict[str, int] = field(default_factory=dict)
    hit: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rival_refused: bool | None = None
    note: dict[str, Any] = field(default_factory=dict)
    """What `run.json` holds."""
    snapshots: list[History] = field(default_factory=list)
    older: History | None = None
    ledger_left: bytes | None = None

    @property
    def directories(self) -> list[History]:
        """What happened in each directory, the older one first."""
        return [*(self.older.directories if self.older else ()), self]

    @property
    def judged(self) -> list[History]:
        """All that the promises are asked of."""
        return [one for each in self.directories for one in (*each.snapshots, each)]
