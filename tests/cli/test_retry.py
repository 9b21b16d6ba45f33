"""`bulk-updater retry`: what is as the run had it, what is typed, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.config import ChangesConfig, MaxFailures

from .conftest import summary_of

if TYPE_CHECKING:
    from bulk_updater.config import RunConfig

NOTED: dict[str, Any] = {
    "run_id": "20260301T080000Z-abcdef",
    "mapping": {"path": "mapping.yaml", "sha256": "0"},
    "sources": [{"path": "export.csv", "sha256": "1", "rows": 5}],
    "configuration": {
        "limit": 4,
        "max_in_flight": 7,
        "quota_file": "quotas.json",
        "connection": {
            "region": "eu-west-1",
            "profile": "night",
            "endpoint_url": "http://127.0.0.1:9",
            "ca_bundle": None,
            "verify_ssl": False,
            "sign_requests": True,
            "allow_http": False,
            "connect_timeout_s": 3.0,
            "read_timeout_s": None,
        },
        "pacing": {"rate": 4.5, "quota_share": 0.5, "exclusive": False},
        "retry": {"max_attempts": 3, "seed": None},
        "max_failures": {"in_a_row": 9, "share": None, "share_of": 1000},
        "sandbox": False,
    },
}


@pytest.fixture
def seen(monkeypatch) -> list[Any]:
    """What `retry` hands to the pipeline, which does nothing: the configuration and the codes."""
    handed: list[Any] = []

    async def note(config, *, codes, **_):
        handed.append((config, codes))
        return summary_of()

    monkeypatch.setattr("bulk_updater.cli.retry.retry_pipeline", note)
    return handed


@pytest.fixture
def noted(tmp_path):
    """A run directory in which a run has noted what it was told, with some changes."""

    def write(**changes: Any) -> None:
        (tmp_path / "run").mkdir(exist_ok=True)
        configuration = NOTED["configuration"] | changes
        content = NOTED | {"configuration": configuration}
        (tmp_path / "run" / "run.json").write_text(json.dumps(content))

    write()
    return write


@pytest.fixture
def retried(call, seen, noted):
    """The configuration of a retry with some flags, of a run that was told otherwise."""

    def give(typed: str, **changes: Any) -> RunConfig:
        noted(**changes)
        assert call(f"retry run {typed}").code == 0
        return seen[0][0]

    return give


def test_everything_is_as_the_run_had_it(call, seen, noted):  # noqa: ARG001
    """Mapping, sources, limit, target and pace: nothing has to be typed again."""
    assert call("retry run").code == 0
    ((config, codes),) = seen
    assert codes == ()
    assert (config.mapping, config.sources) == (Path("mapping.yaml"), (Path("export.csv"),))
    assert (config.run_dir, config.limit, config.max_in_flight) == (Path("run"), 4, 7)
    assert config.quota_file == Path("quotas.json")
    connection = config.connection
    assert (connection.region, connection.profile) == ("eu-west-1", "night")
    assert (connection.endpoint_url, connection.verify_ssl) == ("http://127.0.0.1:9", False)
    assert (connection.connect_timeout_s, connection.read_timeout_s) == (3.0, None)
    assert (config.pacing.rate, config.pacing.quota_share) == (4.5, 0.5)
    assert (config.retry.max_attempts, config.max_failures) == (
        3,
        MaxFailures(in_a_row=9, share=None),
    )
    assert config.command == "bulk-updater retry run"


def test_what_is_typed_comes_first(call, seen, noted):  # noqa: ARG001
    """A flag that is typed replaces what the run had, also by its default, and only that."""
    line = "retry run --rate quota --region us-east-1 --cli-read-timeout 5 --max-in-flight 32"
    assert call(f"{line} --code A --code B").code == 0
    ((config, codes),) = seen
    assert codes == ("A", "B")
    assert (config.pacing.rate, config.pacing.quota_share) == ("quota", 0.5)
    assert (config.connection.region, config.connection.profile) == ("us-east-1", "night")
    assert (config.connection.read_timeout_s, config.max_in_flight) == (5.0, 32)


@pytest.mark.parametrize("state_file", [None, "/nights/state.sqlite"])
def test_a_retry_tells_the_state_of_its_night(retried, state_file):
    """What is remembered is where the run kept it; all failed rows are sent, changed or not."""
    config = retried("", changes={"only_changed": True, "state_file": state_file})
    assert config.changes == ChangesConfig(state_file=state_file and Path(state_file))


@pytest.mark.parametrize(
    ("had", "typed", "expected"),
    [
        (False, "", (0.5, False)),
        (True, "", (0.8, True)),
        (False, "--exclusive", (0.8, True)),
        (True, "--quota-share 0.3", (0.3, False)),
    ],
)
def test_share_and_exclusive_never_meet(retried, had, typed, expected):
    """The one that is typed takes the other's place, as the two exclude each other."""
    before = {"rate": "quota", "quota_share": 0.8 if had else 0.5, "exclusive": had}
    pacing = retried(typed, pacing=before).pacing
    assert (pacing.quota_share, pacing.exclusive) == expected


@pytest.mark.parametrize(
    ("typed", "target"),
    [
        ("", (True, None)),
        ("--endpoint-url http://127.0.0.1:8", (False, "http://127.0.0.1:8")),
    ],
)
def test_a_rehearsal_is_retried_as_one(retried, monkeypatch, typed, target):
    """With an endpoint of its own, not at the address that the rehearsal had; or a typed one."""
    monkeypatch.setattr("bulk_updater.cli.run._to_sandbox", lambda config, _: config.connection)
    config = retried(typed, sandbox=True)
    assert (config.sandbox, config.connection.endpoint_url) == target


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ("invalid", "failed.csv"),
        ("updated", "not sent again"),
        ("Skipped", "where"),
        ("unchanged", "holds already"),
        ("superseded", "older"),
        ("other", "no outcome"),
    ],
)
def test_only_failed_rows_are_retried(call, seen, noted, outcome, told):  # noqa: ARG001
    """Each other outcome has a sentence that says why not; nothing is begun."""
    ran = call(f"retry run --outcome {outcome}")
    assert ran.code == 2
    assert told in ran.err
    assert not seen


def test_a_directory_without_a_run(call, seen):
    """It is refused, and not made."""
    ran = call("retry nowhere")
    assert ran.code == 2
    assert "nowhere: is no directory of a run" in ran.err
    assert not Path("nowhere").exists()
    assert not seen


@pytest.mark.parametrize("name", ["mapping.yaml", "export.csv"])
def test_a_file_of_the_run_that_is_gone(call, seen, noted, name):  # noqa: ARG001
    """It is named, and where to give the command; nothing is begun."""
    Path(name).unlink()
    ran = call("retry run")
    assert ran.code == 2
    assert f"{name}: the run's" in ran.err
    assert "folder in which the run was given" in ran.err
    assert not seen


def test_the_rows_are_those_of_the_run(call, seen, noted):  # noqa: ARG001
    """There is no --limit."""
    assert "--limit" not in call("retry --help").out
    assert call("retry run --limit 3").code == 2
    assert not seen


def test_the_exit_code_is_that_of_a_run(call, monkeypatch, noted):  # noqa: ARG001
    """Rows that are still FAILED or INVALID make it 1, whichever were tried."""

    async def ends(_config, **_):
        return summary_of(outcomes={"INVALID": 1}, attempts=0)

    monkeypatch.setattr("bulk_updater.cli.retry.retry_pipeline", ends)
    assert call("retry run").code == 1
