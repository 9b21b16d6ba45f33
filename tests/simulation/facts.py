"""The history of a scenario, sorted out for the oracle."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from .export import expected

if TYPE_CHECKING:
    from .history import Attempt, History


class Facts:
    """The history, sorted out."""

    def __init__(self, history: History) -> None:
        scenario = history.scenario
        self.history = history
        self.scenario = scenario
        self.due = {
            (number, operation): expected(scenario, row, operation)
            for number, row in enumerate(scenario.rows, start=1)
            for operation in scenario.operations
        }
        self.records, self.broken = _parse(history.ledger)
        self.standing = {(each["row"], each["operation"]): each for each in self.records}
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


def _parse(ledger: bytes) -> tuple[list[dict[str, Any]], list[int]]:
    """The records, and the lines that are none."""
    records, broken = [], []
    for number, line in enumerate(ledger.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            records.append({**record, "row": record["row"], "operation": record["operation"]})
        except (ValueError, TypeError, KeyError):
            broken.append(number)
    if ledger and not ledger.endswith(b"\n"):
        broken.append(ledger.count(b"\n") + 1)
    return records, broken
