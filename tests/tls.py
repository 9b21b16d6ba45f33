"""A service behind TLS, and a proxy that leads there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.stub_service import Answer

__all__ = ["ELSEWHERE", "HERE", "listening", "proxy_to", "tls_service"]

# Each signed by itself, good until 2126, and for nothing but this file: the one for 127.0.0.1 and
# for Connect's own name in Ireland, the other for elsewhere.example.
HERE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgs2YxYpWK+lVEKwBY
9Z45PFum1GhHI2LcPMbnQvwDEGShRANCAAQUHoYakFrCs8OK7AZTMfQtMFxWVAFg
Wz1Y+yLpo7Pz5UX/eXIpRCB2zq6CzshefdJ/9dCRsPz3tVhyx3/hryzv
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIB0DCCAXWgAwIBAgIUKXrV9c5J8MQRSsmcEF62/Z1InvkwCgYIKoZIzj0EAwIw
IjERMA8GA1UECgwIU29tZWJvZHkxDTALBgNVBAMMBGhlcmUwIBcNMjYxMTIyMDgz
NDQxWhgPMjEyNjEwMjkwODM0NDFaMCIxETAPBgNVBAoMCFNvbWVib2R5MQ0wCwYD
VQQDDARoZXJlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFB6GGpBawrPDiuwG
UzH0LTBcVlQBYFs9WPsi6aOz8+VF/3lyKUQgds6ugs7IXn3Sf/XQkbD897VYcsd/
4a8s76OBhjCBgzAdBgNVHQ4EFgQUAkZF8oYaxTCL3vJ3S17L1rJA/mQwHwYDVR0j
BBgwFoAUAkZF8oYaxTCL3vJ3S17L1rJA/mQwDwYDVR0TAQH/BAUwAwEB/zAwBgNV
HREEKTAnhwR/AAABgh9jb25uZWN0LmV1LXdlc3QtMS5hbWF6b25hd3MuY29tMAoG
CCqGSM49BAMCA0kAMEYCIQClqT26ZTL6s7IEkEY4qUAIftv/mR+su8vsWPZW9ZMp
oQIhAIX+AegF5VLStAfNKPqdIiqK66KDm06+XonN3mruqIAk
-----END CERTIFICATE-----
"""
ELSEWHERE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDrd91+seRWljHhrv
AqG78stoKwFZLavLJUb5KDWsRPShRANCAARi8pO4ZAgtCWbSltSnCKYk4EoANdVN
5dDCfOgX3ifSoxqdMJW3D42d6R5hF+OyAV+Z1rqoRSwTj/97GihCliKH
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBxDCCAWmgAwIBAgIUXlpy443X7azNRb7TPam+KGVwm04wCgYIKoZIzj0EAwIw
JzERMA8GA1UECgwIU29tZWJvZHkxEjAQBgNVBAMMCWVsc2V3aGVyZTAgFw0yNjEx
MjIwODM0NDFaGA8yMTI2MTAyOTA4MzQ0MVowJzERMA8GA1UECgwIU29tZWJvZHkx
EjAQBgNVBAMMCWVsc2V3aGVyZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGLy
k7hkCC0JZtKW1KcIpiTgSgA11U3l0MJ86BfeJ9KjGp0wlbcPjZ3pHmEX47IBX5nW
uqhFLBOP/3saKEKWIoejcTBvMB0GA1UdDgQWBBR3YN2UCnMVTa66bZZQsxq8V4rq
BTAfBgNVHSMEGDAWgBR3YN2UCnMVTa66bZZQsxq8V4rqBTAPBgNVHRMBAf8EBTAD
AQH/MBwGA1UdEQQVMBOCEWVsc2V3aGVyZS5leGFtcGxlMAoGCCqGSM49BAMCA0kA
MEYCIQDTMNv+YNeIcrQPFfgnhvGsjrp1EXnLjsLp9VSxs0HJawIhAKEQx/z38dZe
qobh8ajvNrUyvot5hJZNSqOlZyKONT4d
-----END CERTIFICATE-----
"""

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(
    converse: Converse, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server on a port of its own, which it gives; every conversation ends with it."""
    talks: list[tuple[asyncio.Task[None] | None, asyncio.StreamWriter]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append((asyncio.current_task(), writer))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await converse(reader, writer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task, writer in talks:
            writer.transport.abort()
            if task is not None:
                await asyncio.wait([task])


@contextlib.asynccontextmanager
async def tls_service(folder: Path, certificate: str, said: Answer) -> AsyncIterator[int]:
    """Answers every request in the same way; gives its port.

    Args:
        folder: For `server.pem`, which holds the certificate.
        certificate: Its key and itself.
        said: The answer.
    """
    path = folder / "server.pem"
    path.write_text(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said.raw)
        await writer.drain()

    async with listening(converse, context) as port:
        yield port


@contextlib.asynccontextmanager
async def proxy_to(target: int, *, status: int = 200) -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that connects everybody to one port; gives its URL and the hosts it was asked for."""
    asked: list[str] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.split(" ")[1])
        writer.write(f"HTTP/1.1 {status} Told\r\n\r\n".encode())
        await writer.drain()
        if status == 200:
            there, back = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with listening(converse) as port:
        yield f"http://me:hunter2@127.0.0.1:{port}", asked
