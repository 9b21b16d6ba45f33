"""OpenTelemetry: what is told, how it is set up, and that a run goes on without."""

from __future__ import annotations

import importlib.util
import logging
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from bulk_updater import telemetry as module
from bulk_updater.errors import ConfigError
from bulk_updater.model import Outcome, Result
from bulk_updater.telemetry import Telemetry

SENT = Result(
    row=7,
    source="export.csv",
    operation="update_contact",
    outcome=Outcome.UPDATED,
    instance_id="instance-1",
    contact_id="contact-1",
    attempts=2,
    throttled=1,
    http_status=200,
    request_id="request-1",
    attribute_names=("Name",),
    payload_bytes=12,
    started_at=1_772_352_000.25,
    finished_at=1_772_352_000.375,
    took_ms=125,
)


def result(**changes: object) -> Result:
    return Result(**{name: getattr(SENT, name) for name in SENT.__slots__} | changes)


@pytest.fixture(autouse=True)
def _otel_as_it_was(monkeypatch):
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = before


class Told:
    """A telemetry that keeps what it is told."""

    def __init__(self, **settings: object) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False, **settings)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(tracers, meters)

    def spans(self, name: str) -> list:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def figures(self) -> dict[tuple, object]:
        """Every figure by its name and attributes."""
        found = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        labels = tuple(sorted(point.attributes.items()))
                        value = getattr(point, "value", None)
                        value = (point.count, point.sum) if value is None else value
                        found[metric.name, *labels] = value
        return found


def test_a_request_is_a_span():
    """From its first attempt to the last answer, with operation, outcome, attempts and code."""
    told = Told()
    told.telemetry.settled([SENT])
    (span,) = told.spans("update_contact")
    assert span.start_time == 1_772_352_000_250_000_000
    assert span.end_time - span.start_time == 125_000_000
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes) == {
        "bulk_updater.operation": "update_contact",
        "bulk_updater.outcome": "UPDATED",
        "bulk_updater.row": 7,
        "bulk_updater.attempts": 2,
        "bulk_updater.throttled": 1,
        "bulk_updater.http_status": 200,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_failed_request_is_an_error_with_its_code():
    """The code and the status, never the message."""
    told = Told()
    told.telemetry.settled(
        [result(outcome=Outcome.FAILED, error_code="ResourceNotFound", error="row 7: gone")]
    )
    (span,) = told.spans("update_contact")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["bulk_updater.error_code"] == "ResourceNotFound"
    assert "gone" not in span.to_json()


def test_no_span_and_no_figure_names_a_contact():
    """Neither contact, instance, source nor what was written."""
    told = Told()
    told.telemetry.begin({"job": "mapping"}, outcomes=dict)
    told.telemetry.settled([SENT])
    told.telemetry.end({"state": "finished"}, well=True)
    spans = told.spans("update_contact") + told.spans("bulk_updater.run")
    said = "".join(span.to_json() for span in spans) + repr(told.figures())
    for secret in ("contact-1", "instance-1", "export.csv", "Name", "request-1"):
        assert secret not in said


def test_the_run_is_a_span_that_requests_are_linked_to():
    """Each request is a trace of its own, so that a sampler draws among them."""
    told = Told()
    told.telemetry.begin({"job": "mapping"}, outcomes=dict)
    told.telemetry.settled([SENT, result(row=8)])
    told.telemetry.end({"state": "stopped", "exit": 3}, well=False)
    (run,) = told.spans("bulk_updater.run")
    requests = told.spans("update_contact")
    assert dict(run.attributes) == {
        "bulk_updater.job": "mapping",
        "bulk_updater.state": "stopped",
        "bulk_updater.exit": 3,
    }
    assert run.status.status_code is StatusCode.ERROR
    assert len({span.context.trace_id for span in (run, *requests)}) == 3
    for span in requests:
        assert span.parent is None
        assert [link.context.span_id for link in span.links] == [run.context.span_id]


def test_a_sampler_draws_among_requests():
    """With a ratio of a half, of a thousand requests some are traced and some are not."""
    told = Told(sampler=TraceIdRatioBased(0.5))
    told.telemetry.begin({}, outcomes=dict)
    told.telemetry.settled([result(row=row) for row in range(1000)])
    # 500 on average, with a standard deviation of 16: 20 of them from either bound.
    assert 180 < len(told.spans("update_contact")) < 820
    assert told.figures()["bulk_updater.settled", *labels("UPDATED")] == 1000


def labels(outcome: str) -> tuple:
    return (("operation", "update_contact"), ("outcome", outcome))


def test_figures_add_up():
    """Requests with every attempt, throttled ones, how long each took, and every result."""
    told = Told()
    told.telemetry.settled([SENT, result(outcome=Outcome.FAILED, took_ms=75, throttled=0)])
    told.telemetry.settled([result(outcome=Outcome.SKIPPED, attempts=0, throttled=0)])
    operation = ("operation", "update_contact")
    assert told.figures() == {
        ("bulk_updater.requests", operation): 5,
        ("bulk_updater.throttled", operation): 1,
        ("bulk_updater.request.duration", *labels("UPDATED")): (1, 125),
        ("bulk_updater.request.duration", *labels("FAILED")): (1, 75),
        ("bulk_updater.settled", *labels("UPDATED")): 1,
        ("bulk_updater.settled", *labels("FAILED")): 1,
        ("bulk_updater.settled", *labels("SKIPPED")): 1,
    }


def test_the_run_s_results_are_looked_at_when_they_are_exported():
    """By outcome, also those that made no request and so are told to nobody."""
    told, outcomes = Told(), {"UPDATED": 1}
    told.telemetry.begin({}, outcomes=lambda: outcomes)
    outcomes |= {"UPDATED": 3, "INVALID": 2}
    assert told.figures() == {
        ("bulk_updater.results", ("outcome", "UPDATED")): 3,
        ("bulk_updater.results", ("outcome", "INVALID")): 2,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": Outcome.SKIPPED, "attempts": 0, "throttled": 0},
        {"merged_into": 9},
        {"started_at": None},
        {"took_ms": None},
    ],
)
def test_what_made_no_request_of_its_own_is_no_span(changes):
    """A skipped row, one whose changes a later row carried, one without its times."""
    told = Told()
    told.telemetry.settled([result(**changes)])
    assert told.spans("update_contact") == []
    assert sum(value for key, value in told.figures().items() if key[0].endswith("settled")) == 1


def test_an_end_without_a_beginning_is_none():
    """A command that was refused before its run has no span."""
    told = Told()
    told.telemetry.end({"state": "refused"}, well=False)
    assert told.spans("bulk_updater.run") == []


class Blocked:
    """Stands for the extra that is not installed."""

    def __init__(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
            monkeypatch.setitem(sys.modules, name, None)


def test_without_the_extra_it_is_a_usage_error(monkeypatch):
    """The module can be imported, and says what to install when it is asked for."""
    Blocked(monkeypatch)
    spec = importlib.util.spec_from_file_location("telemetry_again", module.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    with pytest.raises(ConfigError, match=r"install it with pip install 'bulk-updater\[otel\]'\."):
        again.Telemetry.from_environment()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", 'OTEL_TRACES_EXPORTER is "zipkin"; --otel knows'),
        ("OTEL_METRICS_EXPORTER", "prometheus", 'OTEL_METRICS_EXPORTER is "prometheus"'),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", '--otel speaks "http/protobuf"'),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "-1",
            "an OTEL_ variable has a value that OpenTelemetry",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(monkeypatch, variable, value, says):
    """A variable that asks for another exporter is no wish to export nothing."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        Telemetry.from_environment()
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({}, "bulk-updater"),
        ({"OTEL_SERVICE_NAME": "crm"}, "crm"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=crm,team=x"}, "crm"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=x"}, "bulk-updater"),
    ],
)
def test_the_service_is_named_by_the_environment(monkeypatch, variables, service):
    """The standard variables come before our own name; switched off, nothing is exported."""
    for name, value in {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}.items():
        monkeypatch.setenv(name, value)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    telemetry = Telemetry.from_environment()
    attributes = telemetry._tracers.resource.attributes
    assert attributes["service.name"] == service
    telemetry.settled([SENT])
    telemetry.close(1.0)


def test_failures_to_export_are_said_once(monkeypatch, caplog):
    """One warning in our own words: theirs may quote an address with a password, every minute."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    Telemetry.from_environment()
    # A command that ran earlier in this process may have taken our log for itself.
    monkeypatch.setattr(logging.getLogger("bulk_updater"), "propagate", True)
    for _ in range(3):
        logging.getLogger("opentelemetry.exporter.x").error("https://me:pw@collector is down")
    assert [record.name for record in caplog.records] == ["bulk_updater.telemetry"]
    assert "cannot be exported; the run goes on without" in caplog.text
