"""`bulk-updater run`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulk_updater.cli.confirm import confirm
from bulk_updater.cli.exits import EXIT_BAD_ROWS, EXIT_DEADLINE, EXIT_INTERRUPTED, EXIT_STOPPED
from bulk_updater.cli.garbage import collect_less
from bulk_updater.cli.night import (
    end_night_in_loop,
    is_in_sight,
    open_night,
    tell_end,
    watch_night,
)
from bulk_updater.cli.options import (
    changes_options,
    connection_options,
    guard_options,
    job_arguments,
    make_run_config,
    night_options,
    output_options,
    pacing_options,
    schedule_options,
    sending_guard_options,
    sending_options,
    succession_options,
)
from bulk_updater.cli.output import (
    logs_json,
    print_json,
    reader_may_leave,
    say_error,
    set_up_logging,
)
from bulk_updater.cli.progress import describe, show_progress
from bulk_updater.cli.signals import INTERRUPTED, leave, leaving_on_signals
from bulk_updater.cli.stopping import stop_on_signals, tell_on_signal
from bulk_updater.cli.summary import print_how_to_go_on, print_summary
from bulk_updater.errors import ConfigError, RunStopped
from bulk_updater.model import Progress
from bulk_updater.pipeline import run as run_pipeline
from bulk_updater.pipeline.deadline import DeadlinePassed
from bulk_updater.sandbox import Sandbox, SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulk_updater.config import ConnectionConfig, RunConfig
    from bulk_updater.model import RunSummary

__all__ = ["carry_out", "run"]

log = logging.getLogger(__name__)

REHEARSAL = SandboxConfig(live_per_s=3.0)
"""What `--sandbox` runs against: the documented quota, next to a small live contact centre, so
that a rehearsal meets throttling as a real run would."""

_EPILOG = """\b
Examples:
  bulk-updater run mapping.yaml export.csv --sandbox      a rehearsal
  bulk-updater run mapping.yaml export.csv --limit 10     the first ten rows
  bulk-updater run mapping.yaml export.csv                all of them
  bulk-updater run mapping.yaml jan.csv feb.csv --rate 5  at most 5 a second

Exit codes: 0 every row settled well; 1 some rows FAILED or INVALID; 2 usage, nothing was
sent; 3 stopped by an error that concerns the whole run; 4 deadline reached; 130 interrupted.
After 3, 4 and 130 the same command goes on.
"""


@click.command(epilog=_EPILOG, short_help="Send the rows; again, to go on where it stopped.")
@job_arguments
@click.option("--sandbox", is_flag=True, help="Rehearse against a local Amazon Connect.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where ledger and report go; by default runs/MAPPING/SOURCE-FINGERPRINT.",
)
@click.option(
    "--fresh", is_flag=True, help="Begin anew; what is in the run directory is kept beside it."
)
@pacing_options
@schedule_options
@changes_options
@guard_options
@sending_guard_options
@sending_options
@succession_options
@connection_options
@night_options
@output_options
def run(**flags: Any) -> int:
    """Send the rows of SOURCE... as MAPPING says, and record how each one ended.

    The same command again goes on where it stopped, or says that all is done.
    """
    set_up_logging(color=flags["color"], debug=flags["debug"])
    open_night(flags)
    config = make_run_config(flags)
    if flags["confirm"]:
        confirm(config)
    return carry_out(config, as_json=flags["json"])


def carry_out(
    config: RunConfig,
    *,
    as_json: bool,
    execute: Callable[..., Awaitable[RunSummary]] | None = None,
) -> int:
    """Do what a configuration says, say what came of it, and return the exit code.

    Args:
        config: The run.
        as_json: Whether standard output is for a machine.
        execute: What is done, given the configuration, `progress` and `stop`; None runs it.
    """
    collect_less()
    try:
        with leaving_on_signals():  # whoever had the signals has them back when the loop ends
            execute = execute or partial(run_pipeline, obeys_ctl=True)
            summary = asyncio.run(_run(config, execute, as_json=as_json))
    except RunStopped as stopped:
        if stopped.summary is None:
            raise
        summary = stopped.summary
    tell_end(summary, as_json=as_json)
    with reader_may_leave():
        if as_json:
            print_json(asdict(summary))
        else:
            print_summary(summary)
    return exit_code(summary)


_EXIT_CODES = {"stopped": EXIT_STOPPED, "deadline": EXIT_DEADLINE}


def exit_code(summary: RunSummary) -> int:
    """The exit code that tells a script how the run ended."""
    if summary.state == "finished":
        bad = summary.outcomes["FAILED"] + summary.outcomes["INVALID"]
        return EXIT_BAD_ROWS if bad else 0
    return _EXIT_CODES.get(summary.state, EXIT_INTERRUPTED)


async def _run(
    config: RunConfig, execute: Callable[..., Awaitable[RunSummary]], *, as_json: bool
) -> RunSummary:
    """The run with its display, its signals and, for a rehearsal, its sandbox."""
    if config.sandbox and config.connection.endpoint_url is not None:
        raise ConfigError(
            "--sandbox and --endpoint-url exclude each other: the one starts its own endpoint. "
            "Leave one of them out."
        )
    progress = Progress()
    stop = stop_on_signals()
    try:
        async with AsyncExitStack() as stack:
            stack.enter_context(tell_on_signal(lambda: describe(progress)))
            if config.sandbox:
                sandbox = await stack.enter_async_context(Sandbox(REHEARSAL))
                config = replace(config, connection=_to_sandbox(config, sandbox))
                log.info("A rehearsal: requests go to a sandbox on this machine, none to AWS.")
            quiet = as_json or logs_json()
            await stack.enter_async_context(show_progress(progress, quiet=quiet))
            await stack.enter_async_context(watch_night(progress))
            return await execute(config, progress=progress, stop=stop)
    except (asyncio.CancelledError, RunStopped) as ended:
        code, state = EXIT_INTERRUPTED, "interrupted"
        # The second signal, or the first before there was anything to settle. The ledger is closed
        # and the lock is free; only threads may be left.
        if isinstance(ended, RunStopped):
            if ended.summary is not None:
                raise
            if isinstance(ended.__cause__, DeadlinePassed):
                message, code, state = ended.message, EXIT_DEADLINE, "deadline"
            else:
                message = f"{INTERRUPTED} Nothing was sent."
        else:
            message = f"{INTERRUPTED} What was settled is in the ledger."
        say_error(message, go_on=None if is_in_sight(as_json=as_json) else config.command)
        if not as_json:
            with reader_may_leave():
                print_how_to_go_on(config.command)
        await end_night_in_loop(code, state=state, message=message)
        leave(code)


def _to_sandbox(config: RunConfig, sandbox: Sandbox) -> ConnectionConfig:
    return replace(
        config.connection,
        endpoint_url=sandbox.url,
        region=config.connection.region or "us-east-1",
        profile=None,
        access_key=(REHEARSAL.access_key, REHEARSAL.secret_key),
    )
