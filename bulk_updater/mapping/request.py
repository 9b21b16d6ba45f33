"""The request of an operation, as a mapping writes it, checked against the service model.

Every member must be one of the operation's, nested as the model nests it, with the members that
the model requires; keys of maps are constant and legal; constant values are within the model's
limits. What depends on a row is checked when the row is mapped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulk_updater.mapping.nodes import Node, name_shown, nearest, shortened
from bulk_updater.mapping.star import legal_key
from bulk_updater.mapping.templates import Template, TemplateSyntaxError, parse_template
from bulk_updater.mapping.values import StarModel, ValueSpec, validate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulk_updater.operations import Operation, Shape

__all__ = [
    "INTEGER",
    "LeafSpec",
    "ListSpec",
    "MapSpec",
    "RequestParser",
    "RequestSpec",
    "Spec",
    "StarSpec",
    "StructureSpec",
    "id_of_arn",
    "integer_range",
    "iter_leaves",
    "to_integer",
]

INTEGER = re.compile(r"[+-]?[0-9]+")
"""A whole number as it may stand in a cell; what is sent is the number, without `+` or zeros."""

_MAX_CHARACTERS = 32_767
"""The longest value that any member may have: an attribute's."""

_MAX_OWN_BYTES = 65_536
"""Twice what the service takes. A frame of 16,384 rows, all with this text, holds 1 GiB of it."""

_INSTANCE_ARN = re.compile(r"arn:[^:]+:connect:[^:]*:[^:]*:instance/([^/]+)(/.*)?")


def id_of_arn(text: str) -> str:
    """The instance id of an instance's ARN; any other text as it stands."""
    match = _INSTANCE_ARN.fullmatch(text)
    return match.group(1) if match else text


def integer_range(shape: Shape) -> tuple[int, int]:
    """The lowest and the highest number of a shape."""
    # The model's `integer` is a signed 32-bit number: the Smithy specification, simple types.
    low, high = -(2**31), 2**31 - 1
    return max(low, shape.minimum or low), min(high, shape.maximum or high)


def to_integer(text: str, low: int, high: int) -> int | None:
    """A text that is a whole number as that number; None if it is out of a range."""
    # Python refuses to read numbers of thousands of digits; these are more than any range has.
    digits = text.lstrip("+-").lstrip("0")[:20]
    number = int(digits or "0") * (-1 if text.startswith("-") else 1)
    return number if low <= number <= high else None


@dataclass(frozen=True, slots=True)
class LeafSpec:
    """A member whose value is text or a number.

    Attributes:
        path: Where it stands in the request, such as `References.crm.Value`.
        shape: Its type in the service model.
        node: Where it stands in the file.
        template: Where its text comes from.
        value: What is done to the text.
    """

    path: str
    shape: Shape
    node: Node
    template: Template
    value: ValueSpec


@dataclass(frozen=True, slots=True)
class StarSpec:
    """`"*"`: every column of the source becomes an attribute."""

    node: Node
    prefix: str
    except_: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StructureSpec:
    """A structure with the members that the mapping names."""

    path: str
    shape: Shape
    members: dict[str, Spec]


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map with constant keys; `star` adds the source's columns."""

    path: str
    shape: Shape
    entries: dict[str, Spec]
    star: StarSpec | None


@dataclass(frozen=True, slots=True)
class ListSpec:
    """A list of a constant number of values."""

    path: str
    shape: Shape
    items: tuple[Spec, ...]


Spec = LeafSpec | StructureSpec | MapSpec | ListSpec


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """The request of one operation.

    Attributes:
        operation: The operation.
        node: Where it stands in the file.
        members: Its members that the mapping names.
    """

    operation: Operation
    node: Node
    members: dict[str, Spec]


class RequestParser:
    """Checks requests against the service model.

    Attributes:
        warnings: What is unusual but allowed, in sentences.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def parse(self, operation: Operation, node: Node) -> RequestSpec:
        """An operation's request from its part of the mapping file.

        Raises:
            MappingError: If it is not a request of that operation.
        """
        members = self._members(operation.shape, node, operation.name, operation)
        leaves = [leaf for member in members.values() for leaf in iter_leaves(member)]
        n_bytes = sum(map(_own_bytes, leaves))
        if n_bytes > _MAX_OWN_BYTES:
            node.refuse(
                f"the texts that {operation.name} writes into every row have {n_bytes:,} UTF-8 "
                f"bytes together; at most {_MAX_OWN_BYTES:,} are allowed, and the service takes "
                "fewer."
            )
        if not any(_writes(members[name]) for name in members if name not in operation.id_members):
            self.warnings.append(
                f"{node.path}, line {node.line}: {operation.name} names nothing to write, so every "
                f"row will be skipped. It can write {', '.join(operation.written_members)}."
            )
        return RequestSpec(operation, node, members)

    def _members(
        self, shape: Shape, node: Node, path: str, operation: Operation | None = None
    ) -> dict[str, Spec]:
        found = node.items(path) if operation else _items_or_none(node, path)
        owner = operation.api_name if operation else path
        for name in found:
            if name not in shape.members:
                node.refuse(
                    f'"{name_shown(name)}" is not a member of {owner}. '
                    f"{nearest(name, shape.members)}",
                    key=name,
                )
        # An untouched part of a CLI skeleton ends in `{}` where a shape contains itself.
        missing = [name for name in shape.required if name not in found]
        if missing and (found or operation):
            node.refuse(
                f"{owner} needs {' and '.join(missing)}, which "
                f"{'is' if len(missing) == 1 else 'are'} not here."
            )
        return {
            name: self._spec(
                shape.members[name],
                member,
                name if operation else f"{path}.{name}",
                operation.key_patterns.get(name) if operation else None,
                is_id=operation is not None and name in operation.id_members,
                stars=operation is not None and name == "Attributes",
            )
            for name, member in found.items()
        }

    def _spec(
        self,
        shape: Shape,
        node: Node,
        path: str,
        key_pattern: str | None = None,
        *,
        is_id: bool = False,
        stars: bool = False,
    ) -> Spec:
        if shape.kind == "structure":
            return StructureSpec(path, shape, self._members(shape, node, path))
        if shape.kind == "map":
            return self._map(shape, node, path, key_pattern, stars=stars)
        if shape.kind == "list":
            items = node.value or []
            if not isinstance(items, list):
                node.refuse(f"{path} is a list, and {node.kind} stands here.")
            if shape.maximum is not None and len(items) > shape.maximum:
                node.refuse(
                    f"{path} has {len(items):,} values; at most {shape.maximum:,} are allowed."
                )
            return ListSpec(
                path,
                shape,
                tuple(
                    self._spec(shape.value, item, f"{path}[{index}]")
                    for index, item in enumerate(items)
                ),
            )
        return self._leaf(shape, node, path, is_id=is_id)

    def _map(
        self, shape: Shape, node: Node, path: str, key_pattern: str | None, *, stars: bool
    ) -> MapSpec:
        entries: dict[str, Spec] = {}
        star = None
        for key, value in _items_or_none(node, path).items():
            if key == "*" and stars:
                star = self._star(value, key_pattern)
                continue
            self._check_key(shape.key, key, node, path, key_pattern)
            entries[key] = self._spec(shape.value, value, f"{path}.{name_shown(key)}")
        return MapSpec(path, shape, entries, star)

    @staticmethod
    def _star(node: Node, key_pattern: str | None) -> StarSpec:
        model = validate(StarModel, node, '"*"')
        if model.prefix and not re.fullmatch(key_pattern or "", model.prefix):
            node.at(["prefix"]).refuse(
                f'the prefix "{shortened(model.prefix)}" is not legal in an attribute key, which '
                "holds only the letters A to Z and a to z, digits, - and _."
            )
        return StarSpec(node, model.prefix, model.except_)

    @staticmethod
    def _check_key(shape: Shape, key: str, node: Node, path: str, pattern: str | None) -> None:
        if not key:
            node.refuse(f"{path} has an empty key; name it.", key=key)
        if pattern is not None and not re.fullmatch(pattern, key):
            colon = ", after a prefix and a colon if it is the system's" if ":" in pattern else ""
            legal = legal_key(key)
            node.refuse(
                f'"{name_shown(key)}" is not a legal key of {path}: keys hold only the letters '
                f"A to Z and a to z, digits, - and _{colon}, and are written out, not made from "
                "columns." + (f' Did you mean "{shortened(legal)}"?' if legal else ""),
                key=key,
            )
        if "{" in key or "}" in key:
            node.refuse(
                f'"{name_shown(key)}" is not a legal key of {path}: keys are written out, not made '
                "from columns.",
                key=key,
            )
        if shape.maximum is not None and len(key) > shape.maximum:
            node.refuse(
                f"this key of {path} has {len(key):,} characters; at most {shape.maximum:,} are "
                "allowed.",
                key=key,
            )

    def _leaf(self, shape: Shape, node: Node, path: str, *, is_id: bool) -> LeafSpec:
        if shape.kind not in ("string", "integer"):
            node.refuse(f"{path} is of the kind {shape.kind}, which a mapping cannot write yet.")
        if isinstance(node.value, list):
            node.refuse(f"{path} is one value, and a list stands here.")
        value = self._value(node, path)
        try:
            template = (
                parse_template(value.template)
                if value.template is not None
                else Template(((value.column or "", True),))
            )
        except TemplateSyntaxError as error:
            node.refuse(f"{path}: {error}")
        self._check_erase(shape, node, path, value)
        self._check_own_texts(node, path, template, value)
        if template.constant is not None and value.is_plain:
            self._check_constant(shape, node, path, template.constant, is_id=is_id)
        if value.default is not None and value.truncate_bytes is None:
            self._check_constant(shape, node.at(["default"]), path, value.default, is_id=is_id)
        return LeafSpec(path, shape, node, template, value)

    @staticmethod
    def _check_erase(shape: Shape, node: Node, path: str, value: ValueSpec) -> None:
        if value.empty == "erase" and (shape.kind != "string" or shape.minimum or shape.enum):
            node.at(["empty"]).refuse(
                f'{path} cannot be erased: that sends "", which it may not be. Allowed here: skip, '
                "reject."
            )

    @staticmethod
    def _check_own_texts(node: Node, path: str, template: Template, value: ValueSpec) -> None:
        """No text that the mapping brings in may be longer than any value, whatever is done to it.

        It is multiplied by the rows of a frame, and one of a megabyte fills any memory.
        """
        own = [
            *((text, node) for text, is_column in template.parts if not is_column),
            *((text, node.at(["map", key])) for key, text in (value.map or {}).items()),
            (value.default or "", node.at(["default"])),
        ]
        for text, origin in own:
            if len(text) > _MAX_CHARACTERS:
                origin.refuse(
                    f"{path} has {len(text):,} characters; at most {_MAX_CHARACTERS:,} are allowed."
                )

    @staticmethod
    def _value(node: Node, path: str) -> ValueSpec:
        if isinstance(node.value, str):
            return ValueSpec(template=node.value)
        found = node.items(path)
        if len(found) == 1:
            (key,) = found
            if key not in ("column", "template") and found[key].value == "":
                name = name_shown(key)
                node.refuse(
                    f"{path}: YAML reads {{{name}}} without quotes as a group of keys. Write "
                    f'"{{{name}}}" for the column.'
                )
        return validate(ValueSpec, node, path)

    def _check_constant(
        self, shape: Shape, node: Node, path: str, text: str, *, is_id: bool
    ) -> None:
        """What the service would refuse in every row is refused here, once."""
        if not text:
            if is_id:
                node.refuse(f"{path} is empty; write the id, or a column in braces.")
            return
        if shape.kind == "integer":
            low, high = integer_range(shape)
            if not INTEGER.fullmatch(text) or to_integer(text, low, high) is None:
                node.refuse(
                    f"{path} is a whole number between {low:,} and {high:,}, and "
                    f'"{shortened(text)}" is none.'
                )
            return
        length = len(id_of_arn(text) if is_id else text)
        if shape.maximum is not None and length > shape.maximum:
            node.refuse(f"{path} has {length:,} characters; at most {shape.maximum:,} are allowed.")
        if shape.minimum is not None and length < shape.minimum:
            node.refuse(f"{path} has {length:,} characters; at least {shape.minimum:,} are needed.")
        pattern = shape.expression
        if pattern is not None and not pattern.match(text):
            node.refuse(f'{path} must match {pattern.pattern}, and "{shortened(text)}" does not.')
        if shape.enum and text not in shape.enum:
            self.warnings.append(
                f'{node.path}, line {node.line}: {path} is "{shortened(text)}", which this version '
                f"of botocore does not know. {nearest(text, shape.enum)} It is sent as it stands."
            )


def _own_bytes(leaf: LeafSpec) -> int:
    """UTF-8 bytes that the mapping itself brings into a row's text, at the most."""
    literal = "".join(text for text, is_column in leaf.template.parts if not is_column)
    instead = (leaf.value.default or "", *(leaf.value.map or {}).values())
    return max(len(text.encode()) for text in (literal, *instead))


def _items_or_none(node: Node, path: str) -> dict[str, Node]:
    """The keys and values of a part of a request; none where nothing stands behind its name."""
    return {} if node.value == "" else node.items(path)


def _writes(spec: Spec) -> bool:
    return (isinstance(spec, MapSpec) and spec.star is not None) or any(iter_leaves(spec))


def iter_leaves(spec: Spec) -> Iterable[LeafSpec]:
    """Every leaf of a part of a request, in the file's order."""
    if isinstance(spec, LeafSpec):
        yield spec
    elif isinstance(spec, StructureSpec):
        for member in spec.members.values():
            yield from iter_leaves(member)
    elif isinstance(spec, MapSpec):
        for entry in spec.entries.values():
            yield from iter_leaves(entry)
    else:
        for item in spec.items:
            yield from iter_leaves(item)
