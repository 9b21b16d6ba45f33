"""What a run remembers for the next one: what it applied to each contact, and when.

Before a request is sent its contact is marked: from then on nobody knows what it holds. When the
results of all of its rows are durable and UPDATED, what the export says of it is remembered. So a
row that failed, or whose result a kill took away, is sent again by the next run, whether it changed
or not; and what a later export has in common with an older one is never taken for what a contact
holds while something else may have been applied in between.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from bulk_updater.model import Outcome
from bulk_updater.outlast import outlast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from bulk_updater.ledger import SettledRows
    from bulk_updater.model import Request, Result
    from bulk_updater.pipeline.deciding import Decisions, Recall
    from bulk_updater.state import Scope

__all__ = ["MARKED_TOGETHER", "Memory"]

MARKED_TOGETHER: Final = 64
"""Requests that are marked with one sync. As many contacts, at the most, are sent again for no
better reason than that the run was killed before it came to them."""

_KEEP_EVERY_S: Final = 1.0
"""How often what was applied is written down, in seconds. What a kill takes, the ledger tells."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Marked:
    """A contact that is being sent: what the export says of it, and in which rows."""

    chain: int
    rows: tuple[int, ...]


class Memory:
    """Keeps the state up to date while a run sends.

    Args:
        recall: Where it is kept.
        decisions: What is to be sent.
        settled: The ledger's.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        recall: Recall,
        decisions: Decisions,
        settled: SettledRows,
        *,
        now: Callable[[], float],
    ) -> None:
        self._recall = recall
        self._decisions = decisions
        self._settled = settled
        self._now = now
        self._marked: dict[tuple[Scope, str], _Marked] = {}
        self._applied: dict[Scope, list[tuple[str, int, int]]] = defaultdict(list)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")

    async def about_to_send(self, requests: Sequence[Request]) -> None:
        """Return when it is on the disk that nobody knows what their contacts hold.

        Raises:
            StateError: It could not be written; nothing may be sent.
        """
        marks: dict[Scope, list[tuple[str, int]]] = defaultdict(list)
        for request in requests:
            scope = self._recall.scope(request)
            if (scope, request.contact_id) not in self._marked:
                marked = self._what_is_said_of(request)
                self._marked[scope, request.contact_id] = marked
                marks[scope].append((request.contact_id, marked.chain))
        for scope, entries in marks.items():
            await self._in_thread(self._recall.state.mark, scope, entries)

    def _what_is_said_of(self, request: Request) -> _Marked:
        contacts = self._decisions.to_send.get((request.operation, request.instance_id))
        at = None if contacts is None else contacts.find(request.contact_id)
        if contacts is None or at is None:
            # It seemed to be unchanged, and reading it back showed that it is not.
            return _Marked(int(request.payload_digest, 16), (request.row,))
        return _Marked(int(contacts.chains[at]), tuple(contacts.rows_of(at)))

    def settled(self, results: Iterable[Result]) -> None:
        """Results of what was sent have become durable."""
        for result in results:
            if result.instance_id is None or result.contact_id is None:
                continue
            scope = self._recall.scope_of(result.operation, result.instance_id)
            marked = self._marked.get((scope, result.contact_id))
            if marked is None:
                continue
            outcomes = {self._settled.outcome_of(row, result.operation) for row in marked.rows}
            if outcomes <= {Outcome.UPDATED, Outcome.SUPERSEDED}:
                del self._marked[scope, result.contact_id]
                self._applied[scope].append((result.contact_id, marked.chain, int(self._now())))

    @asynccontextmanager
    async def keeping(
        self, in_doubt: Callable[[], Iterable[tuple[str, int]]]
    ) -> AsyncIterator[None]:
        """While inside, what was applied is written down every second; at the end, all of it.

        Args:
            in_doubt: Asks for the operation and row of the requests that may have been applied and
                have no result, when all is over.

        Raises:
            StateError: It could not be written. What was applied is in the ledger.
        """
        await self._in_thread(self._confirm_ours)
        keeping = asyncio.create_task(self._keep_now_and_then())
        try:
            yield
        finally:
            keeping.cancel()
            try:
                await self._keep()
                await self._unmark(set(in_doubt()))
            finally:
                # Behind whatever the thread is still at: the state is closed next.
                await self._in_thread(_nothing)
                self._executor.shutdown(wait=False)
        if not keeping.cancelled() and keeping.done() and (error := keeping.exception()):
            raise error

    async def _keep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            await self._keep()

    async def _keep(self) -> None:
        # One scope at a time: if this is cancelled, the others are left for the end.
        while self._applied:
            scope, entries = self._applied.popitem()
            await self._in_thread(self._recall.state.confirm, scope, entries)

    async def _unmark(self, in_doubt: set[tuple[str, int]]) -> None:
        """Take the marks of contacts back that nothing was sent to after all."""
        untouched: dict[Scope, list[str]] = defaultdict(list)
        for (scope, contact_id), marked in self._marked.items():
            outcomes = {self._settled.outcome_of(row, scope.operation) for row in marked.rows}
            if outcomes <= {None, Outcome.SKIPPED} and not any(
                (scope.operation, row) in in_doubt for row in marked.rows
            ):
                untouched[scope].append(contact_id)
        for scope, contact_ids in untouched.items():
            await self._in_thread(self._recall.state.unmark, scope, contact_ids)

    def _confirm_ours(self) -> None:
        """What this run applied before it was killed; as of its beginning, since it is sooner."""
        for contacts in self._decisions.ours.values():
            self._recall.state.confirm_keys(
                self._recall.scope(contacts),
                contacts.keys,
                contacts.chains,
                int(self._recall.began_at),
            )

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        loop = asyncio.get_running_loop()
        return await outlast(loop.run_in_executor(self._executor, function, *arguments))


def _nothing() -> None:
    pass
