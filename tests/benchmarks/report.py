"""What was found, as Markdown: on the screen, and section by section in RESULTS.md."""

from __future__ import annotations

import datetime as dt
import platform
import re
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.server import find_nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.processes import Measured

__all__ = [
    "RESULTS",
    "Bench",
    "Section",
    "Target",
    "at_least",
    "at_most",
    "best_and_median",
    "describe_machine",
    "write_results",
]

RESULTS = Path(__file__).with_name("RESULTS.md")

_HEAD = """\
# What the benchmarks found

Written by `python -m tests.benchmarks --write`, one section for each benchmark, each from one run
on one machine. What is measured, and against what, is said in the benchmarks themselves. Figures
are the best of their turns, with the median in parentheses where there is more than one.
"""

_PACKAGES = (
    "aioboto3",
    "aiobotocore",
    "aiohttp",
    "boto3",
    "orjson",
    "pandas",
    "pyarrow",
    "tenacity",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a benchmark is run with.

    Attributes:
        folder: An empty folder for its files.
        quick: Whether to take tiny sizes, only to see that everything runs.
        use_nginx: Whether there is an nginx to serve.
    """

    folder: Path
    quick: bool
    use_nginx: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that was promised, and whether it was reached.

    Attributes:
        promise: What was promised.
        found: What was found.
        met: Whether that is enough.
    """

    promise: str
    found: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one benchmark found.

    Attributes:
        what: What was measured, in a paragraph.
        header: The table's columns.
        rows: The table.
        targets: What was promised; none where the figures are for information.
    """

    what: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = field(default=())

    def render(self, *, judged: bool = True) -> str:
        """The section as Markdown, without its heading.

        Args:
            judged: Whether the targets are told; tiny sizes say nothing about them.
        """
        columns = range(len(self.header))
        lines = [self.header, ["---", *("---:" for _ in columns[1:])], *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        targets = "\n".join(
            f"- {target.promise}: {target.found}, {'met' if target.met else '**missed**'}"
            for target in (self.targets if judged else ())
        )
        return "\n\n".join(part for part in (self.what, table, targets) if part)


def at_least(promise: str, value: float, least: float, unit: str) -> Target:
    """A figure that should be high."""
    return Target(promise, f"{value:,.2f} {unit}", value >= least)


def at_most(promise: str, value: float, most: float, unit: str) -> Target:
    """A figure that should be low."""
    return Target(promise, f"{value:,.2f} {unit}", value <= most)


def best_and_median(
    turns: list[Measured], figure: Callable[[Measured], float], form: str, *, high: bool = False
) -> str:
    """A figure's best and its median: `1,234 (1,100)`."""
    figures = [figure(turn) for turn in turns]
    best = max(figures) if high else min(figures)
    middle = f" ({median(figures):{form}})" if len(figures) > 1 else ""
    return f"{best:{form}}{middle}"


def describe_machine() -> str:
    """The machine, without anything that names it, and the versions of what was measured."""
    cores = len(_affinity())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return (
        f"{cores} core{'s' if cores > 1 else ''} of {_processor()}, {platform.system()}, Python "
        f"{platform.python_version()}; {versions}{_nginx_version()}"
    )


def write_results(name: str, section: Section, command: str) -> None:
    """Put a section into RESULTS.md, in place of the one before; the others stay."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    day = dt.datetime.now(dt.UTC).date()
    origin = f"`{command}`, {day}: {describe_machine()}."
    sections[name] = f"{section.render()}\n\n{origin}"
    body = "\n\n".join(f"## {title}\n\n{sections[title].strip()}" for title in sorted(sections))
    RESULTS.write_text(f"{_HEAD}\n{body}\n", encoding="utf-8")


def _affinity() -> Sequence[int]:
    import os

    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return f"an {platform.machine()} processor"
    found = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    name = found[1] if found else f"{platform.machine()} processor"
    name = re.sub(r"\((R|TM)\)|\bProcessor\b|\bCPU\b|@.*", "", name)
    return "an " + " ".join(name.split())


def _nginx_version() -> str:
    nginx = find_nginx()
    if nginx is None:
        return ""
    told = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr
    return ", nginx " + told.strip().rpartition("/")[2].split()[0]
