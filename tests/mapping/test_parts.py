"""Limits of the parts of a request, at their edges: what just fits is sent, one more is INVALID."""

from __future__ import annotations

import pytest

from bulk_updater.model import Request
from bulk_updater.operations import get_operation

from .helpers import attributes, contact, entry, invalid, sent


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ('Name: "{C}"', 1024),
        ('UserInfo: {UserId: "{C}"}', 256),
        ('SegmentAttributes: {a: {ValueString: "{C}"}}', 1024),
        ('SegmentAttributes: {a: {ValueMap: {b: {ValueArn: "{C}"}}}}', 1024),
        ('CustomerEndpoint: {Type: VOIP, Address: "{C}"}', 256),
        ('References: {a: {Type: URL, StatusReason: "{C}"}}', 100),
    ],
)
def test_lengths_are_characters(line, limit, character):
    """The model's lengths count characters, not bytes."""
    assert isinstance(entry(contact(line), C=character * limit), Request)
    rule, error = invalid(contact(line), C=character * (limit + 1))
    assert rule == "too_long"
    assert error.endswith(
        f'(from "C") has {limit + 1:,} characters; at most {limit:,} are allowed.'
    )


def test_shortest():
    """A text that is shorter than the model's least is INVALID; an empty one is left out."""
    text = contact('References: {a: {Type: URL, Value: x, Arn: "{C}"}}', "Name: n")
    assert isinstance(entry(text, C="a" * 20), Request)
    assert invalid(text, C="a" * 19) == (
        "too_short",
        'row 1: References.a.Arn (from "C") has 19 characters; at least 20 are needed.',
    )
    assert sent(text, C="") == {"Name": "n"}


def test_pattern():
    """A text that does not match the model's pattern is INVALID."""
    text = contact('References: {a: {Type: URL, Value: x, Arn: "{C}"}}')
    assert invalid(text, C="_" * 20) == (
        "bad_pattern",
        'row 1: References.a.Arn (from "C") does not match ^[-:/A-Za-z0-9]+.',
    )


class TestAttributeBytes:
    """32,768 UTF-8 bytes over all keys and values."""

    TEXT = attributes('aa: "{A}"', "bbb: {column: B, empty: erase}", 'cccc: "{C}"')

    @pytest.mark.parametrize("character", ["x", "é", "😀"])
    def test_edge(self, character):
        """Exactly 32,768 bytes are sent; one more is INVALID and says how many."""
        room = 32_768 - len("aabbb")
        n_bytes = len(character.encode())
        fits = character * (room // n_bytes) + "x" * (room % n_bytes)
        found = entry(self.TEXT, A=fits, B="", C="")
        assert isinstance(found, Request)
        assert found.payload_bytes == 32_768
        assert invalid(self.TEXT, A=fits, B="x", C="") == (
            "attributes_too_large",
            (
                'row 1: Attributes (from "A", "B", "C") has 32,769 UTF-8 bytes over all keys and '
                "values; at most 32,768 are allowed."
            ),
        )

    def test_what_is_left_out_does_not_count(self):
        """A key that is left out has no bytes; one that is erased has its own."""
        assert entry(self.TEXT, A="x", B="", C="").payload_bytes == len("aax" + "bbb")
        assert entry(self.TEXT, A="x", B="y", C="z").payload_bytes == len("aaxbbbyccccz")

    def test_more_columns_are_counted(self):
        """Of many columns three are named."""
        text = attributes(*(f'a{i}: "{{C{i}}}"' for i in range(5)))
        _, error = invalid(text, **{f"C{i}": "x" * 7000 for i in range(5)})
        assert '(from "C0", "C1", "C2" and 2 more) has 35,010 UTF-8 bytes' in error


class TestReferenceBytes:
    """4,096 UTF-8 bytes over all references."""

    def test_edge(self):
        """Exactly 4,096 bytes over keys and all their texts are sent; one more is INVALID."""
        text = contact(
            'References: {k: {Type: URL, Value: "{A}"}, l: {Type: STRING, Value: "{B}"}}'
        )
        value = "é" * ((4096 - len("kURLlSTRING")) // 2) + "x"
        found = entry(text, A=value[:-3] + "xx", B="é")
        n_more = 4096 - found.payload_bytes
        assert 0 <= n_more <= 2
        assert entry(text, A=value[:-3] + "xx" + "x" * n_more, B="é").payload_bytes == 4096
        rule, error = invalid(text, A=value[:-3] + "xxx" + "x" * n_more, B="é")
        assert rule == "references_too_large"
        assert "has 4,097 UTF-8 bytes over all keys and values; at most 4,096" in error

    def test_references_that_are_left_out_do_not_count(self):
        """A reference without a value has no bytes, not even those of its type."""
        text = contact('References: {k: {Type: URL, Value: "{A}"}}', "Name: n")
        assert entry(text, A="").payload_bytes == 1
        assert entry(text, A="é").payload_bytes == len("nkURL") + 2

    def test_other_members_do_not_count(self):
        """The limit is over references alone."""
        text = contact('References: {k: {Type: URL, Value: "{A}"}}', 'Description: "{A}"')
        assert entry(text, A="x" * 4092).payload_bytes == 4092 * 2 + 4


class TestIntegers:
    TEXT = contact('SegmentAttributes: {a: {ValueInteger: "{C}"}}', "Name: n")

    @pytest.mark.parametrize(
        ("cell", "number"),
        [
            ("0", 0),
            ("-0", 0),
            ("+5", 5),
            ("-5", -5),
            ("007", 7),
            ("0" * 10_000 + "9", 9),
            ("2147483647", 2**31 - 1),
            ("-2147483648", -(2**31)),
        ],
    )
    def test_are_sent_as_numbers(self, cell, number):
        """A whole number is sent as a number, and its size is that of its digits."""
        found = entry(self.TEXT, C=cell)
        written = found.params["SegmentAttributes"]["a"]["ValueInteger"]
        assert written == number
        assert type(written) is int
        assert found.payload_bytes == len(f"na{number}")
        assert found.payload_bytes == get_operation("update_contact").payload_bytes(found.params)

    @pytest.mark.parametrize(
        "cell",
        ["1.0", "1e5", "x", " 1", "1 ", "1_000", "\u0661", "--1", "+", "-", "0x1", "true", "1\n"],
    )
    def test_anything_else_is_invalid(self, cell):
        """What is no whole number, written plainly, makes the row INVALID."""
        assert invalid(self.TEXT, C=cell) == (
            "not_an_integer",
            'row 1: SegmentAttributes.a.ValueInteger (from "C") is not a whole number.',
        )

    @pytest.mark.parametrize(
        "cell", ["2147483648", "-2147483649", "9" * 10_000, "-" + "9" * 10_000, "1" + "0" * 25]
    )
    def test_more_than_32_bits_is_invalid(self, cell):
        """A number of any length that does not fit 32 bits makes the row INVALID."""
        assert invalid(self.TEXT, C=cell) == (
            "integer_out_of_range",
            (
                'row 1: SegmentAttributes.a.ValueInteger (from "C") is '
                "not between -2,147,483,648 and "
                "2,147,483,647."
            ),
        )

    def test_empty_is_left_out(self):
        """An empty cell is no number, and breaks nothing."""
        assert sent(self.TEXT, C="") == {"Name": "n"}

    def test_constants_and_defaults(self):
        """Constants and defaults are numbers as well."""
        text = contact(
            "SegmentAttributes:\n"
            "  a: {ValueInteger: {column: C, default: 10080}}\n"
            "  b: {ValueInteger: 0}"
        )
        assert sent(text, C="") == {
            "SegmentAttributes": {"a": {"ValueInteger": 10080}, "b": {"ValueInteger": 0}}
        }


def test_the_first_breach_counts():
    """A row that breaks two rules is INVALID once, for the first in the mapping's order."""
    text = attributes("a: {column: A, empty: reject}", "b: {column: B, empty: reject}")
    assert invalid(text, A="", B="")[1].startswith("row 1: Attributes.a ")
    assert invalid(text, A="x", B="")[1].startswith("row 1: Attributes.b ")
