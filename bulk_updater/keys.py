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

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["KEY_BYTES", "KEY_DTYPE", "contact_id_of", "contact_key", "contact_keys"]

KEY_BYTES: Final = 16

KEY_DTYPE: Final = np.dtype(f"S{KEY_BYTES}")
"""How numpy holds keys: compared and sorted as bytes, as SQLite sorts its blobs. An element that is
taken out lacks the NULs at its end; `tobytes` of an array does not."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


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


def contact_keys(contact_ids: Iterable[str]) -> npt.NDArray[np.bytes_]:
    """The keys of many contacts, in their order; the dtype is `KEY_DTYPE`."""
    return np.frombuffer(b"".join(map(contact_key, contact_ids)), dtype=KEY_DTYPE)


def contact_id_of(key: bytes) -> str:
    """The UUID that a key is made of, in its usual form; any 16 bytes make one."""
    digits = key.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
