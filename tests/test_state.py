"""The state: what was last applied to each contact, and what is in doubt."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.errors import LedgerError, StateError
from bulk_updater.keys import KEY_DTYPE, contact_key, contact_keys
from bulk_updater.locks import hold_lock
from bulk_updater.state import Known, Scope, ScopeSummary, State, file, finding

if TYPE_CHECKING:
    from pathlib import Path

UUID = "1c08909d-bafe-40bd-a6ab-ae9d3cd45d75"
ZEROS = "00000000-0000-0000-0000-000000000000"
ENDS_IN_NULS = "1c08909d-bafe-40bd-a6ab-000000000000"
ONES = "ffffffff-ffff-ffff-ffff-ffffffffffff"
HERE = Scope("123456789012", "eu-west-1", "instance", "update_contact_attributes")
THERE = Scope("123456789012", "eu-west-1", "instance", "update_contact")
NIGHT = 1_772_352_000
"""2026-03-01T08:00:00Z."""
LARGEST = 2**64 - 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def keys_of(*contact_ids: str) -> np.ndarray:
    return np.unique(contact_keys(contact_ids))


def known(state: State, contact_id: str, scope: Scope = HERE):
    """What `find` and `rows` say of one contact; both ways must agree."""
    found = state.find(scope, keys_of(contact_id))
    rows = [row for row in state.rows(contact_id) if row.scope == scope]
    if not rows:
        assert [part.tolist() for part in arrays(found)] == [[False], [0], [0], [False]]
        return None
    (row,) = rows
    assert row.contact_id == contact_id
    assert [part.tolist() for part in arrays(found)] == [
        [True],
        [row.digest or 0],
        [row.applied_at or 0],
        [not row.in_doubt],
    ]
    return row.digest, row.applied_at, row.in_doubt


def arrays(found) -> tuple[np.ndarray, ...]:
    return found.is_known, found.digests, found.applied_at, found.is_certain


# --- One contact ---------------------------------------------------------------------------------


@pytest.mark.parametrize("contact_id", [UUID, UUID.upper(), "call-1", "é\n'\"\0", "x" * 256, ZEROS])
def test_a_contact_from_its_first_request_to_its_second(path, contact_id):
    """Unknown, in doubt while the first is under way, certain, and in doubt with its old digest."""
    with State.open(path) as state:
        assert known(state, contact_id) is None
        state.mark(HERE, [(contact_id, LARGEST)])
        assert known(state, contact_id) == (None, None, True)
        state.confirm(HERE, [(contact_id, LARGEST, NIGHT)])
        assert known(state, contact_id) == (LARGEST, NIGHT, False)
        state.mark(HERE, [(contact_id, 2**63)])
        assert known(state, contact_id) == (LARGEST, NIGHT, True)
        state.confirm(HERE, [(contact_id, 2**63, NIGHT + 1)])
    with State.open(path) as state:
        assert known(state, contact_id) == (2**63, NIGHT + 1, False)
        assert known(state, contact_id, THERE) is None
        assert state.n_contacts(HERE) == 1
        assert state.n_contacts(THERE) == 0


@pytest.mark.parametrize("digest", [0, 1, 2**63 - 1, 2**63, LARGEST])
def test_every_digest_of_64_bit_comes_back(path, digest):
    """SQLite's numbers have a sign, digests have none."""
    with State.open(path) as state:
        state.confirm(HERE, [(UUID, digest, NIGHT)])
        assert known(state, UUID) == (digest, NIGHT, False)


def test_what_was_not_sent_after_all_leaves_no_trace(path):
    """A contact that was never applied is unknown again, another has its digest for certain."""
    with State.open(path) as state:
        state.confirm(HERE, [("old", 1, NIGHT)])
        state.mark(HERE, [("old", 2), ("new", 3)])
        state.unmark(HERE, ["old", "new", "never heard of"])
        assert known(state, "old") == (1, NIGHT, False)
        assert known(state, "new") is None
        state.unmark(THERE, ["old"])  # a scope that nothing was marked in
        assert known(state, "old") == (1, NIGHT, False)


@pytest.mark.parametrize("other_night", [False, True])
def test_a_doubt_outlives_a_later_request_that_was_not_sent(path, other_night):
    """What was sent before may have been applied: taking the later mark back does not settle it."""
    with State.open(path) as state:
        state.confirm(HERE, [("c", 1, NIGHT)])
        state.mark(HERE, [("c", 2), ("d", 2)])  # sent, and no answer came
        if not other_night:
            state.mark(HERE, [("c", 3), ("d", 3)])
            state.unmark(HERE, ["c", "d"])
    if other_night:
        with State.open(path) as state:
            state.mark(HERE, [("c", 3), ("d", 3)])
            state.unmark(HERE, ["c", "d"])
    with State.open(path) as state:
        assert known(state, "c") == (1, NIGHT, True)
        assert known(state, "d") == (None, None, True)
        state.mark(HERE, [("c", 4)])
        state.confirm(HERE, [("c", 4, NIGHT + 1)])  # this one settles it
        state.mark(HERE, [("c", 5)])
        state.unmark(HERE, ["c"])
        assert known(state, "c") == (4, NIGHT + 1, False)


def test_a_late_confirmation_does_not_settle_what_was_sent_since(path):
    """The next request of the contact is under way already: the contact stays in doubt."""
    with State.open(path) as state:
        state.mark(HERE, [("c", 1)])
        state.mark(HERE, [("c", 2)])
        state.confirm(HERE, [("c", 1, NIGHT)])
        assert known(state, "c") == (1, NIGHT, True)
        state.confirm(HERE, [("c", 2, NIGHT + 1)])
        assert known(state, "c") == (2, NIGHT + 1, False)


def test_what_a_ledger_tells_is_noted_where_nothing_newer_stands(path):
    """By keys: what was marked becomes certain, what another run did since stays, no id is made."""
    cases = {
        "marked": lambda state: state.mark(HERE, [("marked", 7)]),
        "again": lambda state: (
            state.confirm(HERE, [("again", 1, NIGHT - 9)]),
            state.mark(HERE, [("again", 7)]),
        ),
        "without a mark": lambda state: state.confirm(HERE, [("without a mark", 1, NIGHT)]),
        "newer": lambda state: state.confirm(HERE, [("newer", 8, NIGHT + 1)]),
        "newer in doubt": lambda state: state.mark(HERE, [("newer in doubt", 8)]),
        "forgotten": lambda state: state.confirm(THERE, [("forgotten", 8, NIGHT)]),
        ENDS_IN_NULS: lambda state: state.mark(HERE, [(ENDS_IN_NULS, LARGEST)]),
    }
    with State.open(path) as state:
        for prepare in cases.values():
            prepare(state)
        digests = np.array([7, 7, 7, 7, 7, 7, LARGEST], np.uint64)
        state.confirm_keys(HERE, contact_keys(cases), digests, NIGHT)
        assert {each: known(state, each) for each in cases} == {
            "marked": (7, NIGHT, False),
            "again": (7, NIGHT, False),
            "without a mark": (7, NIGHT, False),
            "newer": (8, NIGHT + 1, False),
            "newer in doubt": (7, NIGHT, True),
            "forgotten": None,
            ENDS_IN_NULS: (LARGEST, NIGHT, False),
        }
        assert known(state, "forgotten", THERE) == (8, NIGHT, False)
        elsewhere = Scope("nothing", "is", "known", "there")
        state.confirm_keys(elsewhere, contact_keys(cases), digests, NIGHT)
        assert [summary.scope for summary in state.scopes()] == [THERE, HERE]


def test_scopes_are_kept_apart_and_summed_up(path):
    """Account, region, instance and operation each make a scope of their own."""
    scopes = [
        Scope(*("other" if at == changed else part for at, part in enumerate(HERE_PARTS)))
        for changed in range(5)
    ]
    with State.open(path) as state:
        for number, scope in enumerate(scopes):
            state.confirm(scope, [("c", number, NIGHT + number), ("d", number, NIGHT)])
            state.mark(scope, [("d", 9), *((f"{n}", n) for n in range(number))])
        for number, scope in enumerate(scopes):
            assert known(state, "c", scope) == (number, NIGHT + number, False)
            assert state.n_contacts(scope) == 2 + number
        assert state.scopes() == sorted(
            (
                ScopeSummary(scope, 2 + number, 1 + number, NIGHT + number)
                for number, scope in enumerate(scopes)
            ),
            key=lambda summary: summary.scope,
        )


HERE_PARTS = (HERE.account, HERE.region, HERE.instance_id, HERE.operation)


def test_forgetting_takes_what_was_asked_for(path):
    """By contact, by each part of the scope, and all; what is left is counted right."""
    with State.open(path) as state:
        for scope in (HERE, THERE):
            state.confirm(scope, [("c", 1, NIGHT), (UUID, 2, NIGHT)])
            state.mark(scope, [("in doubt", 3)])
        assert state.forget("never heard of") == 0
        assert state.forget("c", operation=THERE.operation) == 1
        assert (known(state, "c"), known(state, "c", THERE)) == ((1, NIGHT, False), None)
        assert (state.n_contacts(HERE), state.n_contacts(THERE)) == (3, 2)
        for narrow in ({"account": "x"}, {"region": "x"}, {"instance_id": "x"}, {"operation": "x"}):
            assert state.forget(**narrow) == 0
        assert state.forget(operation=HERE.operation, account=HERE.account) == 3
        assert [summary.scope for summary in state.scopes()] == [THERE]
        assert state.n_contacts(HERE) == 0
        state.mark(HERE, [("c", 4)])  # its scope is made anew
        assert known(state, "c") == (None, None, True)
        assert state.forget() == 3
        assert state.scopes() == list(state.rows()) == []


# --- Many contacts -------------------------------------------------------------------------------


@pytest.fixture(params=["looked up", "read in order"])
def _either_way(request, monkeypatch) -> None:
    """Both ways to look contacts up, in small steps."""
    monkeypatch.setattr(finding, "_LOOKUP_COST", -1 if request.param == "looked up" else 10**9)
    monkeypatch.setattr(finding, "_STORED_AT_ONCE", 3)
    monkeypatch.setattr(finding, "_KEYS_AT_ONCE", 2)


ids = st.one_of(
    st.sampled_from([ZEROS, ONES, ENDS_IN_NULS, UUID, "c-1", "c-2"]),
    st.uuids().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
)


@pytest.mark.parametrize("cost", [-1, 10**9], ids=["looked up", "read in order"])
@given(
    stored=st.dictionaries(ids, st.tuples(st.integers(0, LARGEST), st.integers(0, 3)), max_size=20),
    asked=st.sets(ids, max_size=20),
    n_at_once=st.integers(1, 5),
)
@settings(max_examples=40)
def test_many_contacts_are_found_either_way(tmp_path_factory, cost, stored, asked, n_at_once):
    """Whatever the keys, chunks and doubts: what is known of each, and of no other contact."""
    expected = {}
    path = tmp_path_factory.mktemp("many") / "state.sqlite"
    with pytest.MonkeyPatch.context() as patch, State.open(path) as state:
        patch.setattr(finding, "_LOOKUP_COST", cost)
        patch.setattr(finding, "_STORED_AT_ONCE", n_at_once)
        patch.setattr(finding, "_KEYS_AT_ONCE", n_at_once)
        for number, (contact_id, (digest, how)) in enumerate(stored.items()):
            if how != 1:
                state.confirm(HERE, [(contact_id, digest, NIGHT + number)])
            if how:
                state.mark(HERE, [(contact_id, digest ^ 1)])
            state.confirm(THERE, [(contact_id, 5, 5)])
            expected[contact_key(contact_id)] = (
                (True, 0, 0, False) if how == 1 else (True, digest, NIGHT + number, how == 0)
            )
        keys = np.unique(contact_keys([*asked, *list(stored)[::2]]))
        found = state.find(HERE, keys)
        raw = keys.tobytes()
        for at in range(len(keys)):
            got = tuple(part[at].item() for part in arrays(found))
            assert got == expected.get(raw[16 * at : 16 * at + 16], (False, 0, 0, False))
    assert [part.dtype for part in arrays(found)] == [np.bool_, np.uint64, np.int64, np.bool_]
    assert {len(part) for part in arrays(found)} == {len(keys)}


@pytest.mark.usefixtures("_either_way")
def test_keys_that_end_in_nuls_are_keys_like_others(path):
    """Sixteen NULs, fifteen, and one behind fifteen: each is found, none is taken for another."""
    contact_ids = [ZEROS, ENDS_IN_NULS, ZEROS[:-1] + "1", "01" + ZEROS[2:], ONES]
    with State.open(path) as state:
        state.confirm(HERE, [(each, at, NIGHT) for at, each in enumerate(contact_ids[:-1])])
        keys = keys_of(*contact_ids)
        found = state.find(HERE, keys)
        order = [keys.tobytes().index(contact_key(each)) // 16 for each in contact_ids]
        assert found.is_known[order].tolist() == [True] * 4 + [False]
        assert found.digests[order].tolist() == [0, 1, 2, 3, 0]


@pytest.mark.usefixtures("_either_way")
def test_nothing_is_asked_and_nothing_is_stored(path):
    """No keys, and a scope of which nothing is known."""
    none = np.empty(0, KEY_DTYPE)
    with State.open(path) as state:
        assert {len(part) for part in arrays(state.find(HERE, none))} == {0}
        assert not state.find(HERE, keys_of("a", "b")).is_known.any()
        state.confirm(HERE, [("c", 1, NIGHT)])
        assert {len(part) for part in arrays(state.find(HERE, none))} == {0}
        assert not state.find(HERE, keys_of("a", "b")).is_known.any()
        assert not state.find(THERE, keys_of("c")).is_known.any()


def note_chunks(monkeypatch, sizes):
    """Note of how many stored contacts each chunk is that is put where it belongs."""
    put = finding._Merge._put

    def note(self, read, *span):
        sizes.append(sum(len(part or b"") // 28 for part in read))
        put(self, read, *span)

    monkeypatch.setattr(finding._Merge, "_put", note)


@pytest.mark.parametrize(
    ("n_asked", "n_stored", "n_rows_read"),
    [(10, 1000, 10), (124, 1000, 124), (125, 1000, 1000), (900, 1000, 1000)],
)
def test_the_cheaper_way_is_taken(path, monkeypatch, n_asked, n_stored, n_rows_read):
    """Few keys against many contacts are looked up; from an eighth on all are read in order."""
    taken = []
    note_chunks(monkeypatch, taken)
    with State.open(path) as state:
        contact_ids = sorted((f"c-{n}" for n in range(n_stored)), key=contact_key)
        state.confirm(HERE, [(each, 1, NIGHT) for each in contact_ids])
        spread = [contact_ids[n * (n_stored - 1) // (n_asked - 1)] for n in range(n_asked)]
        assert state.find(HERE, keys_of(*spread)).is_certain.all()
    assert sum(taken) == n_rows_read


def test_a_large_table_is_read_a_chunk_at_a_time(path, monkeypatch):
    """However many contacts are stored, no more than a chunk of them is in memory at once."""
    largest = []
    note_chunks(monkeypatch, largest)
    n_stored = 3 * finding._STORED_AT_ONCE + 5
    with State.open(path) as state:
        contact_ids = [f"c-{n}" for n in range(n_stored)]
        state.confirm(HERE, [(each, at, NIGHT) for at, each in enumerate(contact_ids)])
        found = state.find(HERE, keys_of(*contact_ids))
    assert found.is_certain.all()
    assert Counter(found.digests.tolist()) == Counter(range(n_stored))
    assert max(largest) == finding._STORED_AT_ONCE
    assert sum(largest) == n_stored


# --- Against a model -----------------------------------------------------------------------------


class Model:
    """What the state should know: contacts by (scope, id): digest, applied at, sent, settled."""

    def __init__(self) -> None:
        self.known: dict[tuple[Scope, str], list] = {}

    def mark(self, scope, pairs):
        for contact_id, digest in pairs:
            entry = self.known.setdefault((scope, contact_id), [None, None, None, False])
            entry[3] = entry[2] is not None
            entry[2] = digest

    def fail(self, scope, pairs):
        """A mark that is taken back: what was in doubt before it is not certain after it."""
        meanwhile = {}
        for contact_id, digest in pairs:
            entry = self.known.get((scope, contact_id), [None, None, None, False])
            entry[3] = meanwhile.get(contact_id, entry[2]) is not None
            meanwhile[contact_id] = digest

    def confirm(self, scope, triples):
        for contact_id, digest, applied_at in triples:
            entry = self.known.setdefault((scope, contact_id), [None, None, None, False])
            entry[:2] = [digest, applied_at]
            if entry[2] == digest:
                entry[2] = None

    def unmark(self, scope, contact_ids):
        for contact_id in contact_ids:
            entry = self.known.get((scope, contact_id))
            if entry is None or (entry[3] and entry[2] is not None):
                continue
            entry[2] = None
            if entry[0] is None:
                del self.known[scope, contact_id]

    def forget(self, contact_id, operation):
        gone = [
            (scope, each)
            for scope, each in self.known
            if contact_id in (None, each) and operation in (None, scope.operation)
        ]
        for each in gone:
            del self.known[each]
        return len(gone)

    def rows(self):
        return {
            Known(scope, contact_id, digest, applied_at, in_doubt=sent is not None)
            for (scope, contact_id), (digest, applied_at, sent, _) in self.known.items()
        }


names = st.sampled_from([ZEROS, ENDS_IN_NULS, "a", "b"])
digests = st.sampled_from([1, 2, LARGEST])
steps = st.one_of(
    st.tuples(st.just("mark"), st.lists(st.tuples(names, digests), max_size=3)),
    st.tuples(st.just("confirm"), st.lists(st.tuples(names, digests, st.just(NIGHT)), max_size=3)),
    st.tuples(st.just("unmark"), st.lists(names, max_size=3)),
    st.tuples(st.just("forget"), st.tuples(st.none() | names, st.booleans())),
    st.tuples(st.just("fail"), st.lists(st.tuples(names, digests), max_size=3)),
    st.tuples(st.just("find"), st.sets(names)),
)


@given(history=st.lists(st.tuples(st.sampled_from([HERE, THERE]), steps), max_size=25))
@settings(max_examples=60)
def test_any_history_leaves_what_a_dictionary_would(tmp_path_factory, history):
    """Marks, confirmations, their taking back, forgetting, failures: all agree with the model."""
    model = Model()
    with State.open(tmp_path_factory.mktemp("model") / "state.sqlite") as state:
        for scope, (step, what) in history:
            if step == "forget":
                contact_id, narrow = what
                operation = scope.operation if narrow else None
                n_forgotten = state.forget(contact_id, operation=operation)
                assert n_forgotten == model.forget(contact_id, operation)
            elif step == "fail":
                with pytest.raises(ZeroDivisionError):
                    state.mark(scope, _and_then_fail(what))
                model.fail(scope, what)
            elif step == "find":
                for contact_id in what:
                    known(state, contact_id, scope)  # both ways agree
            else:
                getattr(state, step)(scope, what)
                getattr(model, step)(scope, what)
            rows = list(state.rows())
            assert len(rows) == len(set(rows))
            assert set(rows) == model.rows()
            assert state.n_contacts(scope) == sum(row.scope == scope for row in rows)


def _and_then_fail(pairs):
    yield from pairs
    raise ZeroDivisionError


def test_what_is_unmarked_over_a_doubt_after_a_failed_mark_stays_in_doubt(path):
    """A mark that was rolled back makes no certainty."""
    with State.open(path) as state:
        state.mark(HERE, [("c", 1)])
        with pytest.raises(ZeroDivisionError):
            state.mark(HERE, _and_then_fail([("c", 2), ("new", 2)]))
        state.unmark(HERE, ["c"])
        assert known(state, "c") == (None, None, True)
        assert known(state, "new") is None


# --- Durable, private, alone ---------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from bulk_updater.state import Scope, State

scope = Scope(*sys.argv[2:6])
with State.open(Path(sys.argv[1]), clock=lambda: 1772352000.5) as state:
    print("open", flush=True)
    for line in sys.stdin:
        step, n = line.split()
        some = range(int(n), int(n) + 50)
        if step == "mark":
            state.mark(scope, [(f"c-{i}", i) for i in some])
        elif step == "confirm":
            state.confirm(scope, [(f"c-{i}", i, i) for i in some])
        print(line.strip(), flush=True)
"""


@pytest.fixture
def child(path):
    """A process that works with the state and says what is done."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), *HERE_PARTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # what it was not told any more


@pytest.mark.parametrize("n_done", [1, 40])
def test_what_was_marked_and_confirmed_outlives_a_kill_in_the_middle_of_more(path, child, n_done):
    """All that had returned is there; a step that had not is there whole or not at all."""
    wanted = [f"{step} {n * 50}" for n in range(400) for step in ("mark", "confirm")]
    feeder = threading.Thread(target=_feed, args=(child, wanted))
    feeder.start()
    for line in wanted[:n_done]:
        assert child.stdout.readline().strip() == line
    child.send_signal(signal.SIGKILL)
    feeder.join()
    said = child.stdout.read().splitlines()  # done before the signal came
    n_done += sum(line in set(wanted) for line in said)
    with State.open(path) as state:
        rows = {row.contact_id: row for row in state.rows()}
    n_steps = 0
    for step in wanted:
        name, first = step.split()
        some = [rows.get(f"c-{i}") for i in range(int(first), int(first) + 50)]
        if name == "mark":
            there = [row is not None for row in some]
        else:
            there = [row is not None and not row.in_doubt for row in some]
            assert all(row.digest == int(row.contact_id[2:]) for row in some if row and row.digest)
        assert len(set(there)) == 1  # whole or not at all
        n_steps += there[0]
    assert n_done <= n_steps <= n_done + 1


def _feed(process, lines):
    with contextlib.suppress(BrokenPipeError):  # it was killed while it was told what to do
        process.stdin.write("".join(f"{line}\n" for line in lines))
        process.stdin.flush()


def test_a_mark_is_synced_before_it_returns(path):
    """WAL with synchronous=FULL: what has returned is on the disk, and not in a cache."""
    with State.open(path) as state:
        pragma = state._connection.execute
        assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
        assert pragma("PRAGMA synchronous").fetchone() == (2,)
        assert pragma("PRAGMA fullfsync").fetchone() == (1,)
        assert not state._connection.in_transaction
        state.mark(HERE, [("c", 1)])
        assert not state._connection.in_transaction


def test_all_of_its_files_are_private_whatever_the_umask(tmp_path):
    """The file, SQLite's two beside it and the lock are 0600, directories that were made 0700."""
    path = tmp_path / "a" / "b" / "state.sqlite"
    umask = os.umask(0)
    try:
        with State.open(path) as state:
            state.mark(HERE, [("c", 1)])
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
            assert modes == dict.fromkeys(
                ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite.lock"], 0o600
            )
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    finally:
        os.umask(umask)
    assert {each.name for each in path.parent.iterdir()} == {"state.sqlite", "state.sqlite.lock"}


def test_one_run_a_state_file(path, child):
    """A second one is refused at once: who, since when, nothing was sent, what to do."""
    with pytest.raises(StateError) as caught, State.open(path):
        pytest.fail("two runs with one state file")
    assert isinstance(caught.value, LedgerError)
    assert caught.value.path == path
    assert f"{path}: is in use by process {child.pid} on host " in caught.value.message
    assert ", since 2026-03-01T08:00:00.500Z. Nothing was sent. " in caught.value.message
    with pytest.raises(StateError, match="Nothing was forgotten"):
        State.open(path, undone="Nothing was forgotten.").__enter__()
    child.send_signal(signal.SIGKILL)
    child.wait()
    with State.open(path):
        pass


def test_two_names_of_one_file_have_one_lock(path):
    """A symbolic link to the state does not let a second run in."""
    link = path.with_name("link.sqlite")
    with State.open(path):
        link.symlink_to(path)
        with pytest.raises(StateError, match="in use by"), State.open(link):
            pytest.fail("two runs with one state file")
    with State.open(link) as state:
        state.mark(HERE, [("c", 1)])
    assert {each.name for each in path.parent.iterdir()} == {
        *("state.sqlite", "state.sqlite.lock", "link.sqlite")
    }


def test_the_lock_is_free_when_the_file_was_refused(path):
    """Also when what follows the lock fails."""
    path.write_text("not a database, but more than sixteen bytes of text")
    with pytest.raises(StateError), State.open(path):
        pytest.fail("a text was opened")
    with hold_lock(path.with_name("state.sqlite.lock")):
        pass


def test_a_reader_beside_a_run_sees_whole_steps_and_stops_nothing(path, child):
    """A process writes while this one reads: what is seen never goes back and is never half."""
    seen = [0]
    with State.read_only(path) as state:
        for n in range(20):
            child.stdin.write(f"mark {n * 50}\n")
            while child.stdout.readline().strip() != f"mark {n * 50}":
                pass
            child.stdin.write(f"confirm {n * 50}\n")
            seen.append(state.n_contacts(HERE))
            assert child.stdout.readline().strip() == f"confirm {n * 50}"
            (summary,) = state.scopes()
            assert (summary.n_contacts, summary.n_in_doubt) == (seen[-1], 0)
            keys = contact_keys([f"c-{i}" for i in range((n + 1) * 50)])
            assert state.find(HERE, np.sort(keys)).is_certain.all()
    assert seen == [n * 50 for n in range(21)]
    assert child.poll() is None


def test_a_slow_listing_holds_no_page_of_the_log_back(path):
    """While rows are being taken, a run's writes are tidied up behind it."""
    with State.open(path) as state:
        state.confirm(HERE, [(f"c-{n}", n, NIGHT) for n in range(10_000)])
        with State.read_only(path) as reader:
            rows = reader.rows()
            next(rows)
            state.confirm(HERE, [(f"c-{n}", n, NIGHT + 1) for n in range(10_000)])
            busy, in_log, moved = state._connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
            assert (busy, in_log, moved) == (0, 0, 0)
            assert sum(1 for _ in rows) == 9_999


def test_a_reader_changes_nothing(path):
    """Read-only is read-only: every change is refused in words."""
    with State.open(path) as state:
        state.confirm(HERE, [("c", 1, NIGHT)])
    with State.read_only(path) as state:
        for act in (
            lambda: state.mark(HERE, [("c", 2)]),
            lambda: state.confirm(HERE, [("c", 2, NIGHT)]),
            lambda: state.unmark(HERE, ["c"]),
            state.forget,
        ):
            with pytest.raises(StateError, match=r"\(SQLITE_READONLY\).*--state"):
                act()
        assert known(state, "c") == (1, NIGHT, False)


def test_worker_threads_use_it_one_at_a_time(path):
    """A connection that was opened in one thread marks and confirms in others."""
    with State.open(path) as state:
        for n in range(4):
            thread = threading.Thread(target=state.mark, args=(HERE, [(f"c-{n}", n)]))
            thread.start()
            thread.join()
        assert state.n_contacts(HERE) == 4


def test_forgotten_ids_are_not_left_in_the_file(path):
    """What was forgotten is overwritten, not only unlinked."""
    with State.open(path) as state:
        state.confirm(HERE, [(f"secret-{n}", n, NIGHT) for n in range(500)])
    assert b"secret-" in path.read_bytes()
    with State.open(path) as state:
        assert state.forget() == 500
    assert b"secret-" not in path.read_bytes()


# --- Not ours, damaged, no room ------------------------------------------------------------------


def refused(path: Path, *, read_only: bool = True) -> str:
    """Both ways to open a file refuse it in the same words and leave it as it is."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StateError) as caught, State.open(path):
        pytest.fail("what is no state was opened")
    if read_only:
        with pytest.raises(StateError) as other, State.read_only(path):
            pytest.fail("what is no state was opened")
        assert other.value.message == caught.value.message
    assert before is None or path.read_bytes() == before
    assert caught.value.message.startswith(f"{path}: ")
    left = {each.name for each in path.parent.iterdir()}
    assert left <= {path.name, f"{path.name}.lock"}
    return caught.value.message


def test_a_file_that_is_no_database_is_refused(path):
    """It says what it is not, and that it was not touched."""
    path.write_text("Contact,Tier\nc-1,gold\n")
    assert "it is no SQLite database. It was not touched. Name another with --state" in refused(
        path
    )


def test_a_short_file_is_no_database_either(path):
    """Also one that is shorter than a database's first words."""
    path.write_bytes(b"SQLite")
    assert "it is no SQLite database" in refused(path)


@pytest.mark.parametrize("with_wal", [False, True])
def test_the_database_of_another_program_is_refused(path, with_wal):
    """It is SQLite but not ours; not even its journal mode is changed."""
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA journal_mode={'wal' if with_wal else 'delete'}")
        other.execute("CREATE TABLE applied (key TEXT)")
    other.close()
    assert "it is the SQLite database of another program. It was not touched." in refused(path)


def test_a_newer_version_is_refused(path):
    """It says both versions and to upgrade."""
    with State.open(path):
        pass
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 2")
    other.close()
    assert (
        "was written by a newer version of bulk_updater (format 2; this one knows 1). Upgrade"
        in refused(path)
    )


HALF_MADE = """
import os, sqlite3, sys
from bulk_updater.state import file

db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.executescript("PRAGMA cache_size = 1; BEGIN;" + file._SCHEMA)
db.execute("CREATE TABLE ballast (x)")
db.executemany("INSERT INTO ballast VALUES (?)", [("x" * 3000,)] * 50)
os.kill(os.getpid(), 9)
"""


def test_a_process_that_dies_while_it_makes_the_tables_is_no_obstacle(path):
    """What it leaves, a file half written with its journal, becomes a state."""
    killed = subprocess.run([sys.executable, "-c", HALF_MADE, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.stat().st_size > 4096
    assert path.with_name("state.sqlite-journal").exists()
    with State.open(path) as state:
        state.mark(HERE, [("c", 1)])
        assert known(state, "c") == (None, None, True)
    assert {each.name for each in path.parent.iterdir()} == {"state.sqlite", "state.sqlite.lock"}


def test_an_empty_file_becomes_a_state(path):
    """As a process leaves it that died before it had made its tables; a reader says it is empty."""
    path.touch()
    with pytest.raises(StateError, match="is empty: nothing was noted"), State.read_only(path):
        pytest.fail("an empty file was opened")
    with State.open(path) as state:
        state.mark(HERE, [("c", 1)])
    with State.read_only(path) as state:
        assert state.n_contacts(HERE) == 1


def test_a_state_that_is_not_there_is_not_made_by_reading(path):
    """The reader says so and leaves nothing behind."""
    with pytest.raises(StateError, match=r"\(ENOENT\)"), State.read_only(path):
        pytest.fail("nothing was opened")
    assert not list(path.parent.iterdir())


def test_a_directory_and_a_file_as_directory_are_refused(tmp_path):
    """What the system says, in words, with what to do."""
    (tmp_path / "file").touch()
    for path, code in ((tmp_path, "EISDIR"), (tmp_path / "file" / "state.sqlite", "ENOTDIR")):
        with pytest.raises(StateError, match=rf"\({code}\).*--state"), State.open(path):
            pytest.fail("no file was opened")
    (tmp_path.with_name(f"{tmp_path.name}.lock")).unlink()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_state_that_cannot_be_created_is_refused(path, monkeypatch, code):
    """No permission, a read-only disk, a full one: named with the room that is left."""

    def create(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file, "_create_missing", create)
    with (
        pytest.raises(StateError, match=rf"\({errno.errorcode[code]}\), [\d,]+ bytes free\..*"),
        State.open(path),
    ):
        pytest.fail("it was opened")


def filled(path: Path, n_contacts: int = 2000) -> None:
    with State.open(path) as state:
        state.confirm(HERE, [(f"c-{n}", n, NIGHT) for n in range(n_contacts)])


def look_at_all(path: Path) -> None:
    with State.open(path) as state:
        state.find(HERE, keys_of(*(f"c-{n}" for n in range(2000))))
        state.scopes()
        list(state.rows())
        state.forget()


def test_a_damaged_file_is_named_wherever_the_damage_shows(path):
    """Damage is said with what to do, by opening or by the first look at it; nothing is deleted."""
    filled(path)
    content = bytearray(path.read_bytes())
    said = []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage"))
    for begin in (100, *(4096 * (roots[name] - 1) for name in ("scopes", "applied", "in_doubt"))):
        broken = content.copy()
        broken[begin : begin + 4096] = b"\xa5" * 4096
        path.write_bytes(broken)
        with pytest.raises(StateError) as caught:
            look_at_all(path)
        said.append(caught.value.message)
        assert path.stat().st_size == len(content)
    assert all("is damaged (SQLITE_CORRUPT" in message for message in said)
    assert all("move it away together with its -wal and -shm files" in each for each in said)


def test_a_file_cut_short_is_damaged(path):
    """Half a state is not taken for a smaller one."""
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StateError, match="is damaged"), State.open(path) as state:
        state.scopes()


def limit_pages(state: State) -> None:
    """No page more than there are: SQLite's own way to be out of room."""
    (n_pages,) = state._connection.execute("PRAGMA page_count").fetchone()
    state._connection.execute(f"PRAGMA max_page_count = {n_pages}")


def test_without_room_nothing_is_half_noted(path):
    """A mark for which there is no room is refused in words; all before it stands, after it too."""
    with State.open(path) as state:
        state.confirm(HERE, [("c", 1, NIGHT)])
        limit_pages(state)
        with pytest.raises(StateError, match=r"\(SQLITE_FULL\), [\d,]+ bytes free.*Make room"):
            state.mark(HERE, [("c", 2), *((f"c-{n}", n) for n in range(5000))])
        with pytest.raises(StateError, match="SQLITE_FULL"):
            state.confirm(THERE, [(f"c-{n}", n, NIGHT) for n in range(5000)])
        assert known(state, "c") == (1, NIGHT, False)
        assert state.n_contacts(HERE) == 1
        state._connection.execute("PRAGMA max_page_count = 100000")
        state.mark(THERE, [("c", 3)])  # its scope was taken back, and is made again
        assert known(state, "c", THERE) == (None, None, True)


NO_ROOM = """
import resource, sys
from pathlib import Path
from bulk_updater.errors import StateError
from bulk_updater.state import Scope, State

scope = Scope(*sys.argv[2:6])
with State.open(Path(sys.argv[1])) as state:
    state.confirm(scope, [("before", 1, 1)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (262144, 262144))
    n = 0
    try:
        while True:
            state.mark(scope, [(f"c-{n}-{i}", i) for i in range(100)])
            n += 1
    except StateError as error:
        print(n, error.message)
"""


def test_a_disk_without_room_is_named_and_what_was_noted_is_there(path):
    """A process that may write no more: the error in words, and every mark that had returned."""
    ran = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(path), *HERE_PARTS],
        capture_output=True,
        text=True,
        check=False,
    )
    n_marked, _, message = ran.stdout.partition(" ")
    assert int(n_marked) > 0, ran
    assert message.startswith(f"{path}: cannot be ")
    assert "bytes free" in message
    with State.open(path) as state:
        assert known(state, "before") == (1, 1, False)
        assert state.n_contacts(HERE) == 1 + 100 * int(n_marked)
        assert state._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_another_program_that_holds_the_file_is_named(path, monkeypatch):
    """A database browser in a transaction: said after some patience; afterwards all goes on."""
    monkeypatch.setattr(file, "_PATIENCE_S", 0.0)
    filled(path, 1)
    with State.open(path) as state:
        browser = sqlite3.connect(path, isolation_level=None)
        browser.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match=r"locked by another program .*\(SQLITE_BUSY\)"):
            state.mark(HERE, [("c", 2)])
        browser.execute("ROLLBACK")
        browser.close()
        state.mark(HERE, [("c", 2)])


def test_a_file_system_without_shared_memory_is_refused(path):
    """Where WAL cannot be, it says so rather than working without it."""

    class NoWal:
        def execute(self, query):
            assert query == "PRAGMA journal_mode = WAL"
            return self

        def fetchone(self):
            return ("delete",)

    with pytest.raises(StateError, match=r"has no shared memory.*local disk with --state"):
        file._go_wal(NoWal(), path)


def test_any_other_error_of_sqlite_is_named_too(path):
    """Also one that carries no code."""
    with (
        pytest.raises(StateError, match=r"cannot be used: odd \(OperationalError\)"),
        file.errors_of(path),
    ):
        raise sqlite3.OperationalError("odd")


def test_a_fault_of_the_program_is_none_of_the_file(path):
    """A state that was closed is used: that is not blamed on the disk."""
    with State.open(path) as state:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        state.mark(HERE, [("c", 1)])


def test_ten_million_contacts_take_less_than_600_megabytes(path):
    """In the order of a backfill, which is none: under 60 bytes a contact whose id is a UUID."""
    n_contacts = 20_000
    chance = np.random.default_rng(5)
    hexes = [chance.bytes(16).hex() for _ in range(n_contacts)]
    contact_ids = ["-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:])) for h in hexes]
    with State.open(path) as state:
        for at in range(0, n_contacts, 500):
            some = contact_ids[at : at + 500]
            state.mark(HERE, [(each, int(each[:8], 16) << 32) for each in some])
            state.confirm(HERE, [(each, int(each[:8], 16) << 32, NIGHT) for each in some])
        assert state.n_contacts(HERE) == n_contacts
    assert path.stat().st_size / n_contacts < 60


def test_the_newest_run_of_a_job_is_known(tmp_path):
    """What began later is noted for each scope and job, and never taken back."""
    one, other = (Scope("1", "eu", "i", name) for name in ("a", "b"))
    path = tmp_path / "state.sqlite"
    with State.open(path) as state:
        assert state.newest_run(one, "nightly") == 0.0
        state.note_run(one, "nightly", 20.0)
        state.note_run(one, "nightly", 10.5)
        state.note_run(other, "nightly", 30.0)
        state.note_run(one, "weekly", 40.0)
    with State.open(path) as state:
        assert state.newest_run(one, "nightly") == 20.0
        assert state.newest_run_of("nightly") == 30.0
        assert state.newest_run_of("yearly") == 0.0
