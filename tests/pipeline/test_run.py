"""Whole runs against the sandbox: real sockets, virtual time, and the service's state."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bulk_updater.config import ConnectionConfig, MaxFailures, PacingConfig, ScheduleConfig
from bulk_updater.errors import (
    ConfigError,
    LedgerLocked,
    LedgerMismatch,
    MappingError,
    RunStopped,
    SourceError,
)
from bulk_updater.model import FAILED_COLUMNS, Progress
from bulk_updater.pipeline import run
from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.sandbox.faults import CONFLICT, DROP_AFTER, ERROR, HTML, Fault
from bulk_updater.schedule import parse_window

from .helpers import (
    HEADER,
    INSTANCE,
    MAPPING,
    attributes,
    config_for,
    fast,
    ledger_of,
    people,
    read_table,
    write_export,
    write_table,
)

pytestmark = pytest.mark.looptime


async def test_every_row_has_its_result_and_the_service_its_values(folder):
    """300 rows, one of them filtered: 299 contacts updated as mapped, 300 results."""
    rows = people(300)
    rows[9][1] = "open"
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
        assert summary.state == "finished"
        assert summary.outcomes == {
            "UPDATED": 299,
            "FAILED": 0,
            "INVALID": 0,
            "SKIPPED": 1,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        assert attributes(sandbox, "contact-7") == {
            "tier": "gold",
            "name": "Ada Nr 7",
            "number": "00007",
        }
        assert sandbox.counters["update_contact_attributes"].accepted == 299
    records = ledger_of(summary)
    assert sorted(record["row"] for record in records) == list(range(1, 301))
    assert {record["run_id"] for record in records} == {summary.run_id}


async def test_both_operations_of_a_row_have_a_result_each(folder):
    """Two operations, ten rows: twenty results, and both kinds of state at the service."""
    write_export(folder, people(10))
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder, mapping=folder / "both.yaml"))
        assert summary.outcomes["UPDATED"] == 20
        assert sandbox.state.contact(INSTANCE, "contact-3").name == "Nr 3"
        assert attributes(sandbox, "contact-3")["name"] == "Ada Nr 3"
    assert len({(record["row"], record["operation"]) for record in ledger_of(summary)}) == 20


async def test_rows_of_one_contact_end_in_file_order(folder):
    """Fifty rows for five contacts: the last row of each stands, whatever was merged."""
    rows = [[f"contact-{row % 5}", "done", "", "A", f"{row}", f"{row}"] for row in range(1, 51)]
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
        assert summary.outcomes["UPDATED"] == 50
        for contact in range(5):
            last = max(row for row in range(1, 51) if row % 5 == contact)
            assert attributes(sandbox, f"contact-{contact}")["number"] == str(last)
        writes = list(sandbox.state.log)
    for contact in range(5):
        spans = [
            (w.started_s, w.finished_s) for w in writes if w.contact_id == f"contact-{contact}"
        ]
        assert all(ended <= begun for (_, ended), (begun, _) in pairwise(spans))


async def test_row_numbers_run_on_through_several_sources(folder):
    """Three rows here and two there are rows 1 to 5, and each names its source."""
    first = write_export(folder, people(3), "january.csv")
    packed = folder / "february.csv.gz"
    packed.write_bytes(gzip.compress(write_export(folder, people(2, first=4)).read_bytes()))
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder, first, packed))
    records = {record["row"]: record for record in ledger_of(summary)}
    assert [records[row]["source"] for row in range(1, 6)] == [str(first)] * 3 + [str(packed)] * 2


async def test_the_same_command_again_sends_nothing(folder, caplog):
    """A finished run says that all is done, and the service hears nothing."""
    write_export(folder, people(20))
    async with Sandbox(fast()) as sandbox:
        first = await run(config_for(sandbox, folder))
        with caplog.at_level("INFO", logger="bulk_updater"):
            again = await run(config_for(sandbox, folder))
        assert sandbox.counters["update_contact_attributes"].received == 20
    assert (again.run_id, again.outcomes, again.attempts) == (first.run_id, first.outcomes, 0)
    assert "All 20 rows are settled; there is nothing to send." in caplog.text


async def test_a_resumed_run_sends_exactly_what_is_unsettled_and_says_so_first(folder, caplog):
    """After 40 of 100 rows: 60 requests, and a line that gives the three figures."""
    write_export(folder, people(100))
    async with Sandbox(fast()) as sandbox:
        await run(config_for(sandbox, folder, limit=40, run_dir=folder / "run"))
        with caplog.at_level("INFO", logger="bulk_updater"):
            summary = await run(config_for(sandbox, folder, run_dir=folder / "run"))
        assert sandbox.counters["update_contact_attributes"].received == 100
    assert summary.outcomes["UPDATED"] == 100
    # The run before settled all that it sent: nothing is in doubt.
    assert "40 of 100 rows are settled, 60 to go.\n" in caplog.text


async def test_a_resume_says_how_many_requests_may_have_been_sent_already(folder, caplog):
    """Cancelled twice with three slots: up to three, then up to six; finished: none are left."""
    write_export(folder, people(100))
    async with Sandbox(SandboxConfig(latency_ms=2000)) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run", max_in_flight=3)
        for n_in_doubt in (0, 3, 6):
            caplog.clear()
            with caplog.at_level("INFO", logger="bulk_updater"):
                task = asyncio.create_task(run(config))
                await asyncio.sleep(9)
            told = f"to go; up to {n_in_doubt} requests may have been sent already."
            assert (told in caplog.text) == bool(n_in_doubt)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # A run of one row says nothing of the others.
        await run(replace(config, limit=1))
        assert json.loads((folder / "run" / "run.json").read_bytes())["in_doubt"] == 9
        await run(config)
    assert json.loads((folder / "run" / "run.json").read_bytes())["in_doubt"] == 0


async def test_what_was_tried_and_never_answered_is_in_doubt(folder, caplog):
    """Told to stop while two requests hang: their answers never come, and the resume says two."""
    write_export(folder, people(100))
    hang = Fault(kind="hang", drop=True, delay_s=60)
    stop = asyncio.Event()

    def script(_operation, members):
        return hang if members["InitialContactId"] in ("contact-1", "contact-7") else None

    async with Sandbox(fast(), fault=script) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        asyncio.get_running_loop().call_later(5, stop.set)
        assert (await run(config, stop=stop)).unsettled == 2
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        with caplog.at_level("INFO", logger="bulk_updater"):
            await run(config)
    assert "98 of 100 rows are settled, 2 to go; up to 2 requests may have been" in caplog.text


async def test_being_told_to_stop_settles_what_is_under_way(folder):
    """A stop in the middle leaves whole results only, and the next run the rest."""
    write_export(folder, people(200))
    stop = asyncio.Event()
    async with Sandbox(SandboxConfig()) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig())
        asyncio.get_running_loop().call_later(5, stop.set)
        summary = await run(config, stop=stop)
        assert summary.state == "interrupted"
        settled = summary.outcomes["UPDATED"]
        assert 0 < settled < 200
        assert summary.unsettled == 200 - settled
        assert summary.resume == "bulk-updater run mapping.yaml export.csv"
        # Nothing was applied that has no result.
        assert len(sandbox.state.log) == settled == len(ledger_of(summary))
        summary = await run(config)
        assert summary.outcomes["UPDATED"] == 200
        assert len(sandbox.state.log) == 200


async def test_cancelling_leaves_a_ledger_that_goes_on(folder):
    """A run that is cancelled at once can be resumed; the end state is the whole export's."""
    write_export(folder, people(100))
    async with Sandbox(SandboxConfig()) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig())
        task = asyncio.create_task(run(config))
        await asyncio.sleep(4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        summary = await run(config)
        assert summary.outcomes["UPDATED"] == 100
        assert all(attributes(sandbox, f"contact-{row}") for row in range(1, 101))
        # At most what was in flight was sent twice.
        assert len(sandbox.state.log) <= 100 + 32


async def test_throttling_and_faults_lose_no_row(folder):
    """With a tenth of all answers wrong in four ways, 200 rows are UPDATED all the same."""
    write_export(folder, people(200))
    config = SandboxConfig(
        rate_per_s=50,
        burst=20,
        live_per_s=10,
        error_share=0.04,
        html_share=0.02,
        drop_before_share=0.02,
        drop_after_share=0.02,
        seed=3,
    )
    async with Sandbox(config) as sandbox:
        summary = await run(config_for(sandbox, folder, pacing=PacingConfig(rate=60)))
        counters = sandbox.counters["update_contact_attributes"]
        assert sum(counters.faults.values()) > 0
        assert counters.throttled > 0
    assert summary.outcomes["UPDATED"] == 200
    assert summary.throttled == counters.throttled
    assert sum(record.get("throttled", 0) for record in ledger_of(summary)) == summary.throttled


@pytest.mark.parametrize("fault", [ERROR, HTML, DROP_AFTER])
async def test_a_row_whose_attempts_run_out_is_failed_and_the_others_go_on(folder, fault):
    """One contact that always fails costs eight attempts and its own row, nothing else."""
    write_export(folder, people(10))

    def script(_operation, members):
        return fault if members.get("InitialContactId") == "contact-4" else None

    async with Sandbox(fast(), fault=script) as sandbox:
        summary = await run(config_for(sandbox, folder))
    failed = [record for record in ledger_of(summary) if record["outcome"] == "FAILED"]
    assert [(record["row"], record["attempts"]) for record in failed] == [(4, 8)]
    assert summary.outcomes["UPDATED"] == 9


async def test_conflicts_are_tried_a_few_times(folder):
    """A conflict that does not heal costs four attempts."""
    write_export(folder, people(3))

    def script(operation, members):
        conflict = operation == "update_contact" and members.get("ContactId") == "contact-2"
        return CONFLICT if conflict else None

    async with Sandbox(fast(), fault=script) as sandbox:
        summary = await run(config_for(sandbox, folder, mapping=folder / "both.yaml"))
    (failed,) = [record for record in ledger_of(summary) if record["outcome"] == "FAILED"]
    assert (failed["row"], failed["error_code"], failed["attempts"]) == (2, "ConflictException", 4)


async def test_wrong_credentials_stop_the_run_with_every_row_unsettled(folder):
    """A key that the service does not know: exit by RunStopped, no result, the same run goes on."""
    write_export(folder, people(50))
    async with Sandbox(fast(access_key="another")) as sandbox:
        with pytest.raises(RunStopped) as stopped:
            await run(config_for(sandbox, folder, run_dir=folder / "run"))
        assert stopped.value.summary.unsettled == 50
        assert stopped.value.summary.state == "stopped"
    assert (folder / "run" / "ledger.jsonl").read_bytes() == b""
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder, run_dir=folder / "run"))
    assert summary.outcomes["UPDATED"] == 50


async def test_an_endpoint_that_refuses_the_connection_stops_the_run(folder):
    """Nobody listens: every row stays unsettled, and the message says so."""
    write_export(folder, people(50))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder)
    with pytest.raises(RunStopped) as stopped:
        await run(config)
    assert stopped.value.summary.unsettled == 50


async def test_a_wrong_instance_stops_the_run_after_fifty(folder):
    """A service that knows none of the contacts is noticed by the breaker."""
    rows = [["missing-" + row[0], *row[1:]] for row in people(500)]
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        with pytest.raises(RunStopped, match="50 requests in a row"):
            await run(config_for(sandbox, folder))
        assert sandbox.counters["update_contact_attributes"].received < 50 + 32


async def test_the_first_second_stays_under_a_rate_that_was_named(folder):
    """`--rate 10` means at most 10 a second and two more, from the first second on."""
    write_export(folder, people(100))
    async with Sandbox(fast()) as sandbox:
        await run(config_for(sandbox, folder, pacing=PacingConfig(rate=10)))
        starts = sorted(write.started_s for write in sandbox.state.log)
    for begin in starts:
        assert sum(begin <= moment < begin + 1 for moment in starts) <= 12


async def test_the_default_pace_is_a_share_of_the_quota(folder):
    """100 rows at 8 a second take 12 seconds, and nothing is throttled."""
    write_export(folder, people(100))
    async with Sandbox(SandboxConfig(latency_ms=50)) as sandbox:
        summary = await run(config_for(sandbox, folder, pacing=PacingConfig()))
    assert summary.throttled == 0
    assert summary.took_s == pytest.approx(100 / 8, abs=0.5)


async def test_never_more_requests_open_than_allowed(folder):
    """The service sees at most `max_in_flight` requests at once, and as many as that."""
    write_export(folder, people(200))
    async with Sandbox(fast()) as sandbox:
        await run(config_for(sandbox, folder, max_in_flight=7))
        assert sandbox.counters["update_contact_attributes"].peak_in_flight == 7


async def test_invalid_rows_are_never_sent_and_named_in_failed_csv(folder):
    """Bad rows stand in failed.csv as they were; mended, the same mapping runs them."""
    rows = people(6)
    rows[1][0] = ""
    rows[3][0] = "x" * 300
    rows[4][0] = "missing-5"
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
        assert summary.outcomes == {
            "UPDATED": 3,
            "FAILED": 1,
            "INVALID": 2,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        failed = read_table(Path(summary.failed))
        assert list(failed[0]) == [*HEADER, *FAILED_COLUMNS]
        assert [(row["_row"], row["_outcome"], row["_error_code"]) for row in failed] == [
            ("2", "INVALID", "empty_id"),
            ("4", "INVALID", "too_long"),
            ("5", "FAILED", "ResourceNotFoundException"),
        ]
        assert failed[1]["Contact"] == "x" * 300
        # Mend them, and run the file with the same mapping.
        mended = folder / "mended.csv"
        write_table(mended, [row | {"Contact": f"contact-{row['_row']}"} for row in failed])
        again = await run(config_for(sandbox, folder, mended))
        assert again.outcomes["UPDATED"] == 3
        assert again.failed is None
        assert attributes(sandbox, "contact-5")["number"] == "00005"


async def test_progress_says_why_nothing_is_sent(folder):
    """Outside its window a run that has not begun to send says `window`; after it, nothing."""
    write_export(folder, people(3))
    began_at = dt.datetime(2026, 6, 2, 12, tzinfo=dt.UTC).timestamp()
    clock = asyncio.get_running_loop().time
    began_s = clock()
    progress = Progress()
    async with Sandbox(fast()) as sandbox:
        config = config_for(
            sandbox, folder, schedule=ScheduleConfig(window=parse_window("22:00-06:00 UTC"))
        )
        assert progress.paused() is None
        going = asyncio.create_task(
            run(config, progress=progress, now=lambda: began_at + clock() - began_s)
        )
        await asyncio.sleep(9 * 3600)
        assert (progress.paused(), progress.sent) == ("window", 0)
        summary = await going
    assert summary.outcomes["UPDATED"] == 3
    assert progress.paused() is None


async def test_a_ragged_row_is_invalid_and_stays_so_until_it_is_mended(folder):
    """A short row is that row's result; failed.csv gives it back as unreadable as it was."""
    path = write_export(folder, people(3))
    with path.open("a") as file:
        file.write("contact-4,done\n")
        file.write("contact-5,done,gold,Ada,Nr 5,00005,one,too,many\n")
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
        assert summary.outcomes == {
            "UPDATED": 3,
            "FAILED": 0,
            "INVALID": 2,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        again = await run(config_for(sandbox, folder, Path(summary.failed)))
        assert again.outcomes == {
            "UPDATED": 0,
            "FAILED": 0,
            "INVALID": 2,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }


async def test_another_source_or_mapping_is_refused_in_the_same_directory(folder):
    """A changed export or mapping is another run: refused, and nothing is sent."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        await run(config)
        write_export(folder, people(4))
        with pytest.raises(LedgerMismatch, match="source is not the same"):
            await run(config)
        write_export(folder, people(3))
        (folder / "mapping.yaml").write_text(MAPPING + "    more: '{Tier}'\n")
        with pytest.raises(LedgerMismatch, match="mapping is not the same"):
            await run(config)
        assert sandbox.counters["update_contact_attributes"].received == 3


async def test_a_rehearsal_and_the_real_thing_never_share_a_directory(folder):
    """What was settled on this machine is not settled at AWS."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        await run(config)
        real = config_for(sandbox, folder, run_dir=folder / "run")
        object.__setattr__(real, "connection", ConnectionConfig(region="eu-west-1"))
        with pytest.raises(LedgerMismatch, match="target is not the same"):
            await run(real)


async def test_a_fresh_run_keeps_the_earlier_one_beside_it(folder):
    """`--fresh` sends everything again, into a new ledger, and loses nothing."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        first = await run(config_for(sandbox, folder, run_dir=folder / "run"))
        second = await run(config_for(sandbox, folder, run_dir=folder / "run", fresh=True))
        assert sandbox.counters["update_contact_attributes"].received == 6
    assert first.run_id != second.run_id
    assert len((folder / "run.1" / "ledger.jsonl").read_text().splitlines()) == 3


async def test_two_runs_in_one_directory_the_second_is_refused_at_once(folder):
    """While the first works, the second neither waits nor sends."""
    write_export(folder, people(50))
    async with Sandbox(SandboxConfig()) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig())
        first = asyncio.create_task(run(config))
        await asyncio.sleep(2)
        with pytest.raises(LedgerLocked):
            await run(config)
        assert (await first).outcomes["UPDATED"] == 50
        assert sandbox.counters["update_contact_attributes"].received == 50


async def test_a_missing_column_is_refused_before_anything_is_sent(folder):
    """The mapping's own faults end in MappingError, with nothing received and no run directory."""
    write_export(folder, people(3))
    (folder / "mapping.yaml").write_text(MAPPING.replace("{Number}", "{Nmber}"))
    async with Sandbox(fast()) as sandbox:
        with pytest.raises(MappingError, match='Did you mean "Number"'):
            await run(config_for(sandbox, folder))
        assert "update_contact_attributes" not in sandbox.counters or (
            sandbox.counters["update_contact_attributes"].received == 0
        )
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", SourceError), (b"PAR1\x00\x00", SourceError), (b"a,a\n1,2\n", SourceError)],
)
async def test_a_source_that_cannot_be_read_is_refused(folder, content, error):
    """Empty, cut short or without a usable header: refused before anything is sent."""
    (folder / "export.csv").write_bytes(content)
    async with Sandbox(fast()) as sandbox:
        with pytest.raises(error):
            await run(config_for(sandbox, folder))


async def test_a_header_alone_is_a_finished_run_of_no_rows(folder):
    """Nothing to do is done well."""
    write_export(folder, [])
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
    assert (summary.state, summary.rows_read, summary.unsettled) == ("finished", 0, 0)


async def test_no_credentials_is_said_before_anything_is_sent(folder):
    """Without credentials the run does not begin, and the message says what to set."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder)
        object.__setattr__(
            config, "connection", ConnectionConfig(endpoint_url=sandbox.url, region="eu-west-1")
        )
        with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
            await run(config)


async def test_the_run_directory_is_private_and_says_what_the_run_is(folder):
    """Directories 0700, files 0600, and run.json holds identity, configuration and summary."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
    run_dir = Path(summary.ledger).parent
    assert run_dir.parent == folder / "runs" / "mapping"
    assert run_dir.name.startswith("export-")
    assert run_dir.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in run_dir.iterdir()} == {0o600}
    note = json.loads((run_dir / "run.json").read_text())
    assert note["run_id"] == summary.run_id
    assert note["summary"]["outcomes"]["UPDATED"] == 3
    assert note["configuration"]["max_in_flight"] == 32
    assert "sandbox" not in json.dumps(note["configuration"]["connection"])


async def test_nothing_that_is_written_holds_a_cell(folder, caplog):
    """Markers in every cell but the ids are found in failed.csv and nowhere else."""
    marker = "MARKER-7f3a"
    rows = [
        [f"contact-{row}", f"{marker}s", *[f"{marker}{row}{column}" for column in range(4)]]
        for row in range(1, 6)
    ]
    rows[2][0] = "missing-3"
    rows[3][5] = marker * 4000
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        with caplog.at_level("DEBUG", logger="bulk_updater"):
            summary = await run(config_for(sandbox, folder))
    assert summary.outcomes == {
        "UPDATED": 3,
        "FAILED": 1,
        "INVALID": 1,
        "SKIPPED": 0,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    for path in Path(summary.ledger).parent.iterdir():
        assert (marker in path.read_text()) == (path.name == "failed.csv"), path.name
    assert marker not in caplog.text
    assert marker not in repr(summary)


async def test_progress_counts_what_is_durable(folder):
    """At the end the display's figures are the summary's."""
    write_export(folder, people(30))
    progress = Progress()
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder), progress=progress)
    assert progress.settled == progress.results_total == 30
    assert {name: n for name, n in progress.outcomes.items() if n} == {"UPDATED": 30}
    assert progress.sent == summary.attempts == 30


async def test_max_failures_by_share(folder):
    """More than a tenth of the first thousand FAILED stops the run, successes between or not."""
    rows = people(1000)
    for row in rows[::5]:
        row[0] = "missing-" + row[0]
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, max_failures=MaxFailures(in_a_row=None, share=0.1))
        with pytest.raises(RunStopped, match="101 of the first"):
            await run(config)


async def test_an_endpoint_of_the_environment_is_not_taken_for_aws(folder, monkeypatch):
    """A loopback endpoint that only the environment names is refused, and nothing is sent."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        monkeypatch.setenv("AWS_ENDPOINT_URL", sandbox.url)
        config = config_for(sandbox, folder)
        object.__setattr__(config.connection, "endpoint_url", None)
        with pytest.raises(ConfigError, match="--endpoint-url"):
            await run(config)
        assert sandbox.counters["update_contact_attributes"].received == 0


async def test_a_local_endpoint_is_reached_without_the_proxies_of_the_environment(
    folder, monkeypatch
):
    """A proxy for the way out, which cannot reach this machine, does not stop a rehearsal."""
    write_export(folder, people(3))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
    assert summary.outcomes["UPDATED"] == 3


async def test_a_limit_below_what_is_settled_already_is_a_finished_run(folder):
    """After all of 20 rows, the first five are settled too, and counted alone."""
    write_export(folder, people(20))
    async with Sandbox(fast()) as sandbox:
        await run(config_for(sandbox, folder, run_dir=folder / "run"))
        summary = await run(config_for(sandbox, folder, run_dir=folder / "run", limit=5))
        assert sandbox.counters["update_contact_attributes"].received == 20
    assert (summary.state, summary.outcomes["UPDATED"]) == ("finished", 5)
