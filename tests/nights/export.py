"""A night's files, and what each row is to become: said anew, without the program's words."""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from typing import TYPE_CHECKING

from tests.simulation.scenario import ATTRIBUTES, CONTACT, INSTANCE

from .scenario import COLUMNS, UNREADABLE

if TYPE_CHECKING:
    from pathlib import Path

    from .scenario import Night, Row, Year

INVALID, SKIPPED = "INVALID", "SKIPPED"

Content = "tuple[tuple[tuple[str, str], ...], ...]"
"""What an export says of a contact: for each of its rows what is written, sorted by key."""


def mapping_path(version: int, folder: Path) -> Path:
    """Where the mapping file of a version is."""
    return folder / f"version-{version}" / "mapping.yaml"


def write_mapping(year: Year, version: int, folder: Path) -> Path:
    """The mapping file as it is from some night on."""
    text = f"""
source:
  where:
    - {{column: Status, not: open}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    version: "{version}"
    tier: {{column: Tier, default: standard}}
    note: {{column: Note, empty: erase}}
    extra: "{{Extra}}"
    due: {{column: Due, date: "%d/%m/%Y", format: "%Y-%m-%d"}}
"""
    if CONTACT in year.operations:
        text += f"""
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Tier}} of version {version}"
"""
    # Edited in place: what came before is kept for a retry.
    path = mapping_path(version, folder)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_source(night: Night, folder: Path) -> Path:
    """The export."""
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *(row.cells for row in night.rows)])
    path = folder / f"export-{night.number:03d}.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


@lru_cache(maxsize=100_000)
def expected(row: Row, operation: str, version: int) -> tuple[tuple[str, str], ...] | str:
    """What a row is to write, by key; or INVALID; or SKIPPED."""
    if row.status == "open":
        return SKIPPED
    if operation == CONTACT:
        return (("Name", f"{row.tier} of version {version}"),) if row.tier else SKIPPED
    if row.due == UNREADABLE:
        return INVALID
    try:
        day, month, year = row.due.split("/")
        due = f"{year}-{month}-{day}"
    except ValueError:
        due = ""
        if row.due:
            return INVALID
    written = {
        "version": str(version),
        "tier": row.tier or "standard",
        "note": row.note,
        **({"extra": row.extra} if row.extra else {}),
        **({"due": due} if due else {}),
    }
    return tuple(sorted(written.items()))


class Said:
    """What one night's export says of its contacts."""

    def __init__(self, year: Year, night: Night) -> None:
        self.due: dict[tuple[int, str], tuple[tuple[str, str], ...] | str] = {}
        self.rows: dict[tuple[str, str], list[int]] = {}
        for number, row in enumerate(night.rows, start=1):
            for operation in year.operations:
                due = self.due[number, operation] = expected(row, operation, night.version)
                if not isinstance(due, str):
                    self.rows.setdefault((operation, row.contact), []).append(number)

    def content(self, operation: str, contact: str) -> Content:
        """What all rows of a contact write, in order."""
        return tuple(self.due[row, operation] for row in self.rows[operation, contact])


def values_of(content: Content) -> dict[str, str | None]:
    """What a contact holds when all of it was applied; None: nothing."""
    values: dict[str, str | None] = {}
    for written in content:
        values |= {key: value or None for key, value in written}
    return values


def held(service: dict, operation: str, contact: str) -> dict[str, str]:
    """What the service holds of a contact, in the keys of `expected`."""
    stored = service.get(contact, {})
    if operation == ATTRIBUTES:
        return stored.get("attributes", {})
    return {"Name": stored["name"]} if stored.get("name") is not None else {}
