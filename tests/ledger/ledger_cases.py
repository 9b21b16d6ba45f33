"""What the ledger's tests share: results, their lines, and a sync that can be held."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from bulk_updater.ledger import read_results
from bulk_updater.ledger.records import encode
from bulk_updater.model import Outcome, Result

if TYPE_CHECKING:
    from pathlib import Path

RUN_ID = "run-1"
ATTRIBUTES = "update_contact_attributes"
CONTACT = "update_contact"
GUARD_S = 30.0  # a wait that takes this long is a hang; no test waits for it to pass


def result(row: int, outcome: Outcome = Outcome.UPDATED, *, operation: str = CONTACT, **more):
    return Result(row=row, source="crm.csv", operation=operation, outcome=outcome, **more)


def line(row: int, outcome: Outcome = Outcome.UPDATED, **more) -> bytes:
    return encode(result(row, outcome, **more), RUN_ID)


def rows_in(path: Path) -> list[int]:
    return [record["row"] for record in read_results(path)]


def no_sync(fd: int) -> None:
    """For tests that count bytes, not syncs."""


class HeldSync:
    """A sync that waits until it is let go, and counts.

    Attributes:
        n_syncs: How often it was called.
        sizes: The file's size at each call.
        thread_ids: The thread of each call.
        errors: What to raise, by the number of the call, from 0.
    """

    def __init__(self, **errors: OSError) -> None:
        self.n_syncs = 0
        self.sizes: list[int] = []
        self.thread_ids: set[int] = set()
        self.errors = {int(name.removeprefix("at_")): error for name, error in errors.items()}
        self._began = threading.Semaphore(0)
        self._go = threading.Event()

    def __call__(self, fd: int) -> None:
        number, self.n_syncs = self.n_syncs, self.n_syncs + 1
        self.sizes.append(os.fstat(fd).st_size)
        self.thread_ids.add(threading.get_ident())
        self._began.release()
        assert self._go.wait(GUARD_S)
        if number in self.errors:
            raise self.errors[number]

    async def until_begun(self) -> None:
        """Return when one more sync than before is waiting to be let go."""
        assert await asyncio.to_thread(self._began.acquire, timeout=GUARD_S)

    def let_go(self) -> None:
        """End the sync that is held; later ones do not wait."""
        self._go.set()


def results(max_row: int = 1 << 40):
    """Any result that a run can have."""
    text = st.text(max_size=20)
    maybe_text = st.none() | text
    seconds = st.none() | st.floats(min_value=1, max_value=4e9)
    count = st.integers(min_value=0, max_value=1 << 31)
    return st.builds(
        Result,
        row=st.integers(min_value=1, max_value=max_row),
        source=text,
        operation=st.sampled_from([ATTRIBUTES, CONTACT]) | st.text(min_size=1, max_size=8),
        outcome=st.sampled_from(Outcome),
        instance_id=maybe_text,
        contact_id=maybe_text,
        attempts=count,
        throttled=count,
        http_status=st.none() | st.integers(min_value=100, max_value=599),
        error_code=maybe_text,
        error=maybe_text,
        request_id=maybe_text,
        payload_digest=maybe_text,
        attribute_names=st.lists(text, max_size=4).map(tuple),
        payload_bytes=count,
        merged_into=st.none() | count,
        started_at=seconds,
        finished_at=seconds,
        took_ms=st.none() | count,
    )
