"""A frame that was mapped: the requests it makes, not yet made, and what its rows break.

Cells become Python objects only when requests are really asked for, a block of rows at a time;
so `plan` over a million rows never builds one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulk_updater.errors import RowError
from bulk_updater.keys import KEY_DTYPE, contact_keys
from bulk_updater.mapping.digests import Written, row_digests
from bulk_updater.mapping.nodes import name_shown
from bulk_updater.model import Outcome, Request, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from bulk_updater.mapping.parts import Part
    from bulk_updater.model import Frame
    from bulk_updater.operations import Operation

__all__ = [
    "EXPIRED",
    "FILTERED",
    "NEVER",
    "NOTHING_TO_SEND",
    "Breach",
    "Breaches",
    "MappedFrame",
    "MappedOperation",
    "UnsentRows",
]

FILTERED = "filtered"
NOTHING_TO_SEND = "nothing_to_send"
EXPIRED = "expired"
"""Past the time for which Connect keeps a contact; the mapping tells when, who sends it decides."""

NEVER = int(np.iinfo(np.int64).max)
"""When a contact expires whose beginning is not known, in seconds since the epoch."""

_SEND, _INVALID, _FILTERED, _EMPTY = range(4)

_BLOCK_ROWS = 256
"""Rows whose cells become Python objects at once: quick for few columns, small for thousands."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that some rows of a frame break.

    Attributes:
        rule: Its stable name.
        member: The member of the request, such as `Attributes.notes`.
        columns: The columns that the member is made from.
        figures: For a row's position in the frame: the figures, as the end of a sentence.
    """

    rule: str
    member: str
    columns: tuple[str, ...]
    figures: Callable[[int], str] = field(repr=False)

    def error(self, row: int, position: int) -> RowError:
        """The breach as one row's error; its message holds no cell."""
        origin = f" (from {_quoted(self.columns)})" if self.columns else ""
        return RowError(
            f"row {row}: {self.member}{origin} {self.figures(position)}",
            rule=self.rule,
            column=self.columns[0] if self.columns else None,
        )


def _quoted(columns: Sequence[str]) -> str:
    shown = [f'"{name_shown(column)}"' for column in columns[:3]]
    return ", ".join(shown) + (f" and {len(columns) - 3} more" if len(columns) > 3 else "")  # noqa: PLR2004


class Breaches:
    """The first breach of each row of a frame, in the mapping's order."""

    def __init__(self, n_rows: int) -> None:
        self.list: list[Breach] = []
        self.of_row = np.full(n_rows, -1, dtype=np.int32)

    def add(self, mask: npt.NDArray[np.bool_], breach: Callable[[], Breach]) -> None:
        """Note a breach for the rows of a mask that break nothing yet; it is made if any do."""
        if not mask.any():
            return
        fresh = mask & (self.of_row < 0)
        self.of_row[fresh] = len(self.list)
        self.list.append(breach())


@dataclass(frozen=True, slots=True)
class _Block:
    """Some rows' Python values, from one position among the kept rows on."""

    start: int
    stop: int
    rows: list[int]
    sizes: list[int]
    digests: list[int]
    instance_ids: list[str]
    contact_ids: list[str]
    members: list[tuple[str, list[bool], list[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnsentRows:
    """Rows of one operation that end in the same way without being sent.

    Attributes:
        source: The source of the rows.
        operation: The operation's snake_case name.
        outcome: How they end.
        error_code: Why, as a rule's name; None where the outcome says it.
        rows: Their numbers, ascending.
        instance_ids: Each row's instance, an Arrow array of text.
        contact_ids: Each row's contact, likewise.
        digests: Each row's digest of what it would write.
    """

    source: str
    operation: str
    outcome: Outcome
    error_code: str | None
    rows: npt.NDArray[np.int64]
    instance_ids: Any = field(repr=False)
    contact_ids: Any = field(repr=False)
    digests: npt.NDArray[np.uint64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class MappedOperation:
    """One operation's requests for a frame, not yet made.

    Positions count the frame's rows from 0. Everything that is mapped holds only the rows that
    `where` keeps.

    Attributes:
        operation: The operation.
        frame: The frame.
        kept: Positions of the rows that `where` keeps, ascending.
        breaches: What the kept rows break.
        ids_fit: Kept rows whose ids break nothing, and so may be named.
        instance_ids: The kept rows' instances, an Arrow array of text.
        contact_ids: The kept rows' contacts, likewise.
        parts: What is written, by member.
    """

    operation: Operation
    frame: Frame
    kept: npt.NDArray[np.int64]
    breaches: Breaches
    ids_fit: npt.NDArray[np.bool_]
    instance_ids: Any
    contact_ids: Any
    parts: dict[str, Part]

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each row's payload, by position; 0 where `where` leaves the row out."""
        sizes = np.zeros(len(self.frame.rows), dtype=np.int64)
        for part in self.parts.values():
            sizes[self.kept] += part.size
        return sizes

    @cached_property
    def digests(self) -> npt.NDArray[np.uint64]:
        """A digest of what each row writes, by position; 0 for rows that make no request only.

        Two rows have the same if their requests are equal but for the ids, whatever the order of
        keys in the mapping file. See `bulk_updater.mapping.digests`.
        """
        digests = np.zeros(len(self.frame.rows), dtype=np.uint64)
        to_send = self.to_send
        if to_send.any():
            written = {
                name: Written(part.present, part.content) for name, part in self.parts.items()
            }
            digests[self.kept] = row_digests(written, len(self.kept))
            digests[~to_send] = 0
        return digests

    @cached_property
    def contact_keys(self) -> npt.NDArray[np.bytes_]:
        """The key of each row's contact, by position: see `bulk_updater.keys`.

        NULs where the row's ids cannot be used, and for the UUID of nothing but zeros.
        """
        of_kept = contact_keys(self.contact_ids)
        if len(self.kept) == len(self.frame.rows) and self.ids_fit.all():
            return of_kept
        keys = np.zeros(len(self.frame.rows), dtype=KEY_DTYPE)
        keys[self.kept[self.ids_fit]] = of_kept[self.ids_fit]
        return keys

    def unsent(
        self, selected: npt.NDArray[np.bool_], outcome: Outcome, error_code: str | None = None
    ) -> UnsentRows:
        """Rows that end without being sent, for the ledger to take together.

        Args:
            selected: The rows, by position; only such as `to_send` names.
            outcome: How they end.
            error_code: Why, as a rule's name; None where the outcome says it.
        """
        at = pa.array(self._index[selected])
        return UnsentRows(
            source=self.frame.source,
            operation=self.operation.name,
            outcome=outcome,
            error_code=error_code,
            rows=self.frame.rows[selected],
            instance_ids=self.instance_ids.take(at),
            contact_ids=self.contact_ids.take(at),
            digests=self.digests[selected],
        )

    def instance_groups(self) -> list[tuple[str, npt.NDArray[np.int64]]]:
        """Each instance that a request is made for, with those rows' positions, ascending.

        The instances are in the order of their first rows.
        """
        to_send = np.flatnonzero(self.to_send)
        instances = self.instance_ids
        if len(to_send) < len(instances):
            instances = instances.take(pa.array(self._index[to_send]))
        if len(to_send) and pc.all(pc.equal(instances, instances[0])).as_py():
            return [(instances[0].as_py(), to_send)]  # as mostly: the mapping names it
        encoded = instances.dictionary_encode()
        codes = encoded.indices.to_numpy()
        return [
            (instance, to_send[codes == code])
            for code, instance in enumerate(encoded.dictionary.to_pylist())
        ]

    @cached_property
    def _state(self) -> npt.NDArray[np.uint8]:
        state = np.full(len(self.kept), _EMPTY, dtype=np.uint8)
        for part in self.parts.values():
            state[part.present] = _SEND
        state[self.breaches.of_row >= 0] = _INVALID
        of_all = np.full(len(self.frame.rows), _FILTERED, dtype=np.uint8)
        of_all[self.kept] = state
        return of_all

    @cached_property
    def _states(self) -> list[int]:
        states: list[int] = self._state.tolist()
        return states

    @cached_property
    def _index(self) -> npt.NDArray[np.int64]:
        """For each position of a kept row: its place among the kept rows."""
        index = np.zeros(len(self.frame.rows), dtype=np.int64)
        index[self.kept] = np.arange(len(self.kept))
        return index

    @property
    def to_send(self) -> npt.NDArray[np.bool_]:
        """The rows, by position, that make a request."""
        return np.asarray(self._state == _SEND)

    def skipped(self) -> dict[str, int]:
        """How many rows are SKIPPED, by reason."""
        counts = np.bincount(self._state, minlength=4)
        return {FILTERED: int(counts[_FILTERED]), NOTHING_TO_SEND: int(counts[_EMPTY])}

    def invalid_rows(self) -> Iterator[tuple[Breach, npt.NDArray[np.int64]]]:
        """Each breach with the row numbers that it makes INVALID, ascending."""
        rows = self.frame.rows[self.kept]
        for index, breach in enumerate(self.breaches.list):
            broken = rows[self.breaches.of_row == index]
            if len(broken):
                yield breach, broken

    def entry(self, position: int) -> Request | Result:
        """The row at a position: the request to make, or its result if there is none to make."""
        state = self._states[position]
        if state == _SEND:
            return self.request(position)
        row = int(self.frame.rows[position])
        rule, message, instance_id, contact_id = FILTERED, None, None, None
        if state != _FILTERED:
            rule = NOTHING_TO_SEND
            at = int(self._index[position])
            if self.ids_fit[at]:
                block = self._block(at)
                instance_id = block.instance_ids[at - block.start]
                contact_id = block.contact_ids[at - block.start]
            if state == _INVALID:
                error = self.breaches.list[self.breaches.of_row[at]].error(row, at)
                rule, message = error.rule, error.message
        return Result(
            row=row,
            source=self.frame.source,
            operation=self.operation.name,
            outcome=Outcome.INVALID if state == _INVALID else Outcome.SKIPPED,
            instance_id=instance_id,
            contact_id=contact_id,
            error_code=rule,
            error=message,
        )

    def request(self, position: int) -> Request:
        """The request of a row that makes one."""
        at = int(self._index[position])
        block = self._block(at)
        at -= block.start
        instance_id, contact_id = block.instance_ids[at], block.contact_ids[at]
        params: dict[str, Any] = {
            self.operation.instance_member: instance_id,
            self.operation.contact_member: contact_id,
        }
        for name, present, values in block.members:
            if present[at]:
                params[name] = values[at]
        return Request(
            row=block.rows[at],
            source=self.frame.source,
            operation=self.operation.name,
            instance_id=instance_id,
            contact_id=contact_id,
            params=params,
            payload_bytes=block.sizes[at],
            payload_digest=f"{block.digests[at]:016x}",
        )

    def _block(self, at: int) -> _Block:
        """The block that holds a kept row; the last one made is kept."""
        block = self._blocks[-1]
        if not block.start <= at < block.stop:
            start = at - at % _BLOCK_ROWS
            stop = min(start + _BLOCK_ROWS, len(self.kept))
            block = _Block(
                start,
                stop,
                self.frame.rows[self.kept[start:stop]].tolist(),
                self.sizes[self.kept[start:stop]].tolist(),
                self.digests[self.kept[start:stop]].tolist(),
                self.instance_ids.slice(start, stop - start).to_pylist(),
                self.contact_ids.slice(start, stop - start).to_pylist(),
                [
                    (name, part.present[start:stop].tolist(), part.values(start, stop))
                    for name, part in self.parts.items()
                ],
            )
            self._blocks[-1] = block
        return block

    @cached_property
    def _blocks(self) -> list[_Block]:
        return [_Block(0, 0, [], [], [], [], [], [])]


@dataclass(frozen=True, slots=True)
class MappedFrame:
    """A frame's requests and results, for every operation of the mapping.

    Attributes:
        frame: The frame.
        operations: The operations, in the mapping's order.
        expires_at: When Connect forgets each row's contact, by position, in seconds since the
            epoch: 24 calendar months after it was initiated. `NEVER` where that is not known: the
            mapping has no `contact_started`, the cell is empty or no date, or `where` leaves the
            row out.
    """

    frame: Frame
    operations: tuple[MappedOperation, ...]
    expires_at: npt.NDArray[np.int64]

    def entries(
        self,
        is_settled: Callable[[int, str], bool] = lambda _row, _operation: False,
        *,
        among: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[Request | Result]:
        """Every row in file order, once for each operation: a request, or a result.

        Args:
            is_settled: For a row and an operation: whether it has its result already; nothing is
                made for it then.
            among: The rows, by position, that are asked about at all; None asks about each.
                Unreadable rows have no position, and are always asked about.
        """
        unreadable = iter(self.frame.unreadable)
        waiting = next(unreadable, None)
        rows = self.frame.rows
        positions = np.arange(len(rows)) if among is None else np.flatnonzero(among)
        for position, row in zip(positions.tolist(), rows[positions].tolist(), strict=True):
            while waiting is not None and waiting.row < row:
                yield from self._unreadable(waiting.row, waiting.error, is_settled)
                waiting = next(unreadable, None)
            for mapped in self.operations:
                if not is_settled(row, mapped.operation.name):
                    yield mapped.entry(position)
        while waiting is not None:
            yield from self._unreadable(waiting.row, waiting.error, is_settled)
            waiting = next(unreadable, None)

    def _unreadable(
        self, row: int, error: RowError, is_settled: Callable[[int, str], bool]
    ) -> Iterator[Result]:
        for mapped in self.operations:
            if not is_settled(row, mapped.operation.name):
                yield Result(
                    row=row,
                    source=self.frame.source,
                    operation=mapped.operation.name,
                    outcome=Outcome.INVALID,
                    error_code=error.rule,
                    error=error.message,
                )
