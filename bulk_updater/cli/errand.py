"""What is done beside a run, and is left where it takes too long."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from bulk_updater.errors import BulkUpdaterError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PATIENCE_S", "Errand"]

PATIENCE_S = 5.0
"""Seconds that figures may take to be written, or exported, at the end."""


class Errand(threading.Thread):
    """Something that is done beside, and that nobody waits for beyond its time.

    Attributes:
        warning: Why it was not done, once it has ended; None where it was.
    """

    def __init__(self, do: Callable[[], str | None], limit_s: float, what: str) -> None:
        super().__init__(name=what, daemon=True)
        self.warning: str | None = None
        self._do = do
        self._limit_s = limit_s
        self.start()

    def run(self) -> None:
        """Do it; called by the thread."""
        try:
            self.warning = self._do()
        except BulkUpdaterError as error:
            self.warning = error.message
        except Exception as error:  # noqa: BLE001 - nothing that is told may change how a run ends
            self.warning = f"{self.name} failed ({type(error).__name__})."

    def result(self) -> str | None:
        """Wait for its end, or until its time is up; returns what to warn of."""
        self.join(self._limit_s)
        if self.is_alive():
            return f"{self.name} did not end within {self._limit_s:g} s; it is left."
        return self.warning
