"""Runs a scenario: the service, and execution after execution until all is settled.

Everything between the export and the service is the program's own, down to aiohttp and the
sandbox's HTTP server. Simulated are the clock, threads, connections, and what a crash leaves on
the disk. A process that crashed is unwound in a world of its own: its disk was copied before, its
connections are cut, and nothing that it still does is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import functools
import json
import logging
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

from bulk_updater.config import (
    ConnectionConfig,
    MaxFailures,
    PacingConfig,
    RetryConfig,
    RunConfig,
    ScheduleConfig,
)
from bulk_updater.errors import BulkUpdaterError, LedgerLocked, RunStopped
from bulk_updater.mapping import spec
from bulk_updater.pipeline import sender as sender_module
from bulk_updater.pipeline import sending
from bulk_updater.pipeline.again import retry as retry_pipeline
from bulk_updater.pipeline.run import run as run_pipeline
from bulk_updater.readers import delimited, parquet
from bulk_updater.sandbox import Sandbox, SandboxConfig

from .disk import Disk
from .export import number_in, row_numbers, write_mapping, write_sources, written_by
from .fast import prepare
from .history import Arrival, Attempt, Execution, History, Line
from .loop import SimulatedLoop, Stuck
from .network import Network
from .scenario import ATTRIBUTES, CONTACT, NEWER_ROWS
from .watching import watch_io
from .weather import Weather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from bulk_updater.model import Request, RunSummary

    from .scenario import Ending, Episode, Newer, Retry, Scenario

EPOCH_S = 1_780_000_000.0
"""The time of day at which a scenario begins, in seconds since the epoch."""

MAX_EXECUTIONS = 60


class World:
    """One scenario, once."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.history = History(scenario)
        self._rng = random.Random(f"{scenario.seed} world")
        self._loop = SimulatedLoop(self._thread_s)
        self._network = self._loop.network = Network(
            self._loop, random.Random(f"{scenario.seed} network"), scenario.network_s
        )
        self._folder = folder
        self._row_numbers = row_numbers(scenario.rows)
        self._last_sent: dict[tuple[str, str], int] = {}
        self._disk_folder = folder / "disk"
        self._run_dir = self._disk_folder / "run"
        self._disk_folder.mkdir()
        self._disk = Disk(self._disk_folder, passing=self._passing, synced=self._synced)
        self._weather = Weather(scenario, self._loop.time, self._weather_row)
        self._execution: Execution | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stop = asyncio.Event()
        self._image: dict[Path, bytes] | None = None
        self._passed: Counter[str] = Counter()
        self._senders: list[Any] = []
        self._ledger_lines = 0

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
        return self.history

    def _clear_away(self) -> None:
        """End what is left when a scenario is stuck, or a test would hear of it at its end."""
        self._loop.let_end()
        for _ in range(10):  # a task may make another one while it ends
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                with contextlib.suppress(Stuck):
                    self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    # The parts of the world that are not the program's.

    def _thread_s(self) -> float:
        return self._rng.expovariate(1 / self.scenario.thread_s)

    def _passing(self, point: str) -> None:
        self._passed[point] += 1
        ending = self._execution.ending if self._execution and self._is_alive else None
        if ending is None or (ending.point, ending.nth) != (point, self._passed[point]):
            return
        if ending.kind in ("kill", "power"):
            self._crash(point)
        elif ending.kind != "disk":
            self._tell_to_stop(point)
            if ending.kind == "cancel" and self._task is not None:
                self._task.cancel()

    @property
    def _is_alive(self) -> bool:
        return self._execution is not None and self._execution.crashed_s is None

    def _crash(self, point: str) -> None:
        """The process ends here. What it does afterwards, it does in another world."""
        execution = self._execution
        if execution is None or execution.crashed_s is not None:
            return
        kind = execution.ending.kind if execution.ending else "kill"
        execution.crashed_s = self._loop.time()
        self.history.hit[f"{kind}: {point}"] += 1
        self._image = (
            self._disk.image() if kind == "kill" else self._disk.image_after_power_loss(self._rng)
        )
        self._network.cut_off_clients()
        if self._task is not None:
            self._task.cancel()

    def _synced(self, path: Path, data: bytes) -> None:
        if path != self._ledger_path or not self._is_alive:
            return
        for each in data.split(b"\n")[self._ledger_lines : -1]:
            line = _line_of(each)
            if line is None:
                continue  # the oracle will find it
            self.history.durable_first_s.setdefault(
                (self._execution.number, *line.key), self._loop.time()
            )
        self._ledger_lines = data.count(b"\n")

    def _hear(self, record: logging.LogRecord) -> bool:
        if self._is_alive:
            self._execution.said.append(record.getMessage())
        return False

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        world = self

        class Sender(sender_module.Sender):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                world._senders.append(self)

        patches = [
            *watch_io(self._disk, passing=self._passing, wants=self._wants, watch=self._watch),
            mock.patch.object(sending, "Sender", Sender),
            # One mapping for all executions; parsing it is most of what they do in common.
            mock.patch.object(spec, "parse_spec", functools.lru_cache(spec.parse_spec)),
            mock.patch.object(delimited, "MAX_FRAME_ROWS", self.scenario.frame_rows),
            mock.patch.object(parquet, "_BATCH_ROWS", self.scenario.frame_rows),
        ]
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            for part in ("run", "execution", "sending"):
                log = logging.getLogger(f"bulk_updater.pipeline.{part}")
                log.addFilter(self._hear)
                stack.callback(log.removeFilter, self._hear)
            yield

    def _wants(self, point: str) -> bool:
        ending = self._execution.ending if self._execution else None
        return ending is not None and ending.point == point

    async def _watch(self, send: Any, request: Request) -> Any:
        """`Connect.send`, with a look at what goes in and what comes out."""
        if not self._is_alive:
            raise asyncio.CancelledError
        self._passing("before send")
        attempt = Attempt(
            execution=self._execution.number,
            operation=request.operation,
            contact=request.contact_id,
            row=request.row,
            members=request.params,
            begun_s=self._loop.time(),
        )
        self.history.attempts.append(attempt)
        self._last_sent[attempt.lane] = attempt.row
        if self._config.supersede is not None and self._execution.older is None:
            self._execution.older = self._durable_of(self._config.supersede)
        try:
            receipt = await send(request)
        except BulkUpdaterError as error:
            if self._is_alive:
                attempt.ended_s = self._loop.time()
                attempt.code = error.code
                attempt.throttled = error.slug == "throttled"
                attempt.rejected = error.slug == "rejected"
            raise
        if self._is_alive:
            attempt.ended_s = self._loop.time()
            attempt.request_id = receipt.request_id
            self._passing("after send")
        return receipt

    def _durable_of(self, run_dir: Path) -> tuple[bytes, dict[str, Any]]:
        """What is durable of a run directory's ledger and of what it notes."""
        note = self._disk.durable(run_dir / "run.json")
        return self._disk.durable(run_dir / "ledger.jsonl"), json.loads(note or b"{}")

    # The story.

    async def _play(self) -> None:
        scenario = self.scenario
        folder = self._folder
        mapping = write_mapping(scenario, folder)
        sources = write_sources(scenario, folder)
        self._disk.begin()
        sandbox = Sandbox(
            SandboxConfig(
                port=8080,
                rate_per_s=scenario.service_rate_per_s,
                burst=scenario.service_burst,
                live_per_s=scenario.live_per_s,
                latency_ms=scenario.latency_ms,
                latency_jitter=scenario.latency_jitter,
                seed=scenario.seed,
                log_size=100_000,
            ),
            fault=self._weather.fault,
        )
        async with sandbox:
            self._observe(sandbox)
            self._config = self._make_config(mapping, sources, sandbox.url)
            newer = scenario.newer
            async with self._in_weather(sandbox, scenario.episodes):
                if scenario.has_whole_run:
                    await self._execute_until_finished()
                else:
                    await self._leave_unfinished(scenario.endings)
            for retry in scenario.retries:
                self._take_snapshot(sandbox)
                async with self._in_weather(sandbox, retry.episodes):
                    await self._retry(retry, is_left=newer is not None)
            if newer is not None:
                await self._supersede(sandbox, newer)
            self._look(sandbox)
        self.history.faults = self._weather.happened

    @contextlib.asynccontextmanager
    async def _in_weather(
        self, sandbox: Sandbox, episodes: tuple[Episode, ...]
    ) -> AsyncIterator[None]:
        """What goes on for a while; behind it nothing is under way."""
        self._weather.begin(sandbox, self._network, self.history.scenario)
        turns = asyncio.create_task(self._weather.turn(sandbox, self._network, episodes))
        try:
            yield
        finally:
            turns.cancel()
        await asyncio.sleep(60)  # whatever the service still has at hand

    def _look(self, sandbox: Sandbox) -> None:
        """Note how everything is, now that nothing is under way."""
        history = self.history
        mine = {each.request_id for each in history.arrivals}
        history.writes = [each for each in sandbox.state.log if each.request_id in mine]
        history.state = sandbox.state.to_json()
        history.ledger = self._ledger_path.read_bytes()
        history.note = json.loads((self._run_dir / "run.json").read_bytes())
        history.modes = {
            str(path.relative_to(self._disk_folder)): path.stat().st_mode & 0o777
            for path in self._disk_folder.rglob("*")
        }
        failed = self._run_dir / "failed.csv"
        history.failed_rows = _failed_rows(failed) if failed.exists() else set()

    def _take_snapshot(self, sandbox: Sandbox) -> None:
        self._look(sandbox)
        history = self.history
        kept = {name: list(getattr(history, name)) for name in ("executions", "attempts")}
        history.snapshots.append(replace(history, snapshots=[], **kept))

    @property
    def _ledger_path(self) -> Path:
        return self._run_dir / "ledger.jsonl"

    def _row_of(self, operation: str, contact: str, members: dict[str, Any]) -> int:
        """The row of the export that a request was made for, as the service hears it."""
        number = number_in(operation, members)
        if number is None:
            # Requests of one contact go one after the other: it is what was sent last.
            return self._last_sent.get((operation, contact), 0)
        return self._row_numbers.get(number, 0)

    def _weather_row(self, operation: str, members: dict[str, Any]) -> int:
        contact = members.get("InitialContactId") or members["ContactId"]
        row = self._row_of(operation, contact, members)
        return row if self.history.older is None else NEWER_ROWS + row

    def _observe(self, sandbox: Sandbox) -> None:
        service = sandbox._entered()
        answer = service.answer

        async def observed(request: Any, request_id: str) -> Any:
            operation = ATTRIBUTES if request.path == "/contact/attributes" else CONTACT
            if request.method == "POST" and request.path.startswith("/contact"):
                members = json.loads(request.body)
                if operation == CONTACT:
                    _, _, instance_id, contact_id = request.path.split("/")
                    members |= {"InstanceId": instance_id, "ContactId": contact_id}
                contact = members.get("InitialContactId") or members["ContactId"]
                self.history.arrivals.append(
                    Arrival(
                        at_s=self._loop.time(),
                        operation=operation,
                        contact=contact,
                        row=self._row_of(operation, contact, members),
                        written=written_by(operation, members),
                        request_id=request_id,
                    )
                )
            return await answer(request, request_id)

        service.answer = observed  # type: ignore[method-assign]

    def _make_config(self, mapping: Path, sources: tuple[Path, ...], url: str) -> RunConfig:
        scenario = self.scenario
        return RunConfig(
            mapping=mapping,
            sources=sources,
            run_dir=self._run_dir,
            runs_dir=self._disk_folder,
            max_in_flight=scenario.max_in_flight,
            max_waiting=scenario.max_waiting,
            connection=ConnectionConfig(
                endpoint_url=url,
                region="eu-west-1",
                access_key=("sandbox", "sandbox"),
                connect_timeout_s=5.0,
                read_timeout_s=scenario.read_timeout_s,
                verify_ssl=False,  # no TLS here, and trusting nobody takes no time
            ),
            pacing=PacingConfig(rate=scenario.rate, exclusive=scenario.exclusive),
            retry=RetryConfig(max_attempts=scenario.max_attempts, seed=scenario.seed),
            max_failures=MaxFailures(in_a_row=scenario.max_failures, share=None),
        )

    async def _execute_until_finished(
        self, between: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Give the run's command until it has ended by itself.

        Args:
            between: Called once when an execution that had sent something was ended early.
        """
        scenario = self.history.scenario
        endings = list(scenario.endings)
        for number in range(MAX_EXECUTIONS):
            execution = await self._execute(endings.pop(0) if endings else None)
            summary = execution.summary
            is_first_part = number == 0 and scenario.first_limit is not None
            if summary is not None and summary.state == "finished" and not is_first_part:
                # Once more, now and then: there is nothing left that it could do wrong.
                endings = endings[:1] if endings and number < 2 else []
                if not endings:
                    break
            await self._until_it_is_back()
            if between is not None and self.history.attempts:
                await between()
                between = None
            if not endings and number > len(scenario.endings) + 2:
                self._weather.clear_up(self._network)

    async def _leave_unfinished(self, endings: tuple[Ending, ...]) -> None:
        """Let the run's executions end as drawn, and do not come back to it."""
        for ending in endings:
            await self._execute(ending)
            await self._until_it_is_back()
        while not (self._run_dir / "run.json").exists():
            # It ended before it noted that there is a run: nobody could take over from that.
            await self._execute(None)
            await self._until_it_is_back()

    async def _until_it_is_back(self) -> None:
        """The machine takes longer to come back than the service to end what it was doing."""
        await asyncio.sleep(20 + self._rng.random())

    async def _retry(self, retry: Retry, *, is_left: bool) -> None:
        """Give the command until it ends by itself; or, if it is left, as often as it is ended."""
        codes: tuple[str, ...] = ()
        if retry.by_code:
            standing = {line.key: line for line in self._lines_on_disk()}.values()
            there = sorted({line.code for line in standing if line.outcome == "FAILED"})
            codes = (self._rng.choice(there),) if there else ()
        endings = list(retry.endings)
        for number in range(MAX_EXECUTIONS):
            ending = endings.pop(0) if endings else None
            execution = await self._execute(ending, command="retry", codes=codes)
            summary = execution.summary
            if not endings and (is_left or (summary is not None and summary.state == "finished")):
                break
            await self._until_it_is_back()
            if number > len(retry.endings) + 2:
                self._weather.clear_up(self._network)

    async def _supersede(self, sandbox: Sandbox, newer: Newer) -> None:
        """The newer export's run, which takes over from what was done until now."""
        older, older_config, older_numbers = self.history, self._config, self._row_numbers
        older.ledger_left = self._ledger_path.read_bytes() if self._ledger_path.exists() else b""
        scenario = self.scenario.of_newer()
        folder = self._folder / "newer"
        folder.mkdir()
        self.history = history = History(scenario, older=older)
        self._run_dir = self._disk_folder / "newer"
        self._row_numbers = row_numbers(scenario.rows)
        self._config = config = replace(
            older_config,
            sources=write_sources(scenario, folder),
            run_dir=self._run_dir,
            supersede=older_config.run_dir,
        )

        async def try_older() -> None:
            """Nobody should, but cron may."""
            self.history, self._config = older, older_config
            self._run_dir, self._row_numbers = older_config.run_dir, older_numbers
            await self._execute(None, command=newer.again)
            await self._until_it_is_back()
            self._look(sandbox)
            self.history, self._config = history, config
            self._run_dir, self._row_numbers = config.run_dir, row_numbers(scenario.rows)

        async with self._in_weather(sandbox, newer.episodes):
            await self._execute_until_finished(between=try_older if newer.again else None)
            if newer.again:
                await try_older()
        self.history, self._run_dir = older, older_config.run_dir
        self._look(sandbox)
        self.history, self._run_dir = history, config.run_dir

    async def _execute(
        self,
        ending: Ending | None,
        *,
        command: Literal["run", "retry"] = "run",
        codes: tuple[str, ...] = (),
    ) -> Execution:
        """Give the command once, and see it to its end or to what ends it."""
        scenario = self.history.scenario
        number = len(self.history.executions)
        config = self._config
        if number == 0:
            config = replace(config, limit=scenario.first_limit)
        else:
            config = replace(config, max_in_flight=scenario.resumed_in_flight)
        if ending is not None and ending.kind == "deadline":
            config = replace(config, schedule=ScheduleConfig(for_s=ending.nth))
        if command == "retry" and ending is None:
            # What always fails would stop it at the same row again and again.
            config = replace(config, max_failures=MaxFailures(in_a_row=None, share=None))
        execution = self._begin(
            Execution(
                number,
                self._loop.time(),
                ending,
                config.max_in_flight,
                command=command,
                codes=codes,
            )
        )
        others = asyncio.all_tasks()
        pipeline = run_pipeline
        if command == "retry":
            pipeline = functools.partial(retry_pipeline, codes=codes)
        self._task = asyncio.create_task(
            pipeline(
                config,
                progress=execution.progress,
                stop=self._stop,
                now=lambda: EPOCH_S + self._loop.time(),
            )
        )
        beside = [
            asyncio.create_task(self._end_at_its_time(ending)),
            asyncio.create_task(self._rival(scenario.rival and number == 0)),
        ]
        await self._outlive(self._task, execution)
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        execution.ended_s = self._loop.time()
        execution.left_over = self._left_over(others, execution)
        self._end(execution)
        return execution

    def _begin(self, execution: Execution) -> Execution:
        history, ending = self.history, execution.ending
        history.executions.append(execution)
        execution.before = tuple(self._lines_on_disk())
        self._ledger_lines = len(execution.before)
        self._execution = execution
        self._passed.clear()
        self._stop = asyncio.Event()
        self._senders.clear()
        self._disk.fail_next = {}
        if ending is not None and ending.kind == "disk":
            self._disk.fail_next[ending.point] = int(ending.nth)
        return execution

    async def _outlive(self, task: asyncio.Task[RunSummary], execution: Execution) -> None:
        """Wait for the run, and note how it ended."""
        try:
            execution.summary = await task
        except RunStopped as stopped:
            execution.summary = stopped.summary
            execution.error = stopped.message
        except BulkUpdaterError as error:
            execution.error = f"{type(error).__name__}: {error.message}"
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():
                raise  # it is the scenario itself that is cleared away
            execution.error = "cancelled"

    def _end(self, execution: Execution) -> None:
        ending = execution.ending
        if ending is not None and ending.kind == "deadline":
            due_s = execution.begun_s + ending.nth
            if execution.ended_s >= due_s:
                # The wall clock is a little coarser than the loop's.
                execution.stop_s = due_s + 1e-3
                self.history.hit["deadline: time"] += 1
        if self._disk.failed:
            self.history.hit[f"disk: {execution.ending.point}"] += 1
            self._disk.failed = 0
        self._execution = None
        if self._image is not None:
            execution.summary = None  # nobody heard it
            self._disk.restore(self._image)
            self._image = None
            self._network.refuses = self._weather.is_unreachable

    def _left_over(self, others: set[Any], execution: Execution) -> list[str]:
        """What an execution did not give back."""
        left = [
            f"task {task.get_coro().__qualname__}"
            for task in asyncio.all_tasks() - others
            # The service's own live on.
            if not task.done() and "aiohttp/web" not in task.get_coro().cr_code.co_filename
        ]
        for sender in self._senders:
            if sender._slots._value != execution.max_in_flight:
                left.append(f"{sender._slots._value} slots of {execution.max_in_flight}")
            if sender._lanes or sender._n_waiting or sender._busy:
                left.append(f"lanes {sender._lanes}, {sender._n_waiting} waiting")
        if execution.progress.in_flight:
            left.append(f"{execution.progress.in_flight} in flight")
        return left

    async def _end_at_its_time(self, ending: Ending | None) -> None:
        if ending is None or ending.kind == "deadline":
            return
        if ending.stop_s is not None:
            await asyncio.sleep(ending.stop_s)
            self._tell_to_stop("time, and killed")
        if ending.point != "time":
            return
        await asyncio.sleep(ending.nth)
        if ending.kind in ("kill", "power"):
            self._crash("time")
            return
        self._tell_to_stop("time")
        if ending.kind == "cancel" and self._task is not None:
            await asyncio.sleep(self._rng.choice([0.0, 0.05, 1.0]))
            self._task.cancel()

    def _tell_to_stop(self, point: str) -> None:
        if self._is_alive and not self._stop.is_set():
            self.history.hit[f"{self._execution.ending.kind}: {point}"] += 1
            self._stop.set()
            self._execution.stop_s = self._loop.time()

    async def _rival(self, wanted: bool) -> None:
        """A second process in the same directory, as a cron job that comes too early."""
        if not wanted:
            return
        await asyncio.sleep(0.2)
        config = replace(self._config, pacing=PacingConfig(rate=1.0))
        if not (self._run_dir / "lock").exists():
            return
        try:
            await run_pipeline(config, now=lambda: EPOCH_S)
        except LedgerLocked:
            self.history.rival_refused = True
        except asyncio.CancelledError:
            raise
        else:
            self.history.rival_refused = False

    def _lines_on_disk(self) -> Iterator[Line]:
        path = self._ledger_path
        if not path.exists():
            return
        for each in path.read_bytes().split(b"\n")[:-1]:
            line = _line_of(each)
            if line is None:
                return  # the torn tail
            yield line


def _line_of(line: bytes) -> Line | None:
    """What a line of the ledger says; None where it is no record."""
    try:
        record = json.loads(line)
        return Line(
            record["row"], record["operation"], record["outcome"], record.get("error_code", "")
        )
    except (ValueError, TypeError, KeyError):
        return None


def _failed_rows(path: Path) -> set[int]:
    with path.open(newline="", encoding="utf-8") as file:
        return {int(each["_row"]) for each in csv.DictReader(file)}


def play(scenario: Scenario) -> History:
    """Run a scenario in a directory of its own, in memory where the system has some."""
    prepare()
    memory = Path("/dev/shm")
    root = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=root, prefix="simulation-") as folder:
        return World(scenario, Path(folder)).run()
