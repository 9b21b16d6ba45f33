"""What is done to a value between a cell and a request, a whole column at a time.

Every function takes and returns an Arrow array of text without nulls, of one length. What it
cannot do for a row it says in a mask; the row is then INVALID and its text does not matter.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from bulk_updater.mapping.templates import Template

__all__ = [
    "fill_template",
    "is_empty",
    "is_one_of",
    "make_date_reader",
    "map_each",
    "matches",
    "n_bytes",
    "n_characters",
    "replace_known",
    "truncate",
    "truncate_bytes",
]

Mask = "npt.NDArray[np.bool_]"

_EPOCH = "%s"
_ZERO_WIDTH_JOINER = "\u200d"


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """An Arrow array of numbers or booleans as numpy."""
    return np.asarray(array.to_numpy(zero_copy_only=False))


def fill_template(template: Template, columns: Mapping[str, Any], n_rows: int) -> Any:
    """The template's text for each row."""
    if len(template.parts) == 1 and template.parts[0][1]:
        return columns[template.parts[0][0]]
    constant = template.constant
    if constant is not None:
        return pa.repeat(pa.scalar(constant, pa.string()), n_rows)
    parts = [
        columns[text] if is_column else pa.scalar(text, pa.string())
        for text, is_column in template.parts
    ]
    return pc.binary_join_element_wise(*parts, pa.scalar("", pa.string()))


def is_empty(texts: Any) -> npt.NDArray[np.bool_]:
    """Which texts are empty."""
    return to_numpy(pc.equal(pc.binary_length(texts), 0))


def is_one_of(texts: Any, known: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which texts are among these."""
    return to_numpy(pc.is_in(texts, value_set=pa.array(known, pa.string())))


def n_bytes(texts: Any) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of each text; 0 for null."""
    return to_numpy(pc.fill_null(pc.binary_length(texts), 0)).astype(np.int64)


def n_characters(texts: Any) -> npt.NDArray[np.int64]:
    """Code points of each text; 0 for null."""
    return to_numpy(pc.fill_null(pc.utf8_length(texts), 0)).astype(np.int64)


def matches(texts: Any, found: Callable[[str], object]) -> npt.NDArray[np.bool_]:
    """Which texts a function says yes to; it is asked once for each distinct text."""
    encoded = texts.dictionary_encode()
    verdicts = pa.array([bool(found(text)) for text in encoded.dictionary.to_pylist()], pa.bool_())
    return to_numpy(verdicts.take(encoded.indices))


def replace_known(texts: Any, known: Mapping[str, str]) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Known texts replaced, and which were not known (those stay as they are)."""
    positions = pc.index_in(texts, value_set=pa.array(list(known), pa.string()))
    unknown = pc.is_null(positions)
    replaced = pa.array(list(known.values()), pa.string()).take(positions)
    return pc.coalesce(replaced, texts), to_numpy(unknown)


def map_each(texts: Any, convert: Callable[[str], str | None]) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Each text converted, and for which there was nothing (those become empty).

    The function is asked once for each distinct text.
    """
    encoded = texts.dictionary_encode()
    converted = pa.array([convert(text) for text in encoded.dictionary.to_pylist()], pa.string())
    taken = converted.take(encoded.indices)
    return pc.fill_null(taken, ""), to_numpy(pc.is_null(taken))


def make_date_reader(read_format: str, write_format: str) -> Callable[[str], str | None]:
    """A function that reads a date in one format and writes it in another; None if it cannot.

    Both formats are Python's. `%s`, which Python leaves to the platform, is seconds since the
    epoch: alone when reading, anywhere when writing; a time without a zone counts as UTC.
    Empty text stays empty.
    """

    # A column of dates has few distinct values over a whole file, so frames share them.
    @lru_cache(maxsize=65_536)
    def convert(text: str) -> str | None:
        if not text:
            return ""
        try:
            if read_format == _EPOCH:
                moment = datetime.fromtimestamp(int(text), UTC)
            else:
                moment = datetime.strptime(text, read_format)  # noqa: DTZ007 - a zone is the format's business
            return _write_date(moment, write_format)
        except (ValueError, OverflowError, OSError):
            return None

    return convert


def _write_date(moment: datetime, write_format: str) -> str:
    if _EPOCH in write_format:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        write_format = write_format.replace(_EPOCH, str(int(aware.timestamp())))
    return moment.strftime(write_format)


def truncate_bytes(texts: Any, max_bytes: int) -> Any:
    """Texts cut to at most `max_bytes` UTF-8 bytes, never in the middle of a character."""
    too_long = to_numpy(pc.greater(pc.binary_length(texts), max_bytes))
    if not too_long.any():
        return texts
    cut = [truncate(text, max_bytes) for text in texts.filter(pa.array(too_long)).to_pylist()]
    return pc.replace_with_mask(texts, pa.array(too_long), pa.array(cut, pa.string()))


def truncate(text: str, max_bytes: int) -> str:
    """Text cut to at most `max_bytes` UTF-8 bytes, between characters as people see them.

    A code point is never cut, and an accent, an emoji's skin tone or a joined emoji is not parted
    from what it belongs to; where that leaves nothing, code points are what is kept.
    """
    raw = text.encode("utf-8")
    if len(raw) <= max_bytes:
        return text
    kept = len(raw[:max_bytes].decode("utf-8", "ignore"))
    whole = kept
    while whole and (_extends(text[whole]) or text[whole - 1] == _ZERO_WIDTH_JOINER):
        whole -= 1
    return text[: whole or kept]


def _extends(character: str) -> bool:
    """Whether a code point belongs to the one before it."""
    return (
        unicodedata.combining(character) != 0
        or unicodedata.category(character) in ("Mn", "Me")
        or character == _ZERO_WIDTH_JOINER
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )
