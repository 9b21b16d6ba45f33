"""A digest of what each row of a frame writes, a column at a time.

The digest is kept for years, beside the contacts that it was written to, so what it is made of is
fixed here, on every platform and whatever the versions of numpy and Arrow. A request without its
ids becomes a sequence of 64-bit words:

    text         the name of its path as text, then the word of the text
    number       the name of its path as a number, then the word of its decimal digits
    map or
    structure    its members in the order of their keys, as UTF-8
    list         the name of its path as a list, each item behind the name of its path as an item,
                 and the name of its path as an end

The name of a path is the BLAKE2b digest of 8 bytes, read as a little-endian number, of its kind
(one letter) and its parts, each behind its length. The word of a text is its MurmurHash64A with
seed 0, or for more than 256 bytes its BLAKE2b digest of 8 bytes. The words are mixed as
MurmurHash64A mixes its blocks, from 0, and finished as it finishes.

Before anything is hashed the sequence tells every request from every other: names of paths say
where each value stands, and each value is one word. So separators in a cell mean nothing, and a
member that is left out is not an empty one. 64 bits make two different requests of one contact
equal by chance once in 2 * 10^19 times. The digest is not made to withstand somebody who looks
for such a pair; what he gains is that his own row is not sent.

Measured on 10 attributes of 20 bytes, in frames of 16,384 rows: 0.5 us a row; BLAKE2b of each row's
joined text takes 1.9 us, and XXH64 of it, in numpy, 1.2 us.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

__all__ = ["Content", "Items", "Members", "Text", "Written", "row_digests"]

_MULTIPLIER: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)

_TAILS: Final = np.array([(1 << 8 * n_bytes) - 1 for n_bytes in range(8)], dtype=np.uint64)
"""For a number of bytes: which bits of a little-endian word they are."""

_WORD_BYTES = 8
_LONG_BYTES = 256
"""More than this is hashed text by text: a column is as slow as its longest text."""


@dataclass(frozen=True, slots=True)
class Text:
    """A value's texts.

    Attributes:
        texts: An Arrow array with each row's, or with the one that all rows have.
        is_number: Whether they stand for whole numbers, in the one form that each has.
    """

    texts: Any
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a structure or map, by key."""

    values: Mapping[str, Written]


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a list, in order."""

    values: Iterable[Written]


Content = Text | Members | Items


@dataclass(frozen=True, slots=True)
class Written:
    """What a request writes in one place.

    Attributes:
        present: Rows in which it is there, where what it stands in is there.
        content: What it is in those rows.
    """

    present: npt.NDArray[np.bool_]
    content: Content


def row_digests(members: Mapping[str, Written], n_rows: int) -> npt.NDArray[np.uint64]:
    """The digest of each row's request, never 0.

    Args:
        members: The request's members, ids left out.
        n_rows: Rows of the frame that the members hold.
    """
    digests = _Digests(n_rows)
    digests.add_members(members, (), None)
    return digests.finish()


class _Digests:
    """The words of each row, mixed as they come."""

    def __init__(self, n_rows: int) -> None:
        self._mixed = np.zeros(n_rows, dtype=np.uint64)

    def add_members(
        self,
        values: Mapping[str, Written],
        path: tuple[str, ...],
        where: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Add the members of a structure or map, for the rows in a mask, or all (None)."""
        for key in sorted(values, key=str.encode):
            self._add_value(values[key], (*path, key), where)

    def _add_value(
        self, value: Written, path: tuple[str, ...], where: npt.NDArray[np.bool_] | None
    ) -> None:
        there = value.present if where is None else value.present & where
        if not there.any():
            return
        where = None if there.all() else there
        content = value.content
        if isinstance(content, Members):
            self.add_members(content.values, path, where)
        elif isinstance(content, Items):
            self._add_items(content.values, path, where)
        else:
            self._add(_name_of(path, "n" if content.is_number else "t"), where)
            self._add(_mix_word(_words_of(content.texts)), where)

    def _add_items(
        self,
        values: Iterable[Written],
        path: tuple[str, ...],
        where: npt.NDArray[np.bool_] | None,
    ) -> None:
        self._add(_name_of(path, "l"), where)
        for value in values:
            # Items are told by their order, not their place in the mapping: one may be left out.
            there = value.present if where is None else value.present & where
            self._add(_name_of(path, "i"), there)
            self._add_value(value, (*path, ""), where)
        self._add(_name_of(path, "e"), where)

    def _add(
        self, word: npt.NDArray[np.uint64] | np.uint64, where: npt.NDArray[np.bool_] | None
    ) -> None:
        """Add a word that was mixed by itself, to the rows in a mask."""
        if where is None:
            self._mixed ^= word
            self._mixed *= _MULTIPLIER
        else:
            np.bitwise_xor(self._mixed, word, out=self._mixed, where=where)
            np.multiply(self._mixed, _MULTIPLIER, out=self._mixed, where=where)

    def finish(self) -> npt.NDArray[np.uint64]:
        mixed = _finish(self._mixed)
        mixed[mixed == 0] = 1
        return mixed


@lru_cache(maxsize=16_384)
def _name_of(path: tuple[str, ...], kind: str) -> np.uint64:
    """The name of a path, mixed by itself."""
    parts = (kind, *path)
    named = b"".join(b"%d:%b" % (len(part.encode()), part.encode()) for part in parts)
    return np.uint64(_mix_word(np.array([_digest(named)], dtype=np.uint64))[0])


def _digest(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=_WORD_BYTES).digest(), "little")


def _mix_word(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """What MurmurHash64A does to a block before it is added; changes the words."""
    words *= _MULTIPLIER
    words ^= words >> _SHIFT
    words *= _MULTIPLIER
    return words


def _finish(mixed: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """What MurmurHash64A does last; changes the words."""
    mixed ^= mixed >> _SHIFT
    mixed *= _MULTIPLIER
    mixed ^= mixed >> _SHIFT
    return mixed


def _words_of(texts: Any) -> npt.NDArray[np.uint64]:
    """The word of each text."""
    _, buffer, content = texts.buffers()
    offsets = np.frombuffer(buffer, np.int32, len(texts) + 1, offset=4 * texts.offset)
    start, end = int(offsets[0]), int(offsets[-1])
    # With a word of zeros behind it, so that a whole word can be read wherever a text ends.
    raw = np.zeros(end - start + _WORD_BYTES, dtype=np.uint8)
    if end > start:
        raw[:-_WORD_BYTES] = np.frombuffer(content, np.uint8, end - start, offset=start)
    begins = offsets[:-1].astype(np.int64) - start
    lengths = np.diff(offsets).astype(np.int64)
    long = np.flatnonzero(lengths > _LONG_BYTES)
    hashed = [_digest(raw[begins[at] : begins[at] + lengths[at]].tobytes()) for at in long]
    lengths[long] = 0
    words = _murmur(raw, begins, lengths)
    words[long] = hashed
    return words


def _murmur(
    raw: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """MurmurHash64A, seed 0, of each text; `raw` goes on for a word behind the last."""
    blocks = np.ndarray((len(raw) - _WORD_BYTES + 1,), "<u8", raw, strides=(1,))  # at every byte
    n_blocks, n_left = lengths >> 3, lengths & 7
    mixed = lengths.astype(np.uint64) * _MULTIPLIER
    in_all = int(n_blocks.min(initial=_LONG_BYTES))
    for index in range(int(n_blocks.max(initial=0))):
        if index < in_all:
            mixed ^= _mix_word(blocks[begins + _WORD_BYTES * index])
            mixed *= _MULTIPLIER
        else:
            longer = np.flatnonzero(n_blocks > index)
            words = _mix_word(blocks[begins[longer] + _WORD_BYTES * index])
            mixed[longer] = (mixed[longer] ^ words) * _MULTIPLIER
    tails = blocks[begins + _WORD_BYTES * n_blocks] & _TAILS[n_left]
    np.copyto(mixed, (mixed ^ tails) * _MULTIPLIER, where=n_left > 0)
    return _finish(mixed)
