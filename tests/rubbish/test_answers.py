"""Whatever answers instead of Connect: a receipt for a true success, or one `SendError`.

Takes 20 seconds.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import re
import tracemalloc
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import Receipt, open_connect
from bulk_updater.errors import (
    AccessError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)
from bulk_updater.model import Request
from tests.stub_service import REQUEST_ID, After, Answer, answer, stub_service

from .helpers import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulk_updater.connect import Connect

PLANTED = "Planted-Cell-7f3a"
ECHOED = "Echoed-Text-9c2b"
REQUEST = Request(
    row=1,
    source="crm.csv",
    operation="update_contact_attributes",
    instance_id="i-1",
    contact_id="c-1",
    params={"InstanceId": "i-1", "InitialContactId": "c-1", "Attributes": {"name": PLANTED}},
    payload_bytes=21,
)


@asynccontextmanager
async def opened(url: str, **changes: Any) -> AsyncIterator[Connect]:
    config = ConnectionConfig(
        region="eu-west-2", access_key=("key", "secret"), endpoint_url=url, **changes
    )
    async with open_connect(config, max_in_flight=2) as connect:
        yield connect


async def outcomes(*answers: Answer, **changes: Any) -> list[Receipt | SendError]:
    """What each of some answers becomes, once it is sure that nothing leaks and nothing hangs."""
    found: list[Receipt | SendError] = []
    async with stub_service(*answers) as stub, opened(stub.url, **changes) as connect:
        for _ in answers:
            try:
                async with asyncio.timeout(20):
                    found.append(await connect.send(REQUEST))
            except SendError as error:
                check_error(error)
                found.append(error)
    return found


def check_error(error: SendError) -> None:
    """It is one of the four, tells nothing of the request or the answer, and waits sensibly."""
    assert type(error) in {Throttled, TransientError, RequestRejected, AccessError}
    assert error.message.isprintable()
    assert len(error.message) < 600
    assert PLANTED not in repr(error.__dict__) + error.message
    assert ECHOED not in error.message
    assert error.retry_after_s is None or 0 <= error.retry_after_s < float("inf")
    assert error.code
    assert re.fullmatch(r"[A-Za-z0-9_.]{1,100}", error.code)
    revived = pickle.loads(pickle.dumps(error))
    assert revived.__dict__ == error.__dict__


def is_true_success(status: int, headers: dict[str, str], body: bytes) -> bool:
    """Whether an answer is Connect's confirmation, by the words of the facts."""
    if not 200 <= status <= 299 or not headers.get("x-amzn-RequestId", "").strip():
        return False
    try:
        return not body.strip() or isinstance(json.loads(body), dict)
    except ValueError:
        return False


# ----------------------------------------------------------------------------------------------
# Well-formed HTTP with anything in it

STATUSES = st.integers(200, 599) | st.sampled_from(
    [200, 204, 299, 400, 403, 429, 500, 503, 600, 999]
)
ABSURD_WAITS = [
    *("-1", "-0", "+5", "1e400", "nan", "inf", "9" * 400, "0x10", "1_000", "٣", "", " ", "7 7"),
    *("Sun, 01 Mar 2020 08:00:30 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 0001"),
    *("Sun, 99 Mar 2026 99:99:99 GMT", "Sun, 01 Mar 99999 08:00:30 GMT", "1,5", "1;2", "\\x00"),
    *("Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "Sun, 01 Mar 2026"),
    *("Sun, 01 Mar 2026 08:00:30 +999999999999", "1 Jan -2020 00:00:00 GMT", "0001", "3600.5"),
]
VALUES = st.sampled_from([ECHOED, *ABSURD_WAITS]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("x-amzn-RequestId", "x-amzn-ErrorType", "Retry-After", "x-amz-retry-after", "Date"),
            *("Content-Type", "Location", "Content-Encoding", "x-amzn-errortype", "Set-Cookie"),
            *("Www-Authenticate", "x-odd"),
        ]
    ),
    VALUES | st.sampled_from(["r-1", "ThrottlingException", "gzip", "close", "InternalFailure"]),
    max_size=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(ECHOED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "Code", "__type", "message", "Message", "Reason", "x"]), inner
        )
    ),
    max_leaves=6,
)
BODIES = (
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [b"", b"{}", b"[]", b"null", b"<html>" + ECHOED.encode(), b"\xff", b"[" * 9999]
    )
    | st.just(json.dumps({"__type": ECHOED + "!", "message": PLANTED}).encode())
)


def framed(status: int, headers: dict[str, str], body: bytes) -> Answer:
    """An answer whose frame is right, on a connection of its own."""
    lines = [f"HTTP/1.1 {status} Phrase", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "Connection: close", f"Content-Length: {len(body)}"])
    return Answer(head.encode("latin-1") + b"\r\n\r\n" + body, After.CLOSE)


@examples(8)
@given(st.lists(st.tuples(STATUSES, HEADERS, BODIES), min_size=1, max_size=6))
async def test_any_status_headers_and_body(answers):
    """A receipt comes of a true success only, and every other answer is a `SendError`."""
    latin = [
        (status, {n: v for n, v in headers.items() if v.isascii() or n == "x-odd"}, body)
        for status, headers, body in answers
    ]
    found = await outcomes(*(framed(*said) for said in latin))
    assert len(found) == len(latin)
    for said, outcome in zip(latin, found, strict=True):
        if isinstance(outcome, Receipt):
            assert is_true_success(*said)
            assert outcome.request_id.strip() == said[1]["x-amzn-RequestId"].strip()
            assert outcome.http_status == said[0]


@pytest.mark.parametrize("name", ["Retry-After", "x-amz-retry-after", "Date"])
async def test_absurd_waits(name: str):
    """No header makes a wait below nothing or without end."""
    waits = [wait for wait in ABSURD_WAITS if wait.isascii()]
    asked = {"Retry-After": "Sun, 01 Mar 2026 08:00:30 GMT"} if name == "Date" else {}
    found = await outcomes(*(framed(429, asked | {name: wait}, b"{}") for wait in waits))
    assert [type(outcome) for outcome in found] == [Throttled] * len(waits)


# ----------------------------------------------------------------------------------------------
# Hardly HTTP

GOOD = (
    b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: %b\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: 2\r\n\r\n{}" % REQUEST_ID.encode()
)


async def test_a_good_answer_that_breaks_off_anywhere():
    """Only the whole answer is a receipt; each of its beginnings is a connection that broke."""
    found = await outcomes(
        *(Answer(GOOD[:n_bytes], After.CLOSE) for n_bytes in range(len(GOOD))),
        Answer(GOOD, After.CLOSE),
    )
    assert found[-1] == Receipt(REQUEST_ID, 200)
    assert {type(outcome) for outcome in found[:-1]} == {TransientError}
    assert len(found) == len(GOOD) + 1


def chunked(body: bytes, **headers: str) -> bytes:
    """An answer in chunks, as they stand in `body`."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return (
        f"HTTP/1.1 200 OK\r\nx-amzn-RequestId: {REQUEST_ID}\r\nTransfer-Encoding: chunked\r\n"
        f"{''.join(lines)}\r\n".encode()
        + body
    )


def with_length(length: str, body: bytes = b"{}") -> bytes:
    return GOOD.replace(b"Length: 2", f"Length: {length}".encode())[:-2] + body


PACKED = gzip.compress(b"{}")
RAW = [
    ("a mail server", b"220 mail ready\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))),
    ("NULs", bytes(5000)),
    ("newlines", b"\r\n" * 5000),
    ("HTTP/0.9", b"<html>" + ECHOED.encode()),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/9.9", GOOD.replace(b"1.1", b"9.9")),
    ("no status", b"HTTP/1.1\r\n\r\n"),
    ("status of letters", b"HTTP/1.1 OK OK\r\n\r\n"),
    ("status of minus one", b"HTTP/1.1 -1 OK\r\n\r\n"),
    ("status of ten digits", b"HTTP/1.1 2000000000 OK\r\n\r\n"),
    ("half a header", b"HTTP/1.1 200 OK\r\nx-amzn-"),
    ("a header without a name", b"HTTP/1.1 200 OK\r\n: %b\r\n\r\n" % ECHOED.encode()),
    ("a header without a colon", b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % ECHOED.encode()),
    ("NUL in a header", GOOD.replace(b"application", b"a\0b")),
    ("a folded header", GOOD.replace(b"application", b"a\r\n b")),
    ("length of letters", with_length("two")),
    ("length below nothing", with_length("-2")),
    ("two lengths", with_length("2\r\nContent-Length: 3")),
    ("length beyond 64 bits", with_length("9" * 30)),
    ("length of more than comes", with_length("200")),
    ("length and chunks", chunked(b"2\r\n{}\r\n0\r\n\r\n", Content_Length="2")),
    ("chunk of letters", chunked(b"zz\r\n{}\r\n0\r\n\r\n")),
    ("chunk below nothing", chunked(b"-2\r\n{}\r\n0\r\n\r\n")),
    ("chunk beyond 64 bits", chunked(b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n")),
    ("chunk that breaks off", chunked(b"2\r\n{")),
    ("chunks without an end", chunked(b"2\r\n{}\r\n")),
    ("chunk without line ends", chunked(b"2{}0")),
    ("another transfer", GOOD.replace(b"Content-Length: 2", b"Transfer-Encoding: rot13")),
    (
        "gzip that is none",
        GOOD.replace(b"Content-Type: application/json", b"Content-Encoding: gzip"),
    ),
    (
        "gzip that breaks off",
        with_length(f"{len(PACKED) - 4}\r\nContent-Encoding: gzip", PACKED[:-4]),
    ),
    ("an encoding that is none", with_length(f"3\r\nContent-Encoding: {ECHOED}", b"\xff\xff\xff")),
    ("one header of 1 MB", b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1_000_000 + b"\r\n\r\n{}"),
    ("an upgrade", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: %b\r\n\r\n" % ECHOED.encode()),
    ("only 100 Continue", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
]


@pytest.mark.parametrize("raw", [raw for _, raw in RAW], ids=[name for name, _ in RAW])
async def test_what_is_hardly_http(raw: bytes):
    """A receipt where the frame can be read in one way and holds a success; else transient."""
    (found,) = await outcomes(Answer(raw, After.CLOSE))
    if isinstance(found, Receipt):
        assert found == Receipt(REQUEST_ID, 200)
        assert raw.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/9.9 200 OK\r\n"))
        assert b"{}" in raw
    else:
        assert isinstance(found, TransientError)


@examples(8)
@given(st.lists(st.binary(max_size=120), min_size=1, max_size=6), st.booleans())
async def test_any_bytes(pieces, begins_well):
    """Bytes of any kind, also behind the beginning of a good answer, are no success."""
    begin = b"HTTP/1.1 200 OK\r\n" if begins_well else b""
    found = await outcomes(*(Answer(begin + piece, After.CLOSE) for piece in pieces))
    assert not [outcome for outcome in found if isinstance(outcome, Receipt)]


@examples(8)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)), min_size=1, max_size=6)
)
async def test_a_good_answer_with_another_byte(changes):
    """One changed byte of a good answer: what is told as a success has its id and its status."""
    answers = [
        Answer(GOOD[:at] + bytes([GOOD[at] ^ by]) + GOOD[at + 1 :], After.CLOSE)
        for at, by in changes
    ]
    for outcome in await outcomes(*answers, read_timeout_s=1.0):
        if isinstance(outcome, Receipt):
            assert 200 <= outcome.http_status <= 299
            assert len(outcome.request_id) >= len(REQUEST_ID) - 1


async def test_interim_answers_before_a_good_one():
    """However many 1xx answers come first, the good one behind them is heard."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 500
    (found,) = await outcomes(Answer(interim + GOOD, After.CLOSE))
    assert found == Receipt(REQUEST_ID, 200)


async def test_headers_without_end_are_not_held():
    """Of 100 MB in one header, hardly more than a buffer is read before it is given up."""
    tracemalloc.start()
    try:
        async with (
            flood(b"HTTP/1.1 200 OK\r\nx: ", b"x" * 65_536, 1600) as poured,
            opened(poured.url) as connect,
        ):
            with pytest.raises(TransientError) as caught:
                await connect.send(REQUEST)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_error(caught.value)
    assert peak_bytes < 50e6


N_MANY = 500_000_000
"""Bytes that would be held if they were read; what the kernel's buffers hold is a hundredth."""
FEW = 20_000_000
BEGIN = b"HTTP/1.1 %d Phrase\r\nx-amzn-RequestId: r-1\r\n%b\r\n"
ENDLESS = {
    "with its length": (b"Content-Length: %d\r\n" % N_MANY, b" " * 65_536),
    "in chunks": (b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "in small chunks": (
        b"Transfer-Encoding: chunked\r\n",
        (b"80\r\n" + b" " * 128 + b"\r\n") * 500,
    ),
    "without a length": (b"Connection: close\r\n", b" " * 65_536),
    "said to be gzip": (b"Content-Encoding: gzip\r\n", b" " * 65_536),
}


@pytest.mark.parametrize(
    ("how", "status"),
    [*((how, 200) for how in ENDLESS), ("with its length", 403), ("in chunks", 503)],
)
async def test_a_body_without_end_is_not_read(how: str, status: int):
    """Of 500 MB a few are taken and hardly more than one is held; the connection is closed."""
    headers, piece = ENDLESS[how]
    n_pieces = N_MANY // len(piece)
    tracemalloc.start()
    try:
        async with (
            flood(BEGIN % (status, headers), piece, n_pieces) as poured,
            opened(poured.url) as connect,
        ):
            with pytest.raises(TransientError) as caught:
                await connect.send(REQUEST)
            async with asyncio.timeout(20):
                await poured.ended.wait()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_error(caught.value)
    assert (caught.value.code, caught.value.http_status) == ("UnexpectedAnswer", status)
    assert poured.n_bytes < FEW
    assert peak_bytes < 50e6  # half of it is botocore's model


async def test_the_longest_body_that_is_read():
    """A success of 1 MiB is a receipt, one of a byte more is not; the next answer is heard."""
    room = (1 << 20) - 2
    found = await outcomes(
        framed(200, {"x-amzn-RequestId": "r-1"}, b"{" + b" " * room + b"}"),
        framed(200, {"x-amzn-RequestId": "r-2"}, b"{" + b" " * (room + 1) + b"}"),
        answer(),
    )
    assert found[0] == Receipt("r-1", 200)
    assert isinstance(found[1], TransientError)
    assert found[1].code == "UnexpectedAnswer"
    assert found[2] == Receipt(REQUEST_ID, 200)


async def test_a_packed_body_is_not_unpacked():
    """What would be 100 MB of a success stays the 100 KB that came, and is no success."""
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()
    assert len(packed) < 1 << 20
    headers = {"x-amzn-RequestId": "r-1", "Content-Encoding": "gzip"}
    tracemalloc.start()
    try:
        (found,) = await outcomes(framed(200, headers, packed))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, TransientError)
    assert found.code == "UnexpectedAnswer"
    assert peak_bytes < 50e6


DRIPS = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"),
    "bytes of a header": (b"HTTP/1.1 200 OK\r\nx: ", b"x"),
    "short headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "bytes of a body": (BEGIN % (200, b"Content-Length: 1000\r\n"), b" "),
    "chunks of a body": (BEGIN % (200, b"Transfer-Encoding: chunked\r\n"), b"1\r\n \r\n"),
}


@pytest.mark.looptime
@pytest.mark.parametrize("drip", DRIPS)
async def test_what_comes_drop_by_drop_is_given_up(drip: str):
    """Something every second for ever: given up after both timeouts, as an answer too late."""
    begin, piece = DRIPS[drip]
    clock = asyncio.get_running_loop().time
    async with (
        flood(begin, piece, 1000, pause_s=1.0) as poured,
        opened(poured.url, connect_timeout_s=2.0, read_timeout_s=5.0) as connect,
    ):
        began_s = clock()
        with pytest.raises(TransientError) as caught:
            await connect.send(REQUEST)
        assert 7.0 <= clock() - began_s <= 8.0  # aiohttp rounds up to whole seconds
        await poured.ended.wait()
    check_error(caught.value)
    assert (caught.value.code, caught.value.http_status) == ("ReadTimeoutError", None)
    assert poured.n_pieces < 10


@pytest.mark.looptime
@pytest.mark.parametrize("unlimited", ["connect_timeout_s", "read_timeout_s"])
async def test_no_total_where_one_of_both_has_no_limit(unlimited: str):
    """Without a limit on one of them, a good answer after 500 seconds of others is heard."""
    begin, piece = DRIPS["interim answers"]
    settings = {"connect_timeout_s": 2.0, "read_timeout_s": 5.0, unlimited: None}
    async with (
        flood(begin, piece, 500, pause_s=1.0, end=GOOD) as poured,
        opened(poured.url, **settings) as connect,
    ):
        assert await connect.send(REQUEST) == Receipt(REQUEST_ID, 200)
    assert poured.n_pieces == 500


@dataclass
class Poured:
    """What a service got rid of.

    Attributes:
        url: Where it listens.
        n_bytes: Bytes that the kernel took from it, but for a buffer.
        n_pieces: How often it said its thing.
        ended: Set once the connection is closed, by whichever side.
    """

    url: str
    n_bytes: int = 0
    n_pieces: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def flood(
    begin: bytes, piece: bytes, n_pieces: int, *, pause_s: float = 0.0, end: bytes = b""
) -> AsyncIterator[Poured]:
    """A service that says one thing over and over, until nobody listens."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(begin)
            for _ in range(n_pieces):
                writer.write(piece)
                await writer.drain()
                poured.n_bytes += len(piece)
                poured.n_pieces += 1
                if pause_s:
                    await asyncio.sleep(pause_s)
            writer.write(end)
        except ConnectionError:
            pass
        writer.close()
        poured.ended.set()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    poured = Poured(f"http://{host}:{port}")
    try:
        yield poured
    finally:
        server.close()


async def test_a_good_answer_is_a_receipt_after_all_that():
    """Rubbish leaves nothing behind: the next answer on the same client is a receipt."""
    rubbish = [Answer(raw, After.CLOSE) for _, raw in RAW[:8]]
    found = await outcomes(*rubbish, answer(), *rubbish, answer())
    assert found[8] == found[17] == Receipt(REQUEST_ID, 200)
