"""`--otel` from a real process to a collector, as the OTEL_ variables say."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .conftest import MAPPING, environment, export_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collector(http.server.ThreadingHTTPServer):
    """Takes what is exported over HTTP, and answers what it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = 200
        self.bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Any]:
        requests = [
            ExportTraceServiceRequest.FromString(each) for each in self.bodies["/v1/traces"]
        ]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> set[str]:
        requests = [
            ExportMetricsServiceRequest.FromString(each) for each in self.bodies["/v1/metrics"]
        ]
        return {
            metric.name
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


class Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies[self.path].append(body)
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.shutdown()
    opened.server_close()


@pytest.fixture
def run(shell, warm, served, collector):
    """Runs twenty rows of which one is filtered by its empty contact, with a collector."""

    def run(prefix: str, **variables: str) -> Any:
        shell.write("mapping.yaml", MAPPING)
        shell.write("export.csv", export_of(19, 19, prefix) + ",7,x\n")
        return warm.run(
            shell.folder,
            *("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url, "--otel"),
            *("--rate", "1000", "--run-dir", "run"),
            env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, NO_PROXY="*", **variables),
        )

    return run


def test_a_run_and_its_requests_are_exported(run, collector):
    """One span for the run and one for each request, and the figures, before the process ends."""
    ran = run("told-", OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    assert ran.code == 1, ran
    spans = collector.spans()
    assert Counter(span.name for span in spans) == {
        "bulk_updater.run": 1,
        "update_contact_attributes": 19,
    }
    assert len({span.trace_id for span in spans}) == 20
    assert not any(b"told-" in body for bodies in collector.bodies.values() for body in bodies)
    assert collector.metrics() >= {
        *("bulk_updater.requests", "bulk_updater.request.duration"),
        *("bulk_updater.settled", "bulk_updater.results"),
    }


def test_the_sampler_of_the_environment_is_heard(run, collector):
    """Told to sample nothing, it exports no span, and all figures."""
    assert run("sampled-", OTEL_TRACES_SAMPLER="always_off").code == 1
    assert collector.spans() == []
    assert "bulk_updater.settled" in collector.metrics()


def test_a_collector_that_refuses_changes_nothing(run, collector):
    """One warning, and the exit code that there would have been."""
    collector.answer = 400
    ran = run("refused-")
    assert ran.code == 1
    assert ran.err.count("OpenTelemetry's data cannot be exported; the run goes on without.") == 1
    assert ran.err.splitlines()[-1].startswith("summary state=finished exit=1 ")
