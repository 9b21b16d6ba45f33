"""One holder at a time: an advisory `flock` on a file, with a note of who holds it.

The kernel gives the lock up when its holder ends, however it ends, so a lock file that was left
behind is no obstacle. What is written in the file is only for people: who holds the lock, and since
when. The file itself stays: whoever removes a lock file may remove the one that the next process
has just locked.

Whether a lock is held can only be asked by trying to take it. `read_holder` tries a shared one, for
a moment. Whoever wants to hold the lock and is refused at that moment can tell: beside readers a
shared lock is to be had, beside a holder it is not. So asking never turns a run away, and a run
that has begun is never disturbed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Holder", "LockHeld", "hold_lock", "read_holder"]

_MODE: Final = 0o600
_NOTE_BYTES: Final = 4096
_TRIES: Final = 200
"""How often a lock is tried for that only readers are in the way of: they stay for microseconds."""
_BETWEEN_TRIES_S: Final = 0.005


class LockHeld(Exception):  # noqa: N818 - what is the case; each room makes its own error of it
    """Another process holds the lock.

    Attributes:
        holder: Who, in words: `process 17 on host h, since 2026-03-01T08:00:00.000Z`.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as far as its note tells.

    Attributes:
        pid: The process; None where the note does not say.
        host: The host that it runs on; "" where the note does not say.
        started_at: Since when, as UTC ISO 8601; "" where the note does not say.
    """

    pid: int | None = None
    host: str = ""
    started_at: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            # Between taking the lock and writing the note, the holder has no name yet.
            return "another process, which has not left its name"
        return f"process {self.pid} on host {self.host}, since {self.started_at}"


@contextlib.contextmanager
def hold_lock(path: Path, *, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Hold a lock while the context lasts; never waits for another holder.

    Args:
        path: The lock file, created with mode 0600 where it is missing; its directory must exist.
        clock: Seconds since the epoch, for the note.

    Raises:
        LockHeld: Somebody holds it, this process perhaps.
        OSError: It cannot be created, locked or written.
    """
    fd = _lock(path, clock)
    try:
        yield
    finally:
        # Nobody holds it, so nobody should be named.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        os.close(fd)


def read_holder(path: Path) -> Holder | None:
    """Who holds a lock now; a note that a killed process has left is nobody.

    Args:
        path: The lock file.

    Returns:
        None where nobody holds it, or where there is no such file.

    Raises:
        OSError: It cannot be read, or its file system knows no locks.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try(fd, fcntl.LOCK_SH) else _noted(fd)
    finally:
        os.close(fd)  # and with it the shared lock


def _lock(path: Path, clock: Callable[[], float]) -> int:
    """Take the lock and note who has it.

    Returns:
        The file descriptor that holds the lock until it is closed.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(os.close, fd)
        if not _take(fd):
            raise LockHeld(str(_noted(fd)))
        started_at = datetime.fromtimestamp(clock(), UTC).isoformat(timespec="milliseconds")
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": started_at.replace("+00:00", "Z"),
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, orjson.dumps(holder, option=orjson.OPT_APPEND_NEWLINE), 0)
        on_failure.pop_all()
    return fd


def _take(fd: int) -> bool:
    for _ in range(_TRIES):
        if _try(fd, fcntl.LOCK_EX):
            return True
        if not _try(fd, fcntl.LOCK_SH):
            return False
        # Only readers are there. The shared lock goes first: two that begin at once and both
        # kept theirs would be in each other's way for good.
        fcntl.flock(fd, fcntl.LOCK_UN)
        time.sleep(_BETWEEN_TRIES_S)
    return False


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _noted(fd: int) -> Holder:
    try:
        note = orjson.loads(os.pread(fd, _NOTE_BYTES, 0))
        return Holder(int(note["pid"]), str(note["host"]), str(note["started_at"]))
    except (ValueError, KeyError, TypeError):
        return Holder()
