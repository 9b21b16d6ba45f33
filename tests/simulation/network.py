"""Connections in memory, between asyncio protocols: ordered, delayed, and cut when told."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    import socket

_EOF, _RESET = object(), object()


class _Address:
    """What aiohttp asks of a listening socket."""

    def __init__(self, name: tuple[str, int]) -> None:
        self._name = name

    def getsockname(self) -> tuple[str, int]:
        return self._name


class _Server(asyncio.AbstractServer):
    def __init__(self, network: Network, name: tuple[str, int]) -> None:
        self._network = network
        self._name = name
        self.sockets = [_Address(name)]

    def close(self) -> None:
        self._network._listening.pop(self._name, None)

    async def wait_closed(self) -> None:
        pass


class Network:
    """One machine's loopback.

    Attributes:
        refuses: Whether connections are refused for the moment.
        clients: The open client ends of connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random, mean_s: float) -> None:
        self.refuses = False
        # In order: a set's would depend on addresses in memory.
        self.clients: dict[_End, None] = {}
        self._loop = loop
        self._rng = rng
        self._mean_s = mean_s
        self._listening: dict[tuple[str, int], Any] = {}
        self._knocked: dict[int, tuple[str, int]] = {}

    def listen(self, protocol_factory: Any, host: str, port: int) -> _Server:
        name = (host, port or 40_000 + len(self._listening))
        self._listening[name] = protocol_factory
        return _Server(self, name)

    async def knock(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """The part of connecting that takes time and may fail."""
        await asyncio.sleep(self.delay_s())
        if self.refuses or address[:2] not in self._listening:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        self._knocked[sock.fileno()] = address[:2]

    def connect(self, protocol_factory: Any, sock: socket.socket) -> tuple[_End, Any]:
        address = self._knocked.pop(sock.fileno())
        sock.close()  # it only ever carried the number
        client, server = protocol_factory(), self._listening[address]()
        near, far = _End(self, client), _End(self, server)
        near.peer, far.peer = far, near
        self.clients[near] = None
        far.protocol.connection_made(far)
        near.protocol.connection_made(near)
        return near, client

    def cut_off_clients(self) -> None:
        """The client's process is gone: what it wrote arrives, and nothing else happens there."""
        self.refuses = True
        for end in list(self.clients):
            end.die()
        self.clients.clear()

    def delay_s(self) -> float:
        return self._rng.expovariate(1 / self._mean_s)


class _End(asyncio.Transport):
    """One end of a connection."""

    peer: _End

    def __init__(self, network: Network, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self._network = network
        self._loop = network._loop
        self._coming: deque[Any] = deque()
        self._last_at_s = 0.0
        self._closing = False
        self._lost = False
        self._paused = False
        self._held: list[Any] = []

    # What the peer sends.

    def _send(self, what: Any) -> None:
        peer = self.peer
        peer._coming.append(what)
        # In order: whichever timer fires takes what was sent first.
        at_s = max(self._last_at_s, self._loop.time() + self._network.delay_s())
        self._last_at_s = at_s
        self._loop.call_at(at_s, peer._arrive)

    def _arrive(self) -> None:
        what = self._coming.popleft()
        if self._paused:
            self._held.append(what)
        else:
            self._take(what)

    def _take(self, what: Any) -> None:
        if self._lost:
            return
        if what is _RESET:
            self._lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        elif what is _EOF:
            if not self.protocol.eof_received():
                self.close()
        elif not self._closing:
            self.protocol.data_received(what)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._network.clients.pop(self, None)
            self._loop.call_soon(self.protocol.connection_lost, error)

    def die(self) -> None:
        self._send(_RESET)
        self._lose(None)

    # What a protocol may do.

    def write(self, data: Any) -> None:
        if not self._closing:
            self._send(bytes(data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._closing:
            self._send(_EOF)
            self._lose(None)

    def abort(self) -> None:
        if not self._closing:
            self._send(_RESET)
            self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_reading(self) -> bool:
        return not self._paused

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for what in held:
            self._take(what)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass
