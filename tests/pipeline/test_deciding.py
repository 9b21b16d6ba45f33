"""What is decided of rows, against a plain model of what contacts hold. All in all 4 s."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.config import ChangesConfig
from bulk_updater.errors import RunStopped
from bulk_updater.keys import contact_key, contact_keys
from bulk_updater.model import Outcome
from bulk_updater.pipeline.changes import refuse_if_too_much
from bulk_updater.pipeline.deciding import (
    CODES,
    SEVERAL,
    Contacts,
    Evidence,
    Gathering,
    Recall,
    decide,
)
from bulk_updater.state import Found, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATION = "update_contact_attributes"
BEGAN_AT = 1000
FRESH_FROM = 500

UNCHANGED, SUPERSEDED, SEND = CODES[Outcome.UNCHANGED], CODES[Outcome.SUPERSEDED], 0


@dataclass
class Held:
    """What is remembered of a contact."""

    digest: int
    applied_at: int
    certain: bool


@dataclass
class FakeState:
    """Remembers what it was made with, in any scope."""

    held: dict[str, Held] = field(default_factory=dict)
    newest: float = 0.0

    def newest_run(self, _scope: Scope, _job: str) -> float:
        return self.newest

    def n_contacts(self, _scope: Scope) -> int:
        return len(self.held)

    def find(self, _scope: Scope, keys: np.ndarray) -> Found:
        by_key = {contact_key(name): held for name, held in self.held.items()}
        found = Found.nothing(len(keys))
        raw = [bytes(key) for key in np.frombuffer(keys.tobytes(), dtype="V16")]
        for at, key in enumerate(raw):
            if key in by_key:
                found.is_known[at] = True
                found.digests[at] = by_key[key].digest
                found.applied_at[at] = by_key[key].applied_at
                found.is_certain[at] = by_key[key].certain
        return found


class FakeSettled:
    """The outcomes of rows that are settled."""

    def __init__(self, outcomes: dict[int, Outcome] | None = None) -> None:
        self.by_row = outcomes or {}

    def outcome_of(self, row: int, _operation: str) -> Outcome | None:
        return self.by_row.get(row)

    def select_unsettled(self, rows: np.ndarray, _operation: str) -> np.ndarray:
        return np.array([row not in self.by_row for row in rows.tolist()], dtype=np.bool_)


def frames(
    rows: list[tuple[str, int]], *, size: int = 7, instances: list[str] | None = None
) -> Iterator[SimpleNamespace]:
    """Frames with rows of contacts and digests, numbered from 1."""
    of_row = instances or ["i"] * len(rows)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        here = of_row[start : start + size]
        groups = [
            (name, np.array([at for at, each in enumerate(here) if each == name]))
            for name in sorted(set(here))
        ]
        mapped = SimpleNamespace(
            operation=SimpleNamespace(name=OPERATION),
            frame=SimpleNamespace(rows=np.arange(start + 1, start + 1 + len(part))),
            contact_keys=contact_keys([name for name, _ in part]),
            digests=np.array([digest for _, digest in part], dtype=np.uint64),
            instance_groups=lambda groups=groups: groups,
        )
        yield SimpleNamespace(operations=[mapped])


def gathered(rows: list[tuple[str, int]], **settings) -> Gathering:
    gathering = Gathering()
    for frame in frames(rows, **settings):
        gathering.add(frame)
    return gathering


def digest_of(seed: int) -> int:
    """64 bit without a pattern, as digests of rows are."""
    return int.from_bytes(hashlib.blake2b(bytes([seed]), digest_size=8).digest())


def contacts_of(rows: list[tuple[str, int]]) -> Contacts:
    (contacts,) = gathered(rows).contacts()
    return contacts


def chain_of(*digests: int) -> int:
    """What rows of one contact come to, as the program says it."""
    return int(contacts_of([("c", digest) for digest in digests]).chains[0])


def decided(rows, state=None, settled=None, evidence=(), **settings):
    recall = None
    if state is not None:
        recall = Recall(
            state=state,
            account="local",
            region="here",
            job="nightly",
            began_at=BEGAN_AT,
            fresh_from=FRESH_FROM,
        )
    return decide(
        gathered(rows, **settings),
        settled or FakeSettled(),
        n_rows=len(rows),
        operations=[OPERATION],
        evidence=evidence,
        recall=recall,
    )


def codes(decisions) -> list[int]:
    return (decisions.codes(OPERATION)[1:] & (0xFF ^ SEVERAL)).tolist()


def evidence_of(held: dict[str, int], operation: str = OPERATION, instance: str = "i") -> Evidence:
    by_key = {contact_keys([name])[0]: digest for name, digest in held.items()}
    keys = np.unique(contact_keys(held))
    digests = np.array([by_key[key] for key in keys], dtype=np.uint64)
    return Evidence(operation, instance, keys, digests)


# --- Gathering


def test_rows_of_a_contact_stand_together_in_order():
    """Over frames: keys ascending and each once, rows of each contact in the order of the file."""
    rows = [(f"c-{n % 4}", n) for n in range(30)]
    contacts = contacts_of(rows)
    assert contacts.keys.tolist() == sorted(set(contacts.keys.tolist()))
    for n in range(4):
        at = contacts.find(f"c-{n}")
        assert contacts.rows_of(at) == [row for row in range(1, 31) if (row - 1) % 4 == n]
    assert contacts.find("c-9") is None
    assert contacts.n_rows.tolist() == [len(contacts.rows_of(at)) for at in range(4)]


def test_an_id_of_any_form_is_found():
    """UUIDs, other ids and UUIDs that end in zeros, which arrays of bytes would cut off."""
    names = [
        "1c08909d-bafe-40bd-a6ab-ae9d3cd45d75",
        "1c08909d-bafe-40bd-a6ab-000000000000",
        "00000000-0000-0000-0000-000000000000",
        "call-1",
        "x" * 256,
    ]
    contacts = contacts_of([(name, n) for n, name in enumerate(names, start=1)])
    for row, name in enumerate(names, start=1):
        assert contacts.rows_of(contacts.find(name)) == [row]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_a_chain_says_every_row_and_their_order(seeds):
    """A single row's chain is its digest; any other row, order or number is another chain."""
    digests = [digest_of(seed) for seed in seeds]
    chain = chain_of(*digests)
    if len(digests) == 1:
        assert chain == digests[0]
    others = {tuple(digests[:-1]), (*digests, 0), (*digests, digests[-1]), tuple(digests[::-1])}
    others |= {(*digests[:at], digests[at] ^ 1, *digests[at + 1 :]) for at in range(len(digests))}
    for other in others - {tuple(digests), ()}:
        assert chain_of(*other) != chain


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**64 - 1)), min_size=1, max_size=20))
def test_the_beginning_of_a_chain_is_the_chain_of_the_beginning(rows):
    """Of every contact, and for every number of its rows."""
    named = [(f"c-{contact}", digest) for contact, digest in rows]
    contacts = contacts_of(named)
    of_contact = defaultdict(list)
    for name, digest in named:
        of_contact[name].append(digest)
    for name, digests in of_contact.items():
        at = contacts.find(name)
        for n_rows in range(1, len(digests) + 1):
            assert contacts.chain_of(at, n_rows) == chain_of(*digests[:n_rows])


def test_some_contacts_only_are_as_they_were():
    """What is kept of them is what all of them say: chains, rows, digests."""
    rows = [(f"c-{n % 5}", n) for n in range(23)]
    contacts = contacts_of(rows)
    wanted = np.array([True, False, True, False, True])
    some = contacts.only(wanted)
    assert some.keys.tolist() == contacts.keys[wanted].tolist()
    assert some.chains.tolist() == contacts.chains[wanted].tolist()
    for at, before in enumerate(np.flatnonzero(wanted).tolist()):
        assert some.rows_of(at) == contacts.rows_of(before)
        assert some.chain_of(at, 3) == contacts.chain_of(before, 3)


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 2**64 - 1)), max_size=12),
    wanted=st.sets(st.integers(0, 30)) | st.just(set(range(31))),
)
def test_one_row_each_or_several_is_told_the_same_way(rows, wanted):
    """Selected contacts have their own rows and chains, also where each has a single row."""
    contacts = contacts_of(named := [(f"c-{name}", digest) for name, digest in rows or [(0, 1)]])
    places = {name: contacts.find(name) for name, _ in named}
    mask = np.zeros(len(contacts.keys), dtype=np.bool_)
    mask[[at for name, at in places.items() if int(name[2:]) in wanted]] = True
    of_contact = defaultdict(list)
    for row, (name, digest) in enumerate(named, start=1):
        of_contact[name].append((row, digest))
    some = contacts.only(mask)
    kept = {name for name, at in places.items() if mask[at]}
    assert sorted(contacts.select(mask).tolist()) == sorted(
        row for name in kept for row, _ in of_contact[name]
    )
    assert len(some.keys) == len(kept)
    for name in kept:
        at = some.find(name)
        assert some.rows_of(at) == [row for row, _ in of_contact[name]]
        assert int(some.chains[at]) == chain_of(*(digest for _, digest in of_contact[name]))


def test_instances_are_gathered_apart():
    """One id in two instances: two contacts, each with its rows."""
    gathering = gathered([("c", 1), ("c", 2), ("c", 3)], instances=["i", "j", "i"])
    found = {each.instance_id: each.rows.tolist() for each in gathering.contacts()}
    assert found == {"i": [1, 3], "j": [2]}
    assert list(gathering.contacts()) == []


# --- Deciding


@pytest.mark.parametrize(
    ("held", "code"),
    [
        (Held(7, 600, certain=True), UNCHANGED),
        (Held(7, 499, certain=True), SEND),  # longer ago than --refresh
        (Held(7, 500, certain=True), UNCHANGED),
        (Held(7, 600, certain=False), SEND),
        (Held(8, 600, certain=True), SEND),
        (Held(8, 1000, certain=True), SUPERSEDED),
        (Held(8, 999, certain=True), SEND),
        (Held(7, 1001, certain=True), UNCHANGED),
        (Held(8, 1001, certain=False), SEND),
    ],
)
def test_what_is_remembered_decides(held, code):
    """The same, for certain and not too long ago; something else, since this run was begun."""
    decisions = decided([("c", 7), ("d", 1)], FakeState({"c": held}))
    assert codes(decisions) == [code, SEND]
    assert (decisions.n_requests, decisions.n_new) == (2, 1)
    assert decisions.n_remembered == 1


def test_what_this_run_applied_before_it_was_killed_is_ours():
    """In doubt, and every row of it UPDATED in this run's own ledger: remembered, not sent."""
    rows = [("c", 1), ("c", 2), ("d", 3), ("e", 4)]
    state = FakeState({name: Held(0, 0, certain=False) for name in ("c", "d", "e")})
    settled = FakeSettled({1: Outcome.UPDATED, 2: Outcome.UPDATED, 3: Outcome.FAILED})
    decisions = decided(rows, state, settled)
    ours = decisions.ours[OPERATION, "i"]
    assert [ours.rows_of(at) for at in range(len(ours.keys))] == [[1, 2]]
    assert ours.chains.tolist() == [chain_of(1, 2)]
    assert decisions.to_send[OPERATION, "i"].find("c") is None
    assert decisions.to_send[OPERATION, "i"].find("d") is not None
    assert decisions.n_to_send(OPERATION) == 1  # the FAILED one is settled


@pytest.mark.parametrize(
    ("n_settled", "held", "code"),
    [(1, (1,), SEND), (2, (1, 2), SEND), (1, (9,), SUPERSEDED), (1, (1, 2), SUPERSEDED),
     (0, (1,), SUPERSEDED)],
)  # fmt: skip
def test_a_contact_that_this_run_began_is_not_superseded(n_settled, held, code):
    """It holds exactly the rows that are settled, as `--limit` left it: the others are sent."""
    state = FakeState({"c": Held(chain_of(*held), 2000, certain=True)})
    settled = FakeSettled(dict.fromkeys(range(1, n_settled + 1), Outcome.UPDATED))
    assert codes(decided([("c", 1), ("c", 2), ("c", 3)], state, settled)) == [code] * 3


@pytest.mark.parametrize(
    ("newest_at", "code"), [(BEGAN_AT - 1, SEND), (BEGAN_AT, SEND), (BEGAN_AT + 1, SUPERSEDED)]
)
def test_all_that_is_certain_is_newer_once_a_newer_run_has_begun(newest_at, code):
    """Also what it found unchanged and what this run began; not what is in doubt or unknown."""
    held = {"c": Held(8, 600, certain=True), "d": Held(8, 600, certain=False)}
    held["f"] = Held(digest_of(1), 2000, certain=True)
    rows = [("c", 7), ("d", 7), ("e", 7), ("f", digest_of(1)), ("f", digest_of(2))]
    settled = FakeSettled({4: Outcome.UPDATED})
    decisions = decided(rows, FakeState(held, newest=newest_at), settled)
    assert codes(decisions) == [code, SEND, SEND, code, code]


def test_evidence_says_what_one_row_left():
    """The same row: unchanged. Another one, another operation or instance, several rows: sent."""
    rows = [("same", 1), ("other", 2), ("several", 3), ("several", 4), ("unknown", 5)]
    held = {"same": 1, "other": 9, "several": 4, "not in it": 6}
    here = decided(rows, evidence=[evidence_of(held), evidence_of({})])
    assert codes(here) == [UNCHANGED, SEND, SEND, SEND, SEND]
    assert here.n_unchanged == 1
    elsewhere = [evidence_of(held, "update_contact"), evidence_of(held, instance="j")]
    assert codes(decided(rows, evidence=elsewhere)) == [SEND] * 5


def test_evidence_outweighs_what_is_older():
    """A contact that something newer was applied to, which the older run left as it is wanted."""
    state = FakeState({"c": Held(8, 2000, certain=True)})
    assert codes(decided([("c", 7)], state, evidence=[evidence_of({"c": 7})])) == [UNCHANGED]


CONTACTS = st.sampled_from([f"c-{n}" for n in range(6)])
DIGESTS = st.integers(1, 3).map(digest_of)


@given(
    rows=st.lists(st.tuples(CONTACTS, DIGESTS), min_size=1, max_size=24),
    held=st.dictionaries(
        CONTACTS,
        st.tuples(
            st.lists(DIGESTS, min_size=1, max_size=3),
            st.sampled_from([0, 499, 500, 999, 1000, 2000]),
            st.booleans(),
        ),
    ),
    outcomes=st.dictionaries(
        st.integers(1, 24),
        st.sampled_from([Outcome.UPDATED, Outcome.FAILED, Outcome.UNCHANGED]),
    ),
    evident=st.dictionaries(CONTACTS, DIGESTS),
    size_and_newest=st.tuples(st.integers(1, 30), st.sampled_from([0, BEGAN_AT, BEGAN_AT + 1])),
)
def test_every_decision_is_that_of_a_plain_model(rows, held, outcomes, evident, size_and_newest):
    """Contact by contact with dicts and lists: the same codes and the same figures."""
    size, newest_at = size_and_newest
    outcomes = {row: outcome for row, outcome in outcomes.items() if row <= len(rows)}
    state = FakeState({name: Held(chain_of(*each[0]), *each[1:]) for name, each in held.items()})
    state.newest = newest_at
    decisions = decided(rows, state, FakeSettled(outcomes), [evidence_of(evident)], size=size)

    rows_of = defaultdict(list)
    for row, (name, _) in enumerate(rows, start=1):
        rows_of[name].append(row)
    expected = [SEND] * len(rows)
    figures = dict.fromkeys(("n_unchanged", "n_superseded", "n_new", "n_changed"), 0)
    n_to_send = 0
    ours = set()
    for name, of_contact in rows_of.items():
        said = [rows[row - 1][1] for row in of_contact]
        digests, applied_at, certain = held.get(name, (None, 0, False))
        same = digests == said
        is_unchanged = certain and same and applied_at >= FRESH_FROM
        is_unchanged |= len(said) == 1 and evident.get(name) == said[0]
        settled = [row for row in of_contact if row in outcomes]
        is_older = newest_at > BEGAN_AT
        is_begun = (
            not is_older and len(said) > 1 and bool(settled) and digests == said[: len(settled)]
        )
        is_superseded = certain and not same and not is_begun
        is_superseded &= is_older or applied_at >= BEGAN_AT
        is_superseded &= not is_unchanged
        is_ours = digests is not None and not certain
        is_ours &= all(outcomes.get(row) is Outcome.UPDATED for row in of_contact)
        code = UNCHANGED if is_unchanged else SUPERSEDED if is_superseded else SEND
        for row in of_contact:
            expected[row - 1] = code
        figures["n_unchanged"] += len(said) * is_unchanged
        figures["n_superseded"] += len(said) * is_superseded
        figures["n_new"] += len(said) * (digests is None)
        figures["n_changed"] += len(said) * (digests is not None and not same and not is_ours)
        if is_ours:
            ours.add(name)
        elif code == SEND:
            n_to_send += len(said) - len(settled)
    assert codes(decisions) == expected
    assert {name: getattr(decisions, name) for name in figures} == figures
    assert decisions.n_to_send(OPERATION) == n_to_send
    assert decisions.n_requests == len(rows)
    assert decisions.n_decided(OPERATION, Outcome.UNCHANGED) == figures["n_unchanged"]
    kept = decisions.ours.get((OPERATION, "i"))
    assert ours == {name for name in rows_of if kept is not None and kept.find(name) is not None}
    several = decisions.codes(OPERATION)[1:] & SEVERAL != 0
    assert several.tolist() == [len(rows_of[name]) > 1 for name, _ in rows]


# --- How much would change


@pytest.mark.parametrize(("limit", "refused"), [(None, False), (0.5, False), (0.49, True)])
def test_the_share_of_change_counts_new_and_changed_rows(limit, refused):
    """One changed and one new of four rows are 50 %: allowed are as many, and no more."""
    state = FakeState({name: Held(1, 600, certain=True) for name in ("c", "d", "e")})
    decisions = decided([("c", 1), ("d", 1), ("e", 2), ("f", 1)], state)
    assert decisions.share_of_change == 0.5
    if refused:
        with pytest.raises(RunStopped, match="Nothing was sent"):
            refuse_if_too_much(decisions, ChangesConfig(max_change=limit))
    else:
        refuse_if_too_much(decisions, ChangesConfig(max_change=limit))


def test_an_empty_export_changes_nothing():
    """No row, no share, and nothing to divide by."""
    assert decided([], FakeState()).share_of_change == 0.0
