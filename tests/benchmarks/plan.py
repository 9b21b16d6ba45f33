"""`plan` over a million rows, beside pandas' plain `read_csv` of the same file.

pandas only reads, and holds the whole file: with types guessed, or with every cell as the text that
stands there, as this program has to. `plan` reads a few thousand rows at a time as text, maps
every one and checks every limit. The file has just been written, so that all read it from memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.exports import write_narrow_export, write_narrow_mapping
from tests.benchmarks.processes import Measured, measure, take_turns
from tests.benchmarks.report import Section, Target, best_and_median

if TYPE_CHECKING:
    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_ROWS_PER_S = 400_000
_OURS = "bulk_updater plan"
_PANDAS, _PANDAS_TEXT = "pandas.read_csv", "pandas.read_csv, as text"


def bench(settings: Bench) -> Section:
    """Rows per second of all three."""
    n_rows, n_turns = (20_000, 1) if settings.quick else (1_000_000, 5)
    source, mapping = settings.folder / "export.csv", settings.folder / "mapping.yaml"
    write_narrow_export(source, n_rows)
    write_narrow_mapping(mapping)
    taken = take_turns(
        {
            _OURS: lambda: measure("plan", mapping=str(mapping), source=str(source)),
            _PANDAS: lambda: measure("pandas_read", source=str(source), as_text=False),
            _PANDAS_TEXT: lambda: measure("pandas_read", source=str(source), as_text=True),
        },
        n_turns,
    )
    for turns in taken.values():
        if {turn.found["rows"] for turn in turns} != {n_rows}:
            raise RuntimeError("not all rows were read")

    def per_s(turn: Measured) -> float:
        return n_rows / turn.wall_s

    def whole_per_s(turn: Measured) -> float:
        return n_rows / turn.process_wall_s

    ours, pandas = (max(map(per_s, taken[name])) for name in (_OURS, _PANDAS))
    return Section(
        what=(
            f"{n_rows:,} rows of 8 columns, {source.stat().st_size / 1e6:,.0f} MB; {n_turns}"
            " interleaved turns. The first figure is of the call alone, the second of the whole"
            " process, with the interpreter's start and the imports."
        ),
        header=("", "rows/s", "rows/s, whole process", "CPU s", "CPU s, whole process", "peak MB"),
        rows=[
            (
                name,
                best_and_median(turns, per_s, ",.0f", high=True),
                best_and_median(turns, whole_per_s, ",.0f", high=True),
                best_and_median(turns, lambda turn: turn.cpu_s, ".2f"),
                best_and_median(turns, lambda turn: turn.process_cpu_s, ".2f"),
                best_and_median(turns, lambda turn: turn.peak_mb, ",.0f"),
            )
            for name, turns in taken.items()
        ],
        targets=(
            Target(
                f"At least {_ROWS_PER_S:,} rows/s, or pandas' own speed on a slower machine",
                f"{ours:,.0f} rows/s, {ours / pandas:.2f} x pandas",
                ours >= min(_ROWS_PER_S, pandas),
            ),
        ),
    )
