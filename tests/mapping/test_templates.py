"""Templates: text with columns in braces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.mapping.templates import TemplateSyntaxError, parse_template

from .helpers import attributes, entries, refusal, sent, value


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain", (("plain", False),)),
        ("{A}", (("A", True),)),
        (
            "{First Name}, {x.y}!",
            (("First Name", True), (", ", False), ("x.y", True), ("!", False)),
        ),
        ("{{A}}", (("{A}", False),)),
        ("{{{A}}}", (("{", False), ("A", True), ("}", False))),
        ("{A}{A}", (("A", True), ("A", True))),
        ("{ A }", ((" A ", True),)),
        ("{a:b}", (("a:b", True),)),
    ],
)
def test_parts(text, parts):
    """Columns stand in braces, doubled braces are braces, and a column's name is taken exactly."""
    assert parse_template(text).parts == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{",
            'the brace "{" at character 1 has no other half. Write "{{" for a brace that is text',
        ),
        (
            "a}",
            'the brace "}" at character 2 has no other half. Write "}}" for a brace that is text',
        ),
        ("{A", 'the brace "{" at character 1 has no other half'),
        ("{{A}", 'the brace "}" at character 4 has no other half'),
        ("{a{b}", 'the brace "{" at character 1 has no other half'),
        ("x{}", 'there is no column between the braces of "{}"'),
    ],
)
def test_broken_templates_are_refused(text, message):
    """A brace without its other half is refused, with its place and the way to write a brace."""
    with pytest.raises(TemplateSyntaxError, match="brace") as caught:
        parse_template(text)
    assert message in str(caught.value)


@settings(deadline=None)
@given(st.text())
def test_doubled_braces_give_back_any_text(text):
    """Any text is written by doubling its braces."""
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert parse_template(escaped).constant == text


@settings(deadline=None)
@given(st.text())
def test_nothing_but_a_syntax_error(text):
    """Any text is a template or is refused as one; each column is named once."""
    try:
        template = parse_template(text)
    except TemplateSyntaxError:
        return
    assert len(set(template.columns)) == len(template.columns)


def test_a_broken_template_is_refused_at_its_line():
    """A template's fault is the mapping's: file, line and member are named."""
    assert refusal(attributes("ok: x", 'a: "{C"')).startswith(
        'line 6: Attributes.a: the brace "{" at character 1'
    )


def test_text_and_columns():
    """A template is text and the cells of a row."""
    assert sent(attributes('name: "{First Name} {Last}!"'), **{"First Name": "A", "Last": "B"}) == {
        "Attributes": {"name": "A B!"}
    }


def test_a_template_is_empty_when_all_its_columns_are():
    """Where every column is empty nothing is left of the text around them; one cell keeps it."""
    rows = entries(
        attributes('a: "x {A}-{B} y"', "other: o"),
        {"A": ["", "1", "", "1"], "B": ["", "", "2", "2"]},
    )
    assert [row.params["Attributes"].get("a") for row in rows] == [
        None,
        "x 1- y",
        "x -2 y",
        "x 1-2 y",
    ]


def test_a_column_may_stand_twice():
    """A column that a template names twice is empty once, and full twice."""
    assert value('"{C}/{C}"', "v") == "v/v"
    assert value('"{C}/{C}"', "") is None


def test_doubled_braces_are_braces():
    """A template can hold JSON."""
    assert value('\'{{"id": "{C}"}}\'', "7") == '{"id": "7"}'


def test_a_cell_is_text_and_stays_text():
    """What looks like a number, a date, a null or a template in a cell is sent as it stands."""
    for cell in ("0044123", "007", "1e5", "NA", "nan", "None", "null", "{C}", " x ", "\t", "1/2/3"):
        assert value('"{C}"', cell) == cell
        assert value("{column: C}", cell) == cell


def test_column_names_a_column_that_a_template_cannot():
    """A column whose name has braces is named with `column`."""
    assert sent(attributes('a: {column: "a{b}"}'), **{"a{b}": "v"}) == {"Attributes": {"a": "v"}}


def test_template_and_column_say_the_same():
    """`{template: …}` is the long form of a template."""
    assert value('{template: "<{C}>"}', "v") == "<v>"
    assert value('{template: "<{C}>"}', "") is None


def test_a_constant_is_sent_with_every_row():
    """A template without columns is constant; an empty one is left out."""
    rows = entries(attributes("a: crm", 'b: ""', "c:"), {"C": ["", "x"]})
    assert [row.params["Attributes"] for row in rows] == [{"a": "crm"}, {"a": "crm"}]
