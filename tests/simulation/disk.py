"""A disk that can lose power: what was synced is there afterwards, the rest as chance will have it.

The files are real, in a directory of their own. What is simulated is what a crash leaves of them:
`kill` takes the process only, so that all it wrote is there; `power` takes the cache, too, so that
of the bytes behind the last sync any prefix is there, the rest is missing or zeros, and of names
that were not synced either the old state or the new one.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

SECTOR_BYTES = 512

Image = "dict[Path, bytes]"
"""A directory's files by their path in it."""


class Disk:
    """A directory whose syncs are watched.

    Args:
        root: The directory.
        passing: Told of every moment at which the world may end: before and after a file is
            written, synced or renamed.
        synced: Told of what is durable of a file, whenever it is synced.
        whole: Names whose files are there after a power loss as they were. A database syncs them by
            itself, where nobody sees it, whenever it has changed something; a crash within a
            database's own call is not simulated.
    """

    def __init__(
        self,
        root: Path,
        *,
        passing: Callable[[str], None],
        synced: Callable[[Path, bytes], None],
        whole: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.root = root
        self._passing = passing
        self._synced = synced
        self._whole = whole
        self._durable: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self.fail_next: dict[str, int] = {}
        """Operations of which the n-th from now on fails, and all after it: `write` or `sync`."""
        self.failed = 0

    def begin(self) -> None:
        """All that is there is durable."""
        self._durable.clear()
        self._names.clear()
        for path in (self.root, *self.root.rglob("*")):
            if path.is_dir():
                self._names[path] = _names_in(path)
            else:
                self._durable[path.stat().st_ino] = path.read_bytes()

    def fail(self, operation: str) -> None:
        """Raise what this operation is to fail with, if its time has come."""
        left = self.fail_next.get(operation)
        if left is None:
            return
        self.fail_next[operation] = left - 1
        if left <= 0:
            self.failed += 1
            code = errno.ENOSPC if operation == "write" else errno.EIO
            raise OSError(code, os.strerror(code))

    def fsync(self, fd: int, really: Callable[[int], None]) -> None:
        about = os.fstat(fd)
        path = self._path_of(about)
        if path is None:
            really(fd)
            return
        if stat.S_ISDIR(about.st_mode):
            self._names[path] = _names_in(path)
            return
        self._passing("before sync")
        self.fail("sync")
        data = self._durable[about.st_ino] = path.read_bytes()
        self._synced(path, data)
        self._passing("after sync")

    def replace(self, source: str, target: str, really: Callable[[str, str], None]) -> None:
        self._passing("before rename")
        really(source, target)
        self._passing("after rename")

    def durable(self, path: Path) -> bytes:
        """What is durable of a file; nothing where it is not there."""
        return self._durable.get(path.stat().st_ino, b"") if path.exists() else b""

    def image(self) -> dict[Path, bytes]:
        """What is there, for whoever asks now."""
        return {
            path.relative_to(self.root): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def image_after_power_loss(self, rng: random.Random) -> dict[Path, bytes]:
        """What is there when the power is back."""
        image: dict[Path, bytes] = {}
        self._salvage(self.root, image, rng)
        return image

    def _salvage(self, folder: Path, image: dict[Path, bytes], rng: random.Random) -> None:
        now, before = _names_in(folder), self._names.get(folder, {})
        for name in sorted(now.keys() | before.keys()):
            path = folder / name
            if self._whole(name):
                if path.exists():
                    image[path.relative_to(self.root)] = path.read_bytes()
                continue
            inodes = {now.get(name), before.get(name)}
            inode = rng.choice(sorted(inodes, key=str)) if len(inodes) > 1 else inodes.pop()
            if inode is None:
                continue
            if path.is_dir():
                self._salvage(path, image, rng)
                continue
            durable = self._durable.get(inode, b"")
            cached = path.read_bytes() if inode == now.get(name) else durable
            image[path.relative_to(self.root)] = _torn(durable, cached, rng)

    def restore(self, image: dict[Path, bytes]) -> None:
        """Put an image in the place of all that is there."""
        for path in sorted(self.root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for name, data in image.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
        for path in self.root.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        self.begin()

    def _path_of(self, about: os.stat_result) -> Path | None:
        """The path of an open file; asked of the directory, since not every system tells."""
        for path in (self.root, *self.root.rglob("*")):
            found = path.stat()
            if (found.st_ino, found.st_dev) == (about.st_ino, about.st_dev):
                return path
        return None


def _names_in(folder: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


def _torn(durable: bytes, cached: bytes, rng: random.Random) -> bytes:
    """What is left of a file of which `cached` was written and `durable` synced."""
    if not cached.startswith(durable):
        return rng.choice([durable, cached])  # it was cut, and the cut was not synced
    n_kept = rng.choice([0, len(cached) - len(durable), rng.randint(0, len(cached) - len(durable))])
    kept = cached[: len(durable) + n_kept]
    if rng.random() < 0.25:  # the file grew, but the last sectors never came
        boundary = max(len(durable), len(kept) // SECTOR_BYTES * SECTOR_BYTES)
        kept = kept[:boundary] + bytes(len(cached) - boundary)
    return kept
