"""Templates: text with columns in braces, such as `{First Name} {Last Name}`.

A column's name may hold anything but braces. `{{` and `}}` stand for one brace each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Template", "TemplateSyntaxError", "parse_template"]

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class TemplateSyntaxError(ValueError):
    """A brace without its other half, or nothing between two."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        parts: Literal text and columns in order; `(text, False)` or `(column, True)`.
    """

    parts: tuple[tuple[str, bool], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, each once, in order."""
        return tuple(dict.fromkeys(text for text, is_column in self.parts if is_column))

    @property
    def constant(self) -> str | None:
        """Its text if it names no column, or else None."""
        if self.columns:
            return None
        return "".join(text for text, _ in self.parts)


def parse_template(text: str) -> Template:
    """Parse a template.

    Args:
        text: Text and `{columns}`; `{{` and `}}` are braces.

    Raises:
        TemplateSyntaxError: If a brace stands alone or names no column.
    """
    parts: list[tuple[str, bool]] = []
    literal: list[str] = []
    position = 0
    for match in _TOKEN.finditer(text):
        literal.append(text[position : match.start()])
        position = match.end()
        token = match.group()
        if token in ("{{", "}}"):
            literal.append(token[0])
            continue
        if match.group(1) is None:
            raise TemplateSyntaxError(
                f'the brace "{token}" at character {match.start() + 1} has no other half. Write '
                f'"{token * 2}" for a brace that is text.'
            )
        if not match.group(1):
            raise TemplateSyntaxError(
                'there is no column between the braces of "{}". Write "{{}}" for braces that are '
                "text."
            )
        if "".join(literal):
            parts.append(("".join(literal), False))
        literal = []
        parts.append((match.group(1), True))
    literal.append(text[position:])
    if "".join(literal):
        parts.append(("".join(literal), False))
    return Template(tuple(parts))
