"""The door to AWS: what counts as a success, what every failure becomes, what never gets out."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import socket
import ssl
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiobotocore.config import AioConfig
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import (
    CODES,
    EXCEPTIONS,
    FOREIGN,
    STATUSES,
    Receipt,
    open_connect,
    translate,
)
from bulk_updater.connect import opening as opening_module
from bulk_updater.errors import (
    AccessError,
    ConfigError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)
from bulk_updater.model import Request
from tests.stub_service import REQUEST_ID, After, Answer, answer, failure, stub_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from botocore.loaders import Loader

    from bulk_updater.connect import Connect

PLANTED = "Planted-Cell-7f3a"
CONFIG = ConnectionConfig(region="eu-west-2", access_key=("key", "secret"))
ATTRIBUTES = Request(
    row=1,
    source="crm.csv",
    operation="update_contact_attributes",
    instance_id="i-1",
    contact_id="c-1",
    params={"InstanceId": "i-1", "InitialContactId": "c-1", "Attributes": {"name": PLANTED}},
    payload_bytes=21,
)
CONTACT = replace(
    ATTRIBUTES,
    operation="update_contact",
    params={"InstanceId": "i-1", "ContactId": "c/1", "Name": PLANTED},
)


@asynccontextmanager
async def opened(url: str, **changes: Any) -> AsyncIterator[Connect]:
    config = replace(CONFIG, endpoint_url=url, **changes)
    async with open_connect(config, max_in_flight=4) as connect:
        yield connect


async def error_for(*answers: Answer, request: Request = ATTRIBUTES, **changes: Any) -> SendError:
    """What `send` raises, once it is sure that one attempt was made and nothing leaks."""
    async with stub_service(*answers) as stub, opened(stub.url, **changes) as connect:
        with pytest.raises(SendError) as caught:
            await connect.send(request)
    assert stub.hits == 1
    assert_tells_no_cell(caught.value)
    return caught.value


def assert_tells_no_cell(error: SendError) -> None:
    assert type(error) in {Throttled, TransientError, RequestRejected, AccessError}
    assert PLANTED not in repr(error.__dict__)
    assert PLANTED not in "".join(traceback.format_exception(error))
    revived = pickle.loads(pickle.dumps(error))
    assert (revived.message, revived.__dict__) == (error.message, error.__dict__)


# ----------------------------------------------------------------------------------------------
# Success


@pytest.mark.parametrize("body", [b"{}", b"", b"  \r\n", b'{"New": {"member": null}}'])
@pytest.mark.parametrize("status", [200, 204])
async def test_confirmed(status: int, body: bytes):
    """A 2xx answer that is blank or a JSON object and has a request id is a receipt."""
    said = answer(status, b"" if status == 204 else body)
    async with stub_service(said) as stub, opened(stub.url) as connect:
        assert await connect.send(ATTRIBUTES) == Receipt(REQUEST_ID, status)


async def test_what_is_sent():
    """Both operations arrive as documented, signed, with our name, and as they were given."""
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        await connect.send(ATTRIBUTES)
        await connect.send(CONTACT)
        assert (connect.region, connect.endpoint_url) == ("eu-west-2", stub.url)
    first, second = stub.requests
    assert (first.method, first.path, first.body) == (
        "POST",
        "/contact/attributes",
        dict(ATTRIBUTES.params),
    )
    assert (second.method, second.path, second.body) == (
        "POST",
        "/contacts/i-1/c%2F1",
        {"Name": PLANTED},
    )
    for received in stub.requests:
        assert "/eu-west-2/connect/aws4_request" in received.headers["authorization"]
        assert "bulk_updater/" in received.headers["user-agent"]


async def test_unsigned():
    """With --no-sign-request nothing is signed, and no credentials are needed."""
    async with (
        stub_service(answer()) as stub,
        opened(stub.url, sign_requests=False, access_key=None) as connect,
    ):
        await connect.send(ATTRIBUTES)
    assert "authorization" not in stub.requests[0].headers


async def test_in_flight_at_once():
    """Concurrent calls share the client; each gets its own receipt."""

    def by_contact(received: Any) -> Answer:
        return answer(request_id=received.body["InitialContactId"])

    requests = [
        replace(ATTRIBUTES, params={**ATTRIBUTES.params, "InitialContactId": f"c-{n}"})
        for n in range(20)
    ]
    async with stub_service(by_contact) as stub, opened(stub.url) as connect:
        receipts = await asyncio.gather(*map(connect.send, requests))
    assert [receipt.request_id for receipt in receipts] == [f"c-{n}" for n in range(20)]
    assert stub.hits == 20


# ----------------------------------------------------------------------------------------------
# Odd answers

HTML = b"<!DOCTYPE html><html><body>Please log in " + PLANTED.encode() + b"</body></html>"
ECHO = json.dumps({"message": PLANTED, "__type": "com.amazonaws.connect#NewException"}).encode()

ODD = [
    # Not an answer of Connect's, whatever the status says.
    ("200 without request id", answer(request_id=None), TransientError, "UnexpectedAnswer"),
    ("200 blank request id", answer(request_id=""), TransientError, "UnexpectedAnswer"),
    ("200 HTML", answer(200, HTML, request_id=None), TransientError, "UnexpectedAnswer"),
    ("200 HTML with request id", answer(200, HTML), TransientError, "UnexpectedAnswer"),
    ("200 null", answer(200, b"null"), TransientError, "UnexpectedAnswer"),
    ("200 list", answer(200, b"[]"), TransientError, "UnexpectedAnswer"),
    ("200 string", answer(200, b'"ok"'), TransientError, "UnexpectedAnswer"),
    ("200 half an object", answer(200, b'{"a": '), TransientError, "UnexpectedAnswer"),
    ("200 Latin-1", answer(200, b'{"a": "\xe9"}'), TransientError, "UnexpectedAnswer"),
    ("200 deep", answer(200, b"[" * 100_000), TransientError, "UnexpectedAnswer"),
    ("no HTTP", Answer(b"220 mail ready\r\n\r\n", After.CLOSE), TransientError, "UnexpectedAnswer"),
    ("300", answer(300, b"{}"), TransientError, "Redirected"),
    ("302 nowhere", answer(302, HTML), TransientError, "Redirected"),
    ("304", answer(304, b""), TransientError, "Redirected"),
    # Errors whose body is no help.
    ("403 HTML", answer(403, HTML), AccessError, "403"),
    ("401 blank", answer(401, b""), AccessError, "401"),
    ("407 HTML", answer(407, HTML), AccessError, "407"),
    ("404 HTML", answer(404, HTML), RequestRejected, "404"),
    ("400 null", answer(400, b"null"), RequestRejected, "400"),
    ("400 list", answer(400, b"[]"), RequestRejected, "400"),
    ("400 number", answer(400, b"7"), RequestRejected, "400"),
    ("400 Latin-1", answer(400, b'{"message": "caf\xe9"}'), RequestRejected, "400"),
    ("400 half", answer(400, b'{"__type": "Thrott'), RequestRejected, "400"),
    ("400 type is a number", answer(400, b'{"__type": 5}'), RequestRejected, "400"),
    ("400 code is a list", answer(400, b'{"code": []}'), RequestRejected, "400"),
    (
        "400 code is an echo",
        answer(400, b'{"code": "no %s!"}' % PLANTED.encode()),
        RequestRejected,
        "400",
    ),
    ("400 unknown code", answer(400, ECHO), RequestRejected, "NewException"),
    ("418", answer(418, HTML), RequestRejected, "418"),
    ("501", answer(501, HTML), RequestRejected, "501"),
    ("408 blank", answer(408, b""), TransientError, "408"),
    ("409 blank", answer(409, b""), TransientError, "409"),
    ("413 HTML", answer(413, HTML), RequestRejected, "413"),
    ("500 blank", answer(500, b""), TransientError, "500"),
    ("502 HTML", answer(502, HTML), TransientError, "502"),
    ("503 HTML", answer(503, HTML), TransientError, "503"),
    ("504 not UTF-8", answer(504, b"\xff\xfe\x00"), TransientError, "504"),
    ("503 unknown code", answer(503, ECHO), TransientError, "NewException"),
    (
        "503 HTML with code",
        answer(503, HTML, x_amzn_ErrorType="InternalFailure"),
        TransientError,
        "InternalFailure",
    ),
    (
        "500 blank, throttling",
        answer(500, b"", x_amzn_ErrorType="ThrottlingException"),
        Throttled,
        "ThrottlingException",
    ),
    # Every shape of throttling.
    (
        "429 attributes",
        failure(429, "TooManyRequestsException"),
        Throttled,
        "TooManyRequestsException",
    ),
    ("429 contact", failure(429, "ThrottlingException"), Throttled, "ThrottlingException"),
    ("429 limit", failure(429, "LimitExceededException"), Throttled, "LimitExceededException"),
    (
        "429 code with URI",
        failure(429, "ThrottlingException:http://internal.amazon.com/coral/"),
        Throttled,
        "ThrottlingException",
    ),
    ("429 unknown code", failure(429, "NewException"), Throttled, "NewException"),
    (
        "429 another's code",
        failure(429, "AccessDeniedException"),
        Throttled,
        "AccessDeniedException",
    ),
    ("429 gateway", answer(429, b'{"message":"Too Many Requests"}'), Throttled, "429"),
    ("429 HTML", answer(429, HTML), Throttled, "429"),
    ("429 blank", answer(429, b""), Throttled, "429"),
    ("429 null", answer(429, b"null"), Throttled, "429"),
    (
        "400 throttling",
        answer(400, b'{"__type":"com.amazon.coral#ThrottlingException"}'),
        Throttled,
        "ThrottlingException",
    ),
    # Answers that do not end, or do not begin.
    ("closed at once", Answer(b"", After.CLOSE), TransientError, "ConnectionClosedError"),
    ("reset at once", Answer(b"", After.RESET), TransientError, "ConnectionClosedError"),
    (
        "half a header",
        Answer(b"HTTP/1.1 200 OK\r\nx-amzn-", After.CLOSE),
        TransientError,
        "ConnectionClosedError",
    ),
    (
        "half a body",
        answer(200, b'{"a"', length=99, after=After.CLOSE),
        TransientError,
        "ConnectionClosedError",
    ),
    (
        "reset in the body",
        answer(200, b'{"a"', length=99, after=After.RESET),
        TransientError,
        "ConnectionClosedError",
    ),
    (
        "half an error",
        answer(403, b'{"a"', length=99, after=After.CLOSE),
        TransientError,
        "ConnectionClosedError",
    ),
]


@pytest.mark.parametrize(
    ("said", "kind", "code"), [row[1:] for row in ODD], ids=[row[0] for row in ODD]
)
async def test_odd_answer(said: Answer, kind: type[SendError], code: str):
    """An odd answer is never a success and never a foreign exception; it is told by code alone."""
    error = await error_for(said)
    assert (type(error), error.code) == (kind, code)
    assert "\n" not in error.message


@pytest.mark.parametrize("said", [answer(400, b"[]"), answer(200, HTML), failure(429, "Slow Down")])
async def test_odd_answer_to_the_other_operation(said: Answer):
    """UpdateContact, whose contact id is in the path, is judged the same."""
    error = await error_for(said, request=CONTACT)
    assert error.code in {"400", "UnexpectedAnswer", "429"}


async def test_error_attributes():
    """An error carries the service's code, status and request id, and none of its text."""
    error = await error_for(failure(404, "ResourceNotFoundException", f"no contact {PLANTED}"))
    assert type(error) is RequestRejected
    assert error.code == "ResourceNotFoundException"
    assert (error.http_status, error.request_id) == (404, REQUEST_ID)
    assert error.retry_after_s is None
    assert error.message.endswith("(ResourceNotFoundException, HTTP 404).")


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"x-amz-retry-after": "1500"}, 1.5),
        ({"x-amz-retry-after": "1500", "retry-after": "7"}, 1.5),
        ({"x-amz-retry-after": "soon", "retry-after": "7"}, 7.0),
        (
            {
                "retry-after": "Sun, 01 Mar 2026 08:00:30 GMT",
                "date": "Sun, 01 Mar 2026 08:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Sun, 01 Mar 2026 08:00:30 -0000",
                "date": "Sun, 01 Mar 2026 08:00:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "Sun, 01 Mar 2020 08:00:30 GMT"}, 0.0),
        *(
            ({"retry-after": odd}, None)
            for odd in ("", "-5", "inf", "nan", "1e9", "9" * 30, "soon")
        ),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(headers: dict[str, str], expected_s: float | None, status: int):
    """Seconds, milliseconds and dates by the service's clock are understood; others are not."""
    assert answered("", status, **headers).retry_after_s == expected_s


async def test_retry_after_survives():
    """What an answer asks to wait is heard even where its body is a web page."""
    error = await error_for(answer(503, HTML, Retry_After="7"))
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int):
    """What a contact's row says is not sent on to where a redirect points."""
    async with stub_service(answer()) as target:
        error = await error_for(answer(status, b"", Location=f"{target.url}/elsewhere"))
    assert target.hits == 0
    assert (type(error), error.code, error.http_status) == (TransientError, "Redirected", status)


@pytest.mark.looptime
async def test_read_timeout():
    """No answer within the read timeout is transient, and its time is the one that was set."""
    clock = asyncio.get_running_loop().time
    async with stub_service(Answer(b"", After.HANG)) as stub, opened(stub.url) as connect:
        began_s = clock()
        with pytest.raises(TransientError) as caught:
            await connect.send(ATTRIBUTES)
        assert 60.0 <= clock() - began_s < 60.1
    assert caught.value.code == "ReadTimeoutError"
    assert_tells_no_cell(caught.value)


@pytest.mark.looptime
@pytest.mark.parametrize("no_limit", [None, 0.0])
async def test_no_read_timeout(no_limit: float | None):
    """None and 0 both mean to wait for ever, as for the AWS CLI."""
    async with (
        stub_service(Answer(b"", After.HANG)) as stub,
        opened(stub.url, read_timeout_s=no_limit, connect_timeout_s=no_limit) as connect,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect.send(ATTRIBUTES), 100_000)
    assert stub.hits == 1


async def test_refused_port():
    """Nobody listening is transient, says so, and is told apart from a connection that broke."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        async with opened(f"http://127.0.0.1:{reserved.getsockname()[1]}") as connect:
            with pytest.raises(TransientError) as caught:
                await connect.send(ATTRIBUTES)
    assert caught.value.code == "EndpointConnectionError"
    assert "Connection refused" in caught.value.message
    assert_tells_no_cell(caught.value)


async def test_no_tls():
    """A connection that cannot be made safe stops the run: no row fares better."""

    async def converse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"https://127.0.0.1:{port}") as connect:
            with pytest.raises(AccessError) as caught:
                await connect.send(ATTRIBUTES)
    assert caught.value.code == "SSLError"
    assert_tells_no_cell(caught.value)


async def test_cancelled():
    """A cancellation passes as it is; it is no result."""
    async with stub_service(Answer(b"", After.HANG)) as stub, opened(stub.url) as connect:
        task = asyncio.create_task(connect.send(ATTRIBUTES))
        await stub.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ----------------------------------------------------------------------------------------------
# What never leaves


@pytest.mark.parametrize(
    "request_",
    [
        replace(ATTRIBUTES, params={**ATTRIBUTES.params, "Attributes": {"name": [PLANTED]}}),
        replace(ATTRIBUTES, params={**ATTRIBUTES.params, PLANTED: "x"}),
        replace(ATTRIBUTES, params={**ATTRIBUTES.params, "InitialContactId": ""}),
        replace(CONTACT, params={**CONTACT.params, "ContactId": f"{PLANTED}\ud800"}),
    ],
    ids=["type", "member", "empty id", "lone surrogate in the path"],
)
async def test_unsendable(request_: Request):
    """What botocore refuses fails the row, is not sent, and is not quoted."""
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        with pytest.raises(RequestRejected) as caught:
            await connect.send(request_)
    assert stub.hits == 0
    assert (caught.value.code, caught.value.http_status) == ("ParamValidationError", None)
    assert_tells_no_cell(caught.value)


async def test_unknown_operation():
    """An operation that this botocore does not know stops the run before anything is sent."""
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        with pytest.raises(AccessError) as caught:
            await connect.send(replace(ATTRIBUTES, operation="close"))
    assert (stub.hits, caught.value.code) == (0, "UnknownOperationException")


# ----------------------------------------------------------------------------------------------
# The tables


def words(text: str) -> list[str]:
    return text.split()


# AWS's documentation and botocore's throttling codes, by heart and not from the table under test.
THROTTLING = words(
    """
    Throttling ThrottlingException ThrottledException RequestThrottledException
    TooManyRequestsException ProvisionedThroughputExceededException TransactionInProgressException
    RequestLimitExceeded BandwidthLimitExceeded LimitExceededException RequestThrottled SlowDown
    PriorRequestNotComplete EC2ThrottledException
    """
)
TRANSIENT = words(
    """
    InternalServiceException InternalFailure ServiceUnavailable RequestTimeout
    RequestTimeoutException RequestAborted ConflictException UnexpectedAnswer Redirected
    """
)
REJECTED = words(
    """
    InvalidRequestException InvalidParameterException ValidationError ResourceNotFoundException
    ServiceQuotaExceededException RequestEntityTooLarge RequestEntityTooLargeException
    """
)
ACCESS = words(
    """
    ExpiredTokenException ExpiredToken UnrecognizedClientException InvalidClientTokenId
    InvalidSignatureException SignatureDoesNotMatch IncompleteSignature
    IncompleteSignatureException MissingAuthenticationToken MissingAuthenticationTokenException
    RequestExpired RequestTimeTooSkewed OptInRequired NotAuthorized UnknownOperationException
    InvalidActiveRegionException AccessDenied AccessDeniedException
    """
)
BY_KIND = {
    **dict.fromkeys(THROTTLING, Throttled),
    **dict.fromkeys(TRANSIENT, TransientError),
    **dict.fromkeys(REJECTED, RequestRejected),
    **dict.fromkeys(ACCESS, AccessError),
}


def answered(code: str, status: int, operation: str = "UpdateContact", **headers: str) -> SendError:
    response = {
        "Error": {"Code": code, "Message": PLANTED},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    error = translate(boto.ClientError(response, operation), "UpdateContact")
    assert_tells_no_cell(error)
    return error


@pytest.mark.parametrize("code", BY_KIND)
@pytest.mark.parametrize("status", [400, 403])
def test_code(code: str, status: int):
    """Every documented code has its kind, whatever status it comes with."""
    error = answered(code, status)
    assert (type(error), error.code, error.http_status) == (BY_KIND[code], code, status)


@pytest.mark.parametrize("code", BY_KIND)
def test_429_is_throttling(code: str):
    """Status 429 is throttling, whatever the code says."""
    assert type(answered(code, 429)) is Throttled


def test_table_is_complete():
    """The table holds the documented codes and no other; each says what is wrong in one line."""
    assert set(CODES) == set(BY_KIND)
    for meaning in [*CODES.values(), *STATUSES.values(), *EXCEPTIONS.values()]:
        assert meaning.sentence
        assert "\n" not in meaning.sentence
        assert not meaning.sentence.endswith(".")


@pytest.mark.parametrize("operation", ["UpdateContactAttributes", "UpdateContact"])
def test_modelled_errors(operation: str, loader: Loader):
    """Every error that Connect's own model lists for our operations has an entry of its own."""
    model = loader.load_service_model("connect", "service-2")
    modelled = [shape["shape"] for shape in model["operations"][operation]["errors"]]
    assert len(modelled) >= 4
    assert set(modelled) <= set(CODES)


# botocore's errors that no request to Connect can raise: other services' and tools' of botocore
# that are not used here. A class that is new in botocore is in neither list and fails the test.
ELSEWHERE = words(
    """
    BotoCoreError UnknownServiceStyle PaginationError OperationNotPageableError ChecksumError
    UnseekableStreamError WaiterError InvalidExpressionError WaiterConfigError
    UnknownClientMethodError InvalidDNSNameError InvalidS3AddressingStyleError UnsupportedS3ArnError
    UnsupportedS3ControlArnError InvalidHostLabelError UnsupportedOutpostResourceError
    UnsupportedS3ConfigurationError UnsupportedS3AccesspointConfigurationError
    InvalidEndpointDiscoveryConfigurationError UnsupportedS3ControlConfigurationError
    InvalidS3UsEast1RegionalEndpointConfigError StubResponseError StubAssertionError
    UnStubbedResponseError MD5UnavailableError AwsChunkedWrapperError FlexibleChecksumError
    UndefinedModelAttributeError MissingServiceIdError
    """
)


def botocore_errors() -> list[type[Exception]]:
    return [
        found
        for found in vars(boto).values()
        if inspect.isclass(found)
        and issubclass(found, Exception)
        and not issubclass(found, Warning)
        and found.__module__ == boto.__name__
    ]


def test_every_botocore_error_is_decided():
    """Each class in botocore.exceptions has a meaning, or stands on the list of others."""
    undecided = []
    for found in botocore_errors():
        nearest = next((base for base in found.__mro__ if base in EXCEPTIONS), None)
        decided = nearest not in {None, boto.BotoCoreError} or issubclass(found, boto.ClientError)
        if decided == (found.__name__ in ELSEWHERE):
            undecided.append(found.__name__)
    assert undecided == []


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (boto.NoCredentialsError(), AccessError, "NoCredentialsError"),
        (
            boto.PartialCredentialsError(provider="x", cred_var="y"),
            AccessError,
            "PartialCredentialsError",
        ),
        (
            boto.CredentialRetrievalError(provider="x", error_msg=PLANTED),
            AccessError,
            "CredentialRetrievalError",
        ),
        (
            boto.TokenRetrievalError(provider="x", error_msg=PLANTED),
            AccessError,
            "TokenRetrievalError",
        ),
        (boto.UnauthorizedSSOTokenError(), AccessError, "UnauthorizedSSOTokenError"),
        (boto.MetadataRetrievalError(error_msg=PLANTED), AccessError, "MetadataRetrievalError"),
        (boto.NoRegionError(), AccessError, "NoRegionError"),
        (boto.SSLError(endpoint_url="x", error=PLANTED), AccessError, "SSLError"),
        (boto.ProxyConnectionError(proxy_url=PLANTED), AccessError, "ProxyConnectionError"),
        (
            boto.EndpointConnectionError(endpoint_url=PLANTED),
            TransientError,
            "EndpointConnectionError",
        ),
        (boto.ConnectTimeoutError(endpoint_url=PLANTED), TransientError, "ConnectTimeoutError"),
        (boto.ReadTimeoutError(endpoint_url=PLANTED), TransientError, "ReadTimeoutError"),
        (boto.ConnectionClosedError(endpoint_url=PLANTED), TransientError, "ConnectionClosedError"),
        (boto.HTTPClientError(error=PLANTED), TransientError, "HTTPClientError"),
        (boto.ParamValidationError(report=PLANTED), RequestRejected, "ParamValidationError"),
        (
            boto.ChecksumError(checksum_type="x", expected_checksum="y", actual_checksum="z"),
            RequestRejected,
            "ChecksumError",
        ),
        (ResponseParserError(PLANTED), TransientError, "UnexpectedAnswer"),
        (ValueError(PLANTED), TransientError, "UnexpectedAnswer"),
        (KeyError(PLANTED), TransientError, "UnexpectedAnswer"),
        (AttributeError(PLANTED), TransientError, "UnexpectedAnswer"),
        (TypeError(PLANTED), TransientError, "UnexpectedAnswer"),
        (
            UnicodeDecodeError("utf-8", PLANTED.encode(), 0, 1, "x"),
            TransientError,
            "UnexpectedAnswer",
        ),
        (UnicodeEncodeError("utf-8", PLANTED, 0, 1, "x"), RequestRejected, "ParamValidationError"),
        (ConnectionResetError(PLANTED), TransientError, "ConnectionClosedError"),
        (TimeoutError(PLANTED), TransientError, "ReadTimeoutError"),
        (ssl.SSLError(PLANTED), AccessError, "SSLError"),
        (aiohttp.ClientPayloadError(PLANTED), TransientError, "ConnectionClosedError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_exception(error: Exception, kind: type[SendError], code: str):
    """Every foreign exception becomes one of ours, and nothing of its text survives."""
    assert isinstance(error, FOREIGN)
    translated = translate(error, "UpdateContact")
    assert (type(translated), translated.code) == (kind, code)
    assert translated.http_status is None
    assert_tells_no_cell(translated)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDenied", 403, AccessError),
        ("ValidationError", 400, AccessError),
        ("ResourceNotFoundException", 404, AccessError),
        ("InternalFailure", 500, TransientError),
        ("Throttling", 400, TransientError),
        ("TooManyRequestsException", 429, TransientError),
    ],
)
def test_borrowed_credentials(code: str, status: int, kind: type[SendError]):
    """When the service that lends credentials refuses, that is not about this row."""
    error = answered(code, status, operation="AssumeRole")
    passing = kind is TransientError
    expected = "CredentialsUnavailable" if passing else "CredentialRetrievalError"
    assert (type(error), error.code) == (kind, expected)


def test_every_kind_is_known():
    """The table speaks of all four kinds of SendError and of no other."""
    assert {meaning.kind for meaning in CODES.values()} == set(SendError.__subclasses__())


# ----------------------------------------------------------------------------------------------
# Opening


async def refusal(config: ConnectionConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_connect(config, max_in_flight=1):
            pytest.fail("it opened")
    return caught.value.message


async def test_no_region():
    """Without a region it says where one can be named."""
    message = await refusal(ConnectionConfig())
    assert all(word in message for word in ("--region", "AWS_REGION", "AWS_DEFAULT_REGION"))


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-1"),
        ({}, "ap-southeast-2"),
    ],
)
async def test_region_precedence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], region: str
):
    """AWS_REGION, then AWS_DEFAULT_REGION, then the profile, as for the AWS CLI."""
    (tmp_path / "config").write_text("[profile crm]\nregion = ap-southeast-2\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = ConnectionConfig(profile="crm", access_key=("key", "secret"))
    async with open_connect(config, max_in_flight=1) as connect:
        assert connect.region == region
        assert connect.endpoint_url == f"https://connect.{region}.amazonaws.com"


async def test_no_such_region():
    """A region that cannot be one is refused."""
    assert "--region" in await refusal(replace(CONFIG, region="not a region"))


async def test_no_such_profile():
    """A profile that does not exist is named."""
    message = await refusal(ConnectionConfig(region="eu-west-2", profile="crm-prod"))
    assert "'crm-prod'" in message
    assert "--profile" in message


async def test_no_credentials():
    """Missing credentials are noticed before a row is read, not at the first request."""
    message = await refusal(ConnectionConfig(region="eu-west-2"))
    assert all(word in message for word in ("AWS_ACCESS_KEY_ID", "--profile", "--no-sign-request"))


async def test_half_of_the_credentials(monkeypatch: pytest.MonkeyPatch):
    """A key without its secret is not a key."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert "AWS_SECRET_ACCESS_KEY" in await refusal(ConnectionConfig(region="eu-west-2"))


async def test_credentials_that_cannot_be_borrowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Credentials from elsewhere are fetched at the start; a lapsed login is noticed then."""
    (tmp_path / "config").write_text(
        "[profile crm]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    refused = answer(
        403,
        b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        b"</ErrorResponse>",
    )
    async with stub_service(refused) as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)
        message = await refusal(ConnectionConfig(region="eu-west-2", profile="crm"))
    assert stub.hits == 1
    assert "AccessDenied" in message
    assert "aws sso login" in message


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "127.0.0.1",
        "http://",
        "ftp://x",
        "http://x:port",
        "http://[::1",
        "http://a b",
        "",
    ],
)
async def test_malformed_endpoint_url(url: str):
    """An endpoint without a scheme, or no URL at all, is refused with an example."""
    message = await refusal(replace(CONFIG, endpoint_url=url))
    assert message.startswith(f"--endpoint-url is {url!r}")
    assert "http://127.0.0.1:8080" in message


async def test_malformed_endpoint_url_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    """The environment's endpoint is checked as well, and named."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:8080")
    assert "AWS_ENDPOINT_URL" in await refusal(CONFIG)


async def test_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    """The endpoint that is shown is the one that requests go to."""
    async with stub_service(answer()) as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CONNECT", stub.url)
        async with open_connect(CONFIG, max_in_flight=1) as connect:
            assert connect.endpoint_url == stub.url
            await connect.send(ATTRIBUTES)
    assert stub.hits == 1


@pytest.mark.parametrize("by", ["flag", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
async def test_ca_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str):
    """A CA bundle that is not there, or holds no certificate, is refused if it is needed."""
    config = CONFIG
    for name, fault in (("missing.pem", "No such file"), ("empty.pem", "no certificate")):
        path = tmp_path / name
        if "empty" in name:
            path.write_text("none")
        if by == "flag":
            config = replace(CONFIG, ca_bundle=str(path))
        else:
            monkeypatch.setenv(by, str(path))
        message = await refusal(config)
        assert str(path) in message
        assert fault in message
        assert "--ca-bundle" in message
    async with open_connect(replace(config, verify_ssl=False), max_in_flight=1):
        pass


async def test_redirects_are_followed_by_nobody(monkeypatch: pytest.MonkeyPatch):
    """Where aiobotocore drops our HTTP session, as its `merge` does, nothing is opened at all."""
    monkeypatch.setattr(opening_module, "client_config", lambda *_: AioConfig(read_timeout=1))
    monkeypatch.setattr(opening_module._StraightConfig, "merge", AioConfig.merge)
    assert "redirects" in await refusal(CONFIG)


async def test_settings_arrive():
    """What botocore was told has reached the client: one attempt, our timeouts, our connections."""
    config = replace(CONFIG, connect_timeout_s=3.0, read_timeout_s=0.0)
    async with open_connect(config, max_in_flight=7) as connect:
        settings = connect._client.meta.config
        assert settings.retries == {"mode": "standard", "total_max_attempts": 1}
        assert (settings.connect_timeout, settings.read_timeout) == (3.0, None)
        assert settings.max_pool_connections == 7
        session = connect._client._endpoint.http_session
        with session._open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ())) as made:
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_loop_goes_on_while_it_opens():
    """Opening reads a large model in a thread; the loop is never held for a tenth of a second."""
    clock = asyncio.get_running_loop().time
    gaps_s = []

    async def tick() -> None:
        while True:
            began_s = clock()
            await asyncio.sleep(0.001)
            gaps_s.append(clock() - began_s)

    ticking = asyncio.create_task(tick())
    async with open_connect(CONFIG, max_in_flight=1):
        ticking.cancel()
    assert len(gaps_s) > 5
