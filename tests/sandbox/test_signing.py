"""Signature Version 4, judged by the SDK's own signer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from bulk_updater.sandbox import Sandbox

from .helpers import paws, paws_headers, sdk, send_raw

CALLER_IDENTITY = b"Action=GetCallerIdentity&Version=2011-06-15"
WRITE = {"InstanceId": "i", "InitialContactId": "c", "Attributes": {"a": "1"}}
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)


async def refusal(sandbox: Sandbox, **options) -> tuple[int, str, str]:
    async with sdk(sandbox, **options) as connect:
        with pytest.raises(connect.exceptions.ClientError) as caught:
            await connect.update_contact_attributes(**WRITE)
    response = caught.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return (
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Code"],
        response["Error"]["Message"],
    )


async def test_a_wrong_secret_is_refused(sandbox):
    """The right key with another secret is InvalidSignatureException, 403; nothing is stored."""
    answer = await refusal(sandbox, aws_secret_access_key="other")
    assert answer == (403, "InvalidSignatureException", MISMATCH)
    assert sandbox.state.instances == {}


async def test_an_unknown_key_is_refused(sandbox):
    """A key that nobody has is UnrecognizedClientException, 403."""
    answer = await refusal(sandbox, aws_access_key_id="AKIDOTHER")
    assert answer == (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )


async def test_an_unsigned_request_is_refused(sandbox):
    """`--no-sign-request` is MissingAuthenticationTokenException, 403."""
    answer = await refusal(sandbox, signature_version=UNSIGNED)
    assert answer == (403, "MissingAuthenticationTokenException", "Missing Authentication Token")


@pytest.mark.parametrize(
    ("skew_s", "message"),
    [
        (-310, "Signature not yet current: {signed} is still later than {edge} ({now} + 5 min.)"),
        (310, "Signature expired: {signed} is now earlier than {edge} ({now} - 5 min.)"),
    ],
)
async def test_a_clock_that_is_off_is_refused_with_the_three_times(config, skew_s, message):
    """More than five minutes early or late is InvalidSignatureException that tells the times."""
    at = datetime.now(UTC) + timedelta(seconds=skew_s)
    async with Sandbox(config, now=lambda: at) as sandbox:
        status, code, said = await refusal(sandbox)
    signed = said.split(": ")[1].split()[0]
    edge = at - timedelta(minutes=5) if skew_s > 0 else at + timedelta(minutes=5)
    form = "%Y%m%dT%H%M%SZ"
    assert (status, code) == (403, "InvalidSignatureException")
    assert said == message.format(signed=signed, edge=f"{edge:{form}}", now=f"{at:{form}}")


@pytest.mark.parametrize("skew_s", [-280, 280])
async def test_a_clock_that_is_a_little_off_is_accepted(config, skew_s):
    """Less than five minutes early or late does not matter; the answer's Date tells the skew."""
    at = datetime.now(UTC) + timedelta(seconds=skew_s)
    async with Sandbox(config, now=lambda: at) as sandbox, sdk(sandbox) as connect:
        answer = await connect.update_contact_attributes(**WRITE)
    dated = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    assert dated == f"{at:%a, %d %b %Y %H:%M:%S} GMT"


async def test_a_session_token_is_allowed(sandbox):
    """Temporary credentials work; the token is not looked at."""
    async with sdk(sandbox, aws_session_token="token/+==") as connect:
        await connect.update_contact_attributes(**WRITE)
    answer = await paws(sandbox, "GET", "/contacts/i/c", token="token/+==")
    assert answer.status == 200


async def test_any_region_is_good(sandbox):
    """The sandbox is in every region."""
    for region in ("us-east-1", "af-south-1", "us-gov-west-1"):
        async with sdk(sandbox, region_name=region) as connect:
            answer = await connect.describe_contact(InstanceId="i", ContactId="c")
            assert answer["Contact"]["Arn"].split(":")[3] == region


@pytest.mark.parametrize(
    ("path", "service"), [("/contacts/i/c", "servicequotas"), ("/contacts/i/c", "lambda")]
)
async def test_a_signature_for_another_service_is_refused(sandbox, path, service):
    """A signature is good for the service in its scope and no other."""
    answer = await paws(sandbox, "GET", path, service=service)
    assert (answer.status, answer.code) == (403, "InvalidSignatureException")
    assert answer.json["message"] == "Credential should be scoped to correct service: 'connect'."


async def test_sts_checks_signatures_too(sandbox):
    """An unknown key, a wrong secret and another service's signature are 403, said in XML."""
    for options, code in (
        ({"aws_access_key_id": "other"}, "UnrecognizedClientException"),
        ({"aws_secret_access_key": "other"}, "InvalidSignatureException"),
    ):
        async with sdk(sandbox, "sts", **options) as client:
            with pytest.raises(ClientError) as caught:
                await client.get_caller_identity()
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    answer = await paws(sandbox, "POST", "/", CALLER_IDENTITY, service="connect")
    assert (answer.status, answer.code) == (403, "InvalidSignatureException")
    assert b"scoped to correct service: &#x27;sts&#x27;." in answer.body
    assert sandbox.counters["get_caller_identity"].rejected == {
        "UnrecognizedClientException": 1,
        "InvalidSignatureException": 2,
    }


async def test_credentials_of_its_own_are_checked(config):
    """A sandbox with other credentials knows those and not the default pair."""
    from dataclasses import replace

    own = replace(config, access_key="AKIDME", secret_key="s/+=")
    async with Sandbox(own) as sandbox:
        assert (await refusal(sandbox))[1] == "UnrecognizedClientException"
        async with sdk(
            sandbox, aws_access_key_id="AKIDME", aws_secret_access_key="s/+="
        ) as connect:
            await connect.update_contact_attributes(**WRITE)
    assert "s/+=" not in repr(own)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Authorization": "Bearer x"}, "IncompleteSignatureException"),
        ({"Authorization": "AWS4-HMAC-SHA256"}, "IncompleteSignatureException"),
        (
            {"Authorization": "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=0"},
            "IncompleteSignatureException",
        ),
        ({"X-Amz-Date": "yesterday"}, "IncompleteSignatureException"),
        ({"X-Amz-Date": "20261399T000000Z"}, "IncompleteSignatureException"),
        ({"X-Amz-Date": ""}, "IncompleteSignatureException"),
        ({"X-Amz-Date": "20000101T000000Z"}, "InvalidSignatureException"),
        ({"Content-Type": "application/json"}, "InvalidSignatureException"),
        ({"Host": "connect.us-east-1.amazonaws.com"}, "InvalidSignatureException"),
    ],
)
async def test_a_request_that_was_changed_on_its_way_is_refused(sandbox, change, code):
    """Whatever the signature covers must be as it was signed, and its form must be complete."""
    body = b'{"Name":"n"}'
    headers = paws_headers(sandbox, "POST", "/contacts/i/c", body) | change
    answer = await send_raw(sandbox, "POST", "/contacts/i/c", headers, body)
    assert (answer.status, answer.code) == (403, code)
    assert sandbox.state.instances == {}


async def test_parts_of_the_authorization_must_fit_together(sandbox):
    """The scope's date, the host among the signed headers, the signature itself: all count."""
    headers = paws_headers(sandbox, "GET", "/contacts/i/c")
    day = headers["X-Amz-Date"][:8]
    broken = (
        ("not the day", headers["Authorization"].replace(f"/{day}/", "/20000101/")),
        ("no host", headers["Authorization"].replace(";host;", ";")),
        ("no region", headers["Authorization"].replace("/us-east-1/", "//")),
        ("odd signature", headers["Authorization"].replace("Signature=", "Signature=é")),
        ("odd end", headers["Authorization"].replace("/aws4_request", "/aws5_request")),
    )
    for what, authorization in broken:
        changed = headers | {"Authorization": authorization}
        answer = await send_raw(sandbox, "GET", "/contacts/i/c", changed)
        assert (answer.status, answer.code) == (403, "InvalidSignatureException"), what


async def test_another_body_path_or_query_is_refused(sandbox):
    """A signature is good for one body, one path and one query."""
    headers = paws_headers(sandbox, "POST", "/contacts/i/c", b'{"Name":"n"}')
    for path, body in (
        ("/contacts/i/c", b'{"Name":"m"}'),
        ("/contacts/i/d", b'{"Name":"n"}'),
        ("/contacts/i/c?x=1", b'{"Name":"n"}'),
    ):
        answer = await send_raw(sandbox, "POST", path, headers, body)
        assert (answer.status, answer.code) == (403, "InvalidSignatureException")
    assert (
        await send_raw(sandbox, "POST", "/contacts/i/c", headers, b'{"Name":"n"}')
    ).status == 200


async def test_headers_that_are_not_signed_may_change(sandbox):
    """A proxy may add headers of its own."""
    headers = paws_headers(sandbox, "GET", "/contacts/i/c") | {"Via": "1.1 proxy", "X-Odd": "ÿ"}
    assert (await send_raw(sandbox, "GET", "/contacts/i/c", headers)).status == 200


@pytest.mark.parametrize(
    "path",
    ["/contacts/i/c?b=2&a=1&a=0&empty", "/contacts/i/c?q=a%20b%2Fc&q=%C3%A9", "/contacts/i/c?"],
)
async def test_queries_are_signed_sorted(sandbox, path):
    """A query, which no operation here needs, is part of the signature in any order."""
    assert (await paws(sandbox, "GET", path)).status == 200


async def test_signatures_are_checked_before_the_bucket():
    """A request that is not signed costs no token."""
    from bulk_updater.sandbox import SandboxConfig

    async with Sandbox(SandboxConfig(latency_ms=0, burst=1, rate_per_s=0.001)) as sandbox:
        for _ in range(3):
            await refusal(sandbox, aws_secret_access_key="other")
        async with sdk(sandbox) as connect:
            await connect.update_contact_attributes(**WRITE)
    counters = sandbox.counters["update_contact_attributes"]
    assert counters.rejected == {"InvalidSignatureException": 3}
    assert (counters.received, counters.accepted, counters.throttled) == (4, 1, 0)
