"""What a run has to do: batches of entries, in which every row is once. All in all 2 s."""

from __future__ import annotations

import gzip
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulk_updater.config import RunConfig
from bulk_updater.errors import RunStopped
from bulk_updater.ledger import SettledRows
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.pipeline.deciding import CODES, SEVERAL, Decisions
from bulk_updater.pipeline.job import Job, open_job, survey
from bulk_updater.pipeline.work import Check, WholeJob, frames_as_counted
from bulk_updater.readers.delimited import DelimitedSource

from .helpers import HEADER, people, write_export

if TYPE_CHECKING:
    from pathlib import Path

ATTRIBUTES, CONTACT = "update_contact_attributes", "update_contact"
NOW = 1_772_352_000.0

BROKEN, INVALID, FILTERED = 7, 11, 13
"""Rows of the export below that cannot be read, break a rule, and do not match `where`."""


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of eight rows."""
    monkeypatch.setitem(DelimitedSource.__init__.__kwdefaults__, "max_frame_rows", 8)


def job_of(folder: Path, *, mapping: str = "both.yaml", n_rows: int = 30, **more) -> Job:
    rows = people(n_rows)
    if n_rows >= FILTERED:
        rows[BROKEN - 1] = ["broken"]
        rows[INVALID - 1][0] = ""
        rows[FILTERED - 1][1] = "open"
    write_export(folder, rows)
    return survey(
        open_job(RunConfig(mapping=folder / mapping, sources=(folder / "export.csv",), **more))
    )


def work_of(job: Job, settled: SettledRows | None = None) -> WholeJob:
    return WholeJob(job, settled or SettledRows(), now=lambda: NOW)


def handed_on(work: WholeJob) -> list[tuple[int, str, str]]:
    """Row, operation and what becomes of it, in order; those of a block by row."""
    found = []
    for batch in work.batches():
        for block in batch.unsent:
            found += [(row, block.operation, block.outcome.value) for row in block.rows.tolist()]
        for entry in batch.entries:
            if isinstance(entry, Check):
                found.append((entry.request.row, entry.request.operation, "check"))
            elif isinstance(entry, Request):
                found.append((entry.row, entry.operation, "send"))
            else:
                assert isinstance(entry, Result)
                found.append((entry.row, entry.operation, entry.outcome.value))
    return found


def decisions_of(job: Job, codes: dict[tuple[int, str], int]) -> Decisions:
    by_operation = {
        operation.name: np.zeros(job.n_rows + 1, dtype=np.uint8) for operation in job.operations
    }
    for (row, operation), code in codes.items():
        by_operation[operation][row] = code
    return Decisions(by_operation)


@pytest.mark.usefixtures("small_frames")
def test_every_row_is_handed_on_once_for_each_operation(folder):
    """In file order over frames; what cannot be sent is handed on as its result."""
    found = handed_on(work_of(job_of(folder)))
    assert [each[:2] for each in found] == [
        (row, operation) for row in range(1, 31) for operation in (ATTRIBUTES, CONTACT)
    ]
    kinds = {row: what for row, _, what in found}
    assert [kinds.pop(row) for row in (BROKEN, INVALID, FILTERED)] == [
        "INVALID",
        "INVALID",
        "SKIPPED",
    ]
    assert set(kinds.values()) == {"send"}


@pytest.mark.usefixtures("small_frames")
def test_what_is_settled_is_not_handed_on_again(folder):
    """Of each operation by itself, unreadable rows included."""
    settled = SettledRows()
    for row in (1, BROKEN, 20):
        settled.add(row, ATTRIBUTES, "UPDATED")
    for row in range(9, 17):  # a whole frame
        settled.add(row, CONTACT, "FAILED")
    work = work_of(job_of(folder), settled)
    found = {each[:2] for each in handed_on(work)}
    every = {(row, operation) for row in range(1, 31) for operation in (ATTRIBUTES, CONTACT)}
    assert every - found == {
        *((row, ATTRIBUTES) for row in (1, BROKEN, 20)),
        *((row, CONTACT) for row in range(9, 17)),
    }
    assert (work.n_left(ATTRIBUTES), work.n_left(CONTACT)) == (27, 22)
    assert work.count_outcomes()[Outcome.FAILED] == 8


@pytest.mark.usefixtures("small_frames")
def test_what_is_decided_goes_in_blocks(folder):
    """What is not sent is recorded together; the same row of the other operation is sent."""
    job = job_of(folder)
    work = work_of(job)
    unchanged, superseded = CODES[Outcome.UNCHANGED], CODES[Outcome.SUPERSEDED]
    work.decisions = decisions_of(
        job,
        {(1, ATTRIBUTES): unchanged, (2, ATTRIBUTES): superseded, (3, CONTACT): unchanged,
         (9, ATTRIBUTES): unchanged | SEVERAL, (9, CONTACT): superseded | SEVERAL,
         (10, CONTACT): SEVERAL},
    )  # fmt: skip
    found = {(row, operation): what for row, operation, what in handed_on(work)}
    assert len(found) == len(handed_on(work)) == 60
    assert {key: what for key, what in found.items() if what in ("UNCHANGED", "SUPERSEDED")} == {
        (1, ATTRIBUTES): "UNCHANGED",
        (2, ATTRIBUTES): "SUPERSEDED",
        (3, CONTACT): "UNCHANGED",
        (9, ATTRIBUTES): "UNCHANGED",
        (9, CONTACT): "SUPERSEDED",
    }


def test_what_is_drawn_is_checked_and_only_that(folder):
    """Unchanged rows that are alone for their contact, of the one operation that can be read."""
    job = job_of(folder, n_rows=8)
    work = work_of(job)
    unchanged = CODES[Outcome.UNCHANGED]
    work.decisions = decisions_of(
        job,
        {(1, ATTRIBUTES): unchanged, (2, ATTRIBUTES): unchanged | SEVERAL, (3, CONTACT): unchanged,
         (4, ATTRIBUTES): CODES[Outcome.SUPERSEDED], (5, ATTRIBUTES): unchanged},
    )  # fmt: skip
    drawn = []

    def is_drawn(keys: np.ndarray) -> np.ndarray:
        drawn.append(len(keys))
        return np.arange(len(keys)) != 4  # the fifth row is not

    work.is_drawn = is_drawn
    kinds = {(row, operation): what for row, operation, what in handed_on(work)}
    assert [key for key, what in kinds.items() if what == "check"] == [(1, ATTRIBUTES)]
    assert sorted(key for key, what in kinds.items() if what == "UNCHANGED") == [
        (2, ATTRIBUTES),
        (3, CONTACT),
        (5, ATTRIBUTES),
    ]
    assert drawn == [8]


@pytest.mark.usefixtures("small_frames")
@given(
    groups=st.lists(st.integers(0, 3), min_size=30, max_size=30),
    settled_rows=st.sets(st.integers(1, 30)),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_order_hands_every_row_on_once(folder, groups, settled_rows):
    """Group by group, in file order within each; unreadable and settled rows as ever."""
    settled = SettledRows()
    for row in settled_rows:
        settled.add(row, ATTRIBUTES, "UPDATED")
    work = work_of(job_of(folder, mapping="mapping.yaml"), settled)
    work.order = np.array(groups, dtype=np.uint8)
    rows = [row for row, _, _ in handed_on(work)]
    left = set(range(1, 31)) - settled_rows
    assert rows == sorted(left, key=lambda row: (groups[row - 1], row))


def test_a_limit_counts_its_rows_only(folder):
    """What an earlier execution settled beyond the limit is not counted in."""
    job = job_of(folder, limit=5, mapping="mapping.yaml")
    settled = SettledRows()
    for row in (1, 2, 6, 30):
        settled.add(row, ATTRIBUTES, "UPDATED")
    work = work_of(job, settled)
    assert (work.n_results, work.count_outcomes()[Outcome.UPDATED]) == (5, 2)
    assert [row for row, _, _ in handed_on(work)] == [3, 4, 5]


@pytest.mark.parametrize(("now_rows", "n_handed_on"), [(25, 25), (31, 24), (60, 24)])
@pytest.mark.usefixtures("small_frames")
def test_a_source_that_changed_stops_the_run(folder, now_rows, n_handed_on):
    """Fewer or more rows than were counted: nothing is handed on that was not counted."""
    job = job_of(folder)
    write_export(folder, people(now_rows))
    read = []
    with pytest.raises(RunStopped, match="the source changed while it was read: 30 rows at first"):
        read.extend(len(frame.frame.rows) for frame in frames_as_counted(job))
    assert sum(read) == n_handed_on  # whole frames: the list keeps what came before the error


def test_an_empty_source_has_nothing_to_do(folder):
    """A header alone, packed or not: no row, no batch with an entry, nothing left."""
    (folder / "export.csv.gz").write_bytes(gzip.compress((",".join(HEADER) + "\n").encode()))
    job = survey(
        open_job(RunConfig(mapping=folder / "mapping.yaml", sources=(folder / "export.csv.gz",)))
    )
    work = work_of(job)
    assert (handed_on(work), work.n_results, work.n_left(ATTRIBUTES)) == ([], 0, 0)
    assert Counter(work.count_outcomes().values()) == {0: len(Outcome)}
