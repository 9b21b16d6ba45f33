"""What a run says to those who are not there: its last line, its figures, a notification.

`main` begins a night for every command that has `--notify`, before its flags are checked, so that
a mistake in them is told, too. Whatever is told of the end, the exit code stays what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click

from bulk_updater._version import __version__
from bulk_updater.cli.exits import EXIT_BAD_ROWS, EXIT_INTERRUPTED
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
from bulk_updater.cli.summary import headline
from bulk_updater.errors import BulkUpdaterError
from bulk_updater.model import Outcome, RunSummary, to_iso

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import FrameType

    from bulk_updater.metrics import MetricsFile, Reading
    from bulk_updater.model import Progress
    from bulk_updater.telemetry import Telemetry

__all__ = [
    "begin_night",
    "command_to_go_on",
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

_WRITE_EVERY_S = 15.0
"""As often as Prometheus looks by default, or more often."""

_PATIENCE_S = 5.0
"""Seconds that figures may take to be written, or exported, at the end."""

_WELL = (0, EXIT_BAD_ROWS)
"""Exit codes after which nothing is left to go on with."""

_night: Night | None = None


class Night:
    """One command that may run while nobody looks."""

    def __init__(self, flags: dict[str, Any]) -> None:
        self.flags: dict[str, Any] = {}
        self.mapping: str | None = None
        self.summary: RunSummary | None = None
        self.progress: Progress | None = None
        self.telemetry: Telemetry | None = None
        self.is_open = False
        self._began_s = time.monotonic()
        self._started_at = time.time()
        self._metrics: MetricsFile | None = None
        self._writing: _Errand | None = None
        self._warned_of_metrics = False
        self._has_ended = False
        self._has_said = False
        self.take(flags)

    def take(self, flags: dict[str, Any]) -> None:
        """Take the flags as they are known by now."""
        self.flags = flags
        mapping = flags.get("mapping") or _mapping_of(flags.get("run_dir"))
        self.mapping = None if mapping is None else str(mapping)

    @property
    def job(self) -> str:
        """What is run, for labels: the mapping's name without its suffix."""
        return "unknown" if self.mapping is None else Path(self.mapping).stem

    def end(self, code: int, *, state: str | None, message: str | None, error: str | None) -> None:
        """Tell everybody that is to be told; returns when they are, or had their time."""
        if self._has_ended or not (self.is_open or code):
            return  # such as `--help`, which is no run that went well
        self._has_ended = True
        fields = self.fields(code, state=state, error=error)
        last_line = format_summary(fields)
        _leave_on_signals(last_line, code)
        try:
            self._tell(code, fields, message)
        except Exception as fault:  # noqa: BLE001 - no fault in telling changes how a run ended
            log.warning("The end could not be told to all (%s).", type(fault).__name__)
        self.say_last(fields)

    def _tell(self, code: int, fields: dict[str, Any], message: str | None) -> None:
        errands = [
            *self._errand_of_metrics(code),
            *self._errand_of_telemetry(code, fields),
            *self._errand_of_notification(code, fields, message),
        ]
        for errand in errands:
            warning = errand.result()
            if warning:
                log.warning("%s", warning)

    def say_last(self, fields: dict[str, Any]) -> None:
        """The last line, once."""
        if not self._has_said:
            self._has_said = True
            say_summary(fields)

    @contextlib.asynccontextmanager
    async def watch(self, progress: Progress) -> AsyncIterator[None]:
        """Keep the figures up to date while inside."""
        self.progress = progress
        set_run_id_source(lambda: progress.run_id)
        if self.telemetry is not None:
            self.telemetry.begin({"job": self.job}, outcomes=lambda: _outcomes(progress))
            progress.listeners.append(self.telemetry.settled)
        task = asyncio.create_task(self._write_now_and_then())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _write_now_and_then(self) -> None:
        while self.flags.get("metrics_file"):
            if self._writing is None or not self._writing.is_alive():
                self._say_once(self._writing)
                # A disk that does not answer holds up its own thread only.
                try:
                    self._writing = self._errand_to_write(self._reading())
                except RuntimeError:  # no thread can be started now
                    log.debug("The figures are not written this time.")
            await asyncio.sleep(_WRITE_EVERY_S)

    def _say_once(self, errand: _Errand | None) -> None:
        if errand is not None and errand.warning and not self._warned_of_metrics:
            self._warned_of_metrics = True
            log.warning("%s The run goes on.", errand.warning)

    def _errand_to_write(self, reading: Reading) -> _Errand:
        from bulk_updater.metrics import MetricsFile  # noqa: PLC0415 - not for every command

        if self._metrics is None:
            self._metrics = MetricsFile(Path(self.flags["metrics_file"]))
        metrics = self._metrics

        def write() -> None:
            metrics.write(reading)

        return _Errand(write, _PATIENCE_S, f"--metrics-file {self.flags['metrics_file']}")

    def _errand_of_metrics(self, code: int) -> list[_Errand]:
        if not self.flags.get("metrics_file"):
            return []
        self._say_once(self._writing)
        errand = self._errand_to_write(self._reading(code))
        if not self._warned_of_metrics:
            return [errand]
        errand.result()  # once was enough
        return []

    def _errand_of_telemetry(self, code: int, fields: dict[str, Any]) -> list[_Errand]:
        telemetry = self.telemetry
        if telemetry is None:
            return []

        def close() -> None:
            telemetry.end(fields, well=code == 0)
            telemetry.close(_PATIENCE_S)

        return [_Errand(close, _PATIENCE_S, "Exporting to OpenTelemetry")]

    def _errand_of_notification(
        self, code: int, fields: dict[str, Any], message: str | None
    ) -> list[_Errand]:
        url, when = self.flags.get("notify"), self.flags.get("notify_on")
        if not url or when == "never" or (when != "always" and code == 0):
            return []
        told = self._notification(code, fields, message)
        what = f"The notification to {public_url(url)}"
        return [_Errand(lambda: notify(url, told), NOTIFY_S, what)]

    def _notification(
        self, code: int, fields: dict[str, Any], message: str | None
    ) -> dict[str, Any]:
        summary = self.summary
        if summary is None:
            told = dict.fromkeys(field.name for field in dataclasses.fields(RunSummary))
            told |= {"run_id": fields.get("run_id"), "took_s": fields["seconds"]}
        else:
            told = dataclasses.asdict(summary)
        return told | {
            "state": fields["state"],
            "exit_code": code,
            "job": self.job,
            "message": message or self._message(),
            "host": socket.gethostname(),
            "time": to_iso(time.time()),
            "command_to_go_on": None if code in _WELL else self.command(),
            "version": __version__,
        }

    def _message(self) -> str:
        if self.summary is None:
            return "The command ended."
        return self.summary.reason or headline(self.summary)

    def command(self) -> str:
        """What goes on from here."""
        return (self.summary and self.summary.resume) or command_to_go_on(sys.argv)

    def fields(self, code: int, *, state: str | None, error: str | None) -> dict[str, Any]:
        """The summary line's keys; what is not known is left out."""
        summary, progress = self.summary, self.progress
        fields: dict[str, Any] = {"state": state or "finished", "exit": code}
        if summary is not None:
            fields |= {"state": state or summary.state, "run_id": summary.run_id}
            fields["rows"] = summary.rows_read
            fields |= {key.lower(): number for key, number in summary.outcomes.items()}
            fields |= {"unsettled": summary.unsettled, "attempts": summary.attempts}
            fields |= {"throttled": summary.throttled, "seconds": round(summary.took_s, 1)}
            return fields | {"ledger": summary.ledger} | ({"error": error} if error else {})
        if progress is not None:
            fields |= {"run_id": progress.run_id} if progress.run_id else {}
            if progress.results_total:
                fields |= {key.lower(): number for key, number in _outcomes(progress).items()}
                fields["unsettled"] = progress.results_total - progress.settled
            fields |= {"attempts": progress.sent, "throttled": progress.throttled}
        fields["seconds"] = round(time.monotonic() - self._began_s, 1)
        return fields | ({"error": error} if error else {})

    def _reading(self, code: int | None = None) -> Reading:
        from bulk_updater.metrics import Reading  # noqa: PLC0415 - not for every command

        summary, progress = self.summary, self.progress
        told: dict[str, Any] = {}
        if progress is not None:
            told = {
                "run_id": progress.run_id,
                "outcomes": _outcomes(progress) if progress.results_total else {},
                "unsettled": progress.results_total - progress.settled
                if progress.results_total
                else None,
                "attempts": progress.sent,
                "throttled": progress.throttled,
                "in_flight": progress.in_flight,
                "ceiling_per_s": progress.ceiling_per_s,
                "allowed_per_s": progress.allowed_per_s() if code is None else None,
                "started_per_s": progress.started_per_s() if code is None else None,
            }
        if summary is not None:
            told |= {
                "run_id": summary.run_id,
                "outcomes": summary.outcomes,
                "unsettled": summary.unsettled,
                "attempts": summary.attempts,
                "throttled": summary.throttled,
                "finished": summary.state == "finished",
            }
        return Reading(
            job=self.job,
            mapping=self.mapping or "",
            started_at=self._started_at,
            finished_at=None if code is None else time.time(),
            exit_code=code,
            duration_s=time.monotonic() - self._began_s,
            **told,
        )


class _Errand(threading.Thread):
    """Something that is done beside, and that nobody waits for beyond its time.

    Attributes:
        warning: Why it was not done, once it has ended; None where it was.
    """

    def __init__(self, do: Callable[[], str | None], limit_s: float, what: str) -> None:
        super().__init__(name=what, daemon=True)
        self.warning: str | None = None
        self._do = do
        self._limit_s = limit_s
        self.start()

    def run(self) -> None:
        try:
            self.warning = self._do()
        except BulkUpdaterError as error:
            self.warning = error.message
        except Exception as error:  # noqa: BLE001 - nothing that is told may change how a run ends
            self.warning = f"{self.name} failed ({type(error).__name__})."

    def result(self) -> str | None:
        """Wait for its end, or until its time is up; returns what to warn of."""
        self.join(self._limit_s)
        if self.is_alive():
            return f"{self.name} did not end within {self._limit_s:g} s; it is left."
        return self.warning


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
        _night.summary = summary
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
        _night.say_last(_night.fields(code, state="interrupted", error=None))


def how_to_go_on() -> str | None:
    """The command for the end of a message of failure; None where the command is no run."""
    return None if _night is None else _night.command()


def is_in_sight(*, as_json: bool) -> bool:
    """Whether who reads the errors sees the summary, too: both are on a terminal."""
    return not as_json and not logs_json() and sys.stdout.isatty() and sys.stderr.isatty()


def command_to_go_on(argv: Sequence[str]) -> str:
    """A command as it was typed, as it goes on.

    Without `--fresh`, which would begin anew, and without a `--notify` whose URL holds a user
    name, a password or a query: what is printed, logged and kept holds no secrets. In any other
    URL, a user name and a password are made unreadable.
    """
    program = argv[0]
    words = _public(argv[1:])
    if program.endswith("__main__.py"):
        return shlex.join([sys.executable, "-m", "bulk_updater", *words])
    # A shell hands over the whole path of what it found.
    name = Path(program).name
    return shlex.join([name if shutil.which(name) == program else program, *words])


def _public(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        flag, is_one_word, value = word.partition("=")
        if flag == "--notify" and is_one_word and _has_secrets(value):
            continue
        if kept and kept[-1] == "--notify" and _has_secrets(word):
            kept.pop()
            continue
        if word != "--fresh":
            kept.append(_without_user(word))
    return kept


def _has_secrets(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    return "@" in parts.netloc or bool(parts.query)


def _without_user(word: str) -> str:
    scheme, is_url, rest = word.partition("://")
    if not is_url:
        return word
    host, slash, path = rest.partition("/")
    return f"{scheme}://***@{host.rpartition('@')[2]}{slash}{path}" if "@" in host else word


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


def _mapping_of(run_dir: Path | None) -> str | None:
    """The mapping of an earlier run, as its run.json names it."""
    if run_dir is None:
        return None
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        note = json.loads((run_dir / "run.json").read_bytes())
        return str(note["mapping"]["path"])
    return None


def _outcomes(progress: Progress) -> dict[str, int]:
    counts = dict(progress.outcomes)
    return {outcome.value: counts.get(outcome, 0) for outcome in Outcome}
