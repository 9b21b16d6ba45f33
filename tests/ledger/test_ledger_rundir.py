"""The run directory: who may use it, and what is in it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bulk_updater import files, locks
from bulk_updater._version import __version__
from bulk_updater.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerMismatch,
    LedgerWriteError,
)
from bulk_updater.ledger import RunDir

HOLDER = """
import sys
from pathlib import Path
from bulk_updater.ledger import RunDir

with RunDir.open(Path(sys.argv[1]), clock=lambda: 1772352000.5) as run_dir:
    print("held", flush=True)
    sys.stdin.read()
"""


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _start_holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_run_directory_is_created_with_its_parents_and_is_private(tmp_path):
    """Mode 0700 whatever the umask, 0600 for what is in it, and the documented paths."""
    path = tmp_path / "runs" / "mapping" / "export-1a2b"
    umask = os.umask(0)
    try:
        with RunDir.open(path) as run_dir:
            run_dir.write_run_json({"run_id": "run-1"})
            assert _mode(path) == 0o700
            assert {p.name: _mode(p) for p in path.iterdir()} == {"lock": 0o600, "run.json": 0o600}
            assert run_dir.ledger_path == path / "ledger.jsonl"
            assert run_dir.failed_path == path / "failed.csv"
            assert run_dir.report_path == path / "report.html"
            assert run_dir.run_json_path == path / "run.json"
    finally:
        os.umask(umask)


def test_each_new_directory_is_synced_into_its_parent(tmp_path, monkeypatch):
    """No power failure takes the directory away from under a ledger that was synced."""
    synced = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    with RunDir.open(tmp_path / "a" / "b"):
        assert synced == [tmp_path, tmp_path / "a"]


def test_the_lock_says_who_holds_it(tmp_path):
    """Process, host and time stand in the lock file while it is held, and nothing afterwards."""
    with RunDir.open(tmp_path, clock=lambda: 1772352000.5):
        assert json.loads((tmp_path / "lock").read_text()) == {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": "2026-03-01T08:00:00.500Z",
        }
    assert (tmp_path / "lock").read_bytes() == b""


def test_a_second_process_is_refused_at_once_until_the_first_is_killed(tmp_path):
    """The refusal names process, host and time; SIGKILL of the holder frees the directory."""
    with _start_holder(tmp_path) as holder:
        try:
            with pytest.raises(LedgerLocked) as caught, RunDir.open(tmp_path):
                pytest.fail("two runs in one directory")
            assert caught.value.path == tmp_path
            assert (
                f"process {holder.pid} on host {socket.gethostname()}, "
                "since 2026-03-01T08:00:00.500Z" in caught.value.message
            )
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.communicate()
    assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid  # left behind
    with RunDir.open(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_run_that_ends_frees_the_directory(tmp_path):
    """The next process opens what the last one has left."""
    with _start_holder(tmp_path) as holder:
        holder.communicate()
    assert holder.returncode == 0
    with RunDir.open(tmp_path):
        pass


def test_one_process_cannot_open_a_directory_twice(tmp_path):
    """The lock also parts two runs of one process, and a refusal does not free it."""
    with RunDir.open(tmp_path):
        for _ in range(2):
            with pytest.raises(LedgerLocked), RunDir.open(tmp_path):
                pytest.fail("two runs in one directory")


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"{}", b"\0\0\0", b'{"pid": 5}'])
def test_a_holder_without_a_name_is_still_a_holder(tmp_path, note):
    """A lock whose note is missing or unreadable is refused in words, not with a traceback."""
    with RunDir.open(tmp_path):
        (tmp_path / "lock").write_bytes(note)
        with (
            pytest.raises(LedgerLocked, match="another process, which has not left its name"),
            RunDir.open(tmp_path),
        ):
            pytest.fail("two runs in one directory")


def test_a_file_is_no_run_directory(tmp_path):
    """A path that is a file is refused, and stays."""
    path = tmp_path / "export.csv"
    path.write_text("Id\n1\n")
    with pytest.raises(LedgerMismatch, match="is a file"), RunDir.open(path):
        pytest.fail("a file was opened as a directory")
    assert path.read_text() == "Id\n1\n"


def test_a_directory_with_other_things_is_no_run_directory(tmp_path):
    """It is refused with what is missing, and nothing is put into it."""
    (tmp_path / "holiday.jpg").touch()
    with (
        pytest.raises(LedgerMismatch, match=r"neither run\.json nor ledger\.jsonl, but 1 other"),
        RunDir.open(tmp_path),
    ):
        pytest.fail("a directory of pictures was opened as a run's")
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["lock"],
        ["lock", "run.json.tmp"],
        ["run.json", "notes.txt"],
        ["ledger.jsonl", "ledger.jsonl.torn-5", "failed.csv"],
    ],
    ids=",".join,
)
def test_an_empty_directory_and_what_a_run_has_left_are_run_directories(tmp_path, names):
    """A run that died at any point can be gone on with, whatever somebody has put beside it."""
    for name in names:
        (tmp_path / name).touch()
    with RunDir.open(tmp_path) as run_dir:
        assert run_dir.path == tmp_path
    assert {p.name for p in tmp_path.iterdir()} == {"lock", *names}


def test_a_directory_that_cannot_be_created_is_a_write_error(tmp_path):
    """A parent that is a file: the path, the reason, and that nothing was sent."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(LedgerWriteError, match=r"\(ENOTDIR\)\. Nothing was sent"),
        RunDir.open(tmp_path / "file" / "run"),
    ):
        pytest.fail("a directory was created in a file")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOLCK])
def test_a_directory_that_cannot_be_locked_is_a_write_error(tmp_path, monkeypatch, code):
    """No permission, a read-only disk, no locks on this file system: named, and nothing open."""

    tried = []

    def flock(fd, _):
        tried.append(fd)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with (
        pytest.raises(LedgerWriteError, match=rf"\({errno.errorcode[code]}\).*--run-dir"),
        RunDir.open(tmp_path),
    ):
        pytest.fail("a directory without a lock was opened")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(tried[0])


def test_run_json_comes_back_as_it_was_written(tmp_path):
    """None before the first writing; then what was written last, for readers without the lock."""
    with RunDir.open(tmp_path) as run_dir:
        assert run_dir.read_run_json() is None
        run_dir.write_run_json({"run_id": "run-1"})
        run_dir.write_run_json({"run_id": "run-1", "summary": {"rows_read": 5}, "name": "é"})
        assert RunDir(tmp_path).read_run_json() == run_dir.read_run_json()
    assert RunDir(tmp_path).read_run_json() == {
        "run_id": "run-1",
        "summary": {"rows_read": 5},
        "name": "é",
    }
    assert {p.name for p in tmp_path.iterdir()} == {"lock", "run.json"}


def test_run_json_is_durable_before_it_takes_its_name(tmp_path, monkeypatch):
    """Its content is synced, then it is renamed, then the directory is synced."""
    run_json, steps = tmp_path / "run.json", []
    monkeypatch.setattr(
        files,
        "sync_file",
        lambda fd: steps.append(("file", os.fstat(fd).st_size, run_json.exists())),
    )
    monkeypatch.setattr(
        files, "sync_directory", lambda path: steps.append(("directory", path, run_json.exists()))
    )
    with RunDir.open(tmp_path) as run_dir:
        run_dir.write_run_json({"run_id": "run-1"})
    assert steps == [("file", run_json.stat().st_size, False), ("directory", tmp_path, True)]


class _PowerCut(BaseException):
    pass


def test_a_crash_before_the_rename_leaves_the_old_run_json(tmp_path, monkeypatch):
    """The old one is whole; what was half done is no obstacle to the next run."""

    def replace(*_):
        raise _PowerCut

    with RunDir.open(tmp_path) as run_dir:
        run_dir.write_run_json({"run_id": "old"})
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(_PowerCut):
            run_dir.write_run_json({"run_id": "new", "more": "x" * 1000})
        monkeypatch.undo()
    with RunDir.open(tmp_path) as run_dir:
        assert run_dir.read_run_json() == {"run_id": "old"}
        run_dir.write_run_json({"run_id": "next"})
        assert run_dir.read_run_json() == {"run_id": "next"}


def test_a_run_json_that_cannot_be_written_is_a_write_error(tmp_path, monkeypatch):
    """A full disk is named with its free space, and the old one stands."""

    def sync_file(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunDir.open(tmp_path) as run_dir:
        run_dir.write_run_json({"run_id": "old"})
        monkeypatch.setattr(files, "sync_file", sync_file)
        with pytest.raises(LedgerWriteError, match=r"run\.json: .*\(ENOSPC\), .* bytes free"):
            run_dir.write_run_json({"run_id": "new"})
        assert run_dir.read_run_json() == {"run_id": "old"}


@pytest.mark.parametrize(
    ("versions", "named"),
    [
        ({}, ""),
        ({"versions": None}, ""),
        ({"versions": {"bulk_updater": "9.1.0"}}, " (9.1.0)"),
    ],
)
def test_a_run_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path, versions, named):
    """Its format, ours, and what to install; its ledger might be read wrongly, too."""
    content = json.dumps({"format": 2, "run_id": "r", **versions})
    (tmp_path / "run.json").write_text(content)
    with RunDir.open(tmp_path) as run_dir:
        for read in (run_dir.read_run_json, lambda: run_dir.add_doubt(1)):
            with pytest.raises(LedgerMismatch) as caught:
                read()
            assert caught.value.message == (
                f"{tmp_path}/run.json: was written by a newer version of bulk_updater{named}, in "
                f"format 2; this one, {__version__}, reads format 1. Nothing was changed. Install "
                "that version and give the same command again, or begin anew with --fresh."
            )
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.parametrize("before", [{}, {"format": 1}, {"format": 0}])
def test_a_run_says_its_format_and_an_older_one_is_read(tmp_path, before):
    """One without a number is of the first; the number is the file's, and no part of what is
    noted."""
    (tmp_path / "run.json").write_text(json.dumps({**before, "run_id": "r"}))
    with RunDir.open(tmp_path) as run_dir:
        noted = run_dir.read_run_json()
        assert noted == {"run_id": "r"}
        run_dir.write_run_json(noted)
    assert json.loads((tmp_path / "run.json").read_bytes()) == {"format": 1, "run_id": "r"}


@pytest.mark.parametrize(
    ("content", "offset"),
    [(b"", 0), (b'{"run_id": "r', 13), ('{"é": x}'.encode(), 7), (b"\xff\xfe", 0), (b"[1]", 0)],
)
def test_a_run_json_that_is_none_is_named(tmp_path, content, offset):
    """What is no JSON object is LedgerCorrupt, with the byte and what to do."""
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(LedgerCorrupt, match=r"run\.json: does not describe a run") as caught:
        RunDir(tmp_path).read_run_json()
    assert caught.value.offset == offset


def test_a_run_json_that_cannot_be_read_is_a_ledger_error(tmp_path):
    """A directory in its place is named, not a traceback."""
    (tmp_path / "run.json").mkdir()
    with pytest.raises(LedgerError, match=r"\(EISDIR\)"):
        RunDir(tmp_path).read_run_json()


def test_only_the_holder_of_the_lock_writes_run_json(tmp_path):
    """A reader, and a run that has left its directory, are refused."""
    with RunDir.open(tmp_path) as run_dir:
        pass
    for without_lock in (RunDir(tmp_path), run_dir):
        with pytest.raises(RuntimeError, match="lock"):
            without_lock.write_run_json({})
    assert not (tmp_path / "run.json").exists()


def test_doubts_add_up_and_leave_the_rest_of_run_json_alone(tmp_path):
    """Requests that may have been sent are counted on from what was noted; 0 writes nothing."""
    with RunDir.open(tmp_path) as run_dir:
        run_dir.write_run_json({"run_id": "run-1", "summary": {"rows_read": 5}})
        written = run_dir.run_json_path.stat().st_ino
        run_dir.add_doubt(0)
        assert run_dir.run_json_path.stat().st_ino == written  # replaced, it would be another file
        for n_requests, expected in ((3, 3), (4, 7)):
            run_dir.add_doubt(n_requests)
            assert run_dir.read_run_json() == {
                "run_id": "run-1",
                "summary": {"rows_read": 5},
                "in_doubt": expected,
            }


def test_doubts_about_a_run_that_nobody_noted_make_no_run_json(tmp_path):
    """A ledger without its run.json stays without: half a one would pass for the run's."""
    with RunDir.open(tmp_path) as run_dir:
        run_dir.add_doubt(3)
        assert run_dir.read_run_json() is None


def test_only_the_holder_of_the_lock_adds_doubts(tmp_path):
    """A reader beside a run is refused, and run.json stays as it was."""
    with RunDir.open(tmp_path) as run_dir:
        run_dir.write_run_json({"run_id": "run-1"})
    with pytest.raises(RuntimeError, match="lock"):
        RunDir(tmp_path).add_doubt(1)
    assert RunDir(tmp_path).read_run_json() == {"run_id": "run-1"}
