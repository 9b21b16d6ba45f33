"""The parts of a mapping file that the API does not know: `source`, and how a value is made.

pydantic checks them; `validate` turns its first complaint into a `MappingError` at the line.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bulk_updater.config import SourceFormat
from bulk_updater.mapping import transforms
from bulk_updater.mapping.nodes import Node, name_shown, nearest, shortened
from bulk_updater.mapping.templates import parse_template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

__all__ = ["Condition", "SourceSpec", "StarModel", "StartedSpec", "ValueSpec", "validate"]

_M = TypeVar("_M", bound=BaseModel)

_MUST_BE = {
    "bool_parsing": "true or false",
    "dict_type": "keys with values",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number, and a smaller one",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "keys with values",
    "string_type": "text",
    "too_short": "a list of one at least",
    "tuple_type": "a list",
}
"""pydantic's complaints about a type, in the words of a mapping file."""

_ENCODINGS = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1250", "gb18030", "shift_jis", "cp437")
"""Encodings that exports come in; Python knows a hundred more."""

_MAX_EXPLAINED = 200
"""Characters of a sentence of Python's, which may quote the file, that an error shows."""

_DIRECTIVE = re.compile(r"%[-_0^#:]*(.?)", re.DOTALL)
_WRITABLE = frozenset("aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ%f")


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
        matches: A Python regular expression that is found in the cell. Python gives it all the
            time it takes, which is very long for some (see `regexes`) and grows with the square of
            the cell's length for others, such as ` +$`.
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
                with warnings.catch_warnings(action="ignore"):
                    re.compile(matches)
            except (re.error, OverflowError, RecursionError) as error:
                why = shortened(str(error), _MAX_EXPLAINED)
                raise ValueError(f"this is not a regular expression: {why}") from None
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

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "a".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(
                f'Python knows no text encoding "{shortened(encoding)}". '
                f"{nearest(encoding, _ENCODINGS)}"
            ) from None
        return encoding

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


def _readable(date: str | None) -> str | None:
    if date is not None and not transforms.is_readable(date):
        raise ValueError(
            f'Python cannot read a date of the form "{shortened(date)}"; write each directive '
            'once, such as "%d/%m/%Y", or "%s" alone for seconds since the epoch'
        )
    return date


class StartedSpec(_Model):
    """`contact_started`: when each row's contact was initiated.

    Attributes:
        column: The column that says it; an empty cell says nothing.
        date: The format that it is read with, as `ValueSpec.date`; None for ISO 8601 dates and
            date-times. Without a zone it is UTC, without a time the beginning of the day.
    """

    column: str
    date: str | None = None

    @field_validator("date")
    @classmethod
    def _is_readable(cls, date: str | None) -> str | None:
        return _readable(date)


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
        default: Text for what is empty by then, such as an empty cell, and for what `map` does
            not know.
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
    truncate_bytes: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
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

    @field_validator("date")
    @classmethod
    def _is_readable(cls, date: str | None) -> str | None:
        return _readable(date)

    @field_validator("format")
    @classmethod
    def _is_writable(cls, written: str | None) -> str | None:
        if written is not None:
            unknown = [d.group() for d in _DIRECTIVE.finditer(written) if d[1] not in _WRITABLE]
            if unknown or not transforms.is_writable(written):
                raise ValueError(
                    f'Python cannot write a date of the form "{shortened(written)}"; directives '
                    'are such as %Y, %m, %d, %H, %M and %S, and "%%" is a percent sign'
                )
        return written

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

    @property
    def is_plain(self) -> bool:
        """Whether a cell or a template is sent as it stands."""
        return self.model_fields_set <= {"column", "template"}


class StarModel(_Model):
    """`"*"`: a prefix for every key, and the columns to leave out."""

    prefix: str = ""
    except_: Annotated[tuple[str, ...], Field(alias="except")] = ()


def validate(model: type[_M], node: Node, what: str) -> _M:
    """A pydantic model of a node; its first error becomes a MappingError at its line."""
    node.items(what)
    try:
        return model.model_validate(node.plain())
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        # A key that is misspelt is told as that, and not as the one that is missing.
        errors.sort(key=lambda error: error["type"] != "extra_forbidden")
        _refuse(model, node, what, errors[0])


def _refuse(model: type[BaseModel], node: Node, what: str, error: ErrorDetails) -> NoReturn:
    *holder, last = error["loc"] or ("",)
    found = node.at(error["loc"])
    if error["type"] == "extra_forbidden":
        keys = [
            field.alias or name
            for name, field in (Condition if holder else model).model_fields.items()
        ]
        node.at(holder).refuse(
            f'"{name_shown(str(last))}" is not a key of {_named(what, holder)}. '
            f"{nearest(str(last), keys)}",
            key=str(last),
        )
    if error["type"] == "missing":
        found.refuse(f'{_named(what, holder)} lacks the key "{last}".')
    where = _named(what, error["loc"])
    if error["type"] in _MUST_BE:
        found.refuse(f"{where} must be {_MUST_BE[error['type']]}, and {found.kind} stands here.")
    if error["type"] == "value_error":
        complaint = str(error["ctx"]["error"]).rstrip(".")
        found.refuse(f"{where}: {complaint}.")
    message = error["msg"].removeprefix("Input should ")
    found.refuse(f"{where} should {message}, and {found.kind} stands here.")


def _named(what: str, location: Iterable[int | str]) -> str:
    """A place in the mapping file as `source.where[0].column`."""
    return what + "".join(
        f"[{step}]" if isinstance(step, int) else f".{name_shown(step)}" for step in location
    )
