"""Keeping `--metrics-file` up to date while a run goes on, and once more at its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from bulk_updater.cli import errand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bulk_updater.metrics import MetricsFile, Reading

__all__ = ["WRITE_EVERY_S", "KeptFigures"]

log = logging.getLogger(__name__)

WRITE_EVERY_S = 15.0
"""As often as Prometheus looks by default, or more often."""


class KeptFigures:
    """The figures of one run in their file; no trouble with the file is the run's.

    Args:
        path: The file.
        reading: The figures of now.
    """

    def __init__(self, path: Path, reading: Callable[[], Reading]) -> None:
        self._path = path
        self._reading = reading
        self._file: MetricsFile | None = None
        self._writing: errand.Errand | None = None
        self._has_warned = False

    async def keep(self) -> NoReturn:
        """Write at once and every `WRITE_EVERY_S` seconds, until cancelled."""
        while True:
            if self._writing is None or not self._writing.is_alive():
                self._say_once(self._writing)
                # A disk that does not answer holds up its own thread only.
                try:
                    self._writing = self._errand_to_write(self._reading())
                except RuntimeError:  # no thread can be started now
                    log.debug("The figures are not written this time.")
            await asyncio.sleep(WRITE_EVERY_S)

    def write_last(self, reading: Reading) -> errand.Errand | None:
        """Begin to write the figures of the end; returns the errand that may have to be warned of.

        None where the file's trouble was told while the run went on: once was enough.
        """
        self._say_once(self._writing)
        last = self._errand_to_write(reading)
        if not self._has_warned:
            return last
        last.result()
        return None

    def _say_once(self, ended: errand.Errand | None) -> None:
        if ended is not None and ended.warning and not self._has_warned:
            self._has_warned = True
            log.warning("%s The run goes on.", ended.warning)

    def _errand_to_write(self, reading: Reading) -> errand.Errand:
        from bulk_updater.metrics import MetricsFile  # noqa: PLC0415 - not for every command

        if self._file is None:
            self._file = MetricsFile(self._path)
        metrics = self._file

        def write() -> None:
            metrics.write(reading)

        return errand.Errand(write, errand.PATIENCE_S, f"--metrics-file {self._path}")
