"""Runs a year of nights for as many seeds as asked, over all cores.

python -m tests.nights --seeds 10 [--first 0] [--nights 365] [--jobs 2] [--write]
python -m tests.nights --replay 4711 [--nights 365]
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.benchmarks.report import Section, Target, write_results
from tests.nights.checking import check
from tests.nights.scenario import N_NIGHTS, draw

_say = functools.partial(print, flush=True)

_SEEDS_TO_REACH = 10
_SHOWN = 10


@dataclass
class Tally:
    """What some seeds did."""

    counts: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.counts += other.counts
        self.happened += other.happened
        self.broken |= other.broken


def run_seed(seed: int, n_nights: int) -> Tally:
    """Check a seed."""
    year = draw(seed, n_nights)
    broken, history = check(year)
    tally = Tally(Counter(seeds=1, nights=n_nights))
    tally.happened.update(f"night: {night.trouble}" for night in year.nights)
    if history is not None:
        tally.counts["executions"] = len(history.executions)
        tally.counts["requests"] = len(history.attempts)
        tally.happened += history.hit
        tally.happened += history.faults
    if broken:
        tally.broken[seed] = broken
    return tally


def run_seeds(first: int, n_seeds: int, n_nights: int, jobs: int) -> Tally:
    """Check seeds in processes of their own."""
    tally = Tally()
    run = functools.partial(run_seed, n_nights=n_nights)
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run, range(first, first + n_seeds)):
            tally.add(part)
            for seed, broken in part.broken.items():
                _say(f"seed {seed}: {broken[0]} ({len(broken)} in all)")
            _say(f"{tally.counts['seeds']} of {n_seeds} seeds")
    return tally


def explain(seed: int, n_nights: int) -> int:
    """Replay a seed, and show the first promises that it breaks."""
    broken, _ = check(draw(seed, n_nights))
    if not broken:
        _say(f"seed {seed}: every promise was kept in {n_nights} nights")
        return 0
    _say(f"seed {seed}:", *broken[:_SHOWN], sep="\n  ")
    return 1


def section(tally: Tally, took_s: float) -> Section:
    """The figures for RESULTS.md."""
    counts = tally.counts
    return Section(
        what=(
            f"{counts['seeds']:,} seeds, {counts['nights']:,} nights: {counts['executions']:,} "
            f"executions, {counts['requests']:,} requests, in {took_s / 60:.0f} minutes. How many "
            "nights had which trouble, how often a process was ended (by what: where), and how "
            "often each fault happened."
        ),
        header=("what happened", "times"),
        rows=[(name.replace("_", " "), f"{n:,}") for name, n in sorted(tally.happened.items())],
        targets=[
            Target(
                f"{_SEEDS_TO_REACH} seeds of a year without a violation",
                f"{counts['seeds']:,} seeds of {counts['nights'] // max(1, counts['seeds'])} "
                f"nights, {len(tally.broken):,} with a violation",
                counts["seeds"] >= _SEEDS_TO_REACH
                and counts["nights"] >= counts["seeds"] * N_NIGHTS
                and not tally.broken,
            )
        ],
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nights", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--nights", type=int, default=N_NIGHTS, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--replay", type=int, metavar="SEED")
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    flags = parser.parse_args()
    if flags.replay is not None:
        return explain(flags.replay, flags.nights)
    began_s = time.monotonic()
    tally = run_seeds(flags.first, flags.seeds, flags.nights, flags.jobs)
    found = section(tally, time.monotonic() - began_s)
    _say(found.render())
    if flags.write:
        write_results("nights", found, f"make nights SEEDS={flags.seeds}")
    for seed in sorted(tally.broken)[:3]:
        explain(seed, flags.nights)
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
