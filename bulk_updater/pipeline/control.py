"""Steering a run while it goes on.

    Helm      what an execution has been told, by whomever: a signal, the clock, a person
    obeying   tells it what `bulk-updater ctl` writes into the run directory

Commands come in as lines of `control.jsonl`, and what was done about each is noted in `log.jsonl`
beside it, by the command's id. The run looks at the file's size twice a second, from the size that
it had when the run began: what was told to an earlier execution is never obeyed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from bulk_updater.files import private_opener, reason
from bulk_updater.model import to_iso

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from bulk_updater.pacing import Pacer

__all__ = ["COMMANDS", "CONTROL", "CTL", "LOG", "Command", "Helm", "obeying", "parse_command"]

log = logging.getLogger(__name__)

CONTROL: Final = "control.jsonl"
"""The file in a run directory that commands are appended to."""

LOG: Final = "log.jsonl"
"""The file beside it that says what became of them."""

COMMANDS: Final = ("pause", "resume", "rate", "drain")

CTL: Final = "ctl"
"""The reason of a pause that a person asked for."""

_LOOKS_EVERY_S: Final = 0.5
_MOST_BYTES: Final = 65_536
"""Read at once: some hundreds of commands. What is longer without a line end is none."""


class Helm:
    """What an execution is told. Belongs to one event loop.

    Attributes:
        stop: Set once nothing is to be begun any more.
        met_deadline: Whether that was for a deadline.
        limit_per_s: Requests of each operation per second that a person allows; None: any number.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.met_deadline = False
        self.limit_per_s: float | None = None
        self._pauses: set[str] = set()
        self._goes = asyncio.Event()
        self._goes.set()
        self._pacer: Pacer | None = None

    @property
    def pauses(self) -> list[str]:
        """Who wants a pause, in alphabetical order; empty where nobody does."""
        return sorted(self._pauses)

    def attach(self, pacer: Pacer) -> None:
        """From now on there is something to steer; what was told before holds for it, too."""
        self._pacer = pacer
        pacer.limit(self.limit_per_s)
        for reason_why in self._pauses:
            pacer.pause(reason_why)

    def pause(self, reason_why: str) -> None:
        """Begin no attempt until every reason to pause is taken back."""
        self._pauses.add(reason_why)
        self._goes.clear()
        if self._pacer is not None:
            self._pacer.pause(reason_why)

    def resume(self, reason_why: str) -> None:
        """Take a reason to pause back."""
        self._pauses.discard(reason_why)
        if not self._pauses:
            self._goes.set()
        if self._pacer is not None:
            self._pacer.resume(reason_why)

    def limit(self, rate_per_s: float | None) -> None:
        """Allow this many requests of each operation per second at the most; None lifts it."""
        self.limit_per_s = rate_per_s
        if self._pacer is not None:
            self._pacer.limit(rate_per_s)

    async def until_it_goes(self) -> None:
        """Return when there is no reason to pause."""
        await self._goes.wait()


class Command(NamedTuple):
    """What a person wants of a run.

    Attributes:
        id: By which it is noted.
        command: One of `COMMANDS`.
        rate_per_s: For `rate`: requests of each operation per second; None lifts the limit.
    """

    id: str
    command: str
    rate_per_s: float | None = None


def parse_command(line: bytes) -> Command | None:
    """A line of `control.jsonl`; None where it is no command."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict):
        return None
    name, command, value = (record.get(key) for key in ("id", "command", "value"))
    if not isinstance(name, str) or command not in COMMANDS:
        return None
    if command != "rate" or value is None:
        return Command(name, command)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return None
    return Command(name, command, float(value))


@asynccontextmanager
async def obeying(
    run_dir: Path, helm: Helm, *, run_id: str, now: Callable[[], float]
) -> AsyncIterator[None]:
    """Do what is written into a run directory's `control.jsonl` while inside.

    Where the file cannot be used the run goes on without, and says so.

    Args:
        run_dir: The directory, whose lock is held.
        helm: What to steer by.
        run_id: The run, for the notes.
        now: Seconds since the epoch, for the notes.
    """
    try:
        fd = await asyncio.to_thread(os.open, run_dir / CONTROL, _FLAGS, 0o600)
    except OSError as error:
        log.warning(
            "%s cannot be used: %s. The run goes on, but `bulk-updater ctl` does not reach it.",
            run_dir / CONTROL,
            reason(error),
        )
        yield
        return
    task = asyncio.create_task(_Obeying(fd, run_dir / LOG, helm, run_id, now).go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        os.close(fd)


_FLAGS: Final = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC


class _Obeying:
    def __init__(
        self, fd: int, log_path: Path, helm: Helm, run_id: str, now: Callable[[], float]
    ) -> None:
        self._fd = fd
        self._log_path = log_path
        self._helm = helm
        self._run_id = run_id
        self._now = now
        self._read_to = os.fstat(fd).st_size

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOKS_EVERY_S)
            # Of an open file, from memory: this needs no thread, unlike reading it.
            size = os.fstat(self._fd).st_size
            self._read_to = min(self._read_to, size)  # somebody emptied it
            while size > self._read_to and await self._read():
                pass

    async def _read(self) -> bool:
        """Obey what has come in; False where that is nothing but the beginning of a line."""
        data = await asyncio.to_thread(os.pread, self._fd, _MOST_BYTES, self._read_to)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == _MOST_BYTES:
            whole = len(data)
        self._read_to += whole
        for line in data[:whole].splitlines():
            if line.strip():
                await self._obey(parse_command(line))
        return bool(whole)

    async def _obey(self, command: Command | None) -> None:
        if command is None:
            log.warning("A line of %s is no command; it was ignored.", CONTROL)
            await self._note({"event": "ignored"})
            return
        self._do(command)
        note: dict[str, Any] = {"id": command.id, "event": command.command}
        if self._helm.pauses:
            note["paused_by"] = self._helm.pauses
        if self._helm.limit_per_s is not None:
            note["limit_per_s"] = self._helm.limit_per_s
        await self._note(note)

    def _do(self, command: Command) -> None:
        helm = self._helm
        match command.command:
            case "pause":
                helm.pause(CTL)
                log.info("Paused, as ctl says: what is in flight is settled.")
            case "resume":
                helm.resume(CTL)
                log.info("Goes on, as ctl says.")
            case "rate" if command.rate_per_s is None:
                helm.limit(None)
                log.info("The limit of the rate is lifted, as ctl says.")
            case "rate":
                helm.limit(command.rate_per_s)
                log.info("At most %g requests a second, as ctl says.", command.rate_per_s)
            case _:
                helm.stop.set()
                log.warning("Stopping, as ctl says: what is under way is settled first.")

    async def _note(self, what: dict[str, Any]) -> None:
        record = {"at": to_iso(self._now()), "run_id": self._run_id, **what, "by": CTL}
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        try:
            await asyncio.to_thread(_append, self._log_path, line)
        except OSError as error:
            log.warning("%s cannot be written: %s.", self._log_path, reason(error))


def _append(path: Path, line: bytes) -> None:
    """Append a line in one write, so that it is there whole or not at all."""
    with _opened(path) as fd:
        os.write(fd, line)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = private_opener(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        yield fd
    finally:
        os.close(fd)
