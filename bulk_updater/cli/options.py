"""The flags that commands share, and the configuration that they make.

The connection's flags are the AWS CLI's own; what they leave open, the AWS environment variables
and the profile say, in the AWS CLI's order of precedence. Every flag can also be given by an
environment variable: BULK_UPDATER_<COMMAND>_<FLAG>.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from bulk_updater.config import (
    ConnectionConfig,
    MaxFailures,
    PacingConfig,
    RetryConfig,
    RunConfig,
)
from bulk_updater.connect import check_endpoint_url
from bulk_updater.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULTS",
    "connection_options",
    "job_arguments",
    "make_run_config",
    "output_options",
    "pacing_options",
    "parse_max_failures",
]

_F = TypeVar("_F", bound="Callable[..., Any]")

_SUFFIXES_OF_EXPORTS = {".csv", ".gz", ".parquet", ".tsv"}

DEFAULTS = RunConfig(mapping=Path(), sources=(Path(),))
"""A run that only its defaults are asked of."""


def _parse_seconds(_context: click.Context, _option: click.Parameter, value: float) -> float | None:
    """Seconds from 0; 0 waits for ever, as for the AWS CLI."""
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{value:g} is no time; it is a number of seconds from 0.")
    return value or None


def _all_of(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


job_arguments = _all_of(
    click.argument("mapping", type=click.Path(path_type=Path)),
    click.argument(
        "sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path)
    ),
)

connection_options = _all_of(
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


def _parse_rate(
    _context: click.Context, _option: click.Parameter, value: str
) -> float | Literal["quota", "auto"]:
    """`quota`, `auto`, or requests a second."""
    named: dict[str, Literal["quota", "auto"]] = {"quota": "quota", "auto": "auto"}
    if value in named:
        return named[value]
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise click.BadParameter(
            f'"{value}" is no rate: it is "quota", "auto", or requests a second above 0.'
        )
    return rate


def parse_max_failures(
    _context: click.Context, _option: click.Parameter, value: str
) -> MaxFailures:
    """A number in a row, a share in percent, or `none`."""
    if value == "none":
        return MaxFailures(in_a_row=None, share=None)
    match = re.fullmatch(r"([0-9]{1,9})(%?)", value)
    number = int(match.group(1)) if match else 0
    percent = match is not None and bool(match.group(2))
    if number < 1 or (percent and number > 100):  # noqa: PLR2004 - percent
        raise click.BadParameter(
            f'"{value}" is none of N (failures in a row with one code), P% (of the first '
            f'{DEFAULTS.max_failures.share_of:,} requests) and "none".'
        )
    if percent:
        return MaxFailures(share=number / 100)
    return MaxFailures(in_a_row=number)


pacing_options = _all_of(
    click.option(
        "--rate",
        callback=_parse_rate,
        metavar="quota|auto|N",
        default="quota",
        show_default=True,
        help="Requests a second for each operation: --quota-share of the quota that applies to "
        "the account; or of the quota as it turns out to be; or never above N.",
    ),
    click.option(
        "--quota-share",
        type=float,
        metavar="SHARE",
        # No default here: a share that was given is told from one that was not.
        help="Part of the quota to use; the rest is the live contact centre's.  "
        f"[default: {DEFAULTS.pacing.quota_share}]",
    ),
    click.option(
        "--exclusive",
        is_flag=True,
        help="Take all of the quota and do not give way: for an account without live traffic.",
    ),
    click.option(
        "--quota-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What runs find out about the quotas, for later ones; by default "
        f"{DEFAULTS.runs_dir}/quotas.json.",
    ),
    click.option("--limit", type=int, metavar="N", help="Take only the first N rows."),
)

output_options = _all_of(
    click.option(
        "--json",
        is_flag=True,
        help="Machine-readable output on standard output, and nothing else there.",
    ),
    click.option(
        "--color",
        type=click.Choice(["on", "off", "auto"]),
        default="auto",
        show_default=True,
        help="Colours and the progress bar.",
    ),
    click.option("--debug", is_flag=True, help="Log more; never cells or credentials."),
)


def make_run_config(flags: dict[str, Any]) -> RunConfig:
    """The configuration that the flags of `run` or `plan` make.

    Args:
        flags: The command's parameters by name; those that `plan` lacks have their defaults.

    Raises:
        ConfigError: If they are not usable.
    """
    _expect_mapping_first(flags["mapping"])
    endpoint_url = flags["endpoint_url"] or _endpoint_of_environment(flags)
    if endpoint_url is not None:
        # Before anything is written: the command that goes on would hold a password that is in it.
        check_endpoint_url(endpoint_url, allow_http=flags["allow_http"])
    return RunConfig(
        mapping=flags["mapping"],
        sources=tuple(flags["sources"]),
        run_dir=flags.get("run_dir"),
        quota_file=flags["quota_file"],
        fresh=flags.get("fresh", False),
        limit=flags["limit"],
        max_in_flight=flags.get("max_in_flight", DEFAULTS.max_in_flight),
        connection=ConnectionConfig(
            region=flags["region"],
            profile=flags["profile"],
            endpoint_url=endpoint_url,
            ca_bundle=flags["ca_bundle"],
            verify_ssl=not flags["no_verify_ssl"],
            sign_requests=not flags["no_sign_request"],
            allow_http=flags["allow_http"],
            connect_timeout_s=flags["cli_connect_timeout"],
            read_timeout_s=flags["cli_read_timeout"],
        ),
        pacing=_make_pacing_config(flags),
        retry=RetryConfig(max_attempts=flags.get("max_attempts", DEFAULTS.retry.max_attempts)),
        max_failures=flags.get("max_failures", DEFAULTS.max_failures),
        sandbox=flags.get("sandbox", False),
        command=_command(),
    )


def _make_pacing_config(flags: dict[str, Any]) -> PacingConfig:
    share = flags["quota_share"]
    if flags["exclusive"] and share is not None:
        raise ConfigError("--exclusive takes all of the quota; leave --quota-share out.")
    return PacingConfig(
        rate=flags["rate"],
        quota_share=DEFAULTS.pacing.quota_share if share is None else share,
        exclusive=flags["exclusive"],
    )


def _expect_mapping_first(mapping: Path) -> None:
    if mapping.suffix.lower() in _SUFFIXES_OF_EXPORTS:
        raise ConfigError(
            f"{mapping} is named as the mapping and looks like an export. The mapping comes first: "
            "MAPPING SOURCE..."
        )


def _endpoint_of_environment(flags: dict[str, Any]) -> str | None:
    """What botocore would take from the environment: it decides whether a target is local."""
    ignored = os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    if ignored or flags.get("sandbox", False):
        return None
    names = ("AWS_ENDPOINT_URL_CONNECT", "AWS_ENDPOINT_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _command() -> str:
    """The command as it was typed, as it goes on: without `--fresh`, which would begin anew."""
    program = sys.argv[0]
    words = [word for word in sys.argv[1:] if word != "--fresh"]
    if program.endswith("__main__.py"):
        return shlex.join([sys.executable, "-m", "bulk_updater", *words])
    # A shell hands over the whole path of what it found.
    name = Path(program).name
    return shlex.join([name if shutil.which(name) == program else program, *words])
