"""Whole runs, by seed: crashes, faults and resumes, and an oracle that forgives nothing.

`make soak SEEDS=20000` runs more of the same; `python -m tests.simulation --replay SEED` shows what
a seed does, and the smallest export that fails alike.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from unittest import mock

import pytest

from bulk_updater.pipeline.sender import Sender

from .checking import check, promises_of, shrink
from .mutations import MUTATIONS, lets_rows_overtake
from .oracle import PROMISES
from .scenario import FAULTS, POINTS, Scenario, draw
from .world import play

N_SEEDS = 300
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
    with mutation.apply():
        for seed in range(MANY_SEEDS):
            seen |= promises_of(check(replace(draw(seed), **mutation.among))[0])
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
        history = play(draw(seed))
        told = [
            [(each.row, each.begun_s, each.ended_s, each.code) for each in history.attempts],
            [(each.at_s, each.row) for each in history.arrivals],
            [(each.begun_s, each.ended_s, each.crashed_s) for each in history.executions],
        ]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    for seed in range(10):
        assert trace(seed) == trace(seed)


def test_the_seeds_of_the_suite_meet_every_fault_and_every_kind_of_crash():
    """What is drawn for three hundred seeds leaves out no fault, no point and no way to end."""
    drawn = [draw(seed) for seed in range(N_SEEDS)]
    assert {kind for each in drawn for kind in each.faults} == set(FAULTS)
    endings = {(ending.kind, ending.point) for each in drawn for ending in each.endings}
    assert endings >= {(kind, point) for kind in ("kill", "power") for point in POINTS}
    assert {kind for kind, _ in endings} == {"kill", "power", "stop", "cancel", "disk"}


def test_a_failure_is_shrunk_to_few_rows():
    """With a program that lets rows overtake each other, two rows of one contact are left."""
    drawn = (replace(draw(seed), faults={}, episodes=(), endings=()) for seed in range(MANY_SEEDS))

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
        broken, history = check(replace(draw(3), endings=(), faults={}, episodes=()))
    assert promises_of(broken) == {"runs"}
    assert history is None
