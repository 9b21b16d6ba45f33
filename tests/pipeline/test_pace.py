"""The pace of whole runs: whose word on the quota they take, and what they leave for the next."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bulk_updater.config import PacingConfig
from bulk_updater.learnt import Learnt, LearntQuotas
from bulk_updater.model import Progress, QuotaOrigin
from bulk_updater.pipeline import run
from bulk_updater.sandbox import Sandbox, SandboxConfig

from .helpers import config_for, fast, people, write_export

pytestmark = pytest.mark.looptime

ATTRIBUTES, CONTACT = "update_contact_attributes", "update_contact"
AUTO = PacingConfig(rate="auto", exclusive=True)
# What is known for certain is not looked for so soon.
MORE_THAN_IT_SAYS = SandboxConfig(rate_per_s=5, burst=6, applied_quota_per_s=2)
NOW = 1_790_000_000.0


async def load(folder: Path, sandbox: Sandbox) -> dict[str, Learnt]:
    """What is kept for this sandbox."""
    kept = LearntQuotas(folder / "runs" / "quotas.json", account="local", region=sandbox.url)
    return await asyncio.to_thread(kept.load)


async def save(path: Path, sandbox: Sandbox, rate_per_s: float, learnt_at: float = NOW) -> None:
    """Keep a rate for this sandbox, as a run does."""
    kept = LearntQuotas(path, account="local", region=sandbox.url)
    learnt = Learnt(rate_per_s=rate_per_s, burst=None, learnt_at=learnt_at)
    await asyncio.to_thread(kept.save, {ATTRIBUTES: learnt})


def note_of(summary) -> dict:
    return json.loads((Path(summary.ledger).parent / "run.json").read_text())


def most_in_a_second(sandbox: Sandbox) -> int:
    starts = sorted(write.started_s for write in sandbox.state.log)
    return max(sum(begin <= moment < begin + 1 for moment in starts) for begin in starts)


async def test_the_quota_that_applies_is_read_and_its_share_taken(folder, caplog):
    """Service Quotas says 20: at most 16 a second, from the first second on, and it is said."""
    write_export(folder, people(160))
    progress = Progress()
    async with Sandbox(SandboxConfig(rate_per_s=20, burst=30)) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig())
        with caplog.at_level("INFO", logger="bulk_updater"):
            summary = await run(config, progress=progress)
        assert sandbox.counters["get_service_quota"].received == 1
        assert most_in_a_second(sandbox) <= 16 + 2
    (pace,) = summary.pace
    assert (pace.quota_per_s, pace.origin, pace.ceiling_per_s) == (20.0, QuotaOrigin.APPLIED, 16.0)
    assert (pace.started, pace.throttled, pace.found) == (160, 0, None)
    assert pace.started_per_s == pytest.approx(16, abs=0.5)
    assert (progress.ceiling_per_s, progress.allowed_per_s()) == (16.0, 16.0)
    assert f"{ATTRIBUTES}: at most 16/s, 80 % of the applied quota of 20/s." in caplog.messages
    assert not (folder / "runs" / "quotas.json").exists()


async def test_a_quota_that_may_not_be_read_is_the_documented_one_and_it_is_said_why(
    folder, caplog
):
    """Denied: 80 % of the documented 10, though the service would take more."""
    write_export(folder, people(80))
    async with Sandbox(fast(quotas_denied=True)) as sandbox:
        with caplog.at_level("INFO", logger="bulk_updater"):
            summary = await run(config_for(sandbox, folder, pacing=PacingConfig()))
        assert most_in_a_second(sandbox) <= 8 + 2
    assert summary.pace[0].origin is QuotaOrigin.DOCUMENTED
    assert (
        f"{ATTRIBUTES}: at most 8/s, 80 % of the documented quota of 10/s; what applies to the "
        "account could not be read: the role lacks servicequotas:GetServiceQuota."
    ) in caplog.messages


async def test_a_rate_that_was_named_asks_nobody(folder, caplog):
    """`--rate 5`: Service Quotas hears nothing, and the log says whose word it is."""
    write_export(folder, people(20))
    async with Sandbox(fast()) as sandbox:
        with caplog.at_level("INFO", logger="bulk_updater"):
            summary = await run(config_for(sandbox, folder, pacing=PacingConfig(rate=5)))
        assert sandbox.counters["get_service_quota"].received == 0
        assert most_in_a_second(sandbox) <= 5 + 2
    assert summary.pace[0].ceiling_per_s == 5
    assert f"{ATTRIBUTES}: at most 5/s, as --rate says." in caplog.messages


async def test_nothing_is_asked_where_nothing_is_left_to_send(folder):
    """A finished run again: no question, no pace, and run.json still has the first one's."""
    write_export(folder, people(5))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig())
        first = await run(config)
        again = await run(config)
        assert sandbox.counters["get_service_quota"].received == 1
    assert again.pace == ()
    assert len(note_of(first)["pace"]) == 1


async def test_two_operations_have_a_pace_each(folder, caplog):
    """Each at 80 % of its own quota, the ceiling of the run is their sum."""
    write_export(folder, people(64))
    progress = Progress()
    async with Sandbox(SandboxConfig()) as sandbox:
        config = config_for(sandbox, folder, mapping=folder / "both.yaml", pacing=PacingConfig())
        with caplog.at_level("INFO", logger="bulk_updater"):
            summary = await run(config, progress=progress)
        assert sandbox.counters["get_service_quota"].received == 2
    assert [(pace.operation, pace.ceiling_per_s, pace.started) for pace in summary.pace] == [
        (ATTRIBUTES, 8.0, 64),
        (CONTACT, 8.0, 64),
    ]
    assert progress.ceiling_per_s == 16.0
    said = [line for line in caplog.messages if "at most 8/s" in line]
    assert [line.partition(":")[0] for line in said] == [ATTRIBUTES, CONTACT]


async def test_what_a_run_found_is_kept_and_the_next_begins_from_it(folder, caplog):
    """Service Quotas says 2, there are 5: the first run finds out, the second begins with 5."""
    write_export(folder, people(500))
    write_export(folder, people(20), "tomorrow.csv")
    progress = Progress()
    async with Sandbox(MORE_THAN_IT_SAYS) as sandbox:
        config = config_for(sandbox, folder, pacing=AUTO)
        first = await run(config, progress=progress)
        learnt = await load(folder, sandbox)
        tomorrow = replace(config, sources=(folder / "tomorrow.csv",))
        with caplog.at_level("INFO", logger="bulk_updater"):
            second = await run(tomorrow)
    (pace,) = first.pace
    assert (pace.quota_per_s, pace.origin, pace.ceiling_per_s) == (2.0, QuotaOrigin.APPLIED, None)
    assert pace.found.rate_per_s == pytest.approx(5, rel=0.02)
    assert pace.throttled == first.throttled > 0
    assert progress.ceiling_per_s is None
    assert learnt[ATTRIBUTES].rate_per_s == pytest.approx(pace.found.rate_per_s, rel=1e-4)
    assert second.pace[0].origin is QuotaOrigin.LEARNT
    assert second.pace[0].quota_per_s == learnt[ATTRIBUTES].rate_per_s
    (said,) = [line for line in caplog.messages if "begins from" in line]
    assert said.endswith(
        "/s that an earlier run found, finds out how much there is, and takes all of it."
    )


async def test_what_was_found_is_saved_while_the_run_goes_on(folder):
    """Two minutes into a run it is there already: one that is killed loses a minute."""
    write_export(folder, people(900))
    async with Sandbox(MORE_THAN_IT_SAYS) as sandbox:
        running = asyncio.create_task(run(config_for(sandbox, folder, pacing=AUTO)))
        await asyncio.sleep(125)
        assert not running.done()
        assert (await load(folder, sandbox))[ATTRIBUTES].rate_per_s == pytest.approx(5, rel=0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    ("age_s", "origin", "quota_per_s"),
    [
        (29 * 86_400, QuotaOrigin.LEARNT, 7.0),
        (31 * 86_400, QuotaOrigin.APPLIED, 12.0),
    ],
)
async def test_what_was_learnt_is_forgotten_after_thirty_days(folder, age_s, origin, quota_per_s):
    """Within, it comes first; then Service Quotas does again."""
    write_export(folder, people(5))
    async with Sandbox(fast(applied_quota_per_s=12)) as sandbox:
        await save(folder / "runs" / "quotas.json", sandbox, 7.0, NOW - age_s)
        summary = await run(config_for(sandbox, folder, pacing=AUTO), now=lambda: NOW)
    assert (summary.pace[0].origin, summary.pace[0].quota_per_s) == (origin, quota_per_s)


@pytest.mark.parametrize(
    ("learnt_per_s", "begins_per_s"), [(1e-6, 0.1), (7.0, 7.0), (1e9, 10_000.0)]
)
async def test_a_search_begins_within_reason(folder, learnt_per_s, begins_per_s):
    """Whatever stands in the file, it begins between 0.1 and 10,000 a second."""
    write_export(folder, people(1))
    async with Sandbox(fast()) as sandbox:
        await save(folder / "mine.json", sandbox, learnt_per_s)
        config = config_for(sandbox, folder, pacing=AUTO, quota_file=folder / "mine.json")
        summary = await run(config, now=lambda: NOW)
    assert summary.pace[0].quota_per_s == begins_per_s


async def test_only_a_search_begins_from_what_was_learnt(folder):
    """`--rate quota` takes the word of Service Quotas, whatever the file says."""
    write_export(folder, people(5))
    async with Sandbox(fast(applied_quota_per_s=12)) as sandbox:
        await save(folder / "runs" / "quotas.json", sandbox, 7.0)
        config = config_for(sandbox, folder, pacing=PacingConfig())
        summary = await run(config, now=lambda: NOW)
    assert summary.pace[0].quota_per_s == 12.0


async def test_a_rehearsal_neither_reads_nor_keeps(folder):
    """`--sandbox` leaves no file, though it found out, and an earlier one is as it was."""
    write_export(folder, people(500))
    path = folder / "runs" / "quotas.json"
    async with Sandbox(MORE_THAN_IT_SAYS) as sandbox:
        config = replace(config_for(sandbox, folder, pacing=AUTO), sandbox=True)
        summary = await run(config)
        assert summary.pace[0].found is not None
        assert not path.exists()
        await save(path, sandbox, 7.0)
        before = path.read_bytes()
        again = await run(replace(config, fresh=True, limit=3), now=lambda: NOW)
        assert again.pace[0].origin is QuotaOrigin.APPLIED
        assert path.read_bytes() == before


async def test_a_named_rate_keeps_what_it_found_where_the_target_is_known_for_free(folder):
    """`--rate 8 --exclusive` against 5 a second finds the 5; nobody was asked for an account."""
    write_export(folder, people(500))
    async with Sandbox(SandboxConfig(rate_per_s=5, burst=6)) as sandbox:
        pacing = PacingConfig(rate=8, exclusive=True)
        await run(config_for(sandbox, folder, pacing=pacing))
        assert sandbox.counters["get_service_quota"].received == 0
        assert (await load(folder, sandbox))[ATTRIBUTES].rate_per_s == pytest.approx(5, rel=0.02)


async def test_a_resumed_run_keeps_the_pace_of_the_earlier_ones(folder):
    """run.json has an entry for each execution that sent, and their figures add up."""
    write_export(folder, people(60))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        times = iter(range(10**9, 2 * 10**9))
        for limit in (20, 50, None):
            summary = await run(replace(config, limit=limit), now=lambda: float(next(times)))
    note = note_of(summary)
    assert [sum(entry["operations"][0]["started"]) for entry in note["pace"]] == [20, 30, 10]
    assert [len(entry["operations"]) for entry in note["pace"]] == [1, 1, 1]
    began = [entry["began_at"] for entry in note["pace"]]
    assert began == sorted(set(began))
    assert began[0].startswith("2001-09-09T")
    (series,) = note["pace"][0]["operations"]
    assert series["operation"] == ATTRIBUTES
    assert len(series["started"]) == len(series["throttled"]) == len(series["allowed_per_s"])
    assert note["summary"]["pace"][0]["started"] == 10


async def test_a_run_that_was_stopped_leaves_its_pace_too(folder):
    """Interrupted after ten seconds: what it sent until then is in run.json."""
    write_export(folder, people(500))
    stop = asyncio.Event()
    async with Sandbox(SandboxConfig()) as sandbox:
        asyncio.get_running_loop().call_later(10, stop.set)
        summary = await run(config_for(sandbox, folder, pacing=PacingConfig()), stop=stop)
    (entry,) = note_of(summary)["pace"]
    assert sum(entry["operations"][0]["started"]) == summary.attempts == summary.pace[0].started


@pytest.mark.parametrize(
    ("pacing", "says"),
    [
        (
            PacingConfig(),
            [
                "at most 0.08/s, 80 % of the applied quota of 0.1/s.",
                "up to 300 requests to go, which take 1 h 2 min at 0.08/s.",
                (
                    "with a quota of 0.2/s 31 min 15 s, 0.5/s 12 min 30 s, 1/s 6 min 15 s. AWS "
                    "raises it on request; its code is L-F001E5ED."
                ),
            ],
        ),
        # What was named is not raised by AWS.
        (
            PacingConfig(rate=0.05),
            [
                "at most 0.05/s, as --rate says.",
                "up to 300 requests to go, which take 1 h 40 min at 0.05/s.",
            ],
        ),
        (PacingConfig(exclusive=True), ["at most 0.1/s, all of the applied quota of 0.1/s."]),
    ],
)
async def test_before_more_than_an_hour_the_time_is_said_and_what_would_shorten_it(
    folder, caplog, pacing, says
):
    """The time at this pace, at three larger quotas, and the code to ask AWS for; else no word."""
    write_export(folder, people(300))
    async with Sandbox(SandboxConfig(applied_quota_per_s=0.1)) as sandbox:
        stop = asyncio.Event()
        with caplog.at_level("INFO", logger="bulk_updater"):
            running = asyncio.create_task(
                run(config_for(sandbox, folder, pacing=pacing), stop=stop)
            )
            while not sandbox.counters[ATTRIBUTES].received:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)
            stop.set()
            await running
    said = [line for line in caplog.messages if line.startswith(ATTRIBUTES)]
    assert said == [f"{ATTRIBUTES}: {each}" for each in says]


async def test_an_unusable_quota_file_costs_a_warning_and_no_row(folder, caplog):
    """A directory in its place: the run finishes all the same."""
    write_export(folder, people(5))
    (folder / "taken").mkdir()
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, pacing=AUTO, quota_file=folder / "taken")
        summary = await run(config)
    assert summary.outcomes["UPDATED"] == 5
    assert [line for line in caplog.messages if "taken cannot be read" in line]
