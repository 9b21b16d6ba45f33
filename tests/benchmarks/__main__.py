"""`python -m tests.benchmarks [NAME...] [--quick] [--write]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import (
    append,
    memory,
    only_changed,
    pacing,
    pipeline,
    plan,
    resume,
    throttling,
)
from tests.benchmarks.report import RESULTS, Bench, describe_machine, write_results
from tests.benchmarks.server import find_nginx

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.report import Section

BENCHMARKS: dict[str, Callable[[Bench], Section]] = {
    "pipeline": pipeline.bench,
    "plan": plan.bench,
    "only_changed": only_changed.bench,
    "memory": memory.bench,
    "resume": resume.bench,
    "append": append.bench,
    "pacing": pacing.bench,
    "throttling": throttling.bench,
    "ten_million": only_changed.bench_ten_million,
}

_ONLY_BY_NAME = ("ten_million",)
"""Takes ten minutes, and gigabytes of the temporary folder."""


def main() -> int:
    """Run benchmarks and print what they found; a target that is missed is said, not failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure speed and memory, beside named yardsticks.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(BENCHMARKS)}; by default all but {', '.join(_ONLY_BY_NAME)}",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does the code still run")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument(
        "--server",
        choices=("nginx", "asyncio"),
        default="nginx" if find_nginx() else "asyncio",
        help="what answers; nginx where there is one",
    )
    told = parser.parse_args()
    unknown = sorted(set(told.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    if told.quick and told.write:
        parser.error("the figures of tiny sizes mean nothing; leave --quick out to write them")
    print(describe_machine())  # noqa: T201
    for name in told.names or [name for name in BENCHMARKS if name not in _ONLY_BY_NAME]:
        print(f"\n## {name}\n", flush=True)  # noqa: T201
        began_s = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="bulk_updater-bench-") as folder:
            section = BENCHMARKS[name](
                Bench(folder=Path(folder), quick=told.quick, use_nginx=told.server == "nginx")
            )
        print(section.render(judged=not told.quick), flush=True)  # noqa: T201
        print(f"  ({time.perf_counter() - began_s:.0f} s)", file=sys.stderr)  # noqa: T201
        if told.write:
            write_results(name, section, f"python -m tests.benchmarks {name} --write")
    return 0


if __name__ == "__main__":
    sys.exit(main())
