"""What an execution has to do: batches of entries, whatever they come from.

A run takes every row of its sources, a retry those that failed. Both are read and mapped in a
thread, one batch ahead, and handed on in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bulk_updater.errors import RunStopped
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.pipeline.deciding import CODES, SEVERAL, UNSENT
from bulk_updater.pipeline.drift import COMPARED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from bulk_updater.ledger import SettledRows, UnsentBlock
    from bulk_updater.mapping import MappedFrame
    from bulk_updater.pipeline.deciding import Decisions
    from bulk_updater.pipeline.job import Job

__all__ = ["Batch", "Check", "Entry", "WholeJob", "Work", "expiring_soon", "frames_as_counted"]

_SOON_S = 60 * 86_400
"""A batch may take weeks, where a window is narrow and the quota small. What Connect keeps for
longer than this, in seconds, is not looked at again when its turn comes."""


@dataclass(frozen=True, slots=True)
class Check:
    """A row that seems to be unchanged, and is to be read back to see whether that is so.

    Attributes:
        request: What is sent if it is not.
    """

    request: Request


Entry = Request | Result | Check


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows, in the order in which they are to be handed on.

    Attributes:
        entries: What is to be sent, or read back, or recorded as it stands.
        unsent: Rows of one outcome that are recorded together, before the entries.
        expires_at: When Connect forgets the contact of a row, in seconds since the epoch, for
            those of which it does so before long.
    """

    entries: Iterable[Entry]
    unsent: Sequence[UnsentBlock] = ()
    expires_at: Mapping[int, int] = field(default_factory=dict)


class Work(Protocol):
    """What there is to do.

    Attributes:
        job: The mapping and its sources.
        n_results: Results that there are when all is done.
    """

    job: Job
    n_results: int

    def count_outcomes(self) -> dict[Outcome, int]:
        """Results by outcome, every outcome named, of what needs nothing done any more."""

    def n_left(self, operation: str) -> int:
        """Results of one operation that are still to come."""

    def batches(self) -> Iterator[Batch]:
        """What is not done yet. Blocks: call it in a thread.

        Raises:
            SourceError: A source turns out to be damaged.
            RunStopped: A source is not what it was when it was counted.
        """


class WholeJob:
    """Every row of the sources that is not settled.

    Attributes:
        decisions: Which rows are not sent after all; None: every row is.
        is_drawn: For the keys of contacts, whether an unchanged one is to be read back; None:
            none is.
        order: For each row, from the first, the group that it goes with, from 0; None: all go
            in file order.
    """

    def __init__(self, job: Job, settled: SettledRows, *, now: Callable[[], float]) -> None:
        self.job = job
        self.n_results = job.n_rows * len(job.operations)
        self.decisions: Decisions | None = None
        self.is_drawn: Callable[[npt.NDArray[np.bytes_]], npt.NDArray[np.bool_]] | None = None
        self.order: npt.NDArray[np.uint8] | None = None
        self._settled = settled
        self._now = now

    def count_outcomes(self) -> dict[Outcome, int]:
        """See `Work`; of the rows that this run is to take."""
        if self.job.opened.limit is None:
            return self._settled.outcomes()
        # An earlier execution may have gone beyond the limit.
        counts = dict.fromkeys(Outcome, 0)
        for row in range(1, self.job.n_rows + 1):
            for operation in self.job.operations:
                outcome = self._settled.outcome_of(row, operation.name)
                if outcome is not None:
                    counts[outcome] += 1
        return counts

    def n_left(self, operation: str) -> int:
        """See `Work`."""
        if self.decisions is not None:
            return self.decisions.n_to_send(operation)
        return max(0, self.job.n_rows - self._settled.count(operation))

    def batches(self) -> Iterator[Batch]:
        """See `Work`."""
        groups = [None] if self.order is None else np.unique(self.order).tolist()
        for group in groups:
            for frame in frames_as_counted(self.job):
                yield self._batch(frame, group)

    def _batch(self, frame: MappedFrame, group: int | None) -> Batch:
        """A frame's rows that are not settled, of one group or of all."""
        rows = frame.frame.rows
        blocks: list[UnsentBlock] = []
        to_check: set[tuple[int, str]] = set()
        to_hand_on: dict[str, npt.NDArray[np.bool_]] = {}
        for mapped in frame.operations:
            name = mapped.operation.name
            wanted = self._settled.select_unsettled(rows, name)
            if group is not None:
                wanted &= self._in_turn(rows, group)
            if self.decisions is not None:
                codes = self.decisions.codes(name)[rows]
                for outcome in UNSENT:
                    decided = wanted & (codes & (0xFF ^ SEVERAL) == CODES[outcome])
                    if (outcome, name) == (Outcome.UNCHANGED, COMPARED) and self.is_drawn:
                        # What a contact with several rows holds, no single one of them says.
                        drawn = decided & (codes & SEVERAL == 0)
                        drawn &= self.is_drawn(mapped.contact_keys)
                        to_check.update((row, name) for row in rows[drawn].tolist())
                        decided &= ~drawn
                    if decided.any():
                        blocks.append(mapped.unsent(decided, outcome))
                        wanted &= ~decided
            to_hand_on[name] = wanted
        among = np.logical_or.reduce(list(to_hand_on.values()))
        left_out = {
            name: {
                *rows[among & ~wanted].tolist(),
                *(
                    bad.row
                    for bad in frame.frame.unreadable
                    if (bad.row, name) in self._settled
                    or group not in (None, self._group_of(bad.row))
                ),
            }
            for name, wanted in to_hand_on.items()
        }
        return Batch(
            _entries(frame, among, left_out, to_check),
            blocks,
            expiring_soon(frame, self._now()),
        )

    def _in_turn(self, rows: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.bool_]:
        assert self.order is not None  # noqa: S101 - groups come from it
        return np.asarray(self.order[rows - 1] == group)

    def _group_of(self, row: int) -> int:
        return 0 if self.order is None else int(self.order[row - 1])


def expiring_soon(frame: MappedFrame, now: float) -> dict[int, int]:
    """When Connect forgets the contacts of a frame's rows, for those that may come too late.

    Args:
        frame: The frame.
        now: Seconds since the epoch.
    """
    soon = np.flatnonzero(frame.expires_at < now + _SOON_S)
    rows = frame.frame.rows[soon].tolist()
    return dict(zip(rows, frame.expires_at[soon].tolist(), strict=True))


def _entries(
    frame: MappedFrame,
    among: npt.NDArray[np.bool_],
    left_out: Mapping[str, set[int]],
    to_check: set[tuple[int, str]],
) -> Iterator[Entry]:
    for entry in frame.entries(lambda row, operation: row in left_out[operation], among=among):
        if to_check and isinstance(entry, Request) and (entry.row, entry.operation) in to_check:
            yield Check(entry)
        else:
            yield entry


def frames_as_counted(job: Job) -> Iterator[MappedFrame]:
    """Every row, mapped, as long as there are as many as there were at first. Blocks.

    Raises:
        SourceError: A source turns out to be damaged.
        RunStopped: There are more or fewer. Nothing was yielded that was not counted.
    """
    n_rows = 0
    for frame in job.opened.mapped_frames():
        n_rows += len(frame.frame.rows) + len(frame.frame.unreadable)
        if n_rows > job.n_rows:
            break
        yield frame
    if n_rows != job.n_rows:
        now = f"{n_rows:,}" if n_rows < job.n_rows else "more"
        raise RunStopped(
            f"the source changed while it was read: {job.n_rows:,} rows at first, {now} now. Run "
            "it again as it is now."
        )
