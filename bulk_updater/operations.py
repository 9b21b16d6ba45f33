"""The operations that rows become requests of, as botocore's service model describes them.

Member names, nesting, required members, types, lengths and enums are read from the installed
model, so a new member works the day botocore knows it. Three limits stand in the documentation
only and are written down here, each with its source:

- attribute keys hold ASCII letters, digits, `-` and `_` (UpdateContactAttributes, Attributes);
- 32,768 UTF-8 bytes over all attribute keys and values of a contact (the same place);
- 4,096 UTF-8 bytes over all references of a contact (UpdateContact, References).

A client sees only what it sends: what is stored already counts too, and the service has the
last word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = [
    "OPERATION_NAMES",
    "ByteLimit",
    "Operation",
    "Shape",
    "get_operation",
    "iter_operations",
]


class Shape:
    """A member's type in the service model; recursive shapes are followed as they are asked for."""

    def __init__(self, shape: Any) -> None:
        self._shape = shape

    @property
    def kind(self) -> str:
        """`string`, `integer`, `boolean`, `structure`, `map`, `list` …: the model's own word."""
        return str(self._shape.type_name)

    @property
    def name(self) -> str:
        """The shape's name in the model; two members of one name have one type."""
        return str(self._shape.name)

    @property
    def documentation(self) -> str:
        """The model's text on it, as HTML."""
        return str(self._shape.documentation or "")

    @property
    def minimum(self) -> int | None:
        """Fewest code points of a string, or lowest number."""
        return self._bound("min")

    @property
    def maximum(self) -> int | None:
        """Most code points of a string, or highest number."""
        return self._bound("max")

    def _bound(self, which: str) -> int | None:
        bound = self._shape.metadata.get(which)
        return None if bound is None else int(bound)

    @property
    def pattern(self) -> str | None:
        """A regular expression that a string has to match from its beginning."""
        found = self._shape.metadata.get("pattern")
        return None if found is None else str(found)

    @cached_property
    def expression(self) -> re.Pattern[str] | None:
        """`pattern` compiled; None where there is none, or none that Python understands."""
        try:
            return None if self.pattern is None else re.compile(self.pattern)
        except re.error:
            return None  # the service has the last word on what we cannot check

    @property
    def enum(self) -> tuple[str, ...]:
        """The values that this model knows; the service may know more."""
        return tuple(self._shape.metadata.get("enum", ()))

    @cached_property
    def members(self) -> dict[str, Shape]:
        """Members of a structure, in the model's order; empty for any other kind."""
        if self.kind != "structure":
            return {}
        return {name: Shape(shape) for name, shape in self._shape.members.items()}

    @property
    def required(self) -> tuple[str, ...]:
        """Members that a structure cannot do without, in the model's order."""
        if self.kind != "structure":
            return ()
        return tuple(self._shape.required_members)

    @cached_property
    def key(self) -> Shape:
        """The keys of a map."""
        return Shape(self._shape.key)

    @cached_property
    def value(self) -> Shape:
        """The values of a map, or the members of a list."""
        return Shape(self._shape.value if self.kind == "map" else self._shape.member)


@dataclass(frozen=True, slots=True)
class ByteLimit:
    """A documented limit over everything in one member.

    Attributes:
        member: The member.
        max_bytes: UTF-8 bytes at the most, over all keys and values in it.
        rule: Name of the rule, for results.
    """

    member: str
    max_bytes: int
    rule: str


@dataclass(frozen=True, slots=True)
class _Documented:
    """What the model does not say of an operation."""

    api_name: str
    contact_member: str
    quota_code: str
    key_patterns: Mapping[str, str]
    byte_limits: tuple[ByteLimit, ...]
    merged_by_key: frozenset[str]


# Quota codes: ListAWSDefaultServiceQuotas, service code `connect`.
_DOCUMENTED: dict[str, _Documented] = {
    "update_contact_attributes": _Documented(
        api_name="UpdateContactAttributes",
        contact_member="InitialContactId",
        quota_code="L-F001E5ED",
        key_patterns={"Attributes": r"[A-Za-z0-9_-]+"},
        byte_limits=(ByteLimit("Attributes", 32_768, "attributes_too_large"),),
        # "Creates or updates": keys that are not named stay as they are.
        merged_by_key=frozenset({"Attributes"}),
    ),
    "update_contact": _Documented(
        api_name="UpdateContact",
        contact_member="ContactId",
        quota_code="L-40C15531",
        # Keys of the user's own are letters, digits, - and _; the system's carry a prefix, as
        # `connect:ContactExpiry` does.
        key_patterns={"SegmentAttributes": r"([A-Za-z0-9_-]+:)?[A-Za-z0-9_-]+"},
        byte_limits=(ByteLimit("References", 4_096, "references_too_large"),),
        # Whether References and SegmentAttributes keep the keys that are not named is not said.
        merged_by_key=frozenset(),
    ),
}

OPERATION_NAMES = tuple(_DOCUMENTED)
"""The operations' snake_case names: keys of a mapping file, values of `Request.operation`."""


@dataclass(frozen=True)
class Operation:
    """An operation of Amazon Connect that rows become requests of.

    Attributes:
        name: Its snake_case name.
        api_name: Its name in the API.
        contact_member: The member that names the contact.
        instance_member: The member that names the instance.
        quota_code: The Service Quotas code of its rate.
        shape: Its input.
        documentation: The model's text on it, as HTML.
        key_patterns: For a member that is a map: what its keys must match in full.
        byte_limits: Documented limits over whole members.
        merged_by_key: Members of which the service keeps the keys that a request does not name.
    """

    name: str
    api_name: str
    contact_member: str
    instance_member: str
    quota_code: str
    shape: Shape
    documentation: str
    key_patterns: Mapping[str, str]
    byte_limits: tuple[ByteLimit, ...]
    merged_by_key: frozenset[str]

    @cached_property
    def id_members(self) -> frozenset[str]:
        """The members that say which contact, rather than what to write."""
        return frozenset({self.contact_member, self.instance_member})

    @cached_property
    def written_members(self) -> tuple[str, ...]:
        """The members that say what to write, in the model's order."""
        return tuple(name for name in self.shape.members if name not in self.id_members)

    def written_names(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """What a request writes, without any value: attribute keys, or members and their keys.

        For `update_contact_attributes` the attribute keys; for `update_contact` names such as
        `Name` and `References.crm_record`.
        """
        names: list[str] = []
        for member in self.written_members:
            value = params.get(member)
            if value is None:
                continue
            if self.shape.members[member].kind != "map":
                names.append(member)
            else:
                names.extend(self._prefix_of(member) + key for key in value)
        return tuple(names)

    def without(self, params: Mapping[str, Any], names: Collection[str]) -> dict[str, Any] | None:
        """A request that leaves alone what another one wrote.

        Of a member that the service merges by key, the keys that are not named stay. What the
        service does with keys of References that a request does not name is not documented, so
        any other map goes as a whole where one key of it is named, be it another one: the request
        might take that key away.

        Args:
            params: A request of this operation.
            names: What is not to be written, as `written_names` names it.

        Returns:
            The request with its ids; None where nothing is left to write, or something that the
            operation requires is not.
        """
        kept = {name: value for name, value in params.items() if name in self.id_members}
        for member in self.written_members:
            value = params.get(member)
            if value is None:
                continue
            if self.shape.members[member].kind != "map":
                if member not in names:
                    kept[member] = value
                continue
            prefix = self._prefix_of(member)
            if member in self.merged_by_key:
                value = {key: inner for key, inner in value.items() if prefix + key not in names}
            elif any(name.startswith(prefix) for name in names):
                continue
            if value:
                kept[member] = value
        is_whole = all(member in kept for member in self.shape.required)
        return kept if is_whole and kept.keys() - self.id_members else None

    def _prefix_of(self, member: str) -> str:
        """What stands before a map's keys among the names of what is written."""
        return "" if len(self.written_members) == 1 else f"{member}."

    def merge(self, earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any] | None:
        """One request that leaves a contact as `earlier` and then `later` would.

        Attributes are merged key by key, as the service does. What the service does with keys of
        References that a request does not name is not documented, so a member other than
        Attributes is taken from `later` only where it names all that `earlier` names in it: then
        both readings of the documentation end alike.

        Args:
            earlier: A request of this operation.
            later: A request for the same contact, from a later row.

        Returns:
            The merged request, or None where two requests are needed.
        """
        merged = dict(earlier)
        for member, value in later.items():
            before = merged.get(member)
            if before is None or member in self.id_members:
                merged[member] = value
            elif member in self.merged_by_key:
                merged[member] = {**before, **value}
            elif _names_all_of(value, before):
                merged[member] = value
            else:
                return None
        over = any(
            self.member_bytes(limit.member, merged) > limit.max_bytes for limit in self.byte_limits
        )
        return None if over else merged

    def member_bytes(self, member: str, params: Mapping[str, Any]) -> int:
        """UTF-8 bytes of all keys and values in a member of a request; 0 where it is not there."""
        value = params.get(member)
        return 0 if value is None else _text_bytes(self.shape.members[member], value)

    def payload_bytes(self, params: Mapping[str, Any]) -> int:
        """UTF-8 bytes of all keys and values that a request writes; its ids do not count."""
        return sum(self.member_bytes(member, params) for member in self.written_members)


def _names_all_of(later: Any, earlier: Any) -> bool:
    if isinstance(earlier, dict) and isinstance(later, dict):
        return all(
            key in later and _names_all_of(later[key], value) for key, value in earlier.items()
        )
    return True


def _text_bytes(shape: Shape, value: Any) -> int:
    """UTF-8 bytes of all text in a value: the keys of maps and every leaf, not member names."""
    if shape.kind == "structure":
        return sum(_text_bytes(shape.members[name], inner) for name, inner in value.items())
    if shape.kind == "map":
        return sum(
            len(key.encode("utf-8", "surrogatepass")) + _text_bytes(shape.value, inner)
            for key, inner in value.items()
        )
    if shape.kind == "list":
        return sum(_text_bytes(shape.value, inner) for inner in value)
    return len(str(value).encode("utf-8", "surrogatepass"))


@cache
def _service_model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("connect", "service-2"), "connect")


@cache
def get_operation(name: str) -> Operation:
    """The operation of a snake_case name.

    The first call reads the service model, which takes a few tenths of a second.

    Args:
        name: One of `OPERATION_NAMES`.

    Raises:
        KeyError: If there is no such operation here.
    """
    documented = _DOCUMENTED[name]
    model = _service_model().operation_model(documented.api_name)
    return Operation(
        name=name,
        api_name=documented.api_name,
        contact_member=documented.contact_member,
        instance_member="InstanceId",
        quota_code=documented.quota_code,
        shape=Shape(model.input_shape),
        documentation=str(model.documentation or ""),
        key_patterns=documented.key_patterns,
        byte_limits=documented.byte_limits,
        merged_by_key=documented.merged_by_key,
    )


def iter_operations() -> Iterator[Operation]:
    """Every operation, in the order of `OPERATION_NAMES`."""
    return map(get_operation, OPERATION_NAMES)
