"""`python -m tests.crash [POINT...] [--times N] [--seed N]`."""

from __future__ import annotations

import argparse
import contextlib
import platform
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from bulk_updater._version import __version__
from tests.crash.cases import MAX_IN_FLIGHT, RECOVERY_POINTS, RUN_POINTS, SANDBOX, kill_and_resume
from tests.e2e.processes import Served, Shell, Warm

POINTS = (*RUN_POINTS, *RECOVERY_POINTS)
_HEADS = ("killed at", "runs", "kills", "resumes", "rows", "applied twice", "violations")
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
    told = parser.parse_args()
    unknown = sorted(set(told.points) - set(POINTS))
    if unknown:
        parser.error(f"there is no point {', '.join(unknown)}; known: {', '.join(POINTS)}")
    began_s = time.monotonic()
    _print_line(*_HEADS)
    _print_line("---", *["---:"] * (len(_HEADS) - 1))
    violations: list[str] = []
    totals = [0] * (len(_HEADS) - 1)
    with contextlib.closing(Warm("tests.crash.child")) as warm:
        for point in told.points or POINTS:
            figures, wrong = _kill_at(warm, point, told.times, told.seed)
            violations += wrong
            totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
            _print_line(point, *figures)
    _print_line("all", *totals)
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in ("aiobotocore", "aiohttp", "orjson", "pyarrow")
    )
    print(  # noqa: T201
        f"\n`python -m tests.crash --times {told.times} --seed {told.seed}`, "
        f"{MAX_IN_FLIGHT} in flight, {time.monotonic() - began_s:.0f} s; bulk_updater "
        f"{__version__}, Python {platform.python_version()}, {platform.system()}, {versions}."
    )
    for violation in violations:
        print(f"- {violation}", file=sys.stderr)  # noqa: T201
    return 1 if violations else 0


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


def _print_line(*cells: object) -> None:
    texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
    print(f"| {' | '.join(texts)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
