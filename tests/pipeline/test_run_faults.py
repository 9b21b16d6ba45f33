"""Runs whose source, directory or own arithmetic turns out not to be as it should."""

from __future__ import annotations

import gzip
import importlib
import json
import logging
import stat
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import ConnectionConfig, PacingConfig, RunConfig
from bulk_updater.connect import AppliedQuotas, CredentialsEnd, Receipt
from bulk_updater.errors import RunStopped
from bulk_updater.mapping.mapped import MappedFrame
from bulk_updater.pipeline import execution, run, sending
from bulk_updater.pipeline.job import survey
from bulk_updater.sandbox import Sandbox

from .helpers import INSTANCE, config_for, fast, ledger_of, people, read_table, write_export

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.model import Request

pytestmark = pytest.mark.looptime


@pytest.fixture
def after_the_survey(monkeypatch):
    """Does something to the sources between the first reading and the second."""

    def does(change: Callable[[], object]) -> None:
        def surveyed(opened, **settings):
            job = survey(opened, **settings)
            change()
            return job

        monkeypatch.setattr(execution, "survey", surveyed)

    return does


# ----------------------------------------------------------------------------------------------
# The source


async def test_a_source_that_gains_rows_while_it_is_read_stops_the_run(folder, after_the_survey):
    """7 rows when they were counted, 10 when they are read: none is sent, and none is owed."""
    path = write_export(folder, people(7))
    after_the_survey(lambda: write_export(folder, people(10)))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, path)
        with pytest.raises(
            RunStopped, match=r"source changed.*7 rows at first, more now"
        ) as stopped:
            await run(config)
        assert sandbox.counters["update_contact_attributes"].received == 0
    assert stopped.value.summary.unsettled == 7


async def test_a_source_that_loses_rows_while_it_is_read_stops_the_run(folder, after_the_survey):
    """What is left of it was sent and has its results; the run is not taken for a whole one."""
    path = write_export(folder, people(10))
    after_the_survey(lambda: write_export(folder, people(7)))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder)
        with pytest.raises(RunStopped, match=r"source changed.*10 rows at first, 7 now") as stopped:
            await run(config)
        assert sandbox.counters["update_contact_attributes"].accepted == 7
    summary = stopped.value.summary
    assert (summary.state, summary.outcomes["UPDATED"], summary.unsettled) == ("stopped", 7, 3)
    assert sorted(record["row"] for record in ledger_of(summary)) == list(range(1, 8))
    assert path.exists()


async def test_a_source_that_breaks_off_while_it_is_read_stops_the_run(folder, after_the_survey):
    """Half of a packed export: no usage error any more, and every row that was sent is settled."""
    packed = folder / "export.csv.gz"
    whole = gzip.compress(write_export(folder, people(20)).read_bytes())
    packed.write_bytes(whole)
    after_the_survey(lambda: packed.write_bytes(whole[: len(whole) // 2]))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, packed)
        with pytest.raises(RunStopped, match=r"export\.csv\.gz") as stopped:
            await run(config)
        accepted = sandbox.counters["update_contact_attributes"].accepted
        assert stopped.value.summary.outcomes["UPDATED"] == accepted < 20
        assert stopped.value.summary.unsettled == 20 - accepted
        # Whole again, the same command settles the rest.
        packed.write_bytes(whole)
        after_the_survey(lambda: None)
        assert (await run(config)).outcomes["UPDATED"] == 20
        assert sandbox.counters["update_contact_attributes"].accepted == 20


# ----------------------------------------------------------------------------------------------
# The results


async def test_results_that_do_not_add_up_are_never_taken_for_a_finished_run(folder, monkeypatch):
    """A row that was lost on the way is our fault and said to be; the next run sends it."""
    write_export(folder, people(5))
    entries = MappedFrame.entries

    def lossy(frame, *settings, **named):
        return (entry for entry in entries(frame, *settings, **named) if entry.row != 3)

    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder)
        with monkeypatch.context() as patched:
            patched.setattr(MappedFrame, "entries", lossy)
            with pytest.raises(RunStopped, match=r"5 are due, and there are 4.*report") as stopped:
                await run(config)
        assert (stopped.value.summary.state, stopped.value.summary.unsettled) == ("stopped", 1)
        again = await run(config)
        assert sandbox.counters["update_contact_attributes"].accepted == 5
    assert (again.state, again.unsettled) == ("finished", 0)


async def test_a_failed_csv_that_cannot_be_written_stops_a_run_whose_results_are_whole(folder):
    """It is said and can be mended; the same command then writes it, and sends nothing again."""
    rows = people(6)
    rows[4][0] = ""
    write_export(folder, rows)
    blocked = folder / "run" / "failed.csv"
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        await run(config_for(sandbox, folder, run_dir=folder / "run", limit=3))
        blocked.mkdir()
        with pytest.raises(RunStopped, match="failed rows cannot be written") as stopped:
            await run(config)
        summary = stopped.value.summary
        assert (summary.state, summary.failed, summary.unsettled) == ("stopped", None, 0)
        assert summary.outcomes == {
            "UPDATED": 5,
            "FAILED": 0,
            "INVALID": 1,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        blocked.rmdir()
        again = await run(config)
        assert sandbox.counters["update_contact_attributes"].received == 5
    assert [row["_row"] for row in read_table(Path(again.failed))] == ["5"]
    assert stat.S_IMODE(blocked.stat().st_mode) == 0o600


async def test_failed_rows_are_written_once_each_whatever_failed_and_however_many(
    folder, monkeypatch
):
    """More than are held at once, from two of three sources, by one operation or by both."""
    monkeypatch.setattr(importlib.import_module("bulk_updater.pipeline.failed"), "_AT_ONCE", 2)
    sources = []
    for name, first, failing in (("a.csv", 1, 3), ("b.csv", 11, 0), ("c.csv", 21, 2)):
        rows = people(10, first)
        for row in rows[:failing]:
            row[0] = ""
        sources.append(write_export(folder, rows, name))
    async with Sandbox(fast()) as sandbox:
        settings = {"mapping": folder / "both.yaml", "run_dir": folder / "run"}
        summary = await run(config_for(sandbox, folder, *sources, **settings))
    assert summary.outcomes == {
        "UPDATED": 50,
        "FAILED": 0,
        "INVALID": 10,
        "SKIPPED": 0,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    failed = read_table(Path(summary.failed))
    assert [row["_row"] for row in failed] == ["1", "2", "3", "21", "22"]
    for row in failed:
        assert row["_operation"] == "update_contact_attributes; update_contact"
        assert row["_outcome"] == "INVALID; INVALID"
        assert row["Number"] == f"{int(row['_row']):05d}"


async def test_rows_that_are_not_sent_are_settled_however_many_they_are(folder):
    """1,500 rows without a contact between three with one: 1,503 results, three requests."""
    rows = people(1503)
    for row in rows:
        row[0] = row[0] if row[0] in {"contact-1", "contact-700", "contact-1503"} else ""
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
        assert sandbox.counters["update_contact_attributes"].received == 3
    assert summary.outcomes == {
        "UPDATED": 3,
        "FAILED": 0,
        "INVALID": 1500,
        "SKIPPED": 0,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    assert sorted(record["row"] for record in ledger_of(summary)) == list(range(1, 1504))


# ----------------------------------------------------------------------------------------------
# What is said before anything is sent


async def test_a_mapping_that_is_unusual_is_warned_of_once(folder, caplog):
    """A mapping that writes nothing skips every row; the log says so, with file and line."""
    write_export(folder, people(3))
    mapping = folder / "nothing.yaml"
    mapping.write_text(f'update_contact:\n  InstanceId: {INSTANCE}\n  ContactId: "{{Contact}}"\n')
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder, mapping=mapping))
        assert sandbox.counters["update_contact"].received == 0
    assert summary.outcomes["SKIPPED"] == 3
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "nothing.yaml, line 2: update_contact names nothing to write" in warning.getMessage()


@dataclass
class _Aws:
    """Connect in AWS, whose account nobody tells."""

    endpoint_url: str = "https://connect.eu-west-1.amazonaws.com"
    credentials_end: CredentialsEnd = field(default_factory=CredentialsEnd)
    n_sent: int = 0

    async def read_quotas(self, _operations) -> AppliedQuotas:
        return AppliedQuotas({}, None, "the role lacks servicequotas:GetServiceQuota", "eu-west-1")

    async def send(self, _request: Request) -> Receipt:
        self.n_sent += 1
        return Receipt(f"request-{self.n_sent}", 200)

    def advise(self, *_args, **_about) -> str:
        pytest.fail("nothing stops this run")


@pytest.mark.parametrize(
    ("rate", "level"), [("auto", logging.INFO), ("quota", logging.DEBUG), (100, logging.DEBUG)]
)
async def test_a_run_that_can_keep_nothing_of_what_it_finds_says_so(
    folder, monkeypatch, caplog, rate, level
):
    """The account is not known: who searches is told, who was given a rate may look it up."""
    write_export(folder, people(3))
    aws = _Aws()

    @asynccontextmanager
    async def opened(_connection, **_settings):
        yield aws

    monkeypatch.setattr(sending, "open_connect", opened)
    caplog.set_level(logging.DEBUG)
    config = RunConfig(
        mapping=folder / "mapping.yaml",
        sources=(folder / "export.csv",),
        runs_dir=folder / "runs",
        connection=ConnectionConfig(region="eu-west-1"),
        pacing=PacingConfig(rate=rate),
    )
    summary = await run(config)
    assert (summary.outcomes["UPDATED"], aws.n_sent) == (3, 3)
    levels = [each.levelno for each in caplog.records if "is not kept" in each.getMessage()]
    assert levels == [level]
    assert not (folder / "runs" / "quotas.json").exists()
    noted = json.loads((Path(summary.ledger).parent / "run.json").read_text())
    assert noted["target"] == "aws"
