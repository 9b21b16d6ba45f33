"""Runs a year: one service, one state file, and a command or more a night.

The program is the real one, from the export to the service's HTTP server, as in
`tests.simulation.world`: simulated are the clock, threads, connections, and what a crash leaves on
the disk. Time passes within a night; from one night to the next only the wall clock moves.

SQLite syncs its files by itself, and every commit is one call here, so that what a kill or a power
loss leaves of the state is what its files are at that moment; a power loss in the middle of
SQLite's own writing is not simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from bulk_updater.config import (
    ChangesConfig,
    ConnectionConfig,
    PacingConfig,
    RetryConfig,
    RunConfig,
    ScheduleConfig,
)
from bulk_updater.errors import BulkUpdaterError, RunStopped
from bulk_updater.pipeline.again import retry as retry_pipeline
from bulk_updater.pipeline.run import run as run_pipeline
from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.schedule import TimeOfDay
from bulk_updater.state import State
from tests.simulation.disk import Disk
from tests.simulation.fast import prepare
from tests.simulation.loop import SimulatedLoop, Stuck
from tests.simulation.network import Network
from tests.simulation.scenario import INSTANCE
from tests.simulation.watching import watch_io

from .export import mapping_path, write_mapping, write_source
from .history import Attempt, Dawn, Entry, Execution, History, Meddling
from .scenario import DAY_S
from .weather import BURST, RATE_PER_S, READ_TIMEOUT_S, Weather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.model import Request
    from tests.simulation.scenario import Ending

    from .scenario import Night, Year

FIRST_DAY_AT = 1_780_012_800.0
"""Midnight of a day, UTC, in seconds since the epoch."""

BEGINS_S, ENDS_S = 22 * 3600, 6 * 3600
"""When nights begin and end, in seconds since midnight, UTC."""

MAX_EXECUTIONS = 8
N_KEPT = 4
"""Run directories that are kept; only the last night's is ever asked for."""

_RUNNING: ContextVar[Execution | None] = ContextVar("running", default=None)


class World:
    """One year, once."""

    def __init__(self, year: Year, folder: Path) -> None:
        self.year = year
        self.history = History(year)
        self._rng = random.Random(f"{year.seed} world")
        # As long as a year of nights.
        self._loop = SimulatedLoop(self._thread_s, max_s=len(year.nights) * 12 * 3600.0)
        self._network = self._loop.network = Network(
            self._loop, random.Random(f"{year.seed} network"), 0.001
        )
        self._folder = folder
        self._runs = folder / "runs"
        self._runs.mkdir(mode=0o700)
        self._disk = Disk(
            self._runs,
            passing=self._passing,
            synced=lambda *_: None,
            whole=lambda name: name.startswith("state.sqlite"),
        )
        self._weather = Weather(year.seed, lambda: self._sandbox, self._network)
        self._epoch_at = 0.0
        self._execution: Execution | None = None
        self._task: asyncio.Task[Any] | None = None
        self._image: dict[Path, bytes] | None = None
        self._passed: Counter[str] = Counter()
        self._n_executions = 0
        self._dirs: dict[int, Path] = {}
        self._finished: set[int] = set()

    def run(self) -> History:
        """Play it to its end."""
        loop = self._loop
        try:
            with self._patched():
                try:
                    loop.run_until_complete(self._play())
                finally:
                    self._clear_away()
        finally:
            loop.close()
        self.history.faults = self._weather.happened
        return self.history

    def _clear_away(self) -> None:
        self._loop.let_end()
        for _ in range(10):  # a task may make another one while it ends
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                with contextlib.suppress(Stuck):
                    self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def now(self) -> float:
        """The wall clock, in seconds since the epoch."""
        return self._epoch_at + self._loop.time()

    def _thread_s(self) -> float:
        return self._rng.expovariate(1 / 0.002)

    # What ends a process.

    def _passing(self, point: str) -> None:
        execution = self._execution
        if execution is None or _RUNNING.get() is not execution or execution.crashed_s is not None:
            return
        self._passed[point] += 1
        ending = execution.ending
        if ending is not None and (ending.point, ending.nth) == (point, self._passed[point]):
            self._crash(execution)

    def _crash(self, execution: Execution) -> None:
        """The process ends here. What it does afterwards, it does in another world."""
        if execution.crashed_s is not None:
            return
        ending = execution.ending
        execution.crashed_s = self._loop.time()
        self.history.hit[f"{ending.kind}: {ending.point}"] += 1
        self._image = (
            self._disk.image()
            if ending.kind == "kill"
            else self._disk.image_after_power_loss(self._rng)
        )
        self._network.cut_off_clients()
        if self._task is not None:
            self._task.cancel()

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        world = self

        def around(name: str) -> Any:
            real = getattr(State, name)

            def watched(*args: Any) -> Any:
                world._passing(f"before {name}")
                result = real(*args)
                world._passing(f"after {name}")
                return result

            return mock.patch.object(State, name, watched)

        patches = [
            *watch_io(self._disk, passing=self._passing, wants=self._wants, watch=self._watch),
            around("mark"),
            around("confirm"),
        ]
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield

    def _wants(self, point: str) -> bool:
        execution = self._execution
        return (
            execution is not None
            and _RUNNING.get() is execution
            and execution.ending is not None
            and execution.ending.point == point
        )

    async def _watch(self, send: Any, request: Request) -> Any:
        """`Connect.send`, with a look at what goes in and what comes out."""
        execution = _RUNNING.get()
        if execution.crashed_s is not None:
            raise asyncio.CancelledError
        self._passing("before send")
        attempt = Attempt(
            execution=execution,
            operation=request.operation,
            contact=request.contact_id,
            row=request.row,
            begun_s=self._loop.time(),
        )
        self.history.attempts.append(attempt)
        execution.n_watched += 1
        try:
            receipt = await send(request)
        except BaseException as error:
            if execution.crashed_s is None:
                attempt.ended_s = self._loop.time()
                attempt.code = getattr(error, "code", None)
                attempt.throttled = getattr(error, "slug", None) == "throttled"
            raise
        if execution.crashed_s is None:
            attempt.ended_s = self._loop.time()
            attempt.succeeded = True
            self._passing("after send")
        return receipt

    # The story.

    async def _play(self) -> None:
        sandbox = self._sandbox = Sandbox(
            SandboxConfig(
                port=8080,
                rate_per_s=RATE_PER_S,
                burst=BURST,
                seed=self.year.seed,
                log_size=0,
            ),
            fault=self._weather.fault,
        )
        self._disk.begin()
        async with sandbox:
            for night in self.year.nights:
                self._dusk(night)
                if night.trouble != "missed":
                    await self._work(night)
                self._weather.end()
                await asyncio.sleep(60)  # whatever the service still has at hand
                self._look(night)

    def _dusk(self, night: Night) -> None:
        self._epoch_at = FIRST_DAY_AT + night.number * DAY_S + BEGINS_S - self._loop.time()
        write_mapping(self.year, night.version, self._folder)
        write_source(night, self._folder)
        old = self._dirs.pop(night.number - N_KEPT, None)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        self._disk.begin()
        self._weather.begin(night)
        contacts = self._sandbox.state.instances.setdefault(INSTANCE, {})
        for contact, key, value in night.meddles:
            if contact in contacts and key in contacts[contact].attributes:
                contacts[contact].attributes[key] = value
                self.history.events.append(Meddling(contact, key, value))

    async def _work(self, night: Night) -> None:
        """What is done in a night that is not missed."""
        nights = self.year.nights
        last = nights[night.number - 1] if night.number else None
        is_unfinished = (
            last is not None
            and last.number in self._dirs
            and last.number not in self._finished
            and not last.broken
            # One that ended before it noted anything has not begun.
            and (self._dirs[last.number] / "run.json").exists()
        )
        if night.trouble == "retry_late" and last and last.number in self._finished:
            await self._until_finished(night, "run")
            await self._execute(night, last, "retry")
            return
        supersedes = night.trouble == "supersede" and is_unfinished
        await self._until_finished(night, "run", supersede=last if supersedes else None)
        if (
            is_unfinished
            and night.trouble in ("late_resume", "calm")
            and (night.number in self._finished)
        ):
            await asyncio.sleep(30)
            await self._execute(night, last, "resume")
        if night.trouble == "retry" and night.number in self._finished:
            self._weather.end()
            self._epoch_at += 14 * 3600  # the next day
            await self._execute(night, night, "retry")

    async def _until_finished(
        self, night: Night, command: str, *, supersede: Night | None = None
    ) -> None:
        endings = list(night.endings)
        for _ in range(MAX_EXECUTIONS):
            execution = await self._execute(
                night,
                night,
                command,
                ending=endings.pop(0) if endings else None,
                supersede=supersede,
            )
            if execution.is_finished or not night.resumes:
                break
            # The machine takes longer to come back than the service to end what it was doing.
            await asyncio.sleep(20 + self._rng.random())

    def _config(self, night: Night, about: Night, supersede: Night | None) -> RunConfig:
        year = self.year
        until = TimeOfDay(ENDS_S, "Z") if night.for_s is None else None
        run_dir = self._runs / f"night-{about.number:03d}" if year.explicit_dirs else None
        return RunConfig(
            mapping=mapping_path(about.version, self._folder),
            sources=(self._folder / f"export-{about.number:03d}.csv",),
            run_dir=run_dir,
            runs_dir=self._runs,
            max_in_flight=year.max_in_flight,
            connection=ConnectionConfig(
                endpoint_url=self._sandbox.url,
                region="eu-west-1",
                access_key=("sandbox", "sandbox"),
                connect_timeout_s=5.0,
                read_timeout_s=READ_TIMEOUT_S,
                verify_ssl=False,
            ),
            pacing=PacingConfig(rate=year.rate),
            retry=RetryConfig(max_attempts=year.max_attempts, seed=year.seed),
            schedule=ScheduleConfig(until=until, for_s=night.for_s),
            changes=ChangesConfig(
                only_changed=True,
                refresh_s=year.refresh_s,
                verify_drift=1.0 if night.verifies else 0.0,
                max_change=night.max_change,
            ),
            supersede=self._dirs[supersede.number] if supersede else None,
        )

    async def _execute(
        self,
        night: Night,
        about: Night,
        command: str,
        *,
        ending: Ending | None = None,
        supersede: Night | None = None,
    ) -> Execution:
        """Give a command once, and see it to its end or to what ends it."""
        config = self._config(night, about, supersede)
        execution = self._note(night, about, command)
        execution.ending = ending
        self.history.hit[f"command: {command}{' --supersede' if supersede else ''}"] += 1
        execution.before, _ = self._results(about)
        self._execution = execution
        self._passed.clear()
        self._task = self._start(execution, config)
        beside = [asyncio.create_task(self._end_at_its_time(execution))]
        if night.trouble.startswith("overlap"):
            beside.append(asyncio.create_task(self._overlap(night, config)))
        await self._outlive(self._task, execution)
        beside[0].cancel()
        await asyncio.wait(beside)
        execution.ended_s = self._loop.time()
        self._execution = None
        if self._image is not None:
            execution.summary = None  # nobody heard it
            self._disk.restore(self._image)
            self._image = None
            self._network.refuses = self._weather.is_unreachable
        self._find_dir(about, config)
        execution.after, execution.n_lines = self._results(about)
        if execution.is_finished:
            self._finished.add(about.number)
        return execution

    def _note(self, night: Night, about: Night, command: str) -> Execution:
        begun_at = self.now()
        midnight = begun_at - begun_at % DAY_S
        six = midnight + ENDS_S + (DAY_S if begun_at % DAY_S >= ENDS_S else 0)
        execution = Execution(
            number=self._n_executions,
            night=about.number,
            at_night=night.number,
            command=command,
            begun_s=self._loop.time(),
            begun_at=begun_at,
            deadline_at=six if night.for_s is None else begun_at + night.for_s,
            verifies=night.verifies,
        )
        self._n_executions += 1
        self.history.events.append(execution)
        return execution

    def _start(self, execution: Execution, config: RunConfig) -> asyncio.Task[Any]:
        token = _RUNNING.set(execution)
        pipeline = run_pipeline
        if execution.command == "retry":
            pipeline = retry_pipeline
            config = replace(config, run_dir=self._dirs[execution.night])
        try:
            return asyncio.create_task(pipeline(config, now=self.now))
        finally:
            _RUNNING.reset(token)

    async def _outlive(self, task: asyncio.Task[Any], execution: Execution) -> None:
        """Wait for the command, and note how it ended."""
        try:
            execution.summary = await task
        except RunStopped as stopped:
            execution.summary = stopped.summary
            execution.error, execution.error_kind = stopped.message, "RunStopped"
        except BulkUpdaterError as error:
            execution.error, execution.error_kind = error.message, type(error).__name__
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():
                raise  # it is the year itself that is cleared away
            execution.error = "cancelled"

    async def _end_at_its_time(self, execution: Execution) -> None:
        ending = execution.ending
        if ending is not None and ending.point == "time":
            await asyncio.sleep(ending.nth)
            self._crash(execution)

    async def _overlap(self, night: Night, config: RunConfig) -> None:
        """A second command while the first works: the same, or tomorrow's that comes too early."""
        await asyncio.sleep(1.0)
        about = night
        if night.trouble == "overlap_other":
            if night.number + 1 == len(self.year.nights):
                return
            about = self.year.nights[night.number + 1]
            write_mapping(self.year, about.version, self._folder)
            write_source(about, self._folder)
            config = self._config(night, about, None)
        if self._execution is None or self._task.done():
            return
        execution = self._note(night, about, "rival")
        await self._outlive(self._start(execution, config), execution)
        execution.ended_s = self._loop.time()
        self.history.hit[f"{night.trouble}: {execution.error_kind}"] += 1

    # What is looked at.

    def _find_dir(self, about: Night, config: RunConfig) -> None:
        if config.run_dir is not None:
            self._dirs[about.number] = config.run_dir
            return
        found = list(self._runs.glob(f"mapping/export-{about.number:03d}-*"))
        if found:
            self._dirs[about.number] = found[0]

    def _results(self, about: Night) -> tuple[dict[tuple[int, str], str], Counter[tuple[int, str]]]:
        """What stands in the ledger of an export's run, and how many lines each result has."""
        results: dict[tuple[int, str], str] = {}
        n_lines: Counter[tuple[int, str]] = Counter()
        path = self._dirs.get(about.number, self._runs / "none") / "ledger.jsonl"
        if not path.exists():
            return results, n_lines
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                record = json.loads(line)
            except ValueError:
                break  # the torn tail
            key = record["row"], record["operation"]
            results[key] = record["outcome"]
            n_lines[key] += 1
        return results, n_lines

    def _look(self, night: Night) -> None:
        service = self._sandbox.state.to_json().get(INSTANCE, {})
        self.history.events.append(Dawn(night.number, service, self._entries()))

    def _entries(self) -> list[Entry]:
        path = self._runs / "state.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT operation, contact, key, digest, sent FROM applied "
                "JOIN scopes ON scopes.id = applied.scope"
            ).fetchall()
        return [
            Entry(operation, contact, key, digest and int.from_bytes(digest, "big"), sent is None)
            for operation, contact, key, digest, sent in rows
        ]


def play(year: Year) -> History:
    """Run a year in a directory of its own, in memory where the system has some."""
    prepare()
    logging.getLogger("bulk_updater").setLevel(logging.CRITICAL)
    memory = Path("/dev/shm")
    root = memory if memory.is_dir() else None
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix="nights-") as folder:
            return World(year, Path(folder)).run()
    finally:
        logging.getLogger("bulk_updater").setLevel(logging.INFO)
