"""How fast a run sends, how often it tries, and when it may."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

import click

from bulk_updater.cli.options.sharing import DEFAULTS, all_of
from bulk_updater.config import MaxFailures

__all__ = ["pacing_options", "schedule_options", "sending_options"]


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


def _parse_max_failures(
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


pacing_options = all_of(
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

sending_options = all_of(
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
        callback=_parse_max_failures,
        metavar="N|P%|none",
        default="50",
        show_default=True,
        help="Stop after N failures in a row with one code, or when P% of the first "
        f"{DEFAULTS.max_failures.share_of:,} requests failed.",
    ),
)

schedule_options = all_of(
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
