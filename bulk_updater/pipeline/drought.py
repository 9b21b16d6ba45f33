"""Says once when nothing but throttling has come back for a while.

Throttling never fails a row and never stops a run: it may last for as long as live traffic does. A
run that gets nothing at all would wait in silence, so it says what is going on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from bulk_updater.operations import get_operation
from bulk_updater.words import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.errors import Throttled

__all__ = ["DROUGHT_S", "Drought"]

DROUGHT_S: Final = 600.0
"""Seconds of nothing but throttling after which it is said; ours: live traffic has its rushes, and
few of them take the whole quota for longer."""

log = logging.getLogger(__name__)


class Drought:
    """Watches each operation; one for each execution of a run."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._said: set[str] = set()

    def accepted(self, operation: str) -> None:
        """A request of this operation succeeded."""
        self._began_s.pop(operation, None)
        self._said.discard(operation)

    def throttled(self, operation: str, error: Throttled) -> None:
        """A request of this operation was throttled."""
        now_s = self._clock()
        lasts_s = now_s - self._began_s.setdefault(operation, now_s)
        if lasts_s < DROUGHT_S or operation in self._said:
            return
        self._said.add(operation)
        known = get_operation(operation)
        status = "" if error.code == str(error.http_status) else f"{error.http_status} "
        log.warning(
            "%s%s on every request for %s: other traffic takes the whole quota of %s, or the "
            "account has none; the run goes on as soon as there is room. Ask AWS to raise the "
            "quota %s, or stop the run and give the same command again later.",
            status,
            error.code,
            duration(lasts_s),
            known.api_name,
            known.quota_code,
        )
