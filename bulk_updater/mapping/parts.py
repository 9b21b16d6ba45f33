"""The parts of a request, compiled: a frame's columns in, checked columns of the request out.

Each leaf of the request becomes one Arrow array for a whole frame; what is left out of a row, and
what a row breaks, is noted in masks beside it. Python objects are made only for the rows that are
asked for.

A structure below the top, such as one reference, is left out with its last live value: where a
value made from columns was left out and nothing but constants remains, it has nothing to say. So
`{Type: URL, Value: "{Link}"}` sends no reference for a row without a link. An untouched part of
an AWS CLI skeleton, in which nothing stands but empty texts, zeros and values of enums, is left
out too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from bulk_updater.mapping import transforms
from bulk_updater.mapping.digests import Content, Items, Members, Text, Written
from bulk_updater.mapping.mapped import Breach, Breaches
from bulk_updater.mapping.nodes import name_shown
from bulk_updater.mapping.request import (
    INTEGER,
    LeafSpec,
    ListSpec,
    MapSpec,
    Spec,
    StarSpec,
    StructureSpec,
    id_of_arn,
    integer_range,
    iter_leaves,
    to_integer,
)
from bulk_updater.mapping.star import star_keys
from bulk_updater.mapping.templates import Template
from bulk_updater.mapping.values import ValueSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["Compiled", "Group", "Leaf", "Part", "compile_part"]


@dataclass(slots=True)
class Part:
    """A part of the request over a frame.

    Attributes:
        present: Rows in which it is there.
        live: Rows in which something made from a column is in it.
        left_out: Rows in which something made from a column was left out of it.
        size: UTF-8 bytes of its text, where it is there.
        values: Its values for the rows from one position to before another; any where it is not
            there.
        content: The same, for the digests.
    """

    present: npt.NDArray[np.bool_]
    live: npt.NDArray[np.bool_]
    left_out: npt.NDArray[np.bool_]
    size: npt.NDArray[np.integer[Any]]
    values: Callable[[int, int], list[Any]]
    content: Content


def text_values(texts: Any) -> Callable[[int, int], list[Any]]:
    """An Arrow array's texts as Python's, for the rows that are asked for."""
    return lambda start, stop: (
        texts.slice(start, stop - start).to_numpy(zero_copy_only=False).tolist()
    )


class Leaf:
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
        texts, too_large = transforms.fill_template(self.spec.template, cells, n_rows)
        breaches.add(
            too_large, lambda: self._breach("too_long", "is too long to put together in memory.")
        )
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
            texts = transforms.lower(texts)
        elif value.upper:
            texts = transforms.upper(texts)
        if value.default is not None:
            texts = transforms.stand_in(value.default, transforms.is_empty(texts), texts)
        if value.truncate_bytes is not None:
            texts = transforms.truncate_bytes(texts, value.truncate_bytes)
        return texts

    def _map(self, texts: Any, known: Mapping[str, str], breaches: Breaches) -> Any:
        replaced, unknown = transforms.replace_known(texts, known)
        if self.spec.value.default is None and unknown.any():
            breaches.add(
                unknown & ~transforms.is_empty(texts),
                lambda: self._breach(
                    "unknown_value",
                    f"is none of the {len(known)} texts in its map, which has no default.",
                ),
            )
        return replaced

    def part(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Part:
        """The leaf over a frame: what is empty is left out, erased or refused; limits checked."""
        if not self.columns:
            return self._constant_part(n_rows, breaches)
        return self._part(cells, n_rows, breaches)

    def _constant_part(self, n_rows: int, breaches: Breaches) -> Part:
        """One row's part for all rows: a long text is not held once for each of them."""
        of_one = Breaches(1)
        part = self._part({}, 1, of_one)
        if of_one.list:
            first = of_one.list[0]
            breaches.add(
                np.ones(n_rows, dtype=np.bool_),
                lambda: self._breach(first.rule, first.figures(0)),
            )
        nothing = np.zeros(n_rows, dtype=np.bool_)
        (value,) = part.values(0, 1)
        return Part(
            present=nothing | part.present[0],
            live=nothing,
            left_out=nothing,
            size=np.full(n_rows, part.size[0]),
            values=lambda start, stop: [value] * (stop - start),
            content=part.content,
        )

    def _part(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Part:
        texts = self.texts(cells, n_rows, breaches)
        if self.spec.shape.kind == "integer":
            texts = self._numbers(texts, breaches)
        sizes = transforms.n_bytes(texts)
        empty = sizes == 0
        if self.spec.value.empty == "reject":
            breaches.add(empty, lambda: self._breach("empty_value", "is empty and may not be."))
        present = np.full(n_rows, self.spec.value.empty == "erase") | ~empty
        values = text_values(texts)
        is_number = self.spec.shape.kind == "integer"
        if is_number:
            values = _number_values(values)
        else:
            self.check_text(texts, sizes, breaches)
        return Part(present, present, ~present, sizes, values, Text(texts, is_number))

    def contacts(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Any:
        """The leaf as the rows' contacts; an empty one is refused."""
        return self._ids(self.texts(cells, n_rows, breaches), breaches)

    def instances(
        self,
        cells: Mapping[str, Any],
        n_rows: int,
        breaches: Breaches,
        expected: str | None = None,
    ) -> Any:
        """The leaf as the rows' instances: an ARN becomes its id, any but `expected` is refused."""
        texts = self.texts(cells, n_rows, breaches)
        if pc.any(pc.starts_with(texts, "arn:")).as_py():
            texts, _ = transforms.map_each(texts, id_of_arn)
        texts = self._ids(texts, breaches)
        if expected is not None:
            breaches.add(
                ~transforms.is_one_of(texts, [expected]),
                lambda: self._breach(
                    "unexpected_instance", "is not the instance that --expect-instance names."
                ),
            )
        return texts

    def _ids(self, texts: Any, breaches: Breaches) -> Any:
        sizes = transforms.n_bytes(texts)
        breaches.add(
            sizes == 0,
            lambda: self._breach("empty_id", "is empty; `source.where` can leave such rows out."),
        )
        self.check_text(texts, sizes, breaches)
        return texts

    def check_text(self, texts: Any, sizes: npt.NDArray[np.int32], breaches: Breaches) -> None:
        """Note the rows whose text breaks the shape's lengths or pattern; empty breaks nothing."""
        shape = self.spec.shape
        low, high = shape.minimum or 0, shape.maximum
        # A character has at least one byte and at most four, so most frames need no count.
        if low and (sizes < 4 * low).any():
            lengths = transforms.n_characters(texts)
            breaches.add(
                (lengths < low) & (sizes > 0),
                lambda: self._breach(
                    "too_short",
                    lambda at: f"has {lengths[at]:,} characters; at least {low:,} are needed.",
                ),
            )
        if high is not None and (sizes > high).any():
            counts = transforms.n_characters(texts)
            breaches.add(
                counts > high,
                lambda: self._breach(
                    "too_long",
                    lambda at: f"has {counts[at]:,} characters; at most {high:,} are allowed.",
                ),
            )
        expression = shape.expression
        if expression is not None:
            breaches.add(
                ~transforms.matches(texts, expression.match) & (sizes > 0),
                lambda: self._breach("bad_pattern", f"does not match {shape.pattern}."),
            )

    def _numbers(self, texts: Any, breaches: Breaches) -> Any:
        """Whole numbers as they are sent: `+7` and `007` as `7`."""
        low, high = integer_range(self.spec.shape)

        def canonical(text: str) -> str | None:
            number = to_integer(text, low, high)
            return None if number is None else str(number)

        whole = transforms.matches(texts, lambda text: not text or INTEGER.fullmatch(text))
        breaches.add(~whole, lambda: self._breach("not_an_integer", "is not a whole number."))
        texts = transforms.stand_in("", ~whole | transforms.is_empty(texts), texts)
        numbers, outside = transforms.map_each(texts, lambda text: text and canonical(text))
        breaches.add(
            outside,
            lambda: self._breach("integer_out_of_range", f"is not between {low:,} and {high:,}."),
        )
        return numbers

    def _breach(self, rule: str, figures: str | Callable[[int], str]) -> Breach:
        say = figures if callable(figures) else lambda _: figures
        return Breach(rule, self.spec.path, self.columns, say)


def _number_values(values: Callable[[int, int], list[Any]]) -> Callable[[int, int], list[Any]]:
    return lambda start, stop: [int(text or 0) for text in values(start, stop)]


class Group:
    """A compiled map, structure or list."""

    def __init__(self, spec: StructureSpec | MapSpec | ListSpec, children: list[Compiled]) -> None:
        self._spec = spec
        self._keys: list[str] = []
        if isinstance(spec, StructureSpec):
            self._keys = list(spec.members)
        elif isinstance(spec, MapSpec):
            self._keys = list(spec.entries)
        self._children = children
        self._is_untouched = isinstance(spec, StructureSpec) and _is_untouched(spec)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made from."""
        return tuple(dict.fromkeys(name for child in self._children for name in child.columns))

    def part(self, cells: Mapping[str, Any], n_rows: int, breaches: Breaches) -> Part:
        """The group over a frame, from its children."""
        present, live, left_out = np.zeros((3, n_rows), dtype=np.bool_)
        size = np.zeros(n_rows, dtype=np.int64)
        members: list[tuple[npt.NDArray[np.bool_], Callable[[int, int], list[Any]]]] = []
        written: list[Written] = []
        for index, child in enumerate(() if self._is_untouched else self._children):
            part = child.part(cells, n_rows, breaches)
            present |= part.present
            live |= part.live
            left_out |= part.left_out
            # Added up at once: the sizes of 5,000 attributes are not held together.
            size += part.size
            if isinstance(self._spec, MapSpec):
                size += part.present * len(self._keys[index].encode())
            members.append((part.present, part.values))
            written.append(Written(part.present, part.content))
        if isinstance(self._spec, StructureSpec):
            present &= live | ~left_out
            live &= present
            size *= present
            self._require_members([there for there, _ in members], present, breaches)
        if isinstance(self._spec, ListSpec):
            return Part(present, live, left_out, size, _list_values(members), Items(written))
        values = _dict_values(self._keys, members)
        by_key = dict(zip(self._keys, written, strict=False))  # none for what is untouched
        return Part(present, live, left_out, size, values, Members(by_key))

    def _require_members(
        self,
        there: list[npt.NDArray[np.bool_]],
        present: npt.NDArray[np.bool_],
        breaches: Breaches,
    ) -> None:
        for name, child, mask in zip(self._keys, self._children, there, strict=False):
            if name in self._spec.shape.required:
                breaches.add(
                    present & ~mask,
                    lambda name=name, child=child: Breach(  # type: ignore[misc]
                        "missing_member",
                        f"{self._spec.path}.{name}",
                        child.columns,
                        lambda _: "is empty, and the service needs it.",
                    ),
                )


def _dict_values(
    keys: list[str], members: list[tuple[npt.NDArray[np.bool_], Callable[[int, int], list[Any]]]]
) -> Callable[[int, int], list[Any]]:
    def values(start: int, stop: int) -> list[Any]:
        made: list[dict[str, Any]] = [{} for _ in range(start, stop)]
        for key, (present, of_member) in zip(keys, members, strict=False):
            there = present[start:stop].tolist()
            for target, is_there, value in zip(made, there, of_member(start, stop), strict=True):
                if is_there:
                    target[key] = value
        return made

    return values


def _list_values(
    members: list[tuple[npt.NDArray[np.bool_], Callable[[int, int], list[Any]]]],
) -> Callable[[int, int], list[Any]]:
    def values(start: int, stop: int) -> list[Any]:
        made: list[list[Any]] = [[] for _ in range(start, stop)]
        for present, of_member in members:
            there = present[start:stop].tolist()
            for target, is_there, value in zip(made, there, of_member(start, stop), strict=True):
                if is_there:
                    target.append(value)
        return made

    return values


Compiled = Leaf | Group


def compile_part(spec: Spec, header: Sequence[str]) -> Compiled:
    """A part of a request, compiled against a header, which `"*"` takes its columns from.

    Raises:
        MappingError: If `"*"` makes a key that is not legal, or two that are equal.
    """
    if isinstance(spec, LeafSpec):
        return Leaf(spec)
    if isinstance(spec, StructureSpec):
        return Group(spec, [compile_part(member, header) for member in spec.members.values()])
    if isinstance(spec, ListSpec):
        return Group(spec, [compile_part(item, header) for item in spec.items])
    if spec.star is not None:
        spec = _with_star(spec, spec.star, header)
    return Group(spec, [compile_part(entry, header) for entry in spec.entries.values()])


def _with_star(spec: MapSpec, star: StarSpec, header: Sequence[str]) -> MapSpec:
    """The map with an entry for each column that `"*"` takes."""
    taken = star_keys(star, header, set(spec.entries))
    for key, column in taken.items():
        longest = spec.shape.key.maximum
        if longest is not None and len(key) > longest:
            star.node.refuse(
                f'"*" makes a key of {len(key):,} characters of the column "{name_shown(column)}"; '
                f'at most {longest:,} are allowed. Add it to "except".'
            )
    added: dict[str, Spec] = {
        key: LeafSpec(
            f"{spec.path}.{name_shown(key)}",
            spec.shape.value,
            star.node,
            Template(((column, True),)),
            ValueSpec(column=column),
        )
        for key, column in taken.items()
    }
    return MapSpec(spec.path, spec.shape, spec.entries | added, None)


def _is_untouched(spec: StructureSpec) -> bool:
    """Whether nothing stands in a structure but what an AWS CLI skeleton fills it with."""
    leaves = list(iter_leaves(spec))
    texts = [leaf.template.constant for leaf in leaves]
    return (
        (not leaves or "" in texts)
        and all(leaf.value.is_plain for leaf in leaves)
        and all(
            text == "" or text in leaf.shape.enum or (leaf.shape.kind, text) == ("integer", "0")
            for leaf, text in zip(leaves, texts, strict=True)
        )
    )
