"""Nights after nights, by seed, and an oracle that looks at every dawn.

Here the years of ten seeds are short; `make nights SEEDS=10` runs whole ones, and
`python -m tests.nights --replay SEED` shows what a seed does.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from .checking import check, promises_of
from .mutations import MUTATIONS
from .oracle import PROMISES
from .scenario import N_NIGHTS, TROUBLES, draw
from .world import play

SEEDS = range(10)
N_SHORT = 40
N_SHORTER = 25


@pytest.mark.parametrize("seed", SEEDS)
def test_no_night_breaks_a_promise(seed):
    """Fifty nights of a seed: at every dawn the service holds what the exports say."""
    broken, _ = check(draw(seed, N_SHORT))
    assert broken == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.apply.__name__)
def test_a_fault_of_the_program_is_caught(mutation):
    """Within ten seeds a deliberate fault breaks every promise that it should."""
    seen = set()
    with mutation.apply():
        for seed in SEEDS:
            seen |= promises_of(check(draw(seed, N_SHORTER, troubles=mutation.among))[0])
            if seen >= mutation.breaks:
                return
    pytest.fail(f"in {len(SEEDS)} seeds only {seen or 'nothing'} was broken")


def test_every_promise_can_fail():
    """For each promise of the oracle there is a fault of the program that breaks it."""
    broken = {promise for mutation in MUTATIONS for promise in mutation.breaks}
    assert {promise.__name__ for promise in PROMISES} == broken


def test_a_seed_replays_exactly():
    """Twice the same seed: every request and every execution at the same moment."""

    def trace(seed: int) -> str:
        history = play(draw(seed, N_SHORTER))
        told = [
            [(each.row, each.begun_s, each.ended_s, each.code) for each in history.attempts],
            [(each.begun_s, each.ended_s, each.crashed_s) for each in history.executions],
        ]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    assert trace(3) == trace(3)


def test_the_years_meet_every_trouble():
    """The whole years of ten seeds leave out nothing that may go wrong, and are mostly calm."""
    counts = Counter(night.trouble for seed in SEEDS for night in draw(seed).nights)
    assert counts.keys() == {*TROUBLES, "calm"}
    assert min(counts.values()) >= len(SEEDS)
    assert counts["calm"] > len(SEEDS) * N_NIGHTS / 2


def test_a_shorter_year_is_the_beginning_of_a_longer_one():
    """What fails in the tenth night of a year fails there in a year of ten nights, too."""
    assert draw(4, 30).nights[:10] == draw(4, 10).nights
