"""The record of a run's pace: it is bounded, and it adds up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.pacing.series import PaceSeries


def test_intervals_of_a_second():
    """A short run has a point for each second, and the last rate that was allowed in it."""
    series = PaceSeries(100.0)
    for at_s, rate in ((100.0, 8.0), (100.9, 7.0), (101.0, 6.0), (102.5, 5.0)):
        series.started(at_s, rate)
    series.throttled(102.9, 4.0004)
    assert series.to_record() == {
        "interval_s": 1.0,
        "started": [2, 1, 1],
        "throttled": [0, 0, 1],
        "allowed_per_s": [7.0, 6.0, 4.0],
    }


def test_nothing_happened():
    """A run that sent nothing has no points."""
    assert PaceSeries(5.0).to_record() == {
        "interval_s": 1.0,
        "started": [],
        "throttled": [],
        "allowed_per_s": [],
    }


def test_silence():
    """In a silence nothing starts, and what was allowed stays as it was."""
    series = PaceSeries(0.0)
    series.started(0.5, 8.0)
    series.started(4.5, 3.0)
    record = series.to_record()
    assert record["started"] == [1, 0, 0, 0, 1]
    assert record["allowed_per_s"] == [8.0, 8.0, 8.0, 8.0, 3.0]


def test_silence_at_first():
    """Before the first request there is no rate but the first."""
    series = PaceSeries(0.0)
    series.started(2.5, 3.0)
    assert series.to_record()["allowed_per_s"] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("last_s", "interval_s", "n_intervals"),
    [(719, 1, 720), (720, 2, 361), (1439, 2, 720), (1440, 4, 361), (86_399, 128, 675)],
)
def test_halving(last_s: int, interval_s: int, n_intervals: int):
    """When there are too many, each two become one: the counts add, the later rate stays."""
    series = PaceSeries(0.0)
    for second in range(last_s + 1):
        series.started(second + 0.5, float(second))
    record = series.to_record()
    assert record["interval_s"] == interval_s
    assert len(record["started"]) == n_intervals
    assert record["started"][:-1] == [interval_s] * (n_intervals - 1)
    assert record["allowed_per_s"] == [
        float(min(last_s, interval_s * (n + 1) - 1)) for n in range(n_intervals)
    ]


def test_a_silence_of_weeks():
    """A pause of weeks halves as often as it must, and no more."""
    series = PaceSeries(0.0)
    series.started(0.0, 8.0)
    series.throttled(30 * 86_400.0, 2.0)
    record = series.to_record()
    assert record["interval_s"] == 4096
    assert (sum(record["started"]), sum(record["throttled"])) == (1, 1)
    assert (record["started"][0], record["throttled"][-1]) == (1, 1)


def test_a_record_is_a_copy():
    """What was recorded does not change with what comes after."""
    series = PaceSeries(0.0)
    series.started(0.0, 8.0)
    record = series.to_record()
    series.started(0.1, 8.0)
    assert record["started"] == [1]


@settings(max_examples=50, deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.booleans(),
            st.floats(0, 3) | st.sampled_from([0.0, 100.0, 719.0, 10_000.0]),
            st.floats(0.05, 1000),
        ),
        max_size=200,
    ),
    began_s=st.floats(0, 1e6),
)
def test_it_adds_up(events: list[tuple[bool, float, float]], began_s: float):
    """Whatever happens when: every request is counted once, in at most 720 intervals, and the
    lists are of one length."""
    series, now_s = PaceSeries(began_s), began_s
    n_started = n_throttled = 0
    for throttled, passed_s, rate_per_s in events:
        now_s += passed_s
        (series.throttled if throttled else series.started)(now_s, rate_per_s)
        n_throttled += throttled
        n_started += not throttled
        record = series.to_record()
        assert (sum(record["started"]), sum(record["throttled"])) == (n_started, n_throttled)
        assert len(record["started"]) <= 720
        assert {len(record[name]) for name in ("started", "throttled", "allowed_per_s")} == {
            int((now_s - began_s) / record["interval_s"]) + 1
        }
        assert record["allowed_per_s"][-1] == round(rate_per_s, 3)
