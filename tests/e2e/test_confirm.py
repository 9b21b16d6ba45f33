"""`--confirm` on a real terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from .conftest import MAPPING, PATIENCE_S, environment, export_of

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = b"Send them? [y/N] "
CTRL_C, CTRL_D = b"\x03", b"\x04"


def ask(folder: Path, *words: str, answer: bytes) -> tuple[int, str, str]:
    """Exit code, what the terminal showed, and standard output, which is a file."""
    ours, theirs = pty.openpty()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bulk_updater", *words],
            cwd=folder,
            env=environment(),
            stdin=theirs,
            stdout=out,
            stderr=theirs,
        )
    os.close(theirs)
    shown, answered, deadline = b"", False, time.monotonic() + PATIENCE_S
    try:
        while True:
            assert time.monotonic() < deadline, shown
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                chunk = os.read(ours, 65_536)
            except OSError:  # what Linux says when the other end of a terminal is closed
                break
            if not chunk:
                break
            shown += chunk
            if QUESTION in shown and not answered:
                if answer == CTRL_C:  # the terminal is not the process's own, so it sends no signal
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(ours, answer)
                answered = True
        code = process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return code, shown.decode(), (folder / "out").read_text()


@pytest.mark.parametrize(
    ("answer", "code", "n_sent"),
    [(b"y\n", 0, 20), (b"\n", 2, 0), (CTRL_D, 2, 0), (CTRL_C, 130, 0)],
)
def test_a_person_decides(shell, served, answer, code, n_sent):
    """`y` sends all; return and Ctrl-D send nothing, exit code 2; Ctrl-C nothing, 130."""
    prefix = f"asked-{answer.hex()}-"
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(20, 20, prefix))
    flags = ("--endpoint-url", served.url, "--rate", "1000", "--confirm")
    ended, shown, _ = ask(shell.folder, "run", "mapping.yaml", "export.csv", *flags, answer=answer)
    assert ended == code, shown
    assert "20 requests of UpdateContactAttributes" in shown
    assert "Traceback" not in shown
    assert len(served.contacts(prefix)) == n_sent
    assert ("Nothing was sent." in shown) == (code == 2)
    assert (shell.folder / "runs").exists() == (n_sent > 0)
