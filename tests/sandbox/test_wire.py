"""Raw requests: R's paws, broken clients, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.sandbox.faults import Fault

from .helpers import paws, paws_headers, send_raw

ATTRIBUTES = {"InstanceId": "i", "InitialContactId": "c", "Attributes": {"a": "é🦉"}}


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog):
    """A request that the server could not handle shows in aiohttp's log alone."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_paws_can_write_and_read(sandbox):
    """Raw UTF-8, sorted keys, JSON 1.1 as content type, no payload hash: as R's paws sends it."""
    body = json.dumps(ATTRIBUTES, ensure_ascii=False, sort_keys=True).encode()
    answer = await paws(sandbox, "POST", "/contact/attributes", body)
    assert (answer.status, answer.json) == (200, {})
    assert answer.headers["x-amzn-requestid"]
    assert answer.headers["content-type"] == "application/json"
    # A GET of paws carries a length of 0 and a content type.
    answer = await paws(sandbox, "GET", "/contact/attributes/i/c")
    assert answer.json == {"Attributes": {"a": "é🦉"}}


async def test_paws_without_a_member_to_update_gets_a_modelled_error(sandbox):
    """`Content-Length: 0`, unsigned, and no body at all: a 400 with its text under both keys."""
    answer = await paws(sandbox, "POST", "/contacts/i/c", length_signed=False)
    assert (answer.status, answer.code) == (400, "InvalidRequestException")
    message = "At least one field to be updated must be present in the request."
    assert answer.json == {"message": message, "Message": message}
    assert answer.headers["x-amzn-requestid"]


async def test_paws_without_attributes_gets_a_modelled_error(sandbox):
    """An empty list of attributes drops the member, which is then missing."""
    answer = await paws(
        sandbox, "POST", "/contact/attributes", b'{"InitialContactId":"c","InstanceId":"i"}'
    )
    assert (answer.status, answer.code) == (400, "InvalidRequestException")
    assert answer.json["message"] == "The required member Attributes is missing."


async def test_paws_ids_are_encoded_once_in_the_path_and_twice_in_the_signature(sandbox):
    """`a/b c:d é` in a path arrives as one id."""
    path = "/contacts/i/a%2Fb%20c%3Ad%20%C3%A9"
    answer = await paws(sandbox, "POST", path, b'{"Name":"n"}')
    assert answer.status == 200
    assert list(sandbox.state.instances["i"]) == ["a/b c:d é"]


async def test_service_quotas_name_the_code_in_the_body(sandbox):
    """JSON 1.1 errors carry `__type`, and both spellings of the message."""
    headers = {"X-Amz-Target": "ServiceQuotasV20190624.GetServiceQuota"}
    answer = await paws(sandbox, "POST", "/", b"{}", service="servicequotas", headers=headers)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"
    assert answer.json["__type"] == answer.code == "IllegalArgumentException"
    assert answer.json["message"] == answer.json["Message"]


@pytest.mark.parametrize(
    "body",
    [
        b"Action=GetCallerIdentity&Version=2011-06-15",
        b"Version=2011-06-15&Action=GetCallerIdentity&Other=%FF",
    ],
)
async def test_sts_is_asked_with_a_form(sandbox, body):
    """A form whose members say so is GetCallerIdentity, whatever the content type says."""
    answer = await paws(sandbox, "POST", "/", body, service="sts")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/xml")
    assert b"<Account>123456789012</Account>" in answer.body
    request_id = answer.headers["x-amzn-requestid"]
    assert f"<RequestId>{request_id}</RequestId>".encode() in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Action=GetCallerIdentity",
        b"Action=GetCallerIdentity&Version=2010-01-01",
        b"Action=GetSessionToken&Version=2011-06-15",
        b"\xff\x00=&&=%zz",
        b"&" * 100_000,
    ],
    ids=lambda body: f"{body[:60]!r}",
)
async def test_no_other_form_is_known(sandbox, body):
    """Anything else that is posted to the root is UnknownOperationException."""
    answer = await paws(sandbox, "POST", "/", body, service="sts")
    assert (answer.status, answer.code) == (404, "UnknownOperationException")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"<html>",
        b"\xff\xfe{}",
        b'{"InstanceId":"\xff"}',
        b'{"Attributes":{"a":NaN},"InitialContactId":"c","InstanceId":"i"}',
        b'{"Attributes":{"a":-Infinity},"InitialContactId":"c","InstanceId":"i"}',
        b'{"Attributes":{"a":' + b"9" * 10_000 + b'},"InitialContactId":"c","InstanceId":"i"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"InstanceId":"i","InitialContactId":"c","Attributes":{},"x":'
        + b"[" * 70
        + b"]" * 70
        + b"}",
    ],
    ids=lambda body: f"{body[:20]!r} of {len(body)}",
)
async def test_a_body_that_is_no_request_is_refused(sandbox, body):
    """Whatever the body is, the answer is a modelled 400, and the next request is served."""
    answer = await paws(sandbox, "POST", "/contact/attributes", body)
    assert (answer.status, answer.code) == (400, "InvalidRequestException")
    answer = await paws(sandbox, "POST", "/contact/attributes", json.dumps(ATTRIBUTES).encode())
    assert answer.status == 200


async def test_of_two_equal_keys_the_last_one_counts(sandbox):
    """Duplicate names, which R allows, are no error."""
    body = b'{"Attributes":{"a":"1","a":"2"},"InitialContactId":"c","InstanceId":"i"}'
    assert (await paws(sandbox, "POST", "/contact/attributes", body)).status == 200
    assert sandbox.state.contact("i", "c").attributes == {"a": "2"}


async def test_ids_of_the_body_do_not_move_a_request(sandbox):
    """The ids of UpdateContact are those of its path, whatever the body says."""
    body = b'{"Name":"n","ContactId":"other","InstanceId":"other"}'
    assert (await paws(sandbox, "POST", "/contacts/i/c", body)).status == 200
    assert {i: list(c) for i, c in sandbox.state.instances.items()} == {"i": ["c"]}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/contacts/i/%FF", "InvalidRequestException"),
        ("/contacts//c", "InvalidParameterException"),
        ("/contacts/i/", "InvalidParameterException"),
    ],
)
async def test_a_path_without_proper_ids_is_refused(sandbox, path, code):
    """An id that is empty or not UTF-8 is a modelled 400."""
    answer = await paws(sandbox, "POST", path, b'{"Name":"n"}')
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/"),
        ("PUT", "/contacts/i/c"),
        ("POST", "/contact/attributes/"),
        ("GET", "/contacts/i/c/d"),
        ("POST", "/_sandbox/state"),
        ("GET", "/_sandbox/other"),
    ],
)
async def test_what_is_no_operation_is_not_found(sandbox, method, path):
    """Another method or path is UnknownOperationException, 404, with a request id."""
    answer = await paws(sandbox, method, path)
    assert (answer.status, answer.code) == (404, "UnknownOperationException")
    assert answer.headers["x-amzn-requestid"]


async def test_a_body_beyond_all_limits_is_too_large(sandbox):
    """More than a mebibyte is refused with 413 before anything is done with it."""
    answer = await paws(sandbox, "POST", "/contact/attributes", b" " * (1024**2 + 1))
    assert (answer.status, answer.code) == (413, "RequestEntityTooLarge")


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(sandbox):
    """libcurl's `Expect: 100-continue` is answered at once."""
    body = b'{"Name":"n"}'
    headers = paws_headers(sandbox, "POST", "/contacts/i/c", body) | {"Expect": "100-continue"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.write(f"POST /contacts/i/c HTTP/1.1\r\n{head}\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_request_does_no_harm(sandbox):
    """A connection that ends within the body is no request, and the next one is served."""
    for n_bytes in (0, 5):
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(b"POST /contacts/i/c HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n")
        writer.write(b"x" * n_bytes)
        await writer.drain()
        await asyncio.sleep(0)
        writer.write_eof()
        await reader.read()
        writer.close()
    assert (await paws(sandbox, "POST", "/contacts/i/c", b'{"Name":"n"}')).status == 200
    assert sandbox.counters["update_contact"].received == 1


async def test_a_chunked_body_that_is_broken_does_no_harm(sandbox):
    """A body that breaks HTTP's own form ends its connection, not the sandbox."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.write(
        b"POST /contacts/i/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    assert not (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert (await paws(sandbox, "POST", "/contacts/i/c", b'{"Name":"n"}')).status == 200


@pytest.mark.looptime
async def test_a_client_that_leaves_while_it_waits_does_no_harm():
    """The answer finds nobody; the write is there, and so is the sandbox."""
    config = SandboxConfig(latency_ms=1000, latency_jitter=0)
    async with Sandbox(config) as sandbox:
        headers = paws_headers(sandbox, "POST", "/contacts/i/c", b'{"Name":"n"}')
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                send_raw(sandbox, "POST", "/contacts/i/c", headers, b'{"Name":"n"}'), 0.5
            )
        await asyncio.sleep(1)
        assert sandbox.state.contact("i", "c").name == "n"
        assert (await paws(sandbox, "GET", "/contacts/i/c")).status == 200


@pytest.mark.looptime
async def test_closing_does_not_wait_for_slow_requests():
    """Twenty requests that would take an hour are cut off at once, and are not applied."""
    loop = asyncio.get_running_loop()
    slow = Fault(kind="slow", delay_s=3600)
    config = SandboxConfig(latency_ms=0, burst=20)
    async with Sandbox(config, fault=lambda *_: slow) as sandbox:
        waiting = [
            asyncio.create_task(paws(sandbox, "POST", "/contacts/i/c", b'{"Name":"n"}'))
            for _ in range(20)
        ]
        await asyncio.sleep(1)
        assert sandbox.counters["update_contact"].in_flight == 20
        start_s = loop.time()
    assert loop.time() - start_s < 1.0
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(each, ConnectionError) for each in ended] == [True] * 20
    assert sandbox.state.instances == {}
    assert sandbox.counters["update_contact"].in_flight == 0


async def test_it_listens_on_this_machine_alone_and_stops(sandbox, config):
    """The only address is 127.0.0.1; a port of its own is chosen; after closing nobody answers."""
    assert sandbox.url == f"http://127.0.0.1:{sandbox.port}"
    async with Sandbox(config) as other:
        assert other.port != sandbox.port > 0
        port = other.port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert other.state.instances == {}


async def test_a_port_that_is_taken_is_an_error(sandbox):
    """Two sandboxes cannot share a port, and the second one says so."""
    with pytest.raises(OSError, match="address already in use"):
        async with Sandbox(SandboxConfig(port=sandbox.port)):
            pass


async def test_it_must_be_entered_before_it_is_asked():
    """Without `async with` there is no address, no state and no numbers."""
    closed = Sandbox(SandboxConfig())
    for name in ("url", "state", "counters"):
        with pytest.raises(RuntimeError, match="not open"):
            getattr(closed, name)
    assert closed.port == 0
