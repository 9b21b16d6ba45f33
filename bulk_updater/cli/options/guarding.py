"""What stands between a mistake and ten million contacts, and which rows go first."""

from __future__ import annotations

import click

from bulk_updater.cli.options.sharing import DEFAULTS, all_of

__all__ = ["guard_options", "sending_guard_options"]


def _parse_n_rows(
    _context: click.Context, option: click.Parameter, value: int | None
) -> int | None:
    if value is not None and value < 1:
        raise click.BadParameter(f"{option.opts[0]} is {value}; it must be at least 1.")
    return value


guard_options = all_of(
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

sending_guard_options = all_of(
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
