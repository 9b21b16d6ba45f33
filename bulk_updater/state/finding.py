"""Many contacts looked up at once, as numpy arrays.

There are two ways, with the same result. Few contacts are looked up one by one in the tree. For
many, all that is stored is read once, in order, a chunk at a time, and merged: the memory is that
of a chunk, however large the file.

Either way SQLite puts the cells of a whole chunk together, and numpy takes them for the array that
they are. A Python object for each cell would take three times as long.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bulk_updater.keys import KEY_BYTES, KEY_DTYPE, find_places

if TYPE_CHECKING:
    import sqlite3

    import numpy.typing as npt

__all__ = ["Found", "find"]

_STORED_AT_ONCE: Final = 65_536
"""Stored contacts in one chunk, about, where keys are spread evenly: two megabytes."""

_KEYS_AT_ONCE: Final = 500
"""Contacts in one look-up. More were no faster, and older SQLites take 999 parameters at most."""

_LOOKUP_COST: Final = 8
"""What looking one contact up costs, in stored contacts read in order. Measured: 2.7 to 3.4 us of
CPU against 0.4 us with a million stored."""

_STORED: Final = """
SELECT cast(group_concat(
    key || ifnull(digest, x'0000000000000000') || ifnull(applied_at, x'00000000'), ''
) AS BLOB)
FROM applied {} WHERE scope = ? AND """

_RECORD: Final = np.dtype([("key", KEY_DTYPE), ("digest", ">u8"), ("applied_at", ">u4")])
"""What stands there of each contact."""

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


class _Read(NamedTuple):
    """Stored contacts, as SQLite put them together: `_RECORD` by `_RECORD`; None: there is none."""

    certain: bytes | None
    in_doubt: bytes | None


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
        self._found = found

    def look_up(self) -> None:
        """One by one."""
        for at in range(0, len(self._keys), _KEYS_AT_ONCE):
            # Bytes and not elements, which would lack the NULs at their end.
            raw = self._keys[at : at + _KEYS_AT_ONCE].tobytes()
            some = [raw[start : start + KEY_BYTES] for start in range(0, len(raw), KEY_BYTES)]
            read = self._read(f"key IN ({', '.join('?' * len(some))})", some)
            self._put(read, at, at + len(some))

    def read_in_order(self, n_stored: int) -> None:
        """All that is stored from the first key to the last."""
        n_keys = len(self._keys)
        step = max(1, _STORED_AT_ONCE * n_keys // max(1, n_stored))
        spans = [(begin, min(begin + step, n_keys)) for begin in range(0, n_keys, step)]
        with ThreadPoolExecutor(max_workers=1) as executor:
            # SQLite reads a chunk while numpy puts the one before it where it belongs.
            coming = executor.submit(self._read_between, *spans[0])
            for span, following in zip_longest(spans, spans[1:]):
                read = coming.result()
                if following is not None:
                    coming = executor.submit(self._read_between, *following)
                self._put(read, *span)

    def _read_between(self, begin: int, end: int) -> _Read:
        first, last = (self._keys[at : at + 1].tobytes() for at in (begin, end - 1))
        return self._read("key BETWEEN ? AND ?", [first, last])

    def _read(self, which: str, values: list[bytes]) -> _Read:
        """What is stored of some keys."""
        given = (self._scope_id, *values)
        execute = self._connection.execute
        execute("BEGIN")  # both questions are about one moment
        try:
            (certain,) = execute(f"{_CERTAIN}{which} AND sent IS NULL", given).fetchone()
            (in_doubt,) = execute(f"{_IN_DOUBT}{which} AND sent IS NOT NULL", given).fetchone()
        finally:
            execute("COMMIT")
        return _Read(certain, in_doubt)

    def _put(self, read: _Read, begin: int, end: int) -> None:
        """Put what was read of keys among those asked for, from begin to end, where it belongs."""
        for records, is_certain in ((read.certain, True), (read.in_doubt, False)):
            if records is None:
                continue
            stored = np.frombuffer(records, _RECORD)
            at, asked = find_places(self._keys[begin:end], stored["key"])
            at += begin
            self._found.is_known[at] = True
            self._found.is_certain[at] = is_certain
            self._found.digests[at] = stored["digest"][asked]
            self._found.applied_at[at] = stored["applied_at"][asked]
