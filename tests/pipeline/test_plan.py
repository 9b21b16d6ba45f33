"""What `plan` says of the pace: what a run would believe, without one."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import (
    DOCUMENTED_BURST,
    ChangesConfig,
    ConnectionConfig,
    PacingConfig,
    RunConfig,
)
from bulk_updater.connect import AppliedQuotas
from bulk_updater.errors import SourceError
from bulk_updater.learnt import Learnt, LearntQuotas
from bulk_updater.model import QuotaOrigin
from bulk_updater.pipeline import plan, run
from bulk_updater.pipeline.job import OpenedJob
from bulk_updater.pipeline.threads import entered_in_thread
from bulk_updater.readers.delimited import DelimitedSource
from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.state import State

from .helpers import INSTANCE, config_for, fast, people, write_export

if TYPE_CHECKING:
    from pathlib import Path

ATTRIBUTES = "update_contact_attributes"
# The package has a function of this name.
MODULE = importlib.import_module("bulk_updater.pipeline.plan")


def config_of(folder: Path) -> RunConfig:
    return RunConfig(
        mapping=folder / "mapping.yaml",
        sources=(folder / "export.csv",),
        runs_dir=folder / "runs",
        connection=ConnectionConfig(region="eu-west-1"),
    )


async def plan_against(sandbox: Sandbox, folder, **settings):
    return await asyncio.to_thread(plan, config_for(sandbox, folder, **settings))


@pytest.mark.looptime
async def test_a_plan_counts_with_the_quota_that_applies(folder):
    """Service Quotas says 20 and is asked once: 16 a second, for as long as that takes."""
    write_export(folder, people(160))
    async with Sandbox(SandboxConfig(rate_per_s=20)) as sandbox:
        made = await plan_against(sandbox, folder, pacing=PacingConfig())
        assert sandbox.counters["get_service_quota"].received == 1
        assert "update_contact_attributes" not in sandbox.counters or (
            sandbox.counters["update_contact_attributes"].received == 0
        )
    (operation,) = made.operations
    assert operation.pace == "at most 16/s, 80 % of the applied quota of 20/s"
    assert (operation.quota_per_s, operation.origin) == (20.0, QuotaOrigin.APPLIED)
    assert (operation.ceiling_per_s, operation.unread) == (16.0, None)
    assert made.takes_s == operation.takes_s == 10.0
    assert operation.at_other_quotas == ()


@pytest.mark.looptime
async def test_a_plan_that_may_not_read_the_quota_says_so(folder):
    """Denied: the documented quota, and why, and no fault."""
    write_export(folder, people(80))
    async with Sandbox(fast(quotas_denied=True)) as sandbox:
        made = await plan_against(sandbox, folder, pacing=PacingConfig(exclusive=True))
    (operation,) = made.operations
    assert operation.pace == (
        "at most 10/s, all of the documented quota of 10/s; what applies to the account could not "
        "be read: the role lacks servicequotas:GetServiceQuota"
    )
    assert made.takes_s == 8.0


@pytest.mark.looptime
async def test_a_plan_for_a_rate_that_was_named_asks_nobody(folder):
    """Nothing reaches Service Quotas, and a raised quota would change nothing."""
    write_export(folder, people(100))
    async with Sandbox(fast()) as sandbox:
        made = await plan_against(sandbox, folder, pacing=PacingConfig(rate=0.02))
        assert sandbox.counters["get_service_quota"].received == 0
    (operation,) = made.operations
    assert (operation.pace, made.takes_s) == ("at most 0.02/s, as --rate says", 5000.0)
    assert operation.at_other_quotas == ()


@pytest.mark.looptime
async def test_a_plan_begins_from_what_a_run_learnt(folder):
    """Under `--rate auto` it counts with what stands in the file, and writes nothing to it."""
    write_export(folder, people(100))
    path = folder / "runs" / "quotas.json"
    async with Sandbox(fast()) as sandbox:
        kept = LearntQuotas(path, account="local", region=sandbox.url)
        learnt = Learnt(rate_per_s=25.0, burst=None, learnt_at=time.time())
        await asyncio.to_thread(kept.save, {ATTRIBUTES: learnt})
        before = path.read_bytes()
        made = await plan_against(sandbox, folder, pacing=PacingConfig(rate="auto"))
        assert path.read_bytes() == before
    (found,) = made.operations
    assert (found.origin, found.ceiling_per_s, found.initial_rate_per_s) == ("learnt", None, 20.0)
    assert found.pace == (
        "begins from the 25/s that an earlier run found, finds out how much there is, and takes "
        "80 % of it"
    )
    assert made.takes_s == 5.0


def test_a_long_plan_has_the_times_at_larger_quotas(folder, monkeypatch):
    """100 rows at a quota of 0.01: three and a half hours, and what larger quotas would do."""
    write_export(folder, people(100))

    async def read(_config, operations):
        rates = dict.fromkeys((operation.name for operation in operations), 0.01)
        return AppliedQuotas(rates, "123456789012", None, "eu-west-1")

    monkeypatch.setattr(MODULE, "read_quotas", read)
    made = plan(config_of(folder))
    (operation,) = made.operations
    assert made.account_id == "123456789012"
    assert operation.pace == (
        "at most 0.008/s, 80 % of the quota of 0.01/s that applies to account 123456789012"
    )
    assert made.takes_s == 12_500.0
    assert [each.rate_per_s for each in operation.at_other_quotas] == [0.02, 0.05, 0.1]
    assert [each.takes_s for each in operation.at_other_quotas] == [6250.0, 2500.0, 1250.0]
    assert operation.quota_code == "L-F001E5ED"


def test_a_plan_without_credentials_is_made_all_the_same(folder):
    """Nobody can be asked: the documented quota, and why."""
    write_export(folder, people(80))
    made = plan(config_of(folder))
    assert made.account_id is None
    assert made.operations[0].unread == "there are no AWS credentials"
    assert made.takes_s == 10.0


def test_invalid_rows_are_grouped_by_what_is_wrong_and_where(folder, monkeypatch):
    """Each group has all its rows, over frames and sources, the first five by number, no cell."""
    monkeypatch.setitem(DelimitedSource.__init__.__kwdefaults__, "max_frame_rows", 16)
    sources = []
    for name, first in (("a.csv", 1), ("b.csv", 101)):
        rows = people(100, first)
        for row in rows[10:90:2]:
            row[0] = ""
        for row in rows[91:94]:
            row[0] = "Planted-Cell" * 30
        rows[95:97] = [["Planted-Cell"]] * 2
        rows[98][1] = "open"
        sources.append(write_export(folder, rows, name))
    made = plan(replace(config_of(folder), sources=tuple(sources), pacing=PacingConfig(rate=1)))
    (operation,) = made.operations
    assert (made.n_rows, [n for _, n in made.sources]) == (200, [100, 100])
    empty, too_long, torn = operation.invalid  # the largest first
    assert (empty.rule, empty.member, empty.columns) == (
        "empty_id",
        "InitialContactId",
        ("Contact",),
    )
    assert (empty.n_rows, empty.first_rows) == (80, [11, 13, 15, 17, 19])
    assert (too_long.rule, too_long.n_rows, too_long.first_rows) == (
        "too_long", 6, [92, 93, 94, 192, 193],
    )  # fmt: skip
    assert (torn.member, torn.n_rows, torn.first_rows) == (None, 4, [96, 97, 196, 197])
    for group in operation.invalid:
        assert group.example.startswith(f"row {group.first_rows[0]}")
        assert "Planted" not in group.example
    assert (operation.n_invalid, sum(operation.skipped.values())) == (90, 2)
    assert operation.n_requests == made.takes_s == 200 - 90 - 2
    assert operation.example["InitialContactId"] == "contact-1"


def test_warnings_are_told_before_a_row_is_looked_at(folder, monkeypatch):
    """What a mapping is warned of may hold the plan up, so it is said first, and in the plan."""
    write_export(folder, people(3))
    mapping = folder / "nothing.yaml"
    mapping.write_text(f'update_contact:\n  InstanceId: {INSTANCE}\n  ContactId: "{{Contact}}"\n')
    told, mapped_frames = [], OpenedJob.mapped_frames

    def note(job):
        told.append("a row is looked at")
        return mapped_frames(job)

    monkeypatch.setattr(OpenedJob, "mapped_frames", note)
    made = plan(replace(config_of(folder), mapping=mapping), warn=told.append)
    assert told == [*made.warnings, "a row is looked at"]
    assert len(made.warnings) == 1


def test_a_plan_of_nothing_to_send_has_no_example_and_takes_no_time(folder):
    """Every row INVALID: no request to show, no payload, no seconds."""
    write_export(folder, [["", *row[1:]] for row in people(3)])
    (operation,) = plan(config_of(folder)).operations
    assert (operation.n_requests, operation.n_invalid, operation.takes_s) == (0, 3, 0.0)
    assert (operation.example, operation.max_payload_bytes) == (None, 0)


def test_a_source_that_cannot_be_read_does_not_wait_for_the_quota(folder, monkeypatch):
    """The error is told at once, though nobody has answered yet."""
    packed = folder / "export.csv.gz"
    whole = gzip.compress(write_export(folder, people(5000)).read_bytes())
    packed.write_bytes(whole[: len(whole) // 2])
    answered = threading.Event()

    async def read(_config, _operations):
        await asyncio.to_thread(answered.wait)
        return AppliedQuotas({}, None, "nobody answered")

    monkeypatch.setattr(MODULE, "read_quotas", read)
    with pytest.raises(SourceError):
        plan(replace(config_of(folder), sources=(packed,)))
    answered.set()


@pytest.mark.looptime
async def test_a_plan_of_what_changed_counts_what_a_run_would_send(folder):
    """3 of 100 rows changed: 3 requests and 97 unchanged, nothing is sent, nothing written down."""
    changes = ChangesConfig(only_changed=True)
    rows = people(100)
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        first = await plan_against(sandbox, folder, changes=changes)
        assert (first.operations[0].n_requests, first.operations[0].n_unchanged) == (100, 0)
        assert not (folder / "runs" / "state.sqlite").exists()
        await run(config_for(sandbox, folder, changes=changes, run_dir=folder / "first"))
        for row in (4, 40, 99):
            rows[row][2] = "silver"
        write_export(folder, rows)
        kept = (folder / "runs" / "state.sqlite").read_bytes()
        made = await plan_against(
            sandbox, folder, changes=changes, pacing=PacingConfig(rate=1), run_dir=folder / "second"
        )
        (operation,) = made.operations
        assert (operation.n_requests, operation.n_unchanged, made.takes_s) == (3, 97, 3.0)
        assert made.warnings == ()
        assert (await plan_against(sandbox, folder)).operations[0].n_requests == 100
        assert sandbox.counters[ATTRIBUTES].received == 100
    assert (folder / "runs" / "state.sqlite").read_bytes() == kept
    assert not (folder / "second").exists()


STALE = f"""
contact_started: {{column: Started}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    a: "{{A}}"
"""


def write_stale(folder: Path, now: float, *rows: tuple[str, float | None]) -> None:
    """An export of values with the seconds that Connect keeps each row's contact for from now on;
    None: it is not known."""
    (folder / "mapping.yaml").write_text(STALE)
    at = datetime.fromtimestamp(now, UTC)
    began = (
        "" if left_s is None else (at + timedelta(seconds=left_s)).replace(year=2024).isoformat()
        for _, left_s in rows
    )
    lines = [f"c-{n},{a},{s}" for n, ((a, _), s) in enumerate(zip(rows, began, strict=True))]
    (folder / "export.csv").write_text("\n".join(["Contact,A,Started", *lines, ""]))


@pytest.mark.looptime
@pytest.mark.parametrize(("order", "n_expired"), [("file", 102), ("oldest-first", 22)])
async def test_a_plan_counts_what_is_forgotten_before_its_turn(
    folder, monkeypatch, order, n_expired
):
    """As SKIPPED with `expired`, without time for it; a run comes to the same, but for its burst.

    One a second: what has 80 s left stands behind 100 others, or goes first.
    """
    now = datetime(2026, 3, 1, 8, tzinfo=UTC).timestamp()
    left = [None, *[50 * 86_400.0] * 99, -1.0, 0.0, *[80.0] * 100]
    write_stale(folder, now, *((f"{n}", left_s) for n, left_s in enumerate(left)))
    monkeypatch.setattr(MODULE, "time", SimpleNamespace(time=lambda: now))
    loop = asyncio.get_running_loop()
    settings = {"pacing": PacingConfig(rate=1.0), "order": order, "max_in_flight": 1}
    async with Sandbox(fast()) as sandbox:
        made = await plan_against(sandbox, folder, **settings)
        began_s = now - loop.time()
        summary = await run(
            config_for(sandbox, folder, **settings), now=lambda: began_s + loop.time()
        )
    (operation,) = made.operations
    assert operation.skipped["expired"] == n_expired
    assert (operation.n_requests, made.takes_s) == (202 - n_expired, 202.0 - n_expired)
    assert n_expired - DOCUMENTED_BURST <= summary.outcomes["SKIPPED"] <= n_expired
    assert summary.outcomes["UPDATED"] == 202 - summary.outcomes["SKIPPED"]


@pytest.mark.looptime
async def test_the_oldest_of_one_day_go_as_they_stand(folder, monkeypatch):
    """By the day, as a run sends them: what has 5 s left waits for what stands before it."""
    now = datetime(2026, 3, 1, 8, tzinfo=UTC).timestamp()
    monkeypatch.setattr(MODULE, "time", SimpleNamespace(time=lambda: now))
    write_stale(folder, now, ("a", 86_400.0), ("b", 65.0), ("c", 5.0), ("d", None))
    async with Sandbox(fast()) as sandbox:
        made = await plan_against(
            sandbox, folder, pacing=PacingConfig(rate=0.1), order="oldest-first"
        )
    (operation,) = made.operations
    assert (operation.n_requests, operation.skipped["expired"]) == (3, 1)


@pytest.mark.looptime
async def test_what_is_unchanged_takes_no_turn_of_what_is_forgotten_soon(folder, monkeypatch):
    """Behind 20 unchanged rows the only changed one is sent first, and in time."""
    now = datetime(2026, 3, 1, 8, tzinfo=UTC).timestamp()
    rows = [(f"{n}", 900.0) for n in range(20)]
    write_stale(folder, now, *rows, ("last", 15.0))
    monkeypatch.setattr(MODULE, "time", SimpleNamespace(time=lambda: now))
    changes = ChangesConfig(only_changed=True)
    async with Sandbox(fast()) as sandbox:
        await run(config_for(sandbox, folder, changes=changes), now=lambda: now)
        write_stale(folder, now, *rows, ("changed", 15.0))
        settings = {"pacing": PacingConfig(rate=0.1), "run_dir": folder / "second"}
        (told,) = (await plan_against(sandbox, folder, changes=changes, **settings)).operations
        (all_of_them,) = (await plan_against(sandbox, folder, **settings)).operations
    assert (told.n_requests, told.n_unchanged, told.skipped["expired"]) == (1, 20, 0)
    assert (all_of_them.n_requests, all_of_them.skipped["expired"]) == (20, 1)


@pytest.mark.looptime
async def test_a_plan_beside_a_run_reads_what_is_remembered(folder):
    """The run has the state file; the plan looks at it all the same, and waits for nobody."""
    changes = ChangesConfig(only_changed=True)
    write_export(folder, people(20))
    async with Sandbox(fast()) as sandbox:
        await run(config_for(sandbox, folder, changes=changes))
        async with entered_in_thread(State.open(folder / "runs" / "state.sqlite")):
            made = await plan_against(sandbox, folder, changes=changes)
    assert (made.operations[0].n_requests, made.operations[0].n_unchanged) == (0, 20)


@pytest.mark.parametrize("account", [None, "123456789012"])
def test_a_plan_that_cannot_tell_what_is_unchanged_counts_all(folder, monkeypatch, account):
    """Nobody says which account it is, or the file is no state: one warning that says which."""
    write_export(folder, people(10))
    path = folder / "runs" / "state.sqlite"
    path.parent.mkdir()
    if account is None:
        with State.open(path):
            pass
    else:
        path.write_text("no state")

    async def read(_config, operations):
        rates = dict.fromkeys((operation.name for operation in operations), 10.0)
        return AppliedQuotas(rates, account, None, "eu-west-1")

    monkeypatch.setattr(MODULE, "read_quotas", read)
    made = plan(replace(config_of(folder), changes=ChangesConfig(only_changed=True)))
    assert (made.operations[0].n_requests, made.operations[0].n_unchanged) == (10, 0)
    told = [each for each in made.warnings if each.startswith("What is unchanged cannot be told")]
    assert len(told) == 1
    assert ("account" if account is None else str(path)) in told[0]
