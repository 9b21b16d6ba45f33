"""CRM exports to measure with: made by rule, so that every run measures the same bytes."""

from __future__ import annotations

import csv
import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "INSTANCE_ID",
    "params_of",
    "write_changed_export",
    "write_narrow_export",
    "write_narrow_mapping",
    "write_wide_export",
    "write_wide_mapping",
]

INSTANCE_ID = "12345678-90ab-cdef-1234-567890abcdef"

_COLUMNS = (
    "VendorCallKey",
    "Id",
    "First Name",
    "Last Name",
    "Tier",
    "Renewal",
    "Email",
    "Notes",
    "Phone",
    "Owner",
    "Region",
)
_NARROW = 8
_FIRST_NAMES = ("Ada", "Björn", "Chloé", "Dmitri", "Emre", "Fatima", "Grace", "Hiroshi")
_LAST_NAMES = ("Lovelace", "Åkesson", "Dupont", "Ivanov", "Yüksel", "Hopper", "Sato")
_TIERS = ("gold", "standard", "silver", "platinum", "")
_NOTES = (
    "asked to be called back",
    "prefers email",
    "moved house",
    "renewed early",
    "",
    "contract under review",
    "new contact person",
    "complaint settled",
    "asked for an offer, line 2",  # a cell that has to be quoted
    "no answer",
)
_REGIONS = ("EMEA", "AMER", "APAC")
_FIRST_DAY = dt.date(2026, 1, 1)
_RENEWALS = tuple((_FIRST_DAY + dt.timedelta(days=day)).strftime("%d/%m/%Y") for day in range(730))

_WIDE_ATTRIBUTES = tuple(column.lower().replace(" ", "_") for column in _COLUMNS[1:])

_WIDE_MAPPING = f"""\
update_contact_attributes:
  InstanceId: {INSTANCE_ID}
  InitialContactId: "{{VendorCallKey}}"
  Attributes:
""" + "".join(
    f'    {attribute}: {{column: "{column}", empty: erase}}\n'
    for attribute, column in zip(_WIDE_ATTRIBUTES, _COLUMNS[1:], strict=True)
)

_NARROW_MAPPING = f"""\
update_contact_attributes:
  InstanceId: {INSTANCE_ID}
  InitialContactId: "{{VendorCallKey}}"
  Attributes:
    crm_id: "{{Id}}"
    full_name: "{{First Name}} {{Last Name}}"
    tier: {{column: Tier, default: standard}}
    renewal: {{column: Renewal, date: "%d/%m/%Y", format: "%Y-%m-%d"}}
    email: {{column: Email, strip: true, lower: true}}
    notes: {{column: Notes, strip: true, truncate_bytes: 256}}
"""


def params_of(row: int) -> dict[str, object]:
    """The request that the wide mapping makes of a row of the wide export."""
    contact_id, *values = _cells(row)
    return {
        "InstanceId": INSTANCE_ID,
        "InitialContactId": contact_id,
        "Attributes": dict(zip(_WIDE_ATTRIBUTES, values, strict=True)),
    }


def write_wide_export(path: Path, n_rows: int) -> None:
    """11 columns, of which ten become attributes; every row is a contact of its own."""
    _write(path, n_rows, len(_COLUMNS))


def write_wide_mapping(path: Path) -> None:
    """Ten attributes, each a column."""
    path.write_text(_WIDE_MAPPING, encoding="utf-8")


def write_narrow_export(path: Path, n_rows: int) -> None:
    """8 columns, some 120 bytes a row; every row is a contact of its own."""
    _write(path, n_rows, _NARROW)


def write_changed_export(path: Path, n_rows: int, every: int) -> None:
    """The narrow export a day later: one row of so many has another tier."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS[:_NARROW])
        for row, cells in enumerate(_rows(n_rows), start=1):
            tier = "changed" if row % every == 0 else cells[4]
            writer.writerow((*cells[:4], tier, *cells[5:_NARROW]))


def write_narrow_mapping(path: Path) -> None:
    """What a mapping does to eight columns: a template, a default, a date, white space, cuts."""
    path.write_text(_NARROW_MAPPING, encoding="utf-8")


def _write(path: Path, n_rows: int, n_columns: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS[:n_columns])
        writer.writerows(cells[:n_columns] for cells in _rows(n_rows))


def _rows(n_rows: int) -> Iterator[tuple[str, ...]]:
    return (_cells(row) for row in range(1, n_rows + 1))


def _cells(row: int) -> tuple[str, ...]:
    first, last = _FIRST_NAMES[row % 8], _LAST_NAMES[row % 7]
    return (
        f"{row:08x}-90ab-4cde-8f12-{row * 7919:012x}",
        f"00Q5g{row:013d}",
        first,
        f"{last}-{row % 9973}",
        _TIERS[row % 5],
        _RENEWALS[row % 730],
        f"customer.{row}@example.com",
        _NOTES[row % 10],
        f"+4930{row:08d}",
        f"agent-{row % 211}",
        _REGIONS[row % 3],
    )
