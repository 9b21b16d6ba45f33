"""What a run says to those who are not there: its last line, its figures, a notification.

`main` begins a night for every command that has `--notify`, before its flags are checked, so that
a mistake in them is told, too. Whatever is told of the end, the exit code stays what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bulk_updater.cli import errand
from bulk_updater.cli.exits import EXIT_INTERRUPTED
from bulk_updater.cli.figures import KeptFigures
from bulk_updater.cli.going_on import command_to_go_on
from bulk_updater.cli.notify import NOTIFY_S, notify, public_url
from bulk_updater.cli.output import (
    format_error,
    format_summary,
    logs_json,
    say_error,
    say_summary,
    set_log_format,
    set_run_id_source,
)
from bulk_updater.cli.signals import INTERRUPTED, SIGNALS
from bulk_updater.cli.standing import Standing, outcomes_of
from bulk_updater.cli.summary import headline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import FrameType

    from bulk_updater.model import Progress, RunSummary
    from bulk_updater.telemetry import Telemetry

__all__ = [
    "begin_night",
    "end_night",
    "end_night_in_loop",
    "forget_night",
    "how_to_go_on",
    "is_in_sight",
    "last_words",
    "open_night",
    "tell_end",
    "watch_night",
]

log = logging.getLogger(__name__)

_night: Night | None = None


class Night:
    """One command that may run while nobody looks."""

    def __init__(self, flags: dict[str, Any]) -> None:
        self.standing = Standing()
        self.telemetry: Telemetry | None = None
        self.is_open = False
        self._flags: dict[str, Any] = {}
        self._figures: KeptFigures | None = None
        self._has_ended = False
        self._has_said = False
        self.take(flags)

    def take(self, flags: dict[str, Any]) -> None:
        """Take the flags as they are known by now."""
        self._flags = flags
        self.standing.take(flags)
        path = flags.get("metrics_file")
        self._figures = KeptFigures(Path(path), self.standing.reading) if path else None

    @contextlib.asynccontextmanager
    async def watch(self, progress: Progress) -> AsyncIterator[None]:
        """Keep the figures up to date while inside."""
        self.standing.progress = progress
        set_run_id_source(lambda: progress.run_id)
        if self.telemetry is not None:
            job = {"job": self.standing.job}
            self.telemetry.begin(job, outcomes=lambda: outcomes_of(progress))
            progress.listeners.append(self.telemetry.settled)
        if self._figures is None:
            yield
            return
        task = asyncio.create_task(self._figures.keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def end(self, code: int, *, state: str | None, message: str | None, error: str | None) -> None:
        """Tell everybody that is to be told; returns when they are, or had their time."""
        if self._has_ended or not (self.is_open or code):
            return  # such as `--help`, which is no run that went well
        self._has_ended = True
        fields = self.standing.fields(code, state=state, error=error)
        _leave_on_signals(format_summary(fields), code)
        try:
            self._tell(code, fields, message)
        except Exception as fault:  # noqa: BLE001 - no fault in telling changes how a run ended
            log.warning("The end could not be told to all (%s).", type(fault).__name__)
        self.say_last(fields)

    def say_last(self, fields: dict[str, Any]) -> None:
        """The last line, once."""
        if not self._has_said:
            self._has_said = True
            say_summary(fields)

    def _tell(self, code: int, fields: dict[str, Any], message: str | None) -> None:
        # All are under way before one is waited for.
        errands = [
            self._write_figures(code),
            self._close_telemetry(code, fields),
            self._notify(code, fields, message),
        ]
        for each in errands:
            warning = each and each.result()
            if warning:
                log.warning("%s", warning)

    def _write_figures(self, code: int) -> errand.Errand | None:
        if self._figures is None:
            return None
        return self._figures.write_last(self.standing.reading(code))

    def _close_telemetry(self, code: int, fields: dict[str, Any]) -> errand.Errand | None:
        telemetry = self.telemetry
        if telemetry is None:
            return None

        def close() -> None:
            telemetry.end(fields, well=code == 0)
            telemetry.close(errand.PATIENCE_S)

        return errand.Errand(close, errand.PATIENCE_S, "Exporting to OpenTelemetry")

    def _notify(
        self, code: int, fields: dict[str, Any], message: str | None
    ) -> errand.Errand | None:
        url, when = self._flags.get("notify"), self._flags.get("notify_on")
        if not url or when == "never" or (when != "always" and code == 0):
            return None
        told = self.standing.notification(code, fields, message)
        what = f"The notification to {public_url(url)}"
        return errand.Errand(lambda: notify(url, told), NOTIFY_S, what)


def forget_night() -> None:
    """As at the beginning of a process."""
    global _night  # noqa: PLW0603 - one process, one command
    _night = None
    set_log_format("text")


def begin_night(command: click.Command, args: list[str], context: click.Context) -> None:
    """Look at a command's words before it does, and mind no mistake in them: it finds them itself.

    Args:
        command: The command.
        args: The words behind its name.
        context: The group's.
    """
    global _night  # noqa: PLW0603 - one process, one command
    names = {each.name for each in command.params}
    if "log_format" not in names:
        return  # its module may hold nothing of this, such as a group of commands
    flags = _guess(command, list(args), context)
    set_log_format(flags.get("log_format") or "text")
    if "notify" in names:
        _night = Night(flags)
        _leave_on_signals(
            format_error(INTERRUPTED, go_on=command_to_go_on(sys.argv))
            + format_summary({"state": "interrupted", "exit": EXIT_INTERRUPTED}),
            EXIT_INTERRUPTED,
        )


def _guess(command: click.Command, args: list[str], context: click.Context) -> dict[str, Any]:
    """The parameters that can be told; environment variables and defaults included."""
    guessing = click.Context(
        command,
        parent=context,
        info_name=command.name,
        resilient_parsing=True,
        ignore_unknown_options=True,
        allow_extra_args=True,
    )
    with contextlib.suppress(click.ClickException):
        command.parse_args(guessing, args)
    return dict(guessing.params)


def open_night(flags: dict[str, Any]) -> None:
    """Take the flags as the command knows them.

    Raises:
        ConfigError: `--otel` was given and cannot be.
    """
    if _night is None:
        return
    _night.take(flags)
    _night.is_open = True
    if flags["otel"]:
        from bulk_updater.telemetry import Telemetry  # noqa: PLC0415 - an extra

        _night.telemetry = Telemetry.from_environment()


@contextlib.asynccontextmanager
async def watch_night(progress: Progress) -> AsyncIterator[None]:
    """While inside, what is told of the run is kept up to date from its progress."""
    async with contextlib.nullcontext() if _night is None else _night.watch(progress):
        yield


def tell_end(summary: RunSummary, *, as_json: bool) -> None:
    """What the run came to, before it is printed on standard output.

    Where it did not finish, standard error says so and ends with the command that goes on; on a
    terminal that shows both, the summary's own end says it.
    """
    if _night is not None:
        _night.standing.summary = summary
    go_on = None if is_in_sight(as_json=as_json) else summary.resume
    if summary.state == "stopped":
        say_error(summary.reason or headline(summary), go_on=go_on)
    elif go_on:
        log.warning("%s To go on: %s", headline(summary), go_on)


def end_night(
    code: int, *, state: str | None = None, message: str | None = None, error: str | None = None
) -> None:
    """The command has ended: tell everybody, the summary line last. The second time, do nothing.

    Args:
        code: The exit code, which this never changes.
        state: How it ended; None is what the summary says.
        message: Why, in a sentence; None is what the summary says.
        error: The slug of the error that ended it.
    """
    if _night is not None:
        _night.end(code, state=state, message=message, error=error)


async def end_night_in_loop(code: int, *, state: str, message: str) -> None:
    """The same, while the loop goes on to hear signals: the next one need not wait."""
    with contextlib.suppress(asyncio.CancelledError):  # a signal more: who called leaves anyhow
        await asyncio.to_thread(end_night, code, state=state, message=message)


def last_words(code: int) -> None:
    """Only the summary line, for who leaves at once."""
    if _night is not None:
        _night.say_last(_night.standing.fields(code, state="interrupted", error=None))


def how_to_go_on() -> str | None:
    """The command for the end of a message of failure; None where the command is no run."""
    return None if _night is None else _night.standing.command()


def is_in_sight(*, as_json: bool) -> bool:
    """Whether who reads the errors sees the summary, too: both are on a terminal."""
    return not as_json and not logs_json() and sys.stdout.isatty() and sys.stderr.isatty()


def _leave_on_signals(last_line: str, code: int) -> None:
    """From now on a signal says one thing and ends the process at once, with a given code."""

    def heard(_number: int, _frame: FrameType | None) -> NoReturn:
        with contextlib.suppress(OSError):
            # Straight to the descriptor: the stream may be in the middle of a write.
            os.write(2, last_line.encode("utf-8", "backslashreplace"))
        os._exit(code)

    with contextlib.suppress(ValueError):  # only the main thread may
        for number in SIGNALS:
            signal.signal(number, heard)
