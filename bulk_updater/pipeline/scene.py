"""What a mapping says of the run as a whole, for the sentence that says why it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulk_updater.mapping.request import LeafSpec, id_of_arn

if TYPE_CHECKING:
    from bulk_updater.mapping import MappingSpec

__all__ = ["constant_instances"]


def constant_instances(spec: MappingSpec) -> dict[str, str]:
    """The instance of each operation, by its snake_case name, where it is the same for all rows.

    An instance that a column names is a cell, and no cell is ever shown.
    """
    found = {}
    for request in spec.requests:
        member = request.members.get(request.operation.instance_member)
        if isinstance(member, LeafSpec) and member.template.constant:
            found[request.operation.name] = id_of_arn(member.template.constant)
    return found
