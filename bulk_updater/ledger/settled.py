"""Which rows are settled and how, small enough for a hundred million of them.

Half a byte holds how a row ended, so a hundred million rows with two operations take 100 MB. A
plain bitmap would take a quarter of it, but could not tell a row that FAILED from one that was
UPDATED by a later retry, and the figures of a run are those of the *standing* outcomes.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

__all__ = ["MAX_NIBBLE", "OUTCOME_CODES", "Nibbles", "SettledRows"]

MAX_NIBBLE = 15
"""The largest number that half a byte holds."""

OUTCOME_CODES: dict[str, int] = {
    outcome.value: code for code, outcome in enumerate(Outcome, start=1)
}
"""An outcome's number in memory, from 1; 0 means not settled. Never written to a file."""

_CODE_OUTCOMES = dict(enumerate(Outcome, start=1))

# Numbers a page, a power of two. A page is 32 KiB: growing by pages never copies what is there
# (a bytearray of 50 MB that grows is a pause of the event loop), and one absurd row number in a
# damaged ledger costs a page, not the memory of the machine.
_PAGE_BITS = 16
_PAGE_NUMBERS = 1 << _PAGE_BITS
_PAGE_MASK = _PAGE_NUMBERS - 1


class Nibbles:
    """A sparse array of numbers from 0 to 15, all 0 at first; two in a byte, in pages."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def __getitem__(self, index: int) -> int:
        page = self._pages.get(index >> _PAGE_BITS)
        if page is None:
            return 0
        byte = page[(index & _PAGE_MASK) >> 1]
        return byte >> 4 if index & 1 else byte & MAX_NIBBLE

    def put(self, index: int, number: int) -> int:
        """Set a number and return the one before.

        Args:
            index: Where, from 0.
            number: 0 to 15.
        """
        page = self._pages.get(index >> _PAGE_BITS)
        if page is None:
            page = self._pages[index >> _PAGE_BITS] = bytearray(_PAGE_NUMBERS >> 1)
        at = (index & _PAGE_MASK) >> 1
        byte = page[at]
        if index & 1:
            page[at] = (byte & MAX_NIBBLE) | (number << 4)
            return byte >> 4
        page[at] = (byte & 0xF0) | number
        return byte & MAX_NIBBLE

    def put_many(self, indices: npt.NDArray[np.integer[Any]], number: int) -> npt.NDArray[np.int64]:
        """Set one number in many places.

        Args:
            indices: Where, from 0: ascending, each once.
            number: 0 to 15.

        Returns:
            How many of them held each number from 0 to 15 before.
        """
        counts = np.zeros(MAX_NIBBLE + 1, dtype=np.int64)
        for page_number, span in _pages_of(indices):
            page = self._pages.get(page_number)
            if page is None:
                page = self._pages[page_number] = bytearray(_PAGE_NUMBERS >> 1)
            within = indices[span] & _PAGE_MASK
            first = int(within[0]) >> 1
            packed = np.frombuffer(page, np.uint8)[first : (int(within[-1]) >> 1) + 1]
            numbers = np.empty((len(packed), 2), dtype=np.uint8)
            np.bitwise_and(packed, MAX_NIBBLE, out=numbers[:, 0])
            np.right_shift(packed, 4, out=numbers[:, 1])
            flat = numbers.reshape(-1)
            at = within - 2 * first
            counts += np.bincount(flat[at], minlength=MAX_NIBBLE + 1)
            flat[at] = number
            np.bitwise_or(numbers[:, 0], numbers[:, 1] << 4, out=packed)
        return counts

    def get_many(self, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """The numbers in many places, ascending ones."""
        numbers = np.zeros(len(indices), dtype=np.uint8)
        for page_number, span in _pages_of(indices):
            page = self._pages.get(page_number)
            if page is not None:
                within = indices[span] & _PAGE_MASK
                packed = np.frombuffer(page, np.uint8)[within >> 1]
                numbers[span] = np.where(within & 1, packed >> 4, packed & MAX_NIBBLE)
        return numbers

    def indices_of(self, numbers: Iterable[int]) -> Iterator[int]:
        """Yield where any of these numbers (1 to 15) stands, ascending."""
        wanted = set(numbers) - {0}
        # One pass of bytes.translate marks the bytes that hold one, so that a few failures among
        # millions of rows are found at the speed of a search.
        marks = bytes(byte & MAX_NIBBLE in wanted or byte >> 4 in wanted for byte in range(256))
        for number in sorted(self._pages):
            page = bytes(self._pages[number])
            marked = page.translate(marks)
            first = number << _PAGE_BITS
            at = marked.find(1)
            while at >= 0:
                if page[at] & MAX_NIBBLE in wanted:
                    yield first + 2 * at
                if page[at] >> 4 in wanted:
                    yield first + 2 * at + 1
                at = marked.find(1, at + 1)


def _pages_of(indices: npt.NDArray[np.integer[Any]]) -> Iterator[tuple[int, slice]]:
    """Each page that ascending places are on, and which of them are."""
    if not len(indices):
        return
    pages = indices >> _PAGE_BITS
    bounds = [0, *(np.flatnonzero(pages[1:] != pages[:-1]) + 1).tolist(), len(indices)]
    for start, stop in itertools.pairwise(bounds):
        yield int(pages[start]), slice(start, stop)


class _Column:
    """The outcomes of one operation."""

    __slots__ = ("codes", "counts")

    def __init__(self) -> None:
        self.codes = Nibbles()
        self.counts = [0] * (MAX_NIBBLE + 1)


class SettledRows:
    """Which (row, operation) are settled, and the outcome that stands for each.

    Takes half a byte for each row up to the highest one and each operation, in steps of 32 KiB.
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}

    def add(self, row: int, operation: str, outcome: str) -> None:
        """Settle a row for an operation; the outcome replaces an earlier one.

        Args:
            row: The row's number, from 1.
            operation: The operation's snake_case name.
            outcome: An `Outcome` or its value.

        Raises:
            KeyError: There is no such outcome.
        """
        code = OUTCOME_CODES[outcome]
        column = self._columns.get(operation)
        if column is None:
            column = self._columns[operation] = _Column()
        before = column.codes.put(row, code)
        if before != code:
            column.counts[before] -= 1
            column.counts[code] += 1

    def add_many(self, rows: npt.NDArray[np.integer[Any]], operation: str, outcome: str) -> None:
        """Settle many rows for an operation with one outcome, as `add` does one by one.

        Takes a few nanoseconds a row where they are close together.

        Args:
            rows: Their numbers, from 1, in any order.
            operation: The operation's snake_case name.
            outcome: An `Outcome` or its value.

        Raises:
            KeyError: There is no such outcome.
        """
        code = OUTCOME_CODES[outcome]
        if not len(rows):
            return
        column = self._columns.get(operation)
        if column is None:
            column = self._columns[operation] = _Column()
        if not (rows[1:] > rows[:-1]).all():
            rows = np.unique(rows)
        for before, n_rows in enumerate(column.codes.put_many(rows, code).tolist()):
            column.counts[before] -= n_rows
            column.counts[code] += n_rows

    def select_unsettled(
        self, rows: npt.NDArray[np.integer[Any]], operation: str
    ) -> npt.NDArray[np.bool_]:
        """Which of these rows, in any order, are not settled for an operation."""
        column = self._columns.get(operation)
        if column is None:
            return np.ones(len(rows), dtype=np.bool_)
        if (rows[1:] >= rows[:-1]).all():
            return np.asarray(column.codes.get_many(rows) == 0)
        order = np.argsort(rows, kind="stable")
        unsettled = np.empty(len(rows), dtype=np.bool_)
        unsettled[order] = column.codes.get_many(rows[order]) == 0
        return unsettled

    def __contains__(self, key: tuple[int, str]) -> bool:
        row, operation = key
        column = self._columns.get(operation)
        return column is not None and column.codes[row] != 0

    def outcome_of(self, row: int, operation: str) -> Outcome | None:
        """The outcome that stands, None where the row is not settled for the operation."""
        column = self._columns.get(operation)
        return None if column is None else _CODE_OUTCOMES.get(column.codes[row])

    def is_settled(self, row: int, operations: Iterable[str]) -> bool:
        """Whether the row is settled for every one of these operations."""
        return all((row, operation) in self for operation in operations)

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that any row is settled for, in the order they first appeared."""
        return tuple(self._columns)

    def count(self, operation: str | None = None) -> int:
        """How many results stand, for one operation or for all (None)."""
        return sum(self.outcomes(operation).values())

    def outcomes(self, operation: str | None = None) -> dict[Outcome, int]:
        """How many results stand with each outcome, for one operation or for all (None).

        Returns:
            Every outcome, in the order of `Outcome`, those that never occurred with 0.
        """
        columns = [column for name, column in self._columns.items() if operation in (None, name)]
        return {
            outcome: sum(column.counts[code] for column in columns)
            for code, outcome in _CODE_OUTCOMES.items()
        }

    def rows_with(self, outcomes: Iterable[Outcome]) -> Iterator[tuple[int, str]]:
        """Yield every (row, operation) whose standing outcome is one of these, ascending.

        Rows that are added meanwhile may or may not be among them.

        Args:
            outcomes: The outcomes to look for.
        """
        codes = [OUTCOME_CODES[outcome] for outcome in outcomes]
        return heapq.merge(
            *(
                # repeat, and not a generator expression, which would name the last operation only
                zip(column.codes.indices_of(codes), itertools.repeat(operation))
                for operation, column in self._columns.items()
            )
        )
