"""The flags that commands share, and the configuration that they make.

The connection's flags are the AWS CLI's own; what they leave open, the AWS environment variables
and the profile say, in the AWS CLI's order of precedence. Every flag can also be given by an
environment variable: BULK_UPDATER_<COMMAND>_<FLAG>.
"""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from bulk_updater.cli.night import command_to_go_on
from bulk_updater.cli.notify import check_notify_url
from bulk_updater.config import (
    ChangesConfig,
    ConnectionConfig,
    MaxFailures,
    PacingConfig,
    RetryConfig,
    RunConfig,
)
from bulk_updater.connect import check_endpoint_url
from bulk_updater.errors import ConfigError
from bulk_updater.schedule import ScheduleConfig, parse_duration, parse_until, parse_window

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULTS",
    "changes_options",
    "connection_options",
    "guard_options",
    "job_arguments",
    "make_run_config",
    "night_options",
    "output_options",
    "pacing_options",
    "parse_max_failures",
    "schedule_options",
    "sending_guard_options",
    "sending_options",
    "succession_options",
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

sending_options = _all_of(
    click.option(
        "--max-in-flight",
        type=int,
        default=DEFAULTS.max_in_flight,
        show_default=True,
        metavar="N",
        help="Requests open at once, at the most.",
    ),
    click.option(
        "--max-attempts",
        type=int,
        default=DEFAULTS.retry.max_attempts,
        show_default=True,
        metavar="N",
        help="Attempts for each request; throttled ones do not count.",
    ),
    click.option(
        "--max-failures",
        callback=parse_max_failures,
        metavar="N|P%|none",
        default="50",
        show_default=True,
        help="Stop after N failures in a row with one code, or when P% of the first "
        f"{DEFAULTS.max_failures.share_of:,} requests failed.",
    ),
)

succession_options = _all_of(
    click.option(
        "--supersede",
        type=click.Path(path_type=Path),
        metavar="RUN_DIR",
        help="Take over from an older export's run: drop what it has left, and do not send again "
        "what it has applied.",
    ),
    click.option(
        "--mends",
        type=click.Path(path_type=Path),
        metavar="RUN_DIR",
        help="The run that a mended failed.csv comes from, where it cannot be found by itself.",
    ),
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
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="What standard error holds: text, or nothing but JSON lines.",
    ),
)


def _parse_notify_url(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    if value is not None:
        check_notify_url(value)
    return value


night_options = _all_of(
    click.option(
        "--metrics-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write figures for the node exporter's textfile collector; a name in .prom.",
    ),
    click.option(
        "--notify",
        callback=_parse_notify_url,
        metavar="URL",
        help="POST the summary as JSON to this URL at the end.",
    ),
    click.option(
        "--notify-on",
        type=click.Choice(["always", "failure", "never"]),
        default="failure",
        show_default=True,
        help="When: at every end, or at every one but exit code 0.",
    ),
    click.option(
        "--otel",
        is_flag=True,
        help="Send traces and metrics as the OTEL_ variables say; needs bulk-updater[otel].",
    ),
)


def _parse_percent(
    _context: click.Context, option: click.Parameter, value: str | None
) -> float | None:
    """A share in percent, as a part of 1."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", value)
    percent = float(match.group(1)) if match else math.inf
    if not 0 < percent <= 100:  # noqa: PLR2004 - percent
        raise click.BadParameter(
            f'"{value}" is no share: it is a number above 0 and up to 100 with a percent sign, '
            f"as in {option.opts[0]} {'1%' if option.name == 'verify_drift' else '20%'}."
        )
    return percent / 100


def _parse_refresh(
    _context: click.Context, option: click.Parameter, value: str | None
) -> float | None:
    return None if value is None else parse_duration(value, flag=option.opts[0])


def _parse_n_rows(
    _context: click.Context, option: click.Parameter, value: int | None
) -> int | None:
    if value is not None and value < 1:
        raise click.BadParameter(f"{option.opts[0]} is {value}; it must be at least 1.")
    return value


changes_options = _all_of(
    click.option(
        "--only-changed",
        is_flag=True,
        help="Leave out rows that say what was last applied to their contact.",
    ),
    click.option(
        "--state",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"What was last applied to each contact; by default {DEFAULTS.runs_dir}/state.sqlite.",
    ),
    click.option(
        "--refresh",
        callback=_parse_refresh,
        metavar="TIME",
        help="Send what was applied longer ago than TIME all the same, such as 30d.",
    ),
    click.option(
        "--verify-drift",
        callback=_parse_percent,
        metavar="P%",
        help="Read P% of the unchanged contacts back, and send again what somebody else changed.",
    ),
    click.option(
        "--max-change",
        callback=_parse_percent,
        metavar="P%",
        help="Send nothing where more than P% of the rows would change a contact or are new.",
    ),
)

guard_options = _all_of(
    click.option(
        "--expect-instance",
        metavar="ID",
        help="Refuse to write to any other instance.",
    ),
    click.option(
        "--order",
        type=click.Choice(["file", "oldest-first"]),
        default=DEFAULTS.order,
        show_default=True,
        help="Send rows as they stand, or first what Connect forgets first.",
    ),
)

sending_guard_options = _all_of(
    click.option(
        "--canary",
        type=int,
        callback=_parse_n_rows,
        metavar="N",
        help="Send N rows first, and the others only if none of them failed.",
    ),
    click.option(
        "--confirm",
        is_flag=True,
        help="Say what would be sent, and ask on the terminal.",
    ),
)


schedule_options = _all_of(
    click.option(
        "--until",
        metavar="TIME",
        help="Have all settled by TIME, and leave the rest for the next night: 06:00, 06:00 "
        "Europe/Berlin, or 2026-11-23T06:00+01:00.",
    ),
    click.option("--for", metavar="TIME", help="The same, TIME from now: 8h, 90m, 1h30m."),
    click.option(
        "--window",
        metavar="FROM-TO",
        help="Send within this part of the day only, and wait for it: 22:00-06:00, or "
        "22:00-06:00 Europe/Berlin.",
    ),
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
        schedule=_make_schedule_config(flags),
        sandbox=flags.get("sandbox", False),
        changes=_make_changes_config(flags),
        order=flags.get("order", DEFAULTS.order),
        canary=flags.get("canary"),
        expect_instance=flags.get("expect_instance"),
        supersede=flags.get("supersede"),
        mends=flags.get("mends"),
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


def _make_changes_config(flags: dict[str, Any]) -> ChangesConfig:
    if not flags.get("only_changed", False):
        for name in ("state", "refresh", "verify_drift", "max_change"):
            if flags.get(name) is not None:
                raise ConfigError(
                    f"--{name.replace('_', '-')} says how changes are told, and all rows are sent; "
                    "give --only-changed with it, or leave it out."
                )
    return ChangesConfig(
        only_changed=flags.get("only_changed", False),
        state_file=flags.get("state"),
        refresh_s=flags.get("refresh"),
        verify_drift=flags.get("verify_drift") or 0.0,
        max_change=flags.get("max_change"),
    )


def _make_schedule_config(flags: dict[str, Any]) -> ScheduleConfig:
    until, for_s, window = (flags.get(name) for name in ("until", "for", "window"))
    return ScheduleConfig(
        until=None if until is None else parse_until(until),
        for_s=None if for_s is None else parse_duration(for_s),
        window=None if window is None else parse_window(window),
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
    return command_to_go_on(sys.argv)
