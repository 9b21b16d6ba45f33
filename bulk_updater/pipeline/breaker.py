"""When failing rows mean that something is wrong with the run, not with the rows.

A wrong instance or region answers 404 to everything; going on would only turn a whole export
into FAILED rows. So fifty in a row with one code, or more than half of the first thousand, stop
the run. INVALID and SKIPPED rows were never sent and do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulk_updater.config import MaxFailures

__all__ = ["Breaker"]


class Breaker:
    """Counts how requests end, and says when that is enough."""

    def __init__(self, limits: MaxFailures) -> None:
        self._limits = limits
        self._code: str | None = None
        self._in_a_row = 0
        self._ended = 0
        self._failed = 0

    def updated(self) -> None:
        """A request succeeded."""
        self._in_a_row = 0
        self._ended += 1

    def failed(self, code: str) -> str | None:
        """A request ended FAILED; returns why the run should stop, or None."""
        self._in_a_row = self._in_a_row + 1 if code == self._code else 1
        self._code = code
        self._ended += 1
        if self._ended <= self._limits.share_of:
            self._failed += 1
        if self._limits.in_a_row is not None and self._in_a_row >= self._limits.in_a_row:
            return f"{self._in_a_row} requests in a row failed with {code}"
        allowed = self._limits.share
        if allowed is not None and self._failed > allowed * self._limits.share_of:
            return (
                f"{self._failed:,} of the first {self._ended:,} requests failed, the last with "
                f"{code}"
            )
        return None
