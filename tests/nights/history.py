"""What happened in a year, as far as the oracle is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulk_updater.model import RunSummary
    from tests.simulation.scenario import Ending

    from .scenario import Year

Results = dict[tuple[int, str], str]
"""The standing outcome of each row and operation, as the ledger has it on the disk."""


@dataclass(eq=False)
class Execution:
    """One command, once.

    Attributes:
        night: The night whose export it is about; `at_night` is the one in which it ran.
        command: `run`, `resume` (of an earlier night), `retry` or `rival`.
        deadline_at: When it has to have ended, in seconds since the epoch.
    """

    number: int
    night: int
    at_night: int
    command: str
    begun_s: float
    begun_at: float
    deadline_at: float | None = None
    verifies: bool = False
    ending: Ending | None = None
    crashed_s: float | None = None
    ended_s: float = 0.0
    before: Results = field(default_factory=dict)
    after: Results = field(default_factory=dict)
    n_lines: Counter[tuple[int, str]] = field(default_factory=Counter)
    summary: RunSummary | None = None
    error: str | None = None
    error_kind: str | None = None
    n_watched: int = 0

    @property
    def is_finished(self) -> bool:
        return self.summary is not None and self.summary.state == "finished"


@dataclass
class Attempt:
    """One call of `Connect.send`, as the client saw it; times by the loop's clock."""

    execution: Execution
    operation: str
    contact: str
    row: int
    begun_s: float
    ended_s: float | None = None
    code: str | None = None
    throttled: bool = False
    succeeded: bool = False


@dataclass
class Meddling:
    """Someone else wrote to a contact."""

    contact: str
    key: str
    value: str


@dataclass
class Entry:
    """What the state file says of a contact."""

    operation: str
    contact: str | None
    key: bytes
    digest: int | None
    is_certain: bool


@dataclass
class Dawn:
    """The morning after a night."""

    night: int
    service: dict[str, Any]
    entries: list[Entry]


@dataclass
class History:
    """All that the oracle is told; `events` are executions, meddling and dawns in their order."""

    year: Year
    events: list[Execution | Meddling | Dawn] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    hit: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def executions(self) -> list[Execution]:
        return [event for event in self.events if isinstance(event, Execution)]
