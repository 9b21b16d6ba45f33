"""Processes for which the disk fails at a chosen call, as the kernel would have it fail.

`python -m tests.e2e.failing` is `warm` with a call, a path and an error for each process. The
error is raised where the program calls the kernel, so that all of its own code runs: `os.open` for
a file that is to be written, `os.mkdir`, `os.fsync`, and the write of a block of records.
"""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulk_updater.ledger import writer
from bulk_updater.model import FoundQuota
from bulk_updater.pipeline.pace import Pace
from tests.e2e.warm import serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["prepare"]

_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Disk:
    """Fails at the n-th call for a path, and at every one after it.

    Args:
        path: The file or folder; a folder stands for all that is in it, too.
        error: The name of the error, such as `ENOSPC`.
        n: At which call it begins, from 1.
    """

    def __init__(self, path: str, error: str, n: int) -> None:
        self._path = Path(path)
        self._errno = getattr(errno, error)
        self._left = n

    def is_over(self) -> bool:
        self._left -= 1
        return self._left <= 0

    def fail(self) -> OSError:
        return OSError(self._errno, os.strerror(self._errno), str(self._path))

    def expect_room(self, path: Any) -> None:
        """Fail if this is the path and it is time."""
        absolute = Path.cwd() / os.fsdecode(path)
        if (absolute == self._path or self._path in absolute.parents) and self.is_over():
            raise self.fail()

    def expect_room_of(self, fd: int) -> None:
        """The same, for a file that is open."""
        try:
            is_ours = os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return
        if is_ours and self.is_over():
            raise self.fail()


def _fail_open(disk: _Disk) -> None:
    original = os.open

    def opened(path: Any, flags: int, *more: Any, **settings: Any) -> int:
        if flags & _TO_WRITE:
            disk.expect_room(path)
        return original(path, flags, *more, **settings)

    os.open = opened


def _fail_mkdir(disk: _Disk) -> None:
    original = os.mkdir

    def made(path: Any, *more: Any, **settings: Any) -> None:
        disk.expect_room(path)
        original(path, *more, **settings)

    os.mkdir = made


def _fail_change(disk: _Disk) -> None:
    """Nothing can be created, opened for writing, renamed or removed."""
    _fail_open(disk)
    _fail_mkdir(disk)
    for name in ("rename", "replace", "unlink"):
        _fail_path_call(disk, name)


def _fail_path_call(disk: _Disk, name: str) -> None:
    original = getattr(os, name)

    def called(path: Any, *more: Any, **settings: Any) -> None:
        disk.expect_room(path)
        original(path, *more, **settings)

    setattr(os, name, called)


def _fail_fsync(disk: _Disk) -> None:
    original = os.fsync

    def synced(fd: int) -> None:
        disk.expect_room_of(fd)
        original(fd)

    os.fsync = synced


def _fail_write(disk: _Disk) -> None:
    """The first write that fails writes half of its block, as on a disk that is full."""

    class FullFile(writer.FileIO):
        is_full = False

        def write(self, block: memoryview) -> int:
            if self.is_full:
                raise disk.fail()
            if disk.is_over() and len(block) > 1:
                self.is_full = True
                return super().write(block[: len(block) // 2])
            return super().write(block)

    assert writer.FileIO is FileIO
    writer.FileIO = FullFile


CALLS: dict[str, Callable[[_Disk], None]] = {
    "open": _fail_open,
    "mkdir": _fail_mkdir,
    "change": _fail_change,
    "fsync": _fail_fsync,
    "write": _fail_write,
}


def prepare(request: dict[str, Any] | None) -> None:
    """Set up what fails; `found` is a rate that the run then thinks it has found out."""
    if request is None:
        return
    if "found" in request:
        assert callable(Pace.found)
        Pace.found = lambda self: {
            name: FoundQuota(rate_per_s=request["found"]) for name in self.known.quotas
        }
    if "call" in request:
        CALLS[request["call"]](_Disk(request["path"], request["error"], request.get("n", 1)))


if __name__ == "__main__":
    serve(prepare)
