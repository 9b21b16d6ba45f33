"""Handing on what there is to do, in order: to the sender, to be read back, or to the ledger."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from bulk_updater.errors import RunStopped, SourceError
from bulk_updater.mapping import EXPIRED
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.pipeline.drift import DriftCheck, DriftReader
from bulk_updater.pipeline.memory import MARKED_TOGETHER
from bulk_updater.pipeline.work import Batch, Check

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    from bulk_updater.ledger import Ledger
    from bulk_updater.model import Progress
    from bulk_updater.pipeline.canary import Canary
    from bulk_updater.pipeline.drift import Drift
    from bulk_updater.pipeline.sender import Sender
    from bulk_updater.pipeline.work import Work

__all__ = ["BeforeSending", "Feeder"]

_RESULTS_AT_ONCE: Final = 512
"""Results of rows that are not sent, appended together: one fsync for all of them."""


class BeforeSending(Protocol):
    """What is to be done before requests are sent."""

    async def __call__(self, requests: Sequence[Request], /) -> None:
        """Return when they may be sent.

        Raises:
            LedgerError: They may not.
        """


class Feeder:
    """Hands what a work consists of on, until all of it is, or the sender takes no more.

    Args:
        sender: Sends requests.
        ledger: Keeps the results of rows that are not sent.
        progress: Kept up to date.
        now: Seconds since the epoch.
        before: Awaited before requests are sent; None where nothing is remembered.
        canary: Says when to wait for the first rows, and whether to go on; None: there is none.
        check: Reads unchanged contacts back; None where none is to be.
    """

    def __init__(
        self,
        sender: Sender,
        ledger: Ledger,
        progress: Progress,
        *,
        now: Callable[[], float],
        before: BeforeSending | None = None,
        canary: Canary | None = None,
        check: DriftCheck | None = None,
    ) -> None:
        self._sender = sender
        self._ledger = ledger
        self._progress = progress
        self._now = now
        self._before = before
        self._canary = canary
        self._drift: DriftReader | None = None
        if check is not None:
            self._drift = DriftReader(
                check,
                drifted=self._mend,
                unchanged=self._leave,
                is_halted=lambda: sender.is_halted,
            )
        self._expires_at: Mapping[int, int] = {}
        self._together = 1 if before is None else MARKED_TOGETHER

    @property
    def drift(self) -> dict[str, int] | None:
        """Contacts read back by now, by what that showed; None where none is to be read."""
        return None if self._drift is None else self._drift.counts.by_kind()

    def halt(self) -> None:
        """Read nothing back any more."""
        if self._drift is not None:
            self._drift.halt()

    async def abort(self) -> None:
        """The same, and return when whatever was being read has ended."""
        if self._drift is not None:
            await self._drift.abort()

    async def feed(self, work: Work) -> None:
        """Hand everything on.

        Raises:
            LedgerError: A result, or a mark, could not be made durable.
        """
        try:
            async with aclosing(_one_ahead(work.batches())) as batches:
                async for batch in batches:
                    await self._feed(batch)
                    if self._sender.is_halted:
                        return
            if self._drift is not None:
                await self._drift.drain()
        except SourceError as error:
            # Rows before it were sent, so it is no usage error any more.
            self._sender.halt(RunStopped(error.message))
        except RunStopped as error:
            self._sender.halt(error)

    async def _feed(self, batch: Batch) -> None:
        for block in batch.unsent:
            await self._ledger.append_unsent(block, finished_at=self._now())
            self._progress.count(block.outcome, len(block))
        self._expires_at = batch.expires_at
        unsent: list[Result] = []
        requests: list[Request] = []
        for entry in batch.entries:
            if self._sender.is_halted:
                break
            if isinstance(entry, Check):
                await self._check(entry)
                continue
            if isinstance(entry, Request):
                requests.append(entry)
                if len(requests) >= self._together or self._canary is not None:
                    await self._send(requests)
                    requests = []
                continue
            unsent.append(replace(entry, finished_at=self._now()))
            if len(unsent) == _RESULTS_AT_ONCE:
                await self._append(unsent)
                unsent = []
        await self._append(unsent)
        await self._send(requests)

    async def _send(self, requests: list[Request]) -> None:
        """Send some requests, unless Connect has forgotten their contacts by now."""
        # First: what is not sent is no part of a canary, and leaves no mark.
        requests = await self._without_expired(requests)
        if requests and self._canary is not None:
            await self._wait_for_canary(requests[0])
        if not requests or self._sender.is_halted:
            return
        if self._before is not None:
            await self._before(requests)
        for request in requests:
            if self._is_expired(request):  # while it waited for its turn
                await self._append([_expired(request, self._now())])
            else:
                await self._sender.submit(request)

    async def _without_expired(self, requests: list[Request]) -> list[Request]:
        """Those whose contacts Connect still has; the others get their results."""
        expired = [request for request in requests if self._is_expired(request)]
        if not expired:
            return requests
        await self._append([_expired(request, self._now()) for request in expired])
        rows = {request.row for request in expired}
        return [request for request in requests if request.row not in rows]

    def _is_expired(self, request: Request) -> bool:
        expires_at = self._expires_at.get(request.row)
        return expires_at is not None and expires_at <= self._now()

    async def _wait_for_canary(self, request: Request) -> None:
        """Before the first row behind the canary: wait until it has ended, and see how."""
        canary = self._canary
        if canary is None or canary.submitted(request.row):
            return
        await self._sender.drain()
        if canary.failure is not None:
            self._sender.halt(RunStopped(canary.failure))
        self._canary = None

    async def _check(self, entry: Check) -> None:
        if self._drift is None:
            await self._append([_unsent(entry.request, Outcome.UNCHANGED, self._now())])
        else:
            await self._drift.submit(entry.request)

    async def _mend(self, request: Request) -> None:
        """Send what somebody else changed, as if it had changed here."""
        await self._send([request])

    async def _leave(self, request: Request, _: Drift) -> None:
        await self._append([_unsent(request, Outcome.UNCHANGED, self._now())])

    async def _append(self, results: list[Result]) -> None:
        await self._ledger.append(*results)
        for result in results:
            self._progress.count(result.outcome)


def _expired(request: Request, finished_at: float) -> Result:
    return replace(_unsent(request, Outcome.SKIPPED, finished_at), error_code=EXPIRED)


def _unsent(request: Request, outcome: Outcome, finished_at: float) -> Result:
    return Result(
        row=request.row,
        source=request.source,
        operation=request.operation,
        outcome=outcome,
        instance_id=request.instance_id,
        contact_id=request.contact_id,
        payload_digest=request.payload_digest or None,
        finished_at=finished_at,
    )


async def _one_ahead(batches: Iterator[Batch]) -> AsyncGenerator[Batch]:
    """The batches, each made in a thread while the one before it is sent."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    coming = loop.run_in_executor(executor, next, batches, None)
    try:
        while (batch := await coming) is not None:
            coming = loop.run_in_executor(executor, next, batches, None)
            yield batch
    finally:
        # Nobody waits for what the thread is still reading, or cares what it finds.
        coming.add_done_callback(lambda future: future.cancelled() or future.exception())
        executor.shutdown(wait=False)
