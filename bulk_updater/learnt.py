"""What runs found the quotas to be, kept for later runs: one small file of a machine.

    {
      "version": 1,
      "quotas": [
        {
          "account": "123456789012",
          "region": "eu-west-1",
          "operation": "update_contact",
          "rate_per_s": 19.9,
          "burst": 30.0,
          "learnt_at": "2026-11-21T03:04:05.678Z"
        }
      ]
    }

It is a help and never a condition. A run without the file begins from the quota and learns again,
so whatever is wrong with it is one warning in the log and no error.

Runs that end together lose nothing of each other's: each holds an advisory `flock` while it reads
the file, puts its own in and replaces it. The lock is on an empty file beside it, `<name>.lock`,
which stays. The kernel gives the lock up when its holder ends, however it ends. The file itself
cannot be locked, as each writer replaces it; its directory may belong to others, and some network
file systems lock only what can be written.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from bulk_updater.files import (
    PRIVATE_MODE,
    free_space,
    make_private_directory,
    reason,
    write_atomically,
)
from bulk_updater.model import to_iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Learnt", "LearntQuotas"]

log = logging.getLogger(__name__)

_VERSION: Final = 1

_CLOCKS_DIFFER_S: Final = 86_400.0
"""How far ahead of our clock another's may have been, in seconds. What was learnt later than that
was not: it would stand against everything that is learnt until then."""

_PATIENCE_S: Final = 2.0
"""How long `save` takes at the most, in seconds; it takes milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a run found one operation's quota to be.

    Attributes:
        rate_per_s: Requests per second, above 0, finite.
        burst: Tokens that the bucket holds, 1 or more, finite; None where it was not learnt.
        learnt_at: When, in seconds since the epoch. Kept in whole milliseconds.
    """

    rate_per_s: float
    burst: float | None
    learnt_at: float


class LearntQuotas:
    """One file of what runs learnt, shared by all runs of a machine.

    Neither method raises for what is wrong with the file. Both block; neither is for the event
    loop. No cell and no credential comes near the file: it holds account, region, operation, and
    figures.

    Args:
        path: The file. It and its directory need not exist.
        account: The AWS account's id, which the quotas are of.
        region: The region's name, likewise.
        clock: Seconds since the epoch, to know what claims to come from the future.
        patience_s: How long `save` may take, in seconds, 0 or more.
    """

    def __init__(
        self,
        path: Path,
        *,
        account: str,
        region: str,
        clock: Callable[[], float] = time.time,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._path = path
        self._account = account
        self._region = region
        self._clock = clock
        self._patience_s = patience_s

    def load(self) -> dict[str, Learnt]:
        """What is known of this account and region, by the operation's snake_case name.

        Returns:
            Only what can be: entries of another shape, with figures out of range, or learnt more
            than a day from now are left out. Empty where there is no file, and, with a warning,
            where the file is damaged, of a newer version, or cannot be read.
        """
        try:
            document = _parse(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            return self._know_nothing(f"cannot be read: {reason(error)}")
        except ValueError as error:
            return self._know_nothing(f"is damaged: {error}")
        if document["version"] > _VERSION:
            return self._know_nothing(_is_newer(document))
        return self._find_ours(document["quotas"])

    def save(self, learnt: Mapping[str, Learnt]) -> None:
        """Put in what a run learnt, unless something newer stands there; keep all else.

        A file that is damaged is put aside as `<name>.damaged`, where there is none yet, and
        begun anew. One of a newer version is left alone. Where something is in the way, the file
        stays as it is and a warning says what.

        Args:
            learnt: By the operation's snake_case name. What is out of range, or learnt more than
                a day from now, is left out.
        """
        if not learnt:
            return
        # A lock may be held by a process that was stopped, a network disk may not answer: neither
        # has a time limit of its own, and neither may keep a run from ending. A daemon thread is
        # not waited for at exit. When it goes on it does no harm: it merges under the lock.
        worker = threading.Thread(
            target=self._save, args=(dict(learnt),), name="save-learnt-quotas", daemon=True
        )
        worker.start()
        worker.join(self._patience_s)
        if worker.is_alive():
            log.warning(
                "%s could not be brought up to date within %g s: another process holds its lock, "
                "or the disk does not answer. What this run learnt about quotas may be lost.",
                self._path,
                self._patience_s,
            )

    def _find_ours(self, entries: list[Any]) -> dict[str, Learnt]:
        now = self._clock()
        found: dict[str, Learnt] = {}
        for entry in entries:
            operation = self._operation_of(entry)
            learnt = _parse_entry(entry, now=now)
            if operation is None or learnt is None:
                continue
            # Twice the same operation is somebody's edit.
            if operation not in found or found[operation].learnt_at < learnt.learnt_at:
                found[operation] = learnt
        return found

    def _save(self, learnt: dict[str, Learnt]) -> None:
        path = self._path
        try:
            make_private_directory(path.parent)
            with _locked(path.with_name(f"{path.name}.lock")):
                self._save_locked(learnt)
        except OSError as error:
            log.warning(
                "%s cannot be brought up to date: %s, %s. It stays as it is, and what this run "
                "learnt about quotas is lost.",
                path,
                reason(error),
                free_space(path),
            )

    def _save_locked(self, learnt: dict[str, Learnt]) -> None:
        document, warning = self._load_to_write()
        if document["version"] > _VERSION:
            log.warning(
                "%s %s. It stays as it is, and what this run learnt about quotas is lost.",
                self._path,
                _is_newer(document),
            )
            return
        self._merge(document["quotas"], learnt)
        write_atomically(self._path, _dump(document))
        # Only now: if the disk is full, that is the one warning, and this one would not be true.
        if warning is not None:
            log.warning("%s", warning)

    def _load_to_write(self) -> tuple[dict[str, Any], str | None]:
        """The document to put entries into, and what to warn of once it is written."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return _new_document(), None
        try:
            return _parse(content), None
        except ValueError as error:
            where = self._put_aside(content)
            return _new_document(), (
                f"{self._path} was damaged: {error}. It was begun anew; {where}."
            )

    def _put_aside(self, content: bytes) -> str:
        """Copy what is damaged, so that the file is never missing; the first copy stays."""
        aside = self._path.with_name(f"{self._path.name}.damaged")
        if os.path.lexists(aside):
            return f"{aside}, from an earlier time, was not overwritten"
        write_atomically(aside, content)
        return f"what was there is kept in {aside}"

    def _merge(self, entries: list[Any], learnt: dict[str, Learnt]) -> None:
        """Put `learnt` in the place of its operations' entries; all others stay as they are."""
        now = self._clock()
        for operation, new in learnt.items():
            if not _is_sane(new, now=now):
                continue
            others = [entry for entry in entries if self._operation_of(entry) != operation]
            ours = [entry for entry in entries if self._operation_of(entry) == operation]
            # What nobody could load does not stand against what is new.
            standing = [old for entry in ours if (old := _parse_entry(entry, now=now))]
            # As text, in the file's precision: what is saved twice is not older than itself.
            if any(to_iso(old.learnt_at) > to_iso(new.learnt_at) for old in standing):
                continue
            entries[:] = [*others, self._to_entry(operation, new)]
        entries.sort(key=_sort_key)

    def _to_entry(self, operation: str, learnt: Learnt) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "account": self._account,
            "region": self._region,
            "operation": operation,
            "rate_per_s": learnt.rate_per_s,
        }
        if learnt.burst is not None:
            entry["burst"] = learnt.burst
        return entry | {"learnt_at": to_iso(learnt.learnt_at)}

    def _operation_of(self, entry: Any) -> str | None:
        """The operation of an entry of this account and region, None for all others."""
        if not isinstance(entry, dict):
            return None
        if (entry.get("account"), entry.get("region")) != (self._account, self._region):
            return None
        operation = entry.get("operation")
        return operation if isinstance(operation, str) else None

    def _know_nothing(self, why: str) -> dict[str, Learnt]:
        log.warning(
            "%s %s. What earlier runs learnt is not used; this run begins from the quota.",
            self._path,
            why,
        )
        return {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock, waiting for it; each opening has its own, so it parts threads as well."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        # The file stays: whoever removes it may remove the one that the next has just locked.
        os.close(fd)


def _new_document() -> dict[str, Any]:
    return {"version": _VERSION, "quotas": []}


def _dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _parse(content: bytes) -> dict[str, Any]:
    """The file as JSON; of a version that is ours or older, `quotas` is a list.

    Raises:
        ValueError: It is damaged; the message says how.
    """
    document = orjson.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - damage is a value, not a bug
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError("it has no version")
    if version <= _VERSION:
        if not isinstance(document.get("quotas"), list):
            raise ValueError("it has no list of quotas")
        try:
            _dump(document)
        except orjson.JSONEncodeError as error:
            # orjson reads deeper nesting than it writes.
            raise ValueError(f"it could not be written again: {error}") from error
    return document


def _parse_entry(entry: Any, *, now: float) -> Learnt | None:
    """What an entry says; None where it cannot be."""
    if not isinstance(entry, dict):
        return None
    try:
        learnt_at = datetime.fromisoformat(entry["learnt_at"])
        if learnt_at.tzinfo is None:
            return None
        learnt = Learnt(
            rate_per_s=_number(entry["rate_per_s"]),
            burst=None if entry.get("burst") is None else _number(entry["burst"]),
            learnt_at=learnt_at.timestamp(),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return learnt if _is_sane(learnt, now=now) else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)


def _is_sane(learnt: Learnt, *, now: float) -> bool:
    """Whether it can be; comparisons with NaN are false."""
    return (
        0 < learnt.rate_per_s < math.inf
        and (learnt.burst is None or 1 <= learnt.burst < math.inf)
        and 0 <= learnt.learnt_at <= now + _CLOCKS_DIFFER_S
    )


def _is_newer(document: dict[str, Any]) -> str:
    return (
        f"is of version {document['version']}, and this bulk-updater knows version {_VERSION} only"
    )


def _sort_key(entry: Any) -> tuple[bool, str, str, str]:
    """By account, region and operation; what is no entry comes last, in the order it has."""
    if not isinstance(entry, dict):
        return (True, "", "", "")
    account, region, operation = (str(entry.get(k)) for k in ("account", "region", "operation"))
    return (False, account, region, operation)
