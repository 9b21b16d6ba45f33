"""What people and scripts get to see: results on standard output, all else on standard error."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

import orjson
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "abandon_output",
    "error_console",
    "open_standard_streams",
    "output_console",
    "print_json",
    "print_wrapped",
    "reader_may_leave",
    "say_error",
    "set_up_logging",
]

_COLUMNS_IN_A_FILE = 100

_color: bool | None = None


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command, whose exit code says how the run went; rich would exit."""
        raise BrokenPipeError


class _LogHandler(logging.StreamHandler[TextIO]):
    """Lines for whoever reads standard error, if anybody does."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """A reader that has gone takes the log with it, and not the exit code."""
        if isinstance(sys.exception(), BrokenPipeError):
            _abandon(2)
        else:
            super().handleError(record)


def set_up_logging(*, color: str, debug: bool) -> None:
    """Send our own log to standard error.

    Only ours: botocore's at this level prints requests, and with them cells and signatures.
    """
    global _color  # noqa: PLW0603 - set once, by the flag, before anything is printed
    _color = {"on": True, "off": False}.get(color)
    output_console.cache_clear()
    error_console.cache_clear()
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
        handler = _LogHandler(sys.stderr)
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        )
    logger.addHandler(handler)


@functools.cache
def output_console() -> Console:
    """Standard output, as wide as the terminal, or 100 columns in a file."""
    return _console(stderr=False)


@functools.cache
def error_console() -> Console:
    """Standard error; one object, so that log lines and the progress bar know of each other."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = _Console(stderr=stderr, force_terminal=_color, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _COLUMNS_IN_A_FILE
    return console


def print_wrapped(text: str, *, indent: int = 0, first: str = "", style: str = "") -> None:
    """Print a text on standard output, wrapped at words, with nothing behind its lines.

    Args:
        text: The text.
        indent: Columns to leave free before every line.
        first: What stands there in the first line, instead of blanks.
        style: How it looks on a terminal.
    """
    console = output_console()
    wrapped = textwrap.fill(
        text,
        max(console.width, indent + 20),
        initial_indent=first.ljust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    console.print(Text(wrapped or first, style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def say_error(message: str) -> None:
    """An error, for a person, on standard error: one line, which a terminal wraps at words."""
    console = error_console()
    line = Text.assemble(("error", "bold red"), ": ", " ".join(message.splitlines()))
    with contextlib.suppress(BrokenPipeError):
        console.print(line, soft_wrap=not console.is_terminal)


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """While inside, a reader of standard output that has enough, as `head` has, is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_output()


def abandon_output() -> None:
    """Nobody reads standard output any more: what is still in buffers goes nowhere, quietly."""
    _abandon(1)


def _abandon(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def open_standard_streams() -> None:
    """Open those that the caller closed onto nowhere.

    The next file to be opened would get their number, and with it what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
