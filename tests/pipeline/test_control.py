"""Steering a run that is going on, in virtual time. All in all 5 s."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from bulk_updater.config import PacingConfig
from bulk_updater.errors import Throttled
from bulk_updater.model import Progress, Quota, QuotaOrigin
from bulk_updater.pacing import Pacer
from bulk_updater.pipeline import run
from bulk_updater.pipeline.control import CONTROL, LOG, Command, Helm, obeying, parse_command
from bulk_updater.pipeline.drought import DROUGHT_S, Drought
from bulk_updater.sandbox import Sandbox

from .helpers import config_for, fast, people, write_export

pytestmark = pytest.mark.looptime

OPERATION = "update_contact_attributes"
PATIENCE_S = 60.0  # in virtual time: a wait that takes this long is a hang


def append(folder: Path, *lines: bytes | dict[str, Any]) -> None:
    whole = [
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    ]
    with (folder / CONTROL).open("ab") as file:
        file.write(b"".join(whole))


def notes(folder: Path) -> list[dict[str, Any]]:
    path = folder / LOG
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def tell(folder: Path, command: str, value: float | None = None) -> dict[str, Any]:
    """Give a command, and return what is noted of it."""
    name = f"{command}-{len(notes(folder))}"
    append(folder, {"id": name, "at": "now", "command": command, "value": value})
    return await until_noted(folder, name)


async def until_noted(folder: Path, name: str) -> dict[str, Any]:
    deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
    while asyncio.get_running_loop().time() < deadline_s:
        for note in notes(folder):
            if note.get("id") == name:
                return note
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing was noted of {name}: {notes(folder)}")


def steered(folder: Path, helm: Helm):
    return obeying(folder, helm, run_id="a run", now=lambda: 1_780_000_000.0)


async def test_each_command_is_done_and_noted(tmp_path):
    """Pause, resume, rate and drain do what they say, and each is noted by its id, with what holds
    then; both files are private."""
    helm = Helm()
    async with steered(tmp_path, helm):
        noted = await tell(tmp_path, "pause")
        assert noted == {
            "at": "2026-05-28T20:26:40.000Z",
            "run_id": "a run",
            "id": "pause-0",
            "event": "pause",
            "paused_by": ["ctl"],
            "by": "ctl",
        }
        assert helm.pauses == ["ctl"]
        noted = await tell(tmp_path, "rate", 5)
        assert (noted["paused_by"], noted["limit_per_s"], helm.limit_per_s) == (["ctl"], 5.0, 5.0)
        noted = await tell(tmp_path, "resume")
        assert ("paused_by" in noted, helm.pauses) == (False, [])
        noted = await tell(tmp_path, "rate")
        assert ("limit_per_s" in noted, helm.limit_per_s) == (False, None)
        assert not helm.stop.is_set()
        await tell(tmp_path, "drain")
        assert helm.stop.is_set()
        assert not helm.met_deadline
    for name in (CONTROL, LOG):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert len(notes(tmp_path)) == 5


async def test_what_an_earlier_execution_was_told(tmp_path):
    """Commands that stood there before are never obeyed, nor noted again."""
    append(tmp_path, {"id": "old", "command": "drain"})
    helm = Helm()
    async with steered(tmp_path, helm):
        await tell(tmp_path, "pause")
    assert not helm.stop.is_set()
    assert [note["id"] for note in notes(tmp_path)] == ["pause-0"]


async def test_lines_that_come_in_parts(tmp_path):
    """A line is obeyed when it has ended, once, and not before."""
    helm = Helm()
    async with steered(tmp_path, helm):
        append(tmp_path, b'{"id": "x", "comm')
        await asyncio.sleep(5)
        assert notes(tmp_path) == []
        append(tmp_path, b'and": "pause"}\n{"id": "y", "command": "resume"}\n{"id":')
        await until_noted(tmp_path, "y")
        await asyncio.sleep(5)
        append(tmp_path, b' "z", "command": "pause"}\n')
        await until_noted(tmp_path, "z")
    assert [note["id"] for note in notes(tmp_path)] == ["x", "y", "z"]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\n",
        b"pause\n",
        b"[]\n",
        b'{"command": "pause"}\n',
        b'{"id": 7, "command": "pause"}\n',
        b'{"id": "x", "command": "explode"}\n',
        b'{"id": "x", "command": ["pause"]}\n',
        b'{"id": "x", "command": "rate", "value": 0}\n',
        b'{"id": "x", "command": "rate", "value": -5}\n',
        b'{"id": "x", "command": "rate", "value": true}\n',
        b'{"id": "x", "command": "rate", "value": "5"}\n',
        b'{"id": "x", "command": "rate", "value": 1e999}\n',
        b"[" * 100_000 + b"\n",
        b"x" * 200_000 + b"\n",
    ],
)
async def test_rubbish(tmp_path, line):
    """What is no command changes nothing, is noted without its text, and the next is obeyed."""
    helm = Helm()
    async with steered(tmp_path, helm):
        append(tmp_path, line)
        await tell(tmp_path, "pause")
        assert (helm.pauses, helm.limit_per_s, helm.stop.is_set()) == (["ctl"], None, False)
    ignored = [note for note in notes(tmp_path) if note["event"] == "ignored"]
    assert 1 <= len(ignored) <= 4
    assert all(note.keys() == {"at", "run_id", "event", "by"} for note in ignored)


async def test_a_file_that_is_emptied(tmp_path):
    """Who empties the file loses no later command."""
    helm = Helm()
    async with steered(tmp_path, helm):
        await tell(tmp_path, "pause")
        os.truncate(tmp_path / CONTROL, 0)
        await asyncio.sleep(2)
        await tell(tmp_path, "resume")
    assert helm.pauses == []


async def test_where_nothing_can_be_written(tmp_path, caplog, monkeypatch):
    """A run whose files cannot be used goes on without, and says so."""
    monkeypatch.setattr(logging.getLogger("bulk_updater"), "propagate", True)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / CONTROL).mkdir()
    async with steered(tmp_path / "nowhere", Helm()):
        pass
    assert "`bulk-updater ctl` does not reach it" in caplog.text
    caplog.clear()
    (tmp_path / LOG).mkdir()
    helm = Helm()
    async with steered(tmp_path, helm):
        append(tmp_path, {"id": "x", "command": "pause"})
        await asyncio.sleep(2)
        assert helm.pauses == ["ctl"]
    assert f"{tmp_path / LOG} cannot be written: Is a directory" in caplog.text


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b'{"id": "a", "command": "pause", "value": 3}', Command("a", "pause")),
        (b'{"id": "a", "command": "rate", "value": 2.5}', Command("a", "rate", 2.5)),
        (b'{"id": "a", "command": "rate", "value": null}', Command("a", "rate")),
        (b'{"id": "a", "command": "rate"}', Command("a", "rate")),
    ],
)
async def test_commands(line, command):
    """A command has an id, a name, and for the rate a number or none."""
    assert parse_command(line) == command


async def test_what_was_said_before_there_was_anything_to_steer():
    """A pause and a limit hold for the pacer that comes later, and can be taken back."""
    helm = Helm()
    helm.pause("window")
    helm.limit(2.0)
    quota = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)
    pacer = Pacer(PacingConfig(), {OPERATION: quota})
    helm.attach(pacer)
    assert pacer.pauses == {"window"}
    assert pacer.rate_per_s(OPERATION) == 2.0
    helm.resume("window")
    helm.limit(None)
    assert pacer.pauses == frozenset()
    assert pacer.rate_per_s(OPERATION) == 8.0


async def test_a_run_that_is_steered(tmp_path, folder):
    """A run that is going on is slowed down, paused for ten minutes, goes on, and is drained:
    nothing begins in the pause, all that began is settled, and the same command does the rest."""
    write_export(folder, people(150))
    progress, there = Progress(), tmp_path / "here"
    async with Sandbox(fast()) as sandbox:
        config = config_for(
            sandbox, folder, pacing=PacingConfig(rate=10.0), run_dir=there, max_in_flight=4
        )
        going = asyncio.create_task(run(config, progress=progress, obeys_ctl=True))
        while progress.sent < 20:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        await tell(there, "rate", 2.0)
        assert progress.allowed_per_s() == 2.0
        n_before = progress.sent
        await asyncio.sleep(20)
        assert progress.sent - n_before <= 43
        await tell(there, "pause")
        n_paused = progress.sent
        await asyncio.sleep(600)
        assert progress.sent == n_paused == progress.settled
        assert progress.allowed_per_s() == 0.0
        await tell(there, "resume")
        await asyncio.sleep(10)
        assert n_paused < progress.sent <= n_paused + 23
        await tell(there, "drain")
        summary = await going
        assert summary.state == "interrupted"
        assert summary.resume == config.command
        assert summary.outcomes["UPDATED"] == progress.sent < 150
        assert notes(there)[-1]["run_id"] == summary.run_id
        again = await run(config, obeys_ctl=True)
        assert again.state == "finished"
        assert sandbox.counters[OPERATION].received == 150
    assert [note["event"] for note in notes(there)] == ["rate", "pause", "resume", "drain"]


async def test_a_run_that_nobody_steers(folder):
    """Without being asked to obey, a run leaves no such files and looks for none."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        summary = await run(config_for(sandbox, folder))
    assert not {CONTROL, LOG} & {path.name for path in Path(summary.ledger).parent.iterdir()}


async def test_a_pause_is_no_drought(caplog, monkeypatch):
    """A day's pause between two throttled answers is not taken for a day of throttling."""
    monkeypatch.setattr(logging.getLogger("bulk_updater"), "propagate", True)
    quota = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)
    pacer = Pacer(PacingConfig(), {OPERATION: quota})
    drought = Drought(clock=pacer.awake_s)
    refused = Throttled("Slow down.", code="ThrottlingException", http_status=429)
    drought.throttled(OPERATION, refused)
    pacer.pause("window")
    await asyncio.sleep(16 * 3600)
    drought.throttled(OPERATION, refused)  # the answer to what was in flight
    pacer.resume("window")
    drought.throttled(OPERATION, refused)
    assert caplog.text == ""
    await asyncio.sleep(DROUGHT_S)
    drought.throttled(OPERATION, refused)
    assert "on every request for 10 min" in caplog.text
