"""`--canary`: a few rows first, and the others only if none of them failed.

The canary are the first rows that make a request and are not settled, with all of their
operations. It has ended when all that was submitted of them is settled; who feeds waits for that
before the first row behind it. Where there are no more rows than the canary has, nothing is behind
it, and the run ends as it would without.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bulk_updater.model import Outcome
from bulk_updater.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulk_updater.model import Result

__all__ = ["Canary"]


class Canary:
    """Counts the first rows that are sent, and says whether any failed. Asks nobody the time.

    One for each execution: the rows of an earlier one are settled, so the next rows are the canary
    of a run that goes on.

    Args:
        n_rows: How many rows, from 1.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._rows: set[int] = set()
        self._failed: set[int] = set()
        self._codes: Counter[str] = Counter()

    def submitted(self, row: int) -> bool:
        """A row is about to be sent, with one of its operations.

        Returns:
            Whether it is of the canary. False is for the first row behind it, and for all others
            there: wait until what was submitted is settled, and look at `failure`.
        """
        if row not in self._rows:
            if len(self._rows) == self._n_rows:
                return False
            self._rows.add(row)
        return True

    def settled(self, results: Iterable[Result]) -> None:
        """Results have become durable; those of other rows do not count."""
        for result in results:
            if result.outcome is Outcome.FAILED and result.row in self._rows:
                self._failed.add(result.row)
                self._codes[result.error_code or "no code"] += 1

    @property
    def failure(self) -> str | None:
        """Why to stop, in two sentences; None where no row of the canary has failed by now."""
        if not self._failed:
            return None
        codes = ", ".join(f"{code} {n:,}" for code, n in self._codes.most_common())
        of_rows = f"the first {count(len(self._rows), 'row')}"
        return (
            f"The canary failed: {len(self._failed):,} of {of_rows} FAILED ({codes}); nothing "
            "after them was sent. failed.csv has them; the same command goes on with the next "
            "rows as its canary."
        )
