"""What a run shows while it goes on."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest
from rich.console import Console

from bulk_updater.cli import output, progress
from bulk_updater.cli.progress import describe, show_progress, time_left_s
from bulk_updater.model import Outcome, Progress
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
    line = describe(at(settled=250, sent=250))
    assert line == "250/1,000 settled (25%) · 8.0 of 8/s · 1 min 34 s left"
    outcomes = {Outcome.UPDATED: 240, Outcome.FAILED: 3, Outcome.INVALID: 7}
    line = describe(at(settled=250, sent=250, throttled=12, outcomes=outcomes))
    assert "8.0 of 8/s · 12 throttled (4.8%) · 3 FAILED · 7 INVALID · 1 min" in line


@pytest.mark.parametrize(
    ("changes", "pace"),
    [
        ({"started_per_s": 7.9}, "7.9 of 8/s"),
        # One throttled answer next to a live contact centre is no news.
        ({"started_per_s": 7.9, "allowed_per_s": 7.5}, "7.9 of 7.5/s"),
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2},
            "4.1 of 4.2/s, giving way (ceiling 8)",
        ),
        # Nobody else is there to give way to: the quota is less than was thought.
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2, "exclusive": True},
            "4.1 of 4.2/s (ceiling 8)",
        ),
        # Under `--rate auto` there is no ceiling to be below.
        (
            {"started_per_s": 4.1, "allowed_per_s": 4.2, "ceiling_per_s": None},
            "4.1 of 4.2/s",
        ),
    ],
)
def test_a_line_says_when_a_run_gives_way(changes, pace):
    """The pace is set against what is allowed now, and that against the ceiling."""
    assert describe(at(**changes)).split(" · ")[1] == pace


def test_no_pace_is_shown_before_there_is_one():
    """While the quota is asked for, nothing is said of rates."""
    assert describe(at(allowed_per_s=0.0, started_per_s=0.0)) == "0/1,000 settled (0%)"


@pytest.mark.parametrize("why", ["window", "ctl", "ctl, window"])
def test_a_pause_is_said_instead_of_the_pace(why):
    """Who asked for it, and neither the rate of a moment ago nor a time left that nobody knows."""
    line = describe(at(settled=250, sent=250, throttled=12, paused=lambda: why))
    assert line == f"250/1,000 settled (25%) · paused: {why} · 12 throttled (4.8%)"


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


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"settled": 200, "sent": 200}, 100.0),
        # Half of what is sent is throttled: it takes twice as long.
        ({"settled": 200, "sent": 400}, 200.0),
        # What an earlier execution settled says nothing about this one.
        ({"settled": 200, "settled_before": 100, "sent": 200}, 200.0),
        # Rows that are not sent cannot make it faster than the rate.
        ({"settled": 200, "sent": 10}, 100.0),
        ({"settled": 0, "sent": 0}, 125.0),
        ({"settled": 1000, "sent": 1000}, None),
        ({"settled": 200, "started_per_s": 0.0}, None),
    ],
)
def test_the_time_left_counts_what_settles(changes, seconds):
    """Left over the rate of late, times the share of requests that settle something."""
    assert time_left_s(at(**changes)) == seconds


@pytest.mark.looptime
async def test_off_a_terminal_a_line_is_logged_every_15_seconds(caplog):
    """In a minute four lines, and none in the first seconds."""
    state = at(settled=0)
    with caplog.at_level(logging.INFO, logger="bulk_updater"):
        async with show_progress(state):
            await asyncio.sleep(14)
            assert caplog.messages == []
            state.settled = 500
            await asyncio.sleep(47)
    assert len(caplog.messages) == 4
    assert caplog.messages[0].startswith("500/1,000 settled (50%)")


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns in place of standard error."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system="standard")
    monkeypatch.setattr(progress, "error_console", lambda: console)
    return screen


@pytest.mark.looptime
async def test_a_terminal_gets_a_bar_that_goes_away(terminal, caplog):
    """A bar above the line, redrawn four times a second, and nothing of it left at the end."""
    state = Progress()
    async with show_progress(state):
        await asyncio.sleep(1)
        state.results_total, state.settled = 1000, 250
        await asyncio.sleep(1)
    drawn = terminal.getvalue()
    assert drawn.count("Reading the mapping and the source.") == 4
    assert drawn.count("━" * 14) >= 4
    assert drawn.count("\n250/1,000 settled (25%)") >= 4
    assert drawn.endswith("\x1b[2K")
    assert caplog.messages == []


@pytest.mark.looptime
async def test_json_logs_even_on_a_terminal(terminal, caplog):
    """What is for machines gets no bar."""
    with caplog.at_level(logging.INFO, logger="bulk_updater"):
        async with show_progress(at(), quiet=True):
            await asyncio.sleep(16)
    assert terminal.getvalue() == ""
    assert len(caplog.messages) == 1


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
