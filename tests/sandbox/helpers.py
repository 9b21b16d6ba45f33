"""Clients of the sandbox: the AWS SDK, and raw requests as paws or a broken client send them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from bulk_updater.sandbox import Sandbox

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"

# One session for all tests: it keeps the parsed service models, which take 0.2 s to load.
_SESSION = aioboto3.Session()


def sdk(sandbox: Sandbox, service: str = "connect", **options: Any) -> Any:
    """A client of the AWS SDK that tries once and checks nothing by itself."""
    config: dict[str, Any] = {
        "retries": {"total_max_attempts": 1},
        "parameter_validation": options.pop("parameter_validation", False),
        "max_pool_connections": 200,
    }
    if "signature_version" in options:
        config["signature_version"] = options.pop("signature_version")
    return _SESSION.client(
        service,
        endpoint_url=sandbox.url,
        config=AioConfig(**config),
        **{
            "region_name": "eu-west-2",
            "aws_access_key_id": "sandbox",
            "aws_secret_access_key": "sandbox",
        }
        | options,
    )


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.headers["x-amzn-errortype"].partition(":")[0]


def paws_headers(
    sandbox: Sandbox,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    length_signed: bool = True,
    service: str = "connect",
    token: str | None = None,
    secret_key: str = "sandbox",
    headers: dict[str, str] | None = None,
) -> dict[str, str]:
    """Headers as R's paws sends them: no payload hash, four of them signed at the most."""
    sent = {"Content-Length": str(len(body)), "Content-Type": "application/x-amz-json-1.1"}
    sent |= headers or {}
    signed = dict(sent)
    if not length_signed:
        del signed["Content-Length"]
    request = AWSRequest(method=method, url=sandbox.url + path, headers=signed, data=body)
    credentials = Credentials("sandbox", secret_key, token)
    SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    return sent | dict(request.headers) | {"Host": sandbox.url.removeprefix("http://")}


async def send_raw(
    sandbox: Sandbox, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> RawAnswer:
    """Send exactly these bytes on a connection of their own, and read the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    try:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        status_line = await reader.readline()
        if not status_line:
            raise ConnectionResetError("no answer")
        answered = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(":")
            answered[name.lower()] = value.strip()
        content = await reader.readexactly(int(answered.get("content-length", "0")))
        return RawAnswer(int(status_line.split()[1]), answered, content)
    finally:
        writer.close()


async def paws(
    sandbox: Sandbox, method: str, path: str, body: bytes = b"", **options: Any
) -> RawAnswer:
    """One request as R's paws would send it."""
    headers = paws_headers(sandbox, method, path, body, **options)
    return await send_raw(sandbox, method, path, headers, body)


async def get_json(sandbox: Sandbox, path: str) -> Any:
    """What one of the sandbox's own paths shows, asked for without a signature."""
    answer = await send_raw(sandbox, "GET", path, {"Host": "sandbox"})
    assert answer.status == 200
    return answer.json
