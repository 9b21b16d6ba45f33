"""The run directory: one run at a time works in it, and its files have fixed names.

The lock is on the file `lock`, and says who holds it: see `bulk_updater.locks`.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from bulk_updater._version import __version__
from bulk_updater.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerMismatch,
    LedgerWriteError,
)
from bulk_updater.files import (
    free_space,
    make_private_directory,
    reason,
    write_atomically,
)
from bulk_updater.locks import LockHeld, hold_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["RunDir"]

_LOCK = "lock"
_RUN_JSON = "run.json"
_RUN_JSON_TMP = "run.json.tmp"
_LEDGER = "ledger.jsonl"
_FAILED = "failed.csv"
_REPORT = "report.html"

_FORMAT: Final = 1
"""What `run.json` and the ledger beside it are written in. One higher whenever an older version
would read either of them wrongly; one without a number is of the first."""


class RunDir:
    """The files of one run.

    `RunDir(path)` only names them, for commands that read a run, also while it is going on.
    `RunDir.open(path)` is for the run itself. All methods block; none is for the event loop.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_locked = False

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Iterator[RunDir]:
        """Create the directory where it is missing, with mode 0700, and hold its lock.

        Args:
            path: The directory; its parents are created too.
            clock: Seconds since the epoch, for the note who holds the lock.

        Yields:
            The run directory, locked until the context is left.

        Raises:
            LedgerLocked: Another process works in it; says so at once.
            LedgerMismatch: The path is a file, or a directory that holds other things.
            LedgerWriteError: It cannot be created, locked or written.
        """
        run_dir = cls(path)
        with contextlib.ExitStack() as held:
            try:
                run_dir._expect_ours()
                make_private_directory(path)
                run_dir._lock(held, clock)
            except OSError as error:
                raise LedgerWriteError(
                    f"cannot be used as a run directory: {reason(error)}. Nothing was sent. Make "
                    "it writable for this user, or name another with --run-dir.",
                    path=path,
                ) from error
            run_dir._is_locked = True
            try:
                yield run_dir
            finally:
                run_dir._is_locked = False

    @property
    def ledger_path(self) -> Path:
        """`ledger.jsonl`: the results."""
        return self.path / _LEDGER

    @property
    def failed_path(self) -> Path:
        """`failed.csv`: the rows that are FAILED or INVALID."""
        return self.path / _FAILED

    @property
    def report_path(self) -> Path:
        """`report.html`."""
        return self.path / _REPORT

    @property
    def run_json_path(self) -> Path:
        """`run.json`: what the run is, and its summary."""
        return self.path / _RUN_JSON

    def read_run_json(self) -> dict[str, Any] | None:
        """What `run.json` holds but for its format, None where there is none.

        Raises:
            LedgerCorrupt: It is not a JSON object.
            LedgerMismatch: A newer version wrote it, in a format that is not known here.
            LedgerError: It cannot be read.
        """
        path = self.run_json_path
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(
                f"cannot be read: {reason(error)}. Check the path and its permissions.", path=path
            ) from error
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise _not_a_run(path, str(error), len(error.doc[: error.pos].encode())) from error
        if not isinstance(value, dict):
            raise _not_a_run(path, "it is no JSON object", 0)
        written_in = value.pop("format", _FORMAT)
        if isinstance(written_in, int) and written_in > _FORMAT:
            raise _newer(path, value, written_in)
        return value

    def write_run_json(self, value: Mapping[str, Any]) -> None:
        """Replace `run.json` in one step: a reader, or a crash, finds the old one or the new one.

        Args:
            value: What orjson can write.

        Raises:
            LedgerWriteError: It could not be written; the old one stands.
            RuntimeError: The lock is not held.
        """
        if not self._is_locked:
            raise RuntimeError("run.json is written by the holder of the run directory's lock")
        content = orjson.dumps(
            {"format": _FORMAT, **value}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )
        path = self.run_json_path
        try:
            write_atomically(path, content)
        except OSError as error:
            raise LedgerWriteError(
                f"cannot be written: {reason(error)}, {free_space(path)}. Make room or make the "
                "directory writable, and give the same command again.",
                path=path,
            ) from error

    def add_doubt(self, n_requests: int) -> None:
        """Note in `run.json` that more requests may have been sent whose rows have no result.

        Args:
            n_requests: How many more, at the most; of 0 nothing is written.

        Raises:
            LedgerError: `run.json` could not be read or written.
            RuntimeError: The lock is not held.
        """
        noted = self.read_run_json() if n_requests else None
        if noted is not None:
            self.write_run_json({**noted, "in_doubt": noted.get("in_doubt", 0) + n_requests})

    def _expect_ours(self) -> None:
        """Refuse a path that holds anything but a run, before anything is created in it."""
        try:
            names = {entry.name for entry in os.scandir(self.path)}
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            if not self.path.exists():
                raise  # one of its parents is a file
            raise LedgerMismatch(
                "is a file and not a directory. Name another with --run-dir.", path=self.path
            ) from error
        # A run that died early leaves these two and nothing else.
        names -= {_LOCK, _RUN_JSON_TMP}
        if names and not names & {_RUN_JSON, _LEDGER}:
            raise LedgerMismatch(
                f"is not a run directory: it has neither {_RUN_JSON} nor {_LEDGER}, but "
                f"{len(names)} other entries. Name a new or an empty directory with --run-dir.",
                path=self.path,
            )

    def _lock(self, held: contextlib.ExitStack, clock: Callable[[], float]) -> None:
        """Hold the lock until `held` is closed."""
        try:
            held.enter_context(hold_lock(self.path / _LOCK, clock=clock))
        except LockHeld as error:
            raise LedgerLocked(
                f"is in use by {error.holder}. Nothing was sent. Wait until that run has ended, or "
                "stop it (SIGTERM lets it finish what is in flight), and give the same command "
                "again.",
                path=self.path,
            ) from error


def _newer(path: Path, value: dict[str, Any], written_in: int) -> LedgerMismatch:
    versions = value.get("versions")
    version = versions.get("bulk_updater") if isinstance(versions, dict) else None
    named = f" ({version})" if isinstance(version, str) else ""
    return LedgerMismatch(
        f"was written by a newer version of bulk_updater{named}, in format {written_in}; this "
        f"one, {__version__}, reads format {_FORMAT}. Nothing was changed. Install that version "
        "and give the same command again, or begin anew with --fresh.",
        path=path,
    )


def _not_a_run(path: Path, why: str, offset: int) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"does not describe a run: {why}. The results in {_LEDGER} beside it are not concerned. "
        f"Put back a copy of {_RUN_JSON}, or begin anew with --fresh.",
        path=path,
        offset=offset,
    )
