"""YAML text to a tree that remembers its lines, in which every scalar is text.

PyYAML's own constructors turn `no` into False, `007` into 7 and `12:30` into 750, and keep the
last of two equal keys without a word. Here nothing is constructed: the text is composed into
nodes, and the nodes become text, lists and dicts that know where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

import yaml

from bulk_updater.errors import MappingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Node", "compose", "nearest"]

_MAX_NODES = 100_000
"""More nodes than any mapping has; aliases of aliases can multiply a short file without end."""

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the mapping file.

    Attributes:
        value: Text, a list of nodes, or a dict of them by key.
        path: The mapping file.
        line: The line that it begins on, from 1.
        key_lines: For a dict: the line of each key.
    """

    value: str | list[Node] | dict[str, Node]
    path: Path
    line: int
    key_lines: dict[str, int]

    def refuse(self, message: str, *, key: str | None = None) -> NoReturn:
        """Raise a MappingError at this node, or at one of its keys."""
        line = self.line if key is None else self.key_lines[key]
        raise MappingError(message, path=self.path, line=line)

    def text(self, what: str) -> str:
        """The node as text; `what` names it in the error if it is none."""
        if not isinstance(self.value, str):
            self.refuse(f"{what} must be text, and {self.kind} stands here.")
        return self.value

    def items(self, what: str) -> dict[str, Node]:
        """The node as keys and values; `what` names it in the error if it has none."""
        if not isinstance(self.value, dict):
            self.refuse(f"{what} must be keys with values, and {self.kind} stands here.")
        return self.value

    @property
    def kind(self) -> str:
        """What stands here, in words."""
        if isinstance(self.value, dict):
            return "a group of keys"
        if isinstance(self.value, list):
            return "a list"
        return "text" if self.value else "nothing"

    def plain(self) -> object:
        """The node as plain text, lists and dicts."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, location: Iterable[str | int]) -> Node:
        """The innermost node that exists on a path of keys and positions."""
        node = self
        for step in location:
            if isinstance(node.value, dict) and str(step) in node.value:
                node = node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int):
                node = node.value[step]
            else:
                break
        return node


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the known name most like this one, or all of them if none is."""
    names = list(known)
    by_folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    close = get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=0.6)
    if close:
        return f'Did you mean "{by_folded[close[0]]}"?'
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")  # noqa: PLR2004
    return f"Known: {shown}." if names else ""


def compose(text: str, path: Path) -> Node:
    """Parse YAML (or JSON, which is YAML) into nodes.

    Args:
        text: The file's text.
        path: The file, for errors.

    Raises:
        MappingError: If the text is not YAML, is empty, repeats a key, carries a tag, or refers
            to itself.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        problem = error.problem or error.context or "it cannot be parsed"
        raise MappingError(f"this is not YAML: {problem}.", path=path, line=line) from None
    except yaml.YAMLError as error:
        reason = getattr(error, "reason", "it cannot be parsed")
        raise MappingError(f"this is not YAML: {reason}.", path=path) from None
    except RecursionError:
        raise MappingError("this is nested too deeply to be a mapping.", path=path) from None
    if root is None:
        raise MappingError(
            "the file is empty. A mapping names an operation, such as update_contact_attributes; "
            "`bulk-updater skeleton update_contact_attributes` prints one to start from.",
            path=path,
        )
    return _Composer(path).convert(root)


class _Composer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._n_nodes = 0
        self._above: set[int] = set()

    def convert(self, node: yaml.Node) -> Node:
        line = node.start_mark.line + 1
        self._n_nodes += 1
        if self._n_nodes > _MAX_NODES:
            raise MappingError(
                f"more than {_MAX_NODES:,} values once its aliases are followed; a mapping has "
                "at most a few hundred.",
                path=self._path,
                line=line,
            )
        if node.tag not in _PLAIN_TAGS:
            raise MappingError(
                f'the tag "{node.tag}" is not allowed: every value here is text. Quote it instead.',
                path=self._path,
                line=line,
            )
        if id(node) in self._above:
            raise MappingError("this alias refers to itself.", path=self._path, line=line)
        self._above.add(id(node))
        try:
            return self._convert_value(node, line)
        finally:
            self._above.discard(id(node))

    def _convert_value(self, node: yaml.Node, line: int) -> Node:
        if isinstance(node, yaml.SequenceNode):
            return Node([self.convert(item) for item in node.value], self._path, line, {})
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Node] = {}
            key_lines: dict[str, int] = {}
            for key_node, value_node in node.value:
                key_line = key_node.start_mark.line + 1
                key = self.convert(key_node).text("A key")
                if key in values:
                    raise MappingError(
                        f'the key "{key}" stands here a second time; the first is on line '
                        f"{key_lines[key]}. Keep one of them.",
                        path=self._path,
                        line=key_line,
                    )
                key_lines[key] = key_line
                values[key] = self.convert(value_node)
            return Node(values, self._path, line, key_lines)
        return Node(str(node.value), self._path, line, {})
