"""The whole pipeline, unthrottled, beside the same requests sent by boto3 and by bare aioboto3.

What the program does for a request beyond sending it (reading, mapping, pacing, retrying, order by
contact, a durable result) is worth little if it makes the sending slow. So the rate is set to
where it never holds anything back, and the server costs almost nothing: what is left is the client.

    bulk_updater   CSV to durable ledger, `run` from its first line to the summary
    boto3          a pool of as many threads as requests may be in flight, one client
    aioboto3       as many tasks, one client: what any program on top of aioboto3 has to pay

The yardsticks send the same requests, made beforehand; they read, map and record nothing. All three
open their client within what is measured. Every contender is held to one core and the server has
another, so that a request's CPU time and its time on the clock tell the same story.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.exports import write_wide_export, write_wide_mapping
from tests.benchmarks.processes import Measured, is_pinned, measure, take_turns
from tests.benchmarks.report import Section, at_least, best_and_median
from tests.benchmarks.server import serving

if TYPE_CHECKING:
    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_MAX_IN_FLIGHT = 32
_OURS, _THREADS, _TASKS = "bulk_updater, CSV to ledger", "boto3, 32 threads", "aioboto3, 32 tasks"


def bench(settings: Bench) -> Section:
    """Requests per second and CPU per request of the three."""
    n_rows, n_turns = (300, 1) if settings.quick else (20_000, 5)
    source, mapping = settings.folder / "export.csv", settings.folder / "mapping.yaml"
    write_wide_export(source, n_rows)
    write_wide_mapping(mapping)
    n_runs = 0
    with serving(settings.folder, use_nginx=settings.use_nginx) as url:

        def run() -> Measured:
            nonlocal n_runs
            n_runs += 1
            measured = measure(
                "run",
                pinned=True,
                mapping=str(mapping),
                source=str(source),
                run_dir=str(settings.folder / f"run-{n_runs}"),
                url=url,
                max_in_flight=_MAX_IN_FLIGHT,
            )
            _expect(measured.found["outcomes"]["UPDATED"], n_rows)
            return measured

        def yardstick(task: str) -> Measured:
            measured = measure(
                task, pinned=True, n_rows=n_rows, url=url, max_in_flight=_MAX_IN_FLIGHT
            )
            _expect(measured.found["accepted"], n_rows)
            return measured

        taken = take_turns(
            {
                _OURS: run,
                _THREADS: lambda: yardstick("boto3_threads"),
                _TASKS: lambda: yardstick("aioboto3_tasks"),
            },
            n_turns,
        )

    def per_s(turn: Measured) -> float:
        return n_rows / turn.wall_s

    def cpu_us(turn: Measured) -> float:
        return turn.cpu_s / n_rows * 1e6

    best = {name: max(map(per_s, turns)) for name, turns in taken.items()}
    least_us = {name: min(map(cpu_us, turns)) for name, turns in taken.items()}
    middle = {name: median(map(per_s, turns)) for name, turns in taken.items()}
    server = "nginx" if settings.use_nginx else "a raw asyncio server"
    pinned = "one core for the client, another for the server" if is_pinned() else "cores not split"
    return Section(
        what=(
            f"{n_rows:,} rows of ten attributes, every row a contact of its own, against {server}"
            f" on the same machine; {pinned}; {n_turns} interleaved turns. The ratios say how"
            " bulk_updater compares: above 1, it is the faster, or takes less CPU."
        ),
        header=("", "requests/s", "CPU µs/request", "speed ratio", "CPU ratio", "peak MB"),
        rows=[
            (
                name,
                best_and_median(turns, per_s, ",.0f", high=True),
                best_and_median(turns, cpu_us, ",.0f"),
                f"{best[_OURS] / best[name]:.2f} ({middle[_OURS] / middle[name]:.2f})",
                f"{least_us[name] / least_us[_OURS]:.2f}",
                best_and_median(turns, lambda turn: turn.peak_mb, ",.0f"),
            )
            for name, turns in taken.items()
        ],
        targets=(
            at_least("At least 1.5 x boto3 in threads", best[_OURS] / best[_THREADS], 1.5, "x"),
            at_least("At least 0.9 x bare aioboto3", best[_OURS] / best[_TASKS], 0.9, "x"),
        ),
    )


def _expect(n_accepted: int, n_rows: int) -> None:
    if n_accepted != n_rows:
        raise RuntimeError(f"{n_accepted} of {n_rows} requests were accepted")
