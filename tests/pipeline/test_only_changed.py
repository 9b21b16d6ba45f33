"""Night after night with `--only-changed`: what is sent, what is not, and what is remembered.

Whole runs in virtual time; one sandbox lives over several nights. All in all 16 to 21 s.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.config import ConnectionConfig, ScheduleConfig
from bulk_updater.errors import ConfigError, RunStopped, StateError
from bulk_updater.model import Outcome, Quota, QuotaOrigin
from bulk_updater.pipeline import run, sending
from bulk_updater.pipeline.memory import Memory
from bulk_updater.pipeline.quotas import KnownQuotas
from bulk_updater.sandbox import Sandbox
from bulk_updater.sandbox.faults import DROP_AFTER, Fault
from bulk_updater.schedule import parse_until
from bulk_updater.state import State

from .again import MAPPING
from .helpers import INSTANCE, attributes, fast, ledger_of
from .nights import (
    ATTRIBUTES,
    CONTACT,
    NIGHT_S,
    OTHER_INSTANCE,
    Nights,
    Service,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


pytestmark = pytest.mark.looptime


@pytest.fixture
def folder(folder_again: Path) -> Path:
    return folder_again


def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on a run remembers nothing at its end, as if it were killed; returns the undoing."""

    @asynccontextmanager
    async def keeping(_memory: Memory, _in_doubt: Any) -> AsyncIterator[None]:
        yield

    with_end = Memory.keeping
    monkeypatch.setattr(Memory, "keeping", keeping)
    return lambda: monkeypatch.setattr(Memory, "keeping", with_end)


# --- What is unchanged


async def test_the_same_export_again_sends_nothing(nights):
    """No request, every row UNCHANGED with the digest of the night before, one line a row."""
    rows = [f"c-{n} a={n} b=x" for n in range(200)]
    first = await nights.run(*rows, max_in_flight=8)
    again = await nights.run(*rows)
    assert (first.outcomes, len(first.sent)) == ({"UPDATED": 200}, 200)
    assert (again.outcomes, again.sent) == ({"UNCHANGED": 200}, [])
    assert (again.summary.state, again.summary.attempts) == ("finished", 0)
    before, after = (
        {record["row"]: record for record in ledger_of(night.summary)} for night in (first, again)
    )
    assert sorted(after) == list(range(1, 201))
    assert len(ledger_of(again.summary)) == 200
    for row, record in after.items():
        for key in ("payload_digest", "contact_id", "instance_id"):
            assert record[key] == before[row][key]
    assert nights.sandbox.counters[ATTRIBUTES].received == 200


async def test_exactly_what_changed_is_sent(nights, caplog):
    """2 % of an export changed: these rows, no other, and the figures are said beforehand."""
    rows = {n: f"c-{n} a={n} b=x" for n in range(200)}
    await nights.run(*rows.values(), max_in_flight=8)
    changed = {n: f"c-{n} a={n} b=y" for n in (3, 50, 51, 199)}
    with caplog.at_level(logging.INFO, logger="bulk_updater"):
        night = await nights.run(*(rows | changed).values())
    assert night.sent == list(changed.values())
    assert night.outcomes == {"UPDATED": 4, "UNCHANGED": 196}
    assert "Of 200 rows that can be sent, 196 rows are unchanged, 4 to send." in caplog.text
    assert (await nights.run(*(rows | changed).values())).sent == []


async def test_a_resume_says_what_is_decided_of_the_rows_that_are_left(nights, caplog):
    """Of six rows two are sent and one is UNCHANGED by then: three are left, all to be sent."""
    rows = [f"c-{n} a={n}" for n in range(6)]
    await nights.run(rows[5])
    await nights.stopped(*rows, after=2)
    with caplog.at_level(logging.INFO, logger="bulk_updater"):
        night = await nights.same_night()
    assert night.sent == rows[2:5]
    assert "Of 3 rows that can be sent, 0 rows are unchanged, 3 to send." in caplog.text


async def test_the_order_of_the_rows_does_not_matter(nights):
    """The same rows in another order, some of them gone: nothing is sent."""
    rows = [f"c-{n} a={n}" for n in range(30)]
    await nights.run(*rows)
    night = await nights.run(*reversed(rows[5:]))
    assert (night.outcomes, night.sent) == ({"UNCHANGED": 25}, [])


async def test_a_row_that_failed_is_sent_again_though_it_is_unchanged(nights):
    """Connect said no last night; tonight it would say yes, and then it is remembered."""
    rows = ["c-1 a=1", "c-2 a=bad", "c-3 a=3"]
    nights.service.faults["bad"] = refused()
    assert (await nights.run(*rows)).outcomes == {"UPDATED": 2, "FAILED": 1}
    assert (await nights.run(*rows)).sent == ["c-2 a=bad"]
    nights.service.faults.clear()
    assert (await nights.run(*rows)).outcomes == {"UPDATED": 1, "UNCHANGED": 2}
    assert (await nights.run(*rows)).sent == []


async def test_a_row_whose_answer_was_lost_is_sent_again(nights):
    """It was applied and nobody knows: both attempts end without answer, FAILED, and sent again."""
    rows = ["c-1 a=1", "c-2 a=lost"]
    nights.service.faults["lost"] = DROP_AFTER
    first = await nights.run(*rows)
    assert (first.outcomes, first.sent.count("c-2 a=lost")) == ({"UPDATED": 1, "FAILED": 1}, 2)
    assert attributes(nights.sandbox, "c-2") == {"a": "lost"}
    assert await nights.doubts() == {"c-1": False, "c-2": True}
    nights.service.faults.clear()
    assert (await nights.run(*rows)).sent == ["c-2 a=lost"]
    assert await nights.doubts() == {"c-1": False, "c-2": False}


async def test_what_a_lost_answer_applied_is_never_taken_for_the_older_export(nights):
    """Old, new without an answer, old again: the old one is sent, since the new one may stand."""
    await nights.run("c-1 a=old")
    nights.service.faults["new"] = DROP_AFTER
    assert (await nights.run("c-1 a=new")).outcomes == {"FAILED": 1}
    assert (await nights.run("c-1 a=old")).sent == ["c-1 a=old"]
    assert attributes(nights.sandbox, "c-1") == {"a": "old"}


async def test_a_changed_mapping_sends_what_it_changes(nights):
    """An attribute more, which only some rows have: these are sent, the others are unchanged."""
    rows = ["c-1 a=1 n=x", "c-2 a=2", "c-3 a=3 n=z"]
    await nights.run(*rows)
    (nights.folder / "more.yaml").write_text(MAPPING + '    n: "{Name}"\n')
    night = await nights.run(*rows, mapping=nights.folder / "more.yaml")
    assert night.sent == ["c-1 a=1 n=x", "c-3 a=3 n=z"]
    assert night.outcomes == {"UPDATED": 2, "UNCHANGED": 1}


# --- Several rows of a contact


@pytest.mark.parametrize(("n_between", "n_sent"), [(0, 1), (3, 3)])
async def test_a_contact_with_several_rows_is_sent_as_a_whole_or_not_at_all(
    nights, n_between, n_sent
):
    """The same rows send nothing; one of them changed sends all, in order, merged or not."""

    def rows(middle: str) -> list[str]:
        said = ["c-1 a=1 b=1", middle, "c-1 a=3 c=1"]
        others = [f"d-{n} a=1" for n in range(3 * n_between)]
        return [
            row
            for at, each in enumerate(said)
            for row in (each, *others[at * n_between : (at + 1) * n_between])
        ]

    n_rows = 3 + 3 * n_between
    first = await nights.run(*rows("c-1 a=2"))
    assert (len(first.sent), first.outcomes) == (n_sent + 3 * n_between, {"UPDATED": n_rows})
    assert attributes(nights.sandbox, "c-1") == {"a": "3", "b": "1", "c": "1"}
    again = await nights.run(*rows("c-1 a=2"))
    assert (again.outcomes, again.sent) == ({"UNCHANGED": n_rows}, [])
    third = await nights.run(*rows("c-1 a=2 b=2"), max_in_flight=1)
    assert third.outcomes.get("UNCHANGED", 0) == 3 * n_between
    assert third.outcomes["UPDATED"] == 3
    assert {line.split()[0] for line in third.sent} == {"c-1"}
    assert attributes(nights.sandbox, "c-1") == {"a": "3", "b": "2", "c": "1"}
    assert (await nights.run(*rows("c-1 a=2 b=2"))).sent == []


async def test_rows_of_a_contact_in_another_order_are_sent(nights):
    """Which of two rows is the last one matters: swapped, they are a change."""
    await nights.run("c-1 a=1", "c-1 a=2")
    assert attributes(nights.sandbox, "c-1") == {"a": "2"}
    night = await nights.run("c-1 a=2", "c-1 a=1")
    assert night.outcomes == {"UPDATED": 2}
    assert attributes(nights.sandbox, "c-1") == {"a": "1"}


async def test_an_export_whose_second_row_was_not_sent_does_not_hide_the_older_one(nights):
    """Told to stop between two rows of a contact: tonight the older export is sent again."""
    await nights.run("c-1 a=old")
    rows = ["c-1 a=new", *(f"d-{n} a={n}" for n in range(5)), "c-1 a=newer"]
    half = await nights.stopped(*rows, after=3)
    assert half.summary.state == "interrupted"
    assert half.sent[0] == "c-1 a=new"
    assert "c-1 a=newer" not in half.sent
    assert (await nights.doubts())["c-1"]
    night = await nights.run("c-1 a=old")
    assert (night.outcomes, night.sent) == ({"UPDATED": 1}, ["c-1 a=old"])
    assert attributes(nights.sandbox, "c-1") == {"a": "old"}


async def test_a_deadline_between_two_rows_of_a_contact_leaves_it_in_doubt(nights):
    """The same with a deadline: the run ends with rows left, and the older export is sent."""
    await nights.run("c-1 a=old")
    nights.service.faults["slow"] = Fault(kind="slow", delay_s=15)
    slow = [f"d-{n} a=slow" for n in range(40)]
    schedule = ScheduleConfig(until=parse_until("08:05 UTC"))
    half = await nights.run("c-1 a=new", *slow, "c-1 a=newer", schedule=schedule)
    assert half.summary.state == "deadline"
    assert half.sent[0] == "c-1 a=new"
    assert half.summary.unsettled > 0
    assert (await nights.run("c-1 a=old")).sent == ["c-1 a=old"]


# --- Stopped, killed, resumed


async def test_marks_of_what_was_not_sent_are_taken_back(nights):
    """Told to stop at the first of twenty: the others are remembered as they were, for certain."""
    rows = [f"c-{n} a={n}" for n in range(20)]
    await nights.run(*rows[:10])
    changed = [f"c-{n} a=new" for n in range(20)]
    half = await nights.stopped(*changed, after=1)
    n_sent = len(half.sent)
    assert 1 <= n_sent < 5
    assert half.summary.unsettled == 20 - n_sent
    assert await nights.doubts() == {f"c-{n}": False for n in range(10)}
    night = await nights.run(*rows[:10])
    assert night.sent == rows[:n_sent]


async def test_a_request_that_a_kill_left_without_result_is_sent_next_night(nights):
    """Cancelled while a request hangs that was applied: its contact is in doubt, and sent again."""
    rows = ["c-1 a=1", "c-2 a=hangs", "c-3 a=3"]
    nights.service.faults["hangs"] = Fault(kind="hang", applied=True, late_s=1000)
    nights.night += 1
    task = asyncio.create_task(nights.same_night(*rows))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await nights.doubts() == {"c-1": False, "c-2": True}
    nights.service.faults.clear()
    night = await nights.run("c-1 a=1", "c-2 a=hangs", "c-3 a=3")
    assert night.by_row() == ["UNCHANGED", "UPDATED", "UPDATED"]


async def test_what_a_killed_run_applied_is_in_doubt_for_the_next_export(nights, monkeypatch):
    """Nothing was remembered at the end, so all that was marked is sent, changed or not."""
    rows = [f"c-{n} a={n}" for n in range(6)]
    undo = killed(monkeypatch)
    await nights.run(*rows)
    undo()
    assert await nights.doubts() == dict.fromkeys((f"c-{n}" for n in range(6)), True)
    night = await nights.run(*rows)
    assert (night.outcomes, night.sent) == ({"UPDATED": 6}, rows)
    assert await nights.doubts() == dict.fromkeys((f"c-{n}" for n in range(6)), False)


async def test_a_resume_remembers_what_its_ledger_says(nights, monkeypatch):
    """Killed with rows applied and nothing remembered: the resume sends the rest, and remembers."""
    rows = [f"c-{n} a={n}" for n in range(8)] + ["c-0 b=2"]
    undo = killed(monkeypatch)
    half = await nights.stopped(*rows, after=4)
    undo()
    n_sent = len(half.sent)
    rest = await nights.same_night()
    assert rest.outcomes == {"UPDATED": 9}
    assert half.sent + rest.sent == rows
    assert 4 <= n_sent < 8
    assert await nights.doubts() == dict.fromkeys((f"c-{n}" for n in range(8)), False)
    assert (await nights.run(*rows)).outcomes == {"UNCHANGED": 9}


async def test_an_older_run_that_is_resumed_undoes_nothing(nights):
    """What a newer run applied since is SUPERSEDED in the older one; all else of it is sent."""
    old = ["c-1 a=old", "c-2 a=old", "c-3 a=old", "c-4 a=same", "c-5 a=only"]
    half = await nights.stopped(*old, after=1, name="old")
    assert half.sent == old[:1]
    await nights.run("c-1 a=new", "c-2 a=new", "c-3 a=new", "c-4 a=same")
    rest = await nights.run(name="old")
    assert rest.by_row() == ["UPDATED", "SUPERSEDED", "SUPERSEDED", "UNCHANGED", "UPDATED"]
    assert rest.sent == ["c-5 a=only"]
    values = [attributes(nights.sandbox, f"c-{n}")["a"] for n in range(1, 6)]
    assert values == ["new", "new", "new", "same", "only"]


async def test_a_limit_first_and_the_whole_export_afterwards(nights):
    """The later row of a contact whose first one went with `--limit` is sent, not SUPERSEDED."""
    rows = ["c-1 a=1", "c-2 a=2", "c-1 a=3", "c-3 a=3"]
    first = await nights.run(*rows, limit=2)
    assert first.sent == rows[:2]
    rest = await nights.same_night()
    assert rest.sent == rows[2:]
    assert rest.outcomes == {"UPDATED": 4}
    assert attributes(nights.sandbox, "c-1") == {"a": "3"}
    assert (await nights.run(*rows)).sent == []


async def test_a_limit_next_night_counts_its_rows_only(nights):
    """Ten rows of thirty, all unchanged: ten results and no request."""
    rows = [f"c-{n} a={n}" for n in range(30)]
    await nights.run(*rows)
    night = await nights.run(*rows, limit=10)
    assert (night.outcomes, night.sent) == ({"UNCHANGED": 10}, [])


async def test_invalid_rows_stay_invalid_and_change_nothing(nights):
    """A row that breaks a rule is INVALID every night, and is no part of what its contact holds."""
    rows = ["c-1 a=1 b=b1", "c-1 a=2 b=unknown", "c-2 a=2 b=b2"]
    mapping = nights.folder / "invalid.yaml"
    first = await nights.run(*rows, mapping=mapping)
    again = await nights.run(*rows, mapping=mapping)
    assert first.by_row() == ["UPDATED", "INVALID", "UPDATED"]
    assert (again.by_row(), again.sent) == (["UNCHANGED", "INVALID", "UNCHANGED"], [])


# --- Kept apart


async def test_two_operations_are_kept_apart(nights):
    """A changed name sends UpdateContact and not the attributes, and the other way round."""
    mapping = nights.folder / "both.yaml"
    await nights.run("c-1 a=1 n=x", "c-2 a=2 n=y", mapping=mapping)
    night = await nights.run("c-1 a=1 n=z", "c-2 a=3 n=y", mapping=mapping)
    assert sorted(night.sent) == ["c-1 n=z", "c-2 a=3"]
    assert night.by_row(ATTRIBUTES) == ["UNCHANGED", "UPDATED"]
    assert night.by_row(CONTACT) == ["UPDATED", "UNCHANGED"]


async def test_two_instances_are_kept_apart(nights):
    """What one instance's contact holds says nothing of the other's contact of the same id."""
    (nights.folder / "named.yaml").write_text(MAPPING.replace(INSTANCE, '"{Name}"'))
    mapping = nights.folder / "named.yaml"
    here, there = f"c-1 a=1 n={INSTANCE}", f"c-1 a=1 n={OTHER_INSTANCE}"
    await nights.run(here, mapping=mapping)
    night = await nights.run(here, there, mapping=mapping)
    assert night.by_row() == ["UNCHANGED", "UPDATED"]
    assert (await nights.run(there, here, mapping=mapping)).sent == []


async def test_a_rehearsal_remembers_for_rehearsals_only(nights):
    """`--sandbox` finds nothing of the real target's nights and leaves nothing for them."""
    rows = [f"c-{n} a={n}" for n in range(5)]
    await nights.run(*rows)
    assert (await nights.run(*rows, rehearsal=True)).outcomes == {"UPDATED": 5}
    assert (await nights.run(*rows, rehearsal=True)).outcomes == {"UNCHANGED": 5}
    changed = [f"c-{n} a=new" for n in range(5)]
    assert (await nights.run(*changed, rehearsal=True)).outcomes == {"UPDATED": 5}
    assert (await nights.run(*rows)).outcomes == {"UNCHANGED": 5}


async def test_without_an_account_nothing_is_sent(folder, monkeypatch):
    """Nobody says whose contacts they are: a ConfigError says what to do; no result, no mark."""

    async def nobody_says(*_: Any, **__: Any) -> KnownQuotas:
        quota = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)
        return KnownQuotas({ATTRIBUTES: quota}, None, None, "eu-west-1")

    monkeypatch.setattr(sending, "find_quotas", nobody_says)
    async with Sandbox(fast()) as sandbox:
        nights = Nights(folder, sandbox, Service())
        connection = ConnectionConfig(
            endpoint_url="https://connect.invalid", region="eu-west-1", access_key=("a", "b")
        )
        config = replace(nights.config("c-1 a=1"), connection=connection)
        with pytest.raises(ConfigError, match="servicequotas:GetServiceQuota") as caught:
            await run(config)
        assert "Nothing was sent." in caught.value.message
        assert (folder / "night-0" / "ledger.jsonl").read_bytes() == b""
        assert await nights.doubts() == {}


# --- Guards


async def test_what_is_older_than_refresh_is_sent_all_the_same(nights):
    """Applied three nights and one night ago, refreshed after two and a half: the older is sent."""
    changes = {"refresh_s": 2.5 * NIGHT_S}
    await nights.run("c-1 a=1", changes=changes)
    nights.night += 1
    await nights.run("c-2 a=2", changes=changes)
    night = await nights.run("c-1 a=1", "c-2 a=2", changes=changes)
    assert (night.sent, night.outcomes) == (["c-1 a=1"], {"UPDATED": 1, "UNCHANGED": 1})
    assert (await nights.run("c-1 a=1", changes=changes)).sent == []


async def test_too_much_change_stops_before_anything_is_sent(nights):
    """Three of ten rows, two changed and one new, with 25 % allowed: no request and no mark."""
    rows = [f"c-{n} a={n}" for n in range(9)]
    changes = {"max_change": 0.25}
    assert (await nights.run(*rows, changes=changes)).outcomes == {"UPDATED": 9}
    before = await nights.doubts()
    broken = ["c-0 a=x", "c-1 a=x", *rows[2:], "c-9 a=9"]
    with pytest.raises(RunStopped, match="2 rows would change a contact and 1 are of") as caught:
        await nights.run(*broken, changes=changes, name="broken")
    assert "30 % of the export, and --max-change allows 25 %" in caught.value.message
    assert nights.service.take_sent() == []
    assert await nights.doubts() == before == {f"c-{n}": False for n in range(9)}
    assert caught.value.summary.unsettled == 10
    night = await nights.same_night(name="broken", changes={"max_change": 0.3})
    assert night.sent == ["c-0 a=x", "c-1 a=x", "c-9 a=9"]


async def test_two_runs_never_share_a_state_file(nights):
    """The second one is refused at once, with who has it, and sends nothing."""
    nights.service.faults["slow"] = Fault(kind="slow", delay_s=10)
    task = asyncio.create_task(nights.run("c-1 a=slow", name="first"))
    await asyncio.sleep(2)
    with pytest.raises(StateError) as caught:
        await run(nights.config("c-2 a=2", name="second"))
    assert re.search(rf"in use by .*{os.getpid()}", caught.value.message)
    assert "Nothing was sent." in caught.value.message
    assert (await task).sent == ["c-1 a=slow"]
    assert (await nights.doubts()) == {"c-1": False}
    assert (await nights.run(name="second")).sent == ["c-2 a=2"]


async def test_a_state_that_cannot_be_written_stops_the_run(nights, monkeypatch):
    """No mark, no request: what was marked before is settled, and the rest stays unsettled."""
    rows = [f"c-{n} a={n}" for n in range(200)]
    mark, calls = State.mark, itertools.count(1)

    def fails(state: State, *arguments: Any) -> None:
        if next(calls) > 2:
            raise StateError("cannot be written: No space left on device.", path=state.path)
        mark(state, *arguments)

    monkeypatch.setattr(State, "mark", fails)
    with pytest.raises(RunStopped, match="No space left on device") as caught:
        await nights.run(*rows, max_in_flight=4)
    summary = caught.value.summary
    sent = nights.service.take_sent()
    assert len(sent) == len(set(sent)) <= 128
    assert summary.outcomes["UPDATED"] + summary.unsettled == 200
    assert summary.unsettled >= 72
    monkeypatch.setattr(State, "mark", mark)
    rest = await nights.same_night()
    assert rest.outcomes == {"UPDATED": 200}
    assert set(sent) | set(rest.sent) == set(rows)


# --- Reading back


async def test_what_somebody_else_changed_is_repaired(nights):
    """Every unchanged contact is read; the one that differs is sent, UPDATED, and remembered."""
    rows = [f"c-{n} a={n}" for n in range(6)]
    await nights.run(*rows)
    nights.sandbox.state.instances[INSTANCE]["c-3"].attributes["a"] = "somebody's"
    nights.sandbox.state.instances[INSTANCE]["c-4"].attributes["other"] = "stays"
    changes = {"verify_drift": 1.0}
    night = await nights.run(*rows, changes=changes)
    assert sorted(nights.service.read) == [f"c-{n}" for n in range(6)]
    assert (night.sent, night.outcomes) == (["c-3 a=3"], {"UPDATED": 1, "UNCHANGED": 5})
    assert attributes(nights.sandbox, "c-3") == {"a": "3"}
    assert attributes(nights.sandbox, "c-4") == {"a": "4", "other": "stays"}
    assert not any((await nights.doubts()).values())
    assert len(ledger_of(night.summary)) == 6
    assert (await nights.run(*rows, changes=changes)).outcomes == {"UNCHANGED": 6}


async def test_a_contact_that_is_sent_is_not_read(nights):
    """Reading back is for what is not sent, and for contacts with one row."""
    await nights.run("c-1 a=1", "c-2 a=2", "c-3 a=3", "c-3 a=4")
    rows = ["c-1 a=new", "c-2 a=2", "c-3 a=3", "c-3 a=4"]
    night = await nights.run(*rows, changes={"verify_drift": 1.0})
    assert (nights.service.read, night.sent) == (["c-2"], ["c-1 a=new"])
    assert night.outcomes == {"UPDATED": 1, "UNCHANGED": 3}


async def test_without_permission_to_read_there_is_one_warning(nights, caplog):
    """The run goes on as without reading back: nothing is sent, and one line says why."""
    rows = [f"c-{n} a={n}" for n in range(40)]
    await nights.run(*rows)
    nights.service.refuses_reads = True
    with caplog.at_level(logging.WARNING, logger="bulk_updater"):
        night = await nights.run(*rows, changes={"verify_drift": 1.0})
    assert (night.sent, night.outcomes) == ([], {"UNCHANGED": 40})
    warnings = [record.getMessage() for record in caplog.records]
    assert len([each for each in warnings if "connect:GetContactAttributes" in each]) == 1
    assert 1 <= len(nights.service.read) < 40


# --- What stays true of every night


async def test_no_cell_is_remembered(nights):
    """The state file holds digests: none of the export's values, and no attribute's name."""
    await nights.run("c-1 a=Planted-Cell-7f3a b=Planted-Cell-9c1d")
    raw = await asyncio.to_thread(
        lambda: b"".join(path.read_bytes() for path in nights.state.parent.glob("state.sqlite*"))
    )
    assert b"c-1" in raw
    assert b"Planted" not in raw


async def test_the_summary_adds_up_every_night(nights):
    """UNCHANGED and SUPERSEDED rows are results like others, and the noted summary has them."""
    rows = [f"c-{n} a={n}" for n in range(12)]
    nights.service.faults["7"] = refused()
    await nights.run(*rows)
    night = await nights.run(*rows)
    noted = json.loads((nights.folder / "night-2" / "run.json").read_bytes())["summary"]
    assert noted["outcomes"] == night.summary.outcomes
    assert set(noted["outcomes"]) == {outcome.value for outcome in Outcome}
    assert noted["outcomes"]["UNCHANGED"] == 11
    assert noted["outcomes"]["FAILED"] == 1
    assert sum(noted["outcomes"].values()) == noted["rows_read"] == 12


async def test_an_export_that_comes_back_to_what_it_was_is_applied_again(nights):
    """The same command on a third night is not taken for the first night's run, which is kept."""
    again = {"name": "export", "run_dir": None}
    await nights.run("c-1 a=1", "c-2 a=1", **again)
    await nights.run("c-1 a=2", "c-2 a=1", **again)
    third = await nights.run("c-1 a=1", "c-2 a=1", **again)
    assert third.sent == ["c-1 a=1"]
    assert attributes(nights.sandbox, "c-1") == {"a": "1"}
    fourth = await nights.run("c-1 a=1", "c-2 a=1", **again)
    assert (fourth.sent, fourth.summary.outcomes["UNCHANGED"]) == ([], 2)
    ledgers = [*nights.folder.rglob("ledger.jsonl")]
    assert sorted(len(path.read_bytes().splitlines()) for path in ledgers) == [2, 2, 2, 2]


async def test_the_same_command_goes_on_with_what_a_limit_left(nights):
    """A run with `--limit` that has finished is gone on with in its own directory."""
    same = {"name": "export", "run_dir": None}
    await nights.run("c-1 a=1", "c-2 a=1", limit=1, **same)
    whole = await nights.run("c-1 a=1", "c-2 a=1", **same)
    assert whole.sent == ["c-2 a=1"]
    (ledger,) = nights.folder.rglob("ledger.jsonl")
    assert len(ledger.read_bytes().splitlines()) == 2
