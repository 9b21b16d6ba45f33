"""A service that answers with the bytes it is told to, and counts what reaches it.

It knows no HTTP beyond where a request ends, so that it can answer anything: half an answer, a
reset, nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

REQUEST_ID = "00000000-feed-4bad-8bed-000000000001"


class After(Enum):
    """What to do once the bytes are sent."""

    KEEP = "keep the connection"
    CLOSE = "close it"
    RESET = "reset it"
    HANG = "say no more"


@dataclass(frozen=True)
class Answer:
    """Bytes for one request."""

    raw: bytes
    after: After = After.KEEP


def answer(
    status: int = 200,
    body: bytes = b"{}",
    *,
    request_id: str | None = REQUEST_ID,
    length: int | None = None,
    after: After = After.KEEP,
    **headers: str,
) -> Answer:
    """A well-formed answer; header names take `_` for `-`, `length` may lie."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if request_id is not None:
        lines.append(f"x-amzn-RequestId: {request_id}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return Answer("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body, after)


def failure(status: int, code: str, message: str = "no", **headers: str) -> Answer:
    """An error as Connect words it."""
    body = json.dumps({"message": message, "Message": message}).encode()
    return answer(status, body, x_amzn_ErrorType=code, **headers)


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass
class StubService:
    """What reached the service.

    Attributes:
        url: Where it listens.
        requests: Every request, in the order of arrival.
    at_s: The loop's time at each arrival.
    reached: Set once anything arrived.
    """

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def hits(self) -> int:
        return len(self.requests)


@contextlib.asynccontextmanager
async def stub_service(
    *answers: Answer | Callable[[Received], Answer],
) -> AsyncIterator[StubService]:
    """Serves the answers one after the other, the last one for ever."""
    stub = StubService()
    writers: list[asyncio.StreamWriter] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, path, _ = first.split(" ")
                received = Received(method, path, headers, body)
                stub.requests.append(received)
                stub.at_s.append(asyncio.get_running_loop().time())
                stub.reached.set()
                chosen = answers[min(stub.hits, len(answers)) - 1]
                said = chosen if isinstance(chosen, Answer) else chosen(received)
                writer.write(said.raw)
                await writer.drain()
                if said.after is After.HANG:
                    await reader.read()
                if said.after is After.RESET:
                    # Lingering for no time is what makes a close a reset.
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    writer.transport.abort()
                    return
                if said.after is not After.KEEP:
                    break
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    stub.url = f"http://{host}:{port}"
    try:
        yield stub
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
