"""What a run shows while it goes on."""

from __future__ import annotations

import asyncio
import io
import logging
import re

import pytest
from rich.console import Console

from bulk_updater.cli import output
from bulk_updater.cli import progress as progress_module
from bulk_updater.cli.outlook import clock_time, look_ahead, roughly, work_left_s
from bulk_updater.cli.progress import View, describe, log_moment_s, show_progress
from bulk_updater.model import Outcome, Progress
from bulk_updater.schedule import Span
from bulk_updater.words import count, duration, figure, percent


def at(**changes) -> Progress:
    started, allowed = changes.pop("started_per_s", 8.0), changes.pop("allowed_per_s", 8.0)
    return Progress(
        **({"results_total": 1000, "ceiling_per_s": 8.0} | changes),
        started_per_s=lambda: started,
        allowed_per_s=lambda: allowed,
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.01, "0.1 s"),
        (0.44, "0.4 s"),
        (1, "1 s"),
        (42.4, "42 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (99_960, "1 d 3 h"),
        (27 * 3600 + 46 * 60, "1 d 3 h"),
        (86_399, "23 h 59 min"),
        (12 * 86_400 + 3 * 3600, "12 d 3 h"),
    ],
)
def test_durations_are_said_in_the_two_largest_units(seconds, text):
    """A month-long run is not given in seconds, nor half a second in hours."""
    assert duration(seconds) == text


def test_numbers_agree_with_their_nouns():
    """One request, two requests, nought requests."""
    assert [count(n, "request") for n in (0, 1, 2, 1000)] == [
        "0 requests",
        "1 request",
        "2 requests",
        "1,000 requests",
    ]
    assert count(2, "result needs", "results need") == "2 results need"


def test_nothing_is_known_before_the_source_is_read():
    """No zeros that mean nothing."""
    assert describe(Progress()) == "Reading the mapping and the source."


def test_a_line_says_what_matters_and_leaves_out_what_did_not_happen():
    """Settled of all, pace of what is allowed; throttled and bad results once there are any."""
    line = describe(at(settled=250, sent=250, outcomes={Outcome.UPDATED: 250}))
    assert line.startswith("250/1,000 settled (25%) · 8.0 of 8/s · 1 min 40 s left, until ")
    outcomes = {Outcome.UPDATED: 240, Outcome.FAILED: 3, Outcome.INVALID: 7}
    line = describe(at(settled=250, sent=250, throttled=12, outcomes=outcomes))
    assert "8.0 of 8/s · 12 throttled (4.8%) · 3 FAILED · 7 INVALID · 1 min" in line


@pytest.mark.parametrize(
    ("changes", "pace"),
    [
        ({"started_per_s": 7.9}, "7.9 of 8/s"),
        # One throttled answer next to a live contact centre is no news.
        ({"started_per_s": 7.9, "allowed_per_s": 7.5}, "7.9 of 8/s"),
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2},
            "giving way to live traffic: 4.1 of 8/s",
        ),
        # Nobody else is there to give way to: the quota is less than was thought.
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2, "exclusive": True},
            "less than the ceiling is to be had: 4.1 of 8/s",
        ),
        # A person asked for less, and that is no live traffic.
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2, "limited": lambda: True},
            "limited by ctl: 4.1 of 4.2/s",
        ),
        # Under `--rate auto` there is no ceiling to be below.
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2, "ceiling_per_s": None},
            "4.1 of 4.2/s",
        ),
    ],
)
def test_a_line_says_when_a_run_gives_way(changes, pace):
    """The pace is set against the ceiling, and what keeps it below is said only where it is so."""
    assert describe(at(**changes)).split(" · ")[1] == pace


def test_no_pace_is_shown_before_there_is_one():
    """While the quota is asked for, nothing is said of rates."""
    assert describe(at(allowed_per_s=0.0, started_per_s=0.0)) == "0/1,000 settled (0%)"


@pytest.mark.parametrize("why", ["ctl", "ctl, window"])
def test_a_pause_is_said_instead_of_the_pace(why):
    """Who asked for it, and neither the rate of a moment ago nor a time left that nobody knows."""
    line = describe(at(settled=250, sent=250, throttled=12, paused=lambda: why))
    assert line == f"250/1,000 settled (25%) · paused by {why} · 12 throttled (4.8%)"


def test_waiting_for_the_window_says_until_when():
    """The clock goes on by itself, and so it is known when."""
    opens_at = MORNING + 3600
    line = describe(
        at(paused=lambda: "window", spans=lambda _moment: iter([Span(opens_at, opens_at + 60)]))
    )
    assert line.split(" · ")[1].startswith("waiting for the window, which opens at ")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (8.0, "8"),
        (10.0, "10"),
        (0.8 * 12, "9.6"),
        (19.937, "19.94"),
        (1250.0, "1,250"),
        (0.0001, "0.0001"),
        (0.456, "0.46"),
    ],
)
def test_rates_have_no_digits_that_say_nothing(number, text):
    """8 and not 8.0, and two digits behind the point at the most."""
    assert figure(number) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [(0.8, "80 %"), (1.0, "100 %"), (0.0376, "3.8 %"), (0.0, "0 %"), (0.0004, "under 0.1 %")],
)
def test_parts_are_said_in_percent(part, text):
    """One digit behind the point, and never a zero for something that happened."""
    assert percent(part) == text


def test_a_hundred_percent_is_only_said_at_the_end():
    """999 of 1,000 are 99%, and at the end no time is left to tell."""
    assert "(99%)" in describe(at(settled=999, sent=999))
    assert describe(at(settled=1000, sent=1000)) == "1,000/1,000 settled (100%) · 8.0 of 8/s"


def settled(n_updated, n_others=0, **changes):
    """A million results of which so many are settled, at 10 attempts a second."""
    outcomes = {Outcome.UPDATED: n_updated, Outcome.SKIPPED: n_others}
    figures = {"results_total": 1_000_000, "settled": n_updated + n_others, "outcomes": outcomes}
    return at(**(figures | {"sent": n_updated} | changes))


@pytest.mark.parametrize(
    ("progress", "least", "most"),
    [
        (settled(200_000), 80_000, 80_000),
        # Half of what is sent is throttled: it takes twice as long.
        (settled(200_000, sent=400_000), 159_000, 160_000),
        # What an earlier execution settled says nothing about the attempts of this one.
        (
            settled(
                200_000,
                settled_before=100_000,
                outcomes_before={Outcome.UPDATED: 100_000},
                sent=200_000,
            ),
            159_000,
            160_000,
        ),
        # Nine in ten rows are not sent: what is left takes a tenth of the time, or a little more.
        (settled(50_000, 450_000), 5_000, 8_000),
        # One frame was read, and most of its rows were settled at once: the rest is to be sent.
        (settled(10, 800, results_total=1000), 19, 19),
        (settled(0), 100_000, 100_000),
        # The first answers say little.
        (settled(1, sent=4), 100_000, 130_000),
        # Requests that are open have not been throttled yet.
        (settled(0, sent=32, in_flight=32), 100_000, 100_000),
    ],
)
def test_the_time_left_counts_what_settles(progress, least, most):
    """Attempts as they went until now, and none for rows that are not sent."""
    assert least <= work_left_s(progress, 10.0) <= most


def test_nobody_can_tell_the_time_left_without_a_rate_or_with_nothing_left():
    """Then there is none, rather than a large or a small one."""
    assert work_left_s(settled(10), 0.0) is None
    assert work_left_s(settled(1_000_000), 10.0) is None


MORNING = 1_796_000_000.0
"""A moment, in seconds since the epoch."""


def test_a_window_is_part_of_the_time_left():
    """Of 100 s of work, 40 fit into today's window, 40 in tomorrow's, and the rest is done then."""
    spans = [Span(MORNING + day * 86_400, MORNING + day * 86_400 + 40) for day in range(9)]
    seen = look_ahead(at(spans=lambda _moment: iter(spans)), 10.0, MORNING)
    assert seen == (MORNING + 2 * 86_400 + 20, 0)


def test_a_deadline_that_comes_first_says_what_will_be_left():
    """Of 1,000 that take 100 s, with 25 s to go, 750 are left when it stops."""
    progress = at(
        spans=lambda moment: iter([Span(moment, moment + 25)]), deadline_at=MORNING + 30
    )
    assert look_ahead(progress, 10.0, MORNING) == (MORNING + 30, 750)
    view = View(progress, lambda: MORNING)
    view.look(0.0)
    assert "left" in view.describe()
    stops = clock_time(MORNING + 30, MORNING)
    assert view.time_left()[0] == f"stops at {stops} with about 800 left"  # 8 a second


def test_a_deadline_that_will_be_met_is_said_with_the_time():
    """How long, until when, and before when it has to be."""
    progress = at(
        spans=lambda moment: iter([Span(moment, MORNING + 7000)]), deadline_at=MORNING + 7200
    )
    view = View(progress, lambda: MORNING)
    view.look(0.0)
    done, deadline = (clock_time(MORNING + later, MORNING) for later in (125, 7200))
    assert view.time_left()[0] == f"2 min 10 s left, until {done}, before {deadline}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "5 s"),
        (31, "35 s"),
        (191, "3 min 20 s"),
        (1801, "31 min"),
        (5 * 3600 + 1, "5 h 5 min"),
        (30 * 3600 + 1, "1 d 7 h"),
    ],
)
def test_a_time_left_is_rounded_up_to_what_is_worth_reading(seconds, text):
    """Never less than it is, and no seconds where hours are to go."""
    assert roughly(seconds) == text


def test_the_day_is_said_where_an_hour_would_not_do():
    """Tomorrow morning needs no day, a week's end has its name, and after that it is a date."""
    hour = 3600
    texts = [clock_time(MORNING + hours * hour, MORNING) for hours in (1, 11, 40, 24 * 20)]
    assert [len(text.split()) for text in texts] == [1, 1, 2, 3]


BUSY = dict(zip(Outcome, (5_123_456, 1_234_567, 1_234_567, 456_789, 123_456, 12_345), strict=True))
LONGEST = {
    "results_total": 10_000_000,
    "settled": sum(BUSY.values()),
    "sent": 9_000_000,
    "throttled": 400_000,
    "outcomes": BUSY,
    "started_per_s": 4.1,
    "allowed_per_s": 4.2,
}


def draw(progress, width, *, seconds=()):
    """The display as it stands on a terminal without colours, line by line."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    view = View(progress, lambda: MORNING)
    for second in seconds or (0.0,):
        view.look(second)
    console.print(progress_module._Drawing(view), end="")
    return screen.getvalue()


@pytest.mark.parametrize("width", [40, 41, 47, 60, 61, 79, 80, 120, 300])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"paused": lambda: "ctl, window"},
        {"paused": lambda: "window", "spans": lambda moment: iter([Span(moment + 9, moment + 99)])},
        {"limited": lambda: True},
        {"exclusive": True},
        {"deadline_at": MORNING + 9000, "spans": lambda moment: iter([Span(moment, moment + 9)])},
        {"settled": 0, "outcomes": {}, "sent": 0, "throttled": 0},
        {"started_per_s": 0.0, "allowed_per_s": 0.0},
        {"results_total": 0},
        {"settled": 10_000_000},
    ],
)
def test_the_display_is_two_lines_at_any_width(width, changes):
    """Of ten million rows with every outcome: two lines, none wider than the screen."""
    lines = draw(at(**(LONGEST | changes)), width).split("\n")
    assert len(lines) == 3
    assert lines[2] == ""
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("width", "first", "second"),
    [
        (
            120,
            ("━", " 81%   8,185,180 of 10,000,000", " left, until "),
            ("4.1 of 8/s", "4.4% throttled", "FAILED", "INVALID", "giving way to live traffic"),
        ),
        (
            80,
            ("━", " 81%   8,185,180 of 10,000,000", " left, until "),
            ("4.1 of 8/s", "1,234,567 FAILED", "1,234,567 INVALID", "giving way to live traffic"),
        ),
        (60, (" 81%   8,185,180 of 10,000,000", " left"), ("4.1 of 8/s", "FAILED", "giving way")),
        (40, (" 81%   8,185,180 of 10,000,000",), ("4.1 of 8/s", "giving way")),
    ],
)
def test_what_is_most_important_is_left_out_last(width, first, second):
    """The bar and the clock go before the time, and good outcomes before bad ones."""
    lines = draw(at(**LONGEST), width).split("\n")
    assert [part for part in first if part not in lines[0]] == []
    assert [part for part in second if part not in lines[1]] == []
    assert ("━" in lines[0]) == (width >= 80)
    assert "UPDATED" not in lines[1]


def test_figures_stay_in_their_places():
    """While rows settle, rates move and a notice comes and goes, nothing in front of it moves."""
    figures = {"outcomes": {Outcome.UPDATED: 950, Outcome.FAILED: 3, Outcome.INVALID: 40}}
    places = set()
    for n_settled, pace, allowed in ((100, 9.9, 10.0), (1000, 10.0, 4.0), (99_999, 0.4, 10.0)):
        progress = at(
            results_total=100_000, settled=n_settled, sent=1000, throttled=n_settled // 100,
            started_per_s=pace, allowed_per_s=allowed, ceiling_per_s=10.0, **figures,
        )  # fmt: skip
        first, second, _ = draw(progress, 100).split("\n")
        places.add((first.index("%"), first.index(" of "), second.index("/s"),
                    second.index("FAILED"), second.index("UPDATED")))  # fmt: skip
        assert ("giving way" in second) == (allowed == 4.0)
    assert len(places) == 1


def test_a_notice_comes_and_goes_when_it_has_lasted():
    """Giving way is said after five seconds of it, and not any more after five without."""
    allowed = [8.0]
    progress = at()
    progress.allowed_per_s = lambda: allowed[0]
    view = View(progress, lambda: MORNING)
    said = []
    for second in range(40):
        allowed[0] = 8.0 if second in {0, 1, 4, 5, 16, *range(20, 40)} else 4.0
        view.look(float(second))
        said.append("giving way" in view.describe())
    assert [second for second in range(40) if said[second]] == list(range(11, 25))


def test_the_time_left_does_not_jitter():
    """A rate that moves by a tenth to and fro leaves the moment of the end where it is."""
    rate = [8.0]
    progress = at(results_total=100_000)
    progress.started_per_s = lambda: rate[0]
    view = View(progress, lambda: MORNING)
    seen = set()
    for second in range(60):
        rate[0] = 8.0 + (0.4 if second % 2 else -0.4)
        view.look(float(second))
        seen.add(view.time_left()[0])
    assert len(seen) == 1
    rate[0] = 4.0
    for second in range(60, 600):
        view.look(float(second))
    assert view.time_left()[0].startswith("6 h 55 min left")


@pytest.mark.looptime
async def test_off_a_terminal_a_line_is_logged_now_and_then(caplog):
    """One after five seconds, and one every quarter of a minute from then on."""
    state = at(settled=0)
    with caplog.at_level(logging.INFO, logger="bulk_updater"):
        async with show_progress(state):
            await asyncio.sleep(4.5)
            assert caplog.messages == []
            state.settled = 500
            await asyncio.sleep(57)
    assert len(caplog.messages) == 5
    assert caplog.messages[0].startswith("500/1,000 settled (50%)")


def test_lines_grow_apart_so_that_a_log_of_two_weeks_can_be_read():
    """40 in the first ten minutes, some 110 until two hours, and 12 an hour from then on."""
    moments, at_s = [], 0.0
    while at_s < 14 * 86_400:
        at_s = log_moment_s(at_s)
        moments.append(at_s)
    assert moments[:4] == [5.0, 15.0, 30.0, 45.0]
    assert sum(each <= 600 for each in moments) == 41
    assert sum(600 < each <= 7200 for each in moments) == 110
    assert len(moments) == 41 + 110 + (14 * 86_400 - 7200) // 300


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns in place of standard error."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system="standard")
    monkeypatch.setattr(progress_module, "error_console", lambda: console)
    return screen


@pytest.mark.looptime
async def test_a_terminal_gets_two_lines_that_go_away(terminal, caplog):
    """Drawn when something changes, four times a second at the most; nothing is left at the end."""
    state = Progress(ceiling_per_s=8.0)
    async with show_progress(state, now=lambda: MORNING):
        await asyncio.sleep(1)
        for n_settled in range(100, 1100, 100):
            state.results_total, state.settled = 1000, n_settled
            await asyncio.sleep(0.1)
    drawn = terminal.getvalue()
    assert drawn.count("Reading the mapping and the source.") == 1
    assert 3 <= drawn.count(" of 1,000") <= 5
    assert drawn.endswith("\x1b[2K")
    assert caplog.messages == []


@pytest.mark.looptime
async def test_what_does_not_change_is_not_drawn_again(terminal):
    """An hour in which nothing happens is one picture."""
    state = at(settled=250, started_per_s=0.0)
    async with show_progress(state, now=lambda: MORNING):
        await asyncio.sleep(3600)
    assert terminal.getvalue().count("250 of 1,000") == 1


@pytest.mark.looptime
@pytest.mark.parametrize("reason", ["quiet", "dumb", "file"])
async def test_where_nothing_can_be_drawn_it_is_logged(terminal, monkeypatch, caplog, reason):
    """With JSON asked for, on a terminal that knows no escapes, and in a file."""
    if reason == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if reason == "file":
        console = Console(file=terminal, force_terminal=False)
        monkeypatch.setattr(progress_module, "error_console", lambda: console)
    with caplog.at_level(logging.INFO, logger="bulk_updater"):
        async with show_progress(at(), quiet=reason == "quiet"):
            await asyncio.sleep(7)
    assert terminal.getvalue() == ""
    assert len(caplog.messages) == 1


@pytest.mark.looptime
async def test_without_colour_the_display_is_the_same(monkeypatch):
    """NO_COLOR takes the colours, and neither a figure nor the bar."""
    monkeypatch.setenv("NO_COLOR", "1")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system="standard")
    monkeypatch.setattr(progress_module, "error_console", lambda: console)
    async with show_progress(at(**LONGEST), now=lambda: MORNING):
        await asyncio.sleep(1)
    drawn = screen.getvalue()
    assert "1,234,567 FAILED" in drawn
    assert "━━━" in drawn
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", drawn) is None


def test_colours_can_be_forced_and_switched_off(monkeypatch):
    """--color on makes a terminal of a file, off makes a file of a terminal."""
    output.set_up_logging(color="on", debug=False)
    assert output.error_console().is_terminal
    assert isinstance(logging.getLogger("bulk_updater").handlers[0], output.RichHandler)
    output.set_up_logging(color="off", debug=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert not output.error_console().is_terminal
    output.set_up_logging(color="auto", debug=False)
    assert output.error_console().is_terminal


@pytest.mark.parametrize("color", ["on", "auto", "off"])
def test_no_color_leaves_no_colour(call, monkeypatch, color):
    """NO_COLOR is obeyed where --color does not say otherwise; off prints no escape at all."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = call(f"plan mapping.yaml export.csv --color {color}").out
    assert ("\x1b[33m" in coloured) == (color != "off")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = call(f"plan mapping.yaml export.csv --color {color}").out
    assert "\x1b[3" not in plain
    assert ("\x1b[" in plain) == (color != "off")
