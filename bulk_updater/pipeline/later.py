"""What later rows wrote, so that a row that is sent late does not undo them.

A row that failed is sent again when the rows behind it have long been applied. What a later row
of the same contact wrote stands: those names are left out of the request, and where nothing is left
of it the row is SUPERSEDED.

What a row wrote is known by the names in its result, not by values: of a contact's References one
name stands for the whole member. A result without names stands for everything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bulk_updater.ledger import standing_results
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.operations import get_operation

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

__all__ = ["SUPERSEDED", "LaneKey", "LaterWrites"]

SUPERSEDED: Final = "superseded"
"""Error code of a row that is not sent, since something newer stands for its contact."""

LaneKey = tuple[str, str, str]
"""Operation, instance and contact: what rows keep their order on."""

_STANDING: Final = (Outcome.UPDATED, Outcome.UNCHANGED, Outcome.SUPERSEDED)
"""Outcomes of rows whose contact holds what they say, or something newer."""


@dataclass(frozen=True, slots=True)
class _Write:
    """What one row wrote.

    Attributes:
        row: The row.
        names: Names of what it wrote; None: everything that the operation can write.
    """

    row: int
    names: frozenset[str] | None


class LaterWrites:
    """What the rows of some contacts wrote.

    Takes memory for the results of these contacts only.

    Args:
        contacts: The contacts that are asked about, by operation, instance and contact.
        origin: What follows `row 7` in a sentence about a later row, such as ` of runs/x`.
    """

    def __init__(self, contacts: Container[LaneKey], *, origin: str = "") -> None:
        self._contacts = contacts
        self._origin = origin
        self._writes: dict[LaneKey, list[_Write]] = {}

    def read(self, ledger: Path, row_of: Callable[[int], int | None] = lambda row: row) -> None:
        """Take what stands in a ledger. Blocks; may be called for more than one ledger.

        Args:
            ledger: The ledger. One that does not exist holds nothing.
            row_of: For a row of the ledger: the row that it counts as; None leaves it out.

        Raises:
            LedgerError: It cannot be read, or is damaged.
        """
        for record in standing_results(ledger):
            if record["outcome"] not in _STANDING:
                continue
            lane: LaneKey = (
                record["operation"],
                record.get("instance_id", ""),
                record.get("contact_id", ""),
            )
            if lane not in self._contacts:
                continue
            row = row_of(record["row"])
            if row is not None:
                self._writes.setdefault(lane, []).append(_Write(row, _names(record)))

    def trim(self, request: Request, *, row: int | None = None) -> Request | Result:
        """What is left of a request when later rows are to stand.

        Args:
            request: The request.
            row: The row that it counts as among those that were read; None: its own.

        Returns:
            The request itself where nothing was written later; one without what later rows wrote,
            which has no digest, as it is only a part of its row; or a result, SUPERSEDED, where
            nothing is left.
        """
        after = request.row if row is None else row
        later = [write for write in self._writes.get(request.lane, ()) if write.row > after]
        if not later:
            return request
        operation = get_operation(request.operation)
        names: set[str] = set()
        for write in later:
            if write.names is None:
                return self._superseded(request, later)
            names |= write.names
        left = operation.without(request.params, names)
        if left is None:
            return self._superseded(request, later)
        if left == request.params:
            return request
        return replace(
            request,
            params=left,
            payload_bytes=operation.payload_bytes(left),
            payload_digest="",
        )

    def _superseded(self, request: Request, later: list[_Write]) -> Result:
        newest = max(write.row for write in later)
        others = " and earlier ones" if len(later) > 1 else ""
        return Result(
            row=request.row,
            source=request.source,
            operation=request.operation,
            outcome=Outcome.SUPERSEDED,
            instance_id=request.instance_id,
            contact_id=request.contact_id,
            error_code=SUPERSEDED,
            error=(
                f"row {request.row}: row {newest}{self._origin}{others} wrote all of this later "
                "for the same contact, so it was not sent."
            ),
            # What it would have written: what stands for it is told by the later rows' own names.
            attribute_names=get_operation(request.operation).written_names(request.params),
        )


def _names(record: dict[str, object]) -> frozenset[str] | None:
    """What a row wrote, by its record; None where that is not told in names."""
    names = record.get("attribute_names")
    return frozenset(names) if isinstance(names, list) and names else None
