"""What the account may do, as far as it can be asked: never a reason to stop, never slow."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import AppliedQuotas, open_connect, read_quotas
from bulk_updater.operations import iter_operations
from bulk_updater.sandbox import Sandbox, SandboxConfig
from tests.stub_service import After, Answer, Received, answer, failure, stub_service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACCOUNT = "123456789012"
SECRET = "wJalrXUtnFEMIplantedSECRET"
ATTRIBUTES, CONTACT = OPERATIONS = tuple(iter_operations())
CONFIG = ConnectionConfig(region="eu-west-2", access_key=("AKIDEXAMPLE", SECRET))
SANDBOXED = replace(CONFIG, access_key=("sandbox", "sandbox"))
DENIED = "the role lacks servicequotas:GetServiceQuota"


async def for_plan(config: ConnectionConfig, **options: Any) -> AppliedQuotas:
    return await read_quotas(config, OPERATIONS, **options)


async def for_run(config: ConnectionConfig, **options: Any) -> AppliedQuotas:
    async with open_connect(config, max_in_flight=2) as connect:
        return await connect.read_quotas(OPERATIONS, **options)


Ask = Any


@pytest.fixture(params=[for_plan, for_run])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Both ways to ask: with a session of its own, and on an open connection."""
    return request.param


def quota(value: Any = 10.0, account: str = ACCOUNT, **members: Any) -> Answer:
    """A quota as Service Quotas words it; None leaves the value out."""
    arn = f"arn:aws:servicequotas:eu-west-2:{account}:connect/L-1"
    said = {"QuotaArn": arn} | ({} if value is None else {"Value": value}) | members
    return answer(200, json.dumps({"Quota": said}).encode())


def identity(account: str = ACCOUNT) -> Answer:
    """An answer of STS."""
    return answer(
        200,
        b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        b"<GetCallerIdentityResult><Account>%s</Account></GetCallerIdentityResult>"
        b"</GetCallerIdentityResponse>" % account.encode(),
    )


def denial() -> Answer:
    body = {"__type": "AccessDeniedException", "Message": f"User x with {SECRET} is not authorized"}
    return answer(400, json.dumps(body).encode())


def asks_sts(received: Received) -> bool:
    return b"GetCallerIdentity" in received.raw


def by_question(
    attributes: Answer, contact: Answer, sts: Answer | None = None
) -> Callable[[Received], Answer]:
    """Answers each question by what it asks for, in whatever order they arrive."""

    def choose(received: Received) -> Answer:
        if asks_sts(received):
            return sts or failure(500, "InternalFailure")
        codes = {ATTRIBUTES.quota_code: attributes, CONTACT.quota_code: contact}
        return codes[received.body["QuotaCode"]]

    return choose


def assert_well_worded(unread: str | None) -> None:
    """One clause of ours: one line, no full stop, no capital but a name's, nothing secret."""
    if unread is not None:
        assert re.fullmatch(r"(Service Quotas|AWS|--|[a-z])[^\n]*[^.\s]", unread)
        assert SECRET not in unread
        assert "AKIDEXAMPLE" not in unread


# ----------------------------------------------------------------------------------------------
# Where all is well


async def test_both_are_read(ask: Ask):
    """Two questions, one for each operation, give both rates and the account; STS is not asked."""
    async with stub_service(by_question(quota(20), quota(12.5))) as stub:
        found = await ask(replace(CONFIG, endpoint_url=stub.url))
    assert found == AppliedQuotas(
        {"update_contact_attributes": 20.0, "update_contact": 12.5}, ACCOUNT, None
    )
    assert found.region == "eu-west-2"
    assert stub.hits == 2
    for received in stub.requests:
        assert received.body["ServiceCode"] == "connect"
        assert "/eu-west-2/servicequotas/aws4_request" in received.headers["authorization"]
        assert "bulk_updater/" in received.headers["user-agent"]


async def test_the_sandbox_answers(ask: Ask):
    """The sandbox is asked at its own URL, and no operation that updates pays for it."""
    config = SandboxConfig(latency_ms=0, rate_per_s=2, applied_quota_per_s=50)
    async with Sandbox(config) as sandbox:
        found = await ask(replace(SANDBOXED, endpoint_url=sandbox.url))
    assert found.rates_per_s == {"update_contact_attributes": 50.0, "update_contact": 50.0}
    assert (found.account_id, found.unread) == (ACCOUNT, None)
    received = {name: counters.received for name, counters in sandbox.counters.items()}
    assert received == dict.fromkeys(received, 0) | {"get_service_quota": 2}


async def test_only_what_is_asked_for():
    """One operation is one question; none is none, and nothing is unread then."""
    async with stub_service(by_question(quota(), quota(), identity())) as stub:
        config = replace(CONFIG, endpoint_url=stub.url)
        assert dict((await read_quotas(config, [CONTACT])).rates_per_s) == {"update_contact": 10.0}
        assert stub.hits == 1
        assert await read_quotas(config, []) == AppliedQuotas({}, ACCOUNT, None)
        assert [asks_sts(received) for received in stub.requests] == [False, True]


@pytest.mark.looptime
async def test_at_once(ask: Ask):
    """Both questions are on their way before either is answered."""
    async with Sandbox(SandboxConfig(latency_ms=1000, latency_jitter=0)) as sandbox:
        await ask(replace(SANDBOXED, endpoint_url=sandbox.url), timeout_s=60)
    assert sandbox.counters["get_service_quota"].peak_in_flight == 2


# ----------------------------------------------------------------------------------------------
# Denied, and who is asking


async def test_denied(ask: Ask):
    """Without the permission there are no rates, the permission is named, and STS says who."""
    async with Sandbox(SandboxConfig(latency_ms=0, quotas_denied=True)) as sandbox:
        found = await ask(replace(SANDBOXED, endpoint_url=sandbox.url))
    assert found == AppliedQuotas({}, ACCOUNT, DENIED)
    assert sandbox.counters["get_service_quota"].rejected == {"AccessDeniedException": 2}
    assert sandbox.counters["get_caller_identity"].accepted == 1


async def test_one_is_denied(ask: Ask):
    """One quota that is read is kept, and tells the account, whatever the other says."""
    async with stub_service(by_question(denial(), quota(7))) as stub:
        found = await ask(replace(CONFIG, endpoint_url=stub.url))
    assert found == AppliedQuotas({"update_contact": 7.0}, ACCOUNT, DENIED)
    assert stub.hits == 2


async def test_credentials_that_know_their_account(monkeypatch: pytest.MonkeyPatch, ask: Ask):
    """Credentials that name their account spare the question to STS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCOUNT_ID", "210987654321")
    async with stub_service(denial()) as stub:
        found = await ask(ConnectionConfig(region="eu-west-2", endpoint_url=stub.url))
    assert found == AppliedQuotas({}, "210987654321", DENIED)
    assert stub.hits == 2


async def test_an_account_that_is_none(monkeypatch: pytest.MonkeyPatch, ask: Ask):
    """An account that is not 12 digits, wherever it comes from, is nobody's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCOUNT_ID", "my-account")
    answers = by_question(quota(account=""), quota(account="12345"), identity("root"))
    async with stub_service(answers) as stub:
        found = await ask(ConnectionConfig(region="eu-west-2", endpoint_url=stub.url))
    assert (len(found.rates_per_s), found.account_id, found.unread) == (2, None, None)
    assert stub.hits == 3


@pytest.mark.parametrize(
    "said",
    [
        answer(200, b"<html><body>Please log in</body></html>"),
        answer(200, b"<a>" * 100_000),
        answer(200, b"<a>" * 20_000 + b"</a>" * 20_000),
        answer(403, b"<a>" * 20_000 + b"</a>" * 20_000),
        answer(403, b"<ErrorResponse><Error><Code>X</Code></Error></ErrorResponse>"),
        answer(302, b"", Location="http://127.0.0.1:1/"),
        answer(200, b""),
        answer(200, b"{}"),
        Answer(b"", After.RESET),
    ],
    ids=["HTML", "cut off", "deep", "deep error", "error", "redirect", "blank", "JSON", "reset"],
)
async def test_sts_is_no_help(ask: Ask, said: Answer):
    """Whatever STS says, the account is just not known; it is not the reason that is told."""
    async with stub_service(by_question(denial(), denial(), said)) as stub:
        found = await ask(replace(CONFIG, endpoint_url=stub.url))
    assert found == AppliedQuotas({}, None, DENIED)
    assert [asks_sts(received) for received in stub.requests] == [False, False, True]


async def test_credentials_are_loaded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A role is assumed once for the run and its quotas, and its account is known from then on."""
    profile(monkeypatch, tmp_path, "")
    role = (
        b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>k</AccessKeyId>"
        b"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        b"<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser>"
        b"<Arn>arn:aws:sts::111122223333:assumed-role/x/y</Arn></AssumedRoleUser></AssumeRoleResult>"
        b"</AssumeRoleResponse>"
    )
    async with stub_service(answer(200, role)) as sts, stub_service(denial()) as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        config = ConnectionConfig(region="eu-west-2", profile="crm", endpoint_url=stub.url)
        found = await for_run(config)
    assert found == AppliedQuotas({}, "111122223333", DENIED)
    assert (stub.hits, sts.hits) == (2, 1)
    assert parse_qs(sts.requests[0].raw.decode())["Action"] == ["AssumeRole"]


def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: str) -> None:
    (tmp_path / "config").write_text(
        f"[profile crm]\nrole_arn = arn:aws:iam::111122223333:role/x\nsource_profile = base\n{more}"
        f"[profile base]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


# ----------------------------------------------------------------------------------------------
# Time


@pytest.mark.looptime
@pytest.mark.parametrize("timeout_s", [3.0, 10.5])
async def test_no_answer(ask: Ask, timeout_s: float):
    """A service that says nothing costs `timeout_s` and no more, and leaves no task behind."""
    clock = asyncio.get_running_loop().time
    async with stub_service(Answer(b"", After.HANG)) as stub:
        config = replace(CONFIG, endpoint_url=stub.url)
        async with open_connect(config, max_in_flight=2) as connect:
            n_tasks = len(asyncio.all_tasks())
            began_s = clock()
            if ask is for_run:
                found = await connect.read_quotas(OPERATIONS, timeout_s=timeout_s)
            else:
                found = await read_quotas(config, OPERATIONS, timeout_s=timeout_s)
            assert timeout_s <= clock() - began_s < timeout_s + 0.1
            # Those that the stub talks to are its own.
            assert len(asyncio.all_tasks()) - n_tasks <= stub.hits
    assert stub.hits <= 2
    assert found == AppliedQuotas({}, None, f"Service Quotas did not answer within {timeout_s:g} s")


@pytest.mark.looptime
async def test_credentials_that_do_not_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Credentials that are slow to come take from the same time, and are what is blamed."""
    profile(monkeypatch, tmp_path, "")
    came = threading.Event()

    async def load(*_: Any) -> None:
        came.wait(timeout=20)

    monkeypatch.setattr("aiobotocore.session.AioSession.get_credentials", load)
    clock = asyncio.get_running_loop().time
    async with stub_service(quota()) as stub:
        config = replace(CONFIG, endpoint_url=stub.url)
        began_s = clock()
        found = await for_plan(config, timeout_s=0.25)
        assert 0.25 <= clock() - began_s < 1
        came.set()
    reason = "the AWS settings and credentials did not load within 0.25 s"
    assert found == AppliedQuotas({}, None, reason)
    assert stub.hits == 0


@pytest.mark.looptime
async def test_half_an_answer(ask: Ask):
    """What was read before the time ran out is kept, with the account."""
    async with stub_service(by_question(quota(20), Answer(b"", After.HANG))) as stub:
        found = await ask(replace(CONFIG, endpoint_url=stub.url), timeout_s=30)
    assert found == AppliedQuotas(
        {"update_contact_attributes": 20.0}, ACCOUNT, "Service Quotas did not answer within 30 s"
    )
    assert stub.hits == 2


@pytest.mark.looptime
async def test_sts_takes_from_the_same_time(ask: Ask):
    """STS gets what time is left; that it said nothing is not the reason that is told."""
    clock = asyncio.get_running_loop().time
    async with stub_service(by_question(denial(), denial(), Answer(b"", After.HANG))) as stub:
        began_s = clock()
        found = await ask(replace(CONFIG, endpoint_url=stub.url), timeout_s=30)
        assert 30 <= clock() - began_s < 35
    assert found == AppliedQuotas({}, None, DENIED)
    assert stub.hits == 3


@pytest.mark.looptime
async def test_the_connections_own_timeout(ask: Ask):
    """A read timeout that is shorter counts, and is named."""
    clock = asyncio.get_running_loop().time
    async with stub_service(by_question(*[Answer(b"", After.HANG)] * 2, identity())) as stub:
        config = replace(CONFIG, endpoint_url=stub.url, read_timeout_s=7.0)
        began_s = clock()
        found = await ask(config, timeout_s=1000)
        assert 7 <= clock() - began_s < 12
    assert found == AppliedQuotas(
        {}, ACCOUNT, "Service Quotas did not answer within --cli-read-timeout"
    )


async def test_cancelled(ask: Ask):
    """A cancellation passes as it is."""
    async with stub_service(Answer(b"", After.HANG)) as stub:
        task = asyncio.create_task(ask(replace(CONFIG, endpoint_url=stub.url), timeout_s=1000))
        await stub.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ----------------------------------------------------------------------------------------------
# Nobody to ask, or nobody who asks


async def test_no_credentials():
    """Without credentials nobody is asked, and they are what is missing."""
    async with stub_service(quota()) as stub:
        found = await for_plan(ConnectionConfig(region="eu-west-2", endpoint_url=stub.url))
    assert found == AppliedQuotas({}, None, "there are no AWS credentials")
    assert stub.hits == 0


async def test_credentials_that_cannot_be_borrowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A role that may not be assumed is no AccessDenied of Service Quotas."""
    profile(monkeypatch, tmp_path, "")
    refused = f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{SECRET}</Message></Error>"
    async with stub_service(answer(403, f"{refused}</ErrorResponse>".encode())) as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)
        found = await for_plan(replace(CONFIG, access_key=None, profile="crm"))
    assert found == AppliedQuotas({}, None, "the credentials could not be loaded or renewed")
    assert stub.hits == 1


async def test_mfa(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A session that nobody sits in front of never prompts for an MFA code."""
    profile(monkeypatch, tmp_path, "mfa_serial = arn:aws:iam::111122223333:mfa/x\n")
    prompts: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or "123456")
    found = await for_plan(replace(CONFIG, access_key=None, profile="crm"))
    assert found == AppliedQuotas({}, None, "the profile wants an MFA code")
    assert prompts == []


@pytest.mark.parametrize(
    ("changes", "unread"),
    [
        ({"profile": "crm-prod"}, "there is no AWS profile 'crm-prod'"),
        ({"region": None}, "there is no AWS region"),
        (
            {"region": "not a region"},
            "the AWS configuration or its credentials cannot be used (InvalidRegionError)",
        ),
        ({"endpoint_url": f"ftp://me:{SECRET}@host"}, "--endpoint-url is not a whole URL"),
        ({"endpoint_url": "http://[::1"}, "--endpoint-url is not a whole URL"),
        (
            {"ca_bundle": "no-such.pem"},
            "the CA bundle no-such.pem cannot be used (No such file or directory)",
        ),
    ],
)
async def test_what_cannot_work(changes: dict[str, Any], unread: str):
    """Settings that cannot work are named and stop nothing."""
    found = await for_plan(replace(CONFIG, **changes))
    assert found == AppliedQuotas({}, None, unread)
    assert_well_worded(unread)


async def test_an_aws_configuration_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A broken configuration file is a reason like any other."""
    (tmp_path / "config").write_text(f"no section\n{SECRET}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    found = await for_plan(CONFIG)
    assert "configuration" in found.unread
    assert_well_worded(found.unread)


async def test_unsigned(ask: Ask):
    """With --no-sign-request nobody is asked: there is no account to ask about."""
    async with stub_service(quota()) as stub:
        config = replace(CONFIG, endpoint_url=stub.url, sign_requests=False, access_key=None)
        found = await ask(config)
    assert found == AppliedQuotas({}, None, "requests are not signed")
    assert stub.hits == 0


async def test_refused_port(ask: Ask):
    """Nobody listening is a reason like any other."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        found = await ask(replace(CONFIG, endpoint_url=f"http://127.0.0.1:{port}"))
    assert found == AppliedQuotas({}, None, "nobody answers at the endpoint of Service Quotas")


# ----------------------------------------------------------------------------------------------
# Where it asks

ELSEWHERE = "https://vpce-0123.connect.eu-west-2.vpce.amazonaws.com"


async def test_an_endpoint_for_connect_alone(monkeypatch: pytest.MonkeyPatch, ask: Ask):
    """Connect's own endpoint elsewhere is not asked about quotas; each service has its own."""
    async with stub_service(denial()) as quotas, stub_service(identity()) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", quotas.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        found = await ask(replace(CONFIG, endpoint_url=ELSEWHERE))
    assert found == AppliedQuotas({}, ACCOUNT, DENIED)
    assert (quotas.hits, sts.hits) == (2, 1)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CONNECT"])
async def test_a_sandbox_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, ask: Ask, name: str
):
    """Where the environment sends Connect's requests to this machine, quotas are asked there."""
    async with stub_service(quota()) as stub:
        monkeypatch.setenv(name, stub.url)
        found = await ask(CONFIG)
    assert len(found.rates_per_s) == stub.hits == 2


async def test_no_proxy_on_this_machine(monkeypatch: pytest.MonkeyPatch, ask: Ask):
    """The environment's proxy is for the way out and hears nothing of the sandbox."""
    async with stub_service(quota()) as stub, stub_service(quota()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        found = await ask(replace(CONFIG, endpoint_url=stub.url))
    assert (len(found.rates_per_s), stub.hits, proxy.hits) == (2, 2, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(ask: Ask, status: int):
    """A redirect leads nowhere; credentials are not shown to whom it names."""
    async with stub_service(quota()) as target:
        moved = answer(status, b"", Location=f"{target.url}/elsewhere")
        async with stub_service(moved) as stub:
            found = await ask(replace(CONFIG, endpoint_url=stub.url))
    assert (stub.hits, target.hits) == (3, 0)
    reason = "the endpoint of Service Quotas redirects, which is not followed"
    assert found == AppliedQuotas({}, None, reason)


# ----------------------------------------------------------------------------------------------
# Odd answers


@pytest.mark.parametrize(
    "said",
    [
        quota(0),
        quota(0.0),
        quota(-1),
        quota(None),
        quota("10"),
        quota([]),
        quota(value=True),
        quota(10**400),
        quota(Period={"PeriodValue": 1, "PeriodUnit": "MINUTE"}),
        answer(200, b'{"Quota": {"Value": 1e999}}'),
        answer(200, b'{"Quota": null}'),
        answer(200, b'{"Quota": {}}'),
        answer(200, b"{}"),
        answer(200, b""),
    ],
    ids=lambda said: said.raw.partition(b"\r\n\r\n")[2].decode()[-60:],
)
async def test_a_value_that_is_no_rate(said: Answer):
    """Only a finite number above 0, a second, is a rate; a quota of 0 would stop a run."""
    async with stub_service(by_question(said, quota(5), identity())) as stub:
        found = await for_plan(replace(CONFIG, endpoint_url=stub.url))
    assert found.rates_per_s == {"update_contact": 5.0}
    assert found.unread in {
        "Service Quotas says nothing usable",
        "what answers is not Service Quotas",  # JSON that holds what is no number is no JSON
    }


async def test_a_rate_that_says_its_period():
    """A quota for one second is the same as one that names no period."""
    said = quota(5, Period={"PeriodValue": 1, "PeriodUnit": "SECOND"})
    async with stub_service(said) as stub:
        found = await for_plan(replace(CONFIG, endpoint_url=stub.url))
    assert (set(found.rates_per_s.values()), found.unread) == ({5.0}, None)


HTML = b"<!DOCTYPE html><html><body>Please log in " + SECRET.encode() + b"</body></html>"
NOT_SERVICE_QUOTAS = "what answers is not Service Quotas"


@pytest.mark.parametrize(
    ("said", "unread"),
    [
        (answer(200, HTML), NOT_SERVICE_QUOTAS),
        (answer(200, b'{"Quota": {"Value": NaN}}'), NOT_SERVICE_QUOTAS),
        (answer(200, b'{"Quota": []}'), NOT_SERVICE_QUOTAS),
        (answer(200, b"[" * 100_000), NOT_SERVICE_QUOTAS),
        (Answer(b"220 mail ready\r\n\r\n", After.CLOSE), NOT_SERVICE_QUOTAS),
        (
            answer(403, HTML),
            "Service Quotas, or a proxy in between, refuses who asks (HTTP 403)",
        ),
        (answer(503, HTML), "Service Quotas, or a proxy in between, failed (HTTP 503)"),
        (
            failure(500, "x", __type="ServiceException"),
            "Service Quotas, or a proxy in between, failed (HTTP 500)",
        ),
        (answer(400, HTML), "Service Quotas refuses what it was asked (HTTP 400)"),
        (Answer(b"", After.RESET), "the connection to Service Quotas broke off"),
        (answer(200, b"{", length=9, after=After.CLOSE), "the connection to Service Quotas"),
        *(
            (answer(400, json.dumps({"__type": code, "message": SECRET}).encode()), unread)
            for code, unread in [
                ("AccessDeniedException", DENIED),
                ("com.amazonaws.servicequotas#AccessDeniedException", DENIED),
                ("NoSuchResourceException", "Service Quotas does not list the quota"),
                ("ExpiredTokenException", "the credentials have expired"),
                ("UnrecognizedClientException", "AWS does not know the credentials"),
                (
                    "OptInRequired",
                    "Service Quotas, or a proxy in between, refuses who asks (OptInRequired, HTTP",
                ),
                (
                    "TooManyRequestsException",
                    "Service Quotas asks to slow down (TooManyRequestsException, HTTP 400)",
                ),
                (
                    "NewException",
                    "Service Quotas refuses what it was asked (NewException, HTTP 400)",
                ),
                (f"no {SECRET}!", "Service Quotas refuses what it was asked (HTTP 400)"),
            ]
        ),
    ],
)
async def test_the_reason(said: Answer, unread: str):
    """Every way to say no has its clause, which holds nothing that the service wrote but a code."""
    async with stub_service(by_question(said, said, identity())) as stub:
        found = await for_plan(replace(CONFIG, endpoint_url=stub.url))
    assert (found.rates_per_s, found.account_id) == ({}, ACCOUNT)
    assert found.unread.startswith(unread)
    assert_well_worded(found.unread)
    assert stub.hits == 3  # one attempt for each question


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Quota", "Value", "QuotaArn", "Period", "__type", "code", "message"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=64)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | VALUES.map(lambda value: json.dumps({"Quota": {"Value": value}}).encode())
    | VALUES.map(lambda value: json.dumps({"Quota": {"QuotaArn": value, "Value": 1}}).encode())
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "x_amzn_ErrorType",
            "x_amzn_query_error",
            "Content_Type",
            "Retry_After",
            "Date",
            "Location",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
    max_size=3,
)
STATUSES = st.sampled_from([200, 201, 204, 206, 300, 302, 304, 400, 401, 403, 404, 407, 418])
ANSWERS = st.builds(
    lambda status, body, headers, after: answer(
        status, b"" if status in {204, 304} else body, after=after, **headers
    ),
    STATUSES | st.sampled_from([429, 500, 502, 503, 504]),
    BODIES,
    HEADERS,
    st.sampled_from([After.KEEP, After.CLOSE, After.RESET]),
) | st.builds(Answer, st.binary(max_size=64), st.sampled_from([After.CLOSE, After.RESET]))


async def test_rubbish():
    """Whatever is answered, it is a rate or a reason for each quota, and nothing is raised."""
    cases: list[tuple[Answer, Answer, Answer]] = []

    @settings(
        max_examples=120,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(ANSWERS, ANSWERS, ANSWERS))
    def collect(case: tuple[Answer, Answer, Answer]) -> None:
        cases.append(case)

    collect()
    current = by_question(*cases[0])

    def choose(received: Received) -> Answer:
        return current(received)

    async with stub_service(choose) as stub:
        config = replace(CONFIG, endpoint_url=stub.url, verify_ssl=False)  # for speed
        async with open_connect(config, max_in_flight=2) as connect:
            for case in cases:
                current = by_question(*case)
                found = await connect.read_quotas(OPERATIONS, timeout_s=60)
                assert (found.unread is None) == (len(found.rates_per_s) == 2)
                assert all(0 < rate < math.inf for rate in found.rates_per_s.values())
                assert found.account_id is None or re.fullmatch(r"\d{12}", found.account_id)
                assert_well_worded(found.unread)
    assert len(cases) >= 100
