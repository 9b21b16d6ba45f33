"""The few file operations that durability is made of."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "PRIVATE_MODE",
    "free_space",
    "make_private_directory",
    "private_opener",
    "reason",
    "sync_directory",
    "sync_file",
    "write_atomically",
]

PRIVATE_MODE = 0o600
"""Mode of every file that a run writes: contact ids are nobody else's business."""

_PRIVATE_DIRECTORY_MODE = 0o700


def sync_file(fd: int) -> None:
    """Return when the file's bytes and its size are on the disk, not in a cache.

    `fsync` rather than `fdatasync`: an append changes the size, which both must write, and the
    two took the same time when measured on ext4 (0.14 ms). On macOS `fsync` stops at the drive's
    cache; `F_FULLFSYNC` does not.

    Args:
        fd: A file descriptor, open for reading or writing.

    Raises:
        OSError: The bytes may or may not be on the disk, and asking again would not tell: the
            kernel reports a failed write-back once and then takes the pages for clean.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Return when names that were created, renamed or removed in a directory are on the disk.

    Always `fsync`: whether a name is data or metadata, which `fdatasync` may leave out, is for
    the file system to say.

    Args:
        path: The directory.

    Raises:
        OSError: The names may be lost by a power failure.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file in one step: a reader, or a crash, finds the old one or the new one.

    The new one is written beside it, as `<name>.tmp`, and takes its name when it is on the disk.
    What a crash leaves of it is overwritten the next time.

    Not for two writers of one file at once: they hold a lock.

    Args:
        path: The file, which need not exist; its directory must.
        data: All of its new content.

    Raises:
        OSError: It could not be written; the old one stands. Where only the directory could not
            be synced the new one stands, and a power failure may bring the old one back.
    """
    tmp_path = path.with_name(f"{path.name}.tmp")
    try:
        with open(tmp_path, "wb", opener=private_opener) as file:
            file.write(data)
            file.flush()
            # Before the rename, or a power failure could leave the new name without content.
            sync_file(file.fileno())
        tmp_path.replace(path)
    except OSError:
        # On a full disk, half a file would take the room that others need.
        with contextlib.suppress(OSError):
            tmp_path.unlink()
        raise
    sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """Create a directory and its missing parents, durably, all of them private (0700).

    Names in them tell of exports and accounts, and nobody else has a use for an empty folder.

    Args:
        path: The directory. One that exists stays as it is.

    Raises:
        OSError: It could not be created; some of its parents may have been.
    """
    missing = []
    ancestor = path
    while not ancestor.exists():
        missing.append(ancestor)
        ancestor = ancestor.parent
    for directory in reversed(missing):
        # Two processes that begin at once both find it missing.
        directory.mkdir(_PRIVATE_DIRECTORY_MODE, exist_ok=True)
        # A file that is synced in a directory that a power failure takes away is lost.
        sync_directory(directory.parent)


def private_opener(path: str, flags: int) -> int:
    """An `opener` for `open` that creates files with mode 0600."""
    return os.open(path, flags | os.O_CLOEXEC, PRIVATE_MODE)


def reason(error: OSError) -> str:
    """What the system said, with the name of the error: `No space left on device (ENOSPC)`."""
    if error.errno is None:
        return str(error) or type(error).__name__
    name = errno.errorcode.get(error.errno, str(error.errno))
    return f"{error.strerror or 'error'} ({name})"


def free_space(path: Path) -> str:
    """How much room is left where a file is, in words: `12,345 bytes free`."""
    try:
        return f"{shutil.disk_usage(path.parent).free:,} bytes free"
    except OSError:
        return "free space unknown"
