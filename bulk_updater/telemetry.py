"""Traces and metrics for OpenTelemetry, set up as its standard OTEL_ variables say.

The pipeline knows only a listener that is told of settled results. Needs the extra
`bulk-updater[otel]`; without it the module can be imported and `Telemetry.from_environment`
refuses. A request is a trace of its own, linked to the run's, so that `OTEL_TRACES_SAMPLER` draws
among requests and not only among runs. Nothing holds a contact's id or a cell.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from bulk_updater._version import __version__
from bulk_updater.errors import ConfigError
from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from bulk_updater.model import Result

__all__ = ["Telemetry"]

log = logging.getLogger(__name__)

_NAME = "bulk_updater"
_SERVICE = "bulk-updater"
_US_PER_S = 1_000_000
_NS_PER_US = 1_000
_NS_PER_MS = 1_000_000


class Telemetry:
    """Tells OpenTelemetry of one run.

    Args:
        tracers: Makes the spans; closed by `close`.
        meters: Keeps the figures; closed by `close`.
    """

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracers = tracers
        self._meters = meters
        self._tracer = tracers.get_tracer(_NAME, __version__)
        self._figures = _Figures(meters.get_meter(_NAME, __version__))
        self._run: Span | None = None

    @classmethod
    def from_environment(cls) -> Telemetry:
        """Set up export by OTLP over HTTP, as the OTEL_ variables say.

        Raises:
            ConfigError: The extra is not installed, or a variable asks for what it cannot do.
        """
        _hear_of_failures_once()
        try:
            from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - an extra
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

            exporters = _make_exporters()
        except ImportError as error:
            raise ConfigError(
                "--otel needs OpenTelemetry, which is not installed; install it with "
                "pip install 'bulk-updater[otel]'."
            ) from error
        except (ValueError, OSError) as error:
            raise ConfigError(
                "--otel: an OTEL_ variable has a value that OpenTelemetry does not take "
                f"({type(error).__name__}); see its documentation of OTEL_EXPORTER_OTLP_ENDPOINT "
                "and its like."
            ) from error
        span_processor, reader = exporters
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes before ours.
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        resource = Resource.create(
            {"service.version": __version__} | ({} if named else {"service.name": _SERVICE})
        )
        # Not at exit, where nothing would bound it: `close` is called in time.
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        if span_processor is not None:
            tracers.add_span_processor(span_processor)
        readers = [] if reader is None else [reader]
        meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        return cls(tracers, meters)

    def begin(
        self, attributes: Mapping[str, str], *, outcomes: Callable[[], Mapping[str, int]]
    ) -> None:
        """The run begins.

        Args:
            attributes: What tells it from others, such as the mapping.
            outcomes: Asks for the run's results by outcome; called from another thread.
        """
        self._figures.observe(outcomes)
        self._run = self._tracer.start_span(
            "bulk_updater.run", attributes=_named(attributes.items())
        )

    def settled(self, results: Iterable[Result]) -> None:
        """Results have become durable."""
        for result in results:
            self._figures.count(result)
            if _was_sent(result):
                self._trace(result)

    def end(self, attributes: Mapping[str, Any], *, well: bool) -> None:
        """The run has ended.

        Args:
            attributes: How, as in the summary line.
            well: Whether every row settled well.
        """
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an extra

        if self._run is None:
            return
        self._run.set_attributes(_named(attributes.items()))
        if not well:
            self._run.set_status(Status(StatusCode.ERROR))
        self._run.end()

    def close(self, timeout_s: float) -> None:
        """Send what is left. Blocks; for a thread that nobody waits for beyond the time.

        Args:
            timeout_s: Seconds until what could not be sent is given up, above 0.
        """
        timeout_ms = int(timeout_s * 1000)
        self._tracers.force_flush(timeout_ms)
        self._meters.shutdown(timeout_millis=timeout_ms)
        self._tracers.shutdown()

    def _trace(self, result: Result) -> None:
        from opentelemetry.context import Context  # noqa: PLC0415 - an extra
        from opentelemetry.trace import Link, SpanKind, Status, StatusCode  # noqa: PLC0415

        if result.started_at is None or result.took_ms is None:
            return
        # Microseconds first: a float holds no more of a time in seconds.
        began_ns = round(result.started_at * _US_PER_S) * _NS_PER_US
        told = {
            "operation": result.operation,
            "outcome": result.outcome.value,
            "row": result.row,
            "attempts": result.attempts,
            "throttled": result.throttled,
            "error_code": result.error_code,
            "http_status": result.http_status,
        }
        span = self._tracer.start_span(
            result.operation,
            context=Context(),  # of no other span: see the module
            kind=SpanKind.CLIENT,
            attributes=_named((key, value) for key, value in told.items() if value is not None),
            links=() if self._run is None else (Link(self._run.get_span_context()),),
            start_time=began_ns,
        )
        if result.outcome is Outcome.FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end(began_ns + result.took_ms * _NS_PER_MS)


class _Figures:
    """The metrics, each by operation."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._requests = meter.create_counter(
            f"{_NAME}.requests", "{request}", "Requests sent, every attempt counted."
        )
        self._throttled = meter.create_counter(
            f"{_NAME}.throttled", "{request}", "Requests that were answered with throttling."
        )
        self._took = meter.create_histogram(
            f"{_NAME}.request.duration",
            "ms",
            "From a request's first attempt to the last answer, waits between attempts included.",
        )
        self._settled = meter.create_counter(
            f"{_NAME}.settled", "{result}", "Results of requests that have become durable."
        )

    def observe(self, outcomes: Callable[[], Mapping[str, int]]) -> None:
        from opentelemetry.metrics import Observation  # noqa: PLC0415 - an extra

        def look(_options: object) -> Iterator[Observation]:
            for outcome, number in outcomes().items():
                yield Observation(number, {"outcome": outcome})

        self._meter.create_observable_gauge(
            f"{_NAME}.results",
            [look],
            "{result}",
            "Results of the run, those that made no request and those of earlier executions too.",
        )

    def count(self, result: Result) -> None:
        operation = {"operation": result.operation}
        by_outcome = {**operation, "outcome": result.outcome.value}
        self._settled.add(1, by_outcome)
        if not _was_sent(result):
            return
        self._requests.add(result.attempts + result.throttled, operation)
        self._throttled.add(result.throttled, operation)
        if result.took_ms is not None:
            self._took.record(result.took_ms, by_outcome)


def _was_sent(result: Result) -> bool:
    """Whether a request was made for this row, and not for a later one that carried it."""
    return result.merged_into is None and result.attempts + result.throttled > 0


def _named(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {f"{_NAME}.{key}": value for key, value in items}


def _make_exporters() -> tuple[Any, Any]:
    """A span processor and a metric reader; None for what is switched off."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - an extra
        OTLPMetricExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    traces = BatchSpanProcessor(OTLPSpanExporter()) if _is_on("OTEL_TRACES_EXPORTER") else None
    metrics = (
        PeriodicExportingMetricReader(OTLPMetricExporter())
        if _is_on("OTEL_METRICS_EXPORTER")
        else None
    )
    return traces, metrics


def _is_on(variable: str) -> bool:
    name = os.environ.get(variable, "otlp")
    if name not in ("otlp", "none"):
        raise ConfigError(f'{variable} is "{name}"; --otel knows "otlp" and "none".')
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if name == "otlp" and protocol != "http/protobuf":
        raise ConfigError(
            f'OTEL_EXPORTER_OTLP_PROTOCOL is "{protocol}"; --otel speaks "http/protobuf".'
        )
    return name == "otlp"


class _OnlyOnce(logging.Handler):
    """Says that exporting fails, once: it is tried again every few seconds, all night."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._is_said = False

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - its text may quote a URL
        if not self._is_said:
            self._is_said = True
            log.warning(
                "OpenTelemetry's data cannot be exported; the run goes on without. Is a collector "
                "listening where OTEL_EXPORTER_OTLP_ENDPOINT says?"
            )


def _hear_of_failures_once() -> None:
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [_OnlyOnce()]
    logger.propagate = False
