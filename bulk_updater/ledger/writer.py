"""Appending to the ledger: many callers, one fsync for all that wait.

A caller's `append` encodes its records on the event loop, so that the order of the calls is the
order in the file, and waits. One committer task takes everything that waits as a group, writes it
in one piece, syncs once and wakes the group; what is appended meanwhile is the next group. With
32 appenders and a disk that syncs in 5 ms, that is 200 syncs and up to 6,400 records a second;
one by one it would be 200.

A ledger that failed stays failed. After a failed fsync the kernel may take the lost pages for
clean and report success the next time, so asking again proves nothing: nobody is told that a
record is durable any more, and the file is cut back to the last byte that was promised, as far as
that still works. Records that were cut off are of rows that will be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from typing import TYPE_CHECKING, TypeVar

from aiofiles.ospath import wrap  # type: ignore[attr-defined] # the stubs lack it

from bulk_updater.errors import LedgerWriteError
from bulk_updater.files import (
    free_space,
    private_opener,
    reason,
    sync_directory,
    sync_file,
)
from bulk_updater.ledger.bulk import encode_block, longest_line
from bulk_updater.ledger.records import MAX_RECORD_BYTES, encode
from bulk_updater.ledger.recovery import Recovery, recover
from bulk_updater.outlast import outlast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from bulk_updater.ledger.bulk import UnsentBlock
    from bulk_updater.ledger.settled import SettledRows
    from bulk_updater.model import Result

__all__ = ["Ledger"]

_GATHER_S = 0.01
"""How long a small group is held open at the most, in seconds, and only while the event loop is
busy. A commit costs a hand-over to a thread and a sync, 0.2 ms of CPU however small it is; where
requests end one by one and the CPU is the limit, ten of them can share it."""

_IDLE_S = 0.0002
"""A turn of the event loop that took less than this had nothing to do: whoever waits for a result
now waits for nothing but its commit."""

_LARGE_GROUP = 128
"""Results that are not held back: the cost of their commit is shared by enough."""

_T = TypeVar("_T")


class _Waiting:
    """One call of `append` that waits for its records to be durable.

    Attributes:
        n_results: How many they are.
        encode: Makes their lines; called in the thread.
        settle: Notes that they are durable.
        future: Tells the caller.
    """

    __slots__ = ("encode", "future", "n_results", "settle")

    def __init__(
        self,
        n_results: int,
        *,
        encode: Callable[[], bytes],
        settle: Callable[[], None],
        future: asyncio.Future[bool],
    ) -> None:
        self.n_results = n_results
        self.encode = encode
        self.settle = settle
        self.future = future

    def wake(self, *, durable: bool) -> None:
        # A waiter that was cancelled is gone; its records are written like the others.
        if not self.future.done():
            self.future.set_result(durable)


class Ledger:
    """An open ledger: append results, and know which rows are settled.

    Made by `open`. Belongs to one event loop; the caller holds the lock of the run directory.

    Attributes:
        path: The ledger.
        run_id: The run whose results are appended.
        recovery: What the ledger held when it was opened; its `settled` is the one below.
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        *,
        recovery: Recovery,
        file: FileIO,
        executor: ThreadPoolExecutor,
        sync: Callable[[int], None],
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.recovery = recovery
        self._size_bytes = recovery.size_bytes
        self._file = file
        self._executor = executor
        self._sync = sync
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self._refusal: str | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        path: Path,
        run_id: str,
        *,
        sync: Callable[[int], None] = sync_file,
    ) -> AsyncIterator[Ledger]:
        """Recover a ledger, or create it with mode 0600, and open it for appending.

        Leaving the context waits until everything that was appended is on the disk.

        Args:
            path: The ledger, in an existing directory.
            run_id: The run whose results are appended, not empty.
            sync: What makes a file's bytes durable; called with a file descriptor, in a thread.

        Yields:
            The ledger.

        Raises:
            LedgerCorrupt: See `recover`.
            LedgerWriteError: The file cannot be recovered, created or opened for appending.
            LedgerError: The file cannot be read.
        """
        # A thread of its own: a commit never queues behind somebody else's slow call, and writes,
        # syncs and the close stay in order whoever is cancelled.
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        try:
            recovery, file = await _recover_and_open_in(executor, path, sync)
            ledger = cls(
                path,
                run_id,
                recovery=recovery,
                file=file,
                executor=executor,
                sync=sync,
            )
            try:
                yield ledger
            finally:
                await ledger.aclose()
        finally:
            executor.shutdown(wait=False)

    @property
    def settled(self) -> SettledRows:
        """The rows that are settled; a row is added when its record is durable."""
        return self.recovery.settled

    @property
    def size_bytes(self) -> int:
        """Length of the ledger that is on the disk; nothing behind it was promised to anybody."""
        return self._size_bytes

    async def append(self, *results: Result) -> None:
        """Return when these results are on the disk, next to each other and in this order.

        Results of different calls are in the order of the calls. Encoding takes about 10 us a
        result on the event loop; a caller with thousands of results does better with some
        hundreds a call.

        A caller that is cancelled while it waits does not know: its records keep their place and
        are written all the same, unless the ledger fails. `settled` tells when.

        Args:
            results: The results; none is fine.

        Raises:
            LedgerWriteError: These results are not durable, and none after them will be, since
                writing or syncing failed once or the ledger is closed; or one of them is too
                long for a record, which concerns this call only.
            ValueError: One of them has no row number, operation or run; nothing was appended.
        """
        self._expect_open()
        lines = [encode(result, self.run_id) for result in results]
        if not lines:
            return
        block = b"".join(lines)
        # A record that fits is the rule: one comparison sees it for all of them.
        if len(block) > MAX_RECORD_BYTES and (longest := max(map(len, lines))) > MAX_RECORD_BYTES:
            raise self._too_long(longest)

        def settle() -> None:
            for result in results:
                self.settled.add(result.row, result.operation, result.outcome)

        await self._wait_for(len(results), encode=lambda: block, settle=settle)

    async def append_unsent(self, block: UnsentBlock, *, finished_at: float) -> None:
        """Return when the results of rows that are not sent are on the disk, in the block's order.

        As `append` of the same results would, and in order with it; but the lines are made in the
        ledger's thread, a column at a time, so the event loop is held for 0.1 us a row.

        Args:
            block: The rows; none is fine.
            finished_at: When they ended, in seconds since the epoch.

        Raises:
            LedgerWriteError: As for `append`.
            ValueError: A row has a number below 1, or the operation or run no name; nothing was
                appended.
        """
        self._expect_open()
        if not len(block.rows):
            return
        if (longest := longest_line(block, self.run_id)) > MAX_RECORD_BYTES:
            raise self._too_long(longest)
        await self._wait_for(
            len(block.rows),
            encode=lambda: encode_block(block, self.run_id, finished_at),
            settle=lambda: self.settled.add_many(block.rows, block.operation, block.outcome),
        )

    def _too_long(self, n_bytes: int) -> LedgerWriteError:
        return LedgerWriteError(
            f"cannot take a result of {n_bytes:,} bytes; one may take {MAX_RECORD_BYTES:,}.",
            path=self.path,
        )

    async def _wait_for(
        self, n_results: int, *, encode: Callable[[], bytes], settle: Callable[[], None]
    ) -> None:
        future = asyncio.get_running_loop().create_future()
        waiting = _Waiting(n_results, encode=encode, settle=settle, future=future)
        self._waiting.append(waiting)
        if self._committer is None or self._committer.done():
            # It begins when the calls that are ready now have run: they are its first group.
            self._committer = asyncio.create_task(self._commit_until_none_waits())
        if not await waiting.future:
            self._expect_open()

    async def aclose(self) -> None:
        """Wait until everything that was appended is on the disk, and close the file.

        Can be called again. A cancellation while it waits is obeyed afterwards: when this has
        ended in any way, nothing is written any more and the run directory's lock may go.
        """
        if self._refusal is None:
            self._refusal = "is closed; nothing can be appended to it any more."
        try:
            if self._committer is not None:
                await outlast(self._committer)
        finally:
            # Every byte was synced or the ledger has failed: a close has nothing to add.
            with contextlib.suppress(OSError):
                await outlast(self._in_thread(self._file.close))

    async def _commit_until_none_waits(self) -> None:
        group: list[_Waiting] = []
        try:
            while self._waiting:
                await self._let_others_join()
                group, self._waiting = self._waiting, []
                await self._commit(group)
                for waiting in group:
                    waiting.settle()
                    waiting.wake(durable=True)
                group = []
        except OSError as error:
            self._refusal = await self._in_thread(self._give_up, error)
        finally:
            # A group is left when it failed, or when the event loop ends without `aclose`.
            if group or self._waiting:
                self._refusal = self._refusal or (
                    f"was abandoned at byte {self._size_bytes}. Give the same command again."
                )
                group += self._waiting
                self._waiting = []
                for waiting in group:
                    waiting.wake(durable=False)

    async def _let_others_join(self) -> None:
        """Give a small group a moment to grow, while others are at work that will join it."""
        clock = asyncio.get_running_loop().time
        now = clock()
        until = now + _GATHER_S
        while now < until and self._refusal is None:
            if sum(waiting.n_results for waiting in self._waiting) >= _LARGE_GROUP:
                return
            await asyncio.sleep(0)
            before, now = now, clock()
            if now - before < _IDLE_S:
                return

    async def _commit(self, group: list[_Waiting]) -> None:
        # One hand-over: between two, the thread would wait for the interpreter's lock once more.
        self._size_bytes += await self._in_thread(self._write_and_sync, group)

    def _write_and_sync(self, group: list[_Waiting]) -> int:
        """Put a group on the disk, and return its length in bytes."""
        block = b"".join(waiting.encode() for waiting in group)
        unwritten = memoryview(block)
        while unwritten:
            # The file is not buffered: a buffer would keep what could not be written, and write
            # it at the close, behind a ledger that was given up.
            n_bytes = self._file.write(unwritten)
            if not n_bytes:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            unwritten = unwritten[n_bytes:]
        self._sync(self._file.fileno())
        return len(block)

    def _give_up(self, error: OSError) -> str:
        """Cut off what was promised to nobody, as far as that works, and say what happened."""
        # Recovery would cut off half a record. It would keep whole ones, and after a failed sync
        # they may be in the cache and not on the disk.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file.fileno(), self._size_bytes)
        return (
            f"cannot be written behind byte {self._size_bytes}: {reason(error)}, "
            f"{free_space(self.path)}. What stands before that byte is safe; requests that were "
            "in flight are sent again by a resume. Make room or mend the disk, and give the same "
            "command again."
        )

    def _expect_open(self) -> None:
        if self._refusal is not None:
            raise LedgerWriteError(self._refusal, path=self.path)

    def _in_thread(self, function: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
        work: Coroutine[None, None, _T] = wrap(function)(*arguments, executor=self._executor)
        return asyncio.ensure_future(work)


async def _recover_and_open_in(
    executor: ThreadPoolExecutor, path: Path, sync: Callable[[int], None]
) -> tuple[Recovery, FileIO]:
    stop = threading.Event()
    opening = asyncio.get_running_loop().run_in_executor(
        executor, _recover_and_open, path, sync, stop
    )
    try:
        return await outlast(opening, on_cancel=stop.set)
    except asyncio.CancelledError:
        if opening.exception() is None:
            opening.result()[1].close()
        raise


def _recover_and_open(
    path: Path, sync: Callable[[int], None], stop: threading.Event
) -> tuple[Recovery, FileIO]:
    recovery = recover(path, sync=sync, stop=stop)
    try:
        file = FileIO(path, "ab", opener=private_opener)
        try:
            # Also when the file was there: the run that created it may have died before this.
            sync_directory(path.parent)
        except OSError:
            file.close()
            raise
    except OSError as error:
        raise LedgerWriteError(
            f"cannot be opened for appending: {reason(error)}, {free_space(path)}. Nothing was "
            "sent. Check the directory and its permissions, or name another with --run-dir.",
            path=path,
        ) from error
    return recovery, file
