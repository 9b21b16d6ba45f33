"""What runs learnt about quotas: kept for later runs, lost by no writer, in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulk_updater import files
from bulk_updater.learnt import Learnt, LearntQuotas

NOW = 1_795_230_245.678  # 2026-11-21T03:04:05.678Z
DAY_S = 86_400.0
GUARD_S = 30.0  # a wait that takes this long is a hang; no test waits for it to pass
ACCOUNT, REGION = "123456789012", "eu-west-1"
ATTRIBUTES, CONTACT = "update_contact_attributes", "update_contact"

SAVER = """
import sys
from pathlib import Path
from bulk_updater.learnt import Learnt, LearntQuotas

path, name, n_rounds, now = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
quotas = LearntQuotas(path, account="123456789012", region="eu-west-1",
                      clock=lambda: now, patience_s=30.0)
print("ready", flush=True)
sys.stdin.readline()
for n in range(n_rounds):
    quotas.save({f"{name}_{n}": Learnt(rate_per_s=n + 1.0, burst=None, learnt_at=now)})
"""

KILLED = """
import os, signal
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def quotas_at(path: Path, account=ACCOUNT, region=REGION, *, now=NOW, patience_s=GUARD_S):
    return LearntQuotas(
        path, account=account, region=region, clock=lambda: now, patience_s=patience_s
    )


def learnt(rate_per_s=19.9, burst: float | None = 30.0, learnt_at=NOW) -> Learnt:
    return Learnt(rate_per_s=rate_per_s, burst=burst, learnt_at=learnt_at)


def entry(operation=CONTACT, **more) -> dict:
    return {
        "account": ACCOUNT,
        "region": REGION,
        "operation": operation,
        "rate_per_s": 19.9,
        "burst": 30.0,
        "learnt_at": "2026-11-21T03:04:05.678Z",
    } | more


def write(path: Path, *entries, **more) -> bytes:
    path.write_text(json.dumps({"version": 1, "quotas": entries} | more))
    return path.read_bytes()


def entries_in(path: Path) -> list:
    return json.loads(path.read_bytes())["quotas"]


def names_in(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "quotas.json"


@pytest.fixture(autouse=True)
def warnings():
    """What the module warned of; not by caplog, which a command's own logging cuts off."""

    class Kept(logging.Handler):
        def emit(self, record):
            assert record.levelno == logging.WARNING
            messages.append(record.getMessage())

    messages: list[str] = []
    logger, handler = logging.getLogger("bulk_updater.learnt"), Kept()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture
def _no_sync(monkeypatch):
    """For tests that save hundreds of times and cut no power."""
    for name in ("sync_file", "sync_directory"):
        monkeypatch.setattr(files, name, lambda _: None)


# ----------------------------------------------------------------------------------------------
# What is kept


def test_what_was_saved_is_loaded(path, warnings):
    """Every operation with its figures, a burst that was not learnt included."""
    saved = {CONTACT: learnt(), ATTRIBUTES: learnt(0.5, None, NOW - 5)}
    quotas_at(path).save(saved)
    assert quotas_at(path).load() == saved
    assert warnings == []


def test_the_file_is_as_documented(path):
    """Version, then entries sorted by account, region and operation, times in UTC, indented."""
    quotas_at(path).save({ATTRIBUTES: learnt(burst=None), CONTACT: learnt()})
    quotas_at(path, region="eu-central-1").save({CONTACT: learnt()})
    without_burst = entry(ATTRIBUTES)
    del without_burst["burst"]
    expected = {
        "version": 1,
        "quotas": [entry(region="eu-central-1"), entry(), without_burst],
    }
    assert path.read_text() == json.dumps(expected, indent=2) + "\n"


def test_no_file_is_nothing_learnt(path, warnings):
    """The first run of a machine is not warned, and loading creates nothing."""
    assert quotas_at(path).load() == {}
    assert warnings == []
    assert list(path.parent.iterdir()) == []


def test_nothing_learnt_is_nothing_written(path):
    """A run that learnt nothing leaves no file and no lock."""
    quotas_at(path / "more").save({})
    assert list(path.parent.iterdir()) == []


def test_the_file_and_its_directory_are_private(tmp_path):
    """0600 and 0700, whatever the umask; beside the file only its empty lock is left."""
    path = tmp_path / "state" / "quotas" / "quotas.json"
    umask = os.umask(0)
    try:
        quotas_at(path).save({CONTACT: learnt()})
    finally:
        os.umask(umask)
    assert mode(path.parent) == 0o700
    assert {p.name: mode(p) for p in path.parent.iterdir()} == {
        "quotas.json": 0o600,
        "quotas.json.lock": 0o600,
    }
    assert (path.parent / "quotas.json.lock").read_bytes() == b""


def test_accounts_and_regions_do_not_mix(path):
    """Another account's or region's entries are not returned, and stay when ours are saved."""
    places = [(ACCOUNT, REGION), ("999999999999", REGION), (ACCOUNT, "us-east-1")]
    for n, (account, region) in enumerate(places):
        quotas_at(path, account, region).save({CONTACT: learnt(n + 1.0)})
    quotas_at(path).save({CONTACT: learnt(7.0)})
    rates = [quotas_at(path, *place).load()[CONTACT].rate_per_s for place in places]
    assert rates == [7.0, 2.0, 3.0]


def test_what_this_version_does_not_know_is_kept(path):
    """Entries with more keys, what is no entry, and keys beside the list stay word for word."""
    others = [
        entry(account="999999999999", probes=[1, {"at": "x"}], rate_per_s=-1),
        entry(ATTRIBUTES, probes=3),
        {"planned": True},
    ]
    write(path, *others, "a note", None, by="a later bulk-updater")
    quotas_at(path).save({CONTACT: learnt(5.0)})
    document = json.loads(path.read_bytes())
    assert document.pop("by") == "a later bulk-updater"
    kept = document["quotas"]
    assert entry(rate_per_s=5.0) in kept
    kept.remove(entry(rate_per_s=5.0))
    assert sorted(map(str, kept)) == sorted(map(str, [*others, "a note", None]))


@pytest.mark.parametrize(("ahead_s", "rate_per_s"), [(-0.001, 1.0), (0.0, 2.0), (0.001, 2.0)])
def test_older_never_replaces_newer(path, ahead_s, rate_per_s):
    """What was learnt earlier is dropped; what was learnt at the same time or later stands."""
    quotas_at(path).save({CONTACT: learnt(1.0)})
    quotas_at(path).save({CONTACT: learnt(2.0, learnt_at=NOW + ahead_s), ATTRIBUTES: learnt(3.0)})
    rates = {name: one.rate_per_s for name, one in quotas_at(path).load().items()}
    assert rates == {CONTACT: rate_per_s, ATTRIBUTES: 3.0}


@pytest.mark.usefixtures("_no_sync")
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 100)), min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_in_whatever_order_runs_end_the_newest_stands(path, saves):
    """After any sequence of saves, the last of those with the highest time is what is loaded."""
    path.unlink(missing_ok=True)
    for at_s, rate_per_s in saves:
        quotas_at(path).save({CONTACT: learnt(rate_per_s, learnt_at=NOW + at_s)})
    newest = max(at_s for at_s, _ in saves)
    expected = [rate_per_s for at_s, rate_per_s in saves if at_s == newest][-1]
    assert quotas_at(path).load()[CONTACT].rate_per_s == expected
    assert len(entries_in(path)) == 1


@pytest.mark.parametrize("learnt_at", [NOW, 1_795_230_245.6789999, 1.0005, 1.12299999999, 0.0])
def test_what_is_saved_twice_is_not_older_than_itself(path, learnt_at):
    """The file's milliseconds do not make the same moment two."""
    for rate_per_s in (1.0, 2.0):
        quotas_at(path).save({CONTACT: learnt(rate_per_s, learnt_at=learnt_at)})
    assert quotas_at(path).load()[CONTACT].rate_per_s == 2.0


# ----------------------------------------------------------------------------------------------
# What cannot be


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_s": 0},
        {"rate_per_s": -1.0},
        {"rate_per_s": True},
        {"rate_per_s": "19.9"},
        {"rate_per_s": None},
        {"burst": 0.99},
        {"burst": False},
        {"burst": [30]},
        {"learnt_at": "2026-11-22T03:04:05.679Z"},
        {"learnt_at": "1969-12-31T23:59:59.999Z"},
        {"learnt_at": "0001-01-01T00:00:00+23:59"},
        {"learnt_at": "2026-11-21T03:04:05.678"},
        {"learnt_at": "yesterday"},
        {"learnt_at": NOW},
        {"operation": ["update_contact"]},
        {"account": 123456789012},
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_is_as_none_and_gives_way(path, warnings, wrong):
    """It is not loaded, its neighbours are, and what a run learns takes its place."""
    write(path, entry(**wrong), entry(ATTRIBUTES))
    assert quotas_at(path).load() == {ATTRIBUTES: learnt()}
    quotas_at(path).save({CONTACT: learnt(5.0, learnt_at=NOW - 5)})
    assert quotas_at(path).load() == {
        ATTRIBUTES: learnt(),
        CONTACT: learnt(5.0, 30.0, NOW - 5),
    }
    assert warnings == []


@pytest.mark.parametrize("missing", ["account", "region", "operation", "rate_per_s", "learnt_at"])
def test_an_entry_without_what_it_needs_is_as_none(path, missing):
    """Only the burst may be missing."""
    one = entry()
    del one[missing]
    write(path, one)
    assert quotas_at(path).load() == {}


def test_what_is_just_possible_is_loaded(path):
    """A burst of 1, and a clock that was a day ahead of ours."""
    write(path, entry(burst=1, rate_per_s=1, learnt_at="2026-11-22T03:04:05.678Z"))
    assert quotas_at(path).load() == {CONTACT: learnt(1.0, 1.0, NOW + DAY_S)}


def test_of_two_entries_the_newer_is_loaded_and_one_is_left(path):
    """A file that somebody has put together by hand is understood, and mended by saving."""
    old = entry(learnt_at="2026-11-20T03:04:05.678Z", rate_per_s=1.0)
    for both in ([old, entry()], [entry(), old]):
        write(path, *both)
        assert quotas_at(path).load() == {CONTACT: learnt()}
    quotas_at(path).save({CONTACT: learnt(5.0)})
    assert entries_in(path) == [entry(rate_per_s=5.0)]


@pytest.mark.parametrize(
    "one",
    [
        learnt(math.nan),
        learnt(math.inf),
        learnt(0.0),
        learnt(burst=0.5),
        learnt(burst=math.nan),
        learnt(learnt_at=NOW + DAY_S + 1),
        learnt(learnt_at=-1.0),
        learnt(learnt_at=math.nan),
    ],
    ids=str,
)
def test_what_cannot_be_is_not_saved(path, one):
    """What no run would load is left out, and the rest is kept."""
    quotas_at(path).save({CONTACT: learnt(5.0)})
    quotas_at(path).save({CONTACT: one, ATTRIBUTES: learnt()})
    assert quotas_at(path).load() == {CONTACT: learnt(5.0), ATTRIBUTES: learnt()}


# ----------------------------------------------------------------------------------------------
# Damage

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
nearly_entries = st.fixed_dictionaries(
    {},
    optional={
        "account": st.just(ACCOUNT) | json_values,
        "region": st.just(REGION) | json_values,
        "operation": st.just(CONTACT) | json_values,
        "rate_per_s": st.just(1.5) | json_values,
        "burst": st.just(1.5) | json_values,
        "learnt_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z") | json_values,
    },
)
nearly_files = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(1) | json_values,
        "quotas": st.lists(nearly_entries | json_values, max_size=4) | json_values,
    },
).map(lambda document: json.dumps(document).encode())


@pytest.mark.usefixtures("_no_sync")
@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()) | nearly_files)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)
def test_whatever_the_file_holds_a_run_goes_on(path, warnings, content):
    """Loading and saving raise nothing, warn once at the most, and give only what can be."""
    aside = path.with_name("quotas.json.damaged")
    aside.unlink(missing_ok=True)
    path.write_bytes(content)
    warnings.clear()
    for one in quotas_at(path).load().values():
        assert 0 < one.rate_per_s < math.inf
        assert one.burst is None or 1 <= one.burst < math.inf
        assert 0 <= one.learnt_at <= NOW + DAY_S
    n_warnings = len(warnings)
    assert n_warnings <= 1
    quotas_at(path).save({ATTRIBUTES: learnt()})
    assert len(warnings) == 2 * n_warnings
    # Nothing that was there is lost, however it was put.
    if aside.exists():
        assert aside.read_bytes() == content
        assert entries_in(path) == [entry(ATTRIBUTES)]
    elif n_warnings:
        assert path.read_bytes() == content
    else:
        assert quotas_at(path).load()[ATTRIBUTES].learnt_at >= NOW


DAMAGED = [
    b"",
    b"\0" * 40,
    b'{"version": 1, "quotas": [{"acc',
    b"[]",
    b'{"quotas": []}',
    b'{"version": 0, "quotas": []}',
    b'{"version": true, "quotas": []}',
    b'{"version": "1", "quotas": []}',
    b'{"version": 1}',
    b'{"version": 1, "quotas": {}}',
    b'{"version": 1, "quotas": [%s]}' % (b"[" * 300 + b"]" * 300),
    b'{"version": 1, "quotas": [%s]}' % (b"[" * 9000 + b"]" * 9000),
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: content[:40])
def test_a_damaged_file_is_put_aside_and_begun_anew(path, warnings, content):
    """Loading says what is wrong and changes nothing; saving keeps a copy and says where."""
    path.write_bytes(content)
    assert quotas_at(path).load() == {}
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path} is damaged: ")
    assert warnings[0].endswith("this run begins from the quota.")
    assert names_in(path.parent) == {"quotas.json"}
    warnings.clear()
    umask = os.umask(0)
    try:
        quotas_at(path).save({CONTACT: learnt()})
    finally:
        os.umask(umask)
    aside = path.with_name("quotas.json.damaged")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path} was damaged: ")
    assert warnings[0].endswith(f"It was begun anew; what was there is kept in {aside}.")
    assert aside.read_bytes() == content
    assert mode(aside) == 0o600
    assert quotas_at(path).load() == {CONTACT: learnt()}


def test_what_was_put_aside_is_not_overwritten(path, warnings):
    """The first damage is what somebody may want to look at; a later one is still mended."""
    aside = path.with_name("quotas.json.damaged")
    aside.write_bytes(b"the first")
    path.write_bytes(b"the second")
    quotas_at(path).save({CONTACT: learnt()})
    assert aside.read_bytes() == b"the first"
    assert len(warnings) == 1
    assert warnings[0].endswith(f"{aside}, from an earlier time, was not overwritten.")
    assert quotas_at(path).load() == {CONTACT: learnt()}


@pytest.mark.parametrize("more", [{}, {"quotas": {"of another": "shape"}}], ids=str)
def test_a_file_of_a_newer_version_is_left_alone(path, warnings, more):
    """It is neither read nor written, whatever it looks like, and the warnings say why."""
    content = write(path, entry(), version=2, **more)
    assert quotas_at(path).load() == {}
    quotas_at(path).save({CONTACT: learnt(5.0)})
    assert path.read_bytes() == content
    assert names_in(path.parent) == {"quotas.json", "quotas.json.lock"}
    assert len(warnings) == 2
    for warning in warnings:
        assert f"{path} is of version 2, and this bulk-updater knows version 1 only" in warning


# ----------------------------------------------------------------------------------------------
# What is in the way


def test_a_directory_in_its_place_is_one_warning(path, warnings):
    """It is named, it stays, and the run goes on."""
    path.mkdir()
    assert quotas_at(path).load() == {}
    quotas_at(path).save({CONTACT: learnt()})
    assert path.is_dir()
    assert len(warnings) == 2
    assert all(str(path) in warning and "(EISDIR)" in warning for warning in warnings)


def test_a_parent_that_is_a_file_is_one_warning(path, warnings):
    """A directory that cannot be created is in nobody's way."""
    path.write_bytes(b"")
    below = path / "quotas.json"
    assert quotas_at(below).load() == {}
    quotas_at(below).save({CONTACT: learnt()})
    assert len(warnings) == 2
    assert all(str(below) in warning and "(ENOTDIR)" in warning for warning in warnings)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOLCK, errno.ENOSPC])
@pytest.mark.parametrize("step", ["open", "flock", "fsync", "replace"])
@pytest.mark.parametrize("content", [b'{"version": 1, "quotas": []}', b"rubbish"])
def test_a_file_that_cannot_be_written_stays_as_it_is(  # noqa: PLR0917 - fixtures and three dimensions
    path, warnings, monkeypatch, code, step, content
):
    """No permission, no locks, a full disk, at any step: one warning, and nothing half done."""
    path.write_bytes(content)

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(fcntl if step == "flock" else os, step, fail)
        quotas_at(path).save({CONTACT: learnt(5.0)})
    assert path.read_bytes() == content
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path} cannot be brought up to date: ")
    assert f"({errno.errorcode[code]})" in warnings[0]
    assert names_in(path.parent) <= {"quotas.json", "quotas.json.lock"}


def test_a_file_that_cannot_be_read_is_one_warning(path, warnings, monkeypatch):
    """It is not taken for a missing or a damaged one: nothing is put aside or written."""
    before = write(path, entry())

    def read_bytes(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", read_bytes)
        assert quotas_at(path).load() == {}
        quotas_at(path).save({CONTACT: learnt(5.0)})
    assert len(warnings) == 2
    assert all("(EACCES)" in warning for warning in warnings)
    assert path.read_bytes() == before
    assert names_in(path.parent) == {"quotas.json", "quotas.json.lock"}


# ----------------------------------------------------------------------------------------------
# Several at once


def start_saver(path: Path, name: str, n_rounds: int, *, before: str = "") -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", before + SAVER, str(path), name, str(n_rounds), str(NOW)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_processes_that_save_at_once_lose_nothing(path, warnings):
    """Three processes, 60 saves each of another operation: 180 entries, each with its figure."""
    n_rounds = 60
    savers = {name: start_saver(path, name, n_rounds) for name in ("a", "b", "c")}
    for saver in savers.values():
        saver.stdin.write(b"go\n")
        saver.stdin.flush()
    for saver in savers.values():
        saver.communicate(timeout=GUARD_S)
        assert saver.returncode == 0
    rates = {name: one.rate_per_s for name, one in quotas_at(path).load().items()}
    assert rates == {f"{name}_{n}": n + 1.0 for name in savers for n in range(n_rounds)}
    assert names_in(path.parent) == {"quotas.json", "quotas.json.lock"}
    assert warnings == []


def test_threads_that_save_at_once_lose_nothing(path, warnings):
    """Two runs of one process do not share a lock either: 4 threads, 40 saves each."""

    def save(name: str) -> None:
        for n in range(40):
            quotas_at(path).save({f"{name}_{n}": learnt()})

    threads = [threading.Thread(target=save, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD_S)
    assert len(quotas_at(path).load()) == 160
    assert warnings == []


def test_a_process_that_is_killed_leaves_the_old_file_and_no_lock(path, warnings):
    """SIGKILL just before the new file takes its name: the old one is whole, the next one saves."""
    quotas_at(path).save({CONTACT: learnt()})
    before = path.read_bytes()
    with start_saver(path, "killed", 1, before=KILLED) as saver:
        saver.communicate(b"go\n", timeout=GUARD_S)
    assert saver.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    quotas_at(path).save({ATTRIBUTES: learnt()})
    assert quotas_at(path).load() == {CONTACT: learnt(), ATTRIBUTES: learnt()}
    assert names_in(path.parent) == {"quotas.json", "quotas.json.lock"}
    assert warnings == []


def test_a_lock_that_is_not_given_up_does_not_hold_a_run_up(path, warnings):
    """Saving ends with one warning when its time is over; loading needs no lock.

    Once the lock is free, what was learnt is put in all the same, if the run is still there.
    """
    quotas_at(path).save({CONTACT: learnt()})
    with path.with_name("quotas.json.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        quotas_at(path, patience_s=0.0).save({CONTACT: learnt(5.0)})
        assert len(warnings) == 1
        assert warnings[0].startswith(f"{path} could not be brought up to date within 0 s: ")
        assert quotas_at(path).load() == {CONTACT: learnt()}
        (worker,) = (t for t in threading.enumerate() if t.name == "save-learnt-quotas")
        assert worker.daemon
    worker.join(GUARD_S)
    assert quotas_at(path).load() == {CONTACT: learnt(5.0)}
    assert len(warnings) == 1


def test_the_file_is_durable_when_save_returns(path, monkeypatch):
    """Its content is synced before it takes its name, and its directory afterwards."""
    steps = []
    monkeypatch.setattr(files, "sync_file", lambda _: steps.append(("file", path.exists())))
    monkeypatch.setattr(files, "sync_directory", lambda p: steps.append((p, path.exists())))
    quotas_at(path).save({CONTACT: learnt()})
    assert steps == [("file", False), (path.parent, True)]
