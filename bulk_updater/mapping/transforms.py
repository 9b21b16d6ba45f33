"""What is done to a value between a cell and a request, a whole column at a time.

Every function takes and returns an Arrow array of text without nulls, of one length. What it
cannot do for a row it says in a mask; the row is then INVALID and its text does not matter.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
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
    "EPOCH",
    "fill_template",
    "is_empty",
    "is_one_of",
    "is_readable",
    "is_writable",
    "lower",
    "make_date_reader",
    "map_each",
    "matches",
    "n_bytes",
    "n_characters",
    "read_moment",
    "replace_known",
    "stand_in",
    "truncate",
    "truncate_bytes",
    "upper",
    "write_date",
]

EPOCH = "%s"
"""Seconds since the epoch, in a date's format."""

_MAX_FILLED_BYTES = 1 << 30  # Arrow holds 2 GiB of text in an array, and fails beyond

_SECONDS = re.compile(r"[+-]?[0-9]{1,12}")
_DIRECTIVE = re.compile(r"%.", re.DOTALL)
_DAY = re.compile(r"%[de]")
_YEAR = re.compile(r"%[YyGcxs]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLE = datetime(2024, 2, 29, 13, 5, 7, tzinfo=UTC)
_ZERO_WIDTH_JOINER = "\u200d"


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """An Arrow array of numbers or booleans as numpy."""
    return np.asarray(array.to_numpy(zero_copy_only=False))


def fill_template(
    template: Template, columns: Mapping[str, Any], n_rows: int
) -> tuple[Any, npt.NDArray[np.bool_]]:
    """The template's text for each row, and which are too large (those become empty).

    A text is empty where all of its columns are. None is too large unless all of them together
    are more than 1 GiB, and then only those of more than an equal share, which is 64 KiB or more
    for frames of at most 16,384 rows.
    """
    none_too_large = np.zeros(n_rows, dtype=np.bool_)
    if len(template.parts) == 1 and template.parts[0][1]:
        return columns[template.parts[0][0]], none_too_large
    constant = template.constant
    if constant is not None:
        return pa.repeat(pa.scalar(constant, pa.string()), n_rows), none_too_large
    lengths = sum(
        n_bytes(columns[text]).astype(np.int64) if is_column else len(text.encode())
        for text, is_column in template.parts
    )
    if np.sum(lengths) > _MAX_FILLED_BYTES:
        too_large = np.asarray(lengths > _MAX_FILLED_BYTES // n_rows)
        columns = {name: stand_in("", too_large, columns[name]) for name in template.columns}
        return _fill(template, columns), too_large
    return _fill(template, columns), none_too_large


def _fill(template: Template, columns: Mapping[str, Any]) -> Any:
    parts = [
        columns[text] if is_column else pa.scalar(text, pa.string())
        for text, is_column in template.parts
    ]
    texts = pc.binary_join_element_wise(*parts, pa.scalar("", pa.string()))
    none = np.logical_and.reduce([is_empty(columns[name]) for name in template.columns])
    return stand_in("", none, texts)


def n_bytes(texts: Any) -> npt.NDArray[np.int32]:
    """UTF-8 bytes of each text."""
    return to_numpy(pc.binary_length(texts))


def n_characters(texts: Any) -> npt.NDArray[np.int32]:
    """Code points of each text."""
    return to_numpy(pc.utf8_length(texts))


def is_empty(texts: Any) -> npt.NDArray[np.bool_]:
    """Which texts are empty."""
    return np.asarray(n_bytes(texts) == 0)


def is_one_of(texts: Any, known: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which texts are among these."""
    return to_numpy(pc.is_in(texts, value_set=pa.array(known, pa.string())))


def stand_in(text: str, mask: npt.NDArray[np.bool_], texts: Any) -> Any:
    """The texts, with one text in place of those in a mask."""
    return pc.if_else(pa.array(mask), text, texts) if mask.any() else texts


def matches(texts: Any, found: Callable[[str], object]) -> npt.NDArray[np.bool_]:
    """Which texts a function says yes to; it is asked once for each distinct text."""
    encoded = texts.dictionary_encode()
    verdicts = pa.array([bool(found(text)) for text in encoded.dictionary.to_pylist()], pa.bool_())
    return to_numpy(verdicts.take(encoded.indices))


def replace_known(texts: Any, known: Mapping[str, str]) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Known texts replaced, and which were not known (those become empty)."""
    positions = pc.index_in(texts, value_set=pa.array(list(known), pa.string()))
    replaced = pa.array(list(known.values()), pa.string()).take(positions)
    return pc.fill_null(replaced, ""), to_numpy(pc.is_null(positions))


def map_each(texts: Any, convert: Callable[[str], str | None]) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Each text converted, and for which there was nothing (those become empty).

    The function is asked once for each distinct text.
    """
    encoded = texts.dictionary_encode()
    converted = pa.array([convert(text) for text in encoded.dictionary.to_pylist()], pa.string())
    taken = converted.take(encoded.indices)
    return pc.fill_null(taken, ""), to_numpy(pc.is_null(taken))


def lower(texts: Any) -> Any:
    """Texts in lower case, as Python's `str.lower` makes it."""
    return pc.ascii_lower(texts) if _are_ascii(texts) else map_each(texts, str.lower)[0]


def upper(texts: Any) -> Any:
    """Texts in upper case, as Python's `str.upper` makes it: `Straße` as `STRASSE`."""
    return pc.ascii_upper(texts) if _are_ascii(texts) else map_each(texts, str.upper)[0]


def _are_ascii(texts: Any) -> bool:
    # Arrow's own Unicode tables differ from Python's: there, `ß` stays one letter.
    return pc.all(pc.string_is_ascii(texts)).as_py() is not False


def make_date_reader(read_format: str, write_format: str) -> Callable[[str], str | None]:
    """A function that reads a date in one format and writes it in another; None if it cannot.

    Both formats are Python's, and reading is as lenient as Python's `strptime`: `1/2/2024` is a
    date of the form `%d/%m/%Y`. `%s`, which Python leaves to the platform, is seconds since the
    epoch: alone when reading, anywhere when writing; a time without a zone counts as UTC. Empty
    text stays empty.
    """

    # A column of dates has few distinct values over a whole file, so frames share them.
    @lru_cache(maxsize=65_536)
    def convert(text: str) -> str | None:
        if not text:
            return ""
        try:
            moment = _read_moment(text, read_format)
            return None if moment is None else write_date(moment, write_format)
        except (ValueError, OverflowError, OSError):
            return None

    return convert


def read_moment(text: str, read_format: str | None) -> int | None:
    """A text as seconds since the epoch, whole ones; None if it is no date.

    Args:
        text: The text. One without a zone is UTC, one without a time the beginning of the day.
        read_format: As for `make_date_reader`; None for ISO 8601.
    """
    try:
        moment = (
            datetime.fromisoformat(text) if read_format is None else _read_moment(text, read_format)
        )
    except (ValueError, OverflowError, OSError):
        return None
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(seconds=1)


def _read_moment(text: str, read_format: str) -> datetime | None:
    if read_format != EPOCH:
        return _read_date(text, read_format)
    return datetime.fromtimestamp(int(text), UTC) if _SECONDS.fullmatch(text) else None


def _read_date(text: str, read_format: str) -> datetime:
    # Python warns of a day without a year, and without one knows no 29 February.
    if _DAY.search(read_format) and not _YEAR.search(read_format):
        text, read_format = f"2000 {text}", f"%Y {read_format}"
    return datetime.strptime(text, read_format)  # noqa: DTZ007 - a zone is the format's business


def is_readable(read_format: str) -> bool:
    """Whether Python can read dates of a form: every directive known, and none twice."""
    try:
        return read_format == EPOCH or bool(_read_date(_SAMPLE.strftime(read_format), read_format))
    except (ValueError, re.error):
        return False


def is_writable(write_format: str) -> bool:
    """Whether Python can write dates in a form, and something comes of it."""
    try:
        return bool(write_date(_SAMPLE, write_format))
    except ValueError:
        return False


def write_date(moment: datetime, write_format: str) -> str:
    """A moment as text; `%s` is seconds since the epoch, and `%Y` always has four digits.

    Raises:
        ValueError: If Python cannot write it so.
    """

    def directive(found: re.Match[str]) -> str:
        if found.group() == EPOCH:
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return str(int(aware.timestamp()))
        # glibc writes the year 999 as three digits, other systems as four.
        return f"{moment.year:04d}" if found.group() == "%Y" else found.group()

    return moment.strftime(_DIRECTIVE.sub(directive, write_format))


def truncate_bytes(texts: Any, max_bytes: int) -> Any:
    """Texts cut to at most `max_bytes` UTF-8 bytes, never in the middle of a character."""
    too_long = n_bytes(texts) > max_bytes
    if not too_long.any():
        return texts
    mask = pa.array(too_long)
    cut = [truncate(text, max_bytes) for text in texts.filter(mask).to_pylist()]
    return pc.replace_with_mask(texts, mask, pa.array(cut, pa.string()))


def truncate(text: str, max_bytes: int) -> str:
    """Text cut to at most `max_bytes` UTF-8 bytes, between characters as people see them.

    A code point is never cut, and an accent, a vowel sign, an emoji's skin tone, a joined emoji
    or half a flag is not parted from what it belongs to; where that leaves nothing, as many code
    points as fit are kept, which may be none.
    """
    raw = text.encode("utf-8")
    if len(raw) <= max_bytes:
        return text
    kept = len(raw[:max_bytes].decode("utf-8", "ignore"))
    whole = kept
    while whole and _belongs_to_what_precedes(text, whole):
        whole -= 1
    return text[: whole or kept]


def _belongs_to_what_precedes(text: str, at: int) -> bool:
    """Whether a code point and the one before it are one character, as people see them."""
    character = text[at]
    if _is_regional(character):
        start = at
        while start and _is_regional(text[start - 1]):
            start -= 1
        return (at - start) % 2 == 1  # a flag is two of them
    return (
        unicodedata.category(character).startswith("M")
        or _ZERO_WIDTH_JOINER in (character, text[at - 1])
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
