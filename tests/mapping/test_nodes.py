"""YAML and JSON to text with lines: nothing is guessed, and every refusal says where."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.errors import MappingError
from bulk_updater.mapping.nodes import compose, nearest

from .helpers import PATH, attributes, parse, refusal


def plain(text):
    return compose(text, PATH).plain()


def test_every_scalar_is_text():
    """What YAML would make a number, a bool, a time or a null of is text here."""
    text = "a: no\nb: 007\nc: 12:30\nd: 1e5\ne: null\nf: ~\ng: 2024-01-01\nh: 0x1F\ni: on\nj:\n"
    assert plain(text) == {
        "a": "no",
        "b": "007",
        "c": "12:30",
        "d": "1e5",
        "e": "null",
        "f": "~",
        "g": "2024-01-01",
        "h": "0x1F",
        "i": "on",
        "j": "",
    }


def test_lines_of_values_and_keys():
    """A node knows its line, and those of its keys."""
    root = compose("# one\na:\n  b: [x,\n    y]\n", PATH)
    assert root.key_lines == {"a": 2}
    inner = root.value["a"]
    assert inner.key_lines == {"b": 3}
    assert [item.line for item in inner.value["b"].value] == [3, 4]
    assert root.at(["a", "b", 1]).line == 4
    assert root.at(["a", "nowhere", "b"]).line == 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(end):
    """Lines are counted alike with the line ends of every system."""
    text = attributes("ok: x", "bad key: y").replace("\n", end)
    assert refusal(text).startswith('line 6: "bad key" is not a legal key')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            (
                "the file is empty. A mapping names an operation, such as "
                "update_contact_attributes; "
                "`bulk-updater skeleton update_contact_attributes` prints one to start from."
            ),
        ),
        ("# nothing\n", "the file is empty. "),
        ("a: [", "line 1: this is not YAML: "),
        ("a: b: c", "line 1: this is not YAML: mapping values are not allowed here."),
        ("a: b\n---\nc: d\n", "line 2: this is not YAML: but found another document."),
        ("a: *b", "line 1: this is not YAML: found undefined alias 'b'."),
        ("a: &a [*a]", "line 1: this alias refers to itself."),
        ("x: 1\na: &a {b: *a}", "line 2: this alias refers to itself."),
        (
            "a: !!int 1",
            (
                'line 1: the tag "tag:yaml.org,2002:int" is not allowed: '
                "every value here is text. "
                "Quote it instead."
            ),
        ),
        ("a: !env HOME", 'line 1: the tag "!env" is not allowed: '),
        (
            "a: 1\nb: 2\na: 3",
            (
                'line 3: the key "a" stands here a second time; the first is on line '
                "1. Keep one of them."
            ),
        ),
        ('{"a": 1,\n "a": 2}', 'line 2: the key "a" stands here a second time; '),
        ("? [a]\n: b", "line 1: A key must be text, and a list stands here."),
        ("? {a: b}\n: b", "line 1: A key must be text, and a group of keys stands here."),
        (
            "a: 1\nb: \0",
            "line 2: this is not YAML: it holds the character U+0000, which is not text.",
        ),
        ("a: \x1b", "line 1: this is not YAML: it holds the character U+001B, which is not text."),
        ('a: "\\ud800"', "line 1: an escape here is half a surrogate pair, which is no character."),
        (
            'a: "\\UFFFFFFFF"',
            "line 1: this is not YAML: an escape in it, such as \\U0001F600, is no character.",
        ),
        ('a: "\\q"', "line 1: this is not YAML: found unknown escape character 'q'."),
        (
            "a:\n\tb: c",
            ("line 2: this is not YAML: a tab stands here, and YAML is indented with spaces."),
        ),
        (
            "name: {First} {Last}",
            (
                "line 1: this is not YAML: expected <block end>, but found '{'. Text "
                'that begins with a brace needs quotes, as in "{First Name} {Last Name}".'
            ),
        ),
        (
            "name: {Id} x",
            (
                "line 1: this is not YAML: expected <block end>, but found '<scalar>'. Text "
                'that begins with a brace needs quotes, as in "{First Name} {Last Name}".'
            ),
        ),
        ("[1, 2]", "line 1: this is no mapping: a mapping file holds keys with values."),
        (
            "\nhello",
            "line 2: this is no mapping: a mapping file holds keys with values.",
        ),
    ],
)
def test_what_is_no_mapping_is_refused(text, message):
    """What is not YAML, or means more than one thing, is refused with its line."""
    assert refusal(text).startswith(message)


def test_nesting_has_an_end():
    """A file nested without end is refused, however it is nested."""
    for text in (
        "[" * 5000,
        "{a: " * 5000,
        "- " * 3000,
        "[" * 100 + "]" * 100,
        "a: " + "{a: " * 90,
    ):
        with pytest.raises(MappingError):
            parse(text)


def test_aliases_that_multiply_are_refused_soon():
    """Aliases of aliases cannot make a small file large."""
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 7)
    )
    started = time.process_time()
    assert "more than 100,000 values once its aliases are followed" in refusal(text)
    assert time.process_time() - started < 5


def test_an_anchor_can_be_used_twice():
    """Aliases are allowed: a part that two operations share is written once."""
    assert plain("a: &x {b: [c]}\nd: *x\n") == {"a": {"b": ["c"]}, "d": {"b": ["c"]}}


@settings(deadline=None)
@given(
    st.recursive(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"])),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab é😀"), inner, max_size=3)
        ),
        max_leaves=8,
    ).filter(lambda value: value != ""),
    st.sampled_from([None, 2, "\t"]),
    st.booleans(),
)
def test_json_is_yaml(value, indent, ensure_ascii):
    """JSON is read as it stands: indented with spaces or tabs, its escapes joined to characters."""
    # PyYAML takes the byte order mark and a few more for no text; JSON escapes them.
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)
    try:
        assert plain(text) == value
    except MappingError as error:
        assert "which is not text" in error.message  # noqa: PT017 - the other way out


def test_tabs_keep_their_lines():
    """A fault in JSON that is indented with tabs is shown at its line."""
    text = '{\n\t"update_contact": {\n\t\t"InstanceId": "i",\n\t\t"Contact": "c"\n\t}\n}\n'
    assert refusal(text).startswith('line 4: "Contact" is not a member of UpdateContact.')


def test_json_with_tabs_inside_yaml():
    """JSON that is pasted under an operation may be indented with tabs, too."""
    text = (
        'source:\n  delimiter: ";"\nupdate_contact:\n{\n\t"InstanceId":\t"i",\n'
        '\t"ContactId": "{id}",\t\n\t"Name":\n\t\t"{N}"\n}\n'
    )
    assert list(parse(text).requests[0].members) == ["InstanceId", "ContactId", "Name"]


def test_nearest():
    """The nearest name is said first, then what is known, twenty at most."""
    assert nearest("contactid", ["InstanceId", "ContactId"]) == (
        'Did you mean "ContactId"? Known: InstanceId, ContactId.'
    )
    assert nearest("zzz", ["a", "b"]) == "Known: a, b."
    assert nearest("a", []) == ""
    assert nearest("zzz", [f"c{i}" for i in range(5000)]).endswith("c18, c19 and 4,980 more.")


@settings(deadline=None)
@given(st.text() | st.text("{}[]:,-#&*!|>'\"%@` \n\tab\\xuU0"))
def test_any_text_is_a_tree_or_is_refused(text):
    """Whatever stands in the file, it is composed or refused with a MappingError."""
    with contextlib.suppress(MappingError):
        assert compose(text, PATH).line > 0
