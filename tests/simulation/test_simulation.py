"""Whole runs, by seed: crashes, faults and resumes, and an oracle that forgives nothing.

`make soak SEEDS=20000` runs more of the same; `python -m tests.simulation --replay SEED` shows what
a seed does, and the smallest export that fails alike.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest

from bulk_updater.pipeline.sender import Sender

from .checking import check, promises_of, shrink
from .mutations import MUTATIONS, lets_rows_overtake
from .oracle import PROMISES
from .scenario import FAULTS, POINTS, Scenario, draw, draw_run
from .world import play

N_SEEDS = 380
N_WHOLE_RUNS = 300
AT_ONCE = 20
MANY_SEEDS = 100


@pytest.mark.parametrize("first", range(0, N_SEEDS, AT_ONCE))
def test_no_seed_breaks_a_promise(first):
    """Twenty seeds at a time: no row is lost, wrong, out of order or sent without need."""
    broken = {seed: check(draw(seed))[0] for seed in range(first, first + AT_ONCE)}
    assert {seed: found for seed, found in broken.items() if found} == {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.apply.__name__)
def test_a_fault_of_the_program_is_caught(mutation):
    """Within a hundred seeds a deliberate fault breaks every promise that it should."""
    seen = set()
    drawn = (replace(draw(seed), **mutation.among) for seed in range(MANY_SEEDS))
    with mutation.apply():
        for scenario in filter(mutation.needs, drawn):
            seen |= promises_of(check(scenario)[0])
            if seen >= mutation.breaks:
                return
    pytest.fail(f"in {MANY_SEEDS} seeds only {seen or 'nothing'} was broken")


def test_every_promise_can_fail():
    """For each promise of the oracle there is a fault of the program that breaks it."""
    broken = {promise for mutation in MUTATIONS for promise in mutation.breaks}
    assert {promise.__name__ for promise in PROMISES} == broken


def test_a_seed_replays_exactly():
    """Twice the same seed: every request at the same moment, with the same end."""

    def trace(seed: int) -> str:
        told = [
            [
                [(each.row, each.begun_s, each.ended_s, each.code) for each in history.attempts],
                [(each.at_s, each.row) for each in history.arrivals],
                [(each.begun_s, each.ended_s, each.crashed_s) for each in history.executions],
            ]
            for history in play(draw(seed)).directories
        ]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    for seed in range(10):
        assert trace(seed) == trace(seed)


def test_the_seeds_of_the_suite_meet_every_fault_and_every_kind_of_crash():
    """What is drawn for the suite leaves out no fault, no point and no way to end."""
    drawn = [draw(seed) for seed in range(N_SEEDS)]
    assert {kind for each in drawn for kind in each.faults} == set(FAULTS)
    endings = {(ending.kind, ending.point) for each in drawn for ending in each.endings}
    assert endings >= {(kind, point) for kind in ("kill", "power") for point in POINTS}
    assert {kind for kind, _ in endings} == {"kill", "power", "stop", "cancel", "disk", "deadline"}


def test_the_seeds_of_the_suite_meet_all_that_may_come_after_a_run():
    """Three hundred runs are brought to their end; others are retried, or taken over from."""
    drawn = [draw(seed) for seed in range(N_SEEDS)]
    assert sum(each.has_whole_run for each in drawn) >= N_WHOLE_RUNS
    newer = [each.newer for each in drawn if each.newer is not None]
    retries = [retry for each in drawn for retry in each.retries]
    assert len(newer) >= N_SEEDS // 5
    assert sum(bool(each.retries) for each in drawn) >= N_SEEDS // 4
    assert sum(bool(each.newer and each.retries) for each in drawn) >= 10
    kinds = {"kill", "power", "stop", "cancel", "disk", "deadline"}
    for late in (newer, retries):
        assert {ending.kind for each in late for ending in each.endings} == kinds
    assert {retry.by_code for retry in retries} == {True, False}
    assert {each.again for each in newer} == {None, "run", "retry"}


def test_a_newer_export_has_rows_as_they_were_changed_gone_and_new():
    """Of the exports that are taken over from, most have rows of each of these kinds."""
    drawn = [each for each in map(draw, range(N_SEEDS)) if each.newer and len(each.rows) >= 8]
    counts = Counter()
    for scenario in drawn:
        older = {row.number: row for row in scenario.rows}
        newer = {row.number: row for row in scenario.newer.rows}
        contacts = {row.contact for row in scenario.rows}
        new = [row for number, row in newer.items() if number not in older]
        counts["as they were"] += any(newer.get(number) == row for number, row in older.items())
        counts["gone"] += bool(contacts - {row.contact for row in newer.values()})
        counts["changed"] += any(row.contact in contacts for row in new)
        counts["new"] += any(row.contact not in contacts for row in new)
    assert all(counts[kind] > len(drawn) // 3 for kind in ("as they were", "changed", "new"))
    assert counts["gone"] > len(drawn) // 8


def test_a_failure_is_shrunk_to_few_rows():
    """With a program that lets rows overtake each other, two rows of one contact are left."""
    calm = {"faults": {}, "episodes": (), "endings": ()}
    drawn = (replace(draw_run(seed), **calm) for seed in range(MANY_SEEDS))

    def still_fails(smaller: Scenario) -> bool:
        return "in_order" in promises_of(check(smaller)[0])

    with lets_rows_overtake():
        scenario = next(each for each in drawn if len(each.rows) > 10 and still_fails(each))
        smallest = shrink(scenario, still_fails=still_fails)
    assert len(smallest.rows) == 2
    assert len({row.contact for row in smallest.rows}) == 1


def test_a_run_that_hangs_is_a_finding():
    """A program that waits for ever is told as such, and does not hang the test."""

    async def forever(_: Sender) -> None:
        await asyncio.get_running_loop().create_future()

    with mock.patch.object(Sender, "drain", forever):
        broken, history = check(replace(draw_run(3), endings=(), faults={}, episodes=()))
    assert promises_of(broken) == {"runs"}
    assert history is None
