"""`run` once more over a run that is finished, of a million rows.

The command has to read the ledger back, fingerprint and count the source again, see that nothing
is left, and say so. The ledger and `run.json` are written by the program's own code, with results
as a run leaves them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.benchmarks.exports import write_narrow_export, write_narrow_mapping
from tests.benchmarks.processes import measure, take_turns
from tests.benchmarks.report import Section, at_most, best_and_median

if TYPE_CHECKING:
    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_MOST_S = 10
_MOST_MB = 300


def bench(settings: Bench) -> Section:
    """Seconds and peak memory until the run says that all is done."""
    n_rows, n_turns = (5_000, 1) if settings.quick else (1_000_000, 3)
    source, mapping = settings.folder / "export.csv", settings.folder / "mapping.yaml"
    write_narrow_export(source, n_rows)
    write_narrow_mapping(mapping)
    finished: dict[str, Any] = {
        "mapping": str(mapping),
        "source": str(source),
        "run_dir": str(settings.folder / "run"),
    }
    written = measure("finish_ledger", **finished).found
    taken = take_turns({"run, all settled": lambda: measure("resume", **finished)}, n_turns)
    (turns,) = taken.values()
    for turn in turns:
        if turn.found["state"] != "finished" or turn.found["sent"]:
            raise RuntimeError("the run did not take the ledger for finished")
    return Section(
        what=(
            f"A ledger of {written['records']:,} results, {written['bytes'] / 1e6:,.0f} MB, and its"
            f" source of {source.stat().st_size / 1e6:,.0f} MB; {n_turns} turns. The first figure"
            " is of the call alone, the second of the whole process."
        ),
        header=("", "s", "s, whole process", "CPU s", "peak MB"),
        rows=[
            (
                name,
                best_and_median(turns, lambda turn: turn.wall_s, ".2f"),
                best_and_median(turns, lambda turn: turn.process_wall_s, ".2f"),
                best_and_median(turns, lambda turn: turn.cpu_s, ".2f"),
                best_and_median(turns, lambda turn: turn.peak_mb, ",.0f"),
            )
            for name, turns in taken.items()
        ],
        targets=(
            at_most(f"Under {_MOST_S} s", min(turn.wall_s for turn in turns), _MOST_S, "s"),
            at_most(f"Under {_MOST_MB} MB", max(turn.peak_mb for turn in turns), _MOST_MB, "MB"),
        ),
    )
