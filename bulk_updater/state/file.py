"""The state file: opened only if it is ours, never deleted, and its errors in words.

It is in WAL mode, so that `state show` reads while a run writes, and every commit is on the disk
when it returns (`synchronous=FULL`). Beside it lie SQLite's `-wal` and `-shm`, with the same mode.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from bulk_updater.errors import StateError
from bulk_updater.files import (
    PRIVATE_MODE,
    free_space,
    reason,
    sync_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["errors_of", "open_to_read", "open_to_write"]

_APPLICATION_ID: Final = 0x62755F73
"""`bu_s`, where `file` and SQLite's own list of formats look for it."""

_VERSION: Final = 1

_MAGIC: Final = b"SQLite format 3\0"

_HEADER_BYTES: Final = 100
"""Of SQLite's file format; the numbers in it are big-endian: the version of ours is at 60, the
application's at 68."""

_PATIENCE_S: float = 5.0
"""How long another SQLite program may keep the file locked, in seconds. No run does: they hold the
lock beside it."""

_CACHE_KIB: Final = 16_384
"""More than the inner pages of ten million contacts, so that a look-up reads one page. What is read
in order fills it, too, to no use."""

# Numbers are big-endian bytes: put together they are an array, and they compare as they are.
# `n_contacts` is kept by the triggers: counting ten million contacts reads the whole file.
_SCHEMA: Final = """
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    operation TEXT NOT NULL,
    n_contacts INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, region, instance_id, operation)
) STRICT;
CREATE TABLE applied (
    scope INTEGER NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 16),
    digest BLOB CHECK (length(digest) = 8),
    applied_at BLOB CHECK (length(applied_at) = 4),
    sent BLOB CHECK (length(sent) = 8),
    contact TEXT,
    PRIMARY KEY (scope, key),
    CHECK (sent IS NOT NULL OR digest IS NOT NULL),
    CHECK ((digest IS NULL) = (applied_at IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX in_doubt ON applied (scope, key) WHERE sent IS NOT NULL;
CREATE TABLE runs (
    scope INTEGER NOT NULL,
    job TEXT NOT NULL,
    began_at REAL NOT NULL,
    PRIMARY KEY (scope, job)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER applied_added AFTER INSERT ON applied BEGIN
    UPDATE scopes SET n_contacts = n_contacts + 1 WHERE id = NEW.scope;
END;
CREATE TRIGGER applied_removed AFTER DELETE ON applied BEGIN
    UPDATE scopes SET n_contacts = n_contacts - 1 WHERE id = OLD.scope;
END;
"""

_DAMAGED: Final = (
    "is damaged ({name}). Put back a copy of it, or move it away together with its -wal and -shm "
    "files: what was applied is then unknown, and every row is sent."
)
_NOT_WRITABLE: Final = (
    "cannot be opened or written ({name}). Make it and its directory writable for this user, or "
    "name another file with --state."
)
_LOCKED: Final = (
    "is locked by another program that has it open ({name}), such as a database browser. Close it "
    "there, and give the same command again."
)
_SENTENCES: Final = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _NOT_WRITABLE,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: (
        "cannot be written: the disk is full ({name}), {free}. What it held stands. Make room, "
        "and give the same command again."
    ),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written: the disk fails or is full ({name}), {free}. Mend the disk or "
        "make room, and give the same command again."
    ),
}
_ANY_OTHER: Final = "cannot be used: {error} ({name}), {free}. Put back a copy of it."
_PRIMARY: Final = 0xFF
"""The part of SQLite's extended error codes that names the kind."""


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of the state file into `StateError`."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a fault of ours, not of the file
    except sqlite3.Error as error:
        # The module's own refusals, such as a number that does not fit, carry no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
        sentence = _SENTENCES.get(code, _ANY_OTHER).format(
            error=error,
            name=getattr(error, "sqlite_errorname", type(error).__name__),
            free=free_space(path),
        )
        raise StateError(sentence, path=path) from error
    except OSError as error:
        raise StateError(
            f"cannot be used as a state file: {reason(error)}, {free_space(path)}. Make it and "
            "its directory writable for this user, or name another file with --state.",
            path=path,
        ) from error


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the state file, made anew with mode 0600 where there is none.

    The caller holds the lock beside it.

    Raises:
        StateError: It is something else, damaged, of a newer version, or cannot be written.
    """
    with errors_of(path):
        _create_missing(path)
        _expect_ours(path)
        connection = _connect(path, "rw")
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            if not _has_tables(connection, path):
                # Not yet in WAL mode: until the first checkpoint the tables would stand in the
                # log alone, which SQLite throws away beside an empty file.
                ours = f"PRAGMA application_id={_APPLICATION_ID}; PRAGMA user_version={_VERSION};"
                connection.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} {ours} COMMIT;")
                sync_directory(path.parent)
            _go_wal(connection, path)
            on_failure.pop_all()
    return connection


def open_beside(path: Path) -> sqlite3.Connection:
    """Open a state file to write to it beside a run that may hold its lock.

    Raises:
        StateError: There is none, or it is something else, damaged or of a newer version.
    """
    return _open_existing(path, "rw")


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the state file beside a run that may be writing it.

    Raises:
        StateError: There is none, or it is something else, damaged or of a newer version.
    """
    return _open_existing(path, "ro")


def _open_existing(path: Path, mode: str) -> sqlite3.Connection:
    with errors_of(path):
        _expect_ours(path)
        connection = _connect(path, mode)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            if not _has_tables(connection, path):
                raise StateError(
                    "is empty: nothing was noted in it yet. A run with --only-changed does it.",
                    path=path,
                )
            if mode != "ro":
                _make_durable(connection)
            on_failure.pop_all()
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_PATIENCE_S,
        isolation_level=None,  # transactions begin where we say
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _create_missing(path: Path) -> None:
    # SQLite would take the umask's mode; what it puts beside the file has the file's own.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE))


def _expect_ours(path: Path) -> None:
    """Refuse what is not ours, by its first bytes: SQLite would put files beside it.

    They hold, as our tables were made before the file went into WAL mode. Where a process died
    while it made them, its journal lies there, and what the file is shows when SQLite has been.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header or path.with_name(f"{path.name}-journal").exists():
        return
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise StateError(
            "is no state file: it is no SQLite database. It was not touched. Name another with "
            "--state.",
            path=path,
        )
    version, application_id = (int.from_bytes(header[at : at + 4]) for at in (60, 68))
    if application_id != _APPLICATION_ID:
        raise StateError(
            "is no state file: it is the SQLite database of another program. It was not touched. "
            "Name another with --state.",
            path=path,
        )
    if version > _VERSION:
        raise StateError(
            f"was written by a newer version of bulk_updater (format {version}; this one knows "
            f"{_VERSION}). Upgrade, or name another file with --state.",
            path=path,
        )


def _has_tables(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether they are there; False for an empty file."""
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    _expect_ours(path)  # which SQLite may have recovered just now
    return bool(n_tables)


def _go_wal(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StateError(
            "cannot be kept there: its file system has no shared memory, as some network file "
            "systems have none. Name a file on a local disk with --state.",
            path=path,
        )
    _make_durable(connection)


def _make_durable(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    # On macOS `fsync` stops at the drive's cache; elsewhere these say nothing.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    # Ids that were forgotten are overwritten.
    connection.execute("PRAGMA secure_delete = ON")
