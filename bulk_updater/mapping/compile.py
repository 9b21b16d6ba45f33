"""A mapping compiled against a header: frames in, requests out, column by column.

Only when a request is really asked for are cells turned into Python objects. So `plan` over a
million rows never builds a request.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulk_updater.errors import SourceError
from bulk_updater.mapping import transforms
from bulk_updater.mapping.mapped import NEVER, Breach, Breaches, MappedFrame, MappedOperation
from bulk_updater.mapping.nodes import name_shown, nearest
from bulk_updater.mapping.parts import Leaf, compile_part
from bulk_updater.mapping.request import MapSpec, RequestSpec, id_of_arn, iter_leaves
from bulk_updater.mapping.started import Started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from bulk_updater.mapping.nodes import Node
    from bulk_updater.mapping.request import LeafSpec
    from bulk_updater.mapping.spec import MappingSpec
    from bulk_updater.mapping.values import Condition
    from bulk_updater.model import Frame
    from bulk_updater.operations import ByteLimit

__all__ = ["CompiledMapping", "compile_mapping"]


class _CompiledRequest:
    """One operation's request, compiled."""

    def __init__(
        self, spec: RequestSpec, header: Sequence[str], expect_instance: str | None
    ) -> None:
        self.operation = spec.operation
        self._expect_instance = expect_instance
        members = {name: compile_part(member, header) for name, member in spec.members.items()}
        self._contact = cast("Leaf", members.pop(spec.operation.contact_member))
        self._instance = cast("Leaf", members.pop(spec.operation.instance_member))
        self._members = members
        self.columns = tuple(
            dict.fromkeys(
                name
                for part in (self._contact, self._instance, *members.values())
                for name in part.columns
            )
        )

    def map_frame(
        self,
        cells: Mapping[str, Any],
        kept: npt.NDArray[np.int64],
        frame: Frame,
        note_unread: Callable[[Breaches], None],
    ) -> MappedOperation:
        """Map the rows of a frame at the positions `kept`; `cells` holds those only."""
        n_rows = len(kept)
        breaches = Breaches(n_rows)
        contacts = self._contact.contacts(cells, n_rows, breaches)
        instances = self._instance.instances(cells, n_rows, breaches, self._expect_instance)
        ids_fit = breaches.of_row < 0
        note_unread(breaches)
        parts = {
            name: member.part(cells, n_rows, breaches) for name, member in self._members.items()
        }
        for limit in self.operation.byte_limits:
            if limit.member in parts:
                self._check_bytes(limit, parts[limit.member].size, breaches)
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

    def _check_bytes(
        self, limit: ByteLimit, size: npt.NDArray[np.integer[Any]], breaches: Breaches
    ) -> None:
        breaches.add(
            size > limit.max_bytes,
            lambda: Breach(
                limit.rule,
                limit.member,
                self._members[limit.member].columns,
                lambda at: (
                    f"has {size[at]:,} UTF-8 bytes over all keys and values; at most "
                    f"{limit.max_bytes:,} are allowed."
                ),
            ),
        )


class CompiledMapping:
    """A mapping that is ready for the frames of one source.

    Attributes:
        columns: The columns that it uses, each once; a reader need read no others.
        operations: Its operations, in the file's order.
    """

    def __init__(
        self, spec: MappingSpec, header: Sequence[str], expect_instance: str | None = None
    ) -> None:
        self._requests = [
            _CompiledRequest(request, header, expect_instance) for request in spec.requests
        ]
        self._started = None if spec.started is None else Started(spec.started)
        self._where = [
            (_compile_condition(condition), condition) for condition in spec.source.where
        ]
        self.operations = tuple(request.operation for request in self._requests)
        self.columns = tuple(
            dict.fromkeys(
                [
                    *(condition.column for condition in spec.source.where),
                    *([] if spec.started is None else [spec.started.column]),
                    *(name for request in self._requests for name in request.columns),
                ]
            )
        )

    def map_frame(self, frame: Frame) -> MappedFrame:
        """Map a frame that holds at least `columns`, as text.

        Raises:
            SourceError: If the frame lacks a column or holds anything but text in one.
        """
        cells = {name: _arrow_texts(frame, name) for name in self.columns}
        holds = np.ones(len(frame.rows), dtype=np.bool_)
        for condition_holds, condition in self._where:
            holds &= condition_holds(cells[condition.column])
        if not holds.all():  # the rows that `where` leaves out cost nothing further
            mask = pa.array(holds)
            cells = {name: texts.filter(mask) for name, texts in cells.items()}
        kept = np.flatnonzero(holds)
        expires_at = np.full(len(frame.rows), NEVER, dtype=np.int64)
        note_unread: Callable[[Breaches], None] = _note_nothing
        if self._started is not None:
            expires_at[kept], unread = self._started.expiries(cells)
            note_unread = partial(self._started.note_unread, unread)
        return MappedFrame(
            frame,
            tuple(request.map_frame(cells, kept, frame, note_unread) for request in self._requests),
            expires_at,
        )


def _note_nothing(_: Breaches) -> None:
    """Where nothing says when contacts were initiated, nothing about it is wrong."""


def _arrow_texts(frame: Frame, name: str) -> Any:
    """A frame's column as one Arrow array of text, null as empty."""
    if name not in frame.cells.columns:
        raise SourceError(f'the frame has no column "{name}".', source=frame.source)
    column = frame.cells[name]
    if column.ndim != 1 or len(column) != len(frame.rows):
        raise SourceError(
            f'the frame has the column "{name}" more than once, or not as many cells as row '
            "numbers.",
            source=frame.source,
        )
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        raise SourceError(_not_text(name, "values of several types"), source=frame.source) from None
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if array.type != pa.string():
        is_text = pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type)
        if not is_text and array.null_count < len(array):
            raise SourceError(_not_text(name, str(array.type)), source=frame.source)
        array = array.cast(pa.string()) if is_text else pa.nulls(len(array), pa.string())
    return pc.fill_null(array, "") if array.null_count else array


def _not_text(name: str, found: str) -> str:
    return (
        f'the column "{name}" holds {found}, not text. Types are never guessed here: convert it '
        "to text as it should be sent, and leave nothing or None where it is empty."
    )


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
    with warnings.catch_warnings(action="ignore"):  # the pattern is the user's own
        found = re.compile(condition.matches or "").search
    return lambda texts: transforms.matches(texts, found)


def compile_mapping(
    spec: MappingSpec, header: Sequence[str], source: str, *, expect_instance: str | None = None
) -> CompiledMapping:
    """Compile a mapping against a source's header.

    Args:
        spec: The mapping.
        header: The source's columns, in order, each once.
        source: The source's name, for errors.
        expect_instance: The only instance that may be written to, as its id or its ARN; None for
            any. A row that names another is INVALID.

    Raises:
        MappingError: If the mapping names a column that the source does not have, `"*"` makes two
            equal keys, or the mapping names another instance than the one expected.
    """
    _check_columns(spec, header, source)
    expected = None if expect_instance is None else id_of_arn(expect_instance)
    if expected is not None:
        for request in spec.requests:
            _check_instance(request, expected)
    return CompiledMapping(spec, header, expected)


def _check_instance(request: RequestSpec, expected: str) -> None:
    member = request.operation.instance_member
    leaf = cast("LeafSpec", request.members[member])
    if leaf.template.columns:
        return  # each row's own is looked at when it is mapped
    (named,) = Leaf(leaf).instances({}, 1, Breaches(1)).to_pylist()
    if named != expected:
        leaf.node.refuse(
            f'--expect-instance allows only "{name_shown(expected)}", and {member} of '
            f'{request.operation.name} is "{name_shown(named)}". Nothing was sent. Name the same '
            "instance in both, or leave the flag out."
        )


def _check_columns(spec: MappingSpec, header: Sequence[str], source: str) -> None:
    known = set(header)
    for column, node in _named_columns(spec):
        if column not in known:
            node.refuse(f'{source} has no column "{name_shown(column)}". {nearest(column, header)}')


def _named_columns(spec: MappingSpec) -> Iterator[tuple[str, Node]]:
    """Every column that the mapping names, with where it does."""
    if spec.source_node is not None:
        for index, condition in enumerate(spec.source.where):
            yield condition.column, spec.source_node.at(("where", index, "column"))
    if spec.started is not None and spec.started_node is not None:
        yield spec.started.column, spec.started_node.at(["column"])
    for request in spec.requests:
        for member in request.members.values():
            for leaf in iter_leaves(member):
                origin = leaf.node.at(["column" if leaf.value.template is None else "template"])
                for column in leaf.template.columns:
                    yield column, origin
            if isinstance(member, MapSpec) and member.star is not None:
                for index, column in enumerate(member.star.except_):
                    yield column, member.star.node.at(["except", index])
