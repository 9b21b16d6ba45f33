"""The flags that say when a run may work, and what `plan` makes of them. All in all 3 s."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from bulk_updater.cli.run import exit_code
from bulk_updater.config import ScheduleConfig
from bulk_updater.schedule import TimeOfDay, Window

from .conftest import summary_of

HOUR_S = 3600


@pytest.mark.parametrize(
    ("flags", "schedule"),
    [
        ("", ScheduleConfig()),
        ("--until 06:00", ScheduleConfig(until=TimeOfDay(21_600))),
        ('--until "06:00 UTC"', ScheduleConfig(until=TimeOfDay(21_600, "UTC"))),
        ("--for 1h30m", ScheduleConfig(for_s=5400.0)),
        ("--window 22:00-06:00", ScheduleConfig(window=Window(79_200, 21_600))),
    ],
)
def test_the_flags(call, configs, flags, schedule):
    """Each flag is what the run is told, as it is typed."""
    assert call(f"run mapping.yaml export.csv {flags}").code == 0
    assert configs[0].schedule == schedule


def test_the_flags_by_the_environment(call, configs, monkeypatch):
    """A crontab may set them all by variables."""
    for name, value in {"UNTIL": "06:00", "FOR": "8h", "WINDOW": "22:00-06:00"}.items():
        monkeypatch.setenv(f"BULK_UPDATER_RUN_{name}", value)
    assert call("run mapping.yaml export.csv").code == 0
    assert configs[0].schedule == ScheduleConfig(
        until=TimeOfDay(21_600), for_s=28_800.0, window=Window(79_200, 21_600)
    )


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--until soon", '--until "soon" is no time'),
        ("--until 2020-01-01T06:00", "which has passed"),
        ("--for soon", '--for "soon" is no length of time'),
        ("--window soon", '--window "soon" is no window'),
        ('--window "22:00-06:00 Mars"', 'time zone "Mars" is not known'),
    ],
)
def test_what_cannot_be(call, tmp_path, command, flags, told):
    """Anything else is refused with exit code 2, before there is a run directory."""
    ran = call(f"{command} mapping.yaml export.csv --rate 5 {flags}")
    assert ran.code == 2
    assert told in ran.err
    assert not list(tmp_path.glob("runs/*/*/ledger.jsonl"))


def test_the_exit_code_of_a_deadline():
    """A run that was ended by its deadline is told from one that was interrupted."""
    assert exit_code(summary_of(state="deadline", unsettled=1)) == 4
    assert exit_code(summary_of(state="interrupted", unsettled=1)) == 130
    assert exit_code(summary_of(state="stopped", unsettled=1)) == 3


def hour_ahead(hours: int) -> tuple[str, int]:
    """A time of day that is some whole hours ahead of the one that it is now, and its moment."""
    opens_at = (int(time.time()) // HOUR_S + hours) * HOUR_S
    return time.strftime("%H:%M", time.gmtime(opens_at)), opens_at


def test_a_plan_counts_nights(call):
    """Two requests of 2000 s each, in a window of an hour of which two minutes are its margin, take
    two nights; a single night where the window is twice as long."""
    begins, opens_at = hour_ahead(6)
    for hours, n_nights, ends_at in (
        (7, 2, opens_at + 24 * HOUR_S + 4000 - 3480),
        (8, 1, opens_at + 4000),
    ):
        line = (
            f"plan mapping.yaml export.csv --rate 0.0005 --window {begins}-{hour_ahead(hours)[0]}Z"
        )
        made = json.loads(call(f"{line} --json").out)
        assert made["operations"][0]["n_requests"] == 2
        assert made["n_nights"] == n_nights
        assert datetime.fromisoformat(made["ends_at"]).timestamp() == ends_at
        nights = "2 nights" if n_nights == 2 else "1 night"
        assert f"\nIt takes {nights}, and is done at 2" in call(line).out


def test_a_plan_that_has_too_little_time(call):
    """Where it is never done, the plan says so, and what would help."""
    moment = datetime.fromtimestamp(time.time() + HOUR_S).astimezone().isoformat()[:19]
    line = f"plan mapping.yaml export.csv --rate 0.0005 --until {moment}"
    made = json.loads(call(f"{line} --json").out)
    assert (made["n_nights"], made["ends_at"]) == (1, None)
    assert (
        "The time that it has is too short: after 1 night it would not be done." in call(line).out
    )


def test_a_plan_without_a_schedule(call):
    """Where a run may always work, nights are not spoken of."""
    made = json.loads(call("plan mapping.yaml export.csv --rate 5 --json").out)
    assert (made["n_nights"], made["ends_at"]) == (None, None)
    assert "night" not in call("plan mapping.yaml export.csv --rate 5").out
