"""The key of a contact: 16 bytes, whatever its id looks like.

Connect's ids are UUIDs, which are 16 bytes as they stand. Any other text goes by its BLAKE2b digest
of 16 bytes. So a key takes little room, millions of them are sorted and compared at once, and no
two contacts share one.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import numpy.typing as npt

__all__ = ["KEY_BYTES", "KEY_DTYPE", "contact_id_of", "contact_key", "contact_keys"]

KEY_BYTES: Final = 16

KEY_DTYPE: Final = np.dtype(f"S{KEY_BYTES}")
"""How numpy holds keys: compared and sorted as bytes, as SQLite sorts its blobs. An element that is
taken out lacks the NULs at its end; `tobytes` of an array does not."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_CHARACTERS = 36
_DASH_AT = (8, 13, 18, 23)
_GROUPS = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))
_NO_BYTE = 0x100


def _byte_of_each_pair() -> npt.NDArray[np.uint16]:
    """For two characters, as a little-endian number: the byte that they are in lower-case hex."""
    table = np.full(1 << 16, _NO_BYTE, dtype=np.uint16)
    pairs = b"".join(b"%02x" % byte for byte in range(256))
    table[np.frombuffer(pairs, dtype="<u2")] = np.arange(256)
    return table


_BYTES = _byte_of_each_pair()


def contact_key(contact_id: str) -> bytes:
    """The key of one contact.

    Args:
        contact_id: Its id, as the request has it.

    Returns:
        16 bytes: the UUID's own for one in its usual form (lower case), else a digest.
    """
    if _UUID.fullmatch(contact_id):
        return bytes.fromhex(contact_id.replace("-", ""))
    text = contact_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


def contact_keys(contact_ids: Iterable[str] | pa.Array) -> npt.NDArray[np.bytes_]:
    """The keys of many contacts, in their order; the dtype is `KEY_DTYPE`.

    Args:
        contact_ids: Their ids. An Arrow array of text without nulls takes some 0.15 s a million
            UUIDs; anything else goes one by one, at 1 s a million and more.
    """
    if not isinstance(contact_ids, pa.Array):
        return np.frombuffer(b"".join(map(contact_key, contact_ids)), dtype=KEY_DTYPE)
    keys = np.zeros((len(contact_ids), KEY_BYTES), dtype=np.uint8)
    are_others = pc.binary_length(contact_ids).to_numpy() != _UUID_CHARACTERS
    of_uuids = np.flatnonzero(~are_others)
    shaped = contact_ids.filter(pa.array(~are_others)) if are_others.any() else contact_ids
    if len(of_uuids):
        keys[of_uuids], are_uuids = _keys_of_uuids(shaped)
        are_others[of_uuids[~are_uuids]] = True
    if are_others.any():
        texts = contact_ids.filter(pa.array(are_others)).to_pylist()
        hashed = b"".join(map(contact_key, texts))
        keys[are_others] = np.frombuffer(hashed, dtype=np.uint8).reshape(-1, KEY_BYTES)
    return keys.view(KEY_DTYPE).reshape(-1)


def _keys_of_uuids(texts: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Texts of a UUID's length as bytes, and which of them are UUIDs in their usual form."""
    _, offsets, data = texts.buffers()
    (start,) = np.frombuffer(offsets, np.int32, 1, offset=4 * texts.offset)
    characters = np.frombuffer(data, np.uint8, len(texts) * _UUID_CHARACTERS, offset=int(start))
    characters = characters.reshape(-1, _UUID_CHARACTERS)
    digits = np.concatenate([characters[:, first:end] for first, end in _GROUPS], axis=1)
    numbers = _BYTES.take(digits.view("<u2"))
    # Four at a time, and not along the short axis, which numpy is slow at.
    marks = numbers.view(np.uint64) & np.uint64(_NO_BYTE * 0x0001_0001_0001_0001)
    are_uuids = (marks[:, 0] | marks[:, 1] | marks[:, 2] | marks[:, 3]) == 0
    for at in _DASH_AT:
        are_uuids &= characters[:, at] == ord("-")
    return numbers.astype(np.uint8), are_uuids


def contact_id_of(key: bytes) -> str:
    """The UUID that a key is made of, in its usual form; any 16 bytes make one."""
    digits = key.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
