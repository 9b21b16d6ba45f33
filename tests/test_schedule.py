"""Deadlines and windows, by clocks that are moved twice a year. All in all 3 s."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.errors import ConfigError
from bulk_updater.schedule import (
    Nights,
    ScheduleConfig,
    TimeOfDay,
    Window,
    describe_moment,
    margin_s,
    nights,
    parse_duration,
    parse_until,
    parse_window,
)

HOUR = 3600.0
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
ZONES = [BERLIN, NEW_YORK, LORD_HOWE, "UTC"]


def at(text: str, zone: str = BERLIN) -> float:
    """A moment, by the standard library's own reading of a wall clock."""
    wall = datetime.fromisoformat(text)
    return (wall if wall.tzinfo else wall.replace(tzinfo=ZoneInfo(zone))).timestamp()


def shown(moment: float, zone: str) -> str:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%H:%M:%S")


@pytest.fixture
def in_zone(monkeypatch):
    """Sets the machine's own zone for a test."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8h", 28_800),
        ("90m", 5_400),
        ("90min", 5_400),
        ("1h30m", 5_400),
        ("1.5h", 5_400),
        ("45s", 45),
        ("2d", 172_800),
        (" 1D2H3M4S ", 93_784),
    ],
)
def test_durations(text, seconds):
    """A length of time is read in days, hours, minutes and seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "8", "0h", "-8h", "30m1h", "1w", "4000d", "9" * 400 + "d"]
)
def test_what_is_no_duration(text):
    """Anything else is refused with what can be written instead."""
    with pytest.raises(ConfigError, match="Write 8h, 90m, 1h30m, 45s or 2d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06:00", TimeOfDay(21_600)),
        ("6:00", TimeOfDay(21_600)),
        ("23:59:59", TimeOfDay(86_399)),
        ("06:00 Europe/Berlin", TimeOfDay(21_600, BERLIN)),
        ("06:00+02:00", TimeOfDay(21_600, "+02:00")),
        ("06:00 -0330", TimeOfDay(21_600, "-0330")),
        ("06:00Z", TimeOfDay(21_600, "Z")),
        ("2026-11-23T06:00+01:00", at("2026-11-23T06:00+01:00")),
        ("2026-11-23 06:00:30 Europe/Berlin", at("2026-11-23T06:00:30")),
        ("2026-11-23T05:00Z", at("2026-11-23T05:00+00:00")),
    ],
)
def test_until(text, expected):
    """A deadline is a time of day or a moment, with a zone or without."""
    assert parse_until(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("6", "is no time. Write 06:00"),
        ("tomorrow", "is no time. Write 06:00"),
        ("24:00", "no such time of day"),
        ("06:60", "no such time of day"),
        ("06:00:60", "no such time of day"),
        ("06:00 Europe", "is not known on this machine"),
        ("06:00 Europe/Nowhere", "is not known on this machine"),
        ("06:00 ../etc", "is not known on this machine"),
        ("06:00+25:00", "is no offset"),
        ("2026-02-30T06:00", "no such day"),
    ],
)
def test_what_is_no_deadline(text, told):
    """Anything else is refused with what is wrong with it."""
    with pytest.raises(ConfigError, match=told):
        parse_until(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:00-06:00", Window(79_200, 21_600)),
        ("22:00 - 06:00 Europe/Berlin", Window(79_200, 21_600, BERLIN)),
        ("22:00\u201306:00", Window(79_200, 21_600)),
        ("09:00-17:30+02:00", Window(32_400, 63_000, "+02:00")),
        ("20:00-24:00Z", Window(72_000, 0, "Z")),
        ("00:00-06:00", Window(0, 21_600)),
    ],
)
def test_windows(text, expected):
    """A window is two times of day, with a zone or without; it may end at midnight."""
    assert parse_window(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("22-06", "is no window"),
        ("22:00", "is no window"),
        ("22:00-06:00 Mars", "is not known"),
        ("24:00-06:00", "no such time of day"),
        ("22:00-25:00", "no such time of day"),
        ("22:00-22:00", "begins and ends at the same time"),
        ("00:00-24:00", "begins and ends at the same time"),
    ],
)
def test_what_is_no_window(text, told):
    """Anything else is refused, as is a window that is always open, or never."""
    with pytest.raises(ConfigError, match=told):
        parse_window(text)


@pytest.mark.parametrize("zone", ZONES)
def test_a_time_of_day_comes_once_a_day(zone):
    """Over two years a deadline comes as often as there are days, each at its time of day but for
    those that the clock jumps over, and never at or before the moment that is asked about."""
    moment = first = at("2026-01-01T00:00", zone)
    time_of_day = TimeOfDay(2 * 3600 + 15 * 60, zone)
    odd = []
    for _ in range(730):
        following = time_of_day.next_after(moment)
        assert 22 * HOUR < following - moment < 27 * HOUR or moment == first
        if shown(following, zone) != "02:15:00":
            odd.append((shown(following - 1, zone), shown(following, zone)))
        moment = following
    assert moment <= at("2027-12-31T23:59:59", zone)
    jumps = {
        BERLIN: [("01:59:59", "03:00:00")] * 2,
        NEW_YORK: [("01:59:59", "03:00:00")] * 2,
        LORD_HOWE: [("01:59:59", "02:30:00")] * 2,  # by half an hour
        "UTC": [],
    }
    assert odd == jumps[zone]


@pytest.mark.parametrize(
    ("zone", "day", "time_of_day", "utc"),
    [
        (BERLIN, "2026-03-29", "02:30", "2026-03-29T01:00"),  # jumped over
        (BERLIN, "2026-10-25", "02:30", "2026-10-25T00:30"),  # comes twice: the first
        (BERLIN, "2026-10-25", "03:00", "2026-10-25T02:00"),  # comes once
        (NEW_YORK, "2026-03-08", "02:00", "2026-03-08T07:00"),
        (NEW_YORK, "2026-11-01", "01:30", "2026-11-01T05:30"),
        (LORD_HOWE, "2026-10-04", "02:15", "2026-10-03T15:30"),
        (LORD_HOWE, "2026-04-05", "01:45", "2026-04-04T14:45"),
    ],
)
def test_days_on_which_the_clock_is_moved(in_zone, zone, day, time_of_day, utc):
    """A time that is jumped over is the moment of the jump, one that comes twice is the first; by
    a zone's name and by the machine's own zone."""
    expected = at(f"{utc}+00:00")
    before = at(f"{day}T00:00", zone)
    in_zone(zone)
    for text in (time_of_day, f"{time_of_day} {zone}"):
        until = parse_until(text)
        assert isinstance(until, TimeOfDay)
        assert until.next_after(before) == expected
        assert until.next_after(expected) >= expected + 22 * HOUR  # not twice
    assert parse_until(f"{day}T{time_of_day}") == expected


def test_a_day_that_never_was():
    """Where a clock jumped over a whole day, its times are the moment of the jump."""
    until = TimeOfDay(6 * 3600, "Pacific/Apia")  # there was no 30 December 2011
    moment = at("2011-12-29T07:00", "Pacific/Apia")
    jump = at("2011-12-31T00:00", "Pacific/Apia")
    assert until.next_after(moment) == jump
    assert until.next_after(jump) == at("2011-12-31T06:00", "Pacific/Apia")


def test_a_night_has_seven_hours_or_nine(in_zone):
    """A window over the night lasts as long as the night does, by name and by local time."""
    in_zone(BERLIN)
    for window in (parse_window("22:00-06:00"), parse_window("22:00-06:00 Europe/Berlin")):
        lasts = {
            day: span.ends_at - span.begins_at
            for day in ("2026-03-27", "2026-03-28", "2026-10-24", "2026-10-25")
            for span in [window.span_at(at(f"{day}T12:00"))]
        }
        assert list(lasts.values()) == [8 * HOUR, 7 * HOUR, 9 * HOUR, 8 * HOUR]


def test_an_open_window_and_a_closed_one():
    """A moment within a window finds that one, its end already the next; begins are inside."""
    window = parse_window("22:00-06:00 Europe/Berlin")
    tonight = (at("2026-06-01T22:00"), at("2026-06-02T06:00"))
    tomorrow = (at("2026-06-02T22:00"), at("2026-06-03T06:00"))
    for moment, span in [
        ("2026-06-01T12:00", tonight),
        ("2026-06-01T22:00", tonight),
        ("2026-06-02T05:59:59", tonight),
        ("2026-06-02T06:00", tomorrow),
    ]:
        assert window.span_at(at(moment)) == span


def test_a_window_that_the_clock_jumps_over():
    """On the day on which no clock shows any of it, there is none."""
    window = parse_window("02:10-02:50 Europe/Berlin")
    spans = list(islice(window.spans(at("2026-03-28T00:00")), 2))
    assert [span.begins_at for span in spans] == [at("2026-03-28T02:10"), at("2026-03-30T02:10")]


MOMENTS = st.floats(at("2020-01-01T00:00"), at("2035-01-01T00:00"))
SECONDS = st.integers(0, 86_399)


@given(MOMENTS, SECONDS, SECONDS, st.sampled_from([*ZONES, "Asia/Kolkata", "+05:45"]))
def test_spans_are_in_order(moment, begin, end, zone):
    """Spans never overlap and never come back; each ends after the moment, and one begins within
    every two days."""
    if begin == end:
        return
    spans = list(islice(Window(begin, end, zone).spans(moment), 5))
    assert spans[0].ends_at > moment
    assert all(span.begins_at < span.ends_at for span in spans)
    assert all(first.ends_at <= second.begins_at for first, second in pairwise(spans))
    assert spans[0].begins_at - moment < 50 * HOUR
    assert all(second.begins_at - first.begins_at < 50 * HOUR for first, second in pairwise(spans))


@given(MOMENTS, SECONDS, st.sampled_from(ZONES))
def test_local_time_is_that_of_the_zone(moment, second, zone):
    """The next time of day is the first moment at which the clock shows it or more; found here by
    walking through the hours before it."""
    following = TimeOfDay(second, zone).next_after(moment)
    assert moment < following <= moment + 49 * HOUR
    wall = datetime.fromtimestamp(following, ZoneInfo(zone))
    asked = wall.replace(hour=second // 3600, minute=second // 60 % 60, second=second % 60)
    if wall.time() != asked.time():  # jumped over: the second before it showed less
        before = datetime.fromtimestamp(following - 1, UTC).astimezone(ZoneInfo(zone))
        assert before.replace(tzinfo=None) < asked.replace(tzinfo=None) < wall.replace(tzinfo=None)
    else:
        assert wall.fold == 0


def test_which_deadline_comes_first():
    """Of a time of day and a length of time, whichever is first; without either there is none."""
    evening = at("2026-06-01T22:00")
    until = parse_until("06:00 Europe/Berlin")
    six = at("2026-06-02T06:00")
    assert ScheduleConfig().deadline_at(evening) is None
    assert ScheduleConfig(until=until).deadline_at(evening) == six
    assert ScheduleConfig(for_s=HOUR).deadline_at(evening) == evening + HOUR
    assert ScheduleConfig(until=until, for_s=HOUR).deadline_at(evening) == evening + HOUR
    assert ScheduleConfig(until=until, for_s=12 * HOUR).deadline_at(evening) == six
    assert ScheduleConfig(until=six).deadline_at(evening) == six


def test_a_deadline_that_has_just_passed():
    """A time of day is then tomorrow's; a moment is refused."""
    late = at("2026-06-02T06:30")
    daily = ScheduleConfig(until=parse_until("06:00 Europe/Berlin"))
    assert daily.deadline_at(late) == at("2026-06-03T06:00")
    assert daily.deadline_at(at("2026-06-02T06:00")) == at("2026-06-03T06:00")
    with pytest.raises(ConfigError, match="which has passed; nothing was sent"):
        ScheduleConfig(until=at("2026-06-02T06:00")).deadline_at(late)


@pytest.mark.parametrize("for_s", [0.0, -1.0, math.inf, math.nan])
def test_a_run_has_some_time(for_s):
    """No time, or time without end, is refused."""
    with pytest.raises(ConfigError, match="must be above 0"):
        ScheduleConfig(for_s=for_s)


def test_the_margin():
    """As long as an attempt may take, and at most a tenth of the time."""
    assert margin_s(8 * HOUR, 120.0) == 120.0
    assert margin_s(600.0, 120.0) == 60.0
    assert margin_s(600.0, math.inf) == 60.0


def test_nights_of_a_window():
    """The work of a hundred hours is spread over nights of which one has an hour less."""
    window = ScheduleConfig(window=parse_window("22:00-06:00 Europe/Berlin"))
    noon = at("2026-03-28T12:00")
    assert nights(window, 0.0, noon, attempt_s=0.0) == Nights(0, noon)
    # 7 hours in the first, then 8 each.
    assert nights(window, 7 * HOUR, noon, attempt_s=0.0) == Nights(1, at("2026-03-29T06:00"))
    assert nights(window, 7 * HOUR + 1, noon, attempt_s=0.0).n_nights == 2
    assert nights(window, 100 * HOUR, noon, attempt_s=0.0) == Nights(13, at("2026-04-10T03:00"))
    # From within the first, and with a margin of 6 minutes before each end.
    inside = at("2026-06-02T02:00")
    found = nights(window, 11 * HOUR, inside, attempt_s=360.0)
    assert found == Nights(2, at("2026-06-03T05:06"))


def test_nights_of_a_deadline():
    """With a deadline alone, the same command is given at the same time each day."""
    evening = at("2026-06-01T22:00", "UTC")
    six = parse_until("06:00Z")
    found = nights(ScheduleConfig(until=six), 20 * HOUR, evening, attempt_s=0.0)
    assert found == Nights(3, evening + 48 * HOUR + 4 * HOUR)
    found = nights(ScheduleConfig(for_s=30 * HOUR), 50 * HOUR, evening, attempt_s=0.0)
    assert found == Nights(2, evening + 48 * HOUR + 20 * HOUR)
    both = ScheduleConfig(until=six, window=parse_window("23:00-05:00Z"))
    assert nights(both, 7 * HOUR, evening, attempt_s=0.0) == Nights(2, evening + 26 * HOUR)


def test_nights_that_are_never_enough():
    """A single moment that is too soon, a window that is never open before the deadline, and work
    for more than ten years end without a day on which it is done."""
    evening = at("2026-06-01T22:00", "UTC")
    assert nights(ScheduleConfig(until=evening + 60), 61.0, evening) == Nights(1, None)
    assert nights(ScheduleConfig(until=evening + 60), 54.0, evening) == Nights(1, evening + 54)
    never = ScheduleConfig(for_s=HOUR, window=parse_window("09:00-17:00Z"))
    assert nights(never, 1.0, evening) == Nights(0, None)
    window = ScheduleConfig(window=parse_window("22:00-06:00Z"))
    assert nights(window, 4000 * 8 * HOUR, evening, attempt_s=0.0).ends_at is None


def test_moments_are_told_with_their_zone(in_zone):
    """A moment is told by the clock of its zone, or of the machine, to the second if need be."""
    in_zone(NEW_YORK)
    moment = at("2026-06-02T06:00")
    assert describe_moment(moment, BERLIN) == "2026-06-02 06:00 CEST"
    assert describe_moment(moment) == "2026-06-02 00:00 EDT"
    assert describe_moment(moment + 5, "+02:00") == "2026-06-02 06:00:05 UTC+02:00"


def test_a_schedule_can_be_noted():
    """`run.json` holds the schedule as it was given."""
    schedule = ScheduleConfig(
        until=parse_until("06:00 Europe/Berlin"), for_s=60.0, window=parse_window("22:00-06:00")
    )
    assert orjson.loads(orjson.dumps(asdict(schedule))) == {
        "until": {"second": 21_600, "zone": BERLIN},
        "for_s": 60.0,
        "window": {"begin": 79_200, "end": 21_600, "zone": None},
    }


def test_the_zone_is_looked_for_at_once():
    """A zone that is not known is refused when a configuration is made, not in the night."""
    for make in (lambda: TimeOfDay(0, "No/Where"), lambda: Window(0, 1, "No/Where")):
        with pytest.raises(ConfigError, match="No/Where"):
            make()
