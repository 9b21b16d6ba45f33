"""Peak memory of `run` and of `plan` over ten thousand, a hundred thousand and a million rows.

There is no yardstick but the program itself: the peak must not grow with the file. A frame, its
mapped columns and the requests in flight are all that is held, and half a byte for every row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.exports import write_narrow_export, write_narrow_mapping
from tests.benchmarks.processes import Measured, measure, take_turns
from tests.benchmarks.report import Section, at_most
from tests.benchmarks.server import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_MAX_IN_FLIGHT = 32
_MOST_MB = 300
_MOST_GROWTH = 1.3


def bench(settings: Bench) -> Section:
    """Peak memory of both at each size."""
    sizes = (500, 3_000) if settings.quick else (10_000, 100_000, 1_000_000)
    mapping = settings.folder / "mapping.yaml"
    write_narrow_mapping(mapping)
    peaks: dict[str, list[float]] = {"run": [], "plan": []}
    rows: list[tuple[str, ...]] = []
    with serving(settings.folder, use_nginx=settings.use_nginx) as url:
        for n_rows in sizes:
            source = settings.folder / f"export-{n_rows}.csv"
            write_narrow_export(source, n_rows)
            contenders: dict[str, Callable[[], Measured]] = {
                "plan": lambda source=source: measure(  # type: ignore[misc]
                    "plan", mapping=str(mapping), source=str(source)
                ),
                "run": lambda source=source: measure(  # type: ignore[misc]
                    "run",
                    mapping=str(mapping),
                    source=str(source),
                    run_dir=str(source.with_suffix(".run")),
                    url=url,
                    max_in_flight=_MAX_IN_FLIGHT,
                ),
            }
            for name, (turn,) in take_turns(contenders, 1).items():
                peaks[name].append(turn.peak_mb)
                rows.append(
                    (
                        name,
                        f"{n_rows:,}",
                        f"{source.stat().st_size / 1e6:,.1f}",
                        f"{turn.peak_mb:,.0f}",
                        f"{turn.wall_s:,.1f}",
                    )
                )
    return Section(
        what="The most memory that the process had, over exports of three sizes; one run each.",
        header=("", "rows", "export MB", "peak MB", "s"),
        rows=sorted(rows, key=lambda row: row[0] != "run"),
        targets=[
            target
            for name, found in peaks.items()
            for target in (
                at_most(f"`{name}` under {_MOST_MB} MB", max(found), _MOST_MB, "MB"),
                at_most(
                    f"`{name}`: largest peak within {_MOST_GROWTH} x the smallest",
                    max(found) / min(found),
                    _MOST_GROWTH,
                    "x",
                ),
            )
        ],
    )
