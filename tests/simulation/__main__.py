"""Runs as many seeds as asked over all cores, and makes a failing one as small as it gets.

python -m tests.simulation --seeds 20000 [--first 1] [--jobs 2] [--write]
python -m tests.simulation --replay 4711
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from tests.benchmarks.report import Section, Target, write_results
from tests.simulation.checking import check, promises_of, shrink
from tests.simulation.scenario import Scenario, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

_say = functools.partial(print, flush=True)

_CHUNK = 20
_SEEDS_TO_REACH = 20_000
_SAY_EVERY_S = 20.0


@dataclass
class Tally:
    """What some seeds did."""

    counts: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.counts += other.counts
        self.endings += other.endings
        self.faults += other.faults
        self.broken |= other.broken


def run_seeds(seeds: range) -> Tally:
    """Check each seed."""
    tally = Tally()
    for seed in seeds:
        broken, history = check(draw(seed))
        tally.counts["seeds"] += 1
        if history is not None:
            tally.faults += history.faults
            for each in history.directories:
                tally.counts["rows"] += len(each.scenario.rows)
                tally.counts["executions"] += len(each.executions)
                tally.counts["requests"] += len(each.attempts)
                tally.counts["retries"] += sum(one.command == "retry" for one in each.executions)
                tally.counts["newer"] += each.older is not None
                tally.endings += each.hit
        if broken:
            tally.broken[seed] = broken
    return tally


def chunks(first: int, n_seeds: int) -> Iterator[range]:
    for start in range(first, first + n_seeds, _CHUNK):
        yield range(start, min(start + _CHUNK, first + n_seeds))


def soak(first: int, n_seeds: int, jobs: int) -> Tally:
    """Check seeds in processes of their own, and say now and then how far it is."""
    tally = Tally()
    said_s = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run_seeds, chunks(first, n_seeds)):
            tally.add(part)
            for seed, broken in part.broken.items():
                _say(f"seed {seed}: {broken[0]} ({len(broken)} in all)")
            if time.monotonic() - said_s > _SAY_EVERY_S:
                said_s = time.monotonic()
                _say(f"{tally.counts['seeds']:,} of {n_seeds:,} seeds")
    return tally


def explain(seed: int) -> int:
    """Replay a seed, and where it fails show the smallest scenario that fails alike."""
    scenario = draw(seed)
    broken, _ = check(scenario)
    if not broken:
        _say(f"seed {seed}: every promise was kept")
        return 0
    _say(f"seed {seed}, {len(scenario.rows)} rows:", *broken[:10], sep="\n  ")
    wanted = promises_of(broken)

    def still_fails(smaller: Scenario) -> bool:
        return bool(promises_of(check(smaller)[0]) & wanted)

    smallest = shrink(scenario, still_fails=still_fails)
    _say(f"smallest that fails alike, {len(smallest.rows)} rows:")
    plain = asdict(Scenario(seed=seed, rows=()))
    for name, value in asdict(smallest).items():
        if name == "rows":
            _say("  rows:", *map(repr, smallest.rows), sep="\n    ")
        elif value != plain[name]:
            _say(f"  {name}: {value}")
    _say("  broken:", *check(smallest)[0][:10], sep="\n    ")
    return 1


def section(tally: Tally, took_s: float) -> Section:
    """The figures for RESULTS.md."""
    counts = tally.counts
    causes = [*sorted(tally.endings.items()), *sorted(tally.faults.items())]
    return Section(
        what=(
            f"{counts['seeds']:,} seeds: {counts['rows']:,} rows, {counts['executions']:,} "
            f"executions, {counts['requests']:,} requests, in {took_s / 60:.0f} minutes. Of the "
            f"executions {counts['retries']:,} were retries, and {counts['newer']:,} runs took "
            "over from an older one. How often "
            "an execution was ended early (by what: where), and how often each fault of the "
            "service, of the way there and of the disk happened."
        ),
        header=("what happened", "times"),
        rows=[(name.replace("_", " "), f"{times:,}") for name, times in causes],
        targets=[
            Target(
                f"{_SEEDS_TO_REACH:,} seeds without a violation",
                f"{counts['seeds']:,} seeds, {len(tally.broken):,} with a violation",
                counts["seeds"] >= _SEEDS_TO_REACH and not tally.broken,
            )
        ],
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--replay", type=int, metavar="SEED")
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    flags = parser.parse_args()
    if flags.replay is not None:
        return explain(flags.replay)
    began_s = time.monotonic()
    tally = soak(flags.first, flags.seeds, flags.jobs)
    found = section(tally, time.monotonic() - began_s)
    _say(found.render())
    if flags.write:
        write_results("simulation", found, f"make soak SEEDS={flags.seeds}")
    for seed in sorted(tally.broken)[:3]:
        explain(seed)
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
