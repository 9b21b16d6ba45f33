"""A night of which 2 % changed: deciding what is to be sent, beside the plain `plan`.

The yardstick is `plan` of the same export: every row read, mapped and checked. `plan
--only-changed` digests every row, too, and compares it with what is remembered of its contact; that
is what deciding costs. The whole night reads the export twice more, to fingerprint and count it and
to hand on what changed, writes a result for every row, and sends. The same night without it sends
every row; it is measured on the first of them, since it is as fast and takes as much memory
whatever their number. The state is as a night left it that applied the whole export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.exports import (
    write_changed_export,
    write_narrow_export,
    write_narrow_mapping,
)
from tests.benchmarks.processes import Measured, measure, take_turns
from tests.benchmarks.report import Section, at_most, best_and_median
from tests.benchmarks.server import serving

if TYPE_CHECKING:
    from tests.benchmarks.report import Bench, Target

__all__ = ["bench", "bench_ten_million"]

_EVERY = 50
_WHOLE_NIGHT_ROWS = 100_000
_MAX_IN_FLIGHT = 32
_MOST_TIMES_PLAN = 1.5
_MOST_MB = 400
_MOST_STATE_GB = 1.5
_HEADER = ("", "rows/s", "s", "CPU s", "peak MB", "requests")
_PLAN, _DECIDE = "plan", "plan --only-changed"
_NIGHT, _WHOLE_NIGHT = "run --only-changed", "run"


def bench(settings: Bench) -> Section:
    """Times, requests, memory and the size of the state."""
    n_rows, n_turns = (5_000, 1) if settings.quick else (1_000_000, 3)
    with serving(settings.folder, use_nginx=settings.use_nginx) as url:
        night, filled = _prepare(settings, n_rows, url)
        taken = _decide(night, url, n_rows, n_turns)
        sending = {"max_in_flight": _MAX_IN_FLIGHT, "url": url}
        run = measure("run_changes", run_dir=str(settings.folder / "run"), **night, **sending)
        n_whole = min(n_rows, _WHOLE_NIGHT_ROWS)
        first_rows = settings.folder / "first.csv"
        write_changed_export(first_rows, n_whole, _EVERY)
        whole = measure(
            "run",
            run_dir=str(settings.folder / "whole"),
            mapping=night["mapping"],
            source=str(first_rows),
            **sending,
        )
    n_changed = n_rows // _EVERY
    if (run.found["sent"], run.found["outcomes"]["UNCHANGED"]) != (n_changed, n_rows - n_changed):
        raise RuntimeError("the night was not as it should be")
    if whole.found["outcomes"]["UPDATED"] != n_whole:
        raise RuntimeError("the night without --only-changed was not as it should be")
    most_mb = max(turn.peak_mb for turn in (*taken[_DECIDE], run))
    table = _table({**taken, _NIGHT: [run]}, n_rows)
    table += _table({f"{_WHOLE_NIGHT}, {n_whole:,} rows": [whole]}, n_whole)
    return Section(
        what=(
            f"{n_rows:,} rows of 8 columns of which one in {_EVERY} changed; {n_turns} interleaved "
            f"turns, the nights once. The state holds {n_rows:,} contacts in "
            f"{filled.found['state_mb']:,.0f} MB. Without `--only-changed` the night would send "
            f"{n_rows:,} requests, {n_rows / whole.found['sent'] * whole.wall_s:,.0f} s at the "
            "rate below."
        ),
        header=_HEADER,
        rows=table,
        targets=[
            _within_times_of_plan(taken),
            at_most(f"`--only-changed` under {_MOST_MB} MB", most_mb, _MOST_MB, "MB"),
        ],
    )


def bench_ten_million(settings: Bench) -> Section:
    """The same at ten million rows: deciding only, once."""
    n_rows = 5_000 if settings.quick else 10_000_000
    url = "http://127.0.0.1:9"  # nobody is asked, and nothing is sent
    night, filled = _prepare(settings, n_rows, url)
    taken = _decide(night, url, n_rows, 1)
    return Section(
        what=(
            f"{n_rows:,} rows of 8 columns of which one in {_EVERY} changed, once. The state holds "
            f"{n_rows:,} contacts in {filled.found['state_mb']:,.0f} MB."
        ),
        header=_HEADER,
        rows=_table(taken, n_rows),
        targets=[
            _within_times_of_plan(taken),
            at_most(
                f"the state under {_MOST_STATE_GB} GB",
                filled.found["state_mb"] / 1000,
                _MOST_STATE_GB,
                "GB",
            ),
        ],
    )


def _prepare(settings: Bench, n_rows: int, url: str) -> tuple[dict[str, str], Measured]:
    """The export of the day, and the state as the night before left it.

    Returns:
        What a task of the night is told but for `url`, and what filling the state took.
    """
    folder = settings.folder
    before, source, mapping = folder / "before.csv", folder / "export.csv", folder / "mapping.yaml"
    write_narrow_mapping(mapping)
    night = {"mapping": str(mapping), "state": str(folder / "state.sqlite")}
    write_narrow_export(before, n_rows)
    filled = measure("fill_state", source=str(before), url=url, **night)
    before.unlink()
    write_changed_export(source, n_rows, _EVERY)
    return night | {"source": str(source)}, filled


def _decide(
    night: dict[str, str], url: str, n_rows: int, n_turns: int
) -> dict[str, list[Measured]]:
    """`plan` and `plan --only-changed`, in turn."""
    plain = {name: night[name] for name in ("mapping", "source")}
    taken = take_turns(
        {
            _PLAN: lambda: measure("plan", **plain),
            _DECIDE: lambda: measure("plan_changes", url=url, **night),
        },
        n_turns,
    )
    if {turn.found["requests"] for turn in taken[_DECIDE]} != {n_rows // _EVERY}:
        raise RuntimeError("it was not decided as it should be")
    return taken


def _table(taken: dict[str, list[Measured]], n_rows: int) -> list[tuple[str, ...]]:
    return [
        (
            name,
            best_and_median(turns, lambda turn: n_rows / turn.wall_s, ",.0f", high=True),
            best_and_median(turns, lambda turn: turn.wall_s, ".2f"),
            best_and_median(turns, lambda turn: turn.cpu_s, ".2f"),
            best_and_median(turns, lambda turn: turn.peak_mb, ",.0f"),
            f"{turns[0].found.get('sent', 0):,}",
        )
        for name, turns in taken.items()
    ]


def _within_times_of_plan(taken: dict[str, list[Measured]]) -> Target:
    best = {name: min(turn.wall_s for turn in taken[name]) for name in (_PLAN, _DECIDE)}
    return at_most(
        f"deciding within {_MOST_TIMES_PLAN} x the time of `plan`",
        best[_DECIDE] / best[_PLAN],
        _MOST_TIMES_PLAN,
        "x",
    )
