"""How much of a quota a client gets, beside the retries that the AWS SDKs have built in.

In real time, against `bulk-updater sandbox`: a fresh one for every measurement, in a process of
its own, whose bucket has a rate R and holds B = 1.5 R. Only one contender runs at a time:

    bulk_updater   `bulk-updater run --rate auto --exclusive`, which begins from the quota that the
                   sandbox's Service Quotas tells
    boto3          threads that share one client, in retry mode `standard` or `adaptive`
    aioboto3       tasks that share one client, in the same two modes

The yardsticks have as many workers as bulk_updater may have requests in flight. A worker takes a
row, sends it, and goes on to the next; where the SDK raised, the row is lost. How often the SDK
tries is left to its mode.

What is measured begins with the first request that the sandbox saw: until then its counters are
asked every few milliseconds, and afterwards left alone until the stop. It ends as they are read
for the stop, just before the contender gets its SIGTERM. So neither the start of an interpreter
nor the counting of the source is in it. The seconds are taken a poll too long rather than too
short, so that no figure flatters.

    accepted      requests that the bucket let through, by the sandbox's counters
    utilisation   of what the bucket could have given: B, and R for each second
    throttled     requests that found the bucket empty, the SDK's own retries too, of accepted
    lost          rows given up, of all that the contender was done with at its stop

For bulk_updater the last is told by its ledger and what the sandbox holds, once the run has
settled what was under way: results other than UPDATED, UPDATED that the sandbox does not hold,
and what it holds without a result.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.benchmarks.exports import write_wide_export, write_wide_mapping
from tests.benchmarks.processes import environment, is_pinned, measure, pin, task_cpus
from tests.benchmarks.report import Section, Target, at_most
from tests.benchmarks.server import serving_sandbox
from tests.benchmarks.tasks import KEY, REGION, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_PACING = ("--rate", "auto", "--exclusive")
_LATENCY = {"latency_ms": 70, "latency_jitter": 1 / 7}  # 60 to 80 ms
_BURST_PER_RATE = 1.5
_POLL_S = 0.01
_SETTLED_WITHIN_S = 60
_INTERRUPTED = 130

_OURS = "bulk_updater"
_LEDGER = ("updated", "failed", "unrecorded", "unapplied")
_LEAST_UTILISATION = 0.99
_MOST_THROTTLED = 0.3
_OTHERS = {
    f"{sdk}, {mode}": (task, mode)
    for sdk, task in (
        ("boto3 in threads", "boto3_retrying"),
        ("aioboto3 in tasks", "aioboto3_retrying"),
    )
    for mode in ("standard", "adaptive")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quota:
    """What the sandbox gives, and how long a contender has to take it."""

    rate_per_s: int
    seconds: int

    @property
    def burst(self) -> float:
        return self.rate_per_s * _BURST_PER_RATE

    @property
    def max_in_flight(self) -> int:
        return 64 if self.rate_per_s > 100 else 32

    @property
    def n_rows(self) -> int:
        """More than the bucket can give."""
        return self.rate_per_s * (self.seconds + 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What a contender made of a quota.

    Attributes:
        accepted_per_s: Requests that the bucket let through, a second.
        utilisation: Those of what it could have given, 0 to 1.
        throttled: Requests that it refused, in percent of those.
        lost: Rows given up, in percent of all that the contender was done with.
        client_busy: CPU of the contender in percent of one core; with its start and end, so
            rather too much.
        sandbox_busy: The same of the sandbox.
        rows: What is known of the rows, in numbers.
    """

    accepted_per_s: float
    utilisation: float
    throttled: float
    lost: float
    client_busy: float
    sandbox_busy: float
    rows: dict[str, int]


def bench(settings: Bench) -> Section:
    """The share of the quota, the throttling and the losses of each, at three rates."""
    rates, seconds = ((10,), 5) if settings.quick else ((10, 100, 500), 60)
    quotas = [_Quota(rate_per_s=rate, seconds=seconds) for rate in rates]
    taken = {quota: _take_all(settings.folder, quota) for quota in quotas}
    attempts = taken[quotas[0]][next(iter(_OTHERS))].rows["attempts"]
    in_flight = ", ".join(f"{quota.max_in_flight} at {quota.rate_per_s}/s" for quota in quotas)
    cores = "has a core of its own" if is_pinned() else "shares the cores with the client"
    return Section(
        what=(
            f"{seconds} s for each, one after the other, each against a fresh sandbox that answers"
            f" after 60 to 80 ms and lets {_BURST_PER_RATE} s of its rate through at once; rows of"
            " ten attributes, every row a contact of its own. bulk_updater begins from what Service"
            f" Quotas tells (`{' '.join(_PACING)}`). All may have as many requests in flight:"
            f" {in_flight}. The yardsticks make as many attempts as is the default of their mode,"
            f" {attempts} in both. The sandbox {cores}; where it or the client needs nearly all of"
            " one, the machine does not carry the rate, and the figure is that of the machine."
        ),
        header=(
            "",
            "accepted/s",
            "utilisation",
            "throttled %",
            "rows lost %",
            "CPU %",
            "CPU %, sandbox",
        ),
        rows=[
            (
                f"{quota.rate_per_s}/s: {name}",
                f"{each.accepted_per_s:,.2f}",
                f"{each.utilisation:.4f}",
                f"{each.throttled:,.2f}",
                f"{each.lost:,.2f}",
                f"{each.client_busy:,.0f}",
                f"{each.sandbox_busy:,.0f}",
            )
            for quota, contenders in taken.items()
            for name, each in contenders.items()
        ],
        targets=[
            target
            for quota, contenders in taken.items()
            for target in _targets(f"{quota.rate_per_s}/s", contenders)
        ],
    )


def _targets(rate: str, contenders: dict[str, _Taken]) -> list[Target]:
    ours = contenders[_OURS]
    rows = ", ".join(f"{ours.rows[name]:,} {name}" for name in _LEDGER)
    behind = [
        f"{name} in {figure}"
        for name in _OTHERS
        for figure, is_behind in (
            ("utilisation", ours.utilisation < contenders[name].utilisation),
            ("throttled", ours.throttled > contenders[name].throttled),
            ("rows lost", ours.lost > contenders[name].lost),
        )
        if is_behind
    ]
    return [
        Target(
            f"{rate}: utilisation at least {_LEAST_UTILISATION}",
            f"{ours.utilisation:.4f}",
            ours.utilisation >= _LEAST_UTILISATION,
        ),
        at_most(
            f"{rate}: throttled at most {_MOST_THROTTLED} %", ours.throttled, _MOST_THROTTLED, "%"
        ),
        Target(f"{rate}: no row lost", rows, ours.lost == 0),
        Target(
            f"{rate}: ahead of each of the others on every figure, or level at none lost",
            f"behind {', '.join(behind)}" if behind else "ahead",
            not behind,
        ),
    ]


def _take_all(folder: Path, quota: _Quota) -> dict[str, _Taken]:
    home = folder / str(quota.rate_per_s)  # of its own: nothing is known from another rate
    home.mkdir()
    source, mapping, run_dir = home / "export.csv", home / "mapping.yaml", home / "run"
    write_wide_export(source, quota.n_rows)
    write_wide_mapping(mapping)

    def run(url: str) -> list[str]:
        connection = f"--endpoint-url={url}", f"--region={REGION}"
        limits = *_PACING, f"--max-in-flight={quota.max_in_flight}"
        command = sys.executable, "-m", "bulk_updater", "run", str(mapping), str(source)
        return [*command, f"--run-dir={run_dir}", *connection, *limits, "--json"]

    def count(url: str, _told: bytes) -> dict[str, int]:
        return measure("compare_with_sandbox", url=url, run_dir=str(run_dir)).found

    def yardstick(task: str, mode: str, url: str) -> list[str]:
        arguments = {"url": url, "mode": mode, "max_in_flight": quota.max_in_flight}
        return [sys.executable, "-m", "tests.benchmarks.tasks", task, json.dumps(arguments)]

    def found(_url: str, told: bytes) -> dict[str, int]:
        rows: dict[str, int] = json.loads(told)["found"]
        return rows

    return {
        _OURS: _take(_OURS, quota, home, run, count, ends_with=_INTERRUPTED),
        **{
            name: _take(name, quota, home, partial(yardstick, *which), found)
            for name, which in _OTHERS.items()
        },
    }


def _take(
    name: str,
    quota: _Quota,
    home: Path,
    command: Callable[[str], list[str]],
    count: Callable[[str, bytes], dict[str, int]],
    *,
    ends_with: int = 0,
) -> _Taken:
    """Let a contender take what it can.

    Args:
        name: Who it is.
        quota: What it can take.
        home: Its home directory.
        command: The command for the URL of the sandbox.
        count: The rows, from that URL and what the command printed; `done` and `lost` at least.
        ends_with: The command's exit code after SIGTERM.
    """
    flags = {"rate": quota.rate_per_s, "burst": quota.burst, "port": 0, **_LATENCY}
    cpu_s = [_cpu_of_children_s()]
    with serving_sandbox(KEY, SECRET, **flags) as url:
        seconds, counters, told = _watch(command(url), url, home, quota.seconds, ends_with)
        cpu_s.append(_cpu_of_children_s())
        rows = count(url, told)
        cpu_s.append(_cpu_of_children_s())
    cpu_s.append(_cpu_of_children_s())
    # Those in flight count, since their token is gone.
    n_accepted = counters["received"] - counters["throttled"]
    taken = _Taken(
        accepted_per_s=n_accepted / seconds,
        utilisation=n_accepted / (quota.burst + quota.rate_per_s * seconds),
        throttled=100 * counters["throttled"] / n_accepted,
        lost=100 * rows["lost"] / max(1, rows["done"]),
        client_busy=100 * (cpu_s[1] - cpu_s[0]) / seconds,
        sandbox_busy=100 * (cpu_s[3] - cpu_s[2]) / seconds,
        rows=rows,
    )
    print(  # noqa: T201
        f"  {quota.rate_per_s}/s, {name}: utilisation {taken.utilisation:.4f},"
        f" throttled {taken.throttled:.2f} %, {rows['lost']} of {rows['done']} rows lost",
        file=sys.stderr,
    )
    return taken


def _watch(
    command: list[str], url: str, home: Path, seconds: float, ends_with: int
) -> tuple[float, dict[str, Any], bytes]:
    """Run a command until it has sent for so long; the seconds, the counters, what it printed."""
    kept = {name: value for name, value in environment().items() if not name.startswith("XDG_")}
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    process = subprocess.Popen(
        command, env={**kept, **credentials, "HOME": str(home)}, stdout=subprocess.PIPE
    )
    try:
        pin(process.pid, task_cpus())
        began_s = _begin_s(process, url)
        time.sleep(seconds)
        counters = _counters(url)
        seconds = time.monotonic() - began_s
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=_SETTLED_WITHIN_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != ends_with or counters["rejected"]:
        raise RuntimeError(
            f"{command} ended with {process.returncode}, not {ends_with}; the sandbox rejected"
            f" {counters['rejected'] or 'nothing'}"
        )
    return seconds, counters, told


def _begin_s(process: subprocess.Popen[bytes], url: str) -> float:
    """Wait for the first request; the last time at which there was none."""
    asked_s = time.monotonic()
    while process.poll() is None:
        before_s, asked_s = asked_s, time.monotonic()
        if _counters(url)["received"]:
            return before_s
        time.sleep(_POLL_S)
    raise RuntimeError(f"{process.args!r} ended before it sent anything")


def _counters(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/_sandbox/counters") as answer:
        counters: dict[str, Any] = json.load(answer)["update_contact_attributes"]
        return counters


def _cpu_of_children_s() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
