"""No room for a result: sending stops at once, and goes on when there is room again."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import MAPPING, export_of, ledger_of, standing, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

N_ROWS = 800
MAX_IN_FLIGHT = 8
ROOM_BYTES = 64 * 1024


@dataclass
class LittleRoom:
    """A folder that 64 KiB fit into, until room is made.

    Attributes:
        path: The folder.
        says: What the system says when it is full.
        settings: What the process is to be started with.
        make_room: Takes the limit away.
    """

    path: Path
    says: str
    settings: dict[str, Any]
    make_room: Callable[[], object]


@contextmanager
def a_limit_on_files(path: Path) -> Iterator[LittleRoom]:
    """The process may write 64 KiB into a file; later ones are started without the limit."""
    path.mkdir()
    settings: dict[str, Any] = {
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES))
    }
    # The next process is started without.
    yield LittleRoom(path, "File too large (EFBIG)", settings, lambda: None)


@contextmanager
def a_full_disk(path: Path) -> Iterator[LittleRoom]:
    """A file system of 64 KiB; where this user may not mount one, the limit on files."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        path.rmdir()
        with a_limit_on_files(path) as room:
            yield room
        return
    larger = ["mount", "-o", "remount,size=16m", str(path)]
    try:
        yield LittleRoom(
            path,
            "No space left on device (ENOSPC)",
            {},
            lambda: subprocess.run(larger, capture_output=True, check=True),
        )
    finally:
        subprocess.run(["umount", str(path)], capture_output=True, check=True)


@contextmanager
def a_full_ext4(path: Path) -> Iterator[LittleRoom]:
    """A real file system in a file, nearly full; where this user may not, the limit on files."""
    path.mkdir()
    image = path.with_name(f"{path.name}.ext4")
    with image.open("wb") as file:
        file.truncate(1 << 20)
    words = (
        ["mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-O", "^has_journal", str(image)],
        ["mount", "-o", "loop", str(image), str(path)],
    )
    try:
        mounted = all(
            subprocess.run(each, capture_output=True, check=False).returncode == 0 for each in words
        )
    except FileNotFoundError:
        mounted = False
    if not mounted:
        path.rmdir()
        with a_limit_on_files(path) as room:
            yield room
        return
    try:
        ballast = path / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(path).free - ROOM_BYTES))
        says = "No space left on device (ENOSPC)"
        yield LittleRoom(path, says, {}, ballast.unlink)
    finally:
        subprocess.run(["umount", str(path)], capture_output=True, check=True)


@pytest.mark.parametrize("little_room", [a_limit_on_files, a_full_disk, a_full_ext4])
def test_a_full_disk_stops_the_sending_at_once(shell, served, warm, little_room):
    """Exit code 3; file, reason and free space; at most what was in flight has no result."""
    prefix = little_room.__name__
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(N_ROWS, N_ROWS, prefix))
    with little_room(shell.folder / "room") as room:
        ledger = room.path / "run" / "ledger.jsonl"
        command = (
            *("run", "mapping.yaml", "export.csv", "--run-dir", str(ledger.parent)),
            *("--endpoint-url", served.url, "--rate", "1000"),
            *("--max-in-flight", str(MAX_IN_FLIGHT)),
        )
        before = served.received()
        ran = shell.run(*command, **room.settings)
        assert ran.code == 3, ran
        assert f"error: {ledger}: cannot be written behind byte " in ran.err
        assert room.says in ran.err
        assert re.search(r", [\d,]+ bytes free\. ", ran.err)
        assert "Make room or mend the disk, and give the same command again." in ran.err
        assert ran.out.startswith("Stopped after ")
        assert ran.out.splitlines()[-1].endswith(f"--max-in-flight {MAX_IN_FLIGHT}")
        n_settled = len(ledger_of(ledger))
        assert 0 < n_settled < N_ROWS
        assert 0 <= served.received() - before - n_settled <= MAX_IN_FLIGHT

        room.make_room()
        ran = warm.run(shell.folder, *command)
        assert ran.code == 0, ran
        assert f"{n_settled:,} of {N_ROWS:,} rows are settled" in ran.err
        assert len(standing(ledger)) == len(ledger_of(ledger)) == N_ROWS
    assert served.attributes(prefix) == state_of(N_ROWS, N_ROWS, prefix)
    assert served.received() - before <= N_ROWS + MAX_IN_FLIGHT


def test_a_disk_that_is_full_from_the_start_takes_no_run(shell, served):
    """Exit code 2: without a note of what the run is, nothing is sent."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(10, 10, "none"))
    before = served.received()
    ran = shell.run(
        *("run", "mapping.yaml", "export.csv", "--run-dir", "run", "--endpoint-url", served.url),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert (ran.code, ran.out) == (2, "")
    assert "File too large (EFBIG)" in ran.err
    assert served.received() == before
