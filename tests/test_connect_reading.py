"""Reading a contact back: the same door, the same rules, and every cell stays inside."""

from __future__ import annotations

import json
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import READ_ATTRIBUTES, open_connect
from bulk_updater.errors import (
    AccessError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)
from tests.stub_service import After, answer, failure, stub_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulk_updater.connect import Connect

PLANTED = "Planted-Cell-7f3a"
CONFIG = ConnectionConfig(region="eu-west-2", access_key=("key", "secret"))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Connect]:
    async with open_connect(replace(CONFIG, endpoint_url=url), max_in_flight=4) as connect:
        yield connect


def body(**attributes: object) -> bytes:
    return json.dumps({"Attributes": attributes}).encode()


async def test_what_is_asked_and_what_is_told():
    """One signed GET that names instance and contact; every attribute comes back as it stands."""
    said = answer(body=body(tier="gold", name="Zoë 東", gone=""))
    async with stub_service(said) as stub, opened(stub.url) as connect:
        held = await connect.read_attributes("i-1", "c/1")
    assert held == {"tier": "gold", "name": "Zoë 東", "gone": ""}
    (received,) = stub.requests
    assert (received.method, received.path, received.raw) == (
        "GET",
        "/contact/attributes/i-1/c%2F1",
        b"",
    )
    assert "/eu-west-2/connect/aws4_request" in received.headers["authorization"]


@pytest.mark.parametrize("said", [b'{"Attributes": {}}', b"{}", b"", b'{"Attributes": null}'])
async def test_a_contact_without_attributes(said):
    """No attributes is an answer: an empty one."""
    async with stub_service(answer(body=said)) as stub, opened(stub.url) as connect:
        assert await connect.read_attributes("i-1", "c-1") == {}


FAILURES = [
    (answer(request_id=None, body=body(tier=PLANTED)), TransientError, "UnexpectedAnswer"),
    (answer(body=b"<html>" + PLANTED.encode()), TransientError, "UnexpectedAnswer"),
    (answer(body=body(tier=7)), TransientError, "UnexpectedAnswer"),
    (answer(body=body(tier=None)), TransientError, "UnexpectedAnswer"),
    (answer(body=b'{"Attributes": "' + PLANTED.encode() + b'"}'), TransientError, None),
    (answer(302, Location="http://127.0.0.1:1"), TransientError, "Redirected"),
    (answer(body=body(tier=PLANTED), length=999, after=After.CLOSE), TransientError, None),
    (failure(404, "ResourceNotFoundException", PLANTED), RequestRejected, None),
    (failure(403, "AccessDeniedException", PLANTED), AccessError, None),
    (failure(429, "TooManyRequestsException", PLANTED), Throttled, None),
    (failure(500, "InternalServiceException", PLANTED), TransientError, None),
]


@pytest.mark.parametrize(("said", "kind", "code"), FAILURES)
async def test_anything_else_is_one_error(said, kind, code):
    """One attempt, one `SendError` of its kind, and no cell in its words or its causes."""
    async with stub_service(said) as stub, opened(stub.url) as connect:
        with pytest.raises(SendError) as caught:
            await connect.read_attributes("i-1", "c-1")
    assert stub.hits == 1
    assert type(caught.value) is kind
    assert code is None or caught.value.code == code
    assert PLANTED not in "".join(traceback.format_exception(caught.value))


async def test_what_cannot_be_asked():
    """An id that is empty, or has no UTF-8, is refused before anything is sent."""
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        for contact_id in ("", "c-\ud800"):
            with pytest.raises(RequestRejected):
                await connect.read_attributes("i-1", contact_id)
    assert stub.hits == 0


async def test_the_client_knows_the_operation():
    """The name that pacer and requests use is the client's own."""
    async with stub_service(answer()) as stub, opened(stub.url) as connect:
        assert connect._api_names[READ_ATTRIBUTES] == "GetContactAttributes"
