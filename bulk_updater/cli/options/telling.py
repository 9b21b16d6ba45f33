"""What a command prints, and whom it tells beyond the terminal."""

from __future__ import annotations

from pathlib import Path

import click

from bulk_updater.cli.notify import check_notify_url
from bulk_updater.cli.options.sharing import all_of

__all__ = ["night_options", "output_options"]


def _parse_notify_url(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    if value is not None:
        check_notify_url(value)
    return value


output_options = all_of(
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

night_options = all_of(
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
