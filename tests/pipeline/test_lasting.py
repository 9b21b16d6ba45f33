"""Credentials that end before the run will: said before it begins, with both times."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import ConnectionConfig, PacingConfig, RunConfig
from bulk_updater.connect import CredentialsEnd
from bulk_updater.pipeline import plan, run
from bulk_updater.pipeline.lasting import describe_credentials_end, lasts_s
from bulk_updater.sandbox import Sandbox
from bulk_updater.schedule import ScheduleConfig, parse_until, parse_window

from .helpers import config_for, fast, people, write_export

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def told(ends: CredentialsEnd, **takes: float) -> str | None:
    return describe_credentials_end(
        ends, now_s=NOW.timestamp(), takes_s=timedelta(**takes).total_seconds()
    )


def test_both_times_are_named():
    """When they end, when the run ends, what happens then and what to do, in one sentence."""
    ends = CredentialsEnd(at=NOW + timedelta(hours=2, minutes=5))
    assert told(ends, hours=30) == (
        "The credentials end at 2026-03-01 14:05 UTC, the run at about 2026-03-02 18:00 UTC: it "
        "will stop then with the rows left unsettled; log in again and give the same command "
        "again, or use a profile that renews itself."
    )


def test_how_to_have_new_ones_is_said_as_it_is_done():
    """The sentence names the command that renews them."""
    ends = CredentialsEnd(at=NOW, renewal="log in again (aws sso login --profile crm)")
    assert "ended at 2026-03-01 12:00 UTC" in str(told(ends, hours=1))
    assert "log in again (aws sso login --profile crm)" in str(told(ends, hours=1))


@pytest.mark.parametrize(
    ("ends", "takes"),
    [
        (CredentialsEnd(), {"days": 300}),
        (CredentialsEnd(at=NOW + timedelta(hours=2)), {"hours": 2}),
        (CredentialsEnd(at=NOW + timedelta(hours=2)), {"seconds": 1}),
        (CredentialsEnd(at=NOW - timedelta(hours=2)), {"seconds": 0}),
        (CredentialsEnd(is_known=False), {"hours": 1}),
    ],
)
def test_nothing_is_said_of_credentials_that_last(ends: CredentialsEnd, takes: dict[str, float]):
    """What has no end, ends later, is not needed, or probably lasts is not worth a line."""
    assert told(ends, **takes) is None


def test_a_session_of_unknown_end_is_a_milder_warning():
    """Beyond an hour it says that nobody knows, and not that it will happen."""
    text = str(told(CredentialsEnd(is_known=False), hours=20, minutes=46))
    assert text.startswith("The credentials are a session's, and nothing says when they end;")
    assert "20 h 46 min" in text
    assert "If they end before it does, it will stop then" in text


HOUR = 3600.0


def lasts_h(takes_h: float, **schedule: object) -> float:
    """Hours that a run lasts which begins at `NOW`, a noon, and takes so many hours of sending."""
    config = RunConfig(
        mapping=Path("mapping.yaml"),
        sources=(Path("export.csv"),),
        schedule=ScheduleConfig(**schedule),
        connection=ConnectionConfig(connect_timeout_s=180.0, read_timeout_s=180.0),
    )
    return lasts_s(config, takes_h * HOUR, NOW.timestamp()) / HOUR


WINDOW = parse_window("22:00-06:00Z")
AT_MIDNIGHT = (NOW + timedelta(hours=12)).timestamp()


@pytest.mark.parametrize(
    ("takes_h", "schedule", "lasts"),
    [
        (0, {}, 0),
        (30, {}, 30),
        # One process waits for all of its nights, each of eight hours less six minutes.
        (0, {"window": WINDOW}, 0),
        (2, {"window": WINDOW}, 12),
        (10, {"window": WINDOW}, 34 + 2.1),
        # At its deadline it ends, and not when all would be sent.
        (2, {"for_s": 8 * HOUR}, 2),
        (30, {"for_s": 8 * HOUR}, 8),
        (30, {"until": parse_until("06:00Z")}, 18),
        (30, {"until": AT_MIDNIGHT}, 12),
        (30, {"until": NOW.timestamp()}, 0),
        (30, {"for_s": 1e-9}, 0),
        # The window opens two hours before the deadline, or behind it.
        (1, {"window": WINDOW, "until": AT_MIDNIGHT}, 11),
        (5, {"window": WINDOW, "until": AT_MIDNIGHT}, 12),
        (5, {"window": WINDOW, "for_s": 9 * HOUR}, 9),
        # Never, as good as.
        (1e9, {}, 87_600),
        (1e9, {"window": WINDOW}, 87_600),
    ],
)
def test_how_long_one_process_lasts(takes_h, schedule, lasts):
    """To the end of the sending, waits for its window included, and never beyond its deadline."""
    assert lasts_h(takes_h, **schedule) == pytest.approx(lasts, abs=1e-6)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The sandbox's own key pair, good for another ten hours."""
    ends = datetime.now(UTC) + timedelta(hours=10)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "sandbox")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends.isoformat())
    return ends


def unkeyed(config: RunConfig, rate: float) -> RunConfig:
    """With the environment's credentials, and at another pace."""
    connection = replace(config.connection, access_key=None)
    return replace(config, connection=connection, pacing=PacingConfig(rate=rate))


def about_credentials(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text.startswith("The credentials")]


@pytest.mark.parametrize("per_s", [0.001, 1.0])
def test_a_plan_says_it_at_its_own_pace(folder, session, per_s):
    """100 rows at one in 1,000 s take 28 h, longer than the credentials; at 1/s they do not."""
    config = RunConfig(
        mapping=folder / "mapping.yaml",
        sources=(write_export(folder, people(100)),),
        connection=ConnectionConfig(region="eu-west-1"),
        pacing=PacingConfig(rate=per_s),
    )
    warnings = about_credentials(plan(config).warnings)
    assert len(warnings) == (per_s < 1)
    for text in warnings:
        assert text.startswith(f"The credentials end at {session:%Y-%m-%d %H:%M} UTC, the run at")


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("ends_in_h", [9, 11])
def test_a_plan_counts_to_the_deadline_of_the_night(folder, ends_in_h):
    """28 h of sending end with the night: before credentials that last ten hours, or after."""
    config = RunConfig(
        mapping=folder / "mapping.yaml",
        sources=(write_export(folder, people(100)),),
        connection=ConnectionConfig(region="eu-west-1"),
        pacing=PacingConfig(rate=0.001),
        schedule=ScheduleConfig(for_s=ends_in_h * HOUR),
    )
    assert len(about_credentials(plan(config).warnings)) == (ends_in_h > 10)


@pytest.mark.looptime
@pytest.mark.parametrize("per_s", [0.001, 1.0])
async def test_a_run_says_it_before_it_sends(folder, session, caplog, per_s):
    """The same warning, in the log, when nothing has been sent but what the bucket lets go."""
    write_export(folder, people(100))
    reached = asyncio.Event()
    async with Sandbox(fast(), fault=lambda *_: reached.set()) as sandbox:
        config = unkeyed(config_for(sandbox, folder), per_s)
        running = asyncio.create_task(run(config))
        await reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    warnings = about_credentials(caplog.messages)
    assert len(warnings) == (per_s < 1)
    for text in warnings:
        assert text.startswith(f"The credentials end at {session:%Y-%m-%d %H:%M} UTC, the run at")


@pytest.mark.looptime
@pytest.mark.usefixtures("session")
async def test_rows_that_are_settled_take_no_time(folder, caplog):
    """A resumed run counts what is left: one row of 100 is sent long before the end."""
    write_export(folder, people(100))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run", limit=99)
        await run(config)
        summary = await run(unkeyed(replace(config, limit=None), 0.001))
    assert summary.outcomes["UPDATED"] == 100
    assert about_credentials(caplog.messages) == []
