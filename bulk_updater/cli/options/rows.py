"""Which rows a run sends: of which files, only what changed, instead of an older run's."""

from __future__ import annotations

import math
import re
from pathlib import Path

import click

from bulk_updater.cli.options.sharing import DEFAULTS, all_of
from bulk_updater.schedule import parse_duration

__all__ = ["changes_options", "job_arguments", "succession_options"]


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


job_arguments = all_of(
    click.argument("mapping", type=click.Path(path_type=Path)),
    click.argument(
        "sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path)
    ),
)

changes_options = all_of(
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

succession_options = all_of(
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
