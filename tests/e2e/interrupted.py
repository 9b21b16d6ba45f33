"""Processes that get a signal in a phase of a run, as if it came from outside at that moment.

`python -m tests.e2e.interrupted` is `warm` with a phase and some signals for each process. A phase
begins where the program calls the function that is named here; a name that it does not have any
more is an AttributeError.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import bulk_updater.cli.run as cli_run
from bulk_updater.connect import client
from bulk_updater.connect.client import Connect
from bulk_updater.ledger import rundir, writer
from bulk_updater.pipeline import failed, job
from bulk_updater.pipeline.sender import Sender
from bulk_updater.readers.delimited import DelimitedSource
from tests.e2e.warm import serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PHASES", "around", "prepare"]

PHASES: dict[str, tuple[Any, str, int]] = {
    "options": (cli_run, "make_run_config", 1),
    "mapping": (job, "load_spec", 1),
    "fingerprint": (DelimitedSource, "fingerprint", 1),
    "count": (DelimitedSource, "count_rows", 1),
    "lock": (rundir.RunDir, "_lock", 1),
    "run.json": (rundir, "write_atomically", 1),
    "ledger": (writer, "recover", 1),
    "connection": (client, "open_session", 1),
    "quotas": (Connect, "read_quotas", 1),
    "first request": (Connect, "send", 1),
    "sending": (Connect, "send", 20),
    "sync": (writer.Ledger, "_write_and_sync", 5),
    "drain": (Sender, "drain", 1),
    "failed.csv": (failed, "_write", 1),
    "last run.json": (rundir, "write_atomically", 2),
    "closing": (asyncio.BaseEventLoop, "shutdown_default_executor", 1),
    "printing": (cli_run, "print_summary", 1),
    "exit": (cli_run, "exit_code", 1),
}
"""For each phase the function that it begins with, and at which of its calls."""


IN_MAIN_THREAD = ("shutdown_default_executor",)
"""Functions whose calls in other threads are of other event loops than the run's."""


def around(
    owner: Any, name: str, *, before: Callable[[], Any] = bool, after: Callable[[], Any] = bool
) -> None:
    """Have something called before and after each call of a function of the program."""
    original = getattr(owner, name)  # which fails where there is none

    @functools.wraps(original)
    def called(*args: Any, **settings: Any) -> Any:
        before()
        result = original(*args, **settings)
        after()
        return result

    @functools.wraps(original)
    async def awaited(*args: Any, **settings: Any) -> Any:
        before()
        result = await original(*args, **settings)
        after()
        return result

    setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else called)


def prepare(request: dict[str, Any] | None) -> None:
    """Set up what a process is to get when, and to tell of."""
    if request is None:
        return
    owner, name, n_calls = PHASES[request["phase"]]

    def count() -> None:
        nonlocal n_calls
        if name in IN_MAIN_THREAD and threading.current_thread() is not threading.main_thread():
            return
        n_calls -= 1
        if n_calls == 0:
            os.write(2, b"the phase has begun\n")
            for number in request["signals"]:
                os.kill(os.getpid(), signal.Signals[number])

    around(owner, name, before=count)


if __name__ == "__main__":
    serve(prepare)
