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
import os
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from bulk_updater.config import (
    ConnectionConfig,
    MaxFailures,
    PacingConfig,
    RetryConfig,
    RunConfig,
)
from bulk_updater.connect import client as connect_client
from bulk_updater.errors import BulkUpdaterError, LedgerLocked, RunStopped
from bulk_updater.ledger import writer as ledger_writer
from bulk_updater.pipeline import sender as sender_module
from bulk_updater.pipeline.run import run as run_pipeline
from bulk_updater.readers import delimited, parquet
from bulk_updater.sandbox import Sandbox, SandboxConfig

from .disk import Disk
from .export import row_of, write_mapping, write_sources, written_by
from .fast import prepare
from .history import Arrival, Attempt, Execution, History
from .loop import SimulatedLoop, Stuck
from .network import Network
from .scenario import ATTRIBUTES, CONTACT
from .weather import Weather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.model import Request, RunSummary

    from .scenario import Ending, Scenario

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
        self._disk_folder = folder / "disk"
        self._disk_folder.mkdir()
        self._disk = Disk(self._disk_folder, passing=self._passing, synced=self._synced)
        self._weather = Weather(scenario, self._loop.time)
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
        if path.name != "ledger.jsonl" or not self._is_alive:
            return
        for line in data.split(b"\n")[self._ledger_lines : -1]:
            key = _key_of(line)
            if key is None:
                continue  # the oracle will find it
            now_s = self._loop.time()
            self.history.durable_at.setdefault(key, now_s)
            self.history.durable_first_s.setdefault((self._execution.number, *key), now_s)
        self._ledger_lines = data.count(b"\n")

    def _hear(self, record: logging.LogRecord) -> bool:
        if self._is_alive:
            self._execution.said.append(record.getMessage())
        return False

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        fsync, rename = os.fsync, os.replace
        world, disk = self, self._disk

        class File(ledger_writer.FileIO):
            def write(self, data: Any) -> int:
                world._passing("before write")
                disk.fail("write")
                half = len(data) // 2
                if half and world._wants("in a write"):
                    super().write(data[:half])
                    world._passing("in a write")
                    return half + (super().write(data[half:]) or 0)
                return super().write(data) or 0

        class Sender(sender_module.Sender):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                world._senders.append(self)

        send = connect_client.Connect.send

        async def watched(connect: Any, request: Request) -> Any:
            return await world._watch(functools.partial(send, connect), request)

        run_globals = run_pipeline.__globals__
        patches = [
            mock.patch("os.fsync", lambda fd: disk.fsync(fd, fsync)),
            mock.patch("os.replace", lambda old, new: disk.replace(old, new, rename)),
            mock.patch.object(ledger_writer, "FileIO", File),
            mock.patch.object(connect_client.Connect, "send", watched),
            mock.patch.dict(run_globals, {"Sender": Sender}),
            mock.patch.object(delimited, "MAX_FRAME_ROWS", self.scenario.frame_rows),
            mock.patch.object(parquet, "_BATCH_ROWS", self.scenario.frame_rows),
        ]
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            log = logging.getLogger("bulk_updater.pipeline.run")
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
            turns = asyncio.create_task(self._weather.turn(sandbox, self._network))
            try:
                await self._execute_until_finished()
            finally:
                turns.cancel()
            await asyncio.sleep(60)  # whatever the service still has at hand
        history = self.history
        history.writes = list(sandbox.state.log)
        history.state = sandbox.state.to_json()
        history.faults = self._weather.happened

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
                self.history.arrivals.append(
                    Arrival(
                        at_s=self._loop.time(),
                        operation=operation,
                        contact=members.get("InitialContactId") or members["ContactId"],
                        row=row_of(operation, members),
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
            run_dir=self._disk_folder / "run",
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

    async def _execute_until_finished(self) -> None:
        endings = list(self.scenario.endings)
        for number in range(MAX_EXECUTIONS):
            execution = await self._execute(number, endings.pop(0) if endings else None)
            summary = execution.summary
            is_first_part = number == 0 and self.scenario.first_limit is not None
            if summary is not None and summary.state == "finished" and not is_first_part:
                # Once more, now and then: there is nothing left that it could do wrong.
                endings = endings[:1] if endings and number < 2 else []
                if not endings:
                    break
            # The machine takes longer to come back than the service to end what it was doing.
            await asyncio.sleep(20 + self._rng.random())
            if not endings and number > len(self.scenario.endings) + 2:
                self._weather.clear_up(self._network)
        run = self._disk_folder / "run"
        self.history.ledger = (run / "ledger.jsonl").read_bytes()
        self.history.modes = {
            str(path.relative_to(self._disk_folder)): path.stat().st_mode & 0o777
            for path in self._disk_folder.rglob("*")
        }
        failed = run / "failed.csv"
        self.history.failed_rows = _failed_rows(failed) if failed.exists() else set()

    async def _execute(self, number: int, ending: Ending | None) -> Execution:
        """Run the command once, to its end or to what ends it."""
        config = self._config
        if number == 0:
            config = replace(config, limit=self.scenario.first_limit)
        else:
            config = replace(config, max_in_flight=self.scenario.resumed_in_flight)
        execution = self._begin(Execution(number, self._loop.time(), ending, config.max_in_flight))
        others = asyncio.all_tasks()
        self._task = asyncio.create_task(
            run_pipeline(
                config,
                progress=execution.progress,
                stop=self._stop,
                now=lambda: EPOCH_S + self._loop.time(),
            )
        )
        beside = [
            asyncio.create_task(self._end_at_its_time(ending)),
            asyncio.create_task(self._rival(self.scenario.rival and number == 0)),
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
        execution.durable_before = frozenset(self._standing_on_disk())
        history.durable_at = {
            key: history.durable_at.get(key, execution.begun_s) for key in execution.durable_before
        }
        self._ledger_lines = 0
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
        if ending is None:
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
        if not (self._disk_folder / "run" / "lock").exists():
            return
        try:
            await run_pipeline(config, now=lambda: EPOCH_S)
        except LedgerLocked:
            self.history.rival_refused = True
        except asyncio.CancelledError:
            raise
        else:
            self.history.rival_refused = False

    def _standing_on_disk(self) -> Iterator[tuple[int, str]]:
        path = self._disk_folder / "run" / "ledger.jsonl"
        if not path.exists():
            return
        for line in path.read_bytes().split(b"\n")[:-1]:
            key = _key_of(line)
            if key is None:
                return  # the torn tail
            yield key


def _key_of(line: bytes) -> tuple[int, str] | None:
    """The row and operation of a line of the ledger."""
    try:
        record = json.loads(line)
        return record["row"], record["operation"]
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
