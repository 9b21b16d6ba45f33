"""What a run remembers while it sends: marks before, confirmations after. All in all 1 s."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.errors import StateError
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.pipeline.deciding import Recall
from bulk_updater.pipeline.memory import Memory

from .test_deciding import FakeSettled, chain_of, contacts_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bulk_updater.state import Scope

pytestmark = pytest.mark.looptime

OPERATION = "update_contact_attributes"
OTHER = "update_contact"
BEGAN_AT = 1000
STATE = Path("state.sqlite")
ROWS = [("c", 1), ("d", 2), ("c", 3), ("e", 4)]
"""Contacts and digests of rows 1 to 4."""


@dataclass
class FakeState:
    """Notes what it is told, with the time of the loop; fails or waits where it is to."""

    loop: asyncio.AbstractEventLoop
    told: list[tuple[str, str, Any]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    before: Callable[[str], None] = lambda _what: None

    def _note(self, what: str, scope: Scope, said: Any) -> None:
        self.before(what)
        self.told.append((what, scope.operation, said))
        self.at_s.append(self.loop.time())

    def mark(self, scope: Scope, sending: list[tuple[str, int]]) -> None:
        self._note("mark", scope, list(sending))

    def confirm(self, scope: Scope, applied: list[tuple[str, int, int]]) -> None:
        self._note("confirm", scope, list(applied))

    def unmark(self, scope: Scope, contact_ids: list[str]) -> None:
        self._note("unmark", scope, list(contact_ids))

    def confirm_keys(self, scope: Scope, keys: Any, digests: Any, applied_at: int) -> None:
        self._note("confirm_keys", scope, (len(keys), digests.tolist(), applied_at))


class Run:
    """A memory with everything around it."""

    def __init__(self, *, ours: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.state = FakeState(loop)
        self.settled = FakeSettled()
        self.in_doubt: list[tuple[str, int]] = []
        contacts = {(OPERATION, "i"): contacts_of(ROWS), (OTHER, "i"): contacts_of(ROWS)}
        decisions = SimpleNamespace(to_send={} if ours else contacts, ours=contacts if ours else {})
        recall = Recall(
            state=self.state, account="local", region="here", job="mapping", began_at=BEGAN_AT + 0.7
        )
        self.memory = Memory(recall, decisions, self.settled, now=lambda: 2000 + loop.time())

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        async with self.memory.keeping(lambda: self.in_doubt):
            yield

    async def send(self, *rows: int, operation: str = OPERATION) -> None:
        await self.memory.about_to_send([request(row, operation) for row in rows])

    def settle(
        self, *rows: int, outcome: Outcome = Outcome.UPDATED, operation: str = OPERATION
    ) -> None:
        self.settled.by_row |= dict.fromkeys(rows, outcome)
        self.memory.settled(
            Result(
                row=row,
                source="export.csv",
                operation=operation,
                outcome=outcome,
                instance_id="i",
                contact_id=ROWS[row - 1][0],
            )
            for row in rows
        )

    def told(self, what: str) -> list[Any]:
        return [said for each, _, said in self.state.told if each == what]


def request(row: int, operation: str = OPERATION) -> Request:
    contact_id, digest = ROWS[row - 1]
    return Request(
        row=row,
        source="export.csv",
        operation=operation,
        instance_id="i",
        contact_id=contact_id,
        params={},
        payload_bytes=0,
        payload_digest=f"{digest:016x}",
    )


async def test_contacts_are_marked_together_and_once():
    """One call for all that are sent together, with what all rows of a contact come to."""
    run = Run()
    async with run.keeping():
        await run.send(1, 2)
        await run.send(3, 4)
        assert run.told("mark") == [[("c", chain_of(1, 3)), ("d", 2)], [("e", 4)]]
        run.in_doubt = [(OPERATION, row) for row in (1, 2, 3, 4)]


async def test_a_contact_is_remembered_when_all_of_its_rows_are_updated():
    """Not after the first of two rows; then within a second, as of the last one."""
    run = Run()
    async with run.keeping():
        await run.send(1, 2, 3)
        run.settle(1)
        await asyncio.sleep(5.5)
        assert run.told("confirm") == []
        run.settle(3)
        await asyncio.sleep(1)
        assert run.told("confirm") == [[("c", chain_of(1, 3), 2005)]]
        assert run.state.at_s[-1] <= 6.5
        run.settle(2)
    assert run.told("confirm")[1:] == [[("d", 2, 2006)]]
    assert run.told("unmark") == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.INVALID])
async def test_what_failed_stays_in_doubt(outcome):
    """One of its rows did not go well: nothing is confirmed, and no mark is taken back."""
    run = Run()
    async with run.keeping():
        await run.send(1, 2, 3)
        run.settle(1)
        run.settle(2, 3, outcome=outcome)
    assert (run.told("confirm"), run.told("unmark")) == ([], [])


async def test_a_superseded_row_does_not_hide_what_its_contact_holds():
    """A row of a contact that something newer stood for, the other one UPDATED: remembered."""
    run = Run()
    async with run.keeping():
        await run.send(1, 3)
        run.settle(1, outcome=Outcome.SUPERSEDED)
        run.settle(3)
    assert run.told("confirm") == [[("c", chain_of(1, 3), 2000)]]


async def test_marks_of_what_was_never_tried_are_taken_back():
    """Neither settled nor in doubt, or not sent after all; the others keep theirs."""
    run = Run()
    async with run.keeping():
        await run.send(1, 2, 3, 4)
        run.in_doubt = [(OPERATION, 2), (OTHER, 4)]
        run.settle(4, outcome=Outcome.SKIPPED)  # Connect forgot it before its turn
    assert run.told("unmark") == [["c", "e"]]


async def test_a_contact_with_one_row_sent_keeps_its_mark():
    """The first of two rows is settled, the second was never tried: nobody knows what stands."""
    run = Run()
    async with run.keeping():
        await run.send(1, 2)
        run.settle(1)
    assert run.told("unmark") == [["d"]]


async def test_what_was_not_to_be_sent_is_remembered_by_its_row():
    """A contact that was read back and differs: marked and confirmed with the row's own digest."""
    run = Run(ours=False)
    run.memory._decisions.to_send.clear()
    async with run.keeping():
        await run.send(2)
        run.settle(2)
    assert run.told("mark") == [[("d", 2)]]
    assert run.told("confirm") == [[("d", 2, 2000)]]


async def test_results_of_what_was_not_sent_are_not_remembered():
    """INVALID rows, and rows of contacts that were never marked, say nothing."""
    run = Run()
    async with run.keeping():
        run.settle(1, 2, 3, 4)
        run.memory.settled(
            [Result(row=9, source="export.csv", operation=OPERATION, outcome=Outcome.INVALID)]
        )
    assert run.state.told == []


async def test_what_this_run_applied_is_confirmed_first():
    """As of its beginning, which no newer run's time is before."""
    run = Run(ours=True)
    async with run.keeping():
        assert run.told("confirm_keys") == [(3, contacts_of(ROWS).chains.tolist(), BEGAN_AT)] * 2


async def test_a_mark_that_cannot_be_written_is_told():
    """`about_to_send` raises, so nothing is sent; the end is orderly."""
    run = Run()

    def full(what: str) -> None:
        if what == "mark":
            raise StateError("disk full", path=STATE)

    run.state.before = full
    async with run.keeping():
        with pytest.raises(StateError):
            await run.send(1)
    assert run.told("mark") == []


async def test_a_confirmation_that_cannot_be_written_is_told_at_the_end():
    """The run goes on, for what was applied is in the ledger; then the first fault is raised."""
    run = Run()
    calls = itertools.count(1)

    def fails_once(what: str) -> None:
        if what == "confirm" and next(calls) == 1:
            raise StateError("disk full", path=STATE)

    run.state.before = fails_once

    async def keep() -> None:
        async with run.keeping():
            await run.send(2, 4)
            run.settle(2)
            await asyncio.sleep(3)
            run.settle(4)

    with pytest.raises(StateError, match="disk full"):
        await keep()
    assert run.told("confirm") == [[("e", 4, 2003)]]
    assert run.told("unmark") == []


async def test_what_one_operation_writes_down_holds_up_no_other():
    """The run ends while one operation's contacts are written down: the other's are, too."""
    run = Run()
    let_go, under_way = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    calls = itertools.count(1)

    def waits_once(what: str) -> None:
        if what == "confirm" and next(calls) == 1:
            loop.call_soon_threadsafe(under_way.set)
            let_go.wait()

    run.state.before = waits_once
    async with run.keeping():
        await run.send(2)
        await run.send(4, operation=OTHER)
        run.settle(2)
        run.settle(4, operation=OTHER)
        await under_way.wait()
        loop.call_soon(let_go.set)
    confirmed = {(operation, said[0][0]) for what, operation, said in run.state.told
                 if what == "confirm"}  # fmt: skip
    assert confirmed == {(OPERATION, "d"), (OTHER, "e")}
