"""A mapping compiled against a header: frames in, requests out, column by column.

Each leaf of the request becomes one Arrow array for a whole frame, in which null means "left
out". What a row breaks is noted in a mask beside it; only when a request is really made are
cells turned into Python objects. So `plan` over a million rows never builds a request.

A structure below the top, such as one reference, is left out with its last live value: where
something in it was left out and nothing but constants remains, it has nothing to say. So
`{Type: URL, Value: "{Link}"}` sends no reference for a row without a link, and an untouched
part of an AWS CLI skeleton sends nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulk_updater.mapping import transforms
from bulk_updater.mapping.mapped import Breach, Breaches, MappedFrame, MappedOperation, Part, Texts
from bulk_updater.mapping.nodes import nearest
from bulk_updater.mapping.request import (
    INTEGER,
    INTEGER_RANGE,
    LeafSpec,
    ListSpec,
    MapSpec,
    RequestSpec,
    Spec,
    StarSpec,
    StructureSpec,
    id_of_arn,
    iter_leaves,
)
from bulk_updater.mapping.star import star_keys
from bulk_updater.mapping.templates import Template
from bulk_updater.mapping.values import Condition, ValueSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from bulk_updater.mapping.nodes import Node
    from bulk_updater.mapping.spec import MappingSpec
    from bulk_updater.model import Frame

__all__ = ["CompiledMapping", "compile_mapping"]


class _Leaf:
    """A compiled leaf: cells to text, by the transforms that the mapping names."""

    def __init__(self, spec: LeafSpec) -> None:
        self.spec = spec
        self.columns = spec.template.columns
        value = spec.value
        self._date = (
            transforms.make_date_reader(value.date, value.format)
            if value.date is not None and value.format is not None
            else None
        )

    def texts(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Any:
        """The leaf's text for each row, before the meaning of empty is applied."""
        value = self.spec.value
        texts = transforms.fill_template(self.spec.template, cells, n_rows)
        if len(self.columns) > 0 and len(self.spec.template.parts) > 1:
            texts = self._empty_with_its_columns(texts, cells)
        if value.strip:
            texts = pc.utf8_trim_whitespace(texts)
        if value.map is not None:
            texts = self._map(texts, value.map, breaches)
        if self._date is not None:
            texts, unread = transforms.map_each(texts, self._date)
            breaches.add(
                unread,
                lambda: self._breach("unreadable_date", f"is no date of the form {value.date}."),
            )
        if value.lower:
            texts = pc.utf8_lower(texts)
        elif value.upper:
            texts = pc.utf8_upper(texts)
        if value.default is not None:
            texts = pc.if_else(pc.equal(pc.binary_length(texts), 0), value.default, texts)
        if value.truncate_bytes is not None:
            texts = transforms.truncate_bytes(texts, value.truncate_bytes)
        return texts

    def _empty_with_its_columns(self, texts: Any, cells: Mapping[str, Any]) -> Any:
        """A template is empty when every column in it is, whatever stands around them."""
        none = np.logical_and.reduce([transforms.is_empty(cells[name]) for name in self.columns])
        return pc.if_else(pa.array(none), "", texts) if none.any() else texts

    def _map(self, texts: Any, known: Mapping[str, str], breaches: Breaches) -> Any:
        replaced, unknown = transforms.replace_known(texts, known)
        unknown &= ~transforms.is_empty(texts)
        if self.spec.value.default is None:
            breaches.add(
                unknown,
                lambda: self._breach(
                    "unknown_value",
                    f"is none of the {len(known)} texts in its map, which has no default.",
                ),
            )
            return replaced
        return pc.if_else(pa.array(unknown), "", replaced) if unknown.any() else replaced

    def part(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Part:
        """The leaf over a frame: what is empty is left out, erased or refused; limits checked."""
        texts = self.texts(cells, n_rows, breaches)
        empty = transforms.is_empty(texts)
        if self.spec.value.empty == "reject":
            breaches.add(empty, lambda: self._breach("empty_value", "is empty and may not be."))
        erase = self.spec.value.empty == "erase" and self.spec.shape.kind == "string"
        left_out = np.zeros(n_rows, dtype=np.bool_) if erase else empty
        sizes = transforms.n_bytes(texts)
        build = (
            self._numbers(texts, empty, breaches)
            or self.check_text(texts, empty, sizes, breaches).__getitem__
        )
        present = ~left_out
        live = present if self.columns else np.zeros(n_rows, dtype=np.bool_)
        return Part(present, live, left_out, sizes * present, build)

    def check_text(
        self,
        texts: Any,
        empty: npt.NDArray[np.bool_],
        sizes: npt.NDArray[np.int64],
        breaches: Breaches,
    ) -> Texts:
        """The texts, checked against the shape's lengths and pattern."""
        shape = self.spec.shape
        low, high = shape.minimum or 0, shape.maximum
        # A character has at least one byte and at most four, so most frames need no count.
        if (high is not None and (sizes > high).any()) or ((sizes < 4 * low) & ~empty).any():
            lengths = transforms.n_characters(texts)
            if high is not None:
                breaches.add(
                    lengths > high,
                    lambda: self._breach(
                        "too_long",
                        lambda at: f"has {lengths[at]:,} characters; at most {high:,} are allowed.",
                    ),
                )
            breaches.add(
                (lengths < low) & ~empty,
                lambda: self._breach(
                    "too_short",
                    lambda at: f"has {lengths[at]:,} characters; at least {low:,} are needed.",
                ),
            )
        if shape.pattern is not None:
            found = re.compile(shape.pattern).match
            breaches.add(
                ~transforms.matches(texts, found) & ~empty,
                lambda: self._breach("bad_pattern", f"does not match {shape.pattern}."),
            )
        return Texts(texts)

    def _numbers(
        self, texts: Any, empty: npt.NDArray[np.bool_], breaches: Breaches
    ) -> Callable[[int], Any] | None:
        if self.spec.shape.kind != "integer":
            return None
        low, high = INTEGER_RANGE
        whole = transforms.matches(texts, INTEGER.fullmatch)
        breaches.add(
            ~whole & ~empty, lambda: self._breach("not_an_integer", "is not a whole number.")
        )
        # A number of more digits than these is out of range, and Python refuses to read very long
        # ones.
        fits = transforms.matches(
            texts,
            lambda text: (
                INTEGER.fullmatch(text) and len(text) <= 20 and low <= int(text) <= high  # noqa: PLR2004
            ),
        )
        breaches.add(
            whole & ~fits & ~empty,
            lambda: self._breach("integer_out_of_range", f"is not between {low:,} and {high:,}."),
        )
        values = Texts(texts)
        return lambda position: int(values[position])

    def _breach(self, rule: str, figures: str | Callable[[int], str]) -> Breach:
        say = figures if callable(figures) else lambda _: figures
        return Breach(rule, self.spec.path, self.columns, say)


class _Group:
    """A compiled map, structure or list."""

    def __init__(self, spec: StructureSpec | MapSpec | ListSpec, children: list[_Compiled]) -> None:
        self._spec = spec
        self._children = children
        self._keys: list[str] = (
            list(spec.members)
            if isinstance(spec, StructureSpec)
            else list(spec.entries)
            if isinstance(spec, MapSpec)
            else []
        )

    def part(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Part:
        parts = [child.part(cells, n_rows, breaches) for child in self._children]
        nothing = np.zeros(n_rows, dtype=np.bool_)
        present = np.logical_or.reduce([nothing, *(part.present for part in parts)])
        live = np.logical_or.reduce([nothing, *(part.live for part in parts)])
        left_out = np.logical_or.reduce([nothing, *(part.left_out for part in parts)])
        if isinstance(self._spec, StructureSpec):
            present = present & ~(left_out & ~live)
            self._require_members(parts, present, breaches)
        size = np.zeros(n_rows, dtype=np.int64)
        for index, part in enumerate(parts):
            size += part.size
            if isinstance(self._spec, MapSpec):
                size += len(self._keys[index].encode()) * part.present
        return Part(
            present, live & present, left_out | ~present, size * present, self._builder(parts)
        )

    def _require_members(
        self, parts: list[Part], present: npt.NDArray[np.bool_], breaches: Breaches
    ) -> None:
        for name in self._spec.shape.required:
            if name not in self._keys:
                continue
            index = self._keys.index(name)
            breaches.add(
                present & ~parts[index].present,
                lambda index=index: Breach(  # type: ignore[misc]
                    "missing_member",
                    f"{self._spec.path}.{self._keys[index]}",
                    self._children[index].columns,
                    lambda _: "is empty, and the service needs it.",
                ),
            )

    def _builder(self, parts: list[Part]) -> Callable[[int], Any]:
        if isinstance(self._spec, ListSpec):
            return lambda at: [part.build(at) for part in parts if part.present[at]]
        named = [
            (key, part.present, part.build) for key, part in zip(self._keys, parts, strict=True)
        ]
        return lambda at: {key: build(at) for key, present, build in named if present[at]}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made from."""
        return tuple(dict.fromkeys(name for child in self._children for name in child.columns))


_Compiled = _Leaf | _Group


def _compile(spec: Spec, header: Sequence[str]) -> _Compiled:
    if isinstance(spec, LeafSpec):
        return _Leaf(spec)
    if isinstance(spec, StructureSpec):
        return _Group(spec, [_compile(member, header) for member in spec.members.values()])
    if isinstance(spec, ListSpec):
        return _Group(spec, [_compile(item, header) for item in spec.items])
    if spec.star is not None:
        spec = _with_star(spec, spec.star, header)
    return _Group(spec, [_compile(entry, header) for entry in spec.entries.values()])


def _with_star(spec: MapSpec, star: StarSpec, header: Sequence[str]) -> MapSpec:
    """The map with an entry for each column that `"*"` takes."""
    taken = star_keys(star, header, set(spec.entries))
    added: dict[str, Spec] = {
        key: LeafSpec(
            f"{spec.path}.{key}",
            spec.shape.value,
            star.node,
            Template(((column, True),)),
            ValueSpec(column=column),
        )
        for key, column in taken.items()
    }
    return MapSpec(spec.path, spec.shape, spec.entries | added, None)


class _CompiledRequest:
    """One operation's request, compiled."""

    def __init__(self, spec: RequestSpec, header: Sequence[str]) -> None:
        self.operation = spec.operation
        members = {name: _compile(member, header) for name, member in spec.members.items()}
        self._contact = members.pop(spec.operation.contact_member)
        self._instance = members.pop(spec.operation.instance_member)
        self._members = members
        self.columns = tuple(
            dict.fromkeys(
                name
                for part in (self._contact, self._instance, *members.values())
                for name in part.columns
            )
        )

    def map_frame(
        self, cells: Mapping[str, Any], kept: npt.NDArray[np.bool_], frame: Frame
    ) -> MappedOperation:
        n_rows = len(kept)
        breaches = Breaches(n_rows)
        contacts = self._ids(self._contact, cells, n_rows, breaches)
        instances = self._ids(self._instance, cells, n_rows, breaches)
        ids_fit = breaches.of_row < 0
        parts = {
            name: member.part(cells, n_rows, breaches) for name, member in self._members.items()
        }
        for limit in self.operation.byte_limits:
            if limit.member in parts:
                self._check_bytes(
                    limit.member, limit.max_bytes, limit.rule, parts[limit.member].size, breaches
                )
        return MappedOperation(
            operation=self.operation,
            frame=frame,
            kept=kept,
            breaches=breaches,
            ids_fit=ids_fit,
            instance_ids=instances,
            contact_ids=contacts,
            parts=parts,
        )

    def _ids(
        self, compiled: _Compiled, cells: Mapping[str, Any], n_rows: int, breaches: Breaches
    ) -> Texts:
        """An id for each row; an empty one, or one that breaks a limit, is a breach."""
        assert isinstance(compiled, _Leaf)  # noqa: S101 - ids are strings in the model
        texts = compiled.texts(cells, n_rows, breaches)
        if compiled.spec.path == self.operation.instance_member:
            texts, _ = transforms.map_each(texts, id_of_arn)
        empty = transforms.is_empty(texts)
        breaches.add(
            empty,
            lambda: Breach(
                "empty_id",
                compiled.spec.path,
                compiled.columns,
                lambda _: "is empty; `source.where` can leave such rows out.",
            ),
        )
        return Texts(compiled.check_text(texts, empty, transforms.n_bytes(texts), breaches).array)

    def _check_bytes(
        self,
        member: str,
        max_bytes: int,
        rule: str,
        size: npt.NDArray[np.int64],
        breaches: Breaches,
    ) -> None:
        breaches.add(
            size > max_bytes,
            lambda: Breach(
                rule,
                member,
                self._members[member].columns,
                lambda at: (
                    f"has {size[at]:,} UTF-8 bytes over all keys and values; at most "
                    f"{max_bytes:,} are allowed."
                ),
            ),
        )


class CompiledMapping:
    """A mapping that is ready for the frames of one source.

    Attributes:
        columns: The columns that it uses, each once; a reader need read no others.
        operations: Its operations, in the file's order.
    """

    def __init__(self, spec: MappingSpec, header: Sequence[str]) -> None:
        self._requests = [_CompiledRequest(request, header) for request in spec.requests]
        self._where = [
            (_compile_condition(condition), condition) for condition in spec.source.where
        ]
        self.operations = tuple(request.operation for request in self._requests)
        self.columns = tuple(
            dict.fromkeys(
                [
                    *(condition.column for condition in spec.source.where),
                    *(name for request in self._requests for name in request.columns),
                ]
            )
        )

    def map_frame(self, frame: Frame) -> MappedFrame:
        """Map a frame that holds at least `columns`."""
        n_rows = len(frame.rows)
        cells = {name: _arrow_texts(frame.cells[name]) for name in self.columns}
        kept = np.ones(n_rows, dtype=np.bool_)
        for holds, condition in self._where:
            kept &= holds(cells[condition.column])
        return MappedFrame(
            frame,
            tuple(request.map_frame(cells, kept, frame) for request in self._requests),
        )


def _arrow_texts(column: Any) -> Any:
    """A frame's column as one Arrow array of text, null as empty."""
    array = pa.array(column, type=pa.string(), from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    return pc.fill_null(array, "") if array.null_count else array


def _compile_condition(condition: Condition) -> Callable[[Any], npt.NDArray[np.bool_]]:
    if condition.in_ is not None:
        known = condition.in_
        return lambda texts: transforms.is_one_of(texts, known)
    if condition.not_in is not None:
        excluded = condition.not_in
        return lambda texts: ~transforms.is_one_of(texts, excluded)
    if condition.equals is not None:
        wanted = condition.equals
        return lambda texts: transforms.is_one_of(texts, [wanted])
    if condition.not_ is not None:
        unwanted = condition.not_
        return lambda texts: ~transforms.is_one_of(texts, [unwanted])
    found = re.compile(condition.matches or "").search
    return lambda texts: transforms.matches(texts, found)


def compile_mapping(spec: MappingSpec, header: Sequence[str], source: str) -> CompiledMapping:
    """Compile a mapping against a source's header.

    Args:
        spec: The mapping.
        header: The source's columns, in order, each once.
        source: The source's name, for errors.

    Raises:
        MappingError: If the mapping names a column that the source does not have, or `"*"` makes
            two equal keys.
    """
    _check_columns(spec, header, source)
    return CompiledMapping(spec, header)


def _check_columns(spec: MappingSpec, header: Sequence[str], source: str) -> None:
    known = set(header)
    for column, node in _named_columns(spec):
        if column not in known:
            node.refuse(f'{source} has no column "{column}". {nearest(column, header)}')


def _named_columns(spec: MappingSpec) -> Iterator[tuple[str, Node]]:
    """Every column that the mapping names, with where it does."""
    if spec.source_node is not None:
        for index, condition in enumerate(spec.source.where):
            yield condition.column, spec.source_node.at(("where", index, "column"))
    for request in spec.requests:
        for member in request.members.values():
            for leaf in iter_leaves(member):
                for column in leaf.template.columns:
                    yield column, leaf.node.at(["column"])
            if isinstance(member, MapSpec) and member.star is not None:
                for column in member.star.except_:
                    yield column, member.star.node.at(["except"])
