"""Processes that kill themselves with SIGKILL at a named point of the program's own code.

`python -m tests.crash.child` is `tests.e2e.warm` with a point to die at for each process. What
stands at a point is the program's own function, called as the program calls it, with the kill
before or behind it; a name that the program does not have any more is an AttributeError, and a
point that is never passed lets the process end in the ordinary way, which its caller notices.

The points of a run, in the order in which a request passes them:

    run_json_tmp      run.json.tmp is written and synced, and does not have its name yet
    run_json_renamed  run.json has its name, and the directory is not synced
    before_send       a request has its token and is not sent
    after_send        the answer was received, and nothing was noted
    before_append     a result is to be appended
    during_write      a part of a block of records is written
    after_write       a block is written and not synced
    after_sync        it is synced, and nobody was told
    random            some milliseconds after the first request, wherever that is

The points of recovery and repair, for a ledger with something to cut:

    tail_copied       the torn tail is copied and synced, its name is not
    tail_cut          the torn tail is cut, and the cut is not synced
    repair_copying    a part of the ledger is copied
    repair_copied     all of it is copied and synced, and does not have its name yet
    repair_kept       the copy is there, and the ledger is not cut
    repair_cut        the ledger is cut, and the cut is not synced
"""

from __future__ import annotations

import functools
import os
import select
import signal
from io import FileIO
from typing import TYPE_CHECKING, Any

from bulk_updater import files
from bulk_updater.connect.client import Connect
from bulk_updater.ledger import recovery, repair, rundir, writer
from tests.e2e.interrupted import around
from tests.e2e.warm import serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["POINTS", "prepare"]


class Trap:
    """Kills this process when it is passed for the n-th time."""

    def __init__(self, n: int) -> None:
        self._left = n

    def passed(self) -> bool:
        """Whether this is the time."""
        self._left -= 1
        return self._left == 0

    def spring(self) -> None:
        if self.passed():
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_send(trap: Trap, _: float) -> None:
    around(Connect, "send", before=trap.spring)


def after_send(trap: Trap, _: float) -> None:
    around(Connect, "send", after=trap.spring)


def before_append(trap: Trap, _: float) -> None:
    around(writer.Ledger, "append", before=trap.spring)


def during_write(trap: Trap, share: float) -> None:
    class TornFile(writer.FileIO):
        def write(self, block: memoryview) -> int:
            if trap.passed():
                # At least a byte, never all of them, and never up to a record's end: nothing
                # would be torn.
                end = max(1, int(share * (len(block) - 1)))
                super().write(block[: end - (bytes(block[end - 1 : end]) == b"\n")])
                die()
            return super().write(block)

    assert writer.FileIO is FileIO
    writer.FileIO = TornFile


def after_write(trap: Trap, _: float) -> None:
    class WrittenFile(writer.FileIO):
        def write(self, block: memoryview) -> int:
            n_bytes = super().write(block)
            assert n_bytes == len(block)
            trap.spring()
            return n_bytes

    assert writer.FileIO is FileIO
    writer.FileIO = WrittenFile


def after_sync(trap: Trap, _: float) -> None:
    around(writer.Ledger, "_write_and_sync", after=trap.spring)


def run_json_tmp(trap: Trap, _: float) -> None:
    _within(rundir, "write_atomically", files, "sync_file", after=trap.spring)


def run_json_renamed(trap: Trap, _: float) -> None:
    _within(rundir, "write_atomically", files, "sync_directory", before=trap.spring)


def tail_copied(trap: Trap, _: float) -> None:
    _within(recovery, "_keep_tail", recovery, "sync_directory", before=trap.spring)


def tail_cut(trap: Trap, _: float) -> None:
    _within(recovery, "cut", recovery.os, "ftruncate", after=trap.spring)


def repair_copying(trap: Trap, share: float) -> None:
    def copy_a_part(source: Any, target: Any, _: int) -> None:
        content = source.read()
        target.write(content[: int(share * len(content))])
        target.flush()
        trap.spring()
        target.write(content[int(share * len(content)) :])

    assert callable(repair.shutil.copyfileobj)
    repair.shutil.copyfileobj = copy_a_part


def repair_copied(trap: Trap, _: float) -> None:
    _within(repair, "_keep_whole", repair, "sync_file", after=trap.spring)


def repair_kept(trap: Trap, _: float) -> None:
    around(repair, "cut", before=trap.spring)


def repair_cut(trap: Trap, _: float) -> None:
    _within(repair, "cut", recovery.os, "ftruncate", after=trap.spring)


def _within(outer_owner: Any, outer: str, owner: Any, name: str, **moments: Any) -> None:
    """As `around`, but only for the calls that another function makes."""
    inside = False

    def enter() -> None:
        nonlocal inside
        inside = True

    def leave() -> None:
        nonlocal inside
        inside = False

    around(outer_owner, outer, before=enter, after=leave)
    for moment, act in moments.items():
        around(owner, name, **{moment: lambda act=act: act() if inside else None})


def at_random(trap: Trap, share: float) -> None:
    """Have another process kill this one, so that it can be in the middle of anything."""
    alarm, fuse = os.pipe()
    victim = os.getpid()
    if not os.fork():
        os.close(fuse)
        # Nothing to read means that the victim has ended by itself: its end is closed, too.
        if os.read(alarm, 1) and not select.select([alarm], [], [], share * LONGEST_S)[0]:
            os.kill(victim, signal.SIGKILL)
        os._exit(0)
    os.close(alarm)

    def light() -> None:
        if trap.passed():
            os.write(fuse, b"!")

    around(Connect, "send", before=light)


LONGEST_S = 0.15
"""Within which `random` kills: about what a small run takes from its first request on."""

POINTS: dict[str, Callable[[Trap, float], None]] = {
    each.__name__: each
    for each in (
        *(run_json_tmp, run_json_renamed, before_send, after_send, before_append),
        *(during_write, after_write, after_sync),
        *(tail_copied, tail_cut),
        *(repair_copying, repair_copied, repair_kept, repair_cut),
    )
} | {"random": at_random}


def note_what_is_sent(path: str) -> None:
    """Write down the row and operation of each request, before it is sent."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    original = Connect.send

    @functools.wraps(original)
    async def send(self: Connect, request: Any) -> Any:
        os.write(fd, f"{request.row} {request.operation}\n".encode())
        return await original(self, request)

    Connect.send = send


def prepare(request: dict[str, Any]) -> None:
    """Set up what a process is to die of: the point, which passing, and a share from 0 to 1."""
    if request["point"] is not None:
        POINTS[request["point"]](Trap(request["n"]), request["share"])
    if "sent" in request:
        note_what_is_sent(request["sent"])


if __name__ == "__main__":
    serve(prepare)
