"""Whom a run talks to, and as whom: the AWS CLI's own flags."""

from __future__ import annotations

import math

import click

from bulk_updater.cli.options.sharing import DEFAULTS, all_of

__all__ = ["connection_options"]


def _parse_seconds(_context: click.Context, _option: click.Parameter, value: float) -> float | None:
    """Seconds from 0; 0 waits for ever, as for the AWS CLI."""
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{value:g} is no time; it is a number of seconds from 0.")
    return value or None


connection_options = all_of(
    click.option("--region", help="AWS region."),
    click.option("--profile", help="Profile of the AWS configuration files."),
    click.option("--endpoint-url", metavar="URL", help="Send to this URL instead of AWS."),
    click.option(
        "--allow-http",
        is_flag=True,
        help="Send to a plain http endpoint beyond this machine, in the clear.",
    ),
    click.option("--ca-bundle", metavar="FILE", help="CA certificates to trust."),
    click.option("--no-verify-ssl", is_flag=True, help="Do not verify certificates."),
    click.option(
        "--no-sign-request", is_flag=True, help="Do not sign requests; no credentials are loaded."
    ),
    click.option(
        "--cli-connect-timeout",
        type=float,
        callback=_parse_seconds,
        metavar="SECONDS",
        default=DEFAULTS.connection.connect_timeout_s,
        show_default=True,
        help="Time to wait for a connection; 0 waits for ever.",
    ),
    click.option(
        "--cli-read-timeout",
        type=float,
        callback=_parse_seconds,
        metavar="SECONDS",
        default=DEFAULTS.connection.read_timeout_s,
        show_default=True,
        help="Time to wait for an answer; 0 waits for ever.",
    ),
)
