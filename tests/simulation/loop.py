"""An event loop without a clock, without threads and without sockets.

Time moves on only when nothing is left to do at this moment, and then at once to the next timer,
as with looptime. Unlike there, work that is handed to a thread is done on the loop, at a moment
that is drawn, one piece at a time for each executor; so a run depends on nothing but its seed, and
a failing one can be replayed.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from .network import Network

MAX_VIRTUAL_S = 3_000_000.0
"""A month: a run that takes longer does not end."""


class Stuck(BaseException):
    """Everything waits, and nothing will ever happen; or it goes on and on."""


class _NoDevices(selectors.SelectSelector):
    """Reports no event of the outside, ever, and turns waiting into time that passes."""

    def __init__(self, max_s: float) -> None:
        super().__init__()
        self.now_s = 0.0
        self.max_s = max_s

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("everything waits, and no timer is set")
        if timeout > 0:
            self.now_s += timeout
            if self.now_s > self.max_s:
                raise Stuck("it does not end")
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """See the module.

    Args:
        thread_s: Draws how many seconds a piece of work takes in a thread.
        max_s: What takes longer, in seconds, does not end.
    """

    network: Network

    def __init__(self, thread_s: Callable[[], float], *, max_s: float = MAX_VIRTUAL_S) -> None:
        self._devices = _NoDevices(max_s)
        super().__init__(self._devices)
        self._thread_s = thread_s
        self._free_at_s: dict[Executor, float] = {}

    def time(self) -> float:
        return self._devices.now_s

    def let_end(self) -> None:
        """Give what is being cleared away the time that it takes."""
        self._devices.max_s = math.inf

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:
        future = self.create_future()
        begins_s = self.time()
        if executor is not None:  # with one thread, as all of ours
            begins_s = max(begins_s, self._free_at_s.get(executor, 0.0))
        ends_s = begins_s + self._thread_s()
        if executor is not None:
            # Two timers for one moment may fire in any order.
            self._free_at_s[executor] = ends_s + 1e-6
        self.call_at(ends_s, self._do, future, func, args)
        return future

    def _do(self, future: asyncio.Future[Any], func: Any, args: Any) -> None:
        asyncio._set_running_loop(None)  # as in a thread, where `asyncio.run` is allowed
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - as a real executor does
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
        finally:
            asyncio._set_running_loop(self)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.network.knock(sock, address)

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any, **__: Any) -> Any:  # type: ignore[override]
        return self.network.connect(protocol_factory, sock)

    async def create_server(self, protocol_factory: Any, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        return self.network.listen(protocol_factory, host, port)
