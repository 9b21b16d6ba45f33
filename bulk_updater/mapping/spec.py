"""A mapping file that makes sense by itself: its text parsed, its parts checked.

Every refusal is a `MappingError` with the line, what was found there and what is allowed.
"""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulk_updater.errors import MappingError
from bulk_updater.mapping.nodes import Node, compose, name_shown, nearest
from bulk_updater.mapping.regexes import may_take_for_ever
from bulk_updater.mapping.request import RequestParser, RequestSpec
from bulk_updater.mapping.values import SourceSpec, StartedSpec, validate
from bulk_updater.operations import OPERATION_NAMES, get_operation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MappingSpec", "load_spec", "parse_spec"]

_STARTED = "contact_started"

_MAX_BYTES = 1024 * 1024
"""A mapping is written by a person; anything larger than 1 MiB is some other file."""


@dataclass(frozen=True, slots=True)
class MappingSpec:
    """A mapping file that makes sense by itself.

    Attributes:
        path: The file.
        digest: SHA-256 of its bytes, in hex.
        source: Its `source` part.
        source_node: Where that stands; None where the file has none.
        started: Its `contact_started` part; None where the file has none.
        started_node: Where that stands; likewise.
        requests: Its operations, in the file's order.
        warnings: What is unusual but allowed, in sentences.
    """

    path: Path
    digest: str
    source: SourceSpec
    source_node: Node | None
    started: StartedSpec | None
    started_node: Node | None
    requests: tuple[RequestSpec, ...]
    warnings: tuple[str, ...]


def load_spec(path: Path) -> MappingSpec:
    """Read a mapping file.

    Args:
        path: The file: YAML or JSON, in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        MappingError: If it cannot be read or is not a mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except IsADirectoryError:
        raise MappingError("this is a directory; name the mapping file in it.", path=path) from None
    except FileNotFoundError:
        raise MappingError(
            "there is no such file. `bulk-updater skeleton update_contact_attributes` prints a "
            "mapping to start from.",
            path=path,
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its path holds a NUL character"
        raise MappingError(f"it cannot be read ({why}).", path=path) from None
    if len(raw) > _MAX_BYTES:
        raise MappingError(
            "it is larger than 1 MiB. Is it the export? The mapping comes first: "
            "bulk-updater run MAPPING SOURCE.",
            path=path,
        )
    return parse_spec(_decode(raw, path), path, hashlib.sha256(raw).hexdigest())


def _decode(raw: bytes, path: Path) -> str:
    # PowerShell writes UTF-16 with a mark where it redirects what a command prints.
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise MappingError(
            "this is not UTF-8 text. Save the mapping as UTF-8.", path=path, line=line
        ) from None


def parse_spec(text: str, path: Path, digest: str = "") -> MappingSpec:
    """Parse the text of a mapping file.

    Args:
        text: The text.
        path: The file that it came from, for errors.
        digest: The file's SHA-256.

    Raises:
        MappingError: If it is not a mapping.
    """
    root = compose(text, path)
    if not isinstance(root.value, dict):
        # Not quoted: it may be an export, and then it would be somebody's cells.
        raise MappingError(
            "this is no mapping: a mapping file holds keys with values. Is it the export? The "
            "mapping comes first: bulk-updater run MAPPING SOURCE.",
            path=path,
            line=root.line,
        )
    parts = root.value
    known = ("source", _STARTED, *OPERATION_NAMES)
    for key in parts:
        if key not in known:
            root.refuse(
                f'"{name_shown(key)}" is not a key of a mapping. {nearest(key, known)}', key=key
            )
    _refuse_started_elsewhere(parts)
    source_node, started_node = _part(parts, "source"), _part(parts, _STARTED)
    source = SourceSpec() if source_node is None else validate(SourceSpec, source_node, "source")
    started = None if started_node is None else validate(StartedSpec, started_node, _STARTED)
    parser = RequestParser()
    requests = tuple(
        parser.parse(get_operation(name), node)
        for name, node in parts.items()
        if name in OPERATION_NAMES
    )
    if not requests:
        raise MappingError(
            f"no operation is named. Add one of {' and '.join(OPERATION_NAMES)}, or both.",
            path=path,
            line=root.line,
        )
    warnings = (*_warn_of_expressions(source, source_node), *parser.warnings)
    return MappingSpec(path, digest, source, source_node, started, started_node, requests, warnings)


def _part(parts: dict[str, Node], key: str) -> Node | None:
    """A part of the file; nothing behind its name (`source:`) is the same as no key."""
    node = parts.get(key)
    return None if node is None or node.value == "" else node


def _refuse_started_elsewhere(parts: dict[str, Node]) -> None:
    for name, node in parts.items():
        if name != _STARTED and isinstance(node.value, dict) and _STARTED in node.value:
            node.refuse(
                f'"{_STARTED}" stands in {name}, and belongs beside it: move it to the left '
                "margin, a key of its own.",
                key=_STARTED,
            )


def _warn_of_expressions(source: SourceSpec, node: Node | None) -> Iterator[str]:
    for index, condition in enumerate(source.where):
        if node is not None and may_take_for_ever(condition.matches or ""):
            origin = node.at(("where", index, "matches"))
            yield (
                f"{origin.path}, line {origin.line}: this regular expression repeats a group that "
                "itself repeats something, so a single cell may take it hours, and nothing can "
                "interrupt it. Make the inner repeat possessive, as in (a++b)*, or write it "
                "without a group."
            )
