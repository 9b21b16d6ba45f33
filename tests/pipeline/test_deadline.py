"""Deadlines and windows of whole runs, in virtual time. All in all 10 s."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bulk_updater.config import ConnectionConfig, PacingConfig, RunConfig, ScheduleConfig
from bulk_updater.errors import ConfigError, LedgerLocked, RunStopped, TransientError
from bulk_updater.ledger import RunDir
from bulk_updater.model import Progress
from bulk_updater.pipeline import execution, run
from bulk_updater.pipeline.control import CTL
from bulk_updater.pipeline.deadline import WINDOW, DeadlinePassed, Watch, attempt_s, steering
from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.schedule import parse_until, parse_window
from tests.pipeline.fakes import attributes_request

from .helpers import config_for, fast, ledger_of, people, write_export

pytestmark = pytest.mark.looptime

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


class Clock:
    """A wall clock that begins at a moment, goes with the loop, and can be moved."""

    def __init__(self, text: str) -> None:
        self.off_s = at(text)
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> float:
        return self.off_s + self._loop.time()  # asked for in threads, too


def scheduled(sandbox: Sandbox, folder: Path, rate: float = 1.0, **schedule) -> RunConfig:
    """A run with an answer within 80 s or none: 60 to connect, 20 to read."""
    if "until" in schedule and isinstance(schedule["until"], str):
        schedule["until"] = parse_until(schedule["until"] + " Europe/Berlin")
    if "window" in schedule:
        schedule["window"] = parse_window(schedule["window"] + " Europe/Berlin")
    return config_for(
        sandbox,
        folder,
        pacing=PacingConfig(rate=rate),
        schedule=ScheduleConfig(**schedule),
    )


def moments(records: list[dict], key: str = "started_at") -> list[float]:
    return sorted(datetime.fromisoformat(record[key]).timestamp() for record in records)


def noted(summary) -> dict:
    return json.loads((Path(summary.ledger).parent / "run.json").read_text())


async def test_the_rows_that_do_not_fit_are_left_for_the_next_night(folder):
    """From 80 seconds before six nothing begins, all that began is settled, and exactly the rows
    that are left are sent the next night by the same command."""
    write_export(folder, people(100))
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, 0.1, until="06:00")
        first = await run(config, now=Clock("2026-06-02T05:45:00"))
        assert first.state == "deadline"
        assert first.resume == config.command
        records = ledger_of(first)
        n_first = first.outcomes["UPDATED"]
        assert n_first == len(records) == sandbox.counters["update_contact_attributes"].received
        assert n_first == pytest.approx(82, abs=3)
        assert max(moments(records)) < at("2026-06-02T05:58:40")
        assert sorted(each["row"] for each in records) == list(range(1, n_first + 1))
        assert first.unsettled == 100 - n_first
        assert noted(first)["in_doubt"] == 0
        second = await run(config, now=Clock("2026-06-02T22:00:00"))
        assert second.state == "finished"
        assert second.unsettled == 0
        assert sandbox.counters["update_contact_attributes"].received == 100
    assert sorted(each["row"] for each in ledger_of(second)) == list(range(1, 101))
    assert moments(ledger_of(second)[n_first:])[0] >= at("2026-06-02T22:00:00")


async def test_what_is_done_in_time_is_finished(folder):
    """A run whose rows are settled before its deadline is finished, and does not wait for it."""
    write_export(folder, people(10))
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, until="06:00", for_s=3600.0)
        summary = await run(config, now=Clock("2026-06-02T05:45:00"))
        assert (summary.state, summary.resume) == ("finished", None)
        again = await run(config, now=Clock("2026-06-02T05:45:00"))
        assert again.state == "finished"
    assert asyncio.get_running_loop().time() < 60


@pytest.mark.parametrize(
    ("schedule", "n_sent"),
    [
        ({"for_s": 300.0}, 27),  # the margin is a tenth
        ({"for_s": 3600.0, "until": "05:55"}, 54),
        ({"until": "05:44"}, 60),  # has just passed: tomorrow's
    ],
)
async def test_how_long_it_sends(folder, schedule, n_sent):
    """The earlier of two deadlines counts, less its margin, at most a tenth of the time."""
    write_export(folder, people(60))
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, 0.1, **schedule)
        summary = await run(config, now=Clock("2026-06-02T05:45:00"))
    assert summary.state == ("deadline" if n_sent < 60 else "finished")
    assert summary.outcomes["UPDATED"] == pytest.approx(n_sent, abs=3)


async def test_what_hangs_at_the_deadline_is_given_up(folder):
    """Requests that Connect never answers are cut off at the deadline itself: their rows have no
    result, and count as perhaps sent; the next execution sends them."""
    write_export(folder, people(5))
    loop = asyncio.get_running_loop()
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, for_s=600.0, rate=100.0)
        slow = SandboxConfig(rate_per_s=1e5, burst=1e5, latency_ms=100_000_000)
        async with Sandbox(slow) as hanging:
            waits_for_ever = replace(
                config.connection, endpoint_url=hanging.url, read_timeout_s=None
            )
            summary = await run(
                replace(config, connection=waits_for_ever, run_dir=folder / "here"),
                now=Clock("2026-06-02T05:00:00"),
            )
            assert loop.time() == pytest.approx(600, abs=2)
            assert (summary.state, summary.unsettled) == ("deadline", 5)
            assert summary.attempts == 5
            assert noted(summary)["in_doubt"] == 5
            assert ledger_of(summary) == []
        again = replace(config, run_dir=folder / "here")
        assert (await run(again, now=Clock("2026-06-02T06:00:00"))).state == "finished"
        assert sandbox.counters["update_contact_attributes"].accepted == 5


@pytest.mark.parametrize("for_s", [1e-6, 100.0])
async def test_a_deadline_before_the_first_request(folder, monkeypatch, for_s):
    """While rows are still being counted: nothing is sent, and it is said why."""
    write_export(folder, people(5))

    async def never(_work):
        await asyncio.Event().wait()

    monkeypatch.setattr(execution, "in_abandoned_thread", never)
    async with Sandbox(fast()) as sandbox:
        with pytest.raises(RunStopped, match="deadline came before") as stopped:
            await run(scheduled(sandbox, folder, for_s=for_s), now=Clock("2026-06-02T05:00:00"))
        assert isinstance(stopped.value.__cause__, DeadlinePassed)
        assert stopped.value.summary is None
        assert sandbox.counters["update_contact_attributes"].received == 0
    assert not (folder / "runs").exists()


async def test_a_moment_that_has_passed_is_refused(folder):
    """A date and time in the past is a mistake, and is said before anything is read."""
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, until=at("2026-06-01T06:00:00"))
        with pytest.raises(ConfigError, match="has passed"):
            await run(config, now=Clock("2026-06-02T05:00:00"))


async def test_a_window_is_waited_for_again_and_again(folder):
    """One process over two nights: every attempt begins within the window, none in its last 80
    seconds, and in the end every row is settled, once."""
    write_export(folder, people(80))
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, rate=0.004, window="22:00-02:00")
        summary = await run(config, now=Clock("2026-06-01T12:00:00"))
        assert summary.state == "finished"
        assert sandbox.counters["update_contact_attributes"].received == 80
    records = ledger_of(summary)
    nights = [(at(f"2026-06-0{day}T22:00"), at(f"2026-06-0{day + 1}T01:58:40")) for day in (1, 2)]
    began = moments(records)
    assert len(began) == 80
    n_by_night = [sum(begin <= each < end for each in began) for begin, end in nights]
    assert n_by_night == [pytest.approx(0.004 * 14_320, abs=4), 80 - n_by_night[0]]
    assert sum(n_by_night) == 80


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28", 3), ("2026-10-24", 5), ("2026-06-01", 4)]
)
async def test_a_night_in_which_the_clock_is_moved(folder, day, hours):
    """From 23:00 to 03:00 Berlin time is an hour less in March and an hour more in October, and a
    run sends from the window's first second to its margin."""
    write_export(folder, people(100))
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, rate=0.005, window="23:00-03:00", for_s=20 * 3600.0)
        summary = await run(config, now=Clock(f"{day}T12:00:00"))
        assert summary.state == "deadline"
    began = moments(ledger_of(summary))
    assert began[0] == pytest.approx(at(f"{day}T23:00:00"), abs=1)
    assert began[-1] - began[0] == pytest.approx(hours * 3600 - 80, abs=250)
    assert len(began) == pytest.approx((hours * 3600 - 80) * 0.005, abs=4)


async def test_while_it_waits_for_its_window(folder):
    """The run directory is locked, the run says what it waits for, nothing is asked of anybody,
    and being told to stop is obeyed at once."""
    write_export(folder, people(5))
    stop, progress = asyncio.Event(), Progress()
    async with Sandbox(fast()) as sandbox:
        config = replace(scheduled(sandbox, folder, window="22:00-06:00"), run_dir=folder / "here")
        going = asyncio.create_task(
            run(config, stop=stop, now=Clock("2026-06-01T12:00:00"), progress=progress)
        )
        await asyncio.sleep(3 * 3600)
        with pytest.raises(LedgerLocked):
            await asyncio.to_thread(RunDir.open(folder / "here").__enter__)
        assert progress.results_total == 5
        stop.set()
        summary = await going
        assert (summary.state, summary.attempts) == ("interrupted", 0)
        assert asyncio.get_running_loop().time() == pytest.approx(3 * 3600, abs=2)
        assert sandbox.counters["update_contact_attributes"].received == 0


async def test_a_deadline_that_comes_before_the_window(folder):
    """Where the window would not open before the deadline, nothing is waited for."""
    write_export(folder, people(5))
    async with Sandbox(fast()) as sandbox:
        config = scheduled(sandbox, folder, window="22:00-06:00", for_s=3600.0)
        with pytest.raises(RunStopped) as stopped:
            await run(config, now=Clock("2026-06-01T12:00:00"))
        assert isinstance(stopped.value.__cause__, DeadlinePassed)
    assert asyncio.get_running_loop().time() < 2


# ----------------------------------------------------------------------------------------------
# The watch by itself


def config_of(**schedule) -> RunConfig:
    return RunConfig(
        mapping=Path("mapping.yaml"),
        sources=(Path("export.csv"),),
        connection=ConnectionConfig(connect_timeout_s=10.0, read_timeout_s=20.0),
        schedule=ScheduleConfig(**schedule),
    )


async def test_a_suspended_machine():
    """A clock that jumps ahead while the loop slept is noticed within half a minute of the loop's
    time, at the deadline and in the window."""
    clock = Clock("2026-06-01T21:00:00")
    window = parse_window("22:00-23:00 Europe/Berlin")
    async with steering(
        config_of(window=window, for_s=5 * 3600.0), stop=asyncio.Event(), now=clock
    ) as watch:
        await asyncio.sleep(60)
        assert watch.helm.pauses == [WINDOW]
        clock.off_s += 3600
        await asyncio.sleep(30.1)
        assert watch.helm.pauses == []
        clock.off_s -= 3600  # and corrected
        await asyncio.sleep(30.1)
        assert watch.helm.pauses == [WINDOW]
        clock.off_s += 4 * 3600 + 1800
        await asyncio.sleep(30.1)
        assert watch.helm.stop.is_set()
        assert watch.helm.met_deadline


async def test_a_deadline_after_ctrl_c():
    """Who was told to stop first was interrupted, whatever the clock says afterwards."""
    stop = asyncio.Event()
    async with steering(
        config_of(for_s=100.0), stop=stop, now=Clock("2026-06-01T21:00:00")
    ) as watch:
        await asyncio.sleep(50)
        stop.set()
        await asyncio.sleep(100)
        assert watch.helm.stop.is_set()
        assert not watch.helm.met_deadline
    stop = asyncio.Event()
    stop.set()
    async with steering(config_of(), stop=stop, now=Clock("2026-06-01T21:00:00")) as watch:
        assert watch.helm.stop.is_set()


async def test_a_pause_of_a_person_outlasts_the_window():
    """When the window opens, a run that a person has paused stays paused."""
    clock = Clock("2026-06-01T21:00:00")
    window = parse_window("22:00-23:00 Europe/Berlin")
    async with steering(config_of(window=window), stop=asyncio.Event(), now=clock) as watch:
        watch.helm.pause(CTL)
        assert watch.helm.pauses == [CTL, WINDOW]
        going = asyncio.create_task(watch.helm.until_it_goes())
        await asyncio.sleep(3700)
        assert watch.helm.pauses == [CTL]
        assert not going.done()
        watch.helm.resume(CTL)
        await going


async def test_what_is_cut_off():
    """An attempt that hangs ends at the deadline as one whose answer was lost; one that failed by
    itself, be it for a timeout, keeps its error; without a deadline nothing is wrapped."""
    clock = Clock("2026-06-01T21:00:00")
    request = attributes_request(1, "c")

    async def hang(_request):
        await asyncio.sleep(1e6)

    async def time_out(_request):
        raise TimeoutError("its own")

    assert Watch(config_of(), now=clock).cutting(hang) is hang
    async with steering(config_of(for_s=100.0), stop=asyncio.Event(), now=clock) as watch:
        with pytest.raises(TimeoutError, match="its own"):
            await watch.cutting(time_out)(request)
        with pytest.raises(TransientError) as cut:
            await watch.cutting(hang)(request)
        assert cut.value.code == "DeadlinePassed"
        assert asyncio.get_running_loop().time() == pytest.approx(100.0, abs=0.01)


@pytest.mark.parametrize(("connect_s", "read_s", "takes_s"), [(5.0, 7.0, 12.0), (None, 7.0, None)])
async def test_how_long_an_attempt_may_take(connect_s, read_s, takes_s):
    """As long as it may take to connect and to be answered; without a limit, for ever."""
    connection = ConnectionConfig(connect_timeout_s=connect_s, read_timeout_s=read_s)
    assert attempt_s(connection) == (float("inf") if takes_s is None else takes_s)
