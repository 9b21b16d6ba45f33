"""What one `Ledger.append` costs the event loop, with 32 callers that each wait for the disk.

For information: how many records share a sync, and how fast the disk syncs, is the machine's
affair. The loop's share is ours, and comes out of the time for sending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.processes import Measured, measure, take_turns
from tests.benchmarks.report import Section, best_and_median

if TYPE_CHECKING:
    from tests.benchmarks.report import Bench

__all__ = ["bench"]

_N_APPENDERS = 32


def bench(settings: Bench) -> Section:
    """CPU of the loop for each append, appends and syncs per second."""
    n_results, n_turns = (1_000, 1) if settings.quick else (50_000, 5)
    n_ledgers = 0

    def append() -> Measured:
        nonlocal n_ledgers
        n_ledgers += 1
        folder = settings.folder / f"ledger-{n_ledgers}"
        folder.mkdir()
        return measure("append", folder=str(folder), n_results=n_results, n_appenders=_N_APPENDERS)

    taken = take_turns({"32 appenders": append}, n_turns)

    return Section(
        what=(
            f"{n_results:,} results of {taken['32 appenders'][0].found['bytes'] / n_results:,.0f}"
            f" bytes; {n_turns} turns, on the disk of the temporary folder."
        ),
        header=("", "loop CPU µs/append", "appends/s", "syncs/s", "results/sync", "ms/sync"),
        rows=[
            (
                name,
                best_and_median(turns, lambda turn: turn.found["loop_s"] / n_results * 1e6, ".1f"),
                best_and_median(
                    turns, lambda turn: n_results / turn.found["append_s"], ",.0f", high=True
                ),
                best_and_median(
                    turns,
                    lambda turn: turn.found["syncs"] / turn.found["append_s"],
                    ",.0f",
                    high=True,
                ),
                best_and_median(
                    turns, lambda turn: n_results / turn.found["syncs"], ".1f", high=True
                ),
                best_and_median(
                    turns, lambda turn: turn.found["sync_s"] / turn.found["syncs"] * 1e3, ".2f"
                ),
            )
            for name, turns in taken.items()
        ],
    )
