"""Which rows need not be sent: what a contact holds already, and what something newer stands for.

The unit of a decision is a contact, for one operation and instance. What an export says of it is
the digest of its row, or, where several rows make a request, the chain of their digests in file
order: sent one after the other they leave the contact as the chain says, so all of them are sent or
none is.

Everything is counted before the first request, in one pass over the sources at the speed of a
plan, with arrays and no object for each row: some 100 bytes a row at the most, of which those of
the contacts to send are kept. Only then can it be said how much of an export would change, and no
row of a contact is sent because nobody had seen the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from bulk_updater.keys import KEY_DTYPE, ascending_order, contact_key
from bulk_updater.model import Outcome
from bulk_updater.state import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from bulk_updater.ledger import SettledRows
    from bulk_updater.mapping import MappedFrame
    from bulk_updater.model import Request
    from bulk_updater.state import State

__all__ = [
    "CODES",
    "SEVERAL",
    "UNSENT",
    "Contacts",
    "Decisions",
    "Evidence",
    "Gathering",
    "Recall",
    "decide",
]

UNSENT: Final = (Outcome.UNCHANGED, Outcome.SUPERSEDED)
"""What may be decided of a row that is not sent."""

CODES: Final = {outcome: code for code, outcome in enumerate(UNSENT, start=1)}
"""The outcome's number in `Decisions.codes`; 0 is a row of which nothing is decided."""

SEVERAL: Final = 0x80
"""Added to the number of a row whose contact has more than one."""

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
"""2 ** 64 divided by the golden ratio, odd: the increment of SplitMix64 (Steele, Lea, Flood,
"Fast splittable pseudorandom number generators", 2014)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an older run left of contacts, for one operation and instance.

    Attributes:
        operation: The operation's snake_case name.
        instance_id: The instance.
        keys: Keys of the contacts, ascending, each once.
        digests: What each of them holds: the digest of the last row that was applied.
    """

    operation: str
    instance_id: str
    keys: npt.NDArray[np.bytes_]
    digests: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Contacts:
    """What an export says of its contacts, for one operation and instance.

    Attributes:
        operation: The operation's snake_case name.
        instance_id: The instance.
        keys: Keys of the contacts, ascending, each once.
        chains: What the export says of each: the digest of its row, or the chain of several.
        rows: Numbers of the rows that make a request, those of a contact together, ascending.
        digests: What each of these rows writes.
        ends: For each contact, the end of its rows in `rows`; they begin where the contact's
            before it end.
    """

    operation: str
    instance_id: str
    keys: npt.NDArray[np.bytes_]
    chains: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]
    ends: npt.NDArray[np.int64]

    @property
    def n_rows(self) -> npt.NDArray[np.int64]:
        """How many rows each contact has, at least 1."""
        return np.diff(self.ends, prepend=0)

    def rows_of(self, at: int) -> list[int]:
        """The rows of the contact at a place in `keys`."""
        start = int(self.ends[at - 1]) if at else 0
        rows: list[int] = self.rows[start : self.ends[at]].tolist()
        return rows

    def find(self, contact_id: str) -> int | None:
        """The place of a contact in `keys`; None where the export does not say anything of it."""
        key = np.frombuffer(contact_key(contact_id), KEY_DTYPE)
        at = int(np.searchsorted(self.keys, key)[0])
        return at if at < len(self.keys) and self.keys[at] == key[0] else None

    def chain_of(self, at: int, n_rows: int) -> int:
        """What the first rows of the contact at a place in `keys` come to, at least one."""
        begin = np.array([int(self.ends[at - 1]) if at else 0])
        return int(_chain(self.digests, begin, begin + n_rows)[0])

    def select(self, contacts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The rows of some contacts."""
        return self.rows[self._rows_of(contacts)]

    def only(self, contacts: npt.NDArray[np.bool_]) -> Contacts:
        """Some contacts only: what has to be remembered of an export of which little is sent."""
        if contacts.all():
            return self
        of_rows = self._rows_of(contacts)
        return Contacts(
            self.operation,
            self.instance_id,
            self.keys[contacts],
            self.chains[contacts],
            self.rows[of_rows],
            self.digests[of_rows],
            np.cumsum(self.n_rows[contacts]),
        )

    def _rows_of(self, contacts: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which of `rows` are of some contacts."""
        # Mostly every contact has one row, so that nothing has to be copied.
        return contacts if len(self.rows) == len(self.keys) else np.repeat(contacts, self.n_rows)


class Gathering:
    """Gathers what an export says of its contacts, frame by frame."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str], _Columns] = {}

    def add(self, frame: MappedFrame) -> None:
        """Take a frame's rows that make a request."""
        for mapped in frame.operations:
            for instance_id, positions in mapped.instance_groups():
                columns = self._columns.setdefault(
                    (mapped.operation.name, instance_id), _Columns([], [], [])
                )
                columns.rows.append(mapped.frame.rows[positions])
                columns.keys.append(mapped.contact_keys[positions])
                columns.digests.append(mapped.digests[positions])

    def contacts(self) -> Iterator[Contacts]:
        """What was gathered, for each operation and instance; each can be had once."""
        while self._columns:
            (operation, instance_id), columns = self._columns.popitem()
            # One after the other, so that no two copies of everything are held at once.
            keys = _joined(columns.keys)
            order = ascending_order(keys)  # rows of a contact keep their order
            keys = keys[order]
            digests = _joined(columns.digests)[order]
            rows = _joined(columns.rows)[order]
            del order
            ends = _ends(keys)
            if len(ends) == len(keys):
                chains = digests
            else:
                begins = np.append(0, ends[:-1])
                chains = _chain(digests, begins, ends)
                keys = keys[begins]
                del begins
            yield Contacts(operation, instance_id, keys, chains, rows, digests, ends)


class _Columns(NamedTuple):
    """What was gathered of one operation and instance, frame by frame."""

    rows: list[npt.NDArray[np.int64]]
    keys: list[npt.NDArray[np.bytes_]]
    digests: list[npt.NDArray[np.uint64]]


_T = TypeVar("_T", bound=np.generic)


def _joined(parts: list[npt.NDArray[_T]]) -> npt.NDArray[_T]:
    """The parts as one array; they are taken out of the list."""
    joined = np.concatenate(parts)
    parts.clear()
    return joined


def _ends(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Where each run of equal keys ends."""
    is_last = np.ones(len(keys), dtype=np.bool_)
    is_last[:-1] = keys[1:] != keys[:-1]
    return np.flatnonzero(is_last) + 1


def _chain(
    digests: npt.NDArray[np.uint64], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """One digest for the rows of each contact: a single row's own, or one of all in order."""
    chains = digests[begins].copy()
    going_on = np.flatnonzero(ends - begins > 1)
    nth = 1
    while len(going_on):
        chains[going_on] = chains[going_on] * _MULTIPLIER ^ (
            digests[begins[going_on] + nth] + _MULTIPLIER
        )
        nth += 1
        going_on = going_on[ends[going_on] - begins[going_on] > nth]
    return chains


class Decisions:
    """What was decided of an export's rows.

    Attributes:
        n_requests: Rows that make a request, over all operations.
        n_unchanged: Those of contacts that hold already what the export says.
        n_superseded: Those of contacts that something newer was applied to.
        n_new: Those of contacts that nothing is remembered of.
        n_changed: Those of contacts of which something else is remembered.
        n_remembered: Contacts that something is remembered of, in the export or not.
        left: Of the rows that make a request and are not settled, how many are decided to be
            UNCHANGED and SUPERSEDED; None counts those that are to be sent.
        to_send: The contacts that are to be sent, by operation and instance.
        ours: Contacts whose rows this run has applied, all of them, and which are not remembered
            so, by operation and instance: it was killed in between.
    """

    def __init__(self, codes: dict[str, npt.NDArray[np.uint8]]) -> None:
        self.n_requests = self.n_unchanged = self.n_superseded = 0
        self.n_new = self.n_changed = self.n_remembered = 0
        self.left: dict[Outcome | None, int] = dict.fromkeys((*UNSENT, None), 0)
        self.to_send: dict[tuple[str, str], Contacts] = {}
        self.ours: dict[tuple[str, str], Contacts] = {}
        self._codes = codes
        self._n_to_send = dict.fromkeys(codes, 0)

    def codes(self, operation: str) -> npt.NDArray[np.uint8]:
        """By row number: 0, or the number in `CODES` of what was decided; with `SEVERAL`."""
        return self._codes[operation]

    def n_to_send(self, operation: str) -> int:
        """Rows of an operation that are to be sent, and are not settled."""
        return self._n_to_send[operation]

    def n_decided(self, operation: str, outcome: Outcome) -> int:
        """Rows of an operation of which an outcome was decided, settled or not."""
        return int((self._codes[operation] & ~np.uint8(SEVERAL) == CODES[outcome]).sum())

    @property
    def share_of_change(self) -> float:
        """The part of the rows that would change something, from 0 to 1."""
        return (self.n_new + self.n_changed) / max(1, self.n_requests)

    def take(self, contacts: Contacts, known: _Known, settled: SettledRows) -> None:
        """Take what was found out of some contacts."""
        where = contacts.operation, contacts.instance_id
        n_rows = contacts.n_rows
        self.n_requests += len(contacts.rows)
        self.n_unchanged += int(n_rows[known.unchanged].sum())
        self.n_superseded += int(n_rows[known.superseded].sum())
        self.n_new += int(n_rows[known.new].sum())
        self.n_changed += int(n_rows[known.changed].sum())
        codes = self._codes[contacts.operation]
        codes[contacts.select(known.unchanged)] = CODES[Outcome.UNCHANGED]
        codes[contacts.select(known.superseded)] = CODES[Outcome.SUPERSEDED]
        codes[contacts.select(n_rows > 1)] |= SEVERAL
        if known.ours.any():
            self.ours[where] = contacts.only(known.ours)
        to_send = contacts.only(~known.unchanged & ~known.superseded & ~known.ours)
        self.to_send[where] = to_send
        is_left = settled.select_unsettled(contacts.rows, contacts.operation)
        left = contacts.rows if is_left.all() else contacts.rows[is_left]
        for outcome in UNSENT:
            decided = codes[left] & ~np.uint8(SEVERAL) == CODES[outcome]
            self.left[outcome] += int(decided.sum())
        unsettled = settled.select_unsettled(to_send.rows, contacts.operation)
        n_to_send = int(unsettled.sum())
        self._n_to_send[contacts.operation] += n_to_send
        self.left[None] += n_to_send


class _Known:
    """What is known of some contacts; every attribute is a mask over them.

    Attributes:
        unchanged: They hold what the export says.
        superseded: They hold something newer.
        new: Nothing is remembered of them.
        changed: Something else is remembered of them.
        ours: This run has applied their rows, and that is not remembered.
    """

    def __init__(self, n_contacts: int) -> None:
        masks = np.zeros((5, n_contacts), dtype=np.bool_)
        self.unchanged, self.superseded, self.new, self.changed, self.ours = masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How what earlier runs remember is looked at.

    Attributes:
        state: What was last applied.
        account: The account that requests go to, as the state names it.
        region: The region, likewise.
        job: What is run night after night: the mapping's name without its suffix.
        began_at: When this run was begun, in seconds since the epoch. What was applied since then,
            and not by this run, is newer than its rows; so is all that is certain, once a newer
            run of the job has begun.
        fresh_from: What was applied before this, in seconds since the epoch, is sent again.
    """

    state: State
    account: str
    region: str
    job: str
    began_at: float
    fresh_from: float = 0.0

    def scope(self, of: Contacts | Request) -> Scope:
        """Where the state keeps what is known of an instance's contacts."""
        return self.scope_of(of.operation, of.instance_id)

    def scope_of(self, operation: str, instance_id: str) -> Scope:
        """The same, by name."""
        return Scope(self.account, self.region, instance_id, operation)


def decide(
    gathering: Gathering,
    settled: SettledRows,
    *,
    n_rows: int,
    operations: Iterable[str],
    evidence: Sequence[Evidence] = (),
    recall: Recall | None = None,
) -> Decisions:
    """Decide which rows need not be sent. Blocks.

    Args:
        gathering: What the export says; it is empty afterwards.
        settled: Rows that are settled; nothing is decided of them any more.
        n_rows: Rows in all sources.
        operations: The operations' snake_case names.
        evidence: What an older run left, that this one takes over from.
        recall: What was last applied, as earlier runs remember it.

    Raises:
        StateError: What is remembered cannot be read.
    """
    decisions = Decisions({name: np.zeros(n_rows + 1, dtype=np.uint8) for name in operations})
    for contacts in gathering.contacts():
        known = _Known(len(contacts.keys))
        if recall is not None:
            decisions.n_remembered += recall.state.n_contacts(recall.scope(contacts))
            _recall(known, contacts, settled, recall)
        _believe(known, contacts, evidence)
        decisions.take(contacts, known, settled)
    return decisions


def _recall(known: _Known, contacts: Contacts, settled: SettledRows, recall: Recall) -> None:
    """Compare with what is remembered."""
    found = recall.state.find(recall.scope(contacts), contacts.keys)
    is_certain = found.is_known & found.is_certain
    is_same = found.is_known & (found.digests == contacts.chains)
    known.unchanged |= is_certain & is_same & (found.applied_at >= recall.fresh_from)
    # Of a contact that a newer run found unchanged nothing was written down.
    is_older = recall.state.newest_run(recall.scope(contacts), recall.job) > recall.began_at
    known.superseded |= is_certain & ~is_same & (is_older | (found.applied_at >= recall.began_at))
    # Where a newer run has begun, it stands even for what this run began.
    for at in [] if is_older else np.flatnonzero(known.superseded & (contacts.n_rows > 1)).tolist():
        if _is_begun(contacts, at, settled, int(found.digests[at])):
            known.superseded[at] = False
    for at in np.flatnonzero(found.is_known & ~found.is_certain).tolist():
        known.ours[at] = all(
            settled.outcome_of(row, contacts.operation) is Outcome.UPDATED
            for row in contacts.rows_of(at)
        )
    known.new |= ~found.is_known
    known.changed |= found.is_known & ~is_same & ~known.ours


def _is_begun(contacts: Contacts, at: int, settled: SettledRows, digest: int) -> bool:
    """Whether a contact holds the first of its rows, as an execution with `--limit` left it."""
    n_settled = sum(
        settled.outcome_of(row, contacts.operation) is not None for row in contacts.rows_of(at)
    )
    return n_settled > 0 and contacts.chain_of(at, n_settled) == digest


def _believe(known: _Known, contacts: Contacts, evidence: Sequence[Evidence]) -> None:
    """Compare with what an older run applied."""
    for each in evidence:
        about = each.operation, each.instance_id
        if about != (contacts.operation, contacts.instance_id) or not len(each.keys):
            continue
        at = np.minimum(np.searchsorted(each.keys, contacts.keys), len(each.keys) - 1)
        # Of a contact with several rows the older run's digest is that of the last one only.
        known.unchanged |= (
            (each.keys[at] == contacts.keys)
            & (each.digests[at] == contacts.chains)
            & (contacts.n_rows == 1)
        )
        known.superseded &= ~known.unchanged
