"""Credentials that end in the middle of a run: renewed once for all, or the run stops whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.config import ConnectionConfig, PacingConfig, RetryConfig, RunConfig
from bulk_updater.errors import RunStopped
from bulk_updater.pipeline import run
from tests.lender import Lender, key_of, lent
from tests.stub_service import Answer, Received, answer, failure, stub_service

from .helpers import ledger_of, people, write_export

if TYPE_CHECKING:
    from pathlib import Path

N_ROWS = 200


@pytest.fixture
def lender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lender:
    made = Lender(tmp_path)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(made.config))
    return made


class Service:
    """Accepts a key for so many requests, and then calls it expired; notes whom it updated."""

    def __init__(self, good_for: int, *, also: int = 10**9) -> None:
        self._good_for = {"KEY1": good_for}
        self._also = also
        self.updated: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def __call__(self, received: Received) -> Answer:
        key = key_of(received)
        left = self._good_for.setdefault(key, self._also)
        contact = received.body["InitialContactId"]
        if not left:
            self.refused[contact] += 1
            return failure(403, "ExpiredTokenException")
        self._good_for[key] = left - 1
        self.updated[contact] += 1
        return answer()


def config_for(url: str, folder: Path, **settings: Any) -> RunConfig:
    return RunConfig(
        mapping=folder / "mapping.yaml",
        sources=(write_export(folder, people(N_ROWS)),),
        runs_dir=folder / "runs",
        connection=ConnectionConfig(endpoint_url=url, region="eu-west-1"),
        pacing=PacingConfig(rate=5000),
        **settings,
    )


ONCE = Counter({f"contact-{row}": 1 for row in range(1, N_ROWS + 1)})


async def test_a_storm_of_refusals_is_one_renewal_and_no_lost_row(folder, lender):
    """The key ends after 60 requests with 32 in flight: every row is UPDATED, and sent once."""
    service = Service(60)
    async with stub_service(service) as stub:
        summary = await run(config_for(stub.url, folder))
    assert summary.outcomes == {
        "UPDATED": N_ROWS,
        "FAILED": 0,
        "INVALID": 0,
        "SKIPPED": 0,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    assert service.updated == ONCE
    assert 1 <= sum(service.refused.values()) <= 32
    assert lender.n_asked == 2


async def test_keys_that_end_again_and_again(folder, lender):
    """Each key is good for 40 requests: five renewals, no stop and no failed row."""
    service = Service(40, also=40)
    # Whoever slept through the life of the next key would meet the end of a second one.
    at_once = RetryConfig(backoff_base_s=1e-6)
    async with stub_service(service) as stub:
        summary = await run(config_for(stub.url, folder, max_in_flight=4, retry=at_once))
    assert summary.outcomes["UPDATED"] == N_ROWS
    assert service.updated == ONCE
    assert lender.n_asked == 5


async def test_a_storm_without_new_credentials_stops_the_run_and_fails_no_row(
    folder, lender, capfd
):
    """60 rows UPDATED, 140 unsettled, one question to the lender; then the same run goes on."""
    service = Service(60)

    def breaks_down(received: Received) -> Answer:
        if not service._good_for["KEY1"]:
            lender.break_down()
        return service(received)

    async with stub_service(breaks_down) as stub:
        config = config_for(stub.url, folder)
        with pytest.raises(RunStopped) as stopped:
            await run(config)
        summary = stopped.value.summary
        assert stopped.value.message == (
            "CredentialRetrievalError on one request: the credentials could not be loaded or "
            "renewed; log in again or mend the profile that lends them and give the same command "
            "again."
        )
        assert summary.outcomes == {
            "UPDATED": 60,
            "FAILED": 0,
            "INVALID": 0,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        assert summary.unsettled == N_ROWS - 60
        assert {record["outcome"] for record in ledger_of(summary)} == {"UPDATED"}
        assert lender.n_asked == 2
        assert capfd.readouterr() == ("", "")
        lender.mend()
        service._good_for["KEY3"] = N_ROWS
        breaks = lender.break_down
        lender.break_down = lambda: None
        finished = await run(config)
        lender.break_down = breaks
    assert finished.outcomes["UPDATED"] == N_ROWS
    assert service.updated == ONCE


async def test_renewed_credentials_that_are_refused_too_stop_the_run(folder, lender):
    """A lender whose new key is no better is asked no third time, and no row is FAILED."""
    service = Service(60, also=0)
    async with stub_service(service) as stub:
        with pytest.raises(RunStopped, match=r"^403 ExpiredTokenException on 2 attempts at one"):
            await run(config_for(stub.url, folder))
    assert sum(service.updated.values()) == 60
    assert lender.n_asked == 2
    assert sum(service.refused.values()) <= 2 * 32


async def test_a_lender_that_is_away_for_a_while_fails_no_row(folder, tmp_path, monkeypatch):
    """STS answers 503 when the role is to be renewed: rows wait, or the run stops; none FAILED."""
    (tmp_path / "aws-config").write_text(
        "[profile crm]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    service = Service(60)
    away = answer(503, b"")
    async with (
        stub_service(lent("KEY1"), away) as lends_once,
        stub_service(lent("KEY2")) as lends_again,
        stub_service(service) as stub,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", lends_once.url)
        config = config_for(stub.url, folder, retry=RetryConfig(max_attempts=3))
        config = replace(config, connection=replace(config.connection, profile="crm"))
        with pytest.raises(RunStopped, match=r"^CredentialsUnavailable on ") as stopped:
            await run(config)
        summary = stopped.value.summary
        assert summary.outcomes == {
            "UPDATED": 60,
            "FAILED": 0,
            "INVALID": 0,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        assert "whoever lends the credentials fails or is not reached" in stopped.value.message
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", lends_again.url)
        assert (await run(config)).outcomes["UPDATED"] == N_ROWS
    assert service.updated == ONCE
