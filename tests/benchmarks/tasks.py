"""What is measured, as tasks that each run in a process of their own.

A task prepares what is not to be measured (imports, requests made beforehand) and returns what is:
a function without arguments. `processes.measure` starts this module with a task's name and its
arguments as JSON, and reads one line of JSON back.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.config import RunConfig
    from bulk_updater.model import Request, Result

__all__ = ["KEY", "REGION", "SECRET", "TASKS"]

Found = dict[str, Any]

REGION = "eu-west-1"
KEY, SECRET = "benchmark", "benchmark"
_RUN_ID = "20260301T080000Z-000000"
_LEAVE_AFTER_S = 5.0


def _run_config(mapping: str, source: str, **settings: Any) -> RunConfig:
    from bulk_updater.config import ChangesConfig, ConnectionConfig, PacingConfig, RunConfig

    return RunConfig(
        mapping=Path(mapping),
        sources=(Path(source),),
        run_dir=Path(settings["run_dir"]) if "run_dir" in settings else None,
        max_in_flight=settings.get("max_in_flight", 32),
        connection=ConnectionConfig(
            endpoint_url=settings.get("url", "http://127.0.0.1:9"),
            region=REGION,
            access_key=(KEY, SECRET),
        ),
        pacing=PacingConfig(rate=1e6),
        changes=settings.get("changes", ChangesConfig()),
    )


def run(
    mapping: str, source: str, run_dir: str, url: str, max_in_flight: int
) -> Callable[[], Found]:
    """The program: every row read, mapped, sent, and its result made durable."""
    return _run(_run_config(mapping, source, run_dir=run_dir, url=url, max_in_flight=max_in_flight))


def resume(mapping: str, source: str, run_dir: str) -> Callable[[], Found]:
    """The program, over a run directory in which every row is settled: there is no server."""
    return _run(_run_config(mapping, source, run_dir=run_dir))


def _run(config: RunConfig) -> Callable[[], Found]:
    from bulk_updater.cli.garbage import collect_less
    from bulk_updater.pipeline import run as run_pipeline

    def measured() -> Found:
        collect_less()  # as `bulk-updater run` does
        summary = asyncio.run(run_pipeline(config))
        return {"state": summary.state, "outcomes": summary.outcomes, "sent": summary.attempts}

    return measured


def boto3_threads(n_rows: int, url: str, max_in_flight: int) -> Callable[[], Found]:
    """boto3 in threads that share one client: the requests made beforehand, no result kept."""
    import boto3
    from botocore.config import Config

    requests = _requests(n_rows)

    def measured() -> Found:
        client = boto3.Session(KEY, SECRET, region_name=REGION).client(
            "connect",
            endpoint_url=url,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=max_in_flight,
            ),
        )
        waiting = iter(requests)
        n_accepted = [0] * max_in_flight

        def send(number: int) -> None:
            for params in waiting:  # a list's iterator can be shared between threads
                answer = client.update_contact_attributes(**params)
                n_accepted[number] += "RequestId" in answer["ResponseMetadata"]

        threads = [threading.Thread(target=send, args=(at,)) for at in range(max_in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"accepted": sum(n_accepted)}

    return measured


def aioboto3_tasks(n_rows: int, url: str, max_in_flight: int) -> Callable[[], Found]:
    """aioboto3 in tasks that share one client: the requests made beforehand, no result kept."""
    import aioboto3
    from aiobotocore.config import AioConfig

    requests = _requests(n_rows)

    async def send_all() -> int:
        session = aioboto3.Session(KEY, SECRET, region_name=REGION)
        async with session.client(
            "connect",
            endpoint_url=url,
            config=AioConfig(
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=max_in_flight,
            ),
        ) as client:
            waiting = iter(requests)

            async def send() -> int:
                n_accepted = 0
                for params in waiting:
                    answer = await client.update_contact_attributes(**params)
                    n_accepted += "RequestId" in answer["ResponseMetadata"]
                return n_accepted

            return sum(await asyncio.gather(*(send() for _ in range(max_in_flight))))

    def measured() -> Found:
        return {"accepted": asyncio.run(send_all())}

    return measured


def boto3_retrying(url: str, mode: str, max_in_flight: int) -> Callable[[], Found]:
    """boto3 in threads that share one client and its retries, row after row until SIGTERM."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.retries.standard import DEFAULT_MAX_ATTEMPTS

    from tests.benchmarks.exports import params_of

    def measured() -> Found:
        client = boto3.Session(KEY, SECRET, region_name=REGION).client(
            "connect",
            endpoint_url=url,
            config=Config(retries={"mode": mode}, max_pool_connections=max_in_flight),
        )
        rows = itertools.count(1)  # can be shared between threads
        n_done, n_lost = [0] * max_in_flight, [0] * max_in_flight

        def send(number: int) -> None:
            for row in rows:
                try:
                    client.update_contact_attributes(**params_of(row))
                except (BotoCoreError, ClientError):
                    n_lost[number] += 1
                n_done[number] += 1

        # Or the signal could come to a thread that sends.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        for at in range(max_in_flight):
            threading.Thread(target=send, args=(at,), daemon=True).start()
        signal.sigwait({signal.SIGTERM})
        return {"done": sum(n_done), "lost": sum(n_lost), "attempts": DEFAULT_MAX_ATTEMPTS}

    return measured


def aioboto3_retrying(url: str, mode: str, max_in_flight: int) -> Callable[[], Found]:
    """aioboto3 in tasks that share one client and its retries, row after row until SIGTERM."""
    import aioboto3
    from aiobotocore.config import AioConfig
    from aiobotocore.retries.standard import DEFAULT_MAX_ATTEMPTS
    from botocore.exceptions import BotoCoreError, ClientError

    from tests.benchmarks.exports import params_of

    async def send_until_told() -> Found:
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        rows = itertools.count(1)
        n_done = n_lost = 0
        async with aioboto3.Session(KEY, SECRET, region_name=REGION).client(
            "connect",
            endpoint_url=url,
            config=AioConfig(retries={"mode": mode}, max_pool_connections=max_in_flight),
        ) as client:

            async def send() -> None:
                nonlocal n_done, n_lost
                while not told.is_set():  # a cancellation can get lost in the SDK
                    try:
                        await client.update_contact_attributes(**params_of(next(rows)))
                    except (BotoCoreError, ClientError):
                        n_lost += 1
                    n_done += 1

            tasks = [asyncio.create_task(send()) for _ in range(max_in_flight)]
            await told.wait()
            for task in tasks:
                task.cancel()
            # Those that wait for the SDK's own token may not hear of it, and are left behind.
            ended, _ = await asyncio.wait(tasks, timeout=_LEAVE_AFTER_S)
        for task in ended:
            if not task.cancelled():
                task.result()
        return {"done": n_done, "lost": n_lost, "attempts": DEFAULT_MAX_ATTEMPTS}

    def measured() -> Found:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        return loop.run_until_complete(send_until_told())

    return measured


def compare_with_sandbox(url: str, run_dir: str) -> Callable[[], Found]:
    """What the ledger says of its rows, beside what the sandbox holds of their contacts."""
    from bulk_updater.ledger import standing_results

    def measured() -> Found:
        with urllib.request.urlopen(f"{url}/_sandbox/state") as answer:
            held = {contact for some in json.load(answer).values() for contact in some}
        results = list(standing_results(Path(run_dir) / "ledger.jsonl"))
        updated = {each["contact_id"] for each in results if each["outcome"] == "UPDATED"}
        n_failed = len(results) - len(updated)
        n_unrecorded = len(held - {each["contact_id"] for each in results})
        n_unapplied = len(updated - held)
        return {
            "done": len(results) + n_unrecorded,
            "lost": n_failed + n_unrecorded + n_unapplied,
            "updated": len(updated),
            "failed": n_failed,
            "unrecorded": n_unrecorded,
            "unapplied": n_unapplied,
        }

    return measured


def _requests(n_rows: int) -> list[dict[str, Any]]:
    from tests.benchmarks.exports import params_of

    requests = [params_of(row) for row in range(1, n_rows + 1)]
    # Or the collector would look through them again and again, at the yardstick's expense.
    gc.collect()
    gc.freeze()
    return requests


def plan(mapping: str, source: str) -> Callable[[], Found]:
    """The program's `plan`: every row fingerprinted, counted, read, mapped, checked."""
    from bulk_updater.pipeline.plan import plan as make_plan

    config = _run_config(mapping, source)

    def measured() -> Found:
        made = make_plan(config)
        (operation,) = made.operations
        return {"rows": made.n_rows, "requests": operation.n_requests}

    return measured


def plan_changes(mapping: str, source: str, state: str, url: str) -> Callable[[], Found]:
    """The same with `--only-changed`: every row digested, too, and compared with the state."""
    from bulk_updater.pipeline.plan import plan as make_plan

    config = _run_config(mapping, source, url=url, changes=_changes(state))

    def measured() -> Found:
        made = make_plan(config)
        (operation,) = made.operations
        return {"rows": made.n_rows, "requests": operation.n_requests}

    return measured


def run_changes(
    *, mapping: str, source: str, run_dir: str, state: str, url: str, max_in_flight: int
) -> Callable[[], Found]:
    """A night with `--only-changed`: decided, recorded, and what changed is sent."""
    return _run(
        _run_config(
            mapping,
            source,
            run_dir=run_dir,
            url=url,
            max_in_flight=max_in_flight,
            changes=_changes(state),
        )
    )


def fill_state(mapping: str, source: str, state: str, url: str) -> Callable[[], Found]:
    """What a night that applied the whole export leaves in the state."""
    import threading as threads

    from bulk_updater.keys import contact_id_of
    from bulk_updater.ledger import SettledRows
    from bulk_updater.pipeline.changes import decide_job
    from bulk_updater.pipeline.deciding import Recall
    from bulk_updater.pipeline.identity import bare_url
    from bulk_updater.pipeline.job import open_job, survey
    from bulk_updater.state import State

    config = _run_config(mapping, source, url=url, changes=_changes(state))

    def measured() -> Found:
        job = survey(open_job(config))
        decisions = decide_job(job, SettledRows(), recall=None, stop=threads.Event())
        with State.open(Path(state)) as kept:
            recall = Recall(state=kept, account="local", region=bare_url(url), job="", began_at=0.0)
            for contacts in decisions.to_send.values():
                keys = contacts.keys.tobytes()
                kept.confirm(
                    recall.scope(contacts),
                    (
                        (contact_id_of(keys[16 * at : 16 * at + 16]), digest, 1_780_000_000)
                        for at, digest in enumerate(contacts.chains.tolist())
                    ),
                )
        return {"rows": job.n_rows, "state_mb": Path(state).stat().st_size / 1e6}

    return measured


def _changes(state: str) -> Any:
    from bulk_updater.config import ChangesConfig

    return ChangesConfig(only_changed=True, state_file=Path(state))


def pandas_read(source: str, *, as_text: bool) -> Callable[[], Found]:
    """pandas' `read_csv` of the whole file: types guessed, or every cell as text."""
    import pandas as pd

    def measured() -> Found:
        if as_text:
            return {"rows": len(pd.read_csv(source, dtype=str, keep_default_na=False))}
        return {"rows": len(pd.read_csv(source))}

    return measured


def finish_ledger(mapping: str, source: str, run_dir: str) -> Callable[[], Found]:
    """What a finished run leaves, written by the program's own code, with nothing sent."""
    from bulk_updater.ledger import Ledger
    from bulk_updater.pipeline.identity import enter_run_dir
    from bulk_updater.pipeline.job import open_job, survey

    config = _run_config(mapping, source, run_dir=run_dir)

    async def write() -> Found:
        job = survey(open_job(config))
        with enter_run_dir(config, job) as (opened, note):
            async with Ledger.open(opened.ledger_path, note["run_id"]) as ledger:
                for frame in job.opened.mapped_frames():
                    await ledger.append(*(_as_updated(entry) for entry in frame.entries()))
                return {"records": ledger.settled.count(), "bytes": ledger.size_bytes}

    return lambda: asyncio.run(write())


def append(folder: str, n_results: int, n_appenders: int) -> Callable[[], Found]:
    """`Ledger.append` by many at once, each waiting until its record is durable."""
    from bulk_updater.files import sync_file
    from bulk_updater.ledger import Ledger
    from bulk_updater.model import Request

    n_syncs = 0
    sync_s = 0.0

    def sync(fd: int) -> None:
        nonlocal n_syncs, sync_s
        began_s = time.perf_counter()
        sync_file(fd)
        sync_s += time.perf_counter() - began_s
        n_syncs += 1

    results = [
        _as_updated(
            Request(
                row=row,
                source="export.csv",
                operation="update_contact_attributes",
                instance_id=str(params["InstanceId"]),
                contact_id=str(params["InitialContactId"]),
                params=params,
                payload_bytes=300,
            )
        )
        for row, params in enumerate(_requests(n_results), 1)
    ]

    async def append_all() -> Found:
        async with Ledger.open(Path(folder) / "ledger.jsonl", _RUN_ID, sync=sync) as ledger:
            waiting = iter(results)

            async def append_some() -> None:
                for result in waiting:
                    await ledger.append(result)

            began_s, loop_began_s = time.perf_counter(), time.thread_time()
            await asyncio.gather(*(append_some() for _ in range(n_appenders)))
            return {
                "loop_s": time.thread_time() - loop_began_s,
                "append_s": time.perf_counter() - began_s,
                "syncs": n_syncs,
                "sync_s": sync_s,
                "bytes": ledger.size_bytes,
            }

    return lambda: asyncio.run(append_all())


def _as_updated(request: Request | Result) -> Result:
    """The result that a request has when Connect took it at the first attempt."""
    from bulk_updater.model import Outcome, Request, Result

    if not isinstance(request, Request):
        return request
    return Result(
        row=request.row,
        source=request.source,
        operation=request.operation,
        outcome=Outcome.UPDATED,
        instance_id=request.instance_id,
        contact_id=request.contact_id,
        attempts=1,
        http_status=200,
        request_id="12345678-90ab-cdef-1234-567890abcdef",
        payload_digest="0123456789abcdef",
        attribute_names=tuple(request.params["Attributes"]),
        payload_bytes=request.payload_bytes,
        started_at=1_772_352_000.0 + request.row / 1000,
        finished_at=1_772_352_000.2 + request.row / 1000,
        took_ms=200,
    )


TASKS: dict[str, Callable[..., Callable[[], Found]]] = {
    task.__name__: task
    for task in (
        run,
        resume,
        boto3_threads,
        aioboto3_tasks,
        boto3_retrying,
        aioboto3_retrying,
        compare_with_sandbox,
        plan,
        plan_changes,
        run_changes,
        fill_state,
        pandas_read,
        finish_ledger,
        append,
    )
}


def _main(name: str, arguments: str) -> None:
    measured = TASKS[name](**json.loads(arguments))
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    found = measured()
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "found": found}))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
