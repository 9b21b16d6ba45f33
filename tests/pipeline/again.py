"""Exports whose rows write different attributes, and a sandbox that says no to some requests."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from bulk_updater.sandbox import Sandbox
from bulk_updater.sandbox.answers import error_answer
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.faults import Fault

from .helpers import INSTANCE, config_for, fast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bulk_updater.config import RunConfig

HEADER = ["Contact", "A", "B", "C", "Name"]

MAPPING = f"""
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    a: "{{A}}"
    b: "{{B}}"
    c: "{{C}}"
"""

BOTH = (
    MAPPING
    + f"""
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Name}}"
"""
)

INVALID_ROW = f"""
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    a: "{{A}}"
    b: {{column: B, empty: skip, map: {{b1: b1, b2: b2, b3: b3}}}}
    c: "{{C}}"
"""
"""A mapping that takes three values of b and no other."""


def export(path: Path, *rows: str) -> Path:
    """An export of rows such as `c-1 a=1 b=2`; what a row does not name is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, restval="")
        writer.writeheader()
        for row in rows:
            contact, *cells = row.split()
            named = dict(cell.split("=") for cell in cells)
            writer.writerow({"Contact": contact} | {HEADER_OF[key]: named[key] for key in named})
    return path


HEADER_OF = {"a": "A", "b": "B", "c": "C", "n": "Name"}


class Refusing:
    """A sandbox's script: says no to requests that write one of some values.

    Attributes:
        values: The values; take one out, and its row can be sent.
        seen: What every request wrote that was let through, in order.
    """

    def __init__(self, *values: str, code: str = "InvalidRequestException") -> None:
        self.codes = dict.fromkeys(values, code)
        self.seen: list[dict[str, str]] = []
        self.also: Callable[[], None] = lambda: None

    def __call__(self, _operation: str, request: dict[str, Any]) -> Fault | None:
        written = {**request.get("Attributes", {})}
        if "Name" in request:
            written["Name"] = request["Name"]
        self.also()
        for value in written.values():
            if value in self.codes:
                error = ServiceError(self.codes[value], "It is refused.")
                return Fault(kind="refused", answer=error_answer(error))
        if written:
            self.seen.append(written)
        return None


def sandbox_with(refusing: Refusing, **settings: Any) -> Sandbox:
    return Sandbox(fast(**settings), fault=refusing)


def config_of(sandbox: Sandbox, folder: Path, *sources: Path, **settings: Any) -> RunConfig:
    settings.setdefault("run_dir", folder / "run")
    return config_for(sandbox, folder, *sources, **settings)
