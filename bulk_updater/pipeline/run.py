"""A run, from the command to the summary: the whole story.

What a row goes through here: its frame is read and mapped in a thread, one frame ahead; a row
that makes no request gets its result at once; a request goes to the sender, which waits for a
slot. When the source has ended, or the run is told to stop, the sender is drained, and everything
that is said afterwards is said from the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bulk_updater.config import is_loopback
from bulk_updater.connect import READ_ATTRIBUTES, open_connect
from bulk_updater.errors import (
    BulkUpdaterError,
    ConfigError,
    LedgerError,
    RunStopped,
    SourceError,
)
from bulk_updater.ledger import Ledger
from bulk_updater.model import Progress, RunSummary
from bulk_updater.pacing import initial_rate_per_s
from bulk_updater.pipeline.breaker import Breaker
from bulk_updater.pipeline.canary import Canary
from bulk_updater.pipeline.changes import (
    decide_job,
    describe,
    recall_of,
    refuse_if_too_much,
    state_file,
)
from bulk_updater.pipeline.control import Helm, obeying
from bulk_updater.pipeline.deadline import DeadlinePassed, steering
from bulk_updater.pipeline.drift import READ_QUOTA, READS_IN_FLIGHT, DriftCheck
from bulk_updater.pipeline.estimate import describe_long_run, describe_pace
from bulk_updater.pipeline.failed import write_failed
from bulk_updater.pipeline.feeding import Feeder
from bulk_updater.pipeline.identity import enter_run_dir, is_local
from bulk_updater.pipeline.job import open_job, survey
from bulk_updater.pipeline.lasting import describe_credentials_end
from bulk_updater.pipeline.memory import Memory
from bulk_updater.pipeline.mended import MendedRows, open_mended
from bulk_updater.pipeline.ordering import expect_dates, order_job
from bulk_updater.pipeline.pace import Pace
from bulk_updater.pipeline.quotas import KnownQuotas, find_quotas, keep_found
from bulk_updater.pipeline.scene import constant_instances
from bulk_updater.pipeline.sender import Sender
from bulk_updater.pipeline.stopping import ToldToStop, cut_short
from bulk_updater.pipeline.superseding import take_over
from bulk_updater.pipeline.threads import (
    entered_in_thread,
    in_abandoned_thread,
    in_obedient_thread,
)
from bulk_updater.pipeline.work import WholeJob
from bulk_updater.state import State
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulk_updater.config import RunConfig
    from bulk_updater.connect import Connect, CredentialsEnd
    from bulk_updater.ledger import RunDir
    from bulk_updater.pipeline.deadline import Watch
    from bulk_updater.pipeline.deciding import Evidence
    from bulk_updater.pipeline.work import Work

__all__ = ["run"]

log = logging.getLogger(__name__)


async def run(
    config: RunConfig,
    *,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.time,
    obeys_ctl: bool = False,
) -> RunSummary:
    """Settle every row of the sources, or as many as can be.

    Args:
        config: The run.
        progress: Kept up to date while the run goes on, for a display.
        stop: Set it to stop: nothing is begun any more, what is under way is settled. Before the
            first request there is nothing to settle, and it is obeyed at once.
        now: Seconds since the epoch, for the schedule and for the times in the results.
        obeys_ctl: Whether to do what comes in by the run directory's `control.jsonl`.

    Returns:
        The summary; its state is `finished`, `interrupted` or `deadline`.

    Raises:
        UsageError: If the run cannot begin; nothing was sent.
        LedgerError: If the run directory is not usable; nothing was sent.
        RunStopped: If an error concerns the whole run; it carries the summary. If `stop` was set
            before it was known what is settled, there is none.
        CancelledError: If cancelled; the ledger is whole.
    """
    clock = asyncio.get_running_loop().time
    began_s = clock()
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(
            steering(config, stop=stop or asyncio.Event(), now=now)
        )
        stop = watch.helm.stop
        try:
            async with cut_short(stop):
                job = await in_abandoned_thread(lambda gone: survey(open_job(config), stop=gone))
                # First: a run that is refused has not begun, and is newer than whoever has it.
                state = await _open_state(config, stack)
                run_dir, note = await stack.enter_async_context(
                    entered_in_thread(enter_run_dir(config, job, now=now))
                )
                ledger = await stack.enter_async_context(
                    Ledger.open(run_dir.ledger_path, note["run_id"])
                )
                mended = await stack.enter_async_context(
                    entered_in_thread(open_mended(config, job, run_dir, note))
                )
                work: Work = WholeJob(job, ledger.settled, now=now)
                if mended is not None:
                    work = MendedRows(work, mended)
                evidence = await _take_over(config, run_dir, note, now=now)
                if obeys_ctl:
                    await stack.enter_async_context(
                        obeying(run_dir.path, watch.helm, run_id=note["run_id"], now=now)
                    )
        except ToldToStop:
            if watch.helm.met_deadline:
                raise RunStopped(DeadlinePassed.MESSAGE) from DeadlinePassed()
            raise RunStopped("The run was told to stop before it sent anything.") from None
        execution = _Execution(
            config,
            work,
            ledger,
            note=note,
            state=state,
            progress=progress or Progress(),
            stop=stop,
            now=now,
            watch=watch,
            evidence=evidence,
        )
        return await finish(execution, run_dir, note, began_s=began_s)


async def finish(
    execution: _Execution, run_dir: RunDir, note: dict[str, Any], *, began_s: float
) -> RunSummary:
    """Settle what there is to settle, and leave behind what tells of it.

    Args:
        execution: What is to be settled, and how.
        run_dir: The run directory.
        note: What `run.json` holds.
        began_s: When this execution began, by the loop's clock.

    Returns:
        The summary.

    Raises:
        RunStopped: If an error concerns the whole run; it carries the summary.
    """
    clock = asyncio.get_running_loop().time
    stopped_by = await execution.settle_all()
    summary = execution.summarise(stopped_by, took_s=round(clock() - began_s, 3))
    try:
        failed = await asyncio.to_thread(
            write_failed, run_dir, execution.work.job, execution.ledger.settled
        )
        summary = replace(summary, failed=None if failed is None else str(failed))
        note |= {
            "summary": asdict(summary),
            "pace": [*note["pace"], *execution.pace_notes()],
            "in_doubt": execution.n_in_doubt,
        }
        await asyncio.to_thread(run_dir.write_run_json, note)
    except (LedgerError, SourceError) as error:
        # The first thing that went wrong is the one to tell; the results are in the ledger.
        stopped_by = stopped_by or error
    if stopped_by is not None:
        summary = replace(summary, state="stopped", reason=stopped_by.message)
        raise RunStopped(stopped_by.message, summary=summary) from stopped_by
    return summary


async def _take_over(
    config: RunConfig, run_dir: RunDir, note: dict[str, Any], *, now: Callable[[], float]
) -> Sequence[Evidence]:
    """What an older run has applied, that this one supersedes; nothing where there is none."""
    if config.supersede is None:
        return ()
    taken = await take_over(
        config.supersede,
        run_id=note["run_id"],
        run_dir=run_dir.path,
        target=note["target"],
        now=now,
    )
    log.info(
        "Took over from the run %s: %s dropped there.",
        taken.run_id,
        count(taken.n_dropped, "result that was left is", "results that were left are"),
    )
    if taken.warning is not None:
        log.warning("%s", taken.warning)
    return taken.evidence


async def _open_state(config: RunConfig, stack: AsyncExitStack) -> State | None:
    """What was last applied, held until the run ends; None where nobody asks for it."""
    if not config.changes.only_changed:
        return None
    return await stack.enter_async_context(entered_in_thread(State.open(state_file(config))))


class _Execution:
    """One execution of a run, with everything that it works with.

    Attributes:
        work: What there is to do.
        ledger: The run's results.
    """

    def __init__(
        self,
        config: RunConfig,
        work: Work,
        ledger: Ledger,
        *,
        note: dict[str, Any],
        state: State | None,
        progress: Progress,
        stop: asyncio.Event,
        now: Callable[[], float],
        watch: Watch | None = None,
        evidence: Sequence[Evidence] = (),
    ) -> None:
        self.work = work
        self._evidence = evidence
        self.ledger = ledger
        self._config = config
        self._job = work.job
        self._state = state
        self._progress = progress
        progress.run_id = ledger.run_id
        self._stop = stop
        self._watch = watch
        self._helm = Helm() if watch is None else watch.helm
        progress.paused = lambda: ", ".join(self._helm.pauses) or None
        self._now = now
        self._pace: Pace | None = None
        self._began_at: float = note["began_at"]
        self._in_doubt: int = note["in_doubt"]
        self._sender: Sender | None = None
        self._feeder: Feeder | None = None

    async def settle_all(self) -> BulkUpdaterError | None:
        """Settle what is not settled; returns what stopped the run, if anything did."""
        self._begin()
        try:
            if self._progress.settled < self._progress.results_total:
                await self._send_all()
            # One that was told to stop has rows left; any other is checked against what was read.
            if not self._stop.is_set():
                self._expect_all_settled()
        except (RunStopped, LedgerError) as error:
            return error
        return None

    def _begin(self) -> None:
        """Say what is there already, before anything is sent."""
        job, progress, recovery = self._job, self._progress, self.ledger.recovery
        progress.results_total = self.work.n_results
        progress.outcomes = self.work.count_outcomes()
        progress.settled_before = progress.settled = sum(progress.outcomes.values())
        for warning in job.spec.warnings:
            log.warning("%s", warning)
        if recovery.torn_bytes:
            log.warning(
                "%s ended in the middle of a record: %d bytes were cut off and kept in %s.",
                self.ledger.path,
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

    async def _send_all(self) -> None:
        """Settle what is not settled yet, until all is or the run has to stop."""
        config = self._config
        async with AsyncExitStack() as stack:
            try:
                async with cut_short(self._stop):
                    await self._helm.until_it_goes()
                    reads = config.changes.verify_drift > 0
                    connect = await stack.enter_async_context(
                        open_connect(
                            config.connection,
                            max_in_flight=config.max_in_flight + READS_IN_FLIGHT * reads,
                        )
                    )
                    if is_loopback(connect.endpoint_url) != is_local(config):
                        raise ConfigError(
                            f"The AWS configuration sends to {connect.endpoint_url}. Name it with "
                            "--endpoint-url, so that a rehearsal is never taken for the real thing."
                        )
                    known = await find_quotas(
                        config, self._job.operations, connect.read_quotas, now=self._now
                    )
                    memory = await self._decide(known)
                    await self._put_in_order()
            except ToldToStop:
                return
            self._say_pace(known)
            self._warn_of_credentials(connect.credentials_end, known)
            beside = {READ_ATTRIBUTES: READ_QUOTA} if reads else None
            pace = self._pace = Pace(config.pacing, known, now=self._now, beside=beside)
            self._helm.attach(pace.pacer)
            self._show(pace)
            sender = self._sender = Sender(
                config,
                send=connect.send if self._watch is None else self._watch.cutting(connect.send),
                pacer=pace.pacer,
                ledger=self.ledger,
                breaker=Breaker(config.max_failures),
                progress=self._progress,
                rng=random.Random(config.retry.seed),  # noqa: S311 - jitter, no secret
                now=self._now,
                explain=partial(connect.advise, instance_ids=constant_instances(self._job.spec)),
            )
            await stack.enter_async_context(keep_found(known.kept, pace.found, now=self._now))
            sender.listeners += self._progress.listeners
            if memory is not None:
                sender.listeners.append(memory.settled)
                await stack.enter_async_context(memory.keeping(sender.in_doubt))
            canary = None if config.canary is None else Canary(config.canary)
            if canary is not None:
                sender.listeners.append(canary.settled)
            feeder = self._feeder = Feeder(
                sender,
                self.ledger,
                self._progress,
                now=self._now,
                memory=memory,
                canary=canary,
                check=self._read_back(connect, pace) if reads else None,
            )
            await self._send_with(sender, feeder)

    def _read_back(self, connect: Connect, pace: Pace) -> DriftCheck:
        """What reads some of the unchanged contacts back."""
        read = connect.read_attributes
        check = DriftCheck(
            read if self._watch is None else self._watch.cutting(read),
            pacer=pace.pacer,
            retry=self._config.retry,
            rng=random.Random(self._config.retry.seed),  # noqa: S311 - jitter, no secret
            share=self._config.changes.verify_drift,
            run_id=self.ledger.run_id,
            now=self._now,
        )
        if isinstance(self.work, WholeJob):
            self.work.is_drawn = check.are_drawn
        return check

    async def _put_in_order(self) -> None:
        """`--order`: which rows go first, where that is not the file's order."""
        work = self.work
        if self._config.order == "file" or not isinstance(work, WholeJob):
            return
        expect_dates(work.job.spec)
        work.order = await in_obedient_thread(lambda stop: order_job(work.job, stop=stop))

    def _show(self, pace: Pace) -> None:
        """Let a display see how fast it goes."""
        progress = self._progress
        progress.exclusive = self._config.pacing.exclusive
        progress.ceiling_per_s = pace.ceiling_per_s()
        progress.allowed_per_s = pace.pacer.allowed_per_s
        progress.started_per_s = pace.pacer.started_per_s

    async def _decide(self, known: KnownQuotas) -> Memory | None:
        """Which rows need not be sent; what is sent is remembered."""
        changes = self._config.changes
        if not isinstance(self.work, WholeJob) or not (self._state or self._evidence):
            return None
        recall = None
        if self._state is not None:
            recall = recall_of(
                self._config, self._state, known, began_at=self._began_at, now=self._now()
            )
        decisions = await in_obedient_thread(
            lambda stop: decide_job(
                self.work.job,
                self.ledger.settled,
                recall=recall,
                evidence=self._evidence,
                stop=stop,
            )
        )
        for line in describe(decisions):
            log.info("%s", line)
        refuse_if_too_much(decisions, changes)
        self.work.decisions = decisions
        if recall is None:
            return None
        for operation, instance_id in decisions.to_send:
            scope = recall.scope_of(operation, instance_id)
            await asyncio.to_thread(recall.state.note_run, scope, recall.job, recall.began_at)
        return Memory(recall, decisions, self.ledger.settled, now=self._now)

    def _say_pace(self, known: KnownQuotas) -> None:
        """How fast and why; of a long run also how long, and what would make it shorter."""
        pacing = self._config.pacing
        for operation in self._job.operations:
            quota = known.quotas[operation.name]
            told = describe_pace(pacing, quota, known.account_id)
            log.info("%s: %s.", operation.name, told)
            n_left = self.work.n_left(operation.name)
            for line in describe_long_run(operation, n_left, pacing, quota):
                log.info("%s", line)
        if known.kept is None and not self._config.sandbox:
            log.log(
                logging.INFO if pacing.rate == "auto" else logging.DEBUG,
                "What this run finds out about the quotas is not kept, and nothing that earlier "
                "runs found is used: the AWS account is not known.",
            )

    def _warn_of_credentials(self, ends: CredentialsEnd, known: KnownQuotas) -> None:
        """Whether the run ends before its credentials do, at the pace that it begins with."""
        n_left = {each.name: self.work.n_left(each.name) for each in self._job.operations}
        takes_s = max(
            n / initial_rate_per_s(self._config.pacing, known.quotas[name])
            for name, n in n_left.items()
        )
        told = describe_credentials_end(ends, now_s=self._now(), takes_s=takes_s)
        if told is not None:
            log.warning("%s", told)

    async def _send_with(self, sender: Sender, feeder: Feeder) -> None:
        halting = asyncio.create_task(_halt_when_told(self._stop, sender, feeder))
        try:
            await feeder.feed(self.work)
            await sender.drain()
        finally:
            halting.cancel()
            await feeder.abort()
            await sender.abort()

    def _expect_all_settled(self) -> None:
        """The outcomes add up to the rows read, for every operation, or the fault is ours."""
        n_results = sum(self.work.count_outcomes().values())
        if n_results != self._progress.results_total:
            raise RunStopped(
                f"the results do not add up: {self._progress.results_total:,} are due, and there "
                f"are {n_results:,}. This is a fault in bulk_updater; please report it. The same "
                "command sends what has no result."
            )

    def summarise(self, stopped_by: BulkUpdaterError | None, *, took_s: float) -> RunSummary:
        """What the ledger says, and what this execution did."""
        counts = self.work.count_outcomes()
        unsettled = self._progress.results_total - sum(counts.values())
        return RunSummary(
            run_id=self.ledger.run_id,
            state="stopped" if stopped_by else self._how_it_ended(unsettled),
            reason=None if stopped_by is None else stopped_by.message,
            rows_read=self._job.n_rows,
            outcomes={outcome.value: count for outcome, count in counts.items()},
            unsettled=unsettled,
            attempts=self._progress.sent,
            throttled=self._progress.throttled,
            took_s=took_s,
            ledger=str(self.ledger.path),
            resume=self._config.command or None if unsettled else None,
            pace=() if self._pace is None else self._pace.summarise(),
            drift=None if self._feeder is None else self._feeder.drift,
        )

    def _how_it_ended(self, unsettled: int) -> str:
        if not unsettled:
            return "finished"
        return "deadline" if self._helm.met_deadline else "interrupted"

    @property
    def n_in_doubt(self) -> int:
        """Requests, at the most, that may have been applied by now and whose rows are unsettled."""
        in_doubt = self._in_doubt + (0 if self._sender is None else self._sender.n_in_doubt)
        if self._job.opened.limit is not None:
            return in_doubt  # they may be of rows beyond it
        return min(in_doubt, self._progress.results_total - self.ledger.settled.count())

    def pace_notes(self) -> list[dict[str, Any]]:
        """What `run.json` is to remember of this execution's pace; nothing if it sent nothing."""
        return [] if self._pace is None else [self._pace.to_note()]


async def _halt_when_told(stop: asyncio.Event, sender: Sender, feeder: Feeder) -> None:
    await stop.wait()
    sender.halt()
    feeder.halt()
