"""The metrics file: what it says, and that it harms nobody."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bulk_updater.errors import ConfigError
from bulk_updater.metrics import MetricsFile, Reading

RUNNING = Reading(
    job="mapping",
    mapping="jobs/mapping.yaml",
    run_id="20260301T080000Z-abcdef",
    started_at=1000.5,
    duration_s=20.25,
    outcomes={"UPDATED": 7, "FAILED": 2},
    unsettled=11,
    attempts=12,
    throttled=3,
    in_flight=4,
    ceiling_per_s=8.0,
    allowed_per_s=7.5,
    started_per_s=6.25,
)


def ended(code: int, at: float, **changes: object) -> Reading:
    return replace(RUNNING, exit_code=code, finished_at=at, finished=code in (0, 1), **changes)


def read(path) -> dict[str, float]:
    """Every sample by its name, and by its outcome where it has one; the prefix left out."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.documentation
        for sample in family.samples:
            assert sample.labels["job"] == "mapping"
            name = sample.name.removeprefix("bulk_updater_")
            assert name != sample.name
            assert name not in found
            outcome = sample.labels.get("outcome")
            found[name + (f".{outcome}" if outcome else "")] = sample.value
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bulk.prom"


def test_a_run_that_goes_on_has_its_figures(path):
    """Each one under its name, and none that is not known yet."""
    MetricsFile(path).write(RUNNING)
    assert read(path) == {
        "run_info": 1,
        "rows.UPDATED": 7,
        "rows.FAILED": 2,
        "attempts_total": 12,
        "throttled_total": 3,
        "unsettled": 11,
        "running": 1,
        "started_timestamp_seconds": 1000.5,
        "duration_seconds": 20.25,
        "in_flight": 4,
        "ceiling_per_s": 8,
        "allowed_per_s": 7.5,
        "started_per_s": 6.25,
    }


def test_the_run_is_named_by_its_labels(path):
    """Run id and mapping are labels of one metric that is always 1."""
    MetricsFile(path).write(RUNNING)
    (line,) = [each for each in path.read_text().splitlines() if "run_info{" in each]
    assert line == (
        'bulk_updater_run_info{job="mapping",mapping="jobs/mapping.yaml",'
        'run_id="20260301T080000Z-abcdef"} 1.0'
    )


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 130])
def test_an_end_has_its_time_and_its_code(path, code):
    """Whatever the code; 0 and 1 finished, and only 0 went well."""
    MetricsFile(path).write(ended(code, 2000.0))
    found = read(path)
    assert (found["exit_code"], found["finished_timestamp_seconds"]) == (code, 2000)
    assert found["running"] == 0
    assert found.get("last_success_timestamp_seconds") == (2000 if code == 0 else None)
    assert found.get("last_finished_timestamp_seconds") == (2000 if code < 2 else None)


def test_the_last_success_outlives_nights_that_fail(path):
    """Each night is a process of its own; runs that go on and ends that fail keep both times."""
    MetricsFile(path).write(ended(0, 2000.0))
    MetricsFile(path).write(ended(1, 3000.0))
    tonight = MetricsFile(path)
    for reading in (RUNNING, RUNNING, ended(3, 4000.0)):
        tonight.write(reading)
        found = read(path)
        assert found["last_success_timestamp_seconds"] == 2000
        assert found["last_finished_timestamp_seconds"] == 3000
    MetricsFile(path).write(Reading(job="mapping", started_at=1.0, duration_s=0.0))
    assert read(path)["last_success_timestamp_seconds"] == 2000


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_everybody_may_read_it(path, umask):
    """Mode 0644 whatever the umask, the first time and later."""
    before = os.umask(umask)
    try:
        for _ in range(2):
            MetricsFile(path).write(RUNNING)
            assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_nothing_is_left_beside_it(path):
    """Neither after writing nor after failing to."""
    metrics = MetricsFile(path)
    metrics.write(RUNNING)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        metrics.write(RUNNING)
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """What and why, in a sentence."""
    path = tmp_path / "nowhere" / "bulk.prom"
    with pytest.raises(ConfigError) as caught:
        MetricsFile(path).write(RUNNING)
    assert caught.value.message == (
        f"--metrics-file {path} cannot be written: No such file or directory (ENOENT)."
    )


@pytest.mark.parametrize(
    "content",
    [
        b"Contact,Tier\nc-1,gold\n",
        b"update_contact:\n  InstanceId: x\n",
        b"node_load1 0.5\n",
        b"\xff\xfe\x00",
        b'{"a": 1}',
        b"bulk_updater_rows{",
    ],
)
def test_somebody_else_s_file_is_left_as_it_is(path, content):
    """An export or a mapping that was named by mistake is not overwritten."""
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="something else than a run's metrics; it is left"):
        MetricsFile(path).write(RUNNING)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_file_is_written(path, content):
    """It may have been made for its mode or its owner."""
    path.write_bytes(content)
    MetricsFile(path).write(RUNNING)
    assert read(path)["running"] == 1


def test_names_that_are_no_text_are_written(path):
    """A mapping's name may hold bytes, quotes and line ends."""
    MetricsFile(path).write(replace(RUNNING, mapping='a\udcff"b\n\\.yaml'))
    families = list(text_string_to_metric_families(path.read_text()))
    (info,) = [each for each in families if each.name == "bulk_updater_run_info"]
    assert info.samples[0].labels["mapping"] == 'a?"b\n\\.yaml'


def test_two_threads_write_one_after_the_other(path):
    """A write that was begun earlier and hangs does not end up on top of the last one."""
    metrics = MetricsFile(path)
    metrics.write(RUNNING)
    with metrics._lock:
        last = threading.Thread(target=metrics.write, args=(ended(0, 2000.0),), daemon=True)
        last.start()
        assert read(path)["running"] == 1
    last.join()
    assert read(path)["exit_code"] == 0
