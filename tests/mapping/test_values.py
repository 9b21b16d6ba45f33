"""What is done to one value: each transform, and the order that they are applied in."""

from __future__ import annotations

import pytest

from bulk_updater.model import Outcome

from .helpers import attributes, contact, entries, entry, invalid, refusal, sent, value


class TestStrip:
    def test_drops_white_space_at_both_ends(self):
        """`strip` drops white space of any alphabet at both ends, and none inside."""
        assert value("{column: C, strip: true}", " \t\u3000a  b\u00a0\n") == "a  b"

    def test_nothing_is_trimmed_without_it(self):
        """A cell with spaces around it is sent with them."""
        assert value("{column: C}", " a ") == " a "
        assert value("{column: C, strip: false}", " a ") == " a "

    def test_white_space_alone_is_empty_then(self):
        """A cell of blanks is empty once they are stripped, and only then."""
        assert value("{column: C, strip: true}", "  ") is None
        assert value("{column: C, strip: true, default: d}", "  ") == "d"
        assert value("{column: C, default: d}", "  ") == "  "


class TestMap:
    def test_replaces_known_texts(self):
        """A cell that `map` knows is replaced, whole and exact."""
        spec = "{column: C, map: {A: high, B: mid}, default: low}"
        assert [value(spec, cell) for cell in ("A", "B", "a", "A ", "AB")] == [
            "high",
            "mid",
            "low",
            "low",
            "low",
        ]

    def test_default_stands_in_for_an_empty_cell_too(self):
        """`default` is for what `map` does not know and for what is empty."""
        assert value("{column: C, map: {A: high}, default: low}", "") == "low"

    def test_unknown_without_default_is_invalid(self):
        """Without a default, what `map` does not know makes the row INVALID; empty does not."""
        rule, error = invalid(attributes("a: {column: C, map: {A: x, B: y}}"), C="planted")
        assert (rule, error) == (
            "unknown_value",
            (
                'row 1: Attributes.a (from "C") is none of the 2 texts in its map, which has no '
                "default."
            ),
        )
        assert value("{column: C, map: {A: x}}", "") is None

    def test_the_empty_cell_can_be_mapped(self):
        """`map` may know the empty cell."""
        assert value('{column: C, map: {"": none, A: x}}', "") == "none"

    def test_a_text_can_be_mapped_to_nothing(self):
        """What `map` makes empty is empty: left out, or `default`."""
        assert value('{column: C, map: {A: ""}}', "A") is None
        assert value('{column: C, map: {A: ""}, default: d}', "A") == "d"

    def test_keys_are_text(self):
        """The keys of a map are text: `no` and `007` are what they look like."""
        spec = "{column: C, map: {no: Norwegian, 007: Bond, 1e3: exponent, ~: tilde}, default: d}"
        assert [value(spec, cell) for cell in ("no", "007", "1e3", "~", "7")] == [
            "Norwegian",
            "Bond",
            "exponent",
            "tilde",
            "d",
        ]

    def test_an_empty_map_knows_nothing(self):
        """A map without entries leaves every cell to `default`."""
        assert value("{column: C, map: {}, default: d}", "x") == "d"

    def test_works_on_a_template(self):
        """What `map` looks up is the text of the whole template."""
        spec = '{template: "{C}-1", map: {a-1: found}, default: none}'
        assert value(spec, "a") == "found"
        assert value(spec, "b") == "none"


class TestDate:
    SPEC = '{column: C, date: "%d/%m/%Y", format: "%Y-%m-%d"}'

    @pytest.mark.parametrize(
        ("cell", "written"),
        [
            ("31/12/2024", "2024-12-31"),
            ("29/02/2024", "2024-02-29"),
            ("1/2/2024", "2024-02-01"),  # as lenient as Python's strptime
            ("05/06/0999", "0999-06-05"),
        ],
    )
    def test_is_read_and_written(self, cell, written):
        """A date is read in one form and written in another; a year has four digits."""
        assert value(self.SPEC, cell) == written

    @pytest.mark.parametrize(
        "cell", ["31/02/2024", "2024-12-31", "31/12/24", "n/a", " 31/12/2024", "31/12/2024x", "0"]
    )
    def test_unreadable_is_invalid(self, cell):
        """A cell that is no such date makes the row INVALID, whatever `default` says."""
        rule, error = invalid(attributes(f"a: {self.SPEC}"), C=cell)
        assert rule == "unreadable_date"
        assert error == 'row 1: Attributes.a (from "C") is no date of the form %d/%m/%Y.'
        spec = self.SPEC.replace("}", ", default: d}")
        assert invalid(attributes(f"a: {spec}"), C=cell)[0] == "unreadable_date"

    def test_empty_stays_empty(self):
        """An empty cell is no date and breaks nothing; `default` stands in as it is."""
        assert value(self.SPEC, "") is None
        assert value(self.SPEC.replace("}", ", default: never}"), "") == "never"

    def test_seconds_since_the_epoch(self):
        """`%s` is seconds since the epoch, UTC, for reading and for writing."""
        assert value('{column: C, date: "%Y-%m-%d", format: "%s"}', "2024-01-01") == "1704067200"
        assert (
            value(
                '{column: C, date: "%Y-%m-%dT%H:%M:%S%z", format: "%s"}', "2024-01-01T01:00:00+0100"
            )
            == "1704067200"
        )
        assert (
            value('{column: C, date: "%s", format: "%Y-%m-%d %H:%M"}', "86399")
            == "1970-01-01 23:59"
        )
        assert value('{column: C, date: "%s", format: "%s"}', "-1") == "-1"

    @pytest.mark.parametrize("cell", ["1.5", "1_0", "\u0661", " 1", "x", "9" * 10_000, "9" * 12])
    def test_no_seconds(self, cell):
        """Only whole seconds within the calendar are seconds since the epoch."""
        text = attributes('a: {column: C, date: "%s", format: "%Y"}')
        assert invalid(text, C=cell)[0] == "unreadable_date"

    def test_a_date_reference(self):
        """A reference of the type DATE takes its epoch seconds from a date."""
        text = contact("""
            References:
              due: {Type: DATE, Value: {column: C, date: "%d/%m/%Y", format: "%s"}}""")
        assert sent(text, C="02/01/1970") == {
            "References": {"due": {"Type": "DATE", "Value": "86400"}}
        }

    def test_percent_signs_are_kept_apart(self):
        """`%%s` is a percent sign and an s."""
        assert value('{column: C, date: "%Y", format: "%%s%%Y %Y"}', "2024") == "%s%Y 2024"

    def test_a_day_without_a_year(self):
        """29 February is a day of a form without a year."""
        assert value('{column: C, date: "%d.%m.", format: "%m-%d"}', "29.02.") == "02-29"

    @pytest.mark.parametrize("form", ["%Q", "%d %d", "%", "%Y %s", "x%", "%G-%d"])
    def test_a_form_that_python_cannot_read_is_refused(self, form):
        """A form that could read nothing is the mapping's fault, not every row's."""
        assert refusal(attributes(f'a: {{column: C, date: "{form}", format: "%Y"}}')) == (
            f'line 5: Attributes.a.date: Python cannot read a date of the form "{form}"; write '
            'each directive once, such as "%d/%m/%Y", or "%s" alone for seconds since the epoch.'
        )

    @pytest.mark.parametrize("form", ["%Q", "%Y-%", "", "%Y %L"])
    def test_a_form_that_python_cannot_write_is_refused(self, form):
        """So is one that could not be written."""
        assert refusal(attributes(f'a: {{column: C, date: "%Y", format: "{form}"}}')).startswith(
            "line 5: Attributes.a.format: Python cannot write a date of the form "
        )

    @pytest.mark.parametrize("only", ['date: "%Y"', 'format: "%Y"'])
    def test_date_and_format_belong_together(self, only):
        """`date` without `format` is refused, and so is the other way round."""
        assert refusal(attributes(f"a: {{column: C, {only}}}")) == (
            "line 5: Attributes.a: date says how the text is read and format how it is written; "
            "both are needed."
        )


class TestCase:
    @pytest.mark.parametrize("cell", ["AbC", "Straße", "İstanbul", "ΑΣ", "ǅ", "", "ﬁ", "1"])
    def test_lower_and_upper_are_pythons(self, cell):
        """Lower and upper case are Python's, for every alphabet."""
        assert value("{column: C, lower: true}", cell) == (cell.lower() or None)
        assert value("{column: C, upper: true}", cell) == (cell.upper() or None)

    def test_exclude_each_other(self):
        """A text cannot be both."""
        assert refusal(attributes("a: {column: C, lower: true, upper: yes}")) == (
            "line 5: Attributes.a: lower and upper exclude each other."
        )


class TestDefault:
    def test_stands_in_for_an_empty_cell(self):
        """`default` is sent where the cell is empty, and not where it is a blank."""
        assert value("{column: C, default: d}", "") == "d"
        assert value("{column: C, default: d}", " ") == " "
        assert value("{column: C, default: d}", "v") == "v"

    def test_stands_in_for_an_empty_template(self):
        """`default` stands in for a template all of whose columns are empty."""
        assert value('{template: "x{C}", default: d}', "") == "d"

    def test_is_not_cased(self):
        """`default` is sent as it is written."""
        assert value("{column: C, upper: true, default: None}", "") == "None"

    def test_braces_are_doubled(self):
        """In a default, too, doubled braces are braces and a column is refused."""
        assert value('{column: C, default: "{{}}"}', "") == "{}"
        assert refusal(attributes('a: {column: C, default: "{D}"}')) == (
            "line 5: Attributes.a.default: a default is constant text "
            'and cannot name a column; "{{" '
            'and "}}" are braces.'
        )


class TestTruncateBytes:
    @pytest.mark.parametrize(
        ("cell", "max_bytes", "kept"),
        [
            ("abc", 3, "abc"),
            ("abcd", 3, "abc"),
            ("aé", 2, "a"),
            ("aé", 3, "aé"),
            ("€€", 5, "€"),
            ("a😀", 4, "a"),
        ],
    )
    def test_keeps_whole_characters(self, cell, max_bytes, kept):
        """A text is cut to so many UTF-8 bytes, never in the middle of a character."""
        assert value(f"{{column: C, truncate_bytes: {max_bytes}}}", cell) == kept

    def test_a_first_character_that_does_not_fit_leaves_nothing(self):
        """Where not even one character fits, nothing is left, and so the attribute is left out."""
        assert value("{column: C, truncate_bytes: 1}", "é") is None

    def test_applies_to_the_default(self):
        """What is cut is what would be sent, a default included."""
        assert value("{column: C, default: abcdef, truncate_bytes: 2}", "") == "ab"

    @pytest.mark.parametrize("found", ["0", "-1", "many", "1.5", "4294967296", "9" * 5000])
    def test_must_be_a_number_of_bytes(self, found):
        """Anything but a whole number from 1 is refused."""
        message = refusal(attributes(f"a: {{column: C, truncate_bytes: {found}}}"))
        assert message.startswith("line 5: Attributes.a.truncate_bytes ")
        assert f'the text "{found[:60]}' in message


class TestEmpty:
    def test_skip_leaves_the_attribute_out(self):
        """By default, and with `skip`, what is empty is left out."""
        assert value("{column: C}", "") is None
        assert value("{column: C, empty: skip}", "") is None

    def test_erase_sends_the_empty_text(self):
        """`erase` sends the empty text, the API's only delete."""
        assert value("{column: C, empty: erase}", "") == ""
        assert value("{column: C, empty: erase}", "v") == "v"
        assert value('{template: "x{C}", empty: erase}', "") == ""

    def test_erase_alone_is_something_to_send(self):
        """A row that only erases is sent."""
        assert sent(attributes("a: {column: C, empty: erase}"), C="") == {"Attributes": {"a": ""}}
        assert sent(contact("Name: {column: C, empty: erase}"), C="") == {"Name": ""}

    def test_reject_makes_the_row_invalid(self):
        """With `reject`, an empty value makes the row INVALID."""
        text = attributes("a: {column: C, empty: reject}")
        assert invalid(text, C="") == (
            "empty_value",
            'row 1: Attributes.a (from "C") is empty and may not be.',
        )
        assert sent(text, C="v") == {"Attributes": {"a": "v"}}

    def test_a_default_is_not_empty(self):
        """What `default` stands in for is not empty any more."""
        assert value("{column: C, default: d, empty: reject}", "") == "d"
        assert value("{column: C, default: d, empty: erase}", "") == "d"

    def test_a_constant_can_be_erased(self):
        """An attribute can be erased in every row."""
        assert value('{template: "", empty: erase}', "v") == ""

    @pytest.mark.parametrize(
        "line",
        [
            "UserInfo: {UserId: {column: C, empty: erase}}",
            "SegmentAttributes: {a: {ValueInteger: {column: C, empty: erase}}}",
            "References: {a: {Type: {column: C, empty: erase}}}",
        ],
    )
    def test_erase_is_refused_where_the_empty_text_is_not_allowed(self, line):
        """A number, an enum or a text of at least one character cannot be erased."""
        assert refusal(contact(line)).endswith(
            'cannot be erased: that sends "", which it may not be. Allowed here: skip, reject.'
        )

    def test_other_words_are_refused(self):
        """`empty` is one of three words."""
        assert refusal(attributes("a: {column: C, empty: drop}")) == (
            "line 5: Attributes.a.empty should be 'skip', 'erase' or 'reject', and the text "
            '"drop" stands here.'
        )


def test_the_order_of_the_transforms():
    """Template, strip, map, date, case, default, truncate, empty: each sees what the last left."""
    spec = (
        '{template: " {C} ", strip: true, map: {today: 01/02/2024, never: "", x: 03/04/2024},'
        ' date: "%d/%m/%Y", format: "%d %B %Y", upper: true, default: None known,'
        " truncate_bytes: 7, empty: reject}"
    )
    assert value(spec, "today") == "01 FEBR"
    assert value(spec, "x") == "03 APRI"
    assert value(spec, "never") == "None kn"
    assert value(spec, "unknown") == "None kn"
    assert value(spec, "") == "None kn"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{strip: true}", "Attributes.a: a value comes from exactly one of column and template."),
        (
            "{column: C, template: x}",
            "Attributes.a: a value comes from exactly one of column and template.",
        ),
        ("{}", "Attributes.a: a value comes from exactly one of column and template."),
        (
            "{column: C, strip: perhaps}",
            'Attributes.a.strip must be true or false, and the text "perhaps" stands here.',
        ),
        ("{column: [C]}", "Attributes.a.column must be text, and a list stands here."),
        (
            "{column: C, map: x}",
            'Attributes.a.map must be keys with values, and the text "x" stands here.',
        ),
        ("{column: C, map: {a: [b]}}", "Attributes.a.map.a must be text, and a list stands here."),
        (
            "{column: C, defualt: x}",
            (
                '"defualt" is not a key of Attributes.a. Did you mean "default"? Known: column, '
                "template, strip, map, date, format, lower, upper, "
                "default, truncate_bytes, empty."
            ),
        ),
        ("[x]", "Attributes.a is one value, and a list stands here."),
        (
            "{Tier}",
            (
                "Attributes.a: YAML reads {Tier} without quotes as a group of keys. Write "
                '"{Tier}" for the column.'
            ),
        ),
        (
            "{format}",
            (
                "Attributes.a: YAML reads {format} without quotes as a group of keys. Write "
                '"{format}" for the column.'
            ),
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(spec, message):
    """What a value may not say is refused: line, what was found, what is allowed, the nearest."""
    assert refusal(attributes(f"a: {spec}")) == f"line 5: {message}"


def test_the_line_is_the_inner_one():
    """A fault inside a value is shown at its own line."""
    assert refusal(attributes("a:", "  column: C", "  strip: perhaps")).startswith("line 7: ")


def test_an_invalid_row_is_not_sent_for_one_bad_value():
    """One value that breaks a rule makes the row INVALID, and its ids are named."""
    found = entry(attributes("good: x", "a: {column: C, empty: reject}"), C="")
    assert found.outcome is Outcome.INVALID
    assert found.contact_id == "c0"


def test_a_constant_that_breaks_a_rule_breaks_it_in_every_row():
    """It is made once for all rows, and each has its own result."""
    text = attributes('a: {template: soon, date: "%Y", format: "%Y"}')
    made = entries(text, {"C": ["x", "y"]})
    assert [(entry.row, entry.error_code) for entry in made] == [
        (1, "unreadable_date"),
        (2, "unreadable_date"),
    ]
    assert made[1].error == "row 2: Attributes.a is no date of the form %Y."


def test_a_constant_is_made_once_for_all_rows():
    """Transforms, `empty` and sizes are those that one row has."""
    text = attributes(
        'a: {template: " é ", strip: true, upper: true}',
        'b: {template: " ", strip: true}',
        'c: {template: "", empty: erase}',
    )
    made = entries(text, {"C": ["x"] * 3})
    assert [entry.params["Attributes"] for entry in made] == [{"a": "É", "c": ""}] * 3
    assert {entry.payload_bytes for entry in made} == {1 + 2 + 1}
