"""What people and scripts get to see: results on standard output, all else on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.logging import RichHandler

__all__ = ["error_console", "output_console", "print_json", "say_error", "set_up_logging"]

_color: bool | None = None


def set_up_logging(*, color: str, debug: bool) -> None:
    """Send our own log to standard error.

    Only ours: botocore's at this level prints requests, and with them cells and signatures.
    """
    global _color  # noqa: PLW0603 - set once, by the flag, before anything is printed
    _color = {"on": True, "off": False}.get(color)
    logger = logging.getLogger("bulk_updater")
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.handlers.clear()
    logger.propagate = False
    console = error_console()
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(
            console=console, show_path=debug, show_time=False, markup=False, highlighter=None
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        )
    logger.addHandler(handler)


def output_console() -> Console:
    """Standard output, as wide as the terminal, or 100 columns in a file."""
    return _console(stderr=False)


def error_console() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(
        stderr=stderr,
        force_terminal=True if _color else None,
        no_color=True if _color is False else None,
        highlight=False,
        soft_wrap=True,
    )
    if not console.is_terminal:
        console.width = 100
    return console


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def say_error(message: str) -> None:
    """An error, for a person, on standard error."""
    error_console().print(f"[bold red]error[/]: {_escaped(message)}")


def _escaped(text: str) -> str:
    """Text that rich prints as it stands."""
    return text.replace("\\", "\\\\").replace("[", "\\[") if "[" in text else text
