"""A frame that was mapped: the requests it makes, not yet made, and what its rows break.

Cells become Python objects only when a request is really asked for, so `plan` over a million
rows never builds one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bulk_updater.errors import RowError
from bulk_updater.model import Outcome, Request, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from bulk_updater.model import Frame
    from bulk_updater.operations import Operation

__all__ = [
    "FILTERED",
    "NOTHING_TO_SEND",
    "Breach",
    "Breaches",
    "MappedFrame",
    "MappedOperation",
    "Part",
    "Texts",
]

FILTERED = "filtered"
NOTHING_TO_SEND = "nothing_to_send"

_SEND, _INVALID, _FILTERED, _EMPTY = range(4)


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
    shown = [f'"{column}"' for column in columns[:3]]
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


@dataclass(slots=True)
class Part:
    """A part of the request over a frame.

    Attributes:
        present: Rows in which it is there.
        live: Rows in which something made from a column is in it.
        left_out: Rows in which something in it was left out.
        size: UTF-8 bytes of its text, where it is there.
        build: For a row's position: its value.
    """

    present: npt.NDArray[np.bool_]
    live: npt.NDArray[np.bool_]
    left_out: npt.NDArray[np.bool_]
    size: npt.NDArray[np.int64]
    build: Callable[[int], Any]


class Texts:
    """An Arrow column whose Python values are made when the first one is asked for."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self._values: list[Any] | None = None

    def __getitem__(self, position: int) -> Any:
        if self._values is None:
            self._values = self.array.to_pylist()
        return self._values[position]


@dataclass(frozen=True, kw_only=True)
class MappedOperation:
    """One operation's requests for a frame, not yet made.

    Attributes:
        operation: The operation.
        frame: The frame.
        kept: Rows that `where` keeps.
        breaches: What rows break; those of rows that are not kept do not matter.
        ids_fit: Rows whose ids break nothing, and so may be named.
        instance_ids: Each row's instance.
        contact_ids: Each row's contact.
        parts: What is written, by member.
    """

    operation: Operation
    frame: Frame
    kept: npt.NDArray[np.bool_]
    breaches: Breaches
    ids_fit: npt.NDArray[np.bool_]
    instance_ids: Texts
    contact_ids: Texts
    parts: dict[str, Part]

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each row's payload."""
        sizes = np.zeros(len(self.kept), dtype=np.int64)
        for part in self.parts.values():
            sizes += part.size
        return sizes

    @cached_property
    def _state(self) -> npt.NDArray[np.uint8]:
        state = np.full(len(self.kept), _EMPTY, dtype=np.uint8)
        for part in self.parts.values():
            state[part.present] = _SEND
        state[self.breaches.of_row >= 0] = _INVALID
        state[~self.kept] = _FILTERED
        return state

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
        invalid = self._state == _INVALID
        for index, breach in enumerate(self.breaches.list):
            rows = self.frame.rows[invalid & (self.breaches.of_row == index)]
            if len(rows):
                yield breach, rows

    def entry(self, position: int) -> Request | Result:
        """The row at a position: the request to make, or its result if there is none to make."""
        state = self._state[position]
        if state == _SEND:
            return self.request(position)
        row = int(self.frame.rows[position])
        ids = state != _FILTERED and self.ids_fit[position]
        outcome, rule, message = Outcome.SKIPPED, NOTHING_TO_SEND, None
        if state == _FILTERED:
            rule = FILTERED
        elif state == _INVALID:
            error = self.breaches.list[self.breaches.of_row[position]].error(row, position)
            outcome, rule, message = Outcome.INVALID, error.rule, error.message
        return Result(
            row=row,
            source=self.frame.source,
            operation=self.operation.name,
            outcome=outcome,
            instance_id=self.instance_ids[position] if ids else None,
            contact_id=self.contact_ids[position] if ids else None,
            error_code=rule,
            error=message,
        )

    def request(self, position: int) -> Request:
        """The request of a row that makes one."""
        contact_id = self.contact_ids[position]
        instance_id = self.instance_ids[position]
        params = {
            self.operation.instance_member: instance_id,
            self.operation.contact_member: contact_id,
        }
        for name, part in self.parts.items():
            if part.present[position]:
                params[name] = part.build(position)
        return Request(
            row=int(self.frame.rows[position]),
            source=self.frame.source,
            operation=self.operation.name,
            instance_id=instance_id,
            contact_id=contact_id,
            params=params,
            payload_bytes=int(self.sizes[position]),
        )


@dataclass(frozen=True, slots=True)
class MappedFrame:
    """A frame's requests and results, for every operation of the mapping.

    Attributes:
        frame: The frame.
        operations: The operations, in the mapping's order.
    """

    frame: Frame
    operations: tuple[MappedOperation, ...]

    def entries(
        self, is_settled: Callable[[int, str], bool] = lambda _row, _operation: False
    ) -> Iterator[Request | Result]:
        """Every row in file order, once for each operation: a request, or a result.

        Args:
            is_settled: For a row and an operation: whether it has its result already; nothing is
                made for it then.
        """
        unreadable = iter(self.frame.unreadable)
        waiting = next(unreadable, None)
        for position, row in enumerate(self.frame.rows.tolist()):
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
