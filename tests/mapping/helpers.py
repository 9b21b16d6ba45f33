"""Mappings and frames for the tests of the mapping room, written briefly."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bulk_updater.errors import MappingError
from bulk_updater.mapping import compile_mapping, parse_spec
from bulk_updater.model import Frame, Outcome, Request, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulk_updater.mapping import MappedFrame, MappingSpec

PATH = Path("mapping.yaml")
INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
SOURCE = "export.csv"


def attributes(*lines: str, contact: str = '"{id}"', before: str = "") -> str:
    """A mapping of update_contact_attributes; alone, its attributes begin on line 5."""
    return (
        f"{before}update_contact_attributes:\n  InstanceId: {INSTANCE}\n"
        f"  InitialContactId: {contact}\n  Attributes:\n"
        + "".join(f"    {line}\n" for line in lines)
    )


def contact(*lines: str, before: str = "") -> str:
    """A mapping of update_contact; alone, its members begin on line 4."""
    return f'{before}update_contact:\n  InstanceId: {INSTANCE}\n  ContactId: "{{id}}"\n' + "".join(
        f"{textwrap.indent(textwrap.dedent(line), '  ')}\n" for line in lines
    )


def parse(text: str) -> MappingSpec:
    return parse_spec(text, PATH)


def _compile(text: str, header: Sequence[str] | None) -> None:
    spec = parse(text)
    if header is not None:
        compile_mapping(spec, header, SOURCE)


def refusal(text: str, header: Sequence[str] | None = None) -> str:
    """What a mapping is refused with, behind the file's name: `line N: …`."""
    with pytest.raises(MappingError) as caught:
        _compile(text, header)
    error = caught.value
    assert error.path == PATH
    where = "mapping.yaml: " if error.line is None else f"mapping.yaml, line {error.line}: "
    assert error.message.startswith(where)
    return error.message.removeprefix("mapping.yaml").removeprefix(", ").removeprefix(": ")


def frame(cells: Mapping[str, Sequence[str]], first: int = 1) -> Frame:
    """A frame as a reader yields it."""
    n_rows = len(next(iter(cells.values())))
    text = pd.ArrowDtype(pa.string())
    return Frame(
        SOURCE,
        np.arange(first, first + n_rows, dtype=np.int64),
        pd.DataFrame(
            {
                name: pd.Series(pa.array(list(column), pa.string()), dtype=text)
                for name, column in cells.items()
            }
        ),
    )


def map_cells(text: str, cells: Mapping[str, Sequence[str]]) -> MappedFrame:
    return compile_mapping(parse(text), list(cells), SOURCE).map_frame(frame(cells))


def entries(text: str, cells: Mapping[str, Sequence[str]]) -> list[Request | Result]:
    """The entries of some rows; `id` is a column with a contact of each row's own, unless given."""
    n_rows = len(next(iter(cells.values())))
    return list(map_cells(text, {"id": [f"c{i}" for i in range(n_rows)], **cells}).entries())


def entry(text: str, **cells: str) -> Request | Result:
    """The entry of one row."""
    (found,) = entries(text, {name: [cell] for name, cell in (cells or {"unused": ""}).items()})
    return found


def sent(text: str, **cells: str) -> dict[str, Any]:
    """What one row writes, ids left out."""
    found = entry(text, **cells)
    assert isinstance(found, Request), found
    return {
        name: value
        for name, value in found.params.items()
        if name not in ("InstanceId", "InitialContactId", "ContactId")
    }


def value(spec: str, cell: str) -> str | None:
    """What the attribute `a` becomes from a cell in the column `C`; None where it is left out.

    Another attribute is always there, so that the row is always sent.
    """
    written = sent(attributes(f"a: {spec}", "other: o"), C=cell)["Attributes"]
    assert written.pop("other") == "o"
    assert set(written) <= {"a"}
    return written.get("a")


def invalid(text: str, **cells: str) -> tuple[str, str]:
    """The rule that one row breaks, and the sentence about it."""
    found = entry(text, **cells)
    assert isinstance(found, Result), found
    assert found.outcome is Outcome.INVALID
    assert found.error_code is not None
    assert found.error is not None
    return found.error_code, found.error
