"""Told to stop: obeyed at once before the first request, and within one answer afterwards."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from bulk_updater.config import PacingConfig, RetryConfig
from bulk_updater.errors import ConfigError, RunStopped, SourceError
from bulk_updater.ledger import RunDir, writer
from bulk_updater.model import Progress
from bulk_updater.pipeline import execution, run, sending
from bulk_updater.pipeline.job import open_job, survey
from bulk_updater.pipeline.stopping import ToldToStop, cut_short
from bulk_updater.readers.delimited import DelimitedSource
from bulk_updater.sandbox import Sandbox, SandboxConfig

from .helpers import config_for, fast, ledger_of, people, write_export

pytestmark = pytest.mark.looptime

GUARD_S = 30.0  # a wait that takes this long is a hang; no test waits for it to pass
READ_TIMEOUT_S = 20.0  # as `config_for` has it


class Held:
    """A function that, in a thread, waits until it is let go."""

    def __init__(self, original):
        self._original = original
        self._began = threading.Event()
        self._go = threading.Event()
        self.ended = threading.Event()

    def __call__(self, *args, **settings):
        self._began.set()
        assert self._go.wait(GUARD_S)
        try:
            return self._original(*args, **settings)
        finally:
            self.ended.set()

    async def until_begun(self):
        assert await asyncio.to_thread(self._began.wait, GUARD_S)

    def let_go(self):
        self._go.set()


@pytest.fixture
def hold(monkeypatch):
    """Replaces a function by one that is held; every one is let go in the end."""
    held = []

    def replace(owner, name):
        function = Held(getattr(owner, name))
        held.append(function)

        def called(*args, **settings):  # a function, which as a method is given its object
            return function(*args, **settings)

        monkeypatch.setattr(owner, name, called)
        return function

    yield replace
    for function in held:
        function.let_go()


def names_when_locked(path) -> list[str]:
    """What is in a run directory, whose lock can be taken."""
    with RunDir.open(path):
        return sorted(each.name for each in path.iterdir())


async def until_received(sandbox, n_requests, operation="update_contact_attributes"):
    """Return when so many requests have arrived; before that, threads take no virtual time."""
    while sandbox.counters[operation].received < n_requests:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.1)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("method", ["fingerprint", "count_rows"])
async def test_a_source_that_is_being_read_is_not_waited_for(folder, hold, method):
    """While a large source is read for the first time: obeyed at once, and no trace is left."""
    write_export(folder, people(10))
    reading = hold(DelimitedSource, method)
    stop = asyncio.Event()
    async with Sandbox(fast()) as sandbox:
        running = asyncio.create_task(run(config_for(sandbox, folder), stop=stop))
        await reading.until_begun()
        stop.set()
        with pytest.raises(RunStopped, match="told to stop before it sent anything") as stopped:
            await running
        assert stopped.value.summary is None
        assert not reading.ended.is_set()
        assert sandbox.counters["update_contact_attributes"].received == 0
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("stopped_in", ["fingerprint", "count_rows"])
async def test_no_further_block_is_read_for_a_run_that_was_told_to_stop(
    folder, monkeypatch, stopped_in
):
    """Of two sources, one is given up in the middle of a pass, and the other is not begun."""
    sources = [write_export(folder, people(3), name) for name in ("a.csv", "b.csv")]
    stop = threading.Event()
    passes = []

    def note(name):
        original = getattr(DelimitedSource, name)

        def noted(source, **settings):
            passes.append(f"{name} {source.path.name}")
            assert settings == {"stop": stop}
            if name == stopped_in:
                stop.set()
            try:
                return original(source, **settings)
            finally:
                passes.append("left")

        monkeypatch.setattr(DelimitedSource, name, noted)

    note("fingerprint")
    note("count_rows")
    async with Sandbox(fast()) as sandbox:
        opened = await asyncio.to_thread(open_job, config_for(sandbox, folder, *sources))
        with pytest.raises(SourceError, match=r"a\.csv: reading it was given up"):
            await asyncio.to_thread(lambda: survey(opened, stop=stop))
    begun = {
        "fingerprint": ["fingerprint a.csv", "left"],
        "count_rows": ["fingerprint a.csv", "left", "count_rows a.csv", "left"],
    }
    assert passes == begun[stopped_in]


async def test_a_ledger_that_is_being_read_back_stays_as_it_is(folder, hold):
    """Given up between two records: not a byte of it changes, and the lock is free."""
    write_export(folder, people(20))
    stop = asyncio.Event()
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        await run(config)
        ledger = folder / "run" / "ledger.jsonl"
        torn = ledger.read_bytes()[:-9]
        ledger.write_bytes(torn)
        recovering = hold(writer, "recover")
        running = asyncio.create_task(run(config, stop=stop))
        await recovering.until_begun()
        stop.set()
        await asyncio.sleep(1)
        assert not running.done()  # a thread is at work on the ledger: the lock stays
        recovering.let_go()
        with pytest.raises(RunStopped) as stopped:
            await running
        assert stopped.value.summary is None
        assert ledger.read_bytes() == torn
        assert await asyncio.to_thread(names_when_locked, ledger.parent) == [
            *("ledger.jsonl", "lock", "run.json")
        ]
        assert sandbox.counters["update_contact_attributes"].received == 20
        assert (await run(config)).outcomes["UPDATED"] == 20


async def test_a_lock_that_is_taken_meanwhile_is_given_back(folder, hold):
    """Told to stop while the run directory is entered: the next run finds it free."""
    write_export(folder, people(5))
    stop = asyncio.Event()
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        entering = hold(RunDir, "write_run_json")
        running = asyncio.create_task(run(config, stop=stop))
        await entering.until_begun()
        stop.set()
        await asyncio.sleep(1)
        entering.let_go()
        with pytest.raises(RunStopped):
            await running
        assert not (folder / "run" / "ledger.jsonl").exists()
        assert (await run(config)).outcomes["UPDATED"] == 5


async def test_credentials_that_do_not_come_are_not_waited_for(folder, monkeypatch):
    """While the connection is opened: a summary at once, and every row is unsettled."""
    write_export(folder, people(5))
    stop = asyncio.Event()

    opening = asyncio.Event()

    @asynccontextmanager
    async def never_opened(*_, **__):
        opening.set()
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(sending, "open_connect", never_opened)
    async with Sandbox(fast()) as sandbox:
        running = asyncio.create_task(run(config_for(sandbox, folder), stop=stop))
        await opening.wait()
        stop.set()
        summary = await running
        assert sandbox.counters["update_contact_attributes"].received == 0
    assert (summary.state, summary.unsettled, summary.attempts) == ("interrupted", 5, 0)
    assert summary.resume is not None


async def test_quotas_that_do_not_come_are_not_waited_for(folder):
    """While Service Quotas is asked, which takes three seconds at the most: not even these."""
    write_export(folder, people(5))
    stop = asyncio.Event()
    async with Sandbox(SandboxConfig(latency_ms=60_000)) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig())
        running = asyncio.create_task(run(config, stop=stop))
        await until_received(sandbox, 1, "get_service_quota")
        stop.set()
        told = now()
        summary = await running
        assert now() - told < 1
        assert sandbox.counters["get_service_quota"].received == 1
        assert sandbox.counters["update_contact_attributes"].received == 0
    assert (summary.state, summary.unsettled) == ("interrupted", 5)


async def test_a_service_that_hangs_is_waited_for_until_the_read_timeout(folder):
    """Requests under way are given the time that they had, no other begins, none is settled."""
    write_export(folder, people(50))
    stop = asyncio.Event()
    progress = Progress()
    async with Sandbox(SandboxConfig(rate_per_s=1000, latency_ms=10_000_000)) as sandbox:
        config = config_for(sandbox, folder, max_in_flight=4)
        running = asyncio.create_task(run(config, stop=stop, progress=progress))
        await until_received(sandbox, 4)
        began = now()
        await asyncio.sleep(5)
        stop.set()
        summary = await running
        # What is little: at the most a first backoff, and what it takes to close.
        assert READ_TIMEOUT_S - 1 < now() - began < READ_TIMEOUT_S + 1
        assert sandbox.counters["update_contact_attributes"].received == 4
    assert (summary.state, summary.unsettled, summary.attempts) == ("interrupted", 50, 4)
    assert ledger_of(summary) == []
    assert progress.in_flight == 0


async def test_what_comes_of_requests_under_way_is_settled(folder):
    """Answers that come after the signal count: as many results as were applied."""
    write_export(folder, people(50))
    stop = asyncio.Event()
    async with Sandbox(SandboxConfig(rate_per_s=1000, latency_ms=10_000)) as sandbox:
        config = config_for(sandbox, folder, max_in_flight=4)
        running = asyncio.create_task(run(config, stop=stop))
        await until_received(sandbox, 4)
        began = now()
        await asyncio.sleep(5)
        stop.set()
        summary = await running
        assert 5 < now() - began < READ_TIMEOUT_S
        assert len(sandbox.state.log) == len(ledger_of(summary)) == 4
    assert (summary.outcomes["UPDATED"], summary.unsettled) == (4, 46)


async def stop_a_waiting_run(config, sandbox, n_requests):
    """Its summary, and the seconds from the signal to its end; nothing is in flight meanwhile."""
    stop = asyncio.Event()
    running = asyncio.create_task(run(config, stop=stop))
    await until_received(sandbox, n_requests)
    await asyncio.sleep(5)
    stop.set()
    told = now()
    summary = await running
    return summary, now() - told


async def test_a_token_is_not_waited_for(folder):
    """With a token every ten seconds: obeyed at once, and no attempt begins after it."""
    write_export(folder, people(50))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig(rate=0.1))
        summary, took_s = await stop_a_waiting_run(config, sandbox, 3)
        assert took_s < 0.5
        received = sandbox.counters["update_contact_attributes"].received
        assert received == summary.outcomes["UPDATED"] == len(ledger_of(summary)) == 3
        await asyncio.sleep(100)
        assert sandbox.counters["update_contact_attributes"].received == received


async def test_a_backoff_is_not_waited_for(folder):
    """With a service that only fails and waits of minutes between attempts: at once."""
    write_export(folder, people(5))
    retry = RetryConfig(max_attempts=8, backoff_base_s=600.0, backoff_max_s=600.0, seed=4)
    async with Sandbox(fast(error_share=1.0)) as sandbox:
        config = config_for(sandbox, folder, retry=retry)
        summary, took_s = await stop_a_waiting_run(config, sandbox, 5)
        assert took_s < 0.5
        received = sandbox.counters["update_contact_attributes"].received
        await asyncio.sleep(1000)
        assert sandbox.counters["update_contact_attributes"].received == received >= 5
    assert (summary.state, summary.unsettled) == ("interrupted", 5)


async def test_a_run_that_has_only_its_report_to_write_finishes(folder, hold):
    """Told to stop while failed.csv is written: every row is settled, and that is what it says."""
    write_export(folder, [*people(5), ["missing-1", "done", "", "", "", "6"]])
    stop = asyncio.Event()
    async with Sandbox(fast()) as sandbox:
        writing = hold(execution, "write_failed")
        running = asyncio.create_task(run(config_for(sandbox, folder), stop=stop))
        await writing.until_begun()
        stop.set()
        writing.let_go()
        summary = await running
    assert (summary.state, summary.unsettled) == ("finished", 0)
    assert summary.failed is not None


async def test_cutting_short_tells_its_own_end_from_others():
    """A timeout inside, an error inside and a cancellation from outside stay what they are."""
    stop = asyncio.Event()
    with pytest.raises(TimeoutError, match="mine"):
        async with cut_short(stop):
            raise TimeoutError("mine")
    with pytest.raises(ConfigError):
        async with cut_short(stop):
            raise ConfigError("no")

    async def wait():
        async with cut_short(stop):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async with cut_short(stop):
        await asyncio.sleep(1)
    stop.set()
    await asyncio.sleep(1)  # it came too late for the one before

    began = now()
    with pytest.raises(ToldToStop):
        await wait()
    with pytest.raises(ToldToStop):
        async with cut_short(stop):
            pass
    assert now() == began
