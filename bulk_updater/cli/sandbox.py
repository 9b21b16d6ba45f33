"""`bulk-updater sandbox`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bulk_updater.errors import ConfigError
from bulk_updater.sandbox import Sandbox, SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["sandbox"]

_F = TypeVar("_F", bound="Callable[..., Any]")

_DEFAULT = SandboxConfig()

_EPILOG = """\b
Examples:
  bulk-updater sandbox --port 8080
  bulk-updater sandbox --rate 10 --burst 15 --live-per-s 3
  bulk-updater run mapping.yaml x.csv --endpoint-url http://127.0.0.1:8080

Clients sign with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as they are set for the sandbox,
or else with sandbox and sandbox. What it holds and what it counted can be read at
/_sandbox/state, /_sandbox/counters and /_sandbox/log.
"""


def _share(name: str, help_text: str) -> Callable[[_F], _F]:
    return click.option(
        name,
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        metavar="SHARE",
        help=help_text,
    )


@click.command(epilog=_EPILOG)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=_DEFAULT.port,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULT.rate_per_s,
    show_default=True,
    metavar="N",
    help="Requests a second for each operation.",
)
@click.option(
    "--burst",
    type=click.FloatRange(min=1),
    default=_DEFAULT.burst,
    show_default=True,
    metavar="N",
    help="Requests at once for each operation.",
)
@click.option(
    "--live-per-s",
    type=click.FloatRange(min=0),
    default=_DEFAULT.live_per_s,
    show_default=True,
    metavar="N",
    help="Requests a second of a live contact centre in the same quota.",
)
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0),
    default=_DEFAULT.latency_ms,
    show_default=True,
    metavar="MS",
    help="Mean time until an answer.",
)
@click.option(
    "--latency-jitter",
    type=click.FloatRange(0, 1),
    default=_DEFAULT.latency_jitter,
    show_default=True,
    metavar="SHARE",
    help="How far one answer may be off the mean.",
)
@_share("--error-share", "Answers with 500, not applied.")
@_share("--html-share", "Answers with 503 and HTML, not applied.")
@_share("--conflict-share", "UpdateContact: answers with 409, not applied.")
@_share("--drop-before-share", "Connections dropped before a request is applied.")
@_share("--drop-after-share", "Connections dropped after a request is applied.")
@click.option(
    "--contacts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The contacts that exist, one a line: CONTACT_ID or INSTANCE_ID,CONTACT_ID.",
)
@click.option(
    "--seed",
    type=int,
    default=_DEFAULT.seed,
    show_default=True,
    metavar="N",
    help="Seed of all that happens by chance.",
)
def sandbox(**flags: Any) -> None:
    """Serve a local Amazon Connect on 127.0.0.1, until Ctrl-C.

    It prints its URL, and answers UpdateContactAttributes, UpdateContact, GetContactAttributes,
    DescribeContact and Service Quotas' GetServiceQuota as the services do. Ids of contacts that
    begin with "missing" never exist.
    """
    flags["rate_per_s"] = flags.pop("rate")
    flags["access_key"] = os.environ.get("AWS_ACCESS_KEY_ID") or _DEFAULT.access_key
    flags["secret_key"] = os.environ.get("AWS_SECRET_ACCESS_KEY") or _DEFAULT.secret_key
    try:
        asyncio.run(_serve(SandboxConfig(**flags)))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"The sandbox cannot start ({error.strerror or type(error).__name__}); look at --port "
            "and --contacts."
        ) from None


async def _serve(config: SandboxConfig) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with Sandbox(config) as served:
        click.echo(served.url)
        await told.wait()
