"""One execution of a run: what is there already, what is sent, and what is said of it at the end.

A run and a retry are prepared differently and carried out alike: `execute` is the one way in. Until
something is prepared there is nothing to settle, and a signal to stop is obeyed at once; from then
on everything that is said is said from the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bulk_updater.errors import BulkUpdaterError, LedgerError, RunStopped, SourceError
from bulk_updater.model import Progress, RunSummary
from bulk_updater.pipeline.control import obeying
from bulk_updater.pipeline.deadline import DeadlinePassed, steering
from bulk_updater.pipeline.failed import write_failed
from bulk_updater.pipeline.job import open_job, survey
from bulk_updater.pipeline.sending import Sending
from bulk_updater.pipeline.stopping import ToldToStop, cut_short
from bulk_updater.pipeline.threads import in_abandoned_thread
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bulk_updater.config import RunConfig
    from bulk_updater.ledger import Ledger, RunDir
    from bulk_updater.pipeline.control import Helm
    from bulk_updater.pipeline.deciding import Evidence
    from bulk_updater.pipeline.job import Job
    from bulk_updater.pipeline.work import Work
    from bulk_updater.state import State

__all__ = ["Execution", "Prepared", "execute"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What an execution settles, and where.

    Attributes:
        run_dir: The run directory, locked.
        note: What `run.json` holds.
        ledger: The run's results.
        work: What there is to do.
        state: What was last applied, held until the execution ends; None where it is not asked.
        evidence: What an older run has applied, that this one supersedes.
    """

    run_dir: RunDir
    note: dict[str, Any]
    ledger: Ledger
    work: Work
    state: State | None = None
    evidence: Sequence[Evidence] = ()


async def execute(
    config: RunConfig,
    prepare: Callable[[Job, AsyncExitStack], Awaitable[Prepared]],
    *,
    what: str,
    progress: Progress,
    stop: asyncio.Event | None,
    now: Callable[[], float],
    obeys_ctl: bool,
) -> RunSummary:
    """Prepare an execution, settle what there is to settle, and leave behind what tells of it.

    Args:
        config: The run.
        prepare: Makes ready what is settled. What it enters on the stack is left at the end; it is
            cancelled if the execution is stopped meanwhile.
        what: What is carried out, for a message: run, retry.
        progress: Kept up to date while it goes on.
        stop: See `run`.
        now: See `run`.
        obeys_ctl: See `run`.

    Returns:
        The summary; its state is `finished`, `interrupted` or `deadline`.

    Raises:
        UsageError: If it cannot begin; nothing was sent.
        LedgerError: If the run directory is not usable; nothing was sent.
        RunStopped: If an error concerns the whole run; it carries the summary. If `stop` was set
            before it was prepared, there is none.
        CancelledError: If cancelled; the ledger is whole.
    """
    clock = asyncio.get_running_loop().time
    began_s = clock()
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(
            steering(config, stop=stop or asyncio.Event(), now=now)
        )
        try:
            async with cut_short(watch.helm.stop):
                job = await in_abandoned_thread(lambda gone: survey(open_job(config), stop=gone))
                prepared = await prepare(job, stack)
                if obeys_ctl:
                    path, run_id = prepared.run_dir.path, prepared.note["run_id"]
                    await stack.enter_async_context(
                        obeying(path, watch.helm, run_id=run_id, now=now)
                    )
        except ToldToStop:
            if watch.helm.met_deadline:
                raise RunStopped(DeadlinePassed.MESSAGE) from DeadlinePassed()
            raise RunStopped(f"The {what} was told to stop before it sent anything.") from None
        sending = Sending(config, prepared, progress=progress, watch=watch, now=now)
        execution = Execution(config, prepared, sending, progress=progress, helm=watch.helm)
        return await execution.finish(took_s=lambda: round(clock() - began_s, 3))


class Execution:
    """One execution of a run, with everything that it works with.

    Args:
        config: The run.
        prepared: What it settles.
        sending: Sends what is left of it.
        progress: Kept up to date while it goes on.
        helm: Tells whether it was to stop, and why.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        sending: Sending,
        *,
        progress: Progress,
        helm: Helm,
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._job = prepared.work.job
        self._work = prepared.work
        self._ledger = prepared.ledger
        self._progress = progress
        self._helm = helm
        self._in_doubt: int = prepared.note["in_doubt"]
        self._sending = sending
        progress.run_id = prepared.ledger.run_id
        progress.paused = lambda: ", ".join(self._helm.pauses) or None

    async def finish(self, *, took_s: Callable[[], float]) -> RunSummary:
        """Settle what there is to settle, and leave behind what tells of it.

        Args:
            took_s: How long it has taken by now, in seconds.

        Returns:
            The summary.

        Raises:
            RunStopped: If an error concerns the whole run; it carries the summary.
        """
        run_dir, note = self._prepared.run_dir, self._prepared.note
        stopped_by = await self._settle_all()
        summary = self._summarise(stopped_by, took_s=took_s())
        try:
            failed = await asyncio.to_thread(write_failed, run_dir, self._job, self._ledger.settled)
            summary = replace(summary, failed=None if failed is None else str(failed))
            note |= {
                "summary": asdict(summary),
                "pace": [*note["pace"], *self._sending.pace_notes()],
                "in_doubt": self._count_in_doubt(),
            }
            await asyncio.to_thread(run_dir.write_run_json, note)
        except (LedgerError, SourceError) as error:
            # The first thing that went wrong is the one to tell; the results are in the ledger.
            stopped_by = stopped_by or error
        if stopped_by is not None:
            summary = replace(summary, state="stopped", reason=stopped_by.message)
            raise RunStopped(stopped_by.message, summary=summary) from stopped_by
        return summary

    async def _settle_all(self) -> BulkUpdaterError | None:
        """Settle what is not settled; returns what stopped the run, if anything did."""
        self._begin()
        try:
            if self._progress.settled < self._progress.results_total:
                await self._sending.send_all()
            # One that was told to stop has rows left; any other is checked against what was read.
            if not self._helm.stop.is_set():
                self._expect_all_settled()
        except (RunStopped, LedgerError) as error:
            return error
        return None

    def _begin(self) -> None:
        """Say what is there already, before anything is sent."""
        progress, recovery = self._progress, self._ledger.recovery
        progress.results_total = self._work.n_results
        progress.outcomes = self._work.count_outcomes()
        progress.settled_before = progress.settled = sum(progress.outcomes.values())
        for warning in self._job.spec.warnings:
            log.warning("%s", warning)
        if recovery.torn_bytes:
            log.warning(
                "%s ended in the middle of a record: %d bytes were cut off and kept in %s.",
                self._ledger.path,
                recovery.torn_bytes,
                recovery.torn_path,
            )
        if progress.settled or self._in_doubt:
            log.info("%s", self._say_settled())

    def _say_settled(self) -> str:
        settled, total = self._progress.settled, self._progress.results_total
        what = "rows" if len(self._job.operations) == 1 else "results"
        if settled == total:
            return f"All {total:,} {what} are settled; there is nothing to send."
        told = f"{settled:,} of {total:,} {what} are settled, {total - settled:,} to go"
        if not self._in_doubt:
            return f"{told}."
        # Of requests and not of rows: one request may carry several.
        return f"{told}; up to {count(self._in_doubt, 'request')} may have been sent already."

    def _expect_all_settled(self) -> None:
        """The outcomes add up to the rows read, for every operation, or the fault is ours."""
        n_results = sum(self._work.count_outcomes().values())
        if n_results != self._progress.results_total:
            raise RunStopped(
                f"the results do not add up: {self._progress.results_total:,} are due, and there "
                f"are {n_results:,}. This is a fault in bulk_updater; please report it. The same "
                "command sends what has no result."
            )

    def _summarise(self, stopped_by: BulkUpdaterError | None, *, took_s: float) -> RunSummary:
        """What the ledger says, and what this execution did."""
        counts = self._work.count_outcomes()
        unsettled = self._progress.results_total - sum(counts.values())
        return RunSummary(
            run_id=self._ledger.run_id,
            state="stopped" if stopped_by else self._how_it_ended(unsettled),
            reason=None if stopped_by is None else stopped_by.message,
            rows_read=self._job.n_rows,
            outcomes={outcome.value: count for outcome, count in counts.items()},
            unsettled=unsettled,
            attempts=self._progress.sent,
            throttled=self._progress.throttled,
            took_s=took_s,
            ledger=str(self._ledger.path),
            resume=self._config.command or None if unsettled else None,
            pace=self._sending.summarise_pace(),
            drift=self._sending.drift,
        )

    def _how_it_ended(self, unsettled: int) -> str:
        if not unsettled:
            return "finished"
        return "deadline" if self._helm.met_deadline else "interrupted"

    def _count_in_doubt(self) -> int:
        """Requests, at the most, that may have been applied by now and whose rows are unsettled."""
        in_doubt = self._in_doubt + self._sending.n_in_doubt
        if self._job.opened.limit is not None:
            return in_doubt  # they may be of rows beyond it
        # Not those without a result: what a retry sends has one already.
        n_left = self._progress.results_total - sum(self._work.count_outcomes().values())
        return min(in_doubt, n_left)
