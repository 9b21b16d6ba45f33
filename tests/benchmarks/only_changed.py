"""A night of which 2 % changed: deciding what is to be sent, beside the plain `plan`.

The yardstick is `plan` of the same export: every row read, mapped and checked. `plan
--only-changed` digests every row, too, and compares it with what is remembered of its contact; that
is what deciding costs. The whole night reads the export twice more, to fingerprint and count it and
to hand on what changed, writes a result for every row, and sends. The state is as a night left it
that applied the whole export.
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
    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_EVERY = 50
_MAX_IN_FLIGHT = 32
_MOST_TIMES_PLAN = 1.5
_MOST_MB = 400
_PLAN, _DECIDE, _NIGHT = "plan", "plan --only-changed", "run --only-changed"


def bench(settings: Bench) -> Section:
    """Times, requests, memory and the size of the state."""
    n_rows, n_turns = (5_000, 1) if settings.quick else (1_000_000, 3)
    folder = settings.folder
    before, source, mapping = folder / "before.csv", folder / "export.csv", folder / "mapping.yaml"
    state = folder / "state.sqlite"
    write_narrow_export(before, n_rows)
    write_changed_export(source, n_rows, _EVERY)
    write_narrow_mapping(mapping)
    with serving(folder, use_nginx=settings.use_nginx) as url:
        night = {"mapping": str(mapping), "source": str(source), "state": str(state), "url": url}
        filled = measure("fill_state", **{**night, "source": str(before)})
        taken = take_turns(
            {
                _PLAN: lambda: measure("plan", mapping=str(mapping), source=str(source)),
                _DECIDE: lambda: measure("plan_changes", **night),
            },
            n_turns,
        )
        run = measure(
            "run_changes", run_dir=str(folder / "run"), max_in_flight=_MAX_IN_FLIGHT, **night
        )
    n_changed = n_rows // _EVERY
    if {turn.found["requests"] for turn in taken[_DECIDE]} != {n_changed}:
        raise RuntimeError("it was not decided as it should be")
    if (run.found["sent"], run.found["outcomes"]["UNCHANGED"]) != (n_changed, n_rows - n_changed):
        raise RuntimeError("the night was not as it should be")
    taken[_NIGHT] = [run]

    def per_s(turn: Measured) -> float:
        return n_rows / turn.wall_s

    best = {name: min(turn.wall_s for turn in turns) for name, turns in taken.items()}
    return Section(
        what=(
            f"{n_rows:,} rows of 8 columns of which one in {_EVERY} changed; {n_turns} interleaved "
            f"turns, the night once. The state holds {n_rows:,} contacts in "
            f"{filled.found['state_mb']:,.0f} MB. Without `--only-changed` the night would send "
            f"{n_rows:,} requests, and sends {run.found['sent']:,}."
        ),
        header=("", "rows/s", "s", "CPU s", "peak MB", "requests"),
        rows=[
            (
                name,
                best_and_median(turns, per_s, ",.0f", high=True),
                best_and_median(turns, lambda turn: turn.wall_s, ".2f"),
                best_and_median(turns, lambda turn: turn.cpu_s, ".2f"),
                best_and_median(turns, lambda turn: turn.peak_mb, ",.0f"),
                f"{turns[0].found.get('sent', 0):,}",
            )
            for name, turns in taken.items()
        ],
        targets=[
            at_most(
                f"deciding within {_MOST_TIMES_PLAN} x the time of `plan`",
                best[_DECIDE] / best[_PLAN],
                _MOST_TIMES_PLAN,
                "x",
            ),
            at_most(
                f"under {_MOST_MB} MB",
                max(turn.peak_mb for turns in taken.values() for turn in turns),
                _MOST_MB,
                "MB",
            ),
        ],
    )
