"""`python -m tests.crash [POINT...] [--times N] [--seed N] [--write]`."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.report import Section, Target, write_results
from tests.crash.cases import MAX_IN_FLIGHT, RECOVERY_POINTS, RUN_POINTS, SANDBOX, kill_and_resume
from tests.e2e.processes import Served, Shell, Warm

POINTS = (*RUN_POINTS, *RECOVERY_POINTS)
_HEADS = ("killed at", "runs", "kills", "resumes", "rows", "applied twice", "violations")
_TIMES_TO_REACH = 50
_MISSES_ALLOWED = 10
"""For each time, how often `random` may come too late for a run before that is a fault."""


def main() -> int:
    """Kill and resume, and print what was found as a Markdown table; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash",
        description="Kill runs with SIGKILL at named points, resume them, and compare.",
    )
    parser.add_argument(
        "points", nargs="*", metavar="POINT", help=f"one of {', '.join(POINTS)}; all by default"
    )
    parser.add_argument("--times", type=int, default=50, metavar="N", help="runs for each point")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="what is drawn from")
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    told = parser.parse_args()
    unknown = sorted(set(told.points) - set(POINTS))
    if unknown:
        parser.error(f"there is no point {', '.join(unknown)}; known: {', '.join(POINTS)}")
    began_s = time.monotonic()
    rows: list[tuple[str, list[int]]] = []
    violations: list[str] = []
    with contextlib.closing(Warm("tests.crash.child")) as warm:
        for point in told.points or POINTS:
            figures, wrong = _kill_at(warm, point, told.times, told.seed)
            violations += wrong
            rows.append((point, figures))
            print(point, *figures, flush=True)  # noqa: T201
    section = _section(rows, len(violations), time.monotonic() - began_s)
    print(section.render())  # noqa: T201
    if told.write:
        write_results(
            "crash", section, f"python -m tests.crash --times {told.times} --seed {told.seed}"
        )
    for violation in violations:
        print(f"- {violation}", file=sys.stderr)  # noqa: T201
    return 1 if violations else 0


def _section(rows: list[tuple[str, list[int]]], n_violations: int, took_s: float) -> Section:
    totals = [sum(column) for column in zip(*(figures for _, figures in rows), strict=True)]
    fewest = min(figures[0] for _, figures in rows)
    return Section(
        what=(
            f"Processes killed with SIGKILL at named points, {MAX_IN_FLIGHT} requests in flight, "
            f"in {took_s / 60:.0f} minutes; each then resumed to its end, and compared with the "
            "service. Rows that were applied twice were in flight, or their result was not on the "
            "disk."
        ),
        header=_HEADS,
        rows=[
            (name, *(f"{figure:,}" for figure in figures))
            for name, figures in [*rows, ("all", totals)]
        ],
        targets=[
            Target(
                "each point at least 50 times, without a violation",
                f"{fewest} times at least, {n_violations} violations",
                fewest >= _TIMES_TO_REACH and not n_violations,
            )
        ],
    )


def _kill_at(warm: Warm, point: str, times: int, seed: int) -> tuple[list[int], list[str]]:
    """So many runs that were killed at a point; their figures, and what is wrong with them."""
    figures = [0] * (len(_HEADS) - 1)
    wrong: list[str] = []
    n_tried = 0
    with tempfile.TemporaryDirectory(prefix="bulk_updater-crash-") as folder:
        shell = Shell(Path(folder))
        with contextlib.closing(shell):
            # One for each point: it remembers ten thousand writes.
            served = Served(shell, *SANDBOX)
            while figures[0] < times and n_tried < times * _MISSES_ALLOWED:
                case_folder = Path(folder) / str(n_tried)
                case_folder.mkdir()
                case_seed = seed * 1_000_000 + n_tried
                case = kill_and_resume(warm, served, case_folder, point, case_seed)
                n_tried += 1
                wrong += [f"{point}, seed {case_seed}: {each}" for each in case.violations]
                if case.n_kills:
                    found = (
                        *(1, case.n_kills, case.n_resumes, case.n_rows, case.n_applied_twice),
                        len(case.violations),
                    )
                    figures = [total + one for total, one in zip(figures, found, strict=True)]
                shutil.rmtree(case_folder)
    if figures[0] < times:
        wrong.append(f"{point}: only {figures[0]} of {times} runs were killed")
    return figures, wrong


if __name__ == "__main__":
    sys.exit(main())
