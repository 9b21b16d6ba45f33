"""A newer export's run takes over from an older one's: what it knows then, and what is dropped."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from bulk_updater.errors import LedgerLocked, LedgerMismatch, UsageError
from bulk_updater.keys import contact_key
from bulk_updater.ledger import Ledger, RunDir
from bulk_updater.model import Outcome
from bulk_updater.pipeline import run
from bulk_updater.pipeline.again import retry
from bulk_updater.pipeline.job import open_job
from bulk_updater.pipeline.superseding import take_over
from bulk_updater.pipeline.threads import entered_in_thread

from .again import (
    BOTH,
    INVALID_ROW,
    MAPPING,
    Refusing,
    config_of,
    export,
    sandbox_with,
)
from .helpers import INSTANCE, attributes, read_table, write_table

pytestmark = pytest.mark.looptime

ATTRIBUTES = "update_contact_attributes"
NOW = 1_800_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "both.yaml").write_text(BOTH)
    (tmp_path / "invalid.yaml").write_text(INVALID_ROW)
    return tmp_path


async def taken(folder: Path, run_id: str = "NEW", target: str = "local"):
    return await take_over(
        folder / "run", run_id=run_id, run_dir=folder / "new", target=target, now=lambda: NOW
    )


def known(taken_over, operation: str = ATTRIBUTES) -> dict[bytes, int]:
    """The evidence of one operation: a contact's key, and the digest of what it holds."""
    found = {}
    for each in taken_over.evidence:
        assert each.instance_id == INSTANCE
        assert list(each.keys) == sorted(set(each.keys))
        if each.operation == operation:
            assert each.digests.dtype == np.uint64
            keys = np.frombuffer(each.keys.tobytes(), dtype="V16")
            found |= dict(zip(map(bytes, keys), each.digests.tolist(), strict=True))
    return found


def said(config, *rows: int, operation: str = ATTRIBUTES) -> dict[bytes, int]:
    """What the mapping says of some rows, likewise."""
    found = {}
    for frame in open_job(config).mapped_frames():
        for entry in frame.entries():
            if entry.row in rows and entry.operation == operation:
                found[contact_key(entry.contact_id)] = int(entry.payload_digest, 16)
    return found


def lines(folder: Path) -> list[dict]:
    text = (folder / "run" / "ledger.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def noted(folder: Path) -> dict:
    return json.loads((folder / "run" / "run.json").read_text())


async def stopped_run(config, refusing: Refusing, *, after: int):
    """A run that is told to stop when it has sent some requests."""
    stop = asyncio.Event()
    refusing.also = lambda: stop.set() if len(refusing.seen) >= after else None
    return await run(config, stop=stop)


async def test_a_contact_is_known_by_its_last_row(folder):
    """UPDATED rows are evidence, those with a FAILED row behind them or in their place are not."""
    rows = ["c-1 a=1", "c-2 a=2", "c-3 a=bad", "c-1 a=4", "c-2 b=bad", "c-4 a=6", "c-4"]
    export(folder / "export.csv", *rows)
    async with sandbox_with(Refusing("bad")) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        made = await taken(folder)
        assert known(made) == await asyncio.to_thread(said, config, 4, 6)
        assert sandbox.counters[ATTRIBUTES].received > 0
    assert (made.n_dropped, made.warning) == (0, None)


async def test_unchanged_rows_are_evidence_and_trimmed_ones_are_not(folder):
    """What counts is a digest of the whole row, from a night that sent it or an earlier one."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2", "c-3 a=3")
    async with sandbox_with(Refusing()) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        expected = await asyncio.to_thread(said, config, 1)
    path = folder / "run" / "ledger.jsonl"
    records = sorted(lines(folder), key=lambda each: each["row"])
    records[0]["outcome"] = "UNCHANGED"
    del records[1]["payload_digest"]
    records[2]["outcome"] = "SUPERSEDED"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    assert known(await taken(folder)) == expected


async def test_what_is_left_is_superseded_in_its_own_ledger(folder):
    """One result for each row and operation that had none; the figures add up, and it is noted."""
    export(folder / "export.csv", *(f"c-{row} a={row} n={row}" for row in range(1, 701)))
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, mapping=folder / "both.yaml", max_in_flight=2)
        first = await stopped_run(config, refusing, after=6)
        assert first.unsettled > 1300
        n_sent = len(refusing.seen)
        made = await taken(folder)
        assert len(refusing.seen) == n_sent
        assert made.n_dropped == first.unsettled
        settled = {(each["row"], each["operation"]): each for each in lines(folder)}
        assert len(settled) == len(lines(folder)) == 1400
        dropped = [each for each in settled.values() if each["outcome"] == "SUPERSEDED"]
        assert len(dropped) == first.unsettled
        assert {each["error_code"] for each in dropped} == {"superseded"}
        assert {each["source"] for each in dropped} == {str(folder / "export.csv")}
        note = noted(folder)
        assert note["superseded_by"] == {
            "run_id": "NEW",
            "run_dir": str(folder / "new"),
            "at": "2027-01-15T08:00:00.000Z",
        }
        summary = note["summary"]
        assert (summary["state"], summary["unsettled"]) == ("superseded", 0)
        assert summary["resume"] is None
        assert sum(summary["outcomes"].values()) == 1400
        assert summary["outcomes"]["SUPERSEDED"] == first.unsettled
        for command in (run, retry):
            with pytest.raises(LedgerMismatch, match=r"the run NEW in .*new took over from this"):
                await command(config)
        assert len(refusing.seen) == n_sent


async def test_the_same_run_takes_over_again(folder):
    """A resume finds the same evidence, and drops nothing twice; another is sent to that run."""
    export(folder / "export.csv", *(f"c-{row} a={row}" for row in range(1, 21)))
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        await stopped_run(config_of(sandbox, folder, max_in_flight=1), refusing, after=5)
    first = await taken(folder)
    n_lines = len(lines(folder))
    again = await taken(folder)
    assert known(again) == known(first)
    assert len(known(first)) >= 5
    assert (again.n_dropped, len(lines(folder))) == (0, n_lines)
    with pytest.raises(LedgerMismatch, match=r"took over from this one already.*--supersede .*new"):
        await taken(folder, run_id="OTHER")


async def test_a_take_over_that_is_cut_short_is_gone_on_with(folder, monkeypatch):
    """The older run is refused from the first moment on; the same run drops what is left, once."""
    export(folder / "export.csv", *(f"c-{row} a={row} n={row}" for row in range(1, 21)))
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, mapping=folder / "both.yaml", max_in_flight=1)
        first = await stopped_run(config, refusing, after=5)
        n_blocks = 0

        async def one_block(ledger, block, **settings):
            nonlocal n_blocks
            n_blocks += 1
            if n_blocks > 1:
                raise asyncio.CancelledError
            await append_unsent(ledger, block, **settings)

        append_unsent = Ledger.append_unsent
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "append_unsent", one_block)
            with pytest.raises(asyncio.CancelledError):
                await taken(folder)
        n_dropped = len(lines(folder)) - (40 - first.unsettled)
        assert 0 < n_dropped < first.unsettled
        with pytest.raises(LedgerMismatch, match="took over"):
            await run(config)
        made = await taken(folder)
    assert made.n_dropped == first.unsettled - n_dropped
    assert len(lines(folder)) == 40
    assert len(known(made)) + len(known(made, "update_contact")) == 40 - first.unsettled


@pytest.mark.parametrize("is_again", [False, True])
async def test_contacts_that_may_have_been_sent_are_no_evidence(folder, is_again):
    """After a kill, rows without a result may have been applied: their contacts are sent again."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2", "c-3 a=3", "c-1 a=4", "c-4 a=5")
    async with sandbox_with(Refusing()) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        expected = await asyncio.to_thread(said, config, 2, 3)
    _as_killed(folder, n_lines=3, in_doubt=2)
    assert sorted(each["row"] for each in lines(folder)) == [1, 2, 3]
    made = await taken(folder)
    assert (made.n_dropped, made.warning) == (2, None)
    if is_again:
        made = await taken(folder)
    assert known(made) == expected


async def test_nothing_in_doubt_takes_no_evidence_away(folder):
    """A run that was stopped in order knows all that it sent, without its sources."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2", "c-1 a=3")
    async with sandbox_with(Refusing()) as sandbox:
        config = config_of(sandbox, folder)
        await run(config)
        expected = await asyncio.to_thread(said, config, 1, 2)
    _as_killed(folder, n_lines=2, in_doubt=0)
    (folder / "export.csv").unlink()
    assert known(await taken(folder)) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda at: (at / "export.csv").unlink(),
        lambda at: export(at / "export.csv", "c-1 a=9"),
        lambda at: (at / "mapping.yaml").write_text(MAPPING + "# new\n"),
    ],
)
async def test_where_nobody_knows_what_was_sent_there_is_no_evidence(folder, change):
    """The sources are not what they were: everything is sent, and a sentence says why."""
    export(folder / "export.csv", "c-1 a=1", "c-2 a=2", "c-3 a=3")
    async with sandbox_with(Refusing()) as sandbox:
        await run(config_of(sandbox, folder))
    _as_killed(folder, n_lines=2, in_doubt=32)
    change(folder)
    made = await taken(folder)
    assert made.evidence == []
    assert "up to 32 of its requests may have been applied" in made.warning
    assert made.n_dropped == 1


def _as_killed(folder: Path, *, n_lines: int, in_doubt: int) -> None:
    """Leave a run as a kill would: fewer results, and a note how many requests may be open."""
    records = sorted(lines(folder), key=lambda each: each["row"])[:n_lines]
    (folder / "run" / "ledger.jsonl").write_text("".join(json.dumps(x) + "\n" for x in records))
    note = noted(folder) | {"in_doubt": in_doubt}
    (folder / "run" / "run.json").write_text(json.dumps(note))


async def test_contacts_that_were_mended_are_no_evidence(folder):
    """A mended row has written over what the run says of its contact; others stay known."""
    export(folder / "export.csv", "c-1 a=1", "c-1 a=2 b=bad", "c-2 a=3")
    async with sandbox_with(Refusing()) as sandbox:
        config = config_of(sandbox, folder, mapping=folder / "invalid.yaml")
        first = await run(config)
        (row,) = read_table(Path(first.failed))
        write_table(folder / "mended.csv", [row | {"B": "b1"}])
        mended = config_of(
            sandbox,
            folder,
            folder / "mended.csv",
            run_dir=folder / "mended",
            mends=folder / "run",
            mapping=folder / "invalid.yaml",
        )
        await run(mended)
        assert known(await taken(folder)) == await asyncio.to_thread(said, config, 3)
    (folder / "mended").rename(folder / "away")
    made = await taken(folder)
    assert made.evidence == []
    assert "which is not there any more" in made.warning


async def test_a_run_that_is_going_on_is_not_taken_over(folder):
    """It is left as it is; the sentence says who holds it and how to stop it."""
    export(folder / "export.csv", "c-1 a=1")
    async with sandbox_with(Refusing()) as sandbox:
        await run(config_of(sandbox, folder))
    async with entered_in_thread(RunDir.open(folder / "run")):
        before = noted(folder)
        with pytest.raises(LedgerLocked, match=r"process \d+ on .*`bulk-updater ctl .*run drain`"):
            await taken(folder)
        assert noted(folder) == before


async def test_a_rehearsal_and_a_real_run_do_not_succeed_each_other(folder):
    """Neither is taken over by the other, and nothing is noted."""
    export(folder / "export.csv", "c-1 a=1")
    async with sandbox_with(Refusing()) as sandbox:
        await run(config_of(sandbox, folder))
    with pytest.raises(UsageError, match="sent to a local endpoint, and this one is sent to AWS"):
        await taken(folder, target="aws")
    assert "superseded_by" not in noted(folder)


async def test_what_is_no_older_run_is_refused(folder):
    """A folder without a run is not made one; a run does not take over from itself."""
    with pytest.raises(UsageError, match="no directory of a run"):
        await taken(folder)
    assert not (folder / "run").exists()
    export(folder / "export.csv", "c-1 a=1")
    async with sandbox_with(Refusing()) as sandbox:
        await run(config_of(sandbox, folder))
    with pytest.raises(UsageError, match="directory of this very run"):
        await take_over(
            folder / "run",
            run_id="NEW",
            run_dir=folder / "new" / ".." / "run",
            target="local",
            now=lambda: NOW,
        )
    assert "superseded_by" not in noted(folder)


async def test_a_run_of_an_older_version_is_taken_over(folder, caplog):
    """Its run.json names no operations: the mapping tells them, or else its results do."""
    export(folder / "export.csv", "c-1 a=1 n=1", "c-2 a=2 n=2")
    async with sandbox_with(Refusing()) as sandbox:
        await run(config_of(sandbox, folder, mapping=folder / "both.yaml", limit=1))
    note = noted(folder) | {"rows": 2, "configuration": {}}
    del note["operations"]
    (folder / "run" / "run.json").write_text(json.dumps(note))
    caplog.set_level(logging.DEBUG)
    made = await taken(folder)
    assert made.n_dropped == 2
    assert {each["outcome"] for each in lines(folder)} == {Outcome.UPDATED, Outcome.SUPERSEDED}


async def test_a_newer_export_sends_what_the_older_run_has_not_applied(folder):
    """Each contact holds what the newer export says; those that did already cost no request."""
    rows = [f"c-{row} a={row}" for row in range(1, 31)]
    export(folder / "export.csv", *rows)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        old = config_of(sandbox, folder, max_in_flight=1)
        await stopped_run(old, refusing, after=10)
        n_old = len(refusing.seen)
        assert 10 <= n_old < 15
        refusing.seen.clear()
        refusing.also = lambda: None
        export(folder / "newer.csv", "c-1 a=new", *rows[1:], "c-30 b=30")
        newer = config_of(
            sandbox,
            folder,
            folder / "newer.csv",
            run_dir=folder / "new",
            supersede=folder / "run",
        )
        summary = await run(newer)
        assert summary.outcomes["UNCHANGED"] == n_old - 1
        assert summary.outcomes["UPDATED"] == 31 - (n_old - 1)
        # Row 1, those that the older run had left, and two of contact 30 in one request.
        assert len(refusing.seen) == 1 + 30 - n_old
        for row in range(2, 30):
            assert attributes(sandbox, f"c-{row}") == {"a": str(row)}
        assert attributes(sandbox, "c-1") == {"a": "new"}
        assert attributes(sandbox, "c-30") == {"a": "30", "b": "30"}
        assert noted(folder)["superseded_by"]["run_id"] == summary.run_id
        again = await run(newer)
        assert again.outcomes == summary.outcomes
        assert len(refusing.seen) == 1 + 30 - n_old
