"""What flows through a run: frames in, requests out, one result for every row and operation.

A *row* is one data row, numbered from 1 through all sources in order, headers not counted.
Every row gets exactly one result for each operation of the mapping; `(row, operation)` is what
the ledger knows a result by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from bulk_updater.errors import RowError

__all__ = [
    "FAILED_COLUMNS",
    "FoundQuota",
    "Frame",
    "Outcome",
    "PaceSummary",
    "Progress",
    "Quota",
    "QuotaOrigin",
    "Request",
    "Result",
    "RunSummary",
    "UnreadableRow",
    "Verdict",
    "to_iso",
]


FAILED_COLUMNS = ("_row", "_operation", "_outcome", "_error_code", "_error")
"""What `failed.csv` has behind a source's own columns; never taken for data when it is run."""


class Outcome(StrEnum):
    """How a row ended."""

    UPDATED = "UPDATED"
    """Connect said yes."""
    FAILED = "FAILED"
    """Connect said no, or the attempts ran out."""
    INVALID = "INVALID"
    """The row breaks a rule; it was never sent."""
    SKIPPED = "SKIPPED"
    """Filtered by `where`, nothing was left to send, or past the time that Connect keeps it."""
    UNCHANGED = "UNCHANGED"
    """Not sent: the contact holds it already, as far as is known."""
    SUPERSEDED = "SUPERSEDED"
    """Not sent: something newer stands for the contact, and this would undo it."""


class Verdict(Enum):
    """What to do after an attempt that did not succeed."""

    RETRY = "retry"
    FAIL_ROW = "fail_row"
    STOP_RUN = "stop_run"


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that its source could not yield as cells.

    Attributes:
        row: The row's number.
        error: Which rule it breaks; its message holds no cell.
        cells: The row's cells as bytes in the source's own encoding, as far as they can be told
            apart. For `failed.csv` only.
    """

    row: int
    error: RowError
    cells: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """A run of rows of one source, in file order.

    Attributes:
        source: The source, as it was named.
        rows: Row numbers of the frame's rows, ascending; gaps are the unreadable rows.
        cells: One row for each of `rows`, one column for each column that was asked for. Every
            cell is text (`ArrowDtype(string)`) and never null; an empty cell is `""`.
        unreadable: The rows among these that could not be read, ascending.
    """

    source: str
    rows: npt.NDArray[np.int64]
    cells: pd.DataFrame
    unreadable: tuple[UnreadableRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One API call to make.

    Attributes:
        row: The row it comes from.
        source: The source of that row.
        operation: The operation's snake_case name, such as `update_contact_attributes`.
        instance_id: The Connect instance.
        contact_id: The contact: `InitialContactId` or `ContactId`.
        params: The request as boto3 takes it, ids included.
        payload_bytes: UTF-8 bytes of all keys and values that are written, ids not counted.
        payload_digest: 16 hex digits over what the row writes, ids not counted; "" where the
            request writes only a part of it.
    """

    row: int
    source: str
    operation: str
    instance_id: str
    contact_id: str
    params: Mapping[str, Any] = field(repr=False)
    payload_bytes: int
    payload_digest: str = ""

    @property
    def lane(self) -> tuple[str, str, str]:
        """What rows must not overtake each other on: operation, instance and contact."""
        return (self.operation, self.instance_id, self.contact_id)


def to_iso(epoch_s: float) -> str:
    """Seconds since the epoch as UTC ISO 8601 in milliseconds: `2026-03-01T08:00:00.000Z`."""
    # Microseconds first, as datetime rounds: int(epoch_s * 1000) may be one millisecond off.
    second, microsecond = divmod(round(epoch_s * 1_000_000), 1_000_000)
    return f"{_second_to_iso(second)}.{microsecond // 1000:03d}Z"


@lru_cache(maxsize=16)
def _second_to_iso(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True, slots=True)
class Result:
    """How one row ended, for one operation: a record of the ledger.

    Holds no cell but the two ids. Attributes that say nothing (None, 0, empty) are left out of
    the record.

    Attributes:
        row: The row's number, from 1.
        source: The source of the row.
        operation: The operation's snake_case name.
        outcome: How it ended.
        instance_id: The Connect instance; None where the row did not get so far.
        contact_id: The contact; None where the row did not get so far.
        attempts: Attempts that were answered with anything but throttling, and those that were
            not answered.
        throttled: Attempts that were answered with throttling.
        http_status: Status of the last answer.
        error_code: The service's code, or the rule that the row breaks.
        error: Row, column, rule and figures in one sentence.
        request_id: The service's id of the last attempt.
        payload_digest: 16 hex digits over what the row writes, ids not counted: two rows that
            write the same have the same.
        attribute_names: What the row itself writes: attribute keys, or members such as
            `References.crm`.
        payload_bytes: UTF-8 bytes of all keys and values written.
        merged_into: The later row whose request carried this row's changes.
        started_at: When the first attempt began, in seconds since the epoch.
        finished_at: When the row ended, in seconds since the epoch.
        took_ms: From then to the server's last word, by a monotonic clock; waits between
            attempts are in it.
    """

    row: int
    source: str
    operation: str
    outcome: Outcome
    instance_id: str | None = None
    contact_id: str | None = None
    attempts: int = 0
    throttled: int = 0
    http_status: int | None = None
    error_code: str | None = None
    error: str | None = None
    request_id: str | None = None
    payload_digest: str | None = None
    attribute_names: tuple[str, ...] = ()
    payload_bytes: int = 0
    merged_into: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    took_ms: int | None = None

    def to_record(self, run_id: str) -> dict[str, Any]:
        """The result as the ledger keeps it: design order, times as ISO 8601, nothing empty."""
        record: dict[str, Any] = {
            "run_id": run_id,
            "row": self.row,
            "source": self.source,
            "operation": self.operation,
            "instance_id": self.instance_id,
            "contact_id": self.contact_id,
            "outcome": self.outcome.value,
            "attempts": self.attempts,
            "throttled": self.throttled,
            "http_status": self.http_status,
            "error_code": self.error_code,
            "error": self.error,
            "request_id": self.request_id,
            "payload_digest": self.payload_digest,
            "attribute_names": self.attribute_names,
            "payload_bytes": self.payload_bytes,
            "merged_into": self.merged_into,
            "started_at": None if self.started_at is None else to_iso(self.started_at),
            "finished_at": None if self.finished_at is None else to_iso(self.finished_at),
        }
        record = {key: value for key, value in record.items() if value}
        if self.took_ms is not None:
            record["took_ms"] = self.took_ms  # 0 ms is a measurement
        return record


class QuotaOrigin(StrEnum):
    """How a quota came to be known."""

    APPLIED = "applied"
    """Service Quotas says so."""
    LEARNT = "learnt"
    """An earlier run found it out."""
    DOCUMENTED = "documented"
    """The documentation says so; the account's own may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is believed of one operation's quota before the first request.

    Attributes:
        rate_per_s: Requests per second, above 0.
        origin: Who says so.
        unread: Why it is not the applied one, as a clause; None where it is, and where what was
            learnt comes first.
    """

    rate_per_s: float
    origin: QuotaOrigin
    unread: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundQuota:
    """What a run found one operation's quota to be, from what was accepted and throttled.

    Attributes:
        rate_per_s: Requests per second that the service let this run have, above 0.
        burst: Tokens that the bucket holds, at least 1; None where it did not show.
    """

    rate_per_s: float
    burst: float | None = None


@dataclass(slots=True)
class Progress:
    """Where a run stands; one object that the pipeline writes and a display reads.

    Attributes:
        results_total: Results that the run will have: rows times operations.
        settled_before: Results that earlier executions of this run left.
        settled: Results that are durable now, earlier ones included.
        outcomes: How many results ended how, earlier ones included.
        sent: Attempts begun.
        throttled: Attempts answered with throttling.
        in_flight: Requests open now.
        ceiling_per_s: The most that the run may ever start per second, over all operations; None
            before it is known, and where the run finds out how much there is.
        allowed_per_s: Asks for what may be started per second now, over all operations; 0 before
            it is known.
        started_per_s: Asks for the requests started per second lately, over all operations.
        exclusive: Whether the run was told that nobody else uses the account.
        paused: Asks why nothing may be started now, such as `window` or `ctl`; None while it may.
        run_id: The run; None before its directory is open.
        listeners: Each is told the results of requests when they are durable; none may raise.
    """

    results_total: int = 0
    settled_before: int = 0
    settled: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    sent: int = 0
    throttled: int = 0
    in_flight: int = 0
    ceiling_per_s: float | None = None
    allowed_per_s: Callable[[], float] = lambda: 0.0
    started_per_s: Callable[[], float] = lambda: 0.0
    exclusive: bool = False
    paused: Callable[[], str | None] = lambda: None
    run_id: str | None = None
    listeners: list[Callable[[Sequence[Result]], None]] = field(default_factory=list)

    def count(self, outcome: Outcome, n_results: int = 1) -> None:
        """Results have become durable."""
        self.settled += n_results
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + n_results


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceSummary:
    """How fast one execution of a run sent one operation's requests.

    Attributes:
        operation: The operation's snake_case name.
        ceiling_per_s: Requests per second that were never exceeded; None where the run found out
            how much there is.
        quota_per_s: The quota that was believed at the start, in requests per second.
        origin: Who said so.
        exclusive: Whether the run was told that nobody else uses the account.
        started: Attempts begun.
        throttled: Attempts answered with throttling.
        started_per_s: Attempts begun per second, on average, from the first to the end.
        found: What the quota was found to be; None where nothing certain was.
    """

    operation: str
    ceiling_per_s: float | None
    quota_per_s: float
    origin: QuotaOrigin
    exclusive: bool
    started: int
    throttled: int
    started_per_s: float
    found: FoundQuota | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run came to, counted from its ledger.

    Attributes:
        run_id: The run.
        state: `finished`, `stopped`, `interrupted` or `deadline`.
        reason: Why it did not finish, in a sentence; None where it finished.
        rows_read: Rows in all sources.
        outcomes: Results by outcome, every outcome named, those of earlier executions included.
        unsettled: Results still missing; 0 where the run finished.
        attempts: Attempts of this execution, throttled ones included.
        throttled: Attempts of this execution that were answered with throttling.
        took_s: Seconds that this execution took.
        ledger: Path of the ledger.
        failed: Path of `failed.csv`; None where nothing failed or was invalid.
        resume: The command that goes on; None where nothing is left to do.
        pace: How fast this execution sent, for each operation; empty where it sent nothing.
        drift: Unchanged contacts that this execution read back, by what that showed: `same`,
            `drifted` (somebody else had changed them, and they were sent), `gone`, `unread`; None
            where none was to be read.
    """

    run_id: str
    state: str
    reason: str | None
    rows_read: int
    outcomes: dict[str, int]
    unsettled: int
    attempts: int
    throttled: int
    took_s: float
    ledger: str
    failed: str | None = None
    resume: str | None = None
    pace: tuple[PaceSummary, ...] = ()
    drift: dict[str, int] | None = None
