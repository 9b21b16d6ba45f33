"""The sandbox on its socket: HTTP in, HTTP out.

Besides Connect's paths it has three of its own, for people and tests; they are not signed and
cost no token: `GET /_sandbox/counters`, `GET /_sandbox/state` and `GET /_sandbox/log`.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from bulk_updater.sandbox.answers import Answer, error_answer
from bulk_updater.sandbox.contacts import KnownContacts, load_contacts
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.service import Service
from bulk_updater.sandbox.signing import WireRequest
from bulk_updater.sandbox.state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from bulk_updater.sandbox.config import SandboxConfig
    from bulk_updater.sandbox.counters import OperationCounters
    from bulk_updater.sandbox.faults import FaultScript

__all__ = ["Sandbox"]

_HOST = "127.0.0.1"
"""The sandbox keeps what it is sent and shows it to whoever asks: it is for this machine only."""

_MAX_BODY_BYTES = 1024**2
"""No legal request comes near: 32,768 bytes are 192 KiB where JSON escapes every one of them."""

_SHUTDOWN_GRACE_S = 0.05
"""Seconds that requests may still take when the sandbox closes. Then they are cut off, not yet
applied: a slow handler must not hold up the end of a run or of a test."""


class Sandbox:
    """A local Amazon Connect, on 127.0.0.1 for as long as it is entered.

    ```python
    async with Sandbox(SandboxConfig(rate_per_s=50)) as sandbox:
        ...  # point a client at sandbox.url
    ```
    """

    def __init__(
        self,
        config: SandboxConfig,
        *,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] | None = None,
        rng: random.Random | None = None,
        request_ids: Callable[[], str] | None = None,
        fault: FaultScript | None = None,
    ) -> None:
        """Take everything that it needs; nothing happens yet.

        Args:
            config: How to behave.
            clock: The time in seconds, never going back; None is the running loop's.
            now: The time of day, aware of its zone; None is the machine's.
            rng: Chance; None is one seeded with `config.seed`.
            request_ids: Ids of the requests; None draws UUIDs from chance.
            fault: A test's own choice of faults: called with the operation's snake_case name and
                the members of the request, gives a fault or None. Where it gives none, the shares
                of the configuration decide.
        """
        self._config = config
        self._clock = clock
        self._now = now or (lambda: datetime.now(UTC))
        self._rng = rng or random.Random(config.seed)  # noqa: S311 - replayed, not secret
        self._request_ids = request_ids or _uuids(self._rng.getrandbits(64))
        self._fault = fault
        self._service: Service | None = None
        self._runner: web.ServerRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: The port is taken, or the file of contacts cannot be read.
            ValueError: The file of contacts holds something else.
        """
        known = KnownContacts()
        if self._config.contacts is not None:
            # A file of millions would hold up the loop.
            known = await asyncio.to_thread(load_contacts, self._config.contacts)
        clock = self._clock or asyncio.get_running_loop().time
        state = State(known, clock=clock, now=self._now, log_size=self._config.log_size)
        self._service = Service(
            self._config, state, clock=clock, now=self._now, rng=self._rng, script=self._fault
        )
        # A compressed body stays as it came, since it is the wire's bytes that are signed.
        server = web.Server(self._handle, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_GRACE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, self._config.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening. State and counters stay readable."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port it listens on, known once it is entered; 0 before."""
        return self._port

    @property
    def url(self) -> str:
        """The endpoint URL for clients.

        Raises:
            RuntimeError: The sandbox was not entered yet.
        """
        self._entered()
        return f"http://{_HOST}:{self._port}"

    @property
    def state(self) -> State:
        """The contacts.

        Raises:
            RuntimeError: The sandbox was not entered yet.
        """
        return self._entered().state

    @property
    def counters(self) -> dict[str, OperationCounters]:
        """What happened until now, by the operation's snake_case name.

        Raises:
            RuntimeError: The sandbox was not entered yet.
        """
        return self._entered().counters

    def change_quota(self, *, rate_per_s: float, burst: float) -> None:
        """Let every bucket gain and hold something else from now on, as when AWS changes a quota.

        Args:
            rate_per_s: What each operation's bucket gains a second, above 0.
            burst: What a bucket holds at the most, at least 1.

        Raises:
            RuntimeError: The sandbox was not entered yet.
            ValueError: A value is outside of its range.
        """
        self._entered().change_quota(rate_per_s=rate_per_s, burst=burst)

    def _entered(self) -> Service:
        if self._service is None:
            raise RuntimeError("The sandbox is not open; use `async with Sandbox(...)`.")
        return self._service

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        path, _, query = http.raw_path.partition("?")
        shown = self._shown(path) if http.method == "GET" else None
        if shown is not None:
            return web.json_response(shown)
        request_id = self._request_ids()
        try:
            await _meet_expectation(http)
            body = await http.read()
        except web.HTTPRequestEntityTooLarge:
            error = ServiceError("RequestEntityTooLarge", "The request is too large.")
            return self._respond(error_answer(error), request_id)
        except web.RequestPayloadError:
            # The client left, or what it sent is no body; there is nobody to answer to.
            return _drop(http)
        request = WireRequest(http.method, path, query, list(http.headers.items()), body)
        answer = await self._entered().answer(request, request_id)
        if answer is None:
            return _drop(http)
        response = self._respond(answer, request_id)
        return _break_off(http, response) if answer.breaks_off else response

    def _respond(self, answer: Answer, request_id: str) -> web.Response:
        # The date is the sandbox's own, so that a client can measure how far its clock is off.
        headers = {"Date": format_datetime(self._now().astimezone(UTC), usegmt=True)}
        if answer.identified:
            headers["x-amzn-RequestId"] = request_id
        return web.Response(
            status=answer.status, body=answer.body, headers=headers | dict(answer.headers)
        )

    def _shown(self, path: str) -> Any:
        if path == "/_sandbox/counters":
            return {name: counters.to_json() for name, counters in self.counters.items()}
        if path == "/_sandbox/state":
            return self.state.to_json()
        if path == "/_sandbox/log":
            return [write.to_json() for write in self.state.log]
        return None


def _uuids(seed: int) -> Callable[[], str]:
    rng = random.Random(seed)  # noqa: S311 - replayed, not secret
    return lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4))


async def _meet_expectation(http: web.BaseRequest) -> None:
    # libcurl, under R's paws, asks before it sends a longer body, and waits a second in vain.
    if http.headers.get("Expect", "").lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        http.writer.output_size = 0


def _break_off(http: web.BaseRequest, response: web.Response) -> web.Response:
    """Send an answer but for the second half of its body, and close the connection."""
    assert isinstance(response.body, bytes)  # noqa: S101 - `_respond` made it so
    headers = dict(response.headers) | {"Content-Length": str(len(response.body))}
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    whole = "\r\n".join([*lines, "", ""]).encode() + response.body
    if http.transport is not None:
        http.transport.write(whole[: len(whole) - (len(response.body) + 1) // 2])
        http.transport.close()
    return web.Response()  # as for `_drop`


def _drop(http: web.BaseRequest) -> web.Response:
    if http.transport is not None:
        http.transport.abort()
    # Never gets anywhere: aiohttp wants a response to find out that the client is gone.
    return web.Response()
