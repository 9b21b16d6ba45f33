"""When failing rows mean that something is wrong with the run, not with the rows.

A wrong instance or region answers 404 to everything; going on would only turn a whole export
into FAILED rows. So fifty in a row with one code, or more than half of the first thousand, stop
the run. INVALID and SKIPPED rows were never sent and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulk_updater.words import count

if TYPE_CHECKING:
    from bulk_updater.config import MaxFailures

__all__ = ["Breaker"]


@dataclass(slots=True)
class _Tally:
    """How one operation's requests ended until now; `failed` counts the first of them only."""

    code: str | None = None
    in_a_row: int = 0
    ended: int = 0
    failed: int = 0


class Breaker:
    """Counts how each operation's requests end, and says when that is enough.

    Each operation by itself: a role that may do one of two fails every other request, and never
    two in a row.
    """

    def __init__(self, limits: MaxFailures) -> None:
        self._limits = limits
        self._tallies: dict[str, _Tally] = {}

    def updated(self, operation: str) -> None:
        """A request succeeded."""
        tally = self._tally(operation)
        tally.in_a_row = 0
        tally.ended += 1

    def failed(self, operation: str, code: str) -> str | None:
        """A request ended FAILED.

        Args:
            operation: Its operation's snake_case name.
            code: How it ended.

        Returns:
            Which requests are reason to stop the run, as in `on 50 requests in a row`; None while
            it may go on.
        """
        tally, limits = self._tally(operation), self._limits
        tally.in_a_row = tally.in_a_row + 1 if code == tally.code else 1
        tally.code = code
        tally.ended += 1
        if tally.ended <= limits.share_of:
            tally.failed += 1
        if limits.in_a_row is not None and tally.in_a_row >= limits.in_a_row:
            return f"on {count(tally.in_a_row, 'request')} in a row"
        if limits.share is not None and tally.failed > limits.share * limits.share_of:
            return (
                f"on the last of the failed requests, {tally.failed:,} of the first {tally.ended:,}"
            )
        return None

    def _tally(self, operation: str) -> _Tally:
        return self._tallies.setdefault(operation, _Tally())
