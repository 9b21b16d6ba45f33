"""Which contacts exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KnownContacts", "load_contacts"]

_NEVER = "missing"


@dataclass(frozen=True, slots=True)
class KnownContacts:
    """The contacts of all instances.

    Attributes:
        ids: Pairs of instance id and contact id; an instance id of None stands for any. None
            instead of pairs: every contact exists.
    """

    ids: frozenset[tuple[str | None, str]] | None = None

    def has(self, instance_id: str, contact_id: str) -> bool:
        """Whether the contact exists. One whose id begins with `missing` never does."""
        if contact_id.startswith(_NEVER):
            return False
        if self.ids is None:
            return True
        return (None, contact_id) in self.ids or (instance_id, contact_id) in self.ids


def load_contacts(path: Path) -> KnownContacts:
    """Read a file of contacts, one a line: `contact_id`, or `instance_id,contact_id`.

    Empty lines and the white space around ids do not count.

    Args:
        path: The file; UTF-8, with or without a byte order mark.

    Raises:
        OSError: The file cannot be read.
        ValueError: A line holds something else, or the file is not UTF-8.
    """
    ids: set[tuple[str | None, str]] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        instance_id, comma, contact_id = (part.strip() for part in line.rpartition(","))
        if not contact_id or "," in instance_id or (comma and not instance_id):
            raise ValueError(
                f"{path}, line {number}: expected `contact_id` or `instance_id,contact_id`."
            )
        ids.add((instance_id or None, contact_id))
    return KnownContacts(frozenset(ids))
