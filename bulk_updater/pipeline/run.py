"""A run, from the command to the summary: every row of its sources gets a result."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulk_updater.ledger import Ledger
from bulk_updater.model import Progress
from bulk_updater.pipeline.changes import held_for_older, state_file
from bulk_updater.pipeline.execution import Prepared, execute
from bulk_updater.pipeline.identity import enter_run_dir
from bulk_updater.pipeline.mended import MendedRows, open_mended
from bulk_updater.pipeline.superseding import take_over
from bulk_updater.pipeline.threads import entered_in_thread
from bulk_updater.pipeline.work import WholeJob
from bulk_updater.state import State
from bulk_updater.words import count

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager, AsyncExitStack

    from bulk_updater.config import RunConfig
    from bulk_updater.ledger import RunDir
    from bulk_updater.model import RunSummary
    from bulk_updater.pipeline.deciding import Evidence
    from bulk_updater.pipeline.job import Job
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

    def hold(noted: dict[str, Any], path: Path) -> AbstractContextManager[State | None]:
        return held_for_older(_state_of(config, noted), noted, path)

    async def prepare(job: Job, stack: AsyncExitStack) -> Prepared:
        # First: a run that is refused has not begun, and is newer than whoever has it.
        state = await _open_state(config, stack)
        run_dir, note = await stack.enter_async_context(
            entered_in_thread(enter_run_dir(config, job, now=now))
        )
        ledger = await stack.enter_async_context(Ledger.open(run_dir.ledger_path, note["run_id"]))
        mended = await stack.enter_async_context(
            entered_in_thread(open_mended(config, job, run_dir, note, hold))
        )
        work: Work = WholeJob(job, ledger.settled, now=now)
        if mended is not None:
            work = MendedRows(work, mended)
            state = mended.state
        return Prepared(
            run_dir=run_dir,
            note=note,
            ledger=ledger,
            work=work,
            state=state,
            evidence=await _take_over(config, run_dir, note, now=now),
        )

    return await execute(
        config,
        prepare,
        what="run",
        progress=progress or Progress(),
        stop=stop,
        now=now,
        obeys_ctl=obeys_ctl,
    )


async def _open_state(config: RunConfig, stack: AsyncExitStack) -> State | None:
    """What was last applied, held until the run ends; None where nobody asks for it."""
    if not config.changes.only_changed:
        return None
    return await stack.enter_async_context(entered_in_thread(State.open(state_file(config))))


def _state_of(config: RunConfig, noted: dict[str, Any]) -> Path:
    """The state file of the run that mended rows come from, unless this one is told another."""
    told = noted.get("configuration", {}).get("changes", {}).get("state_file")
    return state_file(config) if told is None or config.changes.state_file else Path(told)


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
