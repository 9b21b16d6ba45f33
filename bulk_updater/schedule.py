"""When a run may work: deadlines, windows, and the wall clock that they are told by.

    parse_until      `06:00`, `06:00 Europe/Berlin`, `2026-11-23T06:00+01:00`
    parse_duration   `8h`, `1h30m`, `45s`, `2d`
    parse_window     `22:00-06:00`, `22:00-06:00 Europe/Berlin`
    ScheduleConfig   what of these a run was given
    nights           how many nights of it a long run needs

All moments are seconds since the epoch, and everything here is a function of the moment that it is
given. A time of day without a zone is this machine's local time, by the variable TZ or the system's
setting.

Twice a year a clock is moved, mostly at night:

- a time that the clock jumps over (02:30 in Berlin on the last Sunday of March) is the moment of
  the jump: at that moment the clock first shows that much or more;
- a time that comes twice is meant the first time, as a begin and as an end. So a deadline is met
  whichever of the two was meant, and a window has one begin and one end each day.

A night of eight hours is thereby one of seven or of nine, and nothing else changes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bulk_updater.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Nights",
    "ScheduleConfig",
    "Span",
    "TimeOfDay",
    "Window",
    "describe_moment",
    "margin_s",
    "nights",
    "parse_duration",
    "parse_until",
    "parse_window",
]

_DAY_S: Final = 86_400
_LONGEST_S: Final = 3650.0 * _DAY_S
"""Ten years: no run lasts that long, and years beyond 9999 cannot be written."""

_TIME = r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?"
_ZONE = r"(?:\s*(Z|[+-][0-9]{2}:?[0-9]{2})|\s+(\S+))?"
_TIME_OF_DAY = re.compile(rf"{_TIME}{_ZONE}")
_DATE_AND_TIME = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt ]\s*{_TIME}{_ZONE}")
_WINDOW = re.compile(rf"{_TIME}\s*[-\u2013]\s*{_TIME}{_ZONE}")
_DURATION = re.compile(
    r"(?:([0-9]+(?:\.[0-9]+)?)d)?(?:([0-9]+(?:\.[0-9]+)?)h)?"
    r"(?:([0-9]+(?:\.[0-9]+)?)m(?:in)?)?(?:([0-9]+(?:\.[0-9]+)?)s)?"
)
_UNITS_S: Final = (_DAY_S, 3600, 60, 1)


class Span(NamedTuple):
    """Some time.

    Attributes:
        begins_at: When, in seconds since the epoch.
        ends_at: When; not before.
    """

    begins_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """What a clock shows once a day.

    Attributes:
        second: Seconds since midnight as the clock shows it, from 0 to 86,399.
        zone: `Z`, an offset as `+02:00`, or a name as `Europe/Berlin`; None is local time.

    Raises:
        ConfigError: If the zone is not known here.
    """

    second: int
    zone: str | None = None

    def __post_init__(self) -> None:
        _zone(self.zone)

    def next_after(self, moment: float) -> float:
        """The first moment after this one at which the clock shows that time."""
        for day in _days_from(moment, self.zone):
            if (at := _moment(day, self.second, self.zone)) > moment:
                return at
        raise AssertionError  # pragma: no cover - there is always another day


@dataclass(frozen=True, slots=True)
class Window:
    """A part of each day, also one that lasts past midnight.

    Attributes:
        begin: Seconds since midnight as the clock shows it.
        end: The same, and another time than `begin`; where it is the earlier one it is the next
            day's.
        zone: As for `TimeOfDay`.

    Raises:
        ConfigError: If begin and end are the same, or the zone is not known here.
    """

    begin: int
    end: int
    zone: str | None = None

    def __post_init__(self) -> None:
        _zone(self.zone)
        if self.begin == self.end:
            raise ConfigError(
                "--window begins and ends at the same time. Leave it out to send at any time, or "
                "name another end."
            )

    def span_at(self, moment: float) -> Span:
        """When the window is open: now, or the next time."""
        return next(self.spans(moment))

    def spans(self, moment: float) -> Iterator[Span]:
        """When the window is open, from this moment on, a span a day; the first may have begun."""
        for day in _days_from(moment, self.zone):
            last = day + timedelta(days=1) if self.end < self.begin else day
            span = Span(_moment(day, self.begin, self.zone), _moment(last, self.end, self.zone))
            # A clock may jump over all of a short window.
            if span.ends_at > max(moment, span.begins_at):
                yield span


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """When a run may work.

    Attributes:
        until: When it is to have ended: each day at that time, or at one moment, in seconds since
            the epoch. None: there is no such time.
        for_s: Seconds that it may take, above 0. With `until` too, whichever is first.
        window: When attempts may begin; None: at any time.
    """

    until: TimeOfDay | float | None = None
    for_s: float | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.for_s is not None and not 0 < self.for_s <= _LONGEST_S:
            raise ConfigError(
                f"--for is {self.for_s:g} seconds; it must be above 0, and at most ten years."
            )

    def deadline_at(self, began_at: float) -> float | None:
        """When a run that begins at a moment is to have ended; None: whenever it has.

        A time of day is the next one: a run that begins at 06:30 with `06:00` has until tomorrow.

        Raises:
            ConfigError: If that moment has passed.
        """
        ends = [] if self.for_s is None else [began_at + self.for_s]
        if isinstance(self.until, TimeOfDay):
            ends.append(self.until.next_after(began_at))
        elif self.until is not None:
            if self.until <= began_at:
                raise ConfigError(
                    f"--until is {describe_moment(self.until)}, which has passed; nothing was "
                    "sent. Name a later moment, or a time of day."
                )
            ends.append(self.until)
        return min(ends, default=None)

    def spans(self, moment: float) -> Iterator[Span]:
        """When a run may work that begins at a moment, and again each day until it is done.

        Each execution begins at the same time of day, or the next time after its deadline. With a
        deadline at one moment there is but one.
        """
        local = _wall(moment, None)
        again = TimeOfDay(local.hour * 3600 + local.minute * 60 + local.second)
        began_at = moment
        while began_at - moment < _LONGEST_S:
            deadline_at = self.deadline_at(began_at)
            yield from self._spans_of_one(
                began_at, math.inf if deadline_at is None else deadline_at
            )
            if deadline_at is None or isinstance(self.until, float | int):
                return
            began_at = max(deadline_at, again.next_after(deadline_at - 1))

    def _spans_of_one(self, began_at: float, deadline_at: float) -> Iterator[Span]:
        if self.window is None:
            yield Span(began_at, deadline_at)
            return
        for span in self.window.spans(began_at):
            if span.begins_at >= deadline_at:
                return
            yield Span(max(span.begins_at, began_at), min(span.ends_at, deadline_at))


class Nights(NamedTuple):
    """How long a run takes that may not always work.

    Attributes:
        n_nights: Spans of time in which it works, 0 where there is nothing to do.
        ends_at: When it is done, in seconds since the epoch; None where it never is.
    """

    n_nights: int
    ends_at: float | None


def nights(
    schedule: ScheduleConfig, takes_s: float, moment: float, *, attempt_s: float = math.inf
) -> Nights:
    """How many nights a run needs, and when it would be done.

    Args:
        schedule: When it may work.
        takes_s: Seconds of work.
        moment: When it begins.
        attempt_s: Seconds that an attempt may take: see `margin_s`.
    """
    n_nights, left_s = 0, takes_s
    if left_s <= 0:
        return Nights(0, moment)
    for span in schedule.spans(moment):
        if span.begins_at - moment > _LONGEST_S:
            break
        n_nights += 1
        lasts_s = span.ends_at - span.begins_at
        if math.isinf(lasts_s):
            return Nights(n_nights, span.begins_at + left_s)
        lasts_s -= margin_s(lasts_s, attempt_s)
        if left_s <= lasts_s:
            return Nights(n_nights, span.begins_at + left_s)
        left_s -= lasts_s
    return Nights(n_nights, None)


def margin_s(lasts_s: float, attempt_s: float) -> float:
    """How long before an end no attempt may begin any more, in seconds.

    As long as an attempt may take, so that the last of them is settled by then; but at most a
    tenth of the time that there is, or a short night would be all margin.

    Args:
        lasts_s: The time that there is, in seconds.
        attempt_s: Seconds that an attempt may take, from its start to its answer.
    """
    return min(attempt_s, lasts_s / 10)


def parse_until(text: str) -> TimeOfDay | float:
    """A time of day, or a moment in seconds since the epoch, perhaps with a zone behind it.

    Raises:
        ConfigError: If it is neither.
    """
    text = text.strip()
    match = _TIME_OF_DAY.fullmatch(text)
    if match:
        hour, minute, second, offset, name = match.groups()
        return TimeOfDay(_second(hour, minute, second, f'--until "{text}"'), offset or name)
    match = _DATE_AND_TIME.fullmatch(text)
    if not match:
        raise ConfigError(
            f'--until "{text}" is no time. Write 06:00, 06:00 Europe/Berlin, or '
            "2026-11-23T06:00+01:00."
        )
    on, hour, minute, second, offset, name = match.groups()
    try:
        day = date.fromisoformat(on)
    except ValueError:
        raise ConfigError(f'--until "{text}": there is no such day. Check the date.') from None
    return _moment(day, _second(hour, minute, second, f'--until "{text}"'), offset or name)


def parse_duration(text: str, *, flag: str = "--for") -> float:
    """Seconds: days, hours, minutes and seconds in this order, each with its letter.

    Args:
        text: As `8h`, `90m`, `1h30m`, `45s`, `2d`.
        flag: What the error names.

    Raises:
        ConfigError: If it is none, 0, or longer than ten years.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    parts = match.groups(default="0") if match else ()
    seconds = sum(float(n) * unit_s for n, unit_s in zip(parts, _UNITS_S, strict=False))
    if not 0 < seconds <= _LONGEST_S:
        raise ConfigError(
            f'{flag} "{text}" is no length of time. Write 8h, 90m, 1h30m, 45s or 2d; at most ten '
            "years."
        )
    return seconds


def parse_window(text: str) -> Window:
    """A window: two times of day with a dash between them, perhaps with a zone behind.

    Raises:
        ConfigError: If it is none, or begin and end are the same.
    """
    match = _WINDOW.fullmatch(text.strip())
    if not match:
        raise ConfigError(
            f'--window "{text}" is no window. Write 22:00-06:00, or 22:00-06:00 Europe/Berlin.'
        )
    hour, minute, second, end_hour, end_minute, end_second, offset, name = match.groups()
    where = f'--window "{text}"'
    end = _second(end_hour, end_minute, end_second, where, may_be_24=True)
    return Window(_second(hour, minute, second, where), end % _DAY_S, offset or name)


def describe_moment(moment: float, zone: str | None = None) -> str:
    """A moment for people: `2026-11-23 06:00 CET`.

    Args:
        moment: Seconds since the epoch.
        zone: As for `TimeOfDay`.
    """
    wall = datetime.fromtimestamp(moment, UTC).astimezone(_zone(zone))
    # Rounded to where there is something to read: deadlines are told by the minute.
    pattern = "%Y-%m-%d %H:%M:%S %Z" if wall.second else "%Y-%m-%d %H:%M %Z"
    return wall.strftime(pattern)


def _second(
    hour: str, minute: str, second: str | None, where: str, *, may_be_24: bool = False
) -> int:
    """Seconds since midnight."""
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    total = hours * 3600 + minutes * 60 + seconds
    is_midnight = may_be_24 and total == _DAY_S
    if (total >= _DAY_S and not is_midnight) or max(minutes, seconds) > 59:  # noqa: PLR2004
        raise ConfigError(f"{where}: there is no such time of day; times go from 00:00 to 23:59.")
    return total


@lru_cache(maxsize=64)
def _zone(name: str | None) -> tzinfo | None:
    """The zone of a name; None for local time."""
    if name is None:
        return None
    if name.upper() in {"Z", "UTC"}:
        return UTC
    if name[0] in "+-":
        hours, minutes = int(name[1:3]), int(name[-2:])
        if hours > 23 or minutes > 59:  # noqa: PLR2004 - a day, an hour
            raise ConfigError(f'"{name}" is no offset from UTC; write +02:00, or a zone\'s name.')
        offset = timedelta(hours=hours, minutes=minutes)
        return timezone(-offset if name[0] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f'The time zone "{name}" is not known on this machine. Write one as Europe/Berlin, or '
            "an offset as +02:00; where no zone is known, install tzdata."
        ) from None


def _days_from(moment: float, zone: str | None) -> Iterator[date]:
    """Days from the one before on, for a night that began then, and for clocks moved by a day."""
    first = _wall(moment, zone).date() - timedelta(days=1)
    return (first + timedelta(days=n) for n in count())


def _wall(moment: float, zone: str | None) -> datetime:
    """What a clock shows at a moment, without its zone."""
    return datetime.fromtimestamp(moment, _zone(zone)).replace(tzinfo=None, fold=0)


def _moment(day: date, second: int, zone: str | None) -> float:
    """The first moment at which a clock shows a time, or the one at which it jumps over it."""
    wall = datetime.combine(day, datetime.min.time()) + timedelta(seconds=second)
    early, late = sorted(wall.replace(tzinfo=_zone(zone), fold=fold).timestamp() for fold in (0, 1))
    if early == late or _wall(early, zone) == wall:
        return early
    # No moment shows it. The two are what the offsets before and after the jump make of it: one
    # lies before the jump, the other after it, and clocks are moved at whole seconds.
    before, after = math.floor(early), math.ceil(late)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _wall(middle, zone) >= wall else (middle, after)
    return float(after)
