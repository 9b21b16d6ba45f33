"""Opening a ledger after whatever happened to the run before: keep the records, cut the rest."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulk_updater.errors import LedgerError, LedgerWriteError
from bulk_updater.files import (
    PRIVATE_MODE,
    free_space,
    reason,
    sync_directory,
    sync_file,
)
from bulk_updater.ledger.records import RecordScan, open_to_read
from bulk_updater.ledger.settled import SettledRows

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Recovery", "cut", "recover"]

_COPY_BYTES = 1 << 20
_LINES_BETWEEN_LOOKS = 1 << 12


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a ledger held when it was opened.

    Attributes:
        settled: The rows that are settled, with the outcomes that stand.
        n_lines: Records in the ledger, those that later ones replaced included.
        size_bytes: Length of the ledger after recovery: where the next record goes.
        torn_bytes: Length of the torn tail that was cut; 0 where there was none.
        torn_path: Where the cut bytes are kept; None where there were none.
        run_ids: The runs that the records name, in the order they first appear.
    """

    settled: SettledRows = field(default_factory=SettledRows)
    n_lines: int = 0
    size_bytes: int = 0
    torn_bytes: int = 0
    torn_path: Path | None = None
    run_ids: tuple[str, ...] = ()


def recover(
    path: Path,
    *,
    sync: Callable[[int], None] = sync_file,
    stop: threading.Event | None = None,
) -> Recovery:
    """Read a ledger back and make it fit to be appended to.

    A torn tail is copied to `<name>.torn-<offset>`, and cut when the copy is on the disk. What
    remains is made durable, since a process that was killed may have written records that it did
    not sync, and from now on they count. A missing file is an empty ledger; it is not created.

    The caller holds the lock of the run directory. Blocks, about 4 s for a million records.

    Args:
        path: The ledger.
        sync: What makes a file's bytes durable.
        stop: When another thread sets it, reading is given up and nothing is changed.

    Returns:
        What the ledger holds.

    Raises:
        LedgerCorrupt: A line is no record, and a record follows it; nothing was changed.
        LedgerMismatch: A newer version wrote it: an outcome in it is unknown here, and what looks
            like a torn tail may be none; nothing was changed.
        LedgerWriteError: The tail could not be kept or cut, or the records not made durable.
        LedgerError: The file cannot be read, or `stop` was set.
    """
    settled = SettledRows()
    run_ids: dict[str, None] = {}
    last_run_id = None
    file = open_to_read(path)
    if file is None:
        return Recovery()
    with file:
        scan = RecordScan(file, path)
        for n_line, record in enumerate(scan):
            settled.add(record["row"], record["operation"], record["outcome"])
            if (run_id := record["run_id"]) != last_run_id:
                run_ids[run_id] = None
                last_run_id = run_id
            if stop is not None and n_line % _LINES_BETWEEN_LOOKS == 0 and stop.is_set():
                raise LedgerError("reading it back was given up; nothing was changed.", path=path)
        torn_path = None
        try:
            torn_bytes = os.fstat(file.fileno()).st_size - scan.end_bytes
            if torn_bytes:
                torn_path = _keep_tail(path, scan.end_bytes, sync)
                cut(path, scan.end_bytes, sync)
            else:
                sync(file.fileno())
        except OSError as error:
            raise LedgerWriteError(
                f"could not be recovered from byte {scan.end_bytes} on: {reason(error)}, "
                f"{free_space(path)}. Nothing was sent. Make room or make the directory writable, "
                "and give the same command again.",
                path=path,
            ) from error
    return Recovery(
        settled=settled,
        n_lines=scan.n_lines,
        size_bytes=scan.end_bytes,
        torn_bytes=torn_bytes,
        torn_path=torn_path,
        run_ids=tuple(run_ids),
    )


def _keep_tail(path: Path, offset: int, sync: Callable[[int], None]) -> Path:
    """Copy what is behind an offset to a file of its own, durably, and return its path."""
    torn_path, torn_fd = _create_beside(path, f"{path.name}.torn-{offset}")
    try:
        with open(torn_fd, "wb") as torn, path.open("rb") as ledger:  # noqa: PTH123 - from a fd
            ledger.seek(offset)
            while block := ledger.read(_COPY_BYTES):
                torn.write(block)
            torn.flush()
            sync(torn_fd)
        sync_directory(path.parent)
    except OSError:
        # Half a copy is of no use, and on a full disk each new attempt would leave another.
        with contextlib.suppress(OSError):
            torn_path.unlink()
        raise
    return torn_path


def _create_beside(path: Path, name: str) -> tuple[Path, int]:
    """Create a new file in the same directory: `name`, else `name.2`, `name.3` and so on.

    A ledger can be torn twice at one offset; the bytes of the first time are kept all the same.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    candidate, number = path.with_name(name), 1
    while True:
        try:
            return candidate, os.open(candidate, flags, PRIVATE_MODE)
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{name}.{number}")


def cut(path: Path, offset: int, sync: Callable[[int], None]) -> None:
    """Cut a ledger at an offset, durably; at any moment it is whole or cut.

    Raises:
        OSError: It could not be cut, or only the disk does not know it yet.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, offset)
        sync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)
