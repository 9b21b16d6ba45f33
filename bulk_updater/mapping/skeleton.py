"""A mapping with every member of an operation, from the service model, to start from.

Prose stands behind `##`. What stands behind `# ` is YAML: without those two characters it is part
of the mapping, a line at a time or all at once.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.operations import Operation, Shape

__all__ = ["skeleton"]

_EXAMPLE_INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"

_HEAD = """\
## A mapping to {api_name}, with every member that it has.
## {documentation}
##
## What the operation needs is live; take away "# " in front of what you want to send as well, and
## put your own columns into the braces. A value is text with columns, such as
## "{{First Name}} {{Last Name}}", or what is done to one: {{column: Tier, default: standard}}. The
## keys of a value: column or template, strip, map, date and format, lower or upper, default,
## truncate_bytes, empty (skip, erase or reject).

# source:
#   encoding: utf-8
#   delimiter: ","
#   where: [{{column: {contact}, not: ""}}]

{name}:
"""


def skeleton(operation: Operation) -> str:
    """A mapping with every member of an operation, those that it can do without commented out.

    Args:
        operation: The operation.

    Returns:
        YAML that is a mapping as it stands, and with any of its commented lines made live from
        the top of a member on.
    """
    head = _HEAD.format(
        api_name=operation.api_name,
        name=operation.name,
        contact=operation.contact_member,
        documentation=first_sentence(operation.documentation),
    )
    required = operation.shape.required
    lines: list[str] = []
    for name in _required_first(operation.shape):
        notes = [
            f"at most {limit.max_bytes:,} UTF-8 bytes over all keys and values"
            for limit in operation.byte_limits
            if limit.member == name
        ]
        if name in operation.key_patterns:
            notes.append(f"keys match {operation.key_patterns[name]}")
        shape = operation.shape.members[name]
        lines.append("  ## " + _describe(shape, notes, required=name in required))
        mark = "  " if name in required else "  # "
        if name == operation.instance_member:
            lines.append(f"{mark}{name}: {_EXAMPLE_INSTANCE}")
        else:
            lines.extend(mark + line for line in _member(name, shape, ()))
    return head + "\n".join(lines) + "\n"


def first_sentence(documentation: str) -> str:
    """The first sentence of the model's text, without its HTML."""
    paragraph = documentation.split("</p>", maxsplit=1)[0]
    plain = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", paragraph)).split())
    return re.split(r"(?<=[.!?])\s", re.sub(r"\s+([.,;:)])", r"\1", plain))[0]


def _required_first(shape: Shape) -> list[str]:
    return sorted(shape.members, key=lambda name: name not in shape.required)


def _member(name: str, shape: Shape, above: tuple[str, ...]) -> list[str]:
    """The lines of a member, not indented; `above` names the structures that it stands in."""
    if shape.kind == "structure":
        return [f"{name}:", *_indented(_structure(shape, above))]
    if shape.kind == "map":
        return [f"{name}:", *_indented(_member("KeyName", shape.value, above))]
    if shape.kind == "list":
        first, *rest = _member("", shape.value, above)[1:] or [_placeholder("Column", shape.value)]
        return [f"{name}:", f"  - {first.strip()}", *_indented(rest)]
    return [f"{name}: {_placeholder('Column' if name == 'KeyName' else name, shape)}"]


def _structure(shape: Shape, above: tuple[str, ...]) -> Iterator[str]:
    for name in _required_first(shape):
        member = shape.members[name]
        described = _describe(member, [], required=name in shape.required)
        if shape.name in above and _holds(member, shape.name):
            yield f"## {name}: nests the same again, as deep as you like: see above."
        else:
            yield "## " + described
            yield from _member(name, member, (*above, shape.name))


def _holds(shape: Shape, name: str) -> bool:
    """Whether a map or a list is one of a structure."""
    return shape.kind in ("map", "list") and shape.value.name == name


def _indented(lines: Iterator[str] | list[str]) -> list[str]:
    return ["  " + line for line in lines]


def _placeholder(column: str, shape: Shape) -> str:
    return shape.enum[0] if shape.enum else f'"{{{column}}}"'


def _describe(shape: Shape, notes: list[str], *, required: bool) -> str:
    """A member in one line: its type, whether it is needed, its limits, what it is for."""
    facts = [shape.kind, *(["required"] if required else []), *notes]
    if shape.kind == "string" and shape.maximum is not None:
        facts.append(f"{shape.minimum or 0:,} to {shape.maximum:,} characters")
    if shape.kind == "map" and shape.key.maximum is not None:
        facts.append(f"keys of {shape.key.minimum or 0:,} to {shape.key.maximum:,} characters")
    if shape.pattern is not None:
        facts.append(f"matches {shape.pattern}")
    if shape.enum:
        facts.append(f"one of {', '.join(shape.enum)}")
    return f"{', '.join(facts)}. {first_sentence(shape.documentation)}".rstrip()
