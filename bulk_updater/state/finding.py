"""Many contacts looked up at once, as numpy arrays.

There are two ways, with the same result. Few contacts are looked up one by one in the tree. For
many, all that is stored is read once, in order, a chunk at a time, and merged: the memory is that
of a chunk, however large the file.

Either way SQLite puts the cells of a whole chunk together, column by column, and numpy takes them
for the arrays that they are. A Python object for each cell would take three times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bulk_updater.keys import KEY_BYTES, KEY_DTYPE

if TYPE_CHECKING:
    import sqlite3

    import numpy.typing as npt

__all__ = ["Found", "find"]

_STORED_AT_ONCE: Final = 65_536
"""Stored contacts in one chunk, about, where keys are spread evenly: two megabytes."""

_KEYS_AT_ONCE: Final = 500
"""Contacts in one look-up. More were no faster, and older SQLites take 999 parameters at most."""

_LOOKUP_COST: Final = 5
"""What looking one contact up costs, in stored contacts read in order. Measured: 3.7 to 4.9 us
against 0.9 us with a million stored, 5.3 us against 1.0 us with ten million."""

_STORED: Final = """
SELECT cast(group_concat(key, '') AS BLOB),
    cast(group_concat(ifnull(digest, zeroblob(8)), '') AS BLOB),
    cast(group_concat(ifnull(applied_at, zeroblob(4)), '') AS BLOB)
FROM applied {} WHERE scope = ? AND """

_CERTAIN: Final = _STORED.format("NOT INDEXED")
_IN_DOUBT: Final = _STORED.format("INDEXED BY in_doubt")


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of the contacts asked for: arrays in their order.

    Attributes:
        is_known: Whether anything is.
        digests: What was last applied for certain; 0 where nothing was. While a contact is in
            doubt, that is what it held before.
        applied_at: When, in seconds since the epoch; 0 where never.
        is_certain: Whether the contact holds it still, as far as is known: nothing was sent since
            that is not known to be applied.
    """

    is_known: npt.NDArray[np.bool_]
    digests: npt.NDArray[np.uint64]
    applied_at: npt.NDArray[np.int64]
    is_certain: npt.NDArray[np.bool_]

    @classmethod
    def nothing(cls, n_keys: int) -> Found:
        """Of none of so many contacts is anything known."""
        return cls(
            is_known=np.zeros(n_keys, np.bool_),
            digests=np.zeros(n_keys, np.uint64),
            applied_at=np.zeros(n_keys, np.int64),
            is_certain=np.zeros(n_keys, np.bool_),
        )


def find(
    connection: sqlite3.Connection,
    scope_id: int,
    n_stored: int,
    keys: npt.NDArray[np.bytes_],
) -> Found:
    """Look contacts up, the cheaper way.

    Args:
        connection: To the state file, in no transaction.
        scope_id: The scope's row.
        n_stored: How many contacts the scope has, more or less: it decides on the way only.
        keys: `KEY_DTYPE`, ascending, each once.
    """
    found = Found.nothing(len(keys))
    merge = _Merge(connection, scope_id, np.ascontiguousarray(keys, KEY_DTYPE), found)
    if len(keys) * _LOOKUP_COST < n_stored:
        merge.look_up()
    elif len(keys):
        merge.read_in_order(n_stored)
    return found


class _Merge:
    """Puts what is stored where it is asked for."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        scope_id: int,
        keys: npt.NDArray[np.bytes_],
        found: Found,
    ) -> None:
        self._connection = connection
        self._scope_id = scope_id
        self._keys = keys
        # Bytes and not elements, which would lack the NULs at their end.
        self._raw = keys.tobytes()
        self._found = found

    def look_up(self) -> None:
        """One by one."""
        raw = self._raw
        every = [raw[at : at + KEY_BYTES] for at in range(0, len(raw), KEY_BYTES)]
        for at in range(0, len(every), _KEYS_AT_ONCE):
            some = every[at : at + _KEYS_AT_ONCE]
            self._take(f"key IN ({', '.join('?' * len(some))})", some, at, at + len(some))

    def read_in_order(self, n_stored: int) -> None:
        """All that is stored from the first key to the last."""
        n_keys = len(self._keys)
        step = max(1, _STORED_AT_ONCE * n_keys // max(1, n_stored))
        for begin in range(0, n_keys, step):
            end = min(begin + step, n_keys)
            first, last = (
                self._raw[at * KEY_BYTES : (at + 1) * KEY_BYTES] for at in (begin, end - 1)
            )
            self._take("key BETWEEN ? AND ?", [first, last], begin, end)

    def _take(self, which: str, values: list[bytes], begin: int, end: int) -> None:
        """Put what is stored of some keys, which are among those asked for from begin to end."""
        given = (self._scope_id, *values)
        execute = self._connection.execute
        execute("BEGIN")  # both questions are about one moment
        try:
            certain = execute(f"{_CERTAIN}{which} AND sent IS NULL", given).fetchone()
            in_doubt = execute(f"{_IN_DOUBT}{which} AND sent IS NOT NULL", given).fetchone()
        finally:
            execute("COMMIT")
        self._put(certain, begin, end, is_certain=True)
        self._put(in_doubt, begin, end, is_certain=False)

    def _put(self, columns: tuple[Any, ...], begin: int, end: int, *, is_certain: bool) -> None:
        if columns[0] is None:
            return
        stored = np.frombuffer(columns[0], KEY_DTYPE)
        keys = self._keys[begin:end]
        at = np.searchsorted(keys, stored)
        asked = at < len(keys)
        asked[asked] = keys[at[asked]] == stored[asked]
        at = at[asked] + begin
        self._found.is_known[at] = True
        self._found.is_certain[at] = is_certain
        self._found.digests[at] = np.frombuffer(columns[1], ">u8")[asked]
        self._found.applied_at[at] = np.frombuffer(columns[2], ">u4")[asked]
