"""Locks: one holder at a time, and asking who it is disturbs nobody."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bulk_updater import locks
from bulk_updater.locks import Holder, LockHeld, hold_lock, read_holder

HOLDER = """
import sys
from pathlib import Path
from bulk_updater.locks import hold_lock

with hold_lock(Path(sys.argv[1]), clock=lambda: 1772352000.5):
    print("held", flush=True)
    sys.stdin.read()
"""
OPEN_FILES = Path("/dev/fd")
SINCE = "2026-03-01T08:00:00.500Z"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def refused(path) -> str:
    with pytest.raises(LockHeld) as caught, hold_lock(path):
        pytest.fail("two holders of one lock")
    return caught.value.holder


def test_the_note_names_process_host_and_time_while_the_lock_is_held(path):
    """It stands in a private file whatever the umask, and nothing does afterwards."""
    umask = os.umask(0)
    try:
        with hold_lock(path, clock=lambda: 1772352000.5):
            assert json.loads(path.read_text()) == {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "started_at": SINCE,
            }
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(umask)
    assert path.read_bytes() == b""


def test_another_process_is_refused_and_told_who_until_the_holder_is_killed(path, holder):
    """Both the refusal and the question name it; its note names nobody once it is dead."""
    assert refused(path) == f"process {holder.pid} on host {socket.gethostname()}, since {SINCE}"
    assert read_holder(path) == Holder(holder.pid, socket.gethostname(), SINCE)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads(path.read_text())["pid"] == holder.pid  # left behind
    assert read_holder(path) is None
    with hold_lock(path):
        assert read_holder(path).pid == os.getpid()


def test_the_lock_is_free_when_the_context_is_left(path):
    """Also by an error; a refusal in between frees nothing."""

    def fail():
        with hold_lock(path):
            for _ in range(2):
                refused(path)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read_holder(path) is None
    with hold_lock(path):
        pass


def test_nobody_holds_a_lock_that_was_never_taken(path):
    """Asking answers nobody and creates no file."""
    assert read_holder(path) is None
    assert not path.exists()


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b"5", b"{}", b"\0\0", b'{"pid": 5}', b'{"pid": "x", "host": 1}']
)
def test_a_holder_without_a_name_is_still_a_holder(path, note):
    """A note that is missing or cannot be read is a holder without a name, not nobody."""
    with hold_lock(path):
        path.write_bytes(note)
        assert read_holder(path) == Holder()
        assert refused(path) == "another process, which has not left its name"


def test_asking_lets_go_at_once_and_any_number_may_ask(path):
    """After a question nothing is locked and no file is open; two who ask see the same."""
    path.touch()
    n_open = len(list(OPEN_FILES.iterdir()))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # somebody else is asking
        assert read_holder(path) is None
    with hold_lock(path):
        assert read_holder(path) is not None
        assert read_holder(path) is not None
    assert len(list(OPEN_FILES.iterdir())) == n_open


def test_asking_takes_no_note_away_and_writes_nothing(path, holder):
    """The file is the same, byte for byte and moment for moment."""
    before = path.stat().st_mtime_ns, path.read_bytes()
    for _ in range(3):
        assert read_holder(path).pid == holder.pid
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_who_asks_turns_no_run_away(path, monkeypatch):
    """A lock that is taken while somebody asks is taken as soon as he has his answer."""
    path.write_text(json.dumps({"pid": 1, "host": "h", "started_at": SINCE}))  # of one killed
    asking = path.open("rb")
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            asking.close()

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with hold_lock(path):
        assert read_holder(path).pid == os.getpid()
    assert len(waited) == 3


def test_two_runs_that_begin_while_somebody_asks_are_not_in_each_others_way(path, monkeypatch):
    """Between its tries a run holds nothing: the other takes the lock, and this one is told who."""
    path.touch()
    asking = path.open("rb")
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    other = hold_lock(path, clock=lambda: 1772352000.5)

    def sleep(_):
        asking.close()
        other.__enter__()

    monkeypatch.setattr(locks.time, "sleep", sleep)
    try:
        assert refused(path).endswith(f"since {SINCE}")
    finally:
        other.__exit__(None, None, None)


def test_a_run_does_not_wait_for_another_run(path, holder, monkeypatch):
    """Beside a holder the refusal comes at once: nothing is tried again."""
    monkeypatch.setattr(locks.time, "sleep", lambda _: pytest.fail("waited"))
    assert str(holder.pid) in refused(path)


def test_who_asks_for_ever_is_not_waited_for_for_ever(path, monkeypatch):
    """Somebody who was stopped while asking: a refusal, after a second of trying."""
    waited = []
    monkeypatch.setattr(locks.time, "sleep", waited.append)
    path.touch()
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert refused(path) == "another process, which has not left its name"
    assert sum(waited) == pytest.approx(1.0)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOLCK])
def test_a_lock_that_cannot_be_taken_leaves_nothing_open(path, monkeypatch, code):
    """What the system says goes through, and its file is closed."""
    tried = []

    def flock(fd, _):
        tried.append(fd)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    for act in (lambda: hold_lock(path).__enter__(), lambda: read_holder(path)):
        with pytest.raises(OSError, match=os.strerror(code)):
            act()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(tried[-1])
    assert len(tried) == 2
