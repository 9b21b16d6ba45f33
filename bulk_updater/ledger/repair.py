"""Cutting a ledger before damage in its middle: a person's decision, never a run's.

Why everything behind the first damage goes, and not only the lines that are broken: rows of one
contact are settled in their order, so a ledger that is cut anywhere tells for every contact up to
which row it was changed, and the rows after that one come again in order. With a record in the
middle missing, its row would be sent again *after* later rows of the same contact that stand as
settled, and would undo what they changed. Sending a row twice does no harm; sending it out of its
order does.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulk_updater.errors import LedgerWriteError
from bulk_updater.files import free_space, private_opener, reason, sync_directory, sync_file
from bulk_updater.ledger.records import RecordScan, open_to_read
from bulk_updater.ledger.recovery import cut, recover

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Repair", "repair_ledger"]

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a ledger that was to be repaired.

    Attributes:
        n_lines: Records that it holds now, those that later ones replaced included.
        size_bytes: Its length now: where it was cut, if it was.
        cut_bytes: What was cut off, in bytes; 0 where nothing was to be repaired.
        n_behind: Whole records among what was cut off; 0 where it was only a torn tail.
        kept_path: The ledger as it was, or its torn tail; None where nothing was cut.
    """

    n_lines: int
    size_bytes: int
    cut_bytes: int = 0
    n_behind: int = 0
    kept_path: Path | None = None


def repair_ledger(path: Path) -> Repair:
    """Cut a ledger before the first line that is no record.

    Where records follow that line, the ledger is copied first, whole, to
    `<name>.damaged-<offset>`. A torn tail is cut as the next run would do it: see `recover`. A
    ledger without either stays as it is. Whatever ends the process leaves the ledger as it was or
    as it is to be, and in the second case the copy.

    The caller holds the lock of the run directory. Blocks, as `recover` does.

    Args:
        path: The ledger; a missing one is whole.

    Returns:
        What was done.

    Raises:
        LedgerMismatch: A newer version wrote it; nothing was changed.
        LedgerWriteError: It could not be copied or not be cut.
        LedgerError: It cannot be read.
    """
    file = open_to_read(path)
    if file is None:
        return Repair(0, 0)
    with file:
        scan = RecordScan(file, path, count_behind=True)
        for _ in scan:
            pass
    if not scan.n_behind:
        recovery = recover(path)
        return Repair(
            recovery.n_lines,
            recovery.size_bytes,
            cut_bytes=recovery.torn_bytes,
            kept_path=recovery.torn_path,
        )
    size_bytes = path.stat().st_size
    kept_path = _keep_whole(path, scan.end_bytes)
    try:
        cut(path, scan.end_bytes, sync_file)
    except OSError as error:
        raise LedgerWriteError(
            f"could not be cut at byte {scan.end_bytes}: {reason(error)}. The ledger as it was is "
            f"kept in {kept_path}. Mend the disk and give the same command again.",
            path=path,
        ) from error
    return Repair(
        scan.n_lines,
        scan.end_bytes,
        cut_bytes=size_bytes - scan.end_bytes,
        n_behind=scan.n_behind,
        kept_path=kept_path,
    )


def _keep_whole(path: Path, offset: int) -> Path:
    """Copy a ledger, durably, under a name that only a whole copy has; return its path."""
    partial = path.with_name(f"{path.name}.damaged.tmp")
    try:
        with path.open("rb") as ledger, open(partial, "wb", opener=private_opener) as copy:
            shutil.copyfileobj(ledger, copy, _COPY_BYTES)
            copy.flush()
            sync_file(copy.fileno())
        kept_path = _free_name(path, offset)
        partial.rename(kept_path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise _not_kept(path, error) from error
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise _not_kept(path, error) from error
    return kept_path


def _free_name(path: Path, offset: int) -> Path:
    """`<name>.damaged-<offset>`, else with `.2`, `.3` and so on behind it.

    The lock is held: nobody takes the name before the copy has it.
    """
    first = candidate = path.with_name(f"{path.name}.damaged-{offset}")
    number = 1
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = first.with_name(f"{first.name}.{number}")
    return candidate


def _not_kept(path: Path, error: OSError) -> LedgerWriteError:
    return LedgerWriteError(
        f"no copy of it can be kept: {reason(error)}, {free_space(path)}. The ledger was not "
        "changed. Make room or make the directory writable, and give the same command again.",
        path=path,
    )
