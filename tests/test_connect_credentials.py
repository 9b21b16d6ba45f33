"""What requests are signed with: until when it lasts, and that it is renewed once for all."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import CredentialsEnd, open_connect, read_credentials_end
from bulk_updater.connect.credentials import Known, _forget, find_end
from bulk_updater.errors import AccessError, ConfigError, SendError, TransientError
from bulk_updater.model import Request, Verdict
from bulk_updater.retry import TREATMENTS
from tests.lender import Lender, key_of, lent
from tests.stub_service import After, Answer, Received, answer, failure, stub_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bulk_updater.connect import Connect

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NEVER = CredentialsEnd()
UNKNOWN = CredentialsEnd(is_known=False)
REQUEST = Request(
    row=1,
    source="crm.csv",
    operation="update_contact_attributes",
    instance_id="i-1",
    contact_id="c-1",
    params={"InstanceId": "i-1", "InitialContactId": "c-1", "Attributes": {"name": "x"}},
    payload_bytes=5,
)


# ----------------------------------------------------------------------------------------------
# When they end


def at(hour: int, minute: int = 0) -> datetime:
    return NOW.replace(hour=hour, minute=minute)


def end_of(method: str, **known: Any) -> CredentialsEnd:
    settings: dict[str, Any] = {
        "has_token": True,
        "expires_at": None,
        "profile": "crm",
        "profiles": {},
        "environ": {},
        "find_login": lambda _profile: None,
        "now": NOW,
    }
    return find_end(Known(method=method, **settings | known))


KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
SESSION = {**KEYS, "aws_session_token": "t"}
TOKEN = {"AWS_SESSION_TOKEN": "t"}
ENDS = {"AWS_CREDENTIAL_EXPIRATION": "2026-03-01T14:05:00Z"}
ROLE = {"role_arn": "arn:aws:iam::1:role/x"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, NEVER),
        (TOKEN, UNKNOWN),
        ({"AWS_SECURITY_TOKEN": "t"}, UNKNOWN),
        (TOKEN | ENDS, CredentialsEnd(at=at(14, 5))),
        (ENDS, CredentialsEnd(at=at(14, 5))),
        (TOKEN | {"AWS_CREDENTIAL_EXPIRATION": "soon"}, UNKNOWN),
    ],
)
def test_credentials_of_the_environment(environ: dict[str, str], expected: CredentialsEnd):
    """A key pair lasts; a session ends when AWS_CREDENTIAL_EXPIRATION says, or nobody knows."""
    assert end_of("env", environ=environ) == expected


@pytest.mark.parametrize("method", ["shared-credentials-file", "config-file"])
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (KEYS, NEVER),
        (KEYS | {"aws_session_expiration": "2026-03-01T14:05:00Z"}, NEVER),
        (SESSION, UNKNOWN),
        (SESSION | {"x_security_token_expires": "2026-03-01T15:05:00+01:00"}, at(14, 5)),
        (SESSION | {"aws_expiration": "2026-03-01T14:05:00.000Z"}, at(14, 5)),
        (SESSION | {"expiration": "2026-03-01 14:05:00"}, at(14, 5)),
        (SESSION | {"aws_session_expiration": "2026-03-01 14:05:00 UTC"}, at(14, 5)),
        (SESSION | {"aws_session_expiration": "1772373900"}, at(14, 5)),
        (SESSION | {"aws_session_expiration": "", "expiration": "2026-03-01 14:05:00"}, at(14, 5)),
        (SESSION | {"aws_session_expiration": "never"}, UNKNOWN),
        (SESSION | {"aws_session_expiration": "0001-01-01T00:00:00+14:00"}, UNKNOWN),
    ],
)
def test_credentials_of_a_file(method: str, profile: dict[str, str], expected: Any):
    """What tools write beside a session's keys is understood, with a zone or without."""
    if isinstance(expected, datetime):
        expected = CredentialsEnd(at=expected)
    assert end_of(method, profiles={"crm": profile}) == expected


LOGIN = {"accessToken": "a", "expiresAt": "2026-03-01T20:00:00Z"}
RENEWABLE = LOGIN | {
    "refreshToken": "r",
    "clientId": "c",
    "clientSecret": "s",
    "registrationExpiresAt": "2026-05-30T08:00:00Z",
}


@pytest.mark.parametrize(
    ("profile", "login", "expected"),
    [
        ({"sso_start_url": "https://x"}, LOGIN, at(20)),
        ({"sso_start_url": "https://x"}, RENEWABLE, at(20)),  # the older kind is never renewed
        ({"sso_session": "s"}, LOGIN, at(20)),
        ({"sso_session": "s"}, RENEWABLE, datetime(2026, 5, 30, 8, tzinfo=UTC)),
        ({"sso_session": "s"}, None, None),
    ],
)
def test_single_sign_on(profile: dict[str, str], login: Any, expected: datetime | None):
    """Roles are lent until the log-in ends; one that is renewed lasts as its registration does."""
    found = end_of("sso", profiles={"crm": profile}, find_login=lambda _profile: login)
    assert (found.at, found.is_known) == (expected, expected is not None)
    assert found.renewal == "log in again (aws sso login --profile crm)"


@pytest.mark.parametrize(
    ("profiles", "changes", "expected"),
    [
        ({"crm": ROLE | {"source_profile": "base"}, "base": KEYS}, {}, NEVER),
        ({"crm": ROLE | {"source_profile": "base"}, "base": SESSION}, {}, UNKNOWN),
        ({"crm": ROLE | {"source_profile": "crm"} | SESSION}, {}, UNKNOWN),
        (
            {
                "crm": ROLE | {"source_profile": "mid"},
                "mid": ROLE | {"source_profile": "base"},
                "base": SESSION | {"expiration": "2026-03-01 14:05:00"},
            },
            {},
            CredentialsEnd(at=at(14, 5)),
        ),
        ({"crm": ROLE | {"credential_source": "Ec2InstanceMetadata"}}, {}, NEVER),
        (
            {"crm": ROLE | {"credential_source": "Environment"}},
            {"environ": TOKEN | ENDS},
            CredentialsEnd(at=at(14, 5)),
        ),
        ({"crm": ROLE | {"source_profile": "b"}, "b": ROLE | {"source_profile": "crm"}}, {}, NEVER),
        ({"crm": ROLE | {"source_profile": "gone"}}, {}, NEVER),
    ],
)
def test_a_role_is_lent_for_as_long_as_its_lender_lasts(profiles, changes, expected):
    """A role renews itself from what its source profile holds, through every profile between."""
    assert end_of("assume-role", profiles=profiles, **changes) == expected


@pytest.mark.parametrize(
    ("profile", "expires_at", "expected"),
    [
        ({}, at(13), at(12, 50)),
        ({}, None, at(12, 50)),
        ({"duration_seconds": "7200"}, None, at(13, 50)),
        ({"duration_seconds": "long"}, None, at(12, 50)),
    ],
)
def test_a_role_with_mfa_ends_when_botocore_would_ask_again(profile, expires_at, expected):
    """Ten minutes before its end new ones are insisted on, and nobody is there to give a code."""
    crm = ROLE | {"mfa_serial": "arn:aws:iam::1:mfa/me", "source_profile": "base"} | profile
    found = end_of("assume-role", profiles={"crm": crm, "base": KEYS}, expires_at=expires_at)
    assert (found.at, found.renewal) == (expected, "give the code of the MFA device again")


@pytest.mark.parametrize(
    "method",
    ["iam-role", "container-role", "assume-role-with-web-identity", "custom-process", "explicit"],
)
def test_what_renews_itself_has_no_end(method: str):
    """Machines, containers, web identities and processes that say until when lend anew."""
    assert end_of(method, expires_at=at(13)) == NEVER
    assert end_of(method, has_token=False) == NEVER


def test_a_process_that_does_not_say_until_when():
    """A session of a process without an expiration is never renewed, and nobody knows its end."""
    assert end_of("custom-process") == UNKNOWN


# ----------------------------------------------------------------------------------------------
# Reading it


async def opened_end(config: ConnectionConfig) -> CredentialsEnd:
    async with open_connect(config, max_in_flight=1) as connect:
        return connect.credentials_end


@pytest.mark.parametrize("read", [opened_end, read_credentials_end])
async def test_run_and_plan_read_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read):
    """Environment, file, profile and key pair: both ways to ask say the same."""
    config = ConnectionConfig(region="eu-west-2")
    assert await read(ConnectionConfig(region="eu-west-2", access_key=("k", "s"))) == NEVER
    assert await read(ConnectionConfig(region="eu-west-2", sign_requests=False)) == NEVER
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = k\naws_secret_access_key = s\naws_session_token = t\n"
        "aws_expiration = 2036-03-01T14:05:00.000Z\n"
        "[keys]\naws_access_key_id = k\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    ends = datetime(2036, 3, 1, 14, 5, tzinfo=UTC)
    assert await read(config) == CredentialsEnd(at=ends)
    assert await read(ConnectionConfig(region="eu-west-2", profile="keys")) == NEVER
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_SESSION_TOKEN", "t"),
    ):
        monkeypatch.setenv(name, value)
    assert await read(config) == UNKNOWN
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2037-03-01T14:05:00Z")
    assert await read(config) == CredentialsEnd(at=ends.replace(year=2037))


async def test_plan_reads_the_log_in_of_a_single_sign_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The cache of `aws sso login` says when it ends; no role is fetched to know it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(
        "[profile crm]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
        "[sso-session s]\nsso_region = eu-west-2\nsso_start_url = https://x.invalid/start\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    path = cache / f"{sha1(b's').hexdigest()}.json"
    path.write_text(json.dumps(LOGIN | {"expiresAt": "2036-03-01T20:00:00Z"}))
    config = ConnectionConfig(region="eu-west-2", profile="crm")
    found = await read_credentials_end(config)
    assert found.at == datetime(2036, 3, 1, 20, tzinfo=UTC)
    path.write_text("no JSON")
    assert (await read_credentials_end(config)).is_known is False


async def test_plan_waits_for_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Credentials that cannot be had, or not in time, are no reason to fail or to wait."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[default]\ncredential_process = no-such-program\n")
    assert await read_credentials_end(ConnectionConfig(region="eu-west-2")) == NEVER
    nobody = ConnectionConfig(region="eu-west-2", profile="nobody")
    assert await read_credentials_end(nobody) == NEVER


# ----------------------------------------------------------------------------------------------
# Renewing them


@pytest.fixture
def lender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lender:
    made = Lender(tmp_path)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(made.config))
    return made


def refuses(*keys: str, code: str = "ExpiredTokenException"):
    """A service that takes every key but these."""

    def by_key(received: Received) -> Answer:
        return failure(403, code) if key_of(received) in keys else answer()

    return by_key


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Connect]:
    config = ConnectionConfig(region="eu-west-2", endpoint_url=url)
    async with open_connect(config, max_in_flight=32) as connect:
        yield connect


@pytest.mark.parametrize("code", ["ExpiredTokenException", "ExpiredToken"])
async def test_the_service_knows_sooner_that_credentials_have_ended(lender: Lender, code: str):
    """One refused request has them renewed, before botocore would: the next one is signed anew."""
    async with stub_service(refuses("KEY1", code=code)) as stub, opened(stub.url) as connect:
        with pytest.raises(AccessError) as caught:
            await connect.send(REQUEST)
        assert caught.value.code == code
        await connect.send(REQUEST)
        await connect.send(REQUEST)
    assert [key_of(each) for each in stub.requests] == ["KEY1", "KEY2", "KEY2"]
    assert lender.n_asked == 2


async def test_all_that_are_in_flight_share_one_renewal(lender: Lender):
    """32 refusals at the same moment ask the lender once, and each next attempt is accepted."""
    async with stub_service(refuses("KEY1")) as stub, opened(stub.url) as connect:
        refused = await asyncio.gather(
            *(connect.send(REQUEST) for _ in range(32)), return_exceptions=True
        )
        assert {type(each) for each in refused} == {AccessError}
        await asyncio.gather(*(connect.send(REQUEST) for _ in range(32)))
    assert lender.n_asked == 2
    assert [key_of(each) for each in stub.requests] == ["KEY1"] * 32 + ["KEY2"] * 32


async def test_a_lender_that_fails_is_asked_once_for_all(lender: Lender, capfd):
    """32 refusals and no new credentials: one more question, no traceback, one cause."""
    async with stub_service(refuses("KEY1")) as stub, opened(stub.url) as connect:
        lender.break_down()
        refused = await asyncio.gather(
            *(connect.send(REQUEST) for _ in range(32)), return_exceptions=True
        )
    assert {(type(each), each.code) for each in refused} == {
        (AccessError, "CredentialRetrievalError")
    }
    assert lender.n_asked == 2
    assert capfd.readouterr() == ("", "")


async def test_credentials_end_in_the_middle_and_are_renewed_in_time(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
):
    """By the clock alone, no request is refused: shortly before the end the next key is taken."""
    later = datetime.now(UTC) + timedelta(hours=7, minutes=55)  # botocore insists ten before
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        await connect.send(REQUEST)
        lender.lends_until(later + timedelta(hours=1))
        monkeypatch.setattr(connect._signing.inner, "_time_fetcher", lambda: later)
        await asyncio.gather(*(connect.send(REQUEST) for _ in range(32)))
    assert [key_of(each) for each in stub.requests] == ["KEY1"] + ["KEY2"] * 32
    assert lender.n_asked == 2


async def test_credentials_that_end_by_the_clock_and_are_not_renewed(
    monkeypatch: pytest.MonkeyPatch, capfd
):
    """Environment credentials past AWS_CREDENTIAL_EXPIRATION are an `ExpiredToken`, unsent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    soon = datetime.now(UTC) + timedelta(minutes=5)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", soon.isoformat())
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        await connect.send(REQUEST)
        later = soon + timedelta(minutes=1)
        monkeypatch.setattr(connect._signing.inner, "_time_fetcher", lambda: later)
        for _ in range(2):
            with pytest.raises(AccessError) as caught:
                await connect.send(REQUEST)
            assert (caught.value.code, caught.value.http_status) == ("ExpiredToken", None)
    assert stub.hits == 1
    assert capfd.readouterr() == ("", "")


async def test_credentials_that_have_ended_already(monkeypatch: pytest.MonkeyPatch, capfd):
    """What is past its end at the start is refused at the start, with what to set."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-03-01T14:05:00Z")
    with pytest.raises(ConfigError, match="have ended already; log in again"):
        async with opened("http://127.0.0.1:9"):
            pytest.fail("it opened")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        (answer(503, b""), TransientError, "CredentialsUnavailable"),
        (Answer(b"", After.CLOSE), TransientError, "CredentialsUnavailable"),
        (Answer(b"", After.HANG), TransientError, "CredentialsUnavailable"),
        (answer(200, b"<x/>"), TransientError, "CredentialsUnavailable"),
        (answer(403, b"<E><Error><Code>AccessDenied</Code></Error></E>"), AccessError, "Cred"),
    ],
    ids=["503", "closed", "hangs", "nonsense", "denied"],
)
@pytest.mark.looptime
async def test_trouble_with_the_lender_is_never_a_row_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Answer, kind: type, code: str
):
    """A role cannot be renewed: the run waits or stops, and nothing reaches Connect unsigned."""
    (tmp_path / "config").write_text(
        "[profile crm]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    async with stub_service(lent("ROLE1"), said) as lends, stub_service(answer()) as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", lends.url)
        config = ConnectionConfig(region="eu-west-2", profile="crm", endpoint_url=stub.url)
        async with open_connect(config, max_in_flight=4) as connect:
            _forget(connect._signing.inner)  # as if its hour were over
            with pytest.raises(kind) as caught:
                await connect.send(REQUEST)
    assert caught.value.code.startswith(code)
    assert treatment_stops(caught.value)
    assert stub.hits == 0


def treatment_stops(error: SendError) -> bool:
    """Whether no attempt that ends so, nor the last of many, makes a row FAILED."""
    kind = next(base for base in type(error).__mro__ if base in TREATMENTS)
    return TREATMENTS.get(error.code, TREATMENTS[kind]).exhausted is Verdict.STOP_RUN


async def test_an_answer_that_lends_nonsense_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Half an answer of STS holds half of a secret: it is refused in our words alone."""
    (tmp_path / "config").write_text(
        "[profile crm]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    half = b"<AssumeRoleResponse><SecretAccessKey>hunter2</SecretAccessKey>"
    async with stub_service(answer(200, half)) as lends:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", lends.url)
        config = ConnectionConfig(region="eu-west-2", profile="crm")
        with pytest.raises(ConfigError, match="makes no sense") as caught:
            async with open_connect(config, max_in_flight=1):
                pytest.fail("it opened")
    assert "hunter2" not in caught.value.message


async def test_keys_that_nobody_renews_are_not_renewed():
    """A key pair that is called expired stays what it is: the second refusal is the last word."""
    config = {"region": "eu-west-2", "access_key": ("k", "s")}
    async with stub_service(failure(403, "ExpiredTokenException")) as stub:
        settings = ConnectionConfig(endpoint_url=stub.url, **config)
        async with open_connect(settings, max_in_flight=1) as connect:
            for _ in range(2):
                with pytest.raises(AccessError):
                    await connect.send(REQUEST)
    assert stub.hits == 2


async def test_a_role_that_was_taken_back_is_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """botocore keeps a lent role for an hour; when the service refuses it, STS lends another."""
    (tmp_path / "config").write_text(
        "[profile crm]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with (
        stub_service(lent("ROLE1"), lent("ROLE2")) as lends,
        stub_service(refuses("ROLE1")) as stub,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", lends.url)
        config = ConnectionConfig(region="eu-west-2", profile="crm", endpoint_url=stub.url)
        async with open_connect(config, max_in_flight=4) as connect:
            assert connect.credentials_end == NEVER
            with pytest.raises(AccessError):
                await connect.send(REQUEST)
            await connect.send(REQUEST)
    assert [key_of(each) for each in stub.requests] == ["ROLE1", "ROLE2"]
    assert lends.hits == 2
