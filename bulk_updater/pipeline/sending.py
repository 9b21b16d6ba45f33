"""What an execution sends: connected, decided, paced, and handed on row by row.

What a row goes through here: its frame is read and mapped in a thread, one frame ahead; a row
that makes no request gets its result at once; a request goes to the sender, which waits for a
slot. When everything has been handed on, or the run is told to stop, the sender is drained.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from bulk_updater.config import is_loopback
from bulk_updater.connect import READ_ATTRIBUTES, open_connect
from bulk_updater.errors import ConfigError
from bulk_updater.pacing import initial_rate_per_s
from bulk_updater.pipeline.breaker import Breaker
from bulk_updater.pipeline.canary import Canary
from bulk_updater.pipeline.changes import (
    decide_job,
    describe,
    recall_of,
    refuse_if_too_much,
)
from bulk_updater.pipeline.doubting import doubting
from bulk_updater.pipeline.drift import READ_QUOTA, READS_IN_FLIGHT, DriftCheck
from bulk_updater.pipeline.estimate import describe_long_run, describe_pace
from bulk_updater.pipeline.feeding import Feeder
from bulk_updater.pipeline.identity import is_local
from bulk_updater.pipeline.lasting import describe_credentials_end, lasts_s
from bulk_updater.pipeline.memory import Memory
from bulk_updater.pipeline.ordering import expect_dates, order_job
from bulk_updater.pipeline.pace import Pace
from bulk_updater.pipeline.quotas import find_quotas, keep_found
from bulk_updater.pipeline.scene import constant_instances
from bulk_updater.pipeline.sender import Sender
from bulk_updater.pipeline.stopping import ToldToStop, cut_short
from bulk_updater.pipeline.threads import in_obedient_thread
from bulk_updater.pipeline.work import WholeJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.config import RunConfig
    from bulk_updater.connect import Connect, CredentialsEnd
    from bulk_updater.model import PaceSummary, Progress
    from bulk_updater.pipeline.deadline import Watch
    from bulk_updater.pipeline.execution import Prepared
    from bulk_updater.pipeline.feeding import BeforeSending
    from bulk_updater.pipeline.quotas import KnownQuotas

__all__ = ["Sending"]

log = logging.getLogger(__name__)


class Sending:
    """Settles what an execution has left.

    Args:
        config: The run.
        prepared: What is settled.
        progress: Kept up to date.
        watch: Keeps it to its schedule, and tells it to stop.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        *,
        progress: Progress,
        watch: Watch,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._work = prepared.work
        self._job = prepared.work.job
        self._ledger = prepared.ledger
        self._progress = progress
        self._watch = watch
        self._stop = watch.helm.stop
        self._now = now
        self._reads = config.changes.verify_drift > 0
        self._pace: Pace | None = None
        self._sender: Sender | None = None
        self._feeder: Feeder | None = None

    async def send_all(self) -> None:
        """Settle what is not settled yet, until all is or the run has to stop.

        Raises:
            RunStopped: An error concerns the whole run.
            LedgerError: A result, or what is remembered of a contact, could not be made durable.
            ConfigError: It cannot send as it was told to; nothing was sent.
        """
        async with AsyncExitStack() as stack:
            try:
                async with cut_short(self._stop):
                    await self._watch.helm.until_it_goes()
                    connect = await self._connect(stack)
                    known = await find_quotas(
                        self._config, self._job.operations, connect.read_quotas, now=self._now
                    )
                    memory = await self._decide(known)
                    await self._put_in_order()
            except ToldToStop:
                return
            self._say_pace(known)
            self._warn_of_credentials(connect.credentials_end, known)
            pace = self._begin_pace(known)
            sender = self._sender = self._make_sender(connect, pace)
            await stack.enter_async_context(keep_found(known.kept, pace.found, now=self._now))
            before = await self._remember(memory, known, sender, stack)
            feeder = self._feeder = self._make_feeder(sender, before, connect, pace)
            await self._send_with(sender, feeder)

    async def _connect(self, stack: AsyncExitStack) -> Connect:
        """The connection, closed with the stack."""
        config = self._config
        connect = await stack.enter_async_context(
            open_connect(
                config.connection,
                max_in_flight=config.max_in_flight + READS_IN_FLIGHT * self._reads,
            )
        )
        if is_loopback(connect.endpoint_url) != is_local(config):
            raise ConfigError(
                f"The AWS configuration sends to {connect.endpoint_url}. Name it with "
                "--endpoint-url, so that a rehearsal is never taken for the real thing."
            )
        return connect

    async def _decide(self, known: KnownQuotas) -> Memory | None:
        """Which rows need not be sent; what is sent is remembered."""
        state, evidence = self._prepared.state, self._prepared.evidence
        if not isinstance(self._work, WholeJob) or not (state or evidence):
            return None
        recall = None
        if state is not None:
            began_at = self._prepared.note["began_at"]
            recall = recall_of(self._config, state, known, began_at=began_at, now=self._now())
        decisions = await in_obedient_thread(
            lambda stop: decide_job(
                self._job, self._ledger.settled, recall=recall, evidence=evidence, stop=stop
            )
        )
        for line in describe(decisions):
            log.info("%s", line)
        refuse_if_too_much(decisions, self._config.changes)
        self._work.decisions = decisions
        if recall is None:
            return None
        for operation, instance_id in decisions.to_send:
            scope = recall.scope_of(operation, instance_id)
            await asyncio.to_thread(recall.state.note_run, scope, recall.job, recall.began_at)
        return Memory(recall, decisions, self._ledger.settled, now=self._now)

    async def _put_in_order(self) -> None:
        """`--order`: which rows go first, where that is not the file's order."""
        work = self._work
        if self._config.order == "file" or not isinstance(work, WholeJob):
            return
        expect_dates(work.job.spec)
        work.order = await in_obedient_thread(lambda stop: order_job(work.job, stop=stop))

    def _say_pace(self, known: KnownQuotas) -> None:
        """How fast and why; of a long run also how long, and what would make it shorter."""
        pacing = self._config.pacing
        for operation in self._job.operations:
            quota = known.quotas[operation.name]
            told = describe_pace(pacing, quota, known.account_id)
            log.info("%s: %s.", operation.name, told)
            n_left = self._work.n_left(operation.name)
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
        n_left = {each.name: self._work.n_left(each.name) for each in self._job.operations}
        takes_s = max(
            n / initial_rate_per_s(self._config.pacing, known.quotas[name])
            for name, n in n_left.items()
        )
        now_s = self._now()
        lasts = lasts_s(self._config, takes_s, now_s)
        told = describe_credentials_end(ends, now_s=now_s, takes_s=lasts)
        if told is not None:
            log.warning("%s", told)

    def _begin_pace(self, known: KnownQuotas) -> Pace:
        """The pace, steered by `ctl` and seen by a display."""
        progress = self._progress
        beside = {READ_ATTRIBUTES: READ_QUOTA} if self._reads else None
        pace = self._pace = Pace(self._config.pacing, known, now=self._now, beside=beside)
        self._watch.helm.attach(pace.pacer)
        progress.exclusive = self._config.pacing.exclusive
        progress.ceiling_per_s = pace.ceiling_per_s()
        # What is read back has a quota of its own, which the ceiling leaves out as well.
        progress.allowed_per_s = partial(pace.pacer.allowed_per_s, known.quotas)
        progress.started_per_s = partial(pace.pacer.started_per_s, known.quotas)
        return pace

    def _make_sender(self, connect: Connect, pace: Pace) -> Sender:
        config = self._config
        sender = Sender(
            config,
            send=self._watch.cutting(connect.send),
            pacer=pace.pacer,
            ledger=self._ledger,
            breaker=Breaker(config.max_failures),
            progress=self._progress,
            rng=self._rng(),
            now=self._now,
            explain=partial(connect.advise, instance_ids=constant_instances(self._job.spec)),
        )
        sender.listeners += self._progress.listeners
        return sender

    async def _remember(
        self, memory: Memory | None, known: KnownQuotas, sender: Sender, stack: AsyncExitStack
    ) -> BeforeSending | None:
        """What the state is to hold of the contacts that are sent to, whether it was asked or not.

        Returns:
            What is called before requests are sent; None where there is no state.
        """
        if memory is None:
            return await stack.enter_async_context(
                doubting(self._config, self._prepared.state, known)
            )
        sender.listeners.append(memory.settled)
        await stack.enter_async_context(memory.keeping(sender.in_doubt))
        return memory.about_to_send

    def _make_feeder(
        self, sender: Sender, before: BeforeSending | None, connect: Connect, pace: Pace
    ) -> Feeder:
        canary = None if self._config.canary is None else Canary(self._config.canary)
        if canary is not None:
            sender.listeners.append(canary.settled)
        return Feeder(
            sender,
            self._ledger,
            self._progress,
            now=self._now,
            before=before,
            canary=canary,
            check=self._read_back(connect, pace) if self._reads else None,
        )

    def _read_back(self, connect: Connect, pace: Pace) -> DriftCheck:
        """What reads some of the unchanged contacts back."""
        check = DriftCheck(
            self._watch.cutting(connect.read_attributes),
            pacer=pace.pacer,
            retry=self._config.retry,
            rng=self._rng(),
            share=self._config.changes.verify_drift,
            run_id=self._ledger.run_id,
            now=self._now,
        )
        if isinstance(self._work, WholeJob):
            self._work.is_drawn = check.are_drawn
        return check

    def _rng(self) -> random.Random:
        return random.Random(self._config.retry.seed)  # noqa: S311 - jitter, no secret

    async def _send_with(self, sender: Sender, feeder: Feeder) -> None:
        halting = asyncio.create_task(_halt_when_told(self._stop, sender, feeder))
        try:
            await feeder.feed(self._work)
            await sender.drain()
        finally:
            halting.cancel()
            await feeder.abort()
            await sender.abort()

    @property
    def n_in_doubt(self) -> int:
        """Requests that may have been applied, and whose rows are unsettled."""
        return 0 if self._sender is None else self._sender.n_in_doubt

    @property
    def drift(self) -> dict[str, int] | None:
        """Contacts read back by now, by what that showed; None where none was to be read."""
        return None if self._feeder is None else self._feeder.drift

    def summarise_pace(self) -> tuple[PaceSummary, ...]:
        """What is to be said of the pace, by operation; nothing if nothing was sent."""
        return () if self._pace is None else self._pace.summarise()

    def pace_notes(self) -> list[dict[str, Any]]:
        """What `run.json` is to remember of the pace; nothing if nothing was sent."""
        return [] if self._pace is None else [self._pace.to_note()]


async def _halt_when_told(stop: asyncio.Event, sender: Sender, feeder: Feeder) -> None:
    await stop.wait()
    sender.halt()
    feeder.halt()
