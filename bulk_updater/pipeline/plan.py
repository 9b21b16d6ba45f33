"""`plan`: everything but the sending.

A million rows are read, mapped and counted in seconds: no request is made but the one that is
shown.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulk_updater.model import Result
from bulk_updater.pipeline.job import OpenedJob, open_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.config import RunConfig
    from bulk_updater.mapping import MappedFrame, MappedOperation

__all__ = ["InvalidGroup", "OperationPlan", "Plan", "plan"]

_ROWS_SHOWN = 5


@dataclass(slots=True)
class InvalidGroup:
    """Rows that break one rule in one place.

    Attributes:
        rule: The rule's name.
        member: The member of the request; None where the row could not be read.
        columns: The columns that it is made from.
        n_rows: How many rows.
        first_rows: The first few of their numbers.
        example: What is wrong with the first of them; holds no cell.
    """

    rule: str
    member: str | None
    columns: tuple[str, ...]
    n_rows: int = 0
    first_rows: list[int] = field(default_factory=list)
    example: str = ""


@dataclass(slots=True)
class OperationPlan:
    """What one operation comes to.

    Attributes:
        operation: Its snake_case name.
        n_requests: Requests, one for each row that makes one; rows of one contact that wait for
            each other may be merged into fewer.
        n_invalid: Rows that would be INVALID.
        skipped: Rows that would be SKIPPED, by reason.
        invalid: The INVALID rows grouped by rule and place, the largest group first.
        max_payload_bytes: The largest payload, in UTF-8 bytes.
        example: The first request, as `aws connect … --cli-input-json` takes it; None if none.
        takes_s: Seconds at the ceiling, if nothing else takes from the quota.
    """

    operation: str
    n_requests: int = 0
    n_invalid: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    invalid: list[InvalidGroup] = field(default_factory=list)
    max_payload_bytes: int = 0
    example: dict[str, Any] | None = None
    takes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        n_rows: Rows in all sources, or the limit.
        sources: Each source with its rows that were taken.
        operations: Each operation of the mapping.
        ceiling_per_s: Requests that would be started per second, for each operation.
        takes_s: Seconds that the run would take; the operations go side by side.
        warnings: What is unusual but allowed.
    """

    n_rows: int
    sources: tuple[tuple[str, int], ...]
    operations: tuple[OperationPlan, ...]
    ceiling_per_s: float
    takes_s: float
    warnings: tuple[str, ...]


def plan(config: RunConfig) -> Plan:
    """Read and map everything, and send nothing. Blocks.

    Args:
        config: The run that it would be; its run directory is not touched.

    Raises:
        UsageError: If the mapping or a source is not usable.
    """
    job = open_job(config)
    n_rows = dict.fromkeys((source.name for source, _ in job.sources), 0)
    counters = [_Counter(operation.name) for operation in job.operations]
    for frame in _one_ahead(job):
        n_rows[frame.frame.source] += len(frame.frame.rows) + len(frame.frame.unreadable)
        for counter, mapped in zip(counters, frame.operations, strict=True):
            counter.add(frame, mapped)
    ceiling = config.pacing.ceiling_per_s
    operations = tuple(counter.result(ceiling) for counter in counters)
    return Plan(
        n_rows=sum(n_rows.values()),
        sources=tuple(n_rows.items()),
        operations=operations,
        ceiling_per_s=ceiling,
        takes_s=max(operation.takes_s for operation in operations),
        warnings=job.spec.warnings,
    )


def _one_ahead(job: OpenedJob) -> Iterator[MappedFrame]:
    """The frames, each read and mapped in a thread while the one before it is counted."""
    frames = job.mapped_frames()
    with ThreadPoolExecutor(max_workers=1) as executor:
        coming = executor.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = executor.submit(next, frames, None)
            yield frame


class _Counter:
    def __init__(self, operation: str) -> None:
        self._plan = OperationPlan(operation)
        self._skipped: Counter[str] = Counter()
        self._groups: dict[tuple[str, str | None], InvalidGroup] = {}

    def add(self, frame: MappedFrame, mapped: MappedOperation) -> None:
        """Count one frame's rows."""
        to_send = mapped.to_send
        n_requests = int(to_send.sum())
        self._plan.n_requests += n_requests
        self._skipped.update(mapped.skipped())
        if n_requests:
            largest = int(mapped.sizes[to_send].max())
            self._plan.max_payload_bytes = max(self._plan.max_payload_bytes, largest)
            if self._plan.example is None:
                self._plan.example = dict(mapped.request(int(to_send.argmax())).params)
        for breach, rows in mapped.invalid_rows():
            group = self._group(breach.rule, breach.member, breach.columns)
            if not group.n_rows:
                first = mapped.entry(int(frame.frame.rows.searchsorted(rows[0])))
                group.example = (first.error if isinstance(first, Result) else None) or ""
            self._count(group, rows[:_ROWS_SHOWN].tolist(), len(rows))
        for bad in frame.frame.unreadable:
            columns = (bad.error.column,) if bad.error.column else ()
            group = self._group(bad.error.rule, None, columns)
            group.example = group.example or bad.error.message
            self._count(group, [bad.row], 1)

    def _group(self, rule: str, member: str | None, columns: tuple[str, ...]) -> InvalidGroup:
        return self._groups.setdefault((rule, member), InvalidGroup(rule, member, columns))

    def _count(self, group: InvalidGroup, first_rows: list[int], n_rows: int) -> None:
        group.first_rows = (group.first_rows + first_rows)[:_ROWS_SHOWN]
        group.n_rows += n_rows
        self._plan.n_invalid += n_rows

    def result(self, ceiling_per_s: float) -> OperationPlan:
        """What was counted."""
        # No Counter: `asdict` would build it anew from pairs, and count the pairs.
        self._plan.skipped = dict(self._skipped)
        self._plan.invalid = sorted(self._groups.values(), key=lambda group: -group.n_rows)
        self._plan.takes_s = self._plan.n_requests / ceiling_per_s
        return self._plan
