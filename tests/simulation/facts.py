"""The history of a scenario, sorted out for the oracle."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from .export import expected

if TYPE_CHECKING:
    from .history import Attempt, Execution, History, Line


class Facts:
    """The history, sorted out.

    Attributes:
        older: Of the run that this one took over from, if it did.
        is_superseded: Whether another one took over from this one.
        left: Which results it had before that, and how many lines its ledger.
    """

    def __init__(self, history: History) -> None:
        scenario = history.scenario
        self.history = history
        self.older = None if history.older is None else Facts(history.older)
        self.is_superseded = history.ledger_left is not None
        left = _parse(history.ledger_left or b"")[0]
        self.left = {key_of(each): each["outcome"] for each in left}
        self.n_lines_left = len(left)
        self.scenario = scenario
        self.due = {
            (number, operation): expected(scenario, row, operation)
            for number, row in enumerate(scenario.rows, start=1)
            for operation in scenario.operations
        }
        self.records, self.broken = _parse(history.ledger)
        self.courses: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for record in self.records:
            self.courses.setdefault(key_of(record), []).append(record)
        self.standing = {key: course[-1] for key, course in self.courses.items()}
        self.arrival_of = {each.request_id: each for each in history.arrivals}
        self.applied = [(write, self.arrival_of[write.request_id]) for write in history.writes]
        self.lanes: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in history.attempts:
            self.lanes[attempt.lane].append(attempt)

    def outcome(self, row: int, operation: str) -> str | None:
        record = self.standing.get((row, operation))
        return None if record is None else record["outcome"]

    def rows_of(self, contact: str) -> list[int]:
        return [n for n, row in enumerate(self.scenario.rows, start=1) if row.contact == contact]

    def execution_of(self, record: dict[str, Any]) -> Execution:
        """The execution that wrote a record: the last one that did not find it there."""
        return next(
            each for each in reversed(self.history.executions) if len(each.before) <= record["line"]
        )

    def is_dropped(self, row: int, operation: str) -> bool:
        """Whether a row was left when another run took over."""
        return self.is_superseded and (row, operation) not in self.left

    def written_later(self, row: int, operation: str, standing: dict[Any, Line]) -> set[str]:
        """The keys that later rows of a row's contact wrote, of the results that stood."""
        keys: set[str] = set()
        for later in self.rows_of(self.scenario.rows[row - 1].contact):
            line = standing.get((later, operation))
            if later > row and line is not None and line.outcome == "UPDATED":
                # Also of one that was itself sent late: what it left out, a later one wrote.
                keys |= self.written_due(later, operation).keys()
        return keys

    def written_due(self, row: int, operation: str) -> dict[str, str]:
        """What a row is to write, by key; nothing where it is INVALID or SKIPPED."""
        due = self.due[row, operation]
        return {} if isinstance(due, str) else due


def key_of(record: dict[str, Any]) -> tuple[int, str]:
    """The row and the operation of a record."""
    return record["row"], record["operation"]


def _parse(ledger: bytes) -> tuple[list[dict[str, Any]], list[int]]:
    """The records, each with its place among the lines, and the lines that are none."""
    records, broken = [], []
    for number, line in enumerate(ledger.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            key_of(record)
            records.append({**record, "line": number - 1})
        except (ValueError, TypeError, KeyError):
            broken.append(number)
    if ledger and not ledger.endswith(b"\n"):
        broken.append(ledger.count(b"\n") + 1)
    return records, broken
