"""`--metrics-file` and `--otel` of a run: written at every end, and never in its way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from bulk_updater.cli import errand, night
from bulk_updater.errors import LedgerLocked, RunStopped
from bulk_updater.metrics import MetricsFile
from bulk_updater.model import Outcome, Progress
from bulk_updater.telemetry import Telemetry

from .conftest import summary_of

RUN = "run mapping.yaml export.csv --metrics-file bulk.prom"


def read(path: Path = Path("bulk.prom")) -> dict[str, float]:
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    return {
        sample.name.removeprefix("bulk_updater_") + sample.labels.get("outcome", ""): sample.value
        for sample in samples
    }


@pytest.mark.parametrize(
    ("flags", "end", "code"),
    [
        ("", summary_of(), 0),
        ("", summary_of(outcomes={"INVALID": 1}), 1),
        ("--rate 0", None, 2),
        ("--frobnicate", None, 2),
        ("", LedgerLocked("is in use.", path=Path("runs")), 2),
        ("", RunStopped("Why.", summary=summary_of(state="stopped")), 3),
        ("", KeyError("x"), 3),
        ("", summary_of(state="deadline", unsettled=2), 4),
        ("", summary_of(state="interrupted", unsettled=2), 130),
        ("", KeyboardInterrupt(), 130),
    ],
)
def test_figures_are_written_at_every_end(call, ends_with, flags, end, code):
    """Exit code, both times and the job, after mistakes, a lock and a fault, too."""
    ends_with(end)
    assert call(f"{RUN} {flags}").code == code
    found = read()
    assert (found["exit_code"], found["running"]) == (code, 0)
    assert found["finished_timestamp_seconds"] >= found["started_timestamp_seconds"] > 1.7e9
    assert ("last_success_timestamp_seconds" in found) == (code == 0)
    assert ("last_finished_timestamp_seconds" in found) == (code in (0, 1))
    assert 'job="mapping"' in Path("bulk.prom").read_text()


def test_figures_are_the_summary_s(call, ends_with):
    """Results by outcome, what is missing, attempts and throttling."""
    end = summary_of(state="deadline", unsettled=2, throttled=9, attempts=12)
    ends_with(end)
    call(RUN)
    found = read()
    rows = {key.removeprefix("rows"): value for key, value in found.items() if "rows" in key}
    assert rows == end.outcomes
    assert (found["unsettled"], found["attempts_total"], found["throttled_total"]) == (2, 12, 9)


def test_a_success_outlives_the_nights_that_fail(call, ends_with):
    """What an alert looks at stays, whatever goes wrong in later nights."""
    ends_with(summary_of())
    call(RUN)
    success = read()["last_success_timestamp_seconds"]
    for flags in ("--rate 0", "--frobnicate", ""):
        ends_with(KeyError("x"))
        call(f"{RUN} {flags}")
        assert read()["last_success_timestamp_seconds"] == success


@pytest.mark.parametrize("code", [0, 1, 3])
@pytest.mark.parametrize("path", ["nowhere/bulk.prom", "export.csv", "."])
def test_figures_that_cannot_be_written_are_one_warning(call, ends_with, tmp_path, path, code):
    """The exit code stays, and so does a file that is somebody else's."""
    before = (tmp_path / "export.csv").read_bytes()
    state = "stopped" if code == 3 else "finished"
    ends_with(summary_of(state=state, outcomes={"FAILED": int(code == 1)}))
    ran = call(f"run mapping.yaml export.csv --metrics-file {path}")
    assert ran.code == code
    assert ran.err.count("WARNING") == ran.err.count(f"--metrics-file {path} ") == 1
    assert (tmp_path / "export.csv").read_bytes() == before


def test_help_is_no_run_that_went_well(call, tmp_path):
    """It writes no figures, tells nobody and has no last line."""
    ran = call(f"{RUN} --help")
    assert (ran.code, ran.err) == (0, "")
    assert not (tmp_path / "bulk.prom").exists()


class Done:
    """An errand that is done where it is given."""

    def __init__(self, do, _limit_s, _what):
        self.warning = do()

    def is_alive(self):
        return False

    def result(self):
        return self.warning


@pytest.mark.looptime
async def test_figures_are_kept_up_to_date(monkeypatch):
    """At once and every fifteen seconds, as the progress stands, and not beyond the end."""
    written = []
    monkeypatch.setattr(MetricsFile, "write", lambda _, reading: written.append(reading))
    monkeypatch.setattr(errand, "Errand", Done)
    monkeypatch.setattr(
        night, "_night", night.Night({"metrics_file": "bulk.prom", "mapping": "m.yaml"})
    )
    progress = Progress()
    async with night.watch_night(progress):
        await asyncio.sleep(20)
        progress.results_total = 10
        progress.count(Outcome.UPDATED, 4)
        progress.sent, progress.throttled, progress.in_flight = 6, 2, 3
        progress.ceiling_per_s = 8.0
        progress.allowed_per_s = lambda: 7.0
        progress.started_per_s = lambda: 6.0
        await asyncio.sleep(20)
    await asyncio.sleep(60)
    assert len(written) == 3  # at 0, 15 and 30 seconds
    assert [reading.unsettled for reading in written] == [None, None, 6]
    last = written[-1]
    assert last.outcomes["UPDATED"] == 4
    assert set(last.outcomes) == {outcome.value for outcome in Outcome}
    assert (last.attempts, last.throttled, last.in_flight) == (6, 2, 3)
    assert (last.ceiling_per_s, last.allowed_per_s, last.started_per_s) == (8, 7, 6)
    assert (last.job, last.exit_code, last.finished_at) == ("m", None, None)


@pytest.mark.looptime
async def test_a_disk_that_hangs_holds_up_one_thread(monkeypatch):
    """The run goes on beside it; no second one is begun, and the end waits its time only."""
    answers, has_begun, begun = threading.Event(), threading.Event(), []

    def write(_, reading):
        begun.append(reading)
        has_begun.set()
        answers.wait()

    monkeypatch.setattr(MetricsFile, "write", write)
    monkeypatch.setattr(errand, "PATIENCE_S", 0.01)
    tonight = night.Night({"metrics_file": "bulk.prom"})
    monkeypatch.setattr(night, "_night", tonight)
    async with night.watch_night(Progress()):
        await asyncio.sleep(100)
        await asyncio.to_thread(has_begun.wait)
        assert len(begun) == 1
    told = await asyncio.to_thread(tonight._write_figures(0).result)
    answers.set()
    assert told == "--metrics-file bulk.prom did not end within 0.01 s; it is left."


@pytest.mark.looptime
async def test_figures_wait_for_a_thread(monkeypatch):
    """Where none can be started the run goes on, and a later one is."""
    written = []

    class Scarce(Done):
        n_asked = 0

        def __init__(self, *args):
            Scarce.n_asked += 1
            if Scarce.n_asked < 3:
                raise RuntimeError
            super().__init__(*args)

    monkeypatch.setattr(MetricsFile, "write", lambda _, reading: written.append(reading))
    monkeypatch.setattr(errand, "Errand", Scarce)
    monkeypatch.setattr(night, "_night", night.Night({"metrics_file": "bulk.prom"}))
    async with night.watch_night(Progress()):
        await asyncio.sleep(40)
    assert (Scarce.n_asked, len(written)) == (3, 1)


async def test_without_a_night_there_is_nothing_to_keep():
    """A command that is called from elsewhere runs all the same."""
    async with night.watch_night(Progress()):
        pass
    night.end_night(0)
    night.last_words(0)
    assert night.how_to_go_on() is None


@pytest.mark.parametrize(
    ("note", "job"),
    [
        ('{"mapping": {"path": "jobs/crm.yaml"}}', "crm"),
        ("{}", "unknown"),
        ("[]", "unknown"),
        ("?", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_retry_has_the_job_of_its_run(call, tmp_path, note, job):
    """Its mapping stands in run.json, if that can be read; a label does not change with a file."""
    (tmp_path / "run").mkdir()
    if note is not None:
        (tmp_path / "run" / "run.json").write_text(note)
    ran = call("retry run --metrics-file bulk.prom --frobnicate")
    assert ran.code == 2
    assert "\nTo go on, once that is mended: bulk-updater retry run " in ran.err
    assert ran.err.splitlines()[-1].startswith("summary state=refused exit=2 ")
    assert f'bulk_updater_exit_code{{job="{job}"}} 2.0' in Path("bulk.prom").read_text()


# --- OpenTelemetry ----------------------------------------------------------------------------


class Hanging(SpanExporter):
    """A collector that takes everything and answers nothing."""

    def __init__(self):
        self.answers = threading.Event()

    def export(self, _spans):
        self.answers.wait()
        return SpanExportResult.FAILURE


class Broken(SpanExporter):
    """An exporter with a fault of its own."""

    def export(self, _spans):
        raise RuntimeError("https://me:pw@collector")


@pytest.fixture
def exports_to(monkeypatch):
    """Has the next runs tell an exporter of their spans."""

    def set_exporter(exporter):
        def made(_cls):
            tracers = TracerProvider(shutdown_on_exit=False)
            tracers.add_span_processor(SimpleSpanProcessor(exporter))
            return Telemetry(tracers, MeterProvider(shutdown_on_exit=False))

        monkeypatch.setattr(Telemetry, "from_environment", classmethod(made))

    return set_exporter


@pytest.mark.parametrize("code", [0, 3])
def test_a_run_is_one_span(call, ends_with, exports_to, code):
    """With what the last line says, an error where it did not go well."""
    exporter = InMemorySpanExporter()
    exports_to(exporter)
    ends_with(summary_of(state="stopped" if code else "finished"))
    assert call("run mapping.yaml export.csv --otel").code == code
    (span,) = exporter.get_finished_spans()
    assert span.name == "bulk_updater.run"
    assert span.attributes["bulk_updater.exit"] == code
    assert span.attributes["bulk_updater.updated"] == 3
    assert span.attributes["bulk_updater.job"] == "mapping"
    assert span.status.is_ok is not bool(code)


@pytest.mark.parametrize("code", [0, 1])
def test_a_collector_that_hangs_is_left(call, ends_with, exports_to, monkeypatch, code):
    """One warning; the exit code and the last line are what they would have been."""
    exporter = Hanging()
    exports_to(exporter)
    monkeypatch.setattr(errand, "PATIENCE_S", 0.01)
    ends_with(summary_of(outcomes={"FAILED": code}))
    ran = call("run mapping.yaml export.csv --otel")
    exporter.answers.set()
    assert ran.code == code
    assert "Exporting to OpenTelemetry did not end within 0.01 s; it is left." in ran.err
    assert ran.err.splitlines()[-1].startswith("summary state=finished")


def test_an_exporter_with_a_fault_changes_nothing(call, ends_with, exports_to):
    """Whatever it raises: the exit code stays, and its text is not repeated."""
    exports_to(Broken())
    ends_with(summary_of())
    ran = call("run mapping.yaml export.csv --otel")
    assert ran.code == 0
    assert "pw" not in ran.err


def test_without_otel_nothing_of_it_is_loaded(call, ends_with, monkeypatch):
    """The extra need not be installed."""

    def refuse(_cls):
        raise AssertionError

    monkeypatch.setattr(Telemetry, "from_environment", classmethod(refuse))
    ends_with(summary_of())
    assert call("run mapping.yaml export.csv").code == 0
