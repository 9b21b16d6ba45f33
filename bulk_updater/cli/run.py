"""`bulk-updater run`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulk_updater.cli.exits import EXIT_BAD_ROWS, EXIT_INTERRUPTED, EXIT_STOPPED
from bulk_updater.cli.garbage import collect_less
from bulk_updater.cli.options import (
    DEFAULTS,
    connection_options,
    job_arguments,
    make_run_config,
    output_options,
    pacing_options,
    parse_max_failures,
)
from bulk_updater.cli.output import print_json, reader_may_leave, say_error, set_up_logging
from bulk_updater.cli.progress import show_progress
from bulk_updater.cli.signals import INTERRUPTED, leave, leaving_on_signals
from bulk_updater.cli.stopping import stop_on_signals
from bulk_updater.cli.summary import print_how_to_go_on, print_summary
from bulk_updater.errors import ConfigError, RunStopped
from bulk_updater.model import Progress
from bulk_updater.pipeline import run as run_pipeline
from bulk_updater.sandbox import Sandbox, SandboxConfig

if TYPE_CHECKING:
    from bulk_updater.config import ConnectionConfig, RunConfig
    from bulk_updater.model import RunSummary

__all__ = ["run"]

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
sent; 3 stopped by an error that concerns the whole run; 130 interrupted. After 3 and 130 the
same command goes on.
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
@click.option(
    "--max-in-flight",
    type=int,
    default=DEFAULTS.max_in_flight,
    show_default=True,
    metavar="N",
    help="Requests open at once, at the most.",
)
@click.option(
    "--max-attempts",
    type=int,
    default=DEFAULTS.retry.max_attempts,
    show_default=True,
    metavar="N",
    help="Attempts for each request; throttled ones do not count.",
)
@click.option(
    "--max-failures",
    callback=parse_max_failures,
    metavar="N|P%|none",
    default="50",
    show_default=True,
    help="Stop after N failures in a row with one code, or when P% of the first "
    f"{DEFAULTS.max_failures.share_of:,} requests failed.",
)
@connection_options
@output_options
def run(**flags: Any) -> int:
    """Send the rows of SOURCE... as MAPPING says, and record how each one ended.

    The same command again goes on where it stopped, or says that all is done.
    """
    set_up_logging(color=flags["color"], debug=flags["debug"])
    config = make_run_config(flags)
    collect_less()
    try:
        with leaving_on_signals():  # whoever had the signals has them back when the loop ends
            summary = asyncio.run(_run(config, as_json=flags["json"]))
    except RunStopped as stopped:
        if stopped.summary is None:
            raise
        say_error(stopped.message)
        summary = stopped.summary
    with reader_may_leave():
        if flags["json"]:
            print_json(asdict(summary))
        else:
            print_summary(summary)
    return exit_code(summary)


def exit_code(summary: RunSummary) -> int:
    """The exit code that tells a script how the run ended."""
    if summary.state == "finished":
        bad = summary.outcomes["FAILED"] + summary.outcomes["INVALID"]
        return EXIT_BAD_ROWS if bad else 0
    return EXIT_STOPPED if summary.state == "stopped" else EXIT_INTERRUPTED


async def _run(config: RunConfig, *, as_json: bool) -> RunSummary:
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
            if config.sandbox:
                sandbox = await stack.enter_async_context(Sandbox(REHEARSAL))
                config = replace(config, connection=_to_sandbox(config, sandbox))
                log.info("A rehearsal: requests go to a sandbox on this machine, none to AWS.")
            await stack.enter_async_context(show_progress(progress, quiet=as_json))
            return await run_pipeline(config, progress=progress, stop=stop)
    except (asyncio.CancelledError, RunStopped) as ended:
        # The second signal, or the first before there was anything to settle. The ledger is closed
        # and the lock is free; only threads may be left.
        if isinstance(ended, RunStopped):
            if ended.summary is not None:
                raise
            say_error(f"{INTERRUPTED} Nothing was sent.")
        else:
            say_error(f"{INTERRUPTED} What was settled is in the ledger.")
        if not as_json:
            with reader_may_leave():
                print_how_to_go_on(config.command)
        leave()


def _to_sandbox(config: RunConfig, sandbox: Sandbox) -> ConnectionConfig:
    return replace(
        config.connection,
        endpoint_url=sandbox.url,
        region=config.connection.region or "us-east-1",
        profile=None,
        access_key=(REHEARSAL.access_key, REHEARSAL.secret_key),
    )
