"""What was last applied to each contact: marked, confirmed, forgotten, listed."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Final

from bulk_updater.errors import StateError
from bulk_updater.files import make_private_directory
from bulk_updater.keys import KEY_BYTES, KEY_DTYPE, contact_id_of, contact_key
from bulk_updater.locks import LockHeld, hold_lock
from bulk_updater.state.file import errors_of, open_beside, open_to_read, open_to_write
from bulk_updater.state.finding import Found, find
from bulk_updater.state.known import Known, Scope, ScopeSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

__all__ = ["State"]

_ROWS_AT_ONCE: Final = 4096

_OF_A_SCOPE: Final = "FROM applied WHERE scope = ?"
_OF_A_CONTACT: Final = _OF_A_SCOPE + " AND key = ?"

_PAGE: Final = "SELECT key, digest, applied_at, sent, contact "
_BEHIND: Final = " AND key > ? ORDER BY key LIMIT ?"

_MARK: Final = """
INSERT INTO applied (scope, key, sent, contact) VALUES (?, ?, ?, ?)
ON CONFLICT (scope, key) DO UPDATE SET sent = excluded.sent
"""

# What was sent after that which is confirmed now is still in doubt.
_CONFIRM: Final = """
INSERT INTO applied (scope, key, digest, applied_at, contact) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (scope, key) DO UPDATE SET
    digest = excluded.digest,
    applied_at = excluded.applied_at,
    sent = CASE WHEN sent = excluded.digest THEN NULL ELSE sent END
"""

# What another run applied later stands. A contact that was forgotten stays forgotten.
_CONFIRM_KEY: Final = """
UPDATE applied SET
    digest = ?3,
    applied_at = ?4,
    sent = CASE WHEN sent = ?3 THEN NULL ELSE sent END
WHERE scope = ?1 AND key = ?2 AND (applied_at IS NULL OR applied_at <= ?4)
"""

# No row's digest is 0: nothing that is confirmed afterwards takes the doubt away.
_DOUBT: Final = "UPDATE applied SET sent = zeroblob(8) WHERE scope = ? AND key = ?"

_UNMARK: Final = "UPDATE applied SET sent = NULL WHERE scope = ? AND key = ?"


class State:
    """The state file, opened by `State.open` for a run or by `State.read_only` beside one.

    All methods block. They may be called from any thread, from one at a time.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._scope_ids: dict[Scope, int] = {}
        # Contacts that were in doubt already when they were marked again.
        self._doubted: set[tuple[int, bytes]] = set()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        undone: str = "Nothing was sent.",
    ) -> Iterator[State]:
        """Open the state for one run, with its lock, `<name>.lock`; make it where there is none.

        Args:
            path: The file; directories that are missing are created, private.
            clock: Seconds since the epoch, for the note of who holds the lock.
            undone: What a refusal is to say did not happen.

        Yields:
            The state, until the context is left.

        Raises:
            StateError: Another run has it; or it is no state file, damaged, of a newer version,
                or cannot be written. It was left as it is.
        """
        with contextlib.ExitStack() as held:
            with errors_of(path):
                # Where two names lead to one file, its lock is one, too.
                real = path.resolve()
                make_private_directory(real.parent)
                try:
                    held.enter_context(hold_lock(_lock_of(real), clock=clock))
                except LockHeld as error:
                    raise StateError(
                        f"is in use by {error.holder}. {undone} Wait until that run has ended, or "
                        "stop it (SIGTERM lets it finish what is in flight), and give the same "
                        "command again.",
                        path=path,
                    ) from error
            state = cls(path, open_to_write(real))
            held.callback(state._close)
            yield state

    @classmethod
    @contextlib.contextmanager
    def read_only(cls, path: Path) -> Iterator[State]:
        """Open the state to look at it, also while a run works on it; nothing is locked.

        Raises:
            StateError: There is none, or it is no state file, damaged or of a newer version.
        """
        with contextlib.closing(open_to_read(path)) as connection:
            yield cls(path, connection)

    @staticmethod
    def is_kept(path: Path) -> bool:
        """Whether there is a state file, and not an empty one.

        Raises:
            StateError: Its directory cannot be looked into.
        """
        with errors_of(path):
            try:
                return path.stat().st_size > 0
            except FileNotFoundError:
                return False

    @classmethod
    @contextlib.contextmanager
    def beside(cls, path: Path) -> Iterator[State]:
        """Open the state for `doubt` alone, also while a run works on it; nothing is locked.

        Raises:
            StateError: There is none, or it is no state file, damaged, of a newer version, or
                cannot be written.
        """
        with contextlib.closing(open_beside(path)) as connection:
            yield cls(path, connection)

    def n_contacts(self, scope: Scope) -> int:
        """Contacts of which anything is known, at no cost."""
        with errors_of(self.path):
            row = self._connection.execute(
                "SELECT n_contacts FROM scopes WHERE id = ?", (self._scope_id(scope),)
            ).fetchone()
        return 0 if row is None else int(row[0])

    def scopes(self) -> list[ScopeSummary]:
        """What is known, scope by scope, in their order; reads the whole file."""
        with errors_of(self.path):
            rows = self._connection.execute(
                "SELECT account, region, instance_id, operation, count(*), count(sent), "
                "max(applied_at) FROM scopes JOIN applied ON scope = id GROUP BY id"
            ).fetchall()
        summaries = [
            ScopeSummary(
                Scope(*row[:4]), row[4], row[5], None if row[6] is None else _number(row[6])
            )
            for row in rows
        ]
        return sorted(summaries, key=lambda summary: summary.scope)

    def find(self, scope: Scope, keys: npt.NDArray[np.bytes_]) -> Found:
        """Look many contacts up. All of an export's at once is cheaper than frame by frame.

        Args:
            scope: Where.
            keys: Their keys, `KEY_DTYPE`, ascending, each once.
        """
        with errors_of(self.path):
            scope_id = self._scope_id(scope)
            if scope_id is None:
                return Found.nothing(len(keys))
            return find(self._connection, scope_id, self.n_contacts(scope), keys)

    def newest_run(self, scope: Scope, job: str) -> float:
        """When the newest run of a job was begun, in seconds since the epoch; 0: there was none."""
        with errors_of(self.path):
            row = self._connection.execute(
                "SELECT began_at FROM runs WHERE scope = ? AND job = ?",
                (self._scope_id(scope), job),
            ).fetchone()
        return 0.0 if row is None else float(row[0])

    def newest_run_of(self, job: str) -> float:
        """The same, in any scope."""
        with errors_of(self.path):
            row = self._connection.execute(
                "SELECT max(began_at) FROM runs WHERE job = ?", (job,)
            ).fetchone()
        return float(row[0] or 0.0)

    def note_run(self, scope: Scope, job: str, began_at: float) -> None:
        """Note that a run of a job has begun; what began earlier is older from now on."""
        with self._writing() as execute:
            execute(
                "INSERT INTO runs (scope, job, began_at) VALUES (?, ?, ?) "
                "ON CONFLICT (scope, job) DO UPDATE "
                "SET began_at = max(began_at, excluded.began_at)",
                (self._made_scope_id(scope), job, began_at),
            )

    def mark(self, scope: Scope, sending: Iterable[tuple[str, int]]) -> None:
        """Note what is about to be sent; durable when it returns.

        Args:
            scope: Where.
            sending: Contact ids, each with the digest of what its request will write.

        Raises:
            StateError: It could not be noted, and must not be sent.
        """
        with self._writing() as execute:
            scope_id = self._made_scope_id(scope)
            for contact_id, digest in sending:
                key, text = _stored(contact_id)
                row = execute("SELECT sent " + _OF_A_CONTACT, (scope_id, key)).fetchone()
                # Also where the mark itself fails: taking it back makes no certainty.
                if row is not None and row[0] is not None:
                    self._doubted.add((scope_id, key))
                else:
                    self._doubted.discard((scope_id, key))
                execute(_MARK, (scope_id, key, _digest_bytes(digest), text))

    def confirm(self, scope: Scope, applied: Iterable[tuple[str, int, int]]) -> None:
        """Note what was applied: the digest moves.

        A contact to which something else was marked since stays in doubt.

        Args:
            scope: Where.
            applied: Contact ids, each with the digest that it was marked with and the time in
                whole seconds since the epoch; those of one contact in the order of sending.

        Raises:
            StateError: It could not be noted; the contacts stay in doubt.
        """
        with self._writing() as execute:
            scope_id = self._made_scope_id(scope)
            for contact_id, digest, applied_at in applied:
                key, text = _stored(contact_id)
                held = _digest_bytes(digest), _time_bytes(applied_at)
                execute(_CONFIRM, (scope_id, key, *held, text))

    def confirm_keys(
        self,
        scope: Scope,
        keys: npt.NDArray[np.bytes_],
        digests: npt.NDArray[np.uint64],
        applied_at: int,
    ) -> None:
        """Note what was applied some time ago, as a ledger tells, of contacts that are known.

        Those to which something was applied after that time, by another run, stay as they are; so
        do those that are not known, which are sent next time.

        Args:
            scope: Where.
            keys: The contacts' keys, `KEY_DTYPE`.
            digests: What was applied to each.
            applied_at: A time before it was, in whole seconds since the epoch.

        Raises:
            StateError: It could not be noted; all stay as they are.
        """
        raw = keys.astype(KEY_DTYPE, copy=False).tobytes()
        every = (raw[at : at + KEY_BYTES] for at in range(0, len(raw), KEY_BYTES))
        at = _time_bytes(applied_at)
        with self._writing():
            scope_id = self._scope_id(scope)
            self._connection.executemany(
                _CONFIRM_KEY,
                (
                    (scope_id, key, _digest_bytes(digest), at)
                    for key, digest in zip(every, digests.tolist(), strict=True)
                ),
            )

    def doubt(
        self,
        contact_ids: Iterable[str],
        *,
        account: str | None = None,
        region: str | None = None,
        instance_id: str,
        operation: str,
    ) -> None:
        """Note that something else is about to be sent to contacts; durable when it returns.

        Those of which nothing is known stay so. The others are in doubt until they are sent to by
        a run that marks them.

        Args:
            contact_ids: The contacts.
            account: Only in scopes of this account; None: of any. The others likewise.
            region: See `account`.
            instance_id: See `account`.
            operation: See `account`.

        Raises:
            StateError: It could not be noted, and nothing must be sent.
        """
        with self._writing() as execute:
            keys = [contact_key(contact_id) for contact_id in contact_ids]
            for scope_id, _ in self._matching(account, region, instance_id, operation):
                for key in keys:
                    execute(_DOUBT, (scope_id, key))

    def unmark(self, scope: Scope, contact_ids: Iterable[str]) -> None:
        """Take the last mark of contacts back: nothing was sent after all.

        What was in doubt before that mark stays in doubt, since it may have been applied. A
        contact to which nothing was ever applied is not known any more.

        Args:
            scope: Where.
            contact_ids: The contacts; those that are not marked stay as they are.

        Raises:
            StateError: It could not be noted; the contacts stay in doubt.
        """
        with self._writing() as execute:
            scope_id = self._scope_id(scope)
            for contact_id in contact_ids:
                key, _ = _stored(contact_id)
                if (scope_id, key) in self._doubted:
                    continue
                execute("DELETE " + _OF_A_CONTACT + " AND digest IS NULL", (scope_id, key))
                execute(_UNMARK, (scope_id, key))

    def forget(
        self,
        contact_id: str | None = None,
        *,
        account: str | None = None,
        region: str | None = None,
        instance_id: str | None = None,
        operation: str | None = None,
    ) -> int:
        """Forget contacts: what is sent to them next is sent whatever it is.

        Args:
            contact_id: Only this one; None: all.
            account: Only in scopes of this account; None: of any. The others likewise.
            region: See `account`.
            instance_id: See `account`.
            operation: See `account`.

        Returns:
            How many were forgotten, each counted in every scope.

        Raises:
            StateError: They could not be forgotten; all are still known.
        """
        n_forgotten = 0
        with self._writing() as execute:
            for scope_id, _ in self._matching(account, region, instance_id, operation):
                which, values = _where(scope_id, contact_id)
                n_forgotten += execute("DELETE " + which, values).rowcount
            execute("DELETE FROM scopes WHERE n_contacts = 0")
            self._scope_ids.clear()
        return n_forgotten

    def rows(
        self,
        contact_id: str | None = None,
        *,
        account: str | None = None,
        region: str | None = None,
        instance_id: str | None = None,
        operation: str | None = None,
    ) -> Iterator[Known]:
        """What is known, in the order of scopes and keys, in constant memory.

        A page at a time: a slow reader does not keep SQLite from tidying up behind a run. What
        changes meanwhile may or may not be in it.

        Args:
            contact_id: Only of this one; None: of all.
            account: Only in scopes of this account; None: of any. The others likewise.
            region: See `account`.
            instance_id: See `account`.
            operation: See `account`.

        Raises:
            StateError: It cannot be read.
        """
        with errors_of(self.path):
            scopes = self._matching(account, region, instance_id, operation)
        for scope_id, scope in scopes:
            which, values = _where(scope_id, contact_id)
            last = b""
            while page := self._page(which, values, last):
                last = page[-1][0]
                for key, digest, applied_at, sent, text in page:
                    yield Known(
                        scope,
                        contact_id_of(key) if text is None else text,
                        None if digest is None else _number(digest),
                        None if applied_at is None else _number(applied_at),
                        in_doubt=sent is not None,
                    )

    def _page(self, which: str, values: tuple[object, ...], last: bytes) -> list[Any]:
        with errors_of(self.path):
            return self._connection.execute(
                _PAGE + which + _BEHIND, (*values, last, _ROWS_AT_ONCE)
            ).fetchall()

    def _matching(self, *wanted: str | None) -> list[tuple[int, Scope]]:
        """Scopes by their rows, in their order."""
        found = self._connection.execute(
            "SELECT id, account, region, instance_id, operation FROM scopes"
        )
        scopes = [(row[0], Scope(*row[1:])) for row in found]
        return sorted(
            (each for each in scopes if _matches(each[1], wanted)), key=lambda each: each[1]
        )

    def _scope_id(self, scope: Scope) -> int | None:
        if scope not in self._scope_ids:
            row = self._connection.execute(
                "SELECT id FROM scopes "
                "WHERE account = ? AND region = ? AND instance_id = ? AND operation = ?",
                astuple(scope),
            ).fetchone()
            if row is None:
                return None
            self._scope_ids[scope] = row[0]
        return self._scope_ids[scope]

    def _made_scope_id(self, scope: Scope) -> int:
        scope_id = self._scope_id(scope)
        if scope_id is None:
            cursor = self._connection.execute(
                "INSERT INTO scopes (account, region, instance_id, operation) VALUES (?, ?, ?, ?)",
                astuple(scope),
            )
            scope_id = self._scope_ids[scope] = int(cursor.lastrowid or 0)
        return scope_id

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """All or nothing, on the disk when the context is left."""
        execute = self._connection.execute
        with errors_of(self.path):
            execute("BEGIN IMMEDIATE")
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(self._take_back)
                yield execute
                execute("COMMIT")
                on_failure.pop_all()

    def _take_back(self) -> None:
        self._scope_ids.clear()  # one that was made is gone
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")  # SQLite may have done it itself

    def _close(self) -> None:
        with errors_of(self.path):
            self._connection.close()


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _stored(contact_id: str) -> tuple[bytes, str | None]:
    """A contact's key, and its id where the key does not tell it."""
    key = contact_key(contact_id)
    return key, None if contact_id_of(key) == contact_id else contact_id


def _digest_bytes(digest: int) -> bytes:
    return digest.to_bytes(8, "big")


def _time_bytes(epoch_s: int) -> bytes:
    """Whole seconds since the epoch, up to the year 2106."""
    return epoch_s.to_bytes(4, "big")


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def _matches(scope: Scope, wanted: tuple[str | None, ...]) -> bool:
    return all(want in (None, has) for want, has in zip(wanted, astuple(scope), strict=True))


def _where(scope_id: int, contact_id: str | None) -> tuple[str, tuple[object, ...]]:
    if contact_id is None:
        return _OF_A_SCOPE, (scope_id,)
    return _OF_A_CONTACT, (scope_id, contact_key(contact_id))
