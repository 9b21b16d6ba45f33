"""Values of a Parquet column as text that keeps their meaning.

    string, JSON   as it stands
    null, NaN      empty; NaN is how many tools write "missing"
    integer        `42`
    decimal        with its scale, without an exponent: `1.50`
    float          the shortest that reads back exactly at its width, whole numbers
                   without `.0`: `0.1`, `3`; an exponent only below 1e-6 and from
                   1e21 on, as in JavaScript; `Infinity`, `-Infinity`
    boolean        `true`, `false`
    date           `2026-03-01`
    timestamp      `2026-03-01T09:30:00`; 3, 6 or 9 digits of a second where they
                   are not zero; the offset of its zone where it has one: `+01:00`,
                   UTC `+00:00`
    time of day    `09:30:00`, digits as above
    duration       ISO 8601 in seconds: `PT5400S`, `-PT0.25S`
    UUID           `12345678-90ab-cdef-1234-567890abcdef`
    list, struct,  compact JSON: numbers and booleans bare, null as `null`, all else
    map            as the text above in quotes; a float that is no number is `null`

Dictionary-encoded columns are as their values. Binary has no text, other than UUIDs.
"""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["find_obstacle", "is_binary", "to_text"]

_UNITS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# With a zone, Arrow counts years in 16 bits without looking. A day less, for the zone's offset.
_FIRST_S, _LAST_S = -1_096_193_692_800, 971_890_876_799
_EXPONENT_BELOW, _EXPONENT_FROM = 1e-6, 1e21
# Arrow writes all digits of a unit; zeros go three by three. What may follow is the zone.
_TRAILING_ZEROS = tuple(
    (rf"{kept}000(Z|[+-]\d{{4}}|)$", rf"{group}")
    for kept, group in ((r"(\.\d{6})", r"\1\2"), (r"(\.\d{3})", r"\1\2"), (r"\.", r"\1"))
)


def find_obstacle(kind: pa.DataType) -> str | None:
    """Why values of a type have no text on this machine, and what to do; None where they have."""
    for leaf in _leaves(kind):
        if not isinstance(leaf, pa.UuidType) and not any(is_kind(leaf) for is_kind, _ in _SCALARS):
            return f"{leaf} has no text; write it as a string or leave it out of the mapping"
        if pa.types.is_timestamp(leaf) and leaf.tz is not None:
            try:
                pa.array([0], leaf).cast(_STRING)
            except pa.ArrowInvalid:
                return f"the time zone {leaf.tz!r} is not known on this machine; install tzdata"
    return None


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The types without parts that a type is made of."""
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        yield from _leaves(kind.storage_type)
    elif pa.types.is_dictionary(kind) or _is_list(kind):
        yield from _leaves(kind.value_type)
    elif pa.types.is_map(kind):
        yield from _leaves(kind.key_type)
        yield from _leaves(kind.item_type)
    elif pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            yield from _leaves(kind.field(at).type)
    else:
        yield kind


def is_binary(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes that are not said to be text."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def to_text(values: pa.Array) -> pa.Array:
    """The text of each value, as binary without nulls.

    Strings are passed on as they are, and Parquet does not see to it that they are UTF-8. A time
    so far off that it has no text becomes a byte that is not UTF-8 either, so that its row is
    found in the same way.

    Args:
        values: Values of a type without an obstacle.
    """
    return _text(_plain(values)).cast(pa.binary()).fill_null(b"")


def _plain(values: pa.Array) -> pa.Array:
    while True:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        elif isinstance(values, pa.ExtensionArray) and not isinstance(values.type, pa.UuidType):
            values = values.storage
        else:
            return values


def _text(values: pa.Array) -> pa.Array:
    """The text of each value, as string or binary; null where there is none."""
    kind = values.type
    if isinstance(kind, pa.UuidType):
        ids = values.storage.to_pylist()
        return pa.array([None if uuid is None else str(UUID(bytes=uuid)) for uuid in ids], _STRING)
    if pa.types.is_nested(kind):
        valid = values.is_valid().to_pylist()
        return pa.array(
            [
                text.encode("utf-8", "surrogateescape") if is_value else None
                for text, is_value in zip(_json(values), valid, strict=True)
            ],
            pa.binary(),
        )
    convert = next(convert for is_kind, convert in _SCALARS if is_kind(kind))
    return convert(values)


def _json(values: pa.Array) -> list[str]:
    """Each value as JSON; bytes that are not UTF-8 as lone surrogates."""
    values = _plain(values)
    kind = values.type
    if pa.types.is_struct(kind):
        names = [_quote(kind.field(at).name) for at in range(kind.num_fields)]
        parts = list(zip(names, map(_json, values.flatten()), strict=True))
        texts = [
            "{" + ",".join(f"{name}:{part[at]}" for name, part in parts) + "}"
            for at in range(len(values))
        ]
    elif pa.types.is_map(kind):
        offsets = values.offsets.to_pylist()
        begin, n_items = offsets[0], offsets[-1] - offsets[0]
        keys = to_text(values.keys.slice(begin, n_items)).to_pylist()
        items = _json(values.items.slice(begin, n_items))
        members = [
            f"{_quote(key.decode('utf-8', 'surrogateescape'))}:{item}"
            for key, item in zip(keys, items, strict=True)
        ]
        texts = [
            "{" + ",".join(members[start - begin : end - begin]) + "}"
            for start, end in pairwise(offsets)
        ]
    elif _is_list(kind):
        elements = iter(_json(pc.list_flatten(values)))
        lengths = pc.list_value_length(values).fill_null(0).to_pylist()
        texts = ["[" + ",".join(islice(elements, length)) + "]" for length in lengths]
    else:
        raw = _is_bare(kind)
        texts = [
            cell.decode() if raw else _quote(cell.decode("utf-8", "surrogateescape"))
            for cell in to_text(values).to_pylist()
        ]
        texts = ["null" if text in _NO_JSON and raw else text for text in texts]
    valid = values.is_valid().to_pylist()
    return [text if is_value else "null" for text, is_value in zip(texts, valid, strict=True)]


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_string(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_bare(kind: pa.DataType) -> bool:
    """Whether values of a type stand in JSON without quotes."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _as_bytes(values: pa.Array) -> pa.Array:
    return values.cast(pa.binary())


def _as_arrow_writes(values: pa.Array) -> pa.Array:
    return _without_far_times(values.cast(_STRING))


def _float(values: pa.Array) -> pa.Array:
    if pa.types.is_float16(values.type):  # Arrow writes the digits of its double
        floats = values.to_pylist()
        texts = [None if x is None else _float_text(np.float16(x)) for x in floats]
        return pa.array(texts, _STRING)
    texts = values.cast(_STRING)
    # Arrow uses an exponent from 1e10 or 1e15 on, and has other names for what is no number.
    other = pc.match_substring_regex(texts, r"e\+|n|^-0$").fill_null(False)
    if not pc.any(other).as_py():
        return texts
    floats = values.filter(other).to_numpy(zero_copy_only=False)
    return pc.replace_with_mask(texts, other, pa.array(map(_float_text, floats), _STRING))


def _float_text(x: np.floating[Any]) -> str | None:
    if np.isnan(x):
        return None
    if np.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    if x == 0:
        return "0"
    if _EXPONENT_BELOW <= abs(float(x)) < _EXPONENT_FROM:
        return np.format_float_positional(x, trim="-")
    return np.format_float_scientific(x, trim="-", exp_digits=1)


def _decimal(values: pa.Array) -> pa.Array:
    texts = values.cast(_STRING)
    other = pc.match_substring(texts, "E").fill_null(False)
    if not pc.any(other).as_py():
        return texts
    plain = [f"{Decimal(text):f}" for text in texts.filter(other).to_pylist()]
    return pc.replace_with_mask(texts, other, pa.array(plain, _STRING))


def _time(values: pa.Array) -> pa.Array:
    texts = values.cast(_STRING)
    if values.type.unit != "s":
        for zeros, rest in _TRAILING_ZEROS:
            texts = pc.replace_substring_regex(texts, zeros, rest)
    return texts


def _time_of_day(values: pa.Array) -> pa.Array:
    return _without_far_times(_time(values))


def _timestamp(values: pa.Array) -> pa.Array:
    texts = pc.replace_substring(_time(values), " ", "T", max_replacements=1)
    if values.type.tz is not None:
        texts = pc.replace_substring_regex(texts, "Z$", "+00:00")
        texts = pc.replace_substring_regex(texts, r"([+-]\d\d)(\d\d)$", r"\1:\2")
        per_s = _UNITS_PER_S[values.type.unit]
        if values.type.unit != "ns":  # 64 bits of nanoseconds reach 292 years
            units = values.cast(pa.int64())
            far = pc.or_(pc.less(units, _FIRST_S * per_s), pc.greater(units, _LAST_S * per_s))
            texts = pc.if_else(far, "<far off>", texts)
    return _without_far_times(texts)


def _without_far_times(texts: pa.Array) -> pa.Array:
    """The same, with a byte that is no UTF-8 where Arrow wrote `<value out of range: …>`."""
    far = pc.starts_with(texts, "<").fill_null(False)
    if not pc.any(far).as_py():
        return texts
    return pc.if_else(far, pa.scalar(b"\xff"), texts.cast(pa.binary()))


def _duration(values: pa.Array) -> pa.Array:
    per_s = _UNITS_PER_S[values.type.unit]
    units = values.cast(pa.int64()).to_pylist()
    return pa.array([None if n is None else _duration_text(n, per_s) for n in units], _STRING)


def _duration_text(units: int, per_s: int) -> str:
    seconds, rest = divmod(abs(units), per_s)
    fraction = f".{rest:0{len(str(per_s)) - 1}}".rstrip("0") if rest else ""
    return f"{'-' if units < 0 else ''}PT{seconds}{fraction}S"


_STRING = pa.string()
_NO_JSON = ("", "Infinity", "-Infinity")
_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (_is_string, _as_bytes),
    (pa.types.is_null, _as_arrow_writes),
    (pa.types.is_integer, _as_arrow_writes),
    (pa.types.is_boolean, _as_arrow_writes),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_date, _as_arrow_writes),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_time, _time_of_day),
    (pa.types.is_duration, _duration),
)
