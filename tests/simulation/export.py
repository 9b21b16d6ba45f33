"""A scenario's files, and what each row is to become: said anew, without the program's words."""

from __future__ import annotations

import csv
import gzip
import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from .scenario import ATTRIBUTES, COLUMNS, INSTANCE

if TYPE_CHECKING:
    from pathlib import Path

    from .scenario import Row, Scenario

INVALID, SKIPPED = "INVALID", "SKIPPED"
UNCHANGED, SUPERSEDED = "UNCHANGED", "SUPERSEDED"
MAX_ATTRIBUTES_BYTES = 32_768

_TIERS = {
    "default": "{column: Tier, default: standard}",
    "map": "{column: Tier, map: {A: gold, B: silver}}",
}


def write_mapping(scenario: Scenario, folder: Path) -> Path:
    """The mapping file."""
    blocks = [
        "source:\n  where:\n    - {column: Status, not: open}\n",
    ]
    if ATTRIBUTES in scenario.operations:
        blocks.append(f"""
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    number: "{{Number}}"
    tier: {_TIERS[scenario.tier]}
    note: {{column: Note, empty: {scenario.note}}}
    extra: "{{Extra}}"
    due: {{column: Due, date: "%d/%m/%Y", format: "%Y-%m-%d"}}
""")
    if len(scenario.operations) > 1 or ATTRIBUTES not in scenario.operations:
        blocks.append(f"""
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Number}}"
  References:
    due: {{Type: STRING, Value: "{{Due}}"}}
""")
    path = folder / "mapping.yaml"
    path.write_text("".join(blocks), encoding="utf-8")
    return path


def write_sources(scenario: Scenario, folder: Path) -> tuple[Path, ...]:
    """The export, in as many files as the scenario says."""
    n_files = scenario.n_sources
    size = -(-len(scenario.rows) // n_files) or 1
    return tuple(
        _write_source(
            scenario.rows[index * size : (index + 1) * size],
            folder / f"export-{index}.{scenario.source}",
        )
        for index in range(n_files)
    )


def _write_source(rows: tuple[Row, ...], path: Path) -> Path:
    if path.name.endswith(".parquet"):
        columns = zip(*(row.cells for row in rows), strict=True) if rows else ((),) * len(COLUMNS)
        arrays = [pa.array(list(column), pa.string()) for column in columns]
        pq.write_table(pa.Table.from_arrays(arrays, list(COLUMNS)), path, row_group_size=7)
        return path
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *(row.cells for row in rows)])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    return path


def expected(scenario: Scenario, row: Row, operation: str) -> dict[str, str] | str:
    """What a row is to write, by key; or INVALID; or SKIPPED."""
    if row.ragged:
        return INVALID
    if row.status == "open":
        return SKIPPED
    if not row.contact:
        return INVALID
    if operation != ATTRIBUTES:
        written = {"Name": row.number}
        return written | ({"References.due": row.due} if row.due else {})
    written = {"number": row.number}
    tier = _tier_of(scenario, row)
    due = "/".join(reversed(row.due.split("/"))).replace("/", "-")
    unreadable = due == "2026-02-31" or tier == INVALID
    if unreadable or (scenario.note == "reject" and not row.note):
        return INVALID
    for key, value in (("tier", tier), ("note", row.note), ("extra", row.extra), ("due", due)):
        if value or (key == "note" and scenario.note == "erase"):
            written[key] = value
    n_bytes = sum(len(key) + len(value.encode()) for key, value in written.items())
    return INVALID if n_bytes > MAX_ATTRIBUTES_BYTES else written


def _tier_of(scenario: Scenario, row: Row) -> str:
    """The tier that a row gets; none where its cell is empty and nothing stands in for it."""
    if scenario.tier == "default":
        return row.tier or "standard"
    return {"A": "gold", "B": "silver", "": ""}.get(row.tier, INVALID)


def written_by(operation: str, members: dict) -> dict[str, str]:
    """What a request writes, as the service heard it, in the keys of `expected`."""
    if operation == ATTRIBUTES:
        return dict(members["Attributes"])
    references = members.get("References", {})
    name = {"Name": members["Name"]} if "Name" in members else {}
    return name | {f"References.{key}": value["Value"] for key, value in references.items()}


def number_in(operation: str, members: dict) -> str | None:
    """The number of the row that a request was made for, of merged ones the last.

    None where it has none: later rows wrote theirs, and it is what is left of a row.
    """
    if operation == ATTRIBUTES:
        return members["Attributes"].get("number")
    return members.get("Name")


def row_numbers(rows: tuple[Row, ...]) -> dict[str, int]:
    """Each row of an export, from 1, by the number in its cell."""
    return {row.number: at for at, row in enumerate(rows, start=1)}
