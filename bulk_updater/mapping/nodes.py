"""YAML text to a tree that remembers its lines, in which every scalar is text.

PyYAML's own constructors turn `no` into False, `007` into 7 and `12:30` into 750, and keep the
last of two equal keys without a word. Here nothing is constructed: the text is composed into
nodes, and the nodes become text, lists and dicts that know where they stand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from bulk_updater.errors import MappingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Node", "compose", "name_shown", "nearest", "shortened"]

_MAX_NODES = 100_000
"""More nodes than any mapping has; aliases of aliases can multiply a short file without end."""

_MAX_DEPTH = 64
"""Deeper than any request is nested."""

_MAX_CHARACTERS = 2 * 1024 * 1024
"""More text than any mapping has; an alias can multiply a long one as well."""

_MAX_SHOWN = 60
"""Characters of a text of the file that an error shows."""

_MAX_EXPLAINED = 200
"""Characters of a sentence of PyYAML's, which may quote the file, that an error shows."""

_MAX_COMPARED = 200
"""Characters of the longest name that is looked for among others: likeness takes cubic time."""

_MAX_LISTED = 20
"""Names that an error lists."""

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
_SURROGATE = re.compile("[\ud800-\udfff]")
_BARE_BRACE = re.compile(r"""[:-]\s+\{[^{}"':,]+\}""")
_TAB = "found character '\\t' that cannot start any token"
_TOO_DEEP = f"this is nested too deeply to be a mapping: more than {_MAX_DEPTH} levels."


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
        return f'the text "{shortened(self.value)}"' if self.value else "nothing"

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


def shortened(text: str, max_shown: int = _MAX_SHOWN) -> str:
    """A text of the mapping file on one line, as an error shows it."""
    return name_shown(" ".join(text.split()), max_shown)


def name_shown(name: str, max_shown: int = _MAX_SHOWN) -> str:
    """The name of a column or a key, its blanks kept, as an error shows it.

    Of bounded length; what a terminal would not show, or would obey, is escaped.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in name[:max_shown]
    )
    return shown if len(name) <= max_shown else shown + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """What is allowed instead of a name: the one that is most like it first, then all."""
    names = list(known)
    by_folded = {
        candidate.casefold(): candidate
        for candidate in reversed(names)
        if max(len(candidate), len(name)) <= _MAX_COMPARED
    }
    close = get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=0.6)
    more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
    said = [f'Did you mean "{name_shown(by_folded[found])}"?' for found in close]
    if names:
        said.append(f"Known: {', '.join(map(name_shown, names[:_MAX_LISTED]))}{more}.")
    return " ".join(said)


class _Loader(yaml.BaseLoader):
    """PyYAML's loader, which also takes JSON as it is pasted, and knows when it is enough.

    Args:
        text: The file's text.
        path: The file, for errors.
    """

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path = path
        self._n_nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Refused while it is read: a file of brackets would take half a minute to its end.
        self._n_nodes += 1
        self._depth += 1
        if self._n_nodes > _MAX_NODES or self._depth > _MAX_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise MappingError(
                _TOO_DEEP
                if self._depth > _MAX_DEPTH
                else f"more than {_MAX_NODES:,} values; a mapping has at most a few hundred.",
                path=self._path,
                line=event.start_mark.line + 1,
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def scan_to_next_token(self) -> None:
        # YAML allows tabs between the tokens of a flow; PyYAML refuses them everywhere.
        super().scan_to_next_token()
        while self.flow_level and self.peek() == "\t":
            self.forward()
            super().scan_to_next_token()

    def save_possible_simple_key(self) -> None:
        # A brace at the left margin is JSON that was pasted below its key, not a key of many lines.
        super().save_possible_simple_key()
        key = self.possible_simple_keys.get(self.flow_level)
        if key is not None and self.peek() == "{":
            key.required = False


def compose(text: str, path: Path) -> Node:
    """Parse YAML (or JSON, which is YAML) into nodes.

    Args:
        text: The file's text.
        path: The file, for errors.

    Raises:
        MappingError: If the text is not YAML, is empty, repeats a key, carries a tag, or refers
            to itself.
    """
    loader = None
    try:
        loader = _Loader(text, path)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise MappingError(_explain(error, text, line), path=path, line=line) from None
    except yaml.reader.ReaderError as error:
        raise MappingError(
            f"this is not YAML: it holds the character U+{error.character:04X}, which is not text.",
            path=path,
            line=text.count("\n", 0, error.position) + 1,
        ) from None
    except (ValueError, OverflowError):
        raise MappingError(
            "this is not YAML: an escape in it, such as \\U0001F600, is no character.",
            path=path,
            line=None if loader is None else loader.line + 1,
        ) from None
    if root is None:
        raise MappingError(
            "the file is empty. A mapping names an operation, such as update_contact_attributes; "
            "`bulk-updater skeleton update_contact_attributes` prints one to start from.",
            path=path,
        )
    return _Composer(path).convert(root)


def _explain(error: yaml.MarkedYAMLError, text: str, line: int | None) -> str:
    problem = shortened(error.problem or error.context or "it cannot be parsed", _MAX_EXPLAINED)
    if problem == _TAB:
        problem = "a tab stands here, and YAML is indented with spaces"
    lines = text.splitlines()
    if line is not None and line <= len(lines) and _BARE_BRACE.search(lines[line - 1]):
        return (
            f"this is not YAML: {problem}. Text that begins with a brace needs quotes, as in "
            '"{First Name} {Last Name}".'
        )
    return f"this is not YAML: {problem}."


class _Composer:
    """Turns PyYAML's nodes into ours, and refuses what a mapping must not hold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._n_nodes = 0
        self._n_characters = 0
        self._above: set[int] = set()

    def convert(self, node: yaml.Node) -> Node:
        line = node.start_mark.line + 1
        self._n_nodes += 1
        if self._n_nodes > _MAX_NODES:
            self._refuse(
                f"more than {_MAX_NODES:,} values once its aliases are followed; a mapping has "
                "at most a few hundred.",
                line,
            )
        if node.tag not in _PLAIN_TAGS:
            self._refuse(
                f'the tag "{shortened(node.tag)}" is not allowed: every value here is text. '
                "Quote it instead.",
                line,
            )
        if id(node) in self._above:
            self._refuse("this alias refers to itself.", line)
        if len(self._above) >= _MAX_DEPTH:
            self._refuse(_TOO_DEEP, line)
        self._above.add(id(node))
        try:
            return Node(*self._contents(node, line))
        finally:
            self._above.discard(id(node))

    def _contents(
        self, node: yaml.Node, line: int
    ) -> tuple[str | list[Node] | dict[str, Node], Path, int, dict[str, int]]:
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item) for item in node.value], self._path, line, {}
        if not isinstance(node, yaml.MappingNode):
            return self._text(str(node.value), line), self._path, line, {}
        values: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            key = self.convert(key_node).text("A key")
            if key in values:
                self._refuse(
                    f'the key "{shortened(key)}" stands here a second time; the first is on line '
                    f"{key_lines[key]}. Keep one of them.",
                    key_line,
                )
            key_lines[key] = key_line
            values[key] = self.convert(value_node)
        return values, self._path, line, key_lines

    def _text(self, text: str, line: int) -> str:
        """Text with the surrogate pairs joined that JSON escapes the rarer characters with."""
        self._n_characters += len(text)
        if self._n_characters > _MAX_CHARACTERS:
            self._refuse(
                f"more than {_MAX_CHARACTERS:,} characters once its aliases are followed; a "
                "mapping has at most a few thousand.",
                line,
            )
        if "\0" in text:
            self._refuse("an escape here is a NUL character, which is not text.", line)
        if not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._refuse("an escape here is half a surrogate pair, which is no character.", line)

    def _refuse(self, message: str, line: int) -> NoReturn:
        raise MappingError(message, path=self._path, line=line)
