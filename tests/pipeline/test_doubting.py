"""Whoever writes to contacts without asking the state puts them in doubt: the next night sends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.errors import RunStopped, StateError, UsageError
from bulk_updater.pipeline.again import retry
from bulk_updater.pipeline.threads import entered_in_thread
from bulk_updater.state import State

from .helpers import read_table, write_table
from .nights import refused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.looptime


@pytest.fixture
def folder(folder_again: Path) -> Path:
    return folder_again


EXPORT = ["c-1 a=1", "c-2 a=2", "c-3 a=3"]


async def test_what_another_run_wrote_is_sent_again_by_the_next_night(nights):
    """A night, a run of one contact without --only-changed, the same night again: that contact."""
    await nights.run(*EXPORT)
    plain = await nights.run("c-2 a=other", only_changed=False)
    assert plain.sent == ["c-2 a=other"]
    assert await nights.doubts() == {"c-1": False, "c-2": True, "c-3": False}
    night = await nights.run(*EXPORT)
    assert night.sent == ["c-2 a=2"]
    assert night.outcomes == {"UPDATED": 1, "UNCHANGED": 2}
    assert set((await nights.doubts()).values()) == {False}


async def test_it_is_noted_before_the_first_request(nights, monkeypatch):
    """The other run fails at its request: before it the contact was in doubt, and it still is."""
    await nights.run(*EXPORT)
    happened = []
    doubt = State.doubt

    def noted(self: State, *args: Any, **kwargs: Any) -> None:
        doubt(self, *args, **kwargs)
        happened.append("doubted")

    monkeypatch.setattr(State, "doubt", noted)
    nights.service.also = lambda: happened.append("sent")
    nights.service.faults["other"] = refused()
    plain = await nights.run("c-2 a=other", only_changed=False)
    assert plain.outcomes == {"FAILED": 1}
    assert happened == ["doubted", "sent"]
    assert (await nights.doubts())["c-2"]


async def test_only_the_operation_that_is_sent_is_doubted(nights):
    """The mapping of the night writes attributes and a name, the other run attributes alone."""
    both = nights.folder / "both.yaml"
    rows = ["c-1 a=1 n=Ada", "c-2 a=2 n=Bob"]
    await nights.run(*rows, mapping=both)
    await nights.run("c-1 a=other", only_changed=False)
    night = await nights.run(*rows, mapping=both)
    assert night.sent == ["c-1 a=1"]
    assert night.outcomes == {"UPDATED": 1, "UNCHANGED": 3}


async def test_contacts_that_are_not_remembered_stay_so(nights):
    """A run of a contact that no night knows leaves the state as it was."""
    await nights.run(*EXPORT)
    before = await nights.doubts()
    await nights.run("c-9 a=9", only_changed=False)
    assert await nights.doubts() == before


async def test_without_a_state_none_is_made(nights):
    """No night has been: a run without --only-changed leaves no file behind; an empty one stays."""
    await nights.run(*EXPORT, only_changed=False)
    assert not nights.state.exists()
    nights.state.parent.mkdir(exist_ok=True)
    nights.state.touch()
    await nights.run(*EXPORT, only_changed=False, run_dir=nights.folder / "again")
    assert nights.state.read_bytes() == b""


async def test_a_rehearsal_doubts_nothing_real(nights):
    """A run against the sandbox writes to no real contact, and the state says what it said."""
    await nights.run(*EXPORT)
    before = await nights.doubts()
    await nights.run("c-1 a=other", only_changed=False, rehearsal=True)
    assert await nights.doubts() == before


async def test_mended_rows_put_their_contacts_in_doubt(nights):
    """An INVALID row is mended and sent beside the state: the next night sends what it says."""
    mapping = nights.folder / "invalid.yaml"
    rows = ["c-1 a=1 b=b1", "c-2 a=2 b=wrong"]
    await nights.run("c-1 a=1 b=b1", "c-2 a=2 b=b2", mapping=mapping)
    night = await nights.run(*rows, mapping=mapping)
    assert night.outcomes == {"UNCHANGED": 1, "INVALID": 1}
    failed = nights.folder / "mended.csv"
    write_table(
        failed, [{**row, "B": "b3"} for row in read_table(night.config.run_dir / "failed.csv")]
    )
    nights.night += 1
    config = nights.config(name="mended", mapping=mapping, only_changed=False)
    mended = await nights.run_as(replace(config, sources=(failed,), mends=night.config.run_dir))
    assert mended.sent == ["c-2 a=2 b=b3"]
    assert await nights.doubts() == {"c-1": False, "c-2": True}


async def test_mended_rows_are_refused_once_a_newer_night_has_begun(nights):
    """The row was INVALID two nights ago and is sent by the newer night: nothing is undone."""
    mapping = nights.folder / "invalid.yaml"
    state = nights.folder / "elsewhere.sqlite"
    changes = {"state_file": state}
    night = await nights.run("c-2 a=2 b=wrong", mapping=mapping, changes=changes)
    failed = nights.folder / "mended.csv"
    write_table(
        failed, [{**row, "B": "b3"} for row in read_table(night.config.run_dir / "failed.csv")]
    )
    await nights.run("c-2 a=2 b=b2", mapping=mapping, changes=changes)
    nights.night += 1
    config = nights.config(name="mended", mapping=mapping, only_changed=False)
    with pytest.raises(UsageError, match="newer run has begun"):
        await nights.run_as(replace(config, sources=(failed,), mends=night.config.run_dir))
    assert nights.service.take_sent() == []
    noted = await asyncio.to_thread((night.config.run_dir / "run.json").read_text)
    assert "mended_by" not in noted


async def test_a_retry_is_refused_once_a_newer_night_has_begun(nights):
    """Whether the retried run asked the state or not: nothing is sent, nothing undone."""
    nights.service.faults["bad"] = refused()
    first = await nights.run("c-1 a=bad", "c-2 a=2")
    plain = await nights.run("c-1 a=bad", "c-2 a=3", only_changed=False)
    nights.service.faults.clear()
    await nights.run("c-1 a=new", "c-2 a=2")
    for night in (first, plain):
        config = replace(night.config, changes=replace(night.config.changes, only_changed=False))
        with pytest.raises(UsageError, match="newer run has begun"):
            await retry(config, now=nights.now)
    assert nights.service.take_sent() == []


async def test_what_a_retry_sends_is_in_doubt(nights):
    """The retried contact is sent once more by the next night, and is certain then."""
    nights.service.faults["bad"] = refused()
    rows = ["c-1 a=bad", "c-2 a=2"]
    night = await nights.run(*rows)
    nights.service.faults.clear()
    nights.service.take_sent()
    await retry(night.config, now=nights.now)
    assert nights.service.take_sent() == ["c-1 a=bad"]
    assert await nights.doubts() == {"c-1": True, "c-2": False}
    assert (await nights.run(*rows)).sent == ["c-1 a=bad"]
    assert set((await nights.doubts()).values()) == {False}


async def test_a_retry_does_not_begin_while_a_night_has_the_state(nights):
    """The night would not know what the retry sends: refused with the holder's name."""
    nights.service.faults["bad"] = refused()
    night = await nights.run("c-1 a=bad")
    async with entered_in_thread(State.open(nights.state)):
        with pytest.raises(StateError, match="is in use by"):
            await retry(night.config, now=nights.now)


async def test_another_run_goes_on_beside_a_night(nights):
    """A run without --only-changed needs no lock: it puts in doubt while a night has the state."""
    await nights.run(*EXPORT)
    async with entered_in_thread(State.open(nights.state)):
        plain = await nights.run("c-1 a=other", only_changed=False)
    assert plain.outcomes == {"UPDATED": 1}
    assert (await nights.doubts())["c-1"]


async def test_a_state_that_cannot_be_told_stops_the_run_before_it_sends(nights):
    """A damaged state file: its path is said, nothing is sent, the file is as it was."""
    nights.state.parent.mkdir()
    nights.state.write_bytes(b"no database" * 100)
    with pytest.raises((RunStopped, StateError), match=r"state\.sqlite"):
        await nights.run(*EXPORT, only_changed=False)
    assert nights.service.take_sent() == []
    assert nights.state.read_bytes() == b"no database" * 100
