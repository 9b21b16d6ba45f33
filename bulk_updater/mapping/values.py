"""The parts of a mapping file that the API does not know: `source`, and how a value is made.

pydantic checks them; `validate` turns its first complaint into a `MappingError` at the line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bulk_updater.config import SourceFormat
from bulk_updater.mapping.nodes import Node, nearest
from bulk_updater.mapping.templates import TemplateSyntaxError, parse_template

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Condition", "SourceSpec", "StarModel", "ValueSpec", "validate"]

_M = TypeVar("_M", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class Condition(_Model):
    """One condition of `source.where`: a column and one thing that its cell must be.

    Attributes:
        column: The column; its cell is compared as it stands, untrimmed.
        in_: The cell is one of these.
        not_in: The cell is none of these.
        equals: The cell is this.
        not_: The cell is not this.
        matches: A Python regular expression that is found in the cell.
    """

    column: str
    in_: Annotated[list[str] | None, Field(alias="in", min_length=1)] = None
    not_in: Annotated[list[str] | None, Field(min_length=1)] = None
    equals: str | None = None
    not_: Annotated[str | None, Field(alias="not")] = None
    matches: str | None = None

    @field_validator("matches")
    @classmethod
    def _is_regular_expression(cls, matches: str | None) -> str | None:
        if matches is not None:
            try:
                re.compile(matches)
            except re.error as error:
                raise ValueError(f"this is not a regular expression: {error}") from None
        return matches

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        asked = [self.in_, self.not_in, self.equals, self.not_, self.matches]
        if sum(question is not None for question in asked) != 1:
            raise ValueError("a condition has exactly one of in, not_in, equals, not, matches")
        return self


class SourceSpec(_Model):
    """How the source is written, and which of its rows are meant.

    Attributes:
        encoding: A Python codec name; a byte order mark is understood.
        delimiter: One character, or `auto`.
        where: Conditions that a row must all meet; one that does not is SKIPPED.
    """

    encoding: str = "utf-8"
    delimiter: str = ","
    where: tuple[Condition, ...] = ()

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, delimiter: str) -> str:
        delimiter = {r"\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        if delimiter != "auto" and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
            raise ValueError('a delimiter is one character, such as ";" or "\\t", or auto')
        return delimiter

    @property
    def format(self) -> SourceFormat:
        """What a reader has to know."""
        return SourceFormat(encoding=self.encoding, delimiter=self.delimiter)


class ValueSpec(_Model):
    """A value that is made from a row: where it comes from and what is done to it, in order.

    Attributes:
        column: The column that it comes from.
        template: Text and `{columns}`, instead of `column`.
        strip: Drop white space at both ends, first of all.
        map: Replace known texts; one that is not known needs `default`.
        date: The format that the text is read with (Python's strptime; `%s` alone is seconds
            since the epoch).
        format: The format that it is written with (Python's strftime; `%s` as above).
        lower: Make it lower case.
        upper: Make it upper case.
        default: Text for an empty cell, and for one that `map` does not know.
        truncate_bytes: UTF-8 bytes to keep at the most, from 1; whole characters only.
        empty: What an empty value means: leave the member out, send `""`, or refuse the row.
    """

    column: str | None = None
    template: str | None = None
    strip: bool = False
    map: dict[str, str] | None = None
    date: str | None = None
    format: str | None = None
    lower: bool = False
    upper: bool = False
    default: str | None = None
    truncate_bytes: Annotated[int | None, Field(ge=1)] = None
    empty: Literal["skip", "erase", "reject"] = "skip"

    @field_validator("default")
    @classmethod
    def _is_constant(cls, default: str | None) -> str | None:
        if default is None:
            return None
        constant = parse_template(default).constant
        if constant is None:
            raise ValueError(
                'a default is constant text and cannot name a column; "{{" and "}}" are braces'
            )
        return constant

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.column is None) == (self.template is None):
            raise ValueError("a value comes from exactly one of column and template")
        if (self.date is None) != (self.format is None):
            raise ValueError(
                "date says how the text is read and format how it is written; both are needed"
            )
        if self.lower and self.upper:
            raise ValueError("lower and upper exclude each other")
        return self


class StarModel(_Model):
    """`"*"`: a prefix for every key, and the columns to leave out."""

    prefix: str = ""
    except_: Annotated[tuple[str, ...], Field(alias="except")] = ()


def validate(model: type[_M], node: Node, what: str) -> _M:
    """A pydantic model of a node; its first error becomes a MappingError at its line."""
    node.items(f'"{what}"')
    try:
        return model.model_validate(node.plain())
    except TemplateSyntaxError as error:
        node.refuse(f"{what}: {error}")
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False)[0]
        location = first["loc"]
        where = ".".join(str(step) for step in (what, *location))
        if first["type"] == "extra_forbidden":
            holder = node.at(location[:-1])
            key = str(location[-1])
            keys = _keys_of(model, location[:-1])
            holder.refuse(f'"{key}" is not a key of {what}. {nearest(key, keys)}', key=key)
        if first["type"] == "missing":
            node.at(location).refuse(f'{what} lacks the key "{location[-1]}".')
        message = first["msg"].removeprefix("Value error, ")
        node.at(location).refuse(f"{where}: {message[:1].lower()}{message[1:].rstrip('.')}.")


def _keys_of(model: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The keys that a model allows at a place inside it."""
    inner = Condition if "where" in location else model
    return [field.alias or name for name, field in inner.model_fields.items()]
