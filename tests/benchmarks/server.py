"""The servers that are measured against, each in a process of its own.

`serving` costs almost nothing: it says yes to every request and looks at none. It is nginx where
there is one; otherwise a few lines of asyncio, which are no bottleneck for a client in Python
either, but take several times the CPU of nginx. `serving_sandbox` is the program's own sandbox,
which throttles as Amazon Connect does.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.benchmarks.processes import environment, pin, server_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["find_nginx", "serving", "serving_sandbox"]

_READY_WITHIN_S = 10.0

_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            add_header x-amzn-RequestId $request_id;
            return 200 '{{}}';
        }}
    }}
}}
"""

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"x-amzn-RequestId: 12345678-90ab-cdef-1234-567890abcdef\r\n\r\n{}"
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def find_nginx() -> str | None:
    """nginx, which many systems keep out of an ordinary user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def serving(folder: Path, *, use_nginx: bool) -> Iterator[str]:
    """A server in a process of its own, on a free port of 127.0.0.1, as long as the context lasts.

    Args:
        folder: For its files; has to exist.
        use_nginx: Whether nginx is to serve; `find_nginx` says whether there is one.

    Yields:
        Its URL.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        _nginx_command(folder, port) if use_nginx else _python_command(port),
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        pin(process.pid, server_cpus())
        _expect_yes(process, url)
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def serving_sandbox(key: str, secret: str, **flags: float) -> Iterator[str]:
    """`bulk-updater sandbox` in a process of its own, as long as the context lasts.

    Args:
        key: The access key that it knows.
        secret: Its secret.
        flags: The command's options by name, with underscores.

    Yields:
        Its URL.
    """
    named = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "bulk_updater", "sandbox", *named],
        env=environment() | {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it tells of every client that leaves with requests in flight
        text=True,
    )
    try:
        pin(process.pid, server_cpus())
        assert process.stdout is not None
        with process.stdout:
            url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the sandbox for the benchmarks does not start")
        yield url
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _nginx_command(folder: Path, port: int) -> list[str]:
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.format(folder=folder, port=port), encoding="utf-8")
    return [find_nginx() or "nginx", "-p", str(folder), "-c", str(settings)]


def _python_command(port: int) -> list[str]:
    return [sys.executable, "-m", __name__, str(port)]


def _expect_yes(process: subprocess.Popen[bytes], url: str) -> None:
    """Return when the server answers as it should."""
    give_up_at = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(url, data=b"{}") as answer:
                if answer.read() != b"{}" or not answer.headers["x-amzn-RequestId"]:
                    raise RuntimeError("the server for the benchmarks does not answer as it should")
                return
        except urllib.error.URLError as error:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError("the server for the benchmarks does not start") from error
            time.sleep(0.02)


class _SayYes(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        while (end := self._received.find(b"\r\n\r\n") + 4) >= 4:
            length = _LENGTH.search(self._received, 0, end)
            end += int(length[1]) if length else 0
            if len(self._received) < end:
                return
            self._received = self._received[end:]
            self._transport.write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_SayYes, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
