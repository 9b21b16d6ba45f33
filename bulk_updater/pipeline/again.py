"""`retry`: the failed rows of a finished run, sent again into its ledger.

The rows come from the sources and the mapping that the run had, in file order, so those of one
contact keep their order among themselves. Rows behind them that were applied meanwhile stand: see
`later`. What is settled is appended to the same ledger, where the last line of a row counts, so a
retry that is killed is gone on with by the same command: what it settled is FAILED no more, and
what failed again is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulk_updater.errors import UsageError
from bulk_updater.ledger import Ledger, standing_results
from bulk_updater.model import Outcome, Progress, Request
from bulk_updater.pipeline.changes import held_for_older, state_file
from bulk_updater.pipeline.execution import Prepared, execute
from bulk_updater.pipeline.identity import note_as_begun, reenter_run_dir
from bulk_updater.pipeline.later import LaneKey, LaterWrites
from bulk_updater.pipeline.mended import open_mended, read_mended
from bulk_updater.pipeline.threads import entered_in_thread, in_abandoned_thread
from bulk_updater.pipeline.work import Batch, WholeJob, expiring_soon, frames_as_counted
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AsyncExitStack
    from pathlib import Path

    from bulk_updater.config import RunConfig
    from bulk_updater.mapping import MappedFrame
    from bulk_updater.model import RunSummary
    from bulk_updater.pipeline.job import Job
    from bulk_updater.pipeline.mended import Mended
    from bulk_updater.pipeline.work import Entry

__all__ = ["FailedRows", "Selection", "retry", "select_failed"]

log = logging.getLogger(__name__)

_CODES_SHOWN = 5


async def retry(
    config: RunConfig,
    *,
    codes: Collection[str] = (),
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.time,
    obeys_ctl: bool = False,
) -> RunSummary:
    """Send the failed rows of a finished run again.

    Args:
        config: The run, with `run_dir` set; mapping, sources and limit are what it had.
        codes: Error codes of the rows to send again, each in full; none: whatever the code.
        progress: Kept up to date while it goes on, for a display.
        stop: Set it to stop; see `run`.
        now: Seconds since the epoch, for the schedule and for the times in the results.
        obeys_ctl: Whether to do what comes in by the run directory's `control.jsonl`.

    Returns:
        The summary of the run as it is now; its state is `finished`, `interrupted` or `deadline`.

    Raises:
        UsageError: If there is no such run, it is not finished, or is not what it was; nothing
            was sent.
        LedgerError: If the run directory is not usable; nothing was sent.
        RunStopped: If an error concerns the whole run; it carries the summary. If `stop` was set
            before it was known what failed, there is none.
        CancelledError: If cancelled; the ledger is whole.
    """
    progress = progress or Progress()

    async def prepare(job: Job, stack: AsyncExitStack) -> Prepared:
        run_dir, note = await stack.enter_async_context(
            entered_in_thread(reenter_run_dir(config, job, now=now))
        )
        ledger = await stack.enter_async_context(Ledger.open(run_dir.ledger_path, note["run_id"]))
        whole = WholeJob(job, ledger.settled, now=now)
        _expect_finished(whole, run_dir.path, note)
        state = await stack.enter_async_context(
            entered_in_thread(held_for_older(state_file(config), note, run_dir.path))
        )
        mended = await stack.enter_async_context(
            entered_in_thread(open_mended(config, job, run_dir, note))
        )
        work = await in_abandoned_thread(
            lambda _: _failed_rows(
                whole, ledger.path, codes, progress, _Newer(note, mended), now=now
            )
        )
        await asyncio.to_thread(note_as_begun, run_dir, note, config)
        return Prepared(run_dir=run_dir, note=note, ledger=ledger, work=work, state=state)

    return await execute(
        config,
        prepare,
        what="retry",
        progress=progress,
        stop=stop,
        now=now,
        obeys_ctl=obeys_ctl,
    )


def _expect_finished(whole: WholeJob, path: Path, note: dict[str, Any]) -> None:
    n_missing = whole.n_results - sum(whole.count_outcomes().values())
    if not n_missing:
        return
    command = (note.get("summary") or {}).get("resume") or shlex.join(
        [
            *("bulk-updater", "run", note["mapping"]["path"]),
            *(source["path"] for source in note["sources"]),
            *("--run-dir", str(path)),
        ]
    )
    raise UsageError(
        f"{path}: the run is not finished, {count(n_missing, 'result is', 'results are')} missing. "
        f"Nothing was sent. Give its own command first, and then this one again: {command}"
    )


@dataclass(frozen=True, slots=True)
class _Newer:
    """Where rows of a run are told of that other runs sent.

    Attributes:
        note: What the run's `run.json` holds: which runs mended rows of it.
        mended: What it does not undo where it mends rows itself; None where it does not.
    """

    note: dict[str, Any]
    mended: Mended | None


def _failed_rows(
    whole: WholeJob,
    ledger: Path,
    codes: Collection[str],
    progress: Progress,
    newer: _Newer,
    *,
    now: Callable[[], float],
) -> FailedRows:
    """Find out what is sent again, say so, and what it must not undo. Blocks."""
    outcomes = whole.count_outcomes()
    selection = Selection()
    if outcomes[Outcome.FAILED]:
        selection = select_failed(ledger, codes, last_row=whole.job.n_rows)
    log.info("%s", _say(selection, outcomes))
    later = LaterWrites(selection.contacts)
    if selection.contacts:
        later.read(ledger)
        read_mended(later, newer.note)

    def trim(request: Request) -> Entry:
        left = later.trim(request)
        return newer.mended.mend(left) if newer.mended and isinstance(left, Request) else left

    return FailedRows(whole.job, selection, trim, outcomes=outcomes, progress=progress, now=now)


def _say(selection: Selection, outcomes: dict[Outcome, int]) -> str:
    n_rows = sum(map(len, selection.rows.values()))
    n_left = sum(selection.left_out.values())
    invalid = outcomes[Outcome.INVALID]
    told = f"{count(n_rows, 'FAILED result')} to be tried again" if n_rows else "Nothing to retry"
    if n_left:
        most = selection.left_out.most_common(_CODES_SHOWN)
        shown = ", ".join(f"{code or 'no code'} {n:,}" for code, n in most)
        shown += " and others" if len(selection.left_out) > len(most) else ""
        told += f"; {n_left:,} with other codes left as they are ({shown})"
    if invalid and not n_rows:
        told += f"; {invalid:,} INVALID: mend them in failed.csv, and run that file"
    return f"{told}."


@dataclass(slots=True)
class Selection:
    """Which results of a ledger are to be replaced.

    Attributes:
        rows: The rows, for each operation.
        contacts: Their contacts.
        left_out: How many FAILED results were not chosen, by code.
    """

    rows: dict[str, set[int]] = field(default_factory=dict)
    contacts: set[LaneKey] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)


def select_failed(ledger: Path, codes: Collection[str], *, last_row: int) -> Selection:
    """The FAILED results that stand in a ledger, with one of some codes. Blocks.

    Args:
        ledger: The ledger.
        codes: The codes, each in full; none takes every result.
        last_row: Rows beyond it are left out.

    Raises:
        LedgerError: It cannot be read, or is damaged.
    """
    selection = Selection()
    for record in standing_results(ledger):
        if record["outcome"] != Outcome.FAILED or record["row"] > last_row:
            continue
        code = record.get("error_code", "")
        if codes and code not in codes:
            selection.left_out[code] += 1
            continue
        operation = record["operation"]
        selection.rows.setdefault(operation, set()).add(record["row"])
        selection.contacts.add(
            (operation, record.get("instance_id", ""), record.get("contact_id", ""))
        )
    return selection


class FailedRows:
    """The failed rows of a run, each without what later rows wrote; a `Work`.

    A row that fails again stands in the ledger as it did before, so that what is still to come is
    counted by what this execution has settled.

    Args:
        job: The run's mapping and sources.
        selection: What is sent again.
        trim: Leaves out of a request what later rows wrote.
        outcomes: How the run's results stand, by outcome, those that are sent again included.
        progress: The execution's: it is told of every result.
        now: Seconds since the epoch: a contact may have been forgotten since its row failed.
    """

    def __init__(
        self,
        job: Job,
        selection: Selection,
        trim: Callable[[Request], Entry],
        *,
        outcomes: dict[Outcome, int],
        progress: Progress,
        now: Callable[[], float],
    ) -> None:
        self.job = job
        self.n_results = sum(outcomes.values())
        self._rows = selection.rows
        self._trim = trim
        n_selected = sum(map(len, selection.rows.values()))
        self._untouched = {**outcomes, Outcome.FAILED: outcomes[Outcome.FAILED] - n_selected}
        self._progress = progress
        self._now = now

    def count_outcomes(self) -> dict[Outcome, int]:
        """See `Work`."""
        # Nothing is counted in the progress before the execution has begun with these.
        return dict(self._progress.outcomes or self._untouched)

    def n_left(self, operation: str) -> int:
        """See `Work`; as it is at the beginning."""
        return len(self._rows.get(operation, ()))

    def batches(self) -> Iterator[Batch]:
        """See `Work`."""
        wanted = set().union(*self._rows.values())
        for frame in frames_as_counted(self.job):
            if not wanted.isdisjoint(frame.frame.rows.tolist()):
                yield Batch(self._entries(frame), expires_at=expiring_soon(frame, self._now()))

    def _entries(self, frame: MappedFrame) -> Iterator[Entry]:
        for entry in frame.entries(lambda row, operation: row not in self._rows.get(operation, ())):
            yield self._trim(entry) if isinstance(entry, Request) else entry
