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
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from bulk_updater.config import is_loopback
from bulk_updater.connect import open_connect
from bulk_updater.errors import (
    BulkUpdaterError,
    ConfigError,
    LedgerError,
    RunStopped,
    SourceError,
)
from bulk_updater.ledger import Ledger
from bulk_updater.model import Outcome, Progress, Request, Result, RunSummary
from bulk_updater.outlast import outlast
from bulk_updater.pacing import initial_rate_per_s
from bulk_updater.pipeline.breaker import Breaker
from bulk_updater.pipeline.estimate import describe_long_run, describe_pace
from bulk_updater.pipeline.failed import write_failed
from bulk_updater.pipeline.identity import enter_run_dir, is_local
from bulk_updater.pipeline.job import Job, open_job, survey
from bulk_updater.pipeline.lasting import describe_credentials_end
from bulk_updater.pipeline.pace import Pace
from bulk_updater.pipeline.quotas import KnownQuotas, find_quotas, keep_found
from bulk_updater.pipeline.scene import constant_instances
from bulk_updater.pipeline.sender import Sender
from bulk_updater.pipeline.stopping import ToldToStop, cut_short
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from bulk_updater.config import RunConfig
    from bulk_updater.connect import CredentialsEnd
    from bulk_updater.mapping import MappedFrame

__all__ = ["run"]

log = logging.getLogger(__name__)

_RESULTS_AT_ONCE = 512
"""Results of rows that are not sent, appended together: one fsync for all of them."""

_T = TypeVar("_T")


async def run(
    config: RunConfig,
    *,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    now: Callable[[], float] = time.time,
) -> RunSummary:
    """Settle every row of the sources, or as many as can be.

    Args:
        config: The run.
        progress: Kept up to date while the run goes on, for a display.
        stop: Set it to stop: nothing is begun any more, what is under way is settled. Before the
            first request there is nothing to settle, and it is obeyed at once.
        now: Seconds since the epoch, for the times in the results.

    Returns:
        The summary; its state is `finished` or `interrupted`.

    Raises:
        UsageError: If the run cannot begin; nothing was sent.
        LedgerError: If the run directory is not usable; nothing was sent.
        RunStopped: If an error concerns the whole run; it carries the summary. If `stop` was set
            before it was known what is settled, there is none.
        CancelledError: If cancelled; the ledger is whole.
    """
    clock = asyncio.get_running_loop().time
    began_s = clock()
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        try:
            async with cut_short(stop):
                job = await _survey(config)
                run_dir, note = await stack.enter_async_context(
                    _in_thread(enter_run_dir(config, job))
                )
                ledger = await stack.enter_async_context(
                    Ledger.open(run_dir.ledger_path, note["run_id"])
                )
        except ToldToStop:
            raise RunStopped("The run was told to stop before it sent anything.") from None
        execution = _Execution(
            config,
            job,
            ledger,
            in_doubt=note["in_doubt"],
            progress=progress or Progress(),
            stop=stop,
            now=now,
        )
        stopped_by = await execution.settle_all()
        summary = execution.summarise(stopped_by, took_s=round(clock() - began_s, 3))
        try:
            failed = await asyncio.to_thread(write_failed, run_dir, job, ledger.settled)
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


async def _survey(config: RunConfig) -> Job:
    """What there is to do, found out in a thread; nobody who is cancelled waits for it."""
    stop = threading.Event()
    # Not the event loop's own executor, whose threads are waited for when the loop ends.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="survey")
    try:
        return await asyncio.get_running_loop().run_in_executor(
            executor, lambda: survey(open_job(config), stop=stop)
        )
    finally:
        stop.set()
        executor.shutdown(wait=False)


class _Execution:
    """One execution of a run, with everything that it works with."""

    def __init__(
        self,
        config: RunConfig,
        job: Job,
        ledger: Ledger,
        *,
        in_doubt: int,
        progress: Progress,
        stop: asyncio.Event,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._job = job
        self._ledger = ledger
        self._progress = progress
        self._stop = stop
        self._now = now
        self._pace: Pace | None = None
        self._in_doubt = in_doubt
        self._sender: Sender | None = None

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
        job, progress, recovery = self._job, self._progress, self._ledger.recovery
        progress.results_total = job.n_rows * len(job.operations)
        progress.outcomes = self._count_outcomes()
        progress.settled_before = progress.settled = sum(progress.outcomes.values())
        for warning in job.spec.warnings:
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

    async def _send_all(self) -> None:
        """Settle what is not settled yet, until all is or the run has to stop."""
        config, progress = self._config, self._progress
        async with AsyncExitStack() as stack:
            try:
                async with cut_short(self._stop):
                    connect = await stack.enter_async_context(
                        open_connect(config.connection, max_in_flight=config.max_in_flight)
                    )
                    if is_loopback(connect.endpoint_url) != is_local(config):
                        raise ConfigError(
                            f"The AWS configuration sends to {connect.endpoint_url}. Name it with "
                            "--endpoint-url, so that a rehearsal is never taken for the real thing."
                        )
                    known = await find_quotas(
                        config, self._job.operations, connect.read_quotas, now=self._now
                    )
            except ToldToStop:
                return
            self._say_pace(known)
            self._warn_of_credentials(connect.credentials_end, known)
            pace = self._pace = Pace(config.pacing, known, now=self._now)
            progress.exclusive = config.pacing.exclusive
            progress.ceiling_per_s = pace.ceiling_per_s()
            progress.allowed_per_s = pace.pacer.allowed_per_s
            progress.started_per_s = pace.pacer.started_per_s
            sender = self._sender = Sender(
                config,
                send=connect.send,
                pacer=pace.pacer,
                ledger=self._ledger,
                breaker=Breaker(config.max_failures),
                progress=progress,
                rng=random.Random(config.retry.seed),  # noqa: S311 - jitter, no secret
                now=self._now,
                explain=partial(connect.advise, instance_ids=constant_instances(self._job.spec)),
            )
            async with keep_found(known.kept, pace.found, now=self._now):
                await self._send_with(sender)

    def _say_pace(self, known: KnownQuotas) -> None:
        """How fast and why; of a long run also how long, and what would make it shorter."""
        pacing = self._config.pacing
        for operation in self._job.operations:
            quota = known.quotas[operation.name]
            told = describe_pace(pacing, quota, known.account_id)
            log.info("%s: %s.", operation.name, told)
            n_left = self._job.n_rows - self._ledger.settled.count(operation.name)
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
        n_left = {
            operation.name: max(0, self._job.n_rows - self._ledger.settled.count(operation.name))
            for operation in self._job.operations
        }
        takes_s = max(
            n / initial_rate_per_s(self._config.pacing, known.quotas[name])
            for name, n in n_left.items()
        )
        told = describe_credentials_end(ends, now_s=self._now(), takes_s=takes_s)
        if told is not None:
            log.warning("%s", told)

    async def _send_with(self, sender: Sender) -> None:
        halting = asyncio.create_task(_halt_when_told(self._stop, sender))
        try:
            await self._feed(sender)
            await sender.drain()
        finally:
            halting.cancel()
            await sender.abort()

    async def _feed(self, sender: Sender) -> None:
        """Hand every unsettled row on, in file order: to the sender, or to the ledger."""
        n_rows = 0
        try:
            async with aclosing(_one_ahead(self._job.opened.mapped_frames())) as frames:
                async for frame in frames:
                    n_rows += len(frame.frame.rows) + len(frame.frame.unreadable)
                    if n_rows > self._job.n_rows:
                        break  # nothing is sent that was not there when it was counted
                    await self._feed_frame(frame, sender)
                    if sender.is_halted:
                        return
        except SourceError as error:
            # Rows before it were sent, so it is no usage error any more.
            sender.halt(RunStopped(error.message))
            return
        n_counted = self._job.n_rows
        if n_rows != n_counted:
            now = f"{n_rows:,}" if n_rows < n_counted else "more"
            sender.halt(
                RunStopped(
                    f"the source changed while it was read: {n_counted:,} rows at first, {now} "
                    "now. Run it again as it is now."
                )
            )

    async def _feed_frame(self, frame: MappedFrame, sender: Sender) -> None:
        settled = self._ledger.settled
        unsent: list[Result] = []
        for entry in frame.entries(lambda row, operation: (row, operation) in settled):
            if sender.is_halted:
                break
            if isinstance(entry, Request):
                await sender.submit(entry)
                continue
            unsent.append(replace(entry, finished_at=self._now()))
            if len(unsent) == _RESULTS_AT_ONCE:
                await self._append_unsent(unsent)
                unsent = []
        await self._append_unsent(unsent)

    async def _append_unsent(self, results: list[Result]) -> None:
        await self._ledger.append(*results)
        for result in results:
            self._progress.count(result.outcome)

    def _expect_all_settled(self) -> None:
        """The outcomes add up to the rows read, for every operation, or the fault is ours."""
        n_results = sum(self._count_outcomes().values())
        if n_results != self._progress.results_total:
            raise RunStopped(
                f"the results do not add up: {self._progress.results_total:,} are due, and there "
                f"are {n_results:,}. This is a fault in bulk_updater; please report it. The same "
                "command sends what has no result."
            )

    def _count_outcomes(self) -> dict[Outcome, int]:
        """Results by outcome, of the rows that this run is to take."""
        settled = self._ledger.settled
        if self._job.opened.limit is None:
            return settled.outcomes()
        # An earlier execution may have gone beyond the limit.
        counts = dict.fromkeys(Outcome, 0)
        for row in range(1, self._job.n_rows + 1):
            for operation in self._job.operations:
                outcome = settled.outcome_of(row, operation.name)
                if outcome is not None:
                    counts[outcome] += 1
        return counts

    def summarise(self, stopped_by: BulkUpdaterError | None, *, took_s: float) -> RunSummary:
        """What the ledger says, and what this execution did."""
        counts = self._count_outcomes()
        unsettled = self._progress.results_total - sum(counts.values())
        return RunSummary(
            run_id=self._ledger.run_id,
            state="stopped" if stopped_by else "interrupted" if unsettled else "finished",
            reason=None if stopped_by is None else stopped_by.message,
            rows_read=self._job.n_rows,
            outcomes={outcome.value: count for outcome, count in counts.items()},
            unsettled=unsettled,
            attempts=self._progress.sent,
            throttled=self._progress.throttled,
            took_s=took_s,
            ledger=str(self._ledger.path),
            resume=self._config.command or None if unsettled else None,
            pace=() if self._pace is None else self._pace.summarise(),
        )

    @property
    def n_in_doubt(self) -> int:
        """Requests, at the most, that may have been applied by now and whose rows are unsettled."""
        in_doubt = self._in_doubt + (0 if self._sender is None else self._sender.n_in_doubt)
        if self._job.opened.limit is not None:
            return in_doubt  # they may be of rows beyond it
        return min(in_doubt, self._progress.results_total - self._ledger.settled.count())

    def pace_notes(self) -> list[dict[str, Any]]:
        """What `run.json` is to remember of this execution's pace; nothing if it sent nothing."""
        return [] if self._pace is None else [self._pace.to_note()]


async def _halt_when_told(stop: asyncio.Event, sender: Sender) -> None:
    await stop.wait()
    sender.halt()


async def _one_ahead(frames: Iterator[MappedFrame]) -> AsyncGenerator[MappedFrame]:
    """The frames, each read and mapped in a thread while the one before it is sent."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    coming = loop.run_in_executor(executor, next, frames, None)
    try:
        while (frame := await coming) is not None:
            coming = loop.run_in_executor(executor, next, frames, None)
            yield frame
    finally:
        # Nobody waits for what the thread is still reading, or cares what it finds.
        coming.add_done_callback(lambda future: future.cancelled() or future.exception())
        executor.shutdown(wait=False)


@asynccontextmanager
async def _in_thread(context: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """A context manager that blocks, entered and left in a thread; always left if entered."""
    stack = ExitStack()
    entering = asyncio.create_task(asyncio.to_thread(stack.enter_context, context))
    try:
        yield await outlast(entering)
    finally:
        await outlast(asyncio.create_task(asyncio.to_thread(stack.close)))
