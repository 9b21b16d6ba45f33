"""When a contact was initiated, and with that when Connect forgets it.

Connect keeps a contact's record and attributes for 24 months from its initiation (Amazon Connect
administrator guide, "Contact record data model"; `DescribeContact` in the API reference).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulk_updater.mapping import transforms
from bulk_updater.mapping.mapped import NEVER, Breach

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from bulk_updater.mapping.mapped import Breaches
    from bulk_updater.mapping.values import StartedSpec

    _Read = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]

__all__ = ["FixedForm", "Started", "expiry_of"]

_KEPT_MONTHS = 24
_DAY_S = 86_400
_FIRST_S = -62_135_596_800  # 0001-01-01, the first day that Python knows

_ZONE = re.compile("[Zz+-]")
_DATE_CHARACTERS = len("2026-03-01")

_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_PARTS = re.compile(r"%[YmdHMS]|[^%]")
_HIGHEST_DIGIT = 9
_MONTHS = 12
_EPOCH_MONTH = 1970 * _MONTHS


class Started:
    """`contact_started`, compiled."""

    def __init__(self, spec: StartedSpec) -> None:
        self.column = spec.column
        self._format = spec.date
        self._fixed = None if spec.date is None else FixedForm.of(spec.date)
        # Dates repeat over a whole file, so frames share them.
        self._read = lru_cache(maxsize=65_536)(self._read_one)

    def _read_one(self, text: str) -> int | None:
        return transforms.read_moment(text, self._format)

    def expiries(
        self, cells: Mapping[str, Any]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """When each row's contact is forgotten, and in which rows the cell is no date.

        Returns:
            Seconds since the epoch, `NEVER` where the cell is empty or no date; and a mask.
        """
        texts = cells[self.column]
        empty = transforms.is_empty(texts)
        moments, read = self._read_together(texts, empty)
        left = ~(read | empty)
        if left.any():
            moments[left], read[left] = self._read_each(texts.filter(pa.array(left)))
        expiries = expiry_of(moments)
        expiries[~read] = NEVER
        return expiries, ~(read | empty)

    def _read_together(self, texts: Any, empty: npt.NDArray[np.bool_]) -> _Read:
        """The moments of the usual forms, a column at a time, and which rows have one."""
        if self._fixed is not None:
            return self._fixed.read(texts)
        moments = None if self._format is not None else _read_iso(texts, empty)
        if moments is None:
            return np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts), dtype=np.bool_)
        return moments, ~empty

    def _read_each(self, texts: Any) -> _Read:
        """The moments of any form, one distinct text at a time: 2 us, and 20 for `strptime`."""
        encoded = texts.dictionary_encode()
        found = [self._read(text) for text in encoded.dictionary.to_pylist()]
        moments = pa.array(found, pa.int64()).take(encoded.indices)
        read = ~transforms.to_numpy(pc.is_null(moments))
        return transforms.to_numpy(pc.fill_null(moments, 0)), read

    def note_unread(self, unread: npt.NDArray[np.bool_], breaches: Breaches) -> None:
        """Note the rows in which the cell is no date."""
        form = (
            "ISO 8601 date, such as 2026-03-01 or 2026-03-01T08:00:00Z"
            if self._format is None
            else f"date of the form {self._format}"
        )
        breaches.add(
            unread,
            lambda: Breach(
                "unreadable_date", "contact_started", (self.column,), lambda _: f"is no {form}."
            ),
        )


def _read_iso(texts: Any, empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64] | None:
    """ISO 8601 moments as seconds since the epoch; None unless all are written in Arrow's ways.

    Arrow reads a column at a time, but less than Python does, and all with a zone or none; the
    first text says which. It takes long to find out that it cannot, so it is asked once.
    """
    if empty.all():
        return None
    first = texts[int(np.argmin(empty))].as_py()
    zone = "UTC" if _ZONE.search(first, _DATE_CHARACTERS) else None
    stand_in = "1970-01-01T00:00:00" + ("Z" if zone else "")
    try:
        moments = transforms.stand_in(stand_in, empty, texts).cast(pa.timestamp("us", zone))
    except pa.ArrowInvalid:
        return None
    seconds: npt.NDArray[np.int64] = transforms.to_numpy(moments.cast(pa.int64())) // 1_000_000
    return seconds if seconds.min() >= _FIRST_S else None


class FixedForm:
    """A date's format that is only digits in fixed places, such as `%d/%m/%Y %H:%M`.

    Attributes:
        length: Characters of a date.
        numbers: For each directive: where its digits begin and end.
        literals: What else stands where, as bytes.
    """

    def __init__(self, parts: list[str]) -> None:
        self.length = 0
        self.numbers: dict[str, tuple[int, int]] = {}
        self.literals: list[tuple[int, int]] = []
        for part in parts:
            if len(part) == 1:
                self.literals.append((self.length, ord(part)))
            else:
                self.numbers[part[1]] = self.length, self.length + _WIDTHS[part[1]]
            self.length += _WIDTHS.get(part[1:], 1)

    @classmethod
    def of(cls, date: str) -> FixedForm | None:
        """The form that a date's format asks for; None where it is not of this kind."""
        parts = _PARTS.findall(date)
        directives = [part[1] for part in parts if len(part) > 1]
        if not date.isascii() or "".join(parts) != date or not {*"Ymd"} <= {*directives}:
            return None
        return cls(parts)

    def read(self, texts: Any) -> _Read:
        """Moments as seconds since the epoch, and which texts are of the form to the letter.

        The others may be dates all the same: Python's `strptime` takes `1/2/2024`, too.
        """
        moments = np.zeros(len(texts), dtype=np.int64)
        fits = transforms.n_bytes(texts) == self.length
        if not fits.any():
            return moments, fits
        shaped = texts if fits.all() else texts.filter(pa.array(fits))
        _, offsets, content = shaped.buffers()
        (start,) = np.frombuffer(offsets, np.int32, 1, offset=4 * shaped.offset)
        size = len(shaped) * self.length
        characters = np.frombuffer(content, np.uint8, size, offset=int(start))
        moments[fits], fits[fits] = self._read(characters.reshape(-1, self.length))
        return moments, fits

    def _read(self, characters: npt.NDArray[np.uint8]) -> _Read:
        fits = np.ones(len(characters), dtype=np.bool_)
        for at, literal in self.literals:
            fits &= characters[:, at] == literal
        values = {name: np.zeros(len(characters), dtype=np.int64) for name in _WIDTHS}
        for name, (start, end) in self.numbers.items():
            for at in range(start, end):
                digit = characters[:, at] - np.uint8(ord("0"))  # wraps below 0
                fits &= digit <= _HIGHEST_DIGIT
                values[name] = values[name] * 10 + digit
        fits &= (values["Y"] >= 1) & (values["m"] >= 1) & (values["m"] <= _MONTHS)
        since_epoch = values["Y"] * _MONTHS + values["m"] - 1 - _EPOCH_MONTH
        months = np.where(fits, since_epoch, 0).astype("M8[M]")
        first = months.astype("M8[D]").astype(np.int64)
        fits &= (values["d"] >= 1) & (values["d"] <= _lengths(months))
        for name, most in (("H", 23), ("M", 59), ("S", 59)):
            fits &= values[name] <= most
        time_s = (values["H"] * 60 + values["M"]) * 60 + values["S"]
        return np.where(fits, (first + values["d"] - 1) * _DAY_S + time_s, 0), fits


def _lengths(months: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    """How many days each month has."""
    days = (months + 1).astype("M8[D]") - months.astype("M8[D]")
    return np.asarray(days.astype(np.int64))


def expiry_of(started_s: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """24 calendar months after each moment, in seconds since the epoch.

    The day of the month and the time of the day stay, in UTC. 29 February becomes 28 February, the
    earlier of the two ways to read it.
    """
    days, time_s = np.divmod(started_s, _DAY_S)
    dates = days.astype("M8[D]")
    months = dates.astype("M8[M]")
    days_behind = (dates - months.astype("M8[D]")).astype(np.int64)
    ends = months + _KEPT_MONTHS
    kept = ends.astype("M8[D]").astype(np.int64) + np.minimum(days_behind, _lengths(ends) - 1)
    return np.asarray(kept * _DAY_S + time_s)
