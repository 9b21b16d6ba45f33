"""Handing rows on: a canary first, the oldest first, and what Connect has forgotten by then.

Whole runs in virtual time. All in all 6 s.
"""

from __future__ import annotations

import asyncio
import csv
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.config import ChangesConfig, PacingConfig
from bulk_updater.errors import ConfigError, RunStopped
from bulk_updater.pipeline import run
from bulk_updater.pipeline.again import retry
from bulk_updater.state import State

from .again import Refusing, sandbox_with
from .helpers import INSTANCE, attributes, config_for, ledger_of

if TYPE_CHECKING:
    from pathlib import Path

    from bulk_updater.config import RunConfig
    from bulk_updater.model import RunSummary
    from bulk_updater.sandbox import Sandbox

pytestmark = pytest.mark.looptime

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)

MAPPING = f"""
contact_started: {{column: Started}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    a: "{{A}}"
"""

UNDATED = MAPPING.replace("contact_started: {column: Started}", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    return tmp_path


def write(folder: Path, *rows: tuple[str, str, str]) -> None:
    """An export of contact, value, and when the contact began."""
    with (folder / "export.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Contact", "A", "Started"), *rows])


def forgotten_in(seconds: float) -> str:
    """When a contact began that Connect forgets so long after `NOW`: 24 months earlier."""
    return (NOW + timedelta(seconds=seconds)).replace(year=2024).isoformat()


LATER = forgotten_in(300 * 86_400)


def config_of(sandbox: Sandbox, folder: Path, **settings: Any) -> RunConfig:
    settings.setdefault("run_dir", folder / "run")
    return config_for(sandbox, folder, **settings)


async def night(
    config: RunConfig, stop: asyncio.Event | None = None, *, days_later: int = 0
) -> RunSummary:
    loop = asyncio.get_running_loop()
    began_s = NOW.timestamp() + days_later * 86_400 - loop.time()
    return await run(config, stop=stop, now=lambda: began_s + loop.time())


def sent(refusing: Refusing) -> list[str]:
    """The values that were let through since this was asked last, in order."""
    values = [each["a"] for each in refusing.seen]
    refusing.seen.clear()
    return values


def outcomes(summary: RunSummary) -> dict[int, str]:
    return {record["row"]: record["outcome"] for record in ledger_of(summary)}


# --- The canary


async def test_a_canary_that_fails_stops_the_run_behind_it(folder):
    """3 of the first 5 rows FAILED: 5 requests, no sixth, and the rest is left unsettled."""
    write(folder, *((f"c-{n}", "bad" if n in (1, 2, 5) else f"{n}", LATER) for n in range(1, 31)))
    refusing = Refusing("bad")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, canary=5, max_in_flight=8)
        with pytest.raises(RunStopped, match="3 of the first 5 rows FAILED") as caught:
            await night(config)
        assert sandbox.counters["update_contact_attributes"].received == 5
        assert sent(refusing) == ["3", "4"]
    summary = caught.value.summary
    assert summary.unsettled == 25
    assert sorted(outcomes(summary)) == [1, 2, 3, 4, 5]
    assert "nothing after them was sent" in summary.reason


async def test_a_resume_has_the_next_rows_as_its_canary(folder):
    """The failed ones are settled; the next five fail, too, and then the next five go well."""
    bad = {3: "bad", 8: "bad"}
    write(folder, *((f"c-{n}", bad.get(n, f"{n}"), LATER) for n in range(1, 31)))
    refusing = Refusing("bad")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, canary=5)
        for n_received in (5, 10):
            with pytest.raises(RunStopped, match="1 of the first 5 rows FAILED"):
                await night(config)
            assert sandbox.counters["update_contact_attributes"].received == n_received
        summary = await night(config)
        assert sandbox.counters["update_contact_attributes"].received == 30
    assert (summary.outcomes["UPDATED"], summary.outcomes["FAILED"]) == (28, 2)


async def test_rows_that_are_not_sent_are_no_canary(folder):
    """Forgotten and invalid contacts first: the canary is the first rows that are sent."""
    gone = [(f"gone-{n}", "1", "2020-01-01") for n in range(10)]
    invalid = [("", "1", LATER)] * 10
    rows = [(f"c-{n}", "bad" if n == 1 else "1", LATER) for n in range(20)]
    write(folder, *gone, *invalid, *rows)
    async with sandbox_with(Refusing("bad")) as sandbox:
        with pytest.raises(RunStopped, match="1 of the first 3 rows FAILED") as caught:
            await night(config_of(sandbox, folder, canary=3))
        assert sandbox.counters["update_contact_attributes"].received == 3
    counts = caught.value.summary.outcomes
    assert (counts["SKIPPED"], counts["INVALID"], counts["UPDATED"]) == (10, 10, 2)


async def test_unchanged_rows_are_no_canary(folder):
    """With `--only-changed` the canary is made of rows that changed."""
    write(folder, *((f"c-{n}", f"{n}", LATER) for n in range(20)))
    refusing = Refusing("bad")
    changes = ChangesConfig(only_changed=True)
    async with sandbox_with(refusing) as sandbox:
        await night(config_of(sandbox, folder, changes=changes, canary=4))
        values = {12: "bad", 13: "x", 14: "y", 15: "z"}
        write(folder, *((f"c-{n}", values.get(n, f"{n}"), LATER) for n in range(20)))
        config = config_of(sandbox, folder, changes=changes, canary=2, run_dir=folder / "second")
        sent(refusing)
        with pytest.raises(RunStopped, match="1 of the first 2 rows FAILED"):
            await night(config, days_later=1)
        assert sent(refusing) == ["x"]
        assert attributes(sandbox, "c-14") == {"a": "14"}


async def test_a_canary_that_goes_well_is_not_noticed(folder):
    """Every row has its result, and each was sent once; also where there are fewer rows."""
    write(folder, *((f"c-{n}", f"{n}", LATER) for n in range(12)))
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        for name, canary in (("few", 3), ("all", 12), ("more", 100)):
            config = config_of(sandbox, folder, canary=canary, run_dir=folder / name)
            summary = await night(config)
            assert summary.outcomes["UPDATED"] == 12
            assert sorted(sent(refusing), key=int) == [f"{n}" for n in range(12)]


# --- The oldest first


async def test_the_oldest_go_first_and_a_contact_keeps_its_order(folder):
    """By the day on which a contact is forgotten; its soonest day holds for all of its rows."""
    write(
        folder,
        ("new", "1", "2026-02-01"),
        ("middle", "2", "2025-02-01"),
        ("unknown", "3", ""),
        ("old", "4", "2024-06-01"),
        ("middle-too", "5", "2025-02-01"),
        ("old", "6", "2026-02-01"),
    )
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, order="oldest-first", max_in_flight=1)
        summary = await night(config)
        # Both rows of the contact as one request, or one after the other.
        assert sent(refusing)[-4:] == ["2", "5", "1", "3"]
        assert attributes(sandbox, "old") == {"a": "6"}
    assert outcomes(summary) == dict.fromkeys(range(1, 7), "UPDATED")
    assert len(ledger_of(summary)) == 6


async def test_oldest_first_goes_on_where_it_stopped(folder):
    """Told to stop in the middle: before and after together, each row once and in order."""
    days = [(n * 7) % 40 for n in range(40)]  # each of forty days once
    write(
        folder,
        *((f"c-{n}", f"{day}", forgotten_in((day + 1) * 86_400)) for n, day in enumerate(days)),
        ("broken",),
    )
    refusing, stop = Refusing(), asyncio.Event()
    refusing.also = lambda: stop.set() if len(refusing.seen) >= 15 else None
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, order="oldest-first", max_in_flight=1)
        first = await night(config, stop)
        half = sent(refusing)
        assert first.state == "interrupted"
        assert 15 <= len(half) <= 18
        refusing.also = lambda: None
        second = await night(config)
        assert half + sent(refusing) == [f"{day}" for day in range(40)]
    assert (second.outcomes["UPDATED"], second.outcomes["INVALID"]) == (40, 1)
    assert len(ledger_of(second)) == 41


async def test_without_dates_oldest_first_sends_nothing(folder):
    """The mapping does not say how old contacts are: refused before the first request."""
    (folder / "mapping.yaml").write_text(UNDATED)
    write(folder, ("c-1", "1", LATER))
    async with sandbox_with(Refusing()) as sandbox:
        with pytest.raises(ConfigError, match="contact_started"):
            await night(config_of(sandbox, folder, order="oldest-first"))
        assert sandbox.state.instances == {}


# --- What Connect has forgotten


async def test_a_contact_that_is_forgotten_is_not_sent_to(folder):
    """24 months are over: SKIPPED with `expired`; a second before, it is sent."""
    write(
        folder,
        ("gone", "1", forgotten_in(-1)),
        ("now", "2", forgotten_in(0)),
        ("soon", "3", forgotten_in(600)),
        ("unknown", "4", ""),
    )
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        summary = await night(config_of(sandbox, folder))
        assert sorted(sent(refusing)) == ["3", "4"]
    skipped = [record for record in ledger_of(summary) if record["outcome"] == "SKIPPED"]
    assert sorted((record["row"], record["error_code"]) for record in skipped) == [
        (1, "expired"),
        (2, "expired"),
    ]
    assert {record["contact_id"] for record in skipped} == {"gone", "now"}


@pytest.mark.parametrize("only_changed", [False, True])
async def test_a_contact_that_is_forgotten_before_its_turn_is_not_sent_to(folder, only_changed):
    """At one request in ten seconds a contact with 45 s left is reached in time, or not at all."""
    write(folder, *((f"c-{n}", f"{n}", forgotten_in(45 if n > 1 else 900)) for n in range(12)))
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        config = config_of(
            sandbox,
            folder,
            pacing=PacingConfig(rate=0.1),
            max_in_flight=1,
            changes=ChangesConfig(only_changed=only_changed),
        )
        summary = await night(config)
        reached = sent(refusing)
    assert 2 < len(reached) < 10
    assert reached == [f"{n}" for n in range(len(reached))]
    assert summary.outcomes["UPDATED"] == len(reached)
    assert summary.outcomes["SKIPPED"] == 12 - len(reached)
    codes = {record["row"]: record.get("error_code") for record in ledger_of(summary)}
    assert [row for row, code in codes.items() if code == "expired"] == list(
        range(len(reached) + 1, 13)
    )
    if only_changed:
        assert await remembered(folder) == {f"c-{n}": False for n in range(len(reached))}


async def test_a_retry_does_not_send_to_what_is_forgotten_by_then(folder):
    """Two rows FAILED; a day later one contact is forgotten: SKIPPED, `expired`, no request."""
    write(folder, ("soon", "bad", forgotten_in(3600)), ("later", "bad", LATER))
    refusing = Refusing("bad")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        assert (await night(config)).outcomes["FAILED"] == 2
        refusing.codes.clear()
        summary = await retry(config, now=lambda: NOW.timestamp() + 86_400)
        assert sent(refusing) == ["bad"]
        assert sandbox.counters["update_contact_attributes"].received == 3
    assert outcomes(summary) == {1: "SKIPPED", 2: "UPDATED"}
    assert (summary.outcomes["SKIPPED"], summary.outcomes["UPDATED"]) == (1, 1)
    last = {record["row"]: record for record in ledger_of(summary)}
    assert last[1]["error_code"] == "expired"


async def test_what_is_forgotten_leaves_no_mark(folder):
    """A contact that nothing was sent to is not in doubt, and not known."""
    write(folder, ("gone", "1", "2020-01-01"), ("here", "2", LATER))
    async with sandbox_with(Refusing()) as sandbox:
        changes = ChangesConfig(only_changed=True)
        summary = await night(config_of(sandbox, folder, changes=changes))
    assert outcomes(summary) == {1: "SKIPPED", 2: "UPDATED"}
    assert await remembered(folder) == {"here": False}


async def remembered(folder: Path) -> dict[str, bool]:
    """Each contact that anything is known of, and whether it is in doubt."""

    def read() -> dict[str, bool]:
        with State.read_only(folder / "runs" / "state.sqlite") as state:
            return {known.contact_id: known.in_doubt for known in state.rows()}

    return await asyncio.to_thread(read)
