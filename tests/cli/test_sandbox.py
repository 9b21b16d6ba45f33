"""`bulk-updater sandbox`: its flags; that it serves is tested with a process of its own."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from bulk_updater.sandbox import SandboxConfig


@pytest.fixture
def served(monkeypatch):
    """The configurations that would be served."""
    seen = []

    async def serve(config):
        seen.append(config)

    monkeypatch.setattr("bulk_updater.cli.sandbox._serve", serve)
    return seen


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ("--port 8080", "port", 8080),
        ("--rate 50", "rate_per_s", 50.0),
        ("--burst 2", "burst", 2.0),
        ("--live-per-s 3", "live_per_s", 3.0),
        ("--latency-ms 5", "latency_ms", 5.0),
        ("--latency-jitter 0", "latency_jitter", 0.0),
        ("--error-share 0.1", "error_share", 0.1),
        ("--html-share 0.1", "html_share", 0.1),
        ("--conflict-share 0.1", "conflict_share", 0.1),
        ("--drop-before-share 0.1", "drop_before_share", 0.1),
        ("--drop-after-share 0.1", "drop_after_share", 0.1),
        ("--contacts known.txt", "contacts", Path("known.txt")),
        ("--seed 7", "seed", 7),
    ],
)
def test_every_flag_reaches_the_sandbox(call, served, flags, name, value):
    """A flag sets its value, and nothing else differs from the defaults."""
    assert call(f"sandbox {flags}").code == 0
    assert attrgetter(name)(served[0]) == value
    assert sum(
        getattr(served[0], each) != getattr(SandboxConfig(), each)
        for each in SandboxConfig.__dataclass_fields__
    ) == (1)


def test_without_flags_it_is_as_documented(call, served):
    """The documented quota, and the pair that --sandbox uses."""
    call("sandbox")
    assert served == [SandboxConfig()]


def test_credentials_come_from_its_environment(call, served, monkeypatch):
    """Clients that sign with the environment's pair are known."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("BULK_UPDATER_SANDBOX_RATE", "20")
    call("sandbox")
    assert (served[0].access_key, served[0].secret_key) == ("AKIA", "hush")
    assert served[0].rate_per_s == 20


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--port 70000", "Invalid value for '--port': 70000 is not in the range"),
        ("--rate 0", "Invalid value for '--rate'"),
        ("--rate nan", "rate_per_s is nan; it must be a number above 0."),
        ("--burst 0.5", "Invalid value for '--burst'"),
        ("--latency-ms -1", "Invalid value for '--latency-ms'"),
        ("--error-share 2", "Invalid value for '--error-share'"),
        (
            "--error-share 0.6 --html-share 0.6",
            "the sum of all shares is 1.2; it must be a number at least 0 and at most 1.",
        ),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused(call, served, flags, says):
    """Exit code 2 and one line."""
    ran = call(f"sandbox {flags}")
    assert (ran.code, ran.out, served) == (2, "", [])
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_a_file_of_contacts_that_is_not_there_is_refused(call):
    """Exit code 2, and which flags to look at."""
    ran = call("sandbox --contacts nowhere.txt")
    assert ran.code == 2
    assert ran.err == (
        "error: The sandbox cannot start (No such file or directory); look at --port and "
        "--contacts.\n"
    )
