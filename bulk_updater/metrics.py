"""Figures of a run for Prometheus, in a file that the node exporter's textfile collector reads.

The file is rewritten while the run goes on and once more at its end. When a night last went well is
to outlive the nights that fail, so it is read back from the file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from bulk_updater.errors import ConfigError
from bulk_updater.files import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from prometheus_client.core import Metric

__all__ = ["MetricsFile", "Reading"]

_PUBLIC_MODE = 0o644
"""The node exporter runs as somebody else; there are only figures in the file."""

_PREFIX = "bulk_updater_"
_LAST_SUCCESS = f"{_PREFIX}last_success_timestamp_seconds"
_LAST_FINISHED = f"{_PREFIX}last_finished_timestamp_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Where a run stands at one moment. None is what is not known, and is left out.

    Attributes:
        job: The mapping's name without its suffix.
        mapping: The mapping as it was named.
        run_id: The run.
        started_at: When the command began, in seconds since the epoch.
        finished_at: When it ended; None while it goes on.
        exit_code: Its exit code; None while it goes on.
        finished: Whether every row has a result, well or not.
        duration_s: Seconds since it began.
        outcomes: Results by outcome, those of earlier executions of the run included.
        unsettled: Results still missing.
        attempts: Attempts of this execution, throttled ones included.
        throttled: Attempts of this execution that were answered with throttling.
        in_flight: Requests open now.
        ceiling_per_s: The most that the run may ever start per second, over all operations.
        allowed_per_s: What may be started per second now, over all operations.
        started_per_s: Requests started per second lately, over all operations.
    """

    job: str
    mapping: str = ""
    run_id: str | None = None
    started_at: float
    finished_at: float | None = None
    exit_code: int | None = None
    finished: bool = False
    duration_s: float
    outcomes: Mapping[str, int] = field(default_factory=dict)
    unsettled: int | None = None
    attempts: int | None = None
    throttled: int | None = None
    in_flight: int | None = None
    ceiling_per_s: float | None = None
    allowed_per_s: float | None = None
    started_per_s: float | None = None


class MetricsFile:
    """A metrics file of one job; may be written by several threads.

    Args:
        path: The file; its name ends in `.prom` where the node exporter is to read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._last: dict[str, float] | None = None

    def write(self, reading: Reading) -> None:
        """Replace the file in one step, readable for everybody. Blocks.

        Raises:
            ConfigError: It could not be written, or is somebody else's; it is as it was.
        """
        with self._lock:
            try:
                if self._last is None:
                    self._last = self._read_last()
                self._note_end(reading, self._last)
                self._replace(reading, self._last)
            except OSError as error:
                raise ConfigError(
                    f"--metrics-file {self._path} cannot be written: {reason(error)}."
                ) from error

    def _read_last(self) -> dict[str, float]:
        """What earlier nights left in the file; nothing where there is none."""
        try:
            text = self._path.read_text(encoding="utf-8")
            families = list(text_string_to_metric_families(text)) if text.strip() else []
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, IndexError):  # what the parser raises, and what no text does
            families = None
        if families is None or not all(each.name.startswith(_PREFIX) for each in families):
            # An export or a mapping may have been named by mistake.
            raise ConfigError(
                f"--metrics-file {self._path} holds something else than a run's metrics; it is "
                "left as it is. Name another file, or remove it."
            )
        samples = (sample for family in families for sample in family.samples)
        return {
            each.name: float(each.value)
            for each in samples
            if each.name in (_LAST_SUCCESS, _LAST_FINISHED)
        }

    @staticmethod
    def _note_end(reading: Reading, last: dict[str, float]) -> None:
        if reading.finished_at is not None and reading.finished:
            last[_LAST_FINISHED] = reading.finished_at
            if reading.exit_code == 0:
                last[_LAST_SUCCESS] = reading.finished_at

    def _replace(self, reading: Reading, last: Mapping[str, float]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(reading, last))
        # A name that the node exporter does not read, until everybody may read it.
        tmp_path = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            write_to_textfile(str(tmp_path), registry)
            tmp_path.chmod(_PUBLIC_MODE)
            tmp_path.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                tmp_path.unlink()
            raise


class _Collector:
    """A reading as Prometheus' metrics."""

    def __init__(self, reading: Reading, last: Mapping[str, float]) -> None:
        self._reading = reading
        self._last = last
        self._job = _printable(reading.job)

    def collect(self) -> Iterator[Metric]:
        reading = self._reading
        yield self._gauge(
            "run_info",
            "The run that the other figures are of.",
            1,
            run_id=reading.run_id or "",
            mapping=_printable(reading.mapping),
        )
        yield self._rows()
        yield from self._counters()
        for name, told, value in self._figures():
            if value is not None:
                yield self._gauge(name, told, value)

    def _rows(self) -> GaugeMetricFamily:
        told = "Results by outcome, of this run so far; a row has one for each operation."
        rows = GaugeMetricFamily(f"{_PREFIX}rows", told, labels=("job", "outcome"))
        for outcome, number in self._reading.outcomes.items():
            rows.add_metric((self._job, outcome), number)
        return rows

    def _counters(self) -> Iterator[CounterMetricFamily]:
        for name, told, value in (
            ("attempts", "Requests sent by this execution.", self._reading.attempts),
            (
                "throttled",
                "Requests sent by this execution that were throttled.",
                self._reading.throttled,
            ),
        ):
            if value is not None:
                counter = CounterMetricFamily(f"{_PREFIX}{name}", told, labels=("job",))
                counter.add_metric((self._job,), value)
                yield counter

    def _figures(self) -> Iterator[tuple[str, str, float | None]]:
        reading = self._reading
        yield "unsettled", "Results that are still missing.", reading.unsettled
        yield "running", "1 while the command goes on.", int(reading.finished_at is None)
        yield "started_timestamp_seconds", "When the command began.", reading.started_at
        yield "finished_timestamp_seconds", "When the command ended.", reading.finished_at
        yield (
            "last_finished_timestamp_seconds",
            "When last every row had a result (exit code 0 or 1).",
            self._last.get(_LAST_FINISHED),
        )
        yield (
            "last_success_timestamp_seconds",
            "When last every row had settled well (exit code 0).",
            self._last.get(_LAST_SUCCESS),
        )
        yield "exit_code", "The command's exit code.", reading.exit_code
        yield "duration_seconds", "How long the command has taken.", reading.duration_s
        yield "in_flight", "Requests open now.", reading.in_flight
        told = "Requests per second, over all operations:"
        yield "ceiling_per_s", f"{told} never more than this.", reading.ceiling_per_s
        yield "allowed_per_s", f"{told} allowed now.", reading.allowed_per_s
        yield "started_per_s", f"{told} started lately.", reading.started_per_s

    def _gauge(self, name: str, told: str, value: float, **labels: str) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"{_PREFIX}{name}", told, labels=("job", *labels))
        gauge.add_metric((self._job, *labels.values()), value)
        return gauge


def _printable(text: str) -> str:
    """A path need not be UTF-8, and the file is."""
    return text.encode("utf-8", "replace").decode("utf-8")
