"""The file operations that durability is made of: what a crash and a full disk leave."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bulk_updater import files
from bulk_updater.files import free_space, make_private_directory, reason, write_atomically


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _PowerCut(BaseException):
    pass


def _power_cut(*_):
    raise _PowerCut


@pytest.mark.parametrize("old", [None, b"", b"much longer than what comes"])
def test_a_file_holds_what_was_written_and_nothing_else_is_left(tmp_path, old):
    """Whether there was one or not, all of the new content and none of the old; mode 0600."""
    path = tmp_path / "small.json"
    if old is not None:
        path.write_bytes(old)
    umask = os.umask(0)
    try:
        write_atomically(path, b"new\0\xff")
    finally:
        os.umask(umask)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"small.json": b"new\0\xff"}
    assert _mode(path) == 0o600


def test_a_file_is_durable_before_it_takes_its_name(tmp_path, monkeypatch):
    """Its content is synced, then it is renamed, then the directory is synced."""
    path, steps = tmp_path / "small.json", []
    path.write_bytes(b"old")
    monkeypatch.setattr(
        files, "sync_file", lambda fd: steps.append((os.fstat(fd).st_size, path.read_bytes()))
    )
    monkeypatch.setattr(
        files, "sync_directory", lambda directory: steps.append((directory, path.read_bytes()))
    )
    write_atomically(path, b"newer")
    assert steps == [(5, b"old"), (tmp_path, b"newer")]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    """The old one is whole; what was half done is no obstacle, and the next writing takes it."""
    path = tmp_path / "small.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", _power_cut)
    with pytest.raises(_PowerCut):
        write_atomically(path, b"new" * 1000)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    write_atomically(path, b"next")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"small.json": b"next"}


@pytest.mark.parametrize(("where", "name"), [(files, "sync_file"), (Path, "replace")])
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path, monkeypatch, where, name
):
    """A full disk is not filled further by half a file; the error is the system's own."""
    path = tmp_path / "small.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(where, name, _full_disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_atomically(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"small.json": b"old"}


def test_a_name_that_is_not_durable_is_an_error(tmp_path, monkeypatch):
    """A directory that cannot be synced is told, and the new content stands."""
    monkeypatch.setattr(files, "sync_directory", _full_disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_atomically(tmp_path / "small.json", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"small.json": b"new"}


def test_a_directory_and_its_missing_parents_are_private_and_durable(tmp_path, monkeypatch):
    """0700 for each of them whatever the umask, and each is synced into its parent."""
    synced = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    umask = os.umask(0o022)
    try:
        make_private_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(umask)
    modes = [_mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")]
    assert modes == [0o700, 0o700, 0o700]
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_directory_that_exists_stays_as_it_is(tmp_path):
    """What somebody else has made keeps its mode."""
    tmp_path.chmod(0o755)
    make_private_directory(tmp_path)
    assert _mode(tmp_path) == 0o755


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device (ENOSPC)"),
        (OSError(99999, "odd"), "odd (99999)"),
        (OSError("only words"), "only words"),
        (OSError(), "OSError"),
    ],
)
def test_a_reason_names_the_error(error, text):
    """What the system said and its name, as far as it gave any."""
    assert reason(error) == text


def test_free_space_never_fails(tmp_path):
    """A figure where there is a disk, words where there is none: it stands in error messages."""
    assert free_space(tmp_path / "file").endswith(" bytes free")
    assert free_space(tmp_path / "missing" / "file") == "free space unknown"
