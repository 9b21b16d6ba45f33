"""What `append` promises, with a disk that is slow, full or broken."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import signal
import stat
import subprocess
import sys
import threading

import pytest
from ledger_cases import CONTACT, GUARD_S, RUN_ID, HeldSync, line, no_sync, result, rows_in

from bulk_updater.errors import LedgerCorrupt, LedgerWriteError
from bulk_updater.ledger import Ledger, recover, writer
from bulk_updater.ledger.records import MAX_RECORD_BYTES
from bulk_updater.model import Outcome


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


async def test_append_returns_only_after_a_sync_that_came_after_its_last_byte(path):
    """While the sync is held, the bytes are in the file, and neither caller nor `settled` knows."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        appending = asyncio.create_task(ledger.append(result(1), result(2, Outcome.FAILED)))
        await sync.until_begun()
        assert path.read_bytes() == line(1) + line(2, Outcome.FAILED)
        assert sync.sizes == [len(path.read_bytes())]
        assert not appending.done()
        assert ledger.settled.count() == 0
        assert ledger.size_bytes == 0
        sync.let_go()
        await appending
        assert sync.n_syncs == 1
        assert ledger.settled.outcome_of(2, CONTACT) is Outcome.FAILED
        assert ledger.size_bytes == len(path.read_bytes())


async def test_callers_that_wait_together_share_a_sync(path):
    """32 appends at once take one sync; 32 more that arrive during it take one more."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        async with asyncio.TaskGroup() as group:
            for row in range(1, 33):
                group.create_task(ledger.append(result(row)))
            await sync.until_begun()
            for row in range(33, 65):
                group.create_task(ledger.append(result(row)))
            sync.let_go()
        assert sync.n_syncs == 2
        assert sync.sizes == [
            sum(len(line(row)) for row in range(1, last + 1)) for last in (32, 64)
        ]
    assert rows_in(path) == list(range(1, 65))


async def test_thirty_two_busy_callers_need_a_sync_for_each_round(path):
    """32 callers with 20 results each, one after the other: 20 syncs for 640 appends."""
    sync = HeldSync()
    sync.let_go()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:

        async def append_twenty(first: int) -> None:
            for row in range(first, first + 20):
                await ledger.append(result(row))

        await asyncio.gather(*(append_twenty(1000 * n) for n in range(1, 33)))
        assert sync.n_syncs == 20
        assert ledger.settled.count() == 640


async def test_results_stand_in_the_order_of_the_calls_and_those_of_a_call_together(path):
    """Whoever waits on whom, the file has call after call, each in one piece."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        calls = [[5, 3, 9], [1], [8, 2], [7], [4, 6]]
        async with asyncio.TaskGroup() as group:
            group.create_task(ledger.append(*map(result, calls[0])))
            await sync.until_begun()
            for rows in calls[1:]:
                group.create_task(ledger.append(*map(result, rows)))
            sync.let_go()
    assert rows_in(path) == [row for rows in calls for row in rows]


async def test_writing_and_syncing_leave_the_event_loop_alone(path):
    """Every sync runs in one thread that is not the loop's; the loop turns meanwhile."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        appending = asyncio.create_task(ledger.append(result(1)))
        await sync.until_begun()  # only a loop that turns gets here
        sync.let_go()
        await appending
        await ledger.append(result(2))
    assert sync.n_syncs == 2
    assert len(sync.thread_ids) == 1
    assert threading.get_ident() not in sync.thread_ids


async def test_nothing_to_append_needs_no_sync(path):
    """An append of no results returns at once."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        await ledger.append()
    assert sync.n_syncs == 0


async def test_a_second_run_goes_on_where_the_first_ended(path):
    """What was appended before is settled after opening again, and stays in front."""
    async with Ledger.open(path, RUN_ID) as ledger:
        await ledger.append(result(1, Outcome.FAILED), result(2))
    async with Ledger.open(path, "run-2") as ledger:
        assert (1, CONTACT) in ledger.settled
        await ledger.append(result(1, Outcome.UPDATED))
        assert ledger.settled.outcomes()[Outcome.FAILED] == 0
        assert ledger.settled.count() == 2
    assert rows_in(path) == [1, 2, 1]
    assert (await asyncio.to_thread(recover, path)).run_ids == (RUN_ID, "run-2")


async def test_a_new_ledger_is_private_and_its_name_is_synced(path, monkeypatch):
    """Whatever the umask, mode 0600; and the directory is synced before the first append."""
    synced = []
    monkeypatch.setattr(writer, "sync_directory", synced.append)
    umask = os.umask(0)
    try:
        async with Ledger.open(path, RUN_ID):
            assert synced == [path.parent]
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_damaged_ledger_is_not_opened(path):
    """Damage in the middle ends the opening, and the file stays as it was."""
    path.write_bytes(line(1) + b"garbage\n" + line(2))
    with pytest.raises(LedgerCorrupt) as caught:
        async with Ledger.open(path, RUN_ID):
            pytest.fail("a damaged ledger was opened")
    assert caught.value.offset == len(line(1))
    assert path.read_bytes() == line(1) + b"garbage\n" + line(2)


async def test_a_ledger_in_a_missing_directory_is_not_opened(tmp_path):
    """What cannot be created is a LedgerWriteError that says nothing was sent."""
    with pytest.raises(LedgerWriteError, match=r"\(ENOENT\).*Nothing was sent"):
        async with Ledger.open(tmp_path / "missing" / "ledger.jsonl", RUN_ID):
            pytest.fail("a ledger was opened in no directory")


async def test_a_directory_that_cannot_be_synced_is_no_place_for_a_ledger(path, monkeypatch):
    """The file that was opened is closed again, and the error names the cause."""

    def sync_directory(_):
        raise _os_error(errno.EIO)

    monkeypatch.setattr(writer, "sync_directory", sync_directory)
    with pytest.raises(LedgerWriteError, match=r"\(EIO\)"):
        async with Ledger.open(path, RUN_ID):
            pytest.fail("a ledger was opened that may vanish")
    gc.collect()  # an open file would be a ResourceWarning, and that an error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
async def test_after_a_failed_sync_nobody_is_told_that_a_record_is_durable(path, code):
    """This group, those that wait and all later ones fail; the sync is not tried again."""
    sync = HeldSync(at_1=_os_error(code))
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        first = asyncio.create_task(ledger.append(result(1)))
        await sync.until_begun()
        second = [asyncio.create_task(ledger.append(result(row))) for row in range(2, 10)]
        sync.let_go()
        await first
        await sync.until_begun()
        failed = await asyncio.gather(*second, return_exceptions=True)
        failed += await asyncio.gather(ledger.append(result(99)), return_exceptions=True)
        assert [type(error) for error in failed] == [LedgerWriteError] * 9
        assert len(set(map(id, failed))) == 9  # each caller its own, with its own traceback
        message = failed[0].message
        assert message.startswith(f"{path}: ")
        assert errno.errorcode[code] in message
        assert f"byte {len(line(1))}" in message
        assert "bytes free" in message
        assert "give the same command again" in message
        assert sync.n_syncs == 2
        assert ledger.settled.count() == 1
        assert ledger.size_bytes == len(line(1))
    assert path.read_bytes() == line(1)  # what was not promised is cut off again


async def test_appends_that_arrive_while_the_ledger_gives_up_fail_too(path, monkeypatch):
    """Nobody waits for ever, whenever they came."""
    gives_up, go_on = threading.Event(), threading.Event()

    def free_space(_):
        gives_up.set()
        assert go_on.wait(GUARD_S)
        return "0 bytes free"

    def sync(_):
        raise _os_error(errno.ENOSPC)

    monkeypatch.setattr(writer, "free_space", free_space)
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        appending = [asyncio.create_task(ledger.append(result(1)))]
        assert await asyncio.to_thread(gives_up.wait, GUARD_S)
        appending.append(asyncio.create_task(ledger.append(result(2))))
        asyncio.get_running_loop().call_soon(go_on.set)
        failed = await asyncio.gather(*appending, return_exceptions=True)
    assert ["0 bytes free" in error.message for error in failed] == [True, True]


class _FullOnce:
    """A file on a disk that is full at the first write and has room again at the next."""

    def __init__(self, file) -> None:
        self._file = file
        self._is_full = True

    def write(self, block):
        if self._is_full:
            self._is_full = False
            raise _os_error(errno.ENOSPC)
        return self._file.write(block)

    def __getattr__(self, name):
        return getattr(self._file, name)


async def test_a_full_disk_is_named_and_stops_the_ledger(path):
    """After ENOSPC no append succeeds and no sync is asked for, not even when there is room."""
    sync = HeldSync()
    sync.let_go()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        await ledger.append(result(1))
        ledger._file = _FullOnce(ledger._file)
        for row in (2, 3):
            with pytest.raises(LedgerWriteError, match=r"No space left on device \(ENOSPC\)"):
                await ledger.append(result(row))
        assert sync.n_syncs == 1
    assert rows_in(path) == [1]


async def test_a_group_that_fits_in_part_is_taken_back(path):
    """The kernel writes half a group and then refuses: the file ends with what was promised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Ledger.open(path, RUN_ID) as ledger:
        await ledger.append(result(1))
        limit = 2 * len(line(1)) + 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(LedgerWriteError, match=r"\(EFBIG\)"):
                await ledger.append(result(2), result(3), result(4))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == line(1)


class _LittleAtATime:
    """A file that writes at most seven bytes a call; as a disk that fills up, or a signal, may."""

    def __init__(self, file, n_writes: int | None = None) -> None:
        self._file = file
        self._n_writes = n_writes

    def write(self, block):
        if self._n_writes is not None:
            self._n_writes -= 1
            if self._n_writes < 0:
                return 0
        return self._file.write(block[:7])

    def __getattr__(self, name):
        return getattr(self._file, name)


async def test_a_short_write_is_gone_on_with(path):
    """A block that goes out in pieces is whole, and synced once, at the end."""
    sync = HeldSync()
    sync.let_go()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        ledger._file = _LittleAtATime(ledger._file)
        await ledger.append(result(1), result(2))
    assert path.read_bytes() == line(1) + line(2)
    assert sync.sizes == [len(line(1) + line(2))]


async def test_a_file_that_takes_no_more_is_an_error_and_no_endless_loop(path):
    """A write of nothing fails the ledger."""
    async with Ledger.open(path, RUN_ID) as ledger:
        ledger._file = _LittleAtATime(ledger._file, n_writes=3)
        with pytest.raises(LedgerWriteError, match=r"\(EIO\)"):
            await ledger.append(result(1))
    assert path.read_bytes() == b""


async def test_what_cannot_be_taken_back_is_left_to_recovery(path, monkeypatch):
    """Half a record that even a truncate could not remove is a torn tail the next time."""

    def ftruncate(*_):
        raise _os_error(errno.EIO)

    async with Ledger.open(path, RUN_ID) as ledger:
        await ledger.append(result(1))
        ledger._file = _LittleAtATime(ledger._file, n_writes=3)
        with monkeypatch.context() as patched:
            patched.setattr(os, "ftruncate", ftruncate)
            with pytest.raises(LedgerWriteError):
                await ledger.append(result(2))
    assert path.read_bytes() == line(1) + line(2)[:21]
    async with Ledger.open(path, RUN_ID) as ledger:
        assert ledger.recovery.torn_bytes == 21
        await ledger.append(result(2))
    assert rows_in(path) == [1, 2]


async def test_a_caller_that_is_cancelled_loses_and_reorders_nothing(path):
    """Of three that wait the second is cancelled: all three are written, in order, and settled."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        first = asyncio.create_task(ledger.append(result(1)))
        await sync.until_begun()
        waiting = [asyncio.create_task(ledger.append(result(row))) for row in (2, 3, 4)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        sync.let_go()
        await asyncio.gather(waiting[0], waiting[2])
        assert ledger.settled.count() == 4
        with pytest.raises(asyncio.CancelledError):
            await first
    assert rows_in(path) == [1, 2, 3, 4]


async def test_a_run_that_is_cancelled_leaves_only_when_its_ledger_is_at_rest(path):
    """However often it is cancelled: no thread writes any more when the context is left."""
    sync = HeldSync()

    async def run() -> None:
        async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
            await ledger.append(result(1), result(2))

    running = asyncio.create_task(run())
    await sync.until_begun()
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not running.done()
    sync.let_go()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert rows_in(path) == [1, 2]


async def test_a_run_that_is_cancelled_while_it_opens_leaves_no_file_open(path):
    """Recovery that has begun ends before the cancellation goes on, and its file is closed."""
    path.write_bytes(line(1))
    sync = HeldSync()

    async def run() -> None:
        async with Ledger.open(path, RUN_ID, sync=sync):
            pytest.fail("a cancelled run went on")

    running = asyncio.create_task(run())
    await sync.until_begun()
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    sync.let_go()
    with pytest.raises(asyncio.CancelledError):
        await running
    gc.collect()  # an open file would be a ResourceWarning, and that an error


async def test_a_run_that_is_cancelled_while_its_ledger_is_refused_is_cancelled(path):
    """The cancellation counts, not what recovery found; what it had opened is closed again."""
    path.write_bytes(line(1))
    sync = HeldSync(at_0=OSError(errno.EIO, os.strerror(errno.EIO)))

    async def run() -> None:
        async with Ledger.open(path, RUN_ID, sync=sync):
            pytest.fail("a cancelled run went on")

    running = asyncio.create_task(run())
    await sync.until_begun()
    running.cancel()
    sync.let_go()
    with pytest.raises(asyncio.CancelledError):
        await running
    gc.collect()  # an open file would be a ResourceWarning, and that an error
    assert (sync.n_syncs, path.read_bytes()) == (1, line(1))


async def test_a_closed_ledger_takes_nothing(path):
    """Closing waits for what is queued, can be repeated, and later appends are refused."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        appending = asyncio.create_task(ledger.append(result(1)))
        await sync.until_begun()
        queued = asyncio.create_task(ledger.append(result(2)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(ledger.aclose())
        await asyncio.sleep(0)
        with pytest.raises(LedgerWriteError, match="is closed"):
            await ledger.append(result(3))
        sync.let_go()
        await asyncio.gather(appending, queued, closing)
        await ledger.aclose()
    assert rows_in(path) == [1, 2]


async def test_a_committer_that_dies_wakes_everybody(path):
    """An end of the event loop, or a fault in the sync itself, leaves no caller waiting."""
    sync = HeldSync()
    async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
        appending = [asyncio.create_task(ledger.append(result(1)))]
        await sync.until_begun()
        appending.append(asyncio.create_task(ledger.append(result(2))))
        await asyncio.sleep(0)
        ledger._committer.cancel()
        failed = await asyncio.gather(*appending, return_exceptions=True)
        sync.let_go()
        with pytest.raises(asyncio.CancelledError):
            await ledger.aclose()
        ledger._committer = None
    assert ["was abandoned at byte 0" in error.message for error in failed] == [True, True]


async def test_a_fault_in_the_sync_is_seen(path):
    """What is no OSError comes out where the ledger is closed; the caller is told as well."""

    def sync(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the context's own end raises
        async with Ledger.open(path, RUN_ID, sync=sync) as ledger:
            with pytest.raises(LedgerWriteError, match="was abandoned"):
                await ledger.append(result(1))


async def test_a_result_that_could_not_be_read_back_is_refused_alone(path):
    """Too long or without a row: that call fails, nothing of it is written, others go on."""
    async with Ledger.open(path, RUN_ID, sync=no_sync) as ledger:
        longest = result(2, error="x" * MAX_RECORD_BYTES)
        with pytest.raises(LedgerWriteError, match="cannot take a result of"):
            await ledger.append(result(1), longest)
        with pytest.raises(ValueError, match="is not a result"):
            await ledger.append(result(1), result(0))
        many = [result(row, error="x" * 1000) for row in range(1, 1500)]
        await ledger.append(*many)  # together longer than one record may be
    assert rows_in(path) == list(range(1, 1500))


APPENDER = """
import asyncio, os, sys
from pathlib import Path
from bulk_updater.ledger import Ledger
from bulk_updater.model import Outcome, Result

async def main():
    async with Ledger.open(Path(sys.argv[1]), "run-1") as ledger:
        async def append(first):
            for row in range(first, 10**9, 8):
                await ledger.append(Result(row, "crm.csv", "update_contact", Outcome.UPDATED))
                os.write(1, b"%d\\n" % row)
        await asyncio.gather(*map(append, range(1, 9)))

asyncio.run(main())
"""


def test_a_killed_process_has_kept_every_promise(path):
    """SIGKILL in the middle of eight appenders: each row that was acknowledged is recovered."""
    with subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE
    ) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(500)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(row) for row in process.stdout.read().split(b"\n")[:-1]]
        process.wait()
    recovered = recover(path)
    assert all((row, CONTACT) in recovered.settled for row in acknowledged)
    assert recovered.settled.count() == recovered.n_lines <= len(acknowledged) + 8
