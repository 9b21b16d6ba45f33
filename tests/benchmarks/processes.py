"""A task of `tasks` in a process of its own, and what it took.

The process that starts the others stays small (the standard library only): Linux counts the peak
memory of the process that forked as the child's, until the child has outgrown it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Measured",
    "environment",
    "is_pinned",
    "measure",
    "pin",
    "server_cpus",
    "take_turns",
    "task_cpus",
]

_ROOT = Path(__file__).parents[2]
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
_MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a task took.

    Attributes:
        wall_s: Seconds of what is measured: without the interpreter's start, the imports and
            what the task prepares.
        cpu_s: CPU seconds of the same, user and system, all threads.
        process_wall_s: Seconds from the start of the process to its end.
        process_cpu_s: CPU seconds of the process.
        peak_mb: The most memory that it had, in MB (1,000,000 bytes).
        found: What the task returned.
    """

    wall_s: float
    cpu_s: float
    process_wall_s: float
    process_cpu_s: float
    peak_mb: float
    found: dict[str, Any]


def measure(task: str, *, pinned: bool = False, **arguments: Any) -> Measured:
    """Run a task in a fresh process.

    Args:
        task: Its name in `tasks.TASKS`.
        pinned: Whether it has to do with one core, and leave the other to the server.
        arguments: What it is told; paths as text.

    Raises:
        RuntimeError: If it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.tasks", task, json.dumps(arguments)],
        cwd=_ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        if pinned:
            pin(process.pid, task_cpus())  # before it has threads
        assert process.stdout is not None
        with process.stdout:
            told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    process_wall_s = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"the task {task} failed; what it said stands above")
    return Measured(
        **json.loads(told),
        process_wall_s=process_wall_s,
        process_cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss * _MAXRSS_UNIT_BYTES / _MB,
    )


def take_turns(
    contenders: dict[str, Callable[[], Measured]], n_turns: int
) -> dict[str, list[Measured]]:
    """Measure each contender `n_turns` times, in turn, so that all meet the same disturbances."""
    taken: dict[str, list[Measured]] = {name: [] for name in contenders}
    for turn in range(n_turns):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(contenders[name]())
            print(  # noqa: T201
                f"  {name}: {taken[name][-1].wall_s:.2f} s, {taken[name][-1].cpu_s:.2f} s CPU",
                file=sys.stderr,
            )
    return taken


def environment() -> dict[str, str]:
    """The environment without what would make this machine's AWS configuration play a part."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**kept, **nowhere, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}


def task_cpus() -> set[int]:
    """The core for a pinned task; none where cores cannot be told apart or shared out."""
    return set(_cpus()[:1])


def server_cpus() -> set[int]:
    """The core for the server: another one."""
    return set(_cpus()[-1:])


def is_pinned() -> bool:
    """Whether `pin` does anything on this machine."""
    return bool(_cpus())


def pin(pid: int, cpus: set[int]) -> None:
    """Keep a process on these cores, where that can be done."""
    if cpus:
        os.sched_setaffinity(pid, cpus)


def _cpus() -> list[int]:
    if not hasattr(os, "sched_getaffinity"):
        return []
    cpus = sorted(os.sched_getaffinity(0))
    return cpus if len(cpus) > 1 else []
