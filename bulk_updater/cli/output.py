"""What people and scripts get to see: results on standard output, all else on standard error."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, TextIO

import orjson
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from bulk_updater.model import to_iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "abandon_output",
    "error_console",
    "format_error",
    "format_summary",
    "logs_json",
    "open_standard_streams",
    "output_console",
    "print_json",
    "print_wrapped",
    "reader_may_leave",
    "say_error",
    "say_summary",
    "set_log_format",
    "set_run_id_source",
    "set_up_logging",
]

_COLUMNS_IN_A_FILE = 100

_OWN_LOGGER = "bulk_updater.cli"

_LAST_RESORT = logging.lastResort
"""What writes the warnings of libraries, which have no handler, as they stand."""


def _no_run_id() -> str | None:
    return None


_color: bool | None = None
_logs_json = False
_run_id_source: Callable[[], str | None] = _no_run_id


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


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _json_line(
            record.getMessage(), level=record.levelname, logger=record.name, at_s=record.created
        )


def set_log_format(name: str) -> None:
    """Say whether standard error holds text for people or nothing but JSON lines.

    To be called before anything is printed there.

    Args:
        name: `text` or `json`.
    """
    global _logs_json, _run_id_source  # noqa: PLW0603 - set once, by the flag
    _logs_json = name == "json"
    _run_id_source = _no_run_id
    logging.lastResort = _LAST_RESORT
    python_warnings = logging.getLogger("py.warnings")
    python_warnings.handlers.clear()
    if _logs_json:
        handler = logging.lastResort = _LogHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(_JsonFormatter())
        python_warnings.addHandler(handler)  # it would get one that says nothing
    logging.captureWarnings(_logs_json)


def logs_json() -> bool:
    """Whether standard error holds nothing but JSON lines."""
    return _logs_json


def set_run_id_source(source: Callable[[], str | None]) -> None:
    """Say what knows the run's id, once there is one, for the lines that follow."""
    global _run_id_source  # noqa: PLW0603 - one process, one run
    _run_id_source = source


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
    if _logs_json:
        handler = _LogHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter())
    elif console.is_terminal:
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


def say_error(message: str, *, go_on: str | None = None, mended: bool = False) -> None:
    """An error, for a person, on standard error: one line, which a terminal wraps at words.

    Args:
        message: What is wrong, where, and what to do.
        go_on: The command that goes on from there, for a last line of its own, to be copied.
        mended: Whether something has to be mended before.
    """
    if _logs_json:
        _write_error(format_error(message, go_on=go_on, mended=mended))
        return
    console = error_console()
    line = Text.assemble(("error", "bold red"), ": ", " ".join(message.splitlines()))
    with contextlib.suppress(BrokenPipeError):
        console.print(line, soft_wrap=not console.is_terminal)
        if go_on:
            label = _go_on_label(mended=mended)
            console.print(Text.assemble((label, "bold"), " ", go_on), soft_wrap=True)


def say_summary(fields: Mapping[str, Any]) -> None:
    """The last line on standard error: how the command ended, for whoever reads logs."""
    _write_error(format_summary(fields))


def format_error(message: str, *, go_on: str | None = None, mended: bool = False) -> str:
    """What `say_error` prints, without colours, line ends included."""
    message = " ".join(message.splitlines())
    label = _go_on_label(mended=mended)
    if not _logs_json:
        return f"error: {message}\n" + (f"{label} {go_on}\n" if go_on else "")
    if not go_on:
        return _json_line(message, level="ERROR") + "\n"
    return _json_line(f"{message} {label} {go_on}", level="ERROR", command_to_go_on=go_on) + "\n"


def format_summary(fields: Mapping[str, Any]) -> str:
    """What `say_summary` prints, line end included: `summary state=finished exit=0 ...`."""
    line = "summary " + " ".join(f"{key}={_logfmt(value)}" for key, value in fields.items())
    return (_json_line(line, summary=dict(fields)) if _logs_json else line) + "\n"


def _go_on_label(*, mended: bool) -> str:
    return "To go on, once that is mended:" if mended else "To go on:"


def _logfmt(value: Any) -> str:
    """A value as logfmt has it: in quotes where it would not be one word."""
    text = str(value)
    if text and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    return json.dumps(text)


def _json_line(
    message: str,
    *,
    level: str = "INFO",
    logger: str = _OWN_LOGGER,
    at_s: float | None = None,
    **more: Any,
) -> str:
    # Not orjson: a path that is no UTF-8 is printed all the same.
    return json.dumps(
        {
            "time": to_iso(time.time() if at_s is None else at_s),
            "level": level,
            "message": message,
            "run_id": _run_id_source(),
            "logger": logger,
            **more,
        }
    )


def _write_error(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except BrokenPipeError:
        _abandon(2)


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
