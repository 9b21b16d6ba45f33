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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

from bulk_updater.connect import open_connect
from bulk_updater.errors import BulkUpdaterError, LedgerError, RunStopped, SourceError
from bulk_updater.ledger import Ledger
from bulk_updater.model import Outcome, Progress, Request, Result, RunSummary
from bulk_updater.pacing import Pacer
from bulk_updater.pipeline.breaker import Breaker
from bulk_updater.pipeline.failed import write_failed
from bulk_updater.pipeline.identity import enter_run_dir
from bulk_updater.pipeline.job import Job, open_job, survey
from bulk_updater.pipeline.sender import Sender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from contextlib import AbstractContextManager

    from bulk_updater.config import RunConfig
    from bulk_updater.ledger import SettledRows
    from bulk_updater.mapping import MappedFrame

__all__ = ["run"]

log = logging.getLogger(__name__)

_RESULTS_AT_ONCE = 512
"""Results of rows that are not sent, appended together: one fsync for all of them."""

_T = TypeVar("_T")


async def run(
    config: RunConfig, *, progress: Progress | None = None, stop: asyncio.Event | None = None
) -> RunSummary:
    """Settle every row of the sources, or as many as can be.

    Args:
        config: The run.
        progress: Kept up to date while the run goes on, for a display.
        stop: Set it to stop: nothing is begun any more, what is under way is settled.

    Returns:
        The summary; its state is `finished` or `interrupted`.

    Raises:
        UsageError: If the run cannot begin; nothing was sent.
        LedgerError: If the run directory is not usable, or a result could not be made durable.
        RunStopped: If an error concerns the whole run; it carries the summary.
        CancelledError: If cancelled; the ledger is whole.
    """
    progress = progress or Progress()
    stop = stop or asyncio.Event()
    began = asyncio.get_running_loop().time()
    job = await asyncio.to_thread(lambda: survey(open_job(config)))
    for warning in job.spec.warnings:
        log.warning(warning)
    async with (
        _in_thread(enter_run_dir(config, job)) as (run_dir, note),
        Ledger.open(run_dir.ledger_path, note["run_id"]) as ledger,
    ):
        _begin(progress, job, config, ledger)
        stopped_by = await _settle_all(config, job, ledger, progress, stop)
        took_s = round(asyncio.get_running_loop().time() - began, 3)
        summary = replace(_summarise(config, job, ledger, progress, stopped_by), took_s=took_s)
        try:
            failed = await asyncio.to_thread(write_failed, run_dir, job, ledger.settled)
            summary = replace(summary, failed=None if failed is None else str(failed))
            await asyncio.to_thread(run_dir.write_run_json, {**note, "summary": asdict(summary)})
        except (LedgerError, SourceError) as error:
            # The first thing that went wrong is the one to tell; the results are in the ledger.
            stopped_by = stopped_by or error
    if stopped_by is not None:
        raise RunStopped(stopped_by.message, summary=summary) from stopped_by
    return summary


async def _settle_all(
    config: RunConfig, job: Job, ledger: Ledger, progress: Progress, stop: asyncio.Event
) -> BulkUpdaterError | None:
    """Settle what is not settled; returns what stopped the run, if anything did."""
    _begin(progress, job, config, ledger)
    try:
        if progress.settled < progress.results_total:
            await _send_all(config, job, ledger, progress, stop)
        # One that was told to stop has rows left; any other is checked against what was read.
        if not stop.is_set():
            _expect_all_settled(job, ledger.settled)
    except (RunStopped, LedgerError, SourceError) as error:
        return error
    return None


def _begin(progress: Progress, job: Job, config: RunConfig, ledger: Ledger) -> None:
    """Say what is there already, before anything is sent."""
    n_operations = len(job.operations)
    settled = _count_settled(job, ledger.settled)
    progress.rows_total = job.n_rows
    progress.results_total = job.n_rows * n_operations
    progress.settled_before = progress.settled = settled
    progress.outcomes = dict(ledger.settled.outcomes())
    if ledger.recovery.torn_bytes:
        log.warning(
            "%s ended in the middle of a record: %d bytes were cut off and kept in %s.",
            ledger.path,
            ledger.recovery.torn_bytes,
            ledger.recovery.torn_path,
        )
    if not settled:
        return
    left = progress.results_total - settled
    what = "rows are" if n_operations == 1 else f"results ({job.n_rows:,} rows) are"
    if left:
        log.info(
            "%s of %s %s settled, %s to go, of which up to %d may have been sent already.",
            f"{settled:,}",
            f"{progress.results_total:,}",
            what,
            f"{left:,}",
            min(left, config.max_in_flight),
        )
    else:
        log.info("All %s %s settled; there is nothing to send.", f"{settled:,}", what)


def _count_settled(job: Job, settled: SettledRows) -> int:
    return sum(settled.count(operation.name) for operation in job.operations)


async def _send_all(
    config: RunConfig, job: Job, ledger: Ledger, progress: Progress, stop: asyncio.Event
) -> None:
    """Settle what is not settled yet, until all is or the run has to stop."""
    async with open_connect(config.connection, max_in_flight=config.max_in_flight) as connect:
        pacer = Pacer(config.pacing, [operation.name for operation in job.operations])
        progress.ceiling_per_s = pacer.ceiling_per_s
        progress.started_per_s = pacer.started_per_s
        sender = Sender(
            config,
            send=connect.send,
            pacer=pacer,
            ledger=ledger,
            breaker=Breaker(config.max_failures),
            progress=progress,
            rng=random.Random(config.retry.seed),  # noqa: S311 - jitter, no secret
        )
        halting = asyncio.create_task(_halt_when_told(stop, sender))
        try:
            await _feed(job, ledger, sender, progress)
            await sender.drain()
        finally:
            halting.cancel()
            await sender.abort()


async def _halt_when_told(stop: asyncio.Event, sender: Sender) -> None:
    await stop.wait()
    sender.halt()


async def _feed(job: Job, ledger: Ledger, sender: Sender, progress: Progress) -> None:
    """Hand every unsettled row on, in file order: to the sender, or straight to the ledger."""
    settled = ledger.settled
    n_rows = 0

    def is_settled(row: int, operation: str) -> bool:
        return (row, operation) in settled

    async with aclosing(_one_ahead(job.opened.mapped_frames())) as frames:
        async for frame in frames:
            n_rows += len(frame.frame.rows) + len(frame.frame.unreadable)
            unsent: list[Result] = []
            for entry in frame.entries(is_settled):
                if sender.is_halted:
                    break
                if isinstance(entry, Request):
                    await sender.submit(entry)
                    continue
                unsent.append(entry)
                if len(unsent) == _RESULTS_AT_ONCE:
                    await _append_unsent(ledger, progress, unsent)
                    unsent = []
            await _append_unsent(ledger, progress, unsent)
            if sender.is_halted:
                return
    if n_rows != job.n_rows:
        sender.halt(
            RunStopped(
                f"the source changed while it was read: {job.n_rows:,} rows at first, "
                f"{n_rows:,} now. Run it again as it is now."
            )
        )


async def _append_unsent(ledger: Ledger, progress: Progress, results: list[Result]) -> None:
    await ledger.append(*results)
    for result in results:
        progress.count(result.outcome)


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
    """A context manager that blocks, entered and left in a thread."""
    stack = ExitStack()
    entered = await asyncio.to_thread(stack.enter_context, context)
    try:
        yield entered
    finally:
        await asyncio.to_thread(stack.close)


def _expect_all_settled(job: Job, settled: SettledRows) -> None:
    """The outcomes add up to the rows read, for every operation, or the fault is ours."""
    for operation in job.operations:
        n_results = settled.count(operation.name)
        if n_results != job.n_rows:
            raise RunStopped(
                f"the results do not add up: {job.n_rows:,} rows, {n_results:,} results for "
                f"{operation.name}. This is a fault in bulk_updater; please report it. The same "
                "command sends what has no result."
            )


def _summarise(
    config: RunConfig, job: Job, ledger: Ledger, progress: Progress, stopped_by: Exception | None
) -> RunSummary:
    """What the ledger says, and what this execution did."""
    unsettled = progress.results_total - _count_settled(job, ledger.settled)
    counts = ledger.settled.outcomes()
    return RunSummary(
        run_id=ledger.run_id,
        state="stopped" if stopped_by else "interrupted" if unsettled else "finished",
        reason=None if stopped_by is None else str(stopped_by),
        rows_read=job.n_rows,
        outcomes={outcome.value: counts.get(outcome, 0) for outcome in Outcome},
        unsettled=unsettled,
        attempts=progress.sent,
        throttled=progress.throttled,
        took_s=0.0,
        ledger=str(ledger.path),
        resume=config.command or None if unsettled else None,
    )
