"""`bulk-updater ctl`."""

from __future__ import annotations

import math
import os
import secrets
import shlex
import time
from pathlib import Path
from typing import Any, Final

import click
import orjson

from bulk_updater.cli.output import reader_may_leave
from bulk_updater.errors import ConfigError
from bulk_updater.files import private_opener, reason
from bulk_updater.ledger import RunDir
from bulk_updater.locks import read_holder
from bulk_updater.model import to_iso
from bulk_updater.pipeline.control import COMMANDS, CONTROL, CTL, LOG

__all__ = ["ctl"]

_PATIENCE_S: Final = 10.0
"""How long the run may take to answer: it looks twice a second, and may be busy for one or two."""
_LOOKS_EVERY_S: Final = 0.1
_LOCK: Final = "lock"

_EPILOG = """\b
Examples:
  bulk-updater ctl RUN_DIR pause      begin nothing until it is to resume
  bulk-updater ctl RUN_DIR resume
  bulk-updater ctl RUN_DIR rate 5     at most 5 a second for each operation
  bulk-updater ctl RUN_DIR rate auto  lift that limit
  bulk-updater ctl RUN_DIR drain      settle what is in flight, and end

RUN_DIR is the directory of the ledger that the run names. What was done is noted there in
log.jsonl. Exit codes: 0 the run has done it; 2 no run is going on there, or it did not answer.
"""


@click.command(epilog=_EPILOG, short_help="Pause, slow down or end a run that is going on.")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("command", metavar="pause|resume|rate|drain", type=click.Choice(COMMANDS))
@click.argument("value", metavar="[N|auto]", required=False)
def ctl(run_dir: Path, command: str, value: str | None) -> None:
    """Tell the run in RUN_DIR what to do, and wait until it has done it."""
    rate_per_s = _parse_value(command, value)
    if run_dir.name == RunDir(run_dir).ledger_path.name:
        run_dir = run_dir.parent  # as the summary names it
    _expect_running(run_dir)
    log_path = run_dir / LOG
    said_before = _size(log_path)
    name = secrets.token_hex(8)
    _append_command(run_dir / CONTROL, name, command, rate_per_s)
    note = _wait_for_note(run_dir, name, said_before)
    with reader_may_leave():
        click.echo(_what_it_does(run_dir, command, note))


def _parse_value(command: str, value: str | None) -> float | None:
    """The rate that was named, in requests per second; None where none is to be."""
    if command != "rate":
        if value is not None:
            raise ConfigError(f"{command} takes no value; leave {value} out.")
        return None
    if value is None:
        raise ConfigError("rate needs a number of requests a second, or auto to lift the limit.")
    if value in ("auto", "none"):
        return None
    try:
        rate_per_s = float(value)
    except ValueError:
        rate_per_s = 0.0
    if not 0 < rate_per_s < math.inf:
        raise ConfigError(
            f'"{value}" is no rate: it is requests a second above 0, or auto to lift the limit. '
            "To begin nothing, say pause."
        )
    return rate_per_s


def _expect_running(run_dir: Path) -> None:
    if not _is_running(run_dir):
        raise ConfigError(
            f"No run is going on in {run_dir}, so there is nobody to tell. Name the directory "
            "that the run's ledger is in; `bulk-updater run` begins or goes on with one."
        )


def _is_running(run_dir: Path) -> bool:
    try:
        return read_holder(run_dir / _LOCK) is not None
    except OSError as error:
        raise ConfigError(
            f"Whether a run is going on in {run_dir} cannot be told: {reason(error)}. Check the "
            "path and its permissions."
        ) from error


def _append_command(path: Path, name: str, command: str, rate_per_s: float | None) -> None:
    record = {"id": name, "at": to_iso(time.time()), "command": command, "value": rate_per_s}
    line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    try:
        fd = private_opener(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, line)  # in one piece: others may append at the same time
        finally:
            os.close(fd)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {reason(error)}. The run was told nothing; do it as the "
            "user who runs it."
        ) from error


def _wait_for_note(run_dir: Path, name: str, said_before: int) -> dict[str, Any]:
    """What the run has noted about a command."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        is_running = _is_running(run_dir)  # before the look: its last note may be the answer
        note = _find_note(run_dir / LOG, name, said_before)
        if note is not None:
            return note
        if not is_running:
            raise ConfigError(f"The run in {run_dir} has ended before it heard of this.")
        if time.monotonic() > deadline_s:
            raise ConfigError(
                f"The run in {run_dir} did not answer within {_PATIENCE_S:g} seconds: it has only "
                f"just begun, or is busy. Look in {LOG} whether it has done it since, and say it "
                "again if not."
            )
        time.sleep(_LOOKS_EVERY_S)


def _find_note(path: Path, name: str, said_before: int) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            file.seek(said_before)
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {reason(error)}. The run was told, and may have done it."
        ) from error
    for line in lines:
        try:
            note = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # it is just being written
        if isinstance(note, dict) and note.get("id") == name:
            return note
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _what_it_does(run_dir: Path, command: str, note: dict[str, Any]) -> str:
    """What the run does now."""
    if command == "pause":
        resume = shlex.join(["bulk-updater", "ctl", str(run_dir), "resume"])
        return f"The run pauses; what is in flight is settled. To go on: {resume}"
    if command == "drain":
        return "The run settles what is in flight, and ends; the same command goes on with it."
    paused_by = note.get("paused_by", [])
    others = [each for each in paused_by if each != CTL]
    if command == "resume":
        return "The run still waits for its window." if others else "The run goes on."
    still = ", as soon as it goes on: it pauses now" if paused_by else ""
    limit_per_s = note.get("limit_per_s")
    if limit_per_s is None:
        return f"The run goes at its own pace again{still}."
    return f"The run sends at most {limit_per_s:g} requests a second for each operation{still}."
