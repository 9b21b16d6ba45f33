"""`retry`: failed rows are sent again, and undo nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bulk_updater.config import PacingConfig
from bulk_updater.errors import LedgerLocked, LedgerMismatch, UsageError
from bulk_updater.ledger import RunDir
from bulk_updater.pipeline import run
from bulk_updater.pipeline.again import retry
from bulk_updater.pipeline.threads import entered_in_thread
from bulk_updater.schedule import ScheduleConfig

from .again import MAPPING, Refusing, config_of, export, sandbox_with
from .helpers import INSTANCE, attributes, ledger_of, read_table

pytestmark = pytest.mark.looptime

ATTRIBUTES = "update_contact_attributes"


@pytest.fixture
def folder(folder_again: Path) -> Path:
    return folder_again


def outcomes(summary) -> dict[str, int]:
    return {name: number for name, number in summary.outcomes.items() if number}


def standing(summary) -> dict[int, str]:
    return {each["row"]: each["outcome"] for each in ledger_of(summary)}


def is_there(path: str) -> bool:
    return Path(path).exists()


def lines_of(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines(keepends=True)


def cut(path: str, lines: list[bytes]) -> None:
    Path(path).write_bytes(b"".join(lines))


async def test_a_failed_row_is_sent_again_into_the_same_ledger(folder):
    """One more request and one more line; its row is UPDATED, and failed.csv is gone."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2", "c-3 a=3")
    refusing = Refusing("2")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        first = await run(config)
        assert outcomes(first) == {"UPDATED": 2, "FAILED": 1}
        assert is_there(first.failed)
        refusing.codes.clear()
        again = await retry(config)
        assert sandbox.counters[ATTRIBUTES].received == 4
        assert attributes(sandbox, "c-2") == {"a": "2"}
    assert outcomes(again) == {"UPDATED": 3}
    assert (again.run_id, again.state, again.unsettled) == (first.run_id, "finished", 0)
    assert again.attempts == 1
    lines = ledger_of(again)
    assert [(each["row"], each["outcome"]) for each in lines[3:]] == [(2, "UPDATED")]
    assert {each["run_id"] for each in lines} == {first.run_id}
    assert again.failed is None
    assert not is_there(first.failed)
    noted = json.loads((folder / "run" / "run.json").read_text())
    assert noted["summary"]["outcomes"]["UPDATED"] == 3
    assert (noted["in_doubt"], len(noted["pace"])) == (0, 2)


async def test_a_row_does_not_undo_a_later_one(folder):
    """Of row 1 only the attribute is sent that row 2 of the same contact did not write."""
    export(folder / "export.csv", "c-1 a=old b=kept", "c-1 a=new c=3", "c-2 a=2")
    refusing = Refusing("kept")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        assert outcomes(await run(config)) == {"UPDATED": 2, "FAILED": 1}
        refusing.codes.clear()
        refusing.seen.clear()
        again = await retry(config)
        assert refusing.seen == [{"b": "kept"}]
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "kept", "c": "3"}
    assert outcomes(again) == {"UPDATED": 3}
    line = ledger_of(again)[-1]
    assert (line["row"], line["attribute_names"], line["payload_bytes"]) == (1, ["b"], 5)
    assert "payload_digest" not in line


async def test_a_row_of_which_nothing_is_left_is_superseded_without_a_request(folder):
    """Row 2 wrote all that row 1 would: no attempt, one line, and the state as it was."""
    export(folder / "export.csv", "c-1 a=old", "c-1 a=new b=2")
    refusing = Refusing("old")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        await run(replace(config, limit=1))  # or the two would be merged
        assert outcomes(await run(config)) == {"UPDATED": 1, "FAILED": 1}
        n_before = sandbox.counters[ATTRIBUTES].received
        refusing.codes.clear()
        again = await retry(config)
        assert sandbox.counters[ATTRIBUTES].received == n_before
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "2"}
    assert outcomes(again) == {"UPDATED": 1, "SUPERSEDED": 1}
    line = ledger_of(again)[-1]
    assert (line["row"], line["error_code"]) == (1, "superseded")
    assert "row 2" in line["error"]
    assert again.failed is None


async def test_rows_of_one_contact_keep_their_order_among_themselves(folder):
    """Three failed rows with one attribute end as the last of them says."""
    export(folder / "export.csv", "c-1 a=1", "c-1 a=2 b=2", "c-1 a=3")
    refusing = Refusing("1", "2", "3")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        assert outcomes(await run(config)) == {"FAILED": 3}
        refusing.codes.clear()
        again = await retry(config)
        assert attributes(sandbox, "c-1") == {"a": "3", "b": "2"}
    assert outcomes(again) == {"UPDATED": 3}


async def test_each_operation_is_retried_by_itself(folder):
    """A row whose attributes were UPDATED and whose name FAILED makes one request, for the name."""
    export(folder / "export.csv", "c-2 a=2 n=two", "c-1 a=1 n=one", "c-2 a=3 n=three")
    refusing = Refusing("one", "two")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, mapping=folder / "both.yaml")
        await run(replace(config, limit=1))
        assert outcomes(await run(config)) == {"UPDATED": 4, "FAILED": 2}
        refusing.codes.clear()
        refusing.seen.clear()
        again = await retry(config)
        assert refusing.seen == [{"Name": "one"}]
        assert sandbox.state.contact(INSTANCE, "c-2").name == "three"
    assert outcomes(again) == {"UPDATED": 5, "SUPERSEDED": 1}


async def test_rows_that_were_merged_are_not_undone(folder):
    """Rows 2 and 3 went as one request; row 1, retried, leaves alone what either wrote."""
    export(folder / "export.csv", "c-1 a=old b=old c=own", "c-1 a=3", "c-1 b=4")
    refusing = Refusing("own")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        await run(replace(config, limit=1))
        first = await run(config)
        assert [each.get("merged_into") for each in ledger_of(first)] == [None, 3, None]
        refusing.codes.clear()
        refusing.seen.clear()
        again = await retry(config)
        assert refusing.seen == [{"c": "own"}]
        assert attributes(sandbox, "c-1") == {"a": "3", "b": "4", "c": "own"}
    assert outcomes(again) == {"UPDATED": 3}


async def test_only_some_codes(folder, caplog):
    """Rows with another code stay FAILED, and are counted; a code is compared as a whole."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2", "c-3 a=3")
    refusing = Refusing("1", "2")
    refusing.codes["3"] = "ResourceNotFoundException"
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        assert outcomes(await run(config)) == {"FAILED": 3}
        refusing.codes.clear()
        caplog.set_level(logging.INFO, "bulk_updater")
        nothing = await retry(config, codes=["InvalidRequest"])
        assert outcomes(nothing) == {"FAILED": 3}
        assert nothing.attempts == 0
        assert (
            "Nothing to retry; 3 with other codes left as they are (InvalidRequestException 2, "
            "ResourceNotFoundException 1)."
        ) in caplog.messages
        again = await retry(config, codes=["InvalidRequestException", "Other"])
        assert standing(again) == {1: "UPDATED", 2: "UPDATED", 3: "FAILED"}
        assert outcomes(again) == {"UPDATED": 2, "FAILED": 1}
    assert [row["Contact"] for row in read_table(Path(again.failed))] == ["c-3"]


async def test_a_row_that_fails_again_stands_failed(folder):
    """Its last line counts: one result for it, FAILED, in the ledger, the figures and the file."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2")
    async with sandbox_with(Refusing("1")) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        again = await retry(config)
        assert sandbox.counters[ATTRIBUTES].received == 3
    assert outcomes(again) == {"UPDATED": 1, "FAILED": 1}
    assert (again.state, again.unsettled) == ("finished", 0)
    assert [each["row"] for each in ledger_of(again)].count(1) == 2
    assert len(read_table(Path(again.failed))) == 1


async def test_a_retry_that_is_told_to_stop_is_gone_on_with(folder):
    """What it did not come to stays FAILED on the disk; the same command sends just that."""
    export(folder / "export.csv", *(f"c-{row} a=x{row}" for row in range(1, 31)))
    refusing = Refusing(*(f"x{row}" for row in range(1, 21)))
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, max_in_flight=1)
        assert outcomes(await run(config)) == {"UPDATED": 10, "FAILED": 20}
        refusing.codes.clear()
        refusing.seen.clear()
        stop = asyncio.Event()
        refusing.also = lambda: stop.set() if len(refusing.seen) == 6 else None
        half = await retry(config, stop=stop)
        n_done = len(refusing.seen)
        assert 6 <= n_done <= 8
        assert (half.state, half.unsettled) == ("interrupted", 20 - n_done)
        assert outcomes(half) == {"UPDATED": 10 + n_done}
        assert len(read_table(Path(half.failed))) == 20 - n_done
        refusing.also = lambda: None
        whole = await retry(config)
        assert len(refusing.seen) == 20
    assert outcomes(whole) == {"UPDATED": 30}


async def test_a_retry_keeps_to_its_deadline(folder):
    """Its state is `deadline`; what it did not come to is FAILED as before, and tried again."""
    export(folder / "export.csv", *(f"c-{row} a=x{row}" for row in range(1, 41)))
    refusing = Refusing(*(f"x{row}" for row in range(1, 41)))
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        assert outcomes(await run(config)) == {"FAILED": 40}
        refusing.codes.clear()
        slow = replace(config, pacing=PacingConfig(rate=2), schedule=ScheduleConfig(for_s=10.0))
        clock = asyncio.get_running_loop().time
        began_s = clock()
        night = await retry(slow, now=lambda: 1_800_000_000.0 + clock())
        assert clock() - began_s <= 10.5
        n_sent = len(refusing.seen)
        assert 0 < n_sent < 40
        assert (night.state, night.unsettled) == ("deadline", 40 - n_sent)
        assert outcomes(await retry(config)) == {"UPDATED": 40}
        assert len(refusing.seen) == 40


async def test_a_retry_that_is_killed_is_gone_on_with(folder):
    """From any whole line of its results on, the same command sends what is FAILED there."""
    rows = [f"c-{row % 3} {key}={row}" for row, key in enumerate("abcabcabc", 1)]
    export(folder / "export.csv", *rows)
    refusing = Refusing(*"123456")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        first = await run(config)
        n_lines = len(ledger_of(first))
        refusing.codes.clear()
        shutil.copytree(folder / "run", folder / "before")
        whole = await retry(config)
        expected = {f"c-{at}": attributes(sandbox, f"c-{at}") for at in range(3)}
        lines = lines_of(whole.ledger)
        for n_kept in range(n_lines, len(lines)):
            shutil.rmtree(folder / "run")
            shutil.copytree(folder / "before", folder / "run")
            cut(first.ledger, lines[:n_kept])
            refusing.seen.clear()
            again = await retry(config)
            assert outcomes(again) == {"UPDATED": 9}
            assert sum(map(len, refusing.seen)) == 6 - (n_kept - n_lines)
            for contact, held in expected.items():
                assert attributes(sandbox, contact) == held


async def test_a_retried_row_is_not_undone_by_the_next_retry(folder):
    """What a retry wrote for row 2 stands when row 1, with another code, is retried after it."""
    export(folder / "export.csv", "c-1 a=1 b=1", "c-1 a=2")
    refusing = Refusing("1")
    refusing.codes["2"] = "ResourceNotFoundException"
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        assert outcomes(await run(config)) == {"FAILED": 2}
        refusing.codes.clear()
        await retry(config, codes=["ResourceNotFoundException"])
        again = await retry(config)
        assert attributes(sandbox, "c-1") == {"a": "2", "b": "1"}
    assert outcomes(again) == {"UPDATED": 2}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda at: (at / "mapping.yaml").write_text(MAPPING + "# new\n"), "the mapping is not"),
        (lambda at: export(at / "export.csv", "c-1 a=9"), "the source is not"),
    ],
)
async def test_another_mapping_or_source_is_refused(folder, change, told):
    """Nothing is sent or written; the sentence says what changed, and how to go on with it."""
    export(folder / "export.csv", "c-1 a=1")
    async with sandbox_with(Refusing("1")) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        files = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
        change(folder)
        with pytest.raises(
            UsageError, match=rf"{told} what the run had.*run MAP|run .*failed\.csv"
        ):
            await retry(config)
        assert sandbox.counters[ATTRIBUTES].received == 1
    assert {path.name: path.read_bytes() for path in (folder / "run").iterdir()} == files


async def test_a_run_that_is_not_finished_is_refused(folder):
    """Its own command comes first, and stands at the end of the sentence; nothing is changed."""
    export(folder / "export.csv", *(f"c-{row} a={row}" for row in range(1, 9)))
    refusing = Refusing("1")
    stop = asyncio.Event()
    refusing.also = stop.set
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, max_in_flight=1)
        first = await run(config, stop=stop)
        assert first.unsettled > 0
        noted = (folder / "run" / "run.json").read_bytes()
        n_before = sandbox.counters[ATTRIBUTES].received
        with pytest.raises(UsageError, match=r"not finished, \d results are missing") as refused:
            await retry(config)
        assert sandbox.counters[ATTRIBUTES].received == n_before
    assert refused.value.message.endswith(": bulk-updater run mapping.yaml export.csv")
    assert (folder / "run" / "run.json").read_bytes() == noted


async def test_what_is_no_run_is_refused(folder):
    """A folder without run.json stays as it is, and is no new run's."""
    export(folder / "export.csv", "c-1 a=1")
    (folder / "run").mkdir()
    async with sandbox_with(Refusing()) as sandbox:
        with pytest.raises(UsageError, match=r"no directory of a run"):
            await retry(config_of(sandbox, folder))
    assert list((folder / "run").iterdir()) == []


async def test_a_run_that_is_going_on_is_refused(folder):
    """The lock of its directory is held by the retry, and by nobody else."""
    export(folder / "export.csv", "c-1 a=1")
    async with sandbox_with(Refusing("1")) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        async with entered_in_thread(RunDir.open(folder / "run")):
            with pytest.raises(LedgerLocked):
                await retry(config)
        assert sandbox.counters[ATTRIBUTES].received == 1


async def test_a_superseded_run_is_refused(folder):
    """Neither a resume nor a retry sends an older row; both name the run that took over."""
    export(folder / "export.csv", "c-1 a=1")
    async with sandbox_with(Refusing("1")) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        run_json = folder / "run" / "run.json"
        by = {"run_id": "NEW", "run_dir": "runs/new"}
        run_json.write_text(json.dumps(json.loads(run_json.read_text()) | {"superseded_by": by}))
        for command in (run, retry):
            with pytest.raises(LedgerMismatch, match="the run NEW in runs/new took over"):
                await command(config)
        assert sandbox.counters[ATTRIBUTES].received == 1
    assert json.loads(run_json.read_text())["superseded_by"] == by
