"""`plan`: everything but the sending.

A million rows are read, mapped and counted in seconds: no request is made but the one that is
shown. Meanwhile the quotas are asked for, as a run would. That never fails a plan: where nobody
can be asked, it says so and counts with what a run would believe.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bulk_updater.connect import CredentialsEnd, read_credentials_end, read_quotas
from bulk_updater.errors import ConfigError, StateError
from bulk_updater.ledger import SettledRows
from bulk_updater.mapping import EXPIRED
from bulk_updater.model import Outcome, QuotaOrigin, Result, to_iso
from bulk_updater.pacing import ceiling_per_s, initial_rate_per_s
from bulk_updater.pipeline.changes import recall_of, state_file
from bulk_updater.pipeline.deciding import SEVERAL, Gathering, decide
from bulk_updater.pipeline.estimate import (
    AtQuota,
    at_other_quotas,
    describe_pace,
    nights_of,
)
from bulk_updater.pipeline.job import OpenedJob, open_job
from bulk_updater.pipeline.lasting import describe_credentials_end, lasts_s
from bulk_updater.pipeline.ordering import group_rows, sending_order, will_expire_before_turn
from bulk_updater.pipeline.quotas import KnownQuotas, find_quotas
from bulk_updater.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from bulk_updater.config import PacingConfig, RunConfig
    from bulk_updater.mapping import MappedFrame, MappedOperation
    from bulk_updater.operations import Operation
    from bulk_updater.pipeline.deciding import Decisions

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
        n_requests: Requests to send, one for each row that makes one; rows of one contact that
            wait for each other may be merged into fewer.
        n_unchanged: Rows that would be UNCHANGED.
        n_invalid: Rows that would be INVALID.
        skipped: Rows that would be SKIPPED, by reason; `expired` are those whose contact Connect
            has forgotten when their turn comes, at the rate that a run begins with.
        invalid: The INVALID rows grouped by rule and place, the largest group first.
        max_payload_bytes: The largest payload, in UTF-8 bytes.
        example: The first request, as `aws connect … --cli-input-json` takes it; None if none.
        pace: How fast and why, as a clause.
        quota_code: What to ask AWS for to have the quota raised.
        quota_per_s: What a run would believe of the quota, in requests per second.
        origin: Who says so.
        unread: Why it is not the applied quota, as a clause; None where it is.
        ceiling_per_s: Requests per second that are never exceeded; None where a run would find
            out how much there is.
        initial_rate_per_s: Requests per second that a run begins with.
        takes_s: Seconds at that rate, if nothing else takes from the quota.
        at_other_quotas: For more than an hour: how long it would take with larger quotas.
    """

    operation: str
    n_requests: int = 0
    n_unchanged: int = 0
    n_invalid: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    invalid: list[InvalidGroup] = field(default_factory=list)
    max_payload_bytes: int = 0
    example: dict[str, Any] | None = None
    pace: str = ""
    quota_code: str = ""
    quota_per_s: float = 0.0
    origin: QuotaOrigin = QuotaOrigin.DOCUMENTED
    unread: str | None = None
    ceiling_per_s: float | None = None
    initial_rate_per_s: float = 0.0
    takes_s: float = 0.0
    at_other_quotas: tuple[AtQuota, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        n_rows: Rows in all sources, or the limit.
        sources: Each source with its rows that were taken.
        operations: Each operation of the mapping.
        account_id: The AWS account whose quotas they are; None where that is not known.
        takes_s: Seconds that the run would take; the operations go side by side.
        n_nights: How many nights that would be, where it may not always work; None where it may.
        ends_at: When it would be done, as UTC ISO 8601, if it began now; None where it may always
            work, and where it never would be, since the time that it has is too short.
        warnings: What is unusual but allowed.
    """

    n_rows: int
    sources: tuple[tuple[str, int], ...]
    operations: tuple[OperationPlan, ...]
    account_id: str | None
    takes_s: float
    warnings: tuple[str, ...]
    n_nights: int | None = None
    ends_at: str | None = None


def plan(config: RunConfig, *, warn: Callable[[str], None] | None = None) -> Plan:
    """Read and map everything, and send nothing. Blocks.

    Args:
        config: The run that it would be; its run directory is not touched.
        warn: Told each of the mapping's warnings before a row is looked at, for what one of them
            warns of may hold the plan up for ever. They are in the plan, too.

    Raises:
        UsageError: If the mapping or a source is not usable.
    """
    config.schedule.deadline_at(time.time())  # refused before a row is looked at
    job = open_job(config)
    if warn is not None:
        for warning in job.spec.warnings:
            warn(warning)
    asked = _ask_meanwhile(config, job.operations)
    n_rows = dict.fromkeys((source.name for source, _ in job.sources), 0)
    counters = [
        _Counter(operation, may_expire=job.spec.started is not None) for operation in job.operations
    ]
    gathering = Gathering() if config.changes.only_changed else None
    for frame in _one_ahead(job):
        if gathering is not None:
            gathering.add(frame)
        n_rows[frame.frame.source] += len(frame.frame.rows) + len(frame.frame.unreadable)
        for counter, mapped in zip(counters, frame.operations, strict=True):
            counter.add(frame, mapped)
    known, ends = asked.result()
    unsure = None
    if gathering is not None:
        unsure = _leave_unchanged_out(counters, gathering, config, known, sum(n_rows.values()))
    for counter in counters:
        quota = known.quotas[counter.operation]
        counter.leave_expired_out(config.order, initial_rate_per_s(config.pacing, quota))
    operations = tuple(counter.result(config.pacing, known) for counter in counters)
    takes_s = max(operation.takes_s for operation in operations)
    now = time.time()
    worked = nights_of(config, takes_s, now)
    ends_early = describe_credentials_end(ends, now_s=now, takes_s=lasts_s(config, takes_s, now))
    return Plan(
        n_rows=sum(n_rows.values()),
        sources=tuple(n_rows.items()),
        operations=operations,
        account_id=known.account_id,
        takes_s=takes_s,
        warnings=(
            *job.spec.warnings,
            *(each for each in (ends_early, unsure) if each is not None),
        ),
        n_nights=None if worked is None else worked.n_nights,
        ends_at=None if worked is None or worked.ends_at is None else to_iso(worked.ends_at),
    )


def _ask_meanwhile(
    config: RunConfig, operations: tuple[Operation, ...]
) -> Future[tuple[KnownQuotas, CredentialsEnd]]:
    """What a run would believe of quotas and credentials, found out in a thread, within seconds."""
    asked: Future[tuple[KnownQuotas, CredentialsEnd]] = Future()

    async def ask() -> None:
        read = partial(read_quotas, config.connection)
        known, ends = await asyncio.gather(
            find_quotas(config, operations, read, now=time.time),
            read_credentials_end(config.connection),
        )
        # Before the loop is closed, which waits for threads, and with them for whatever is slow
        # to load credentials.
        asked.set_result((known, ends))

    def work() -> None:
        try:
            asyncio.run(ask())
        finally:
            asked.cancel()  # a mistake of ours ends the plan; does nothing to what is done

    # A daemon: nobody waits for it where the source turns out to be unusable.
    threading.Thread(target=work, name="ask-quotas", daemon=True).start()
    return asked


def _one_ahead(job: OpenedJob) -> Iterator[MappedFrame]:
    """The frames, each read and mapped in a thread while the one before it is counted."""
    frames = job.mapped_frames()
    with ThreadPoolExecutor(max_workers=1) as executor:
        coming = executor.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = executor.submit(next, frames, None)
            yield frame


def _leave_unchanged_out(
    counters: list[_Counter],
    gathering: Gathering,
    config: RunConfig,
    known: KnownQuotas,
    n_rows: int,
) -> str | None:
    """Count what a run would not send; a warning where nobody can say."""
    path, now = state_file(config), time.time()
    if not path.exists():
        return None  # nothing is remembered yet, so everything would be sent
    try:
        with State.read_only(path) as state:
            decisions = decide(
                gathering,
                SettledRows(),
                n_rows=n_rows,
                operations=[counter.operation for counter in counters],
                recall=recall_of(config, state, known, began_at=now, now=now),
            )
    except (ConfigError, StateError) as error:
        return f"What is unchanged cannot be told, so all is counted: {error.message}"
    for counter in counters:
        counter.leave_unchanged_out(decisions)
    return None


class _Counter:
    def __init__(self, operation: Operation, *, may_expire: bool) -> None:
        self.operation = operation.name
        self._may_expire = may_expire
        self._plan = OperationPlan(operation.name, quota_code=operation.quota_code)
        self._skipped: Counter[str] = Counter()
        self._groups: dict[tuple[str, str | None], InvalidGroup] = {}
        self._expiring: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []

    def add(self, frame: MappedFrame, mapped: MappedOperation) -> None:
        """Count one frame's rows."""
        to_send = mapped.to_send
        n_requests = int(to_send.sum())
        self._plan.n_requests += n_requests
        self._skipped.update(mapped.skipped())
        if self._may_expire:
            at = np.flatnonzero(to_send)
            self._expiring.append((frame.frame.rows[at], frame.expires_at[at]))
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

    def leave_unchanged_out(self, decisions: Decisions) -> None:
        """Rows that would not be sent after all."""
        n_unchanged = decisions.n_decided(self.operation, Outcome.UNCHANGED)
        self._plan.n_unchanged += n_unchanged
        self._plan.n_requests -= n_unchanged
        codes = decisions.codes(self.operation)
        for index, (rows, expires_at) in enumerate(self._expiring):
            is_sent = codes[rows] & ~np.uint8(SEVERAL) == 0
            self._expiring[index] = rows[is_sent], expires_at[is_sent]

    def leave_expired_out(self, order: str, rate_per_s: float) -> None:
        """Rows whose turn would come too late."""
        if not self._expiring:
            return
        expires_at = np.concatenate([each for _, each in self._expiring])
        if order == "oldest-first":
            expires_at = expires_at[sending_order(group_rows(expires_at))]
        n_expired = will_expire_before_turn(expires_at, time.time(), rate_per_s)
        self._skipped[EXPIRED] += n_expired
        self._plan.n_requests -= n_expired

    def _group(self, rule: str, member: str | None, columns: tuple[str, ...]) -> InvalidGroup:
        return self._groups.setdefault((rule, member), InvalidGroup(rule, member, columns))

    def _count(self, group: InvalidGroup, first_rows: list[int], n_rows: int) -> None:
        group.first_rows = (group.first_rows + first_rows)[:_ROWS_SHOWN]
        group.n_rows += n_rows
        self._plan.n_invalid += n_rows

    def result(self, pacing: PacingConfig, known: KnownQuotas) -> OperationPlan:
        """What was counted, and how long it takes."""
        plan, quota = self._plan, known.quotas[self._plan.operation]
        # No Counter: `asdict` would build it anew from pairs, and count the pairs.
        plan.skipped = dict(self._skipped)
        plan.invalid = sorted(self._groups.values(), key=lambda group: -group.n_rows)
        plan.pace = describe_pace(pacing, quota, known.account_id)
        plan.quota_per_s, plan.origin, plan.unread = quota.rate_per_s, quota.origin, quota.unread
        plan.ceiling_per_s = ceiling_per_s(pacing, quota)
        plan.initial_rate_per_s = initial_rate_per_s(pacing, quota)
        plan.takes_s = plan.n_requests / plan.initial_rate_per_s
        plan.at_other_quotas = at_other_quotas(plan.n_requests, pacing, quota)
        return plan
