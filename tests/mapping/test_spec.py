"""The mapping file as a whole: read, decoded, its parts known."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.errors import MappingError
from bulk_updater.mapping import load_spec, parse_spec

from .helpers import attributes, contact, map_cells, parse, refusal

EVERYTHING = """\
source:
  encoding: cp1252
  delimiter: ";"
  where:
    - {column: Status, in: [Completed, Missed]}
    - {column: Key, not: ""}
    - {column: Kind, matches: "^[ab]+$"}
update_contact_attributes:
  InstanceId: 12345678-90ab-cdef-1234-567890abcdef
  InitialContactId: "{Key}"
  Attributes:
    full: "{First Name} {Last Name}"
    renewal: {column: Renewal, date: "%d/%m/%Y", format: "%Y-%m-%d"}
    segment: {column: Score, map: {A: high, B: mid}, default: low}
    notes: {column: Notes, strip: true, truncate_bytes: 1024, empty: erase}
    "*": {prefix: crm_, except: [Notes]}
update_contact:
  InstanceId: arn:aws:connect:eu-west-2:123456789012:instance/12345678-90ab
  ContactId: "{Key}"
  References:
    crm: {Type: URL, Value: "https://example.com/{Id}"}
  SegmentAttributes:
    "connect:ContactExpiry": {ValueMap: {ExpiryDuration: {ValueInteger: "{Days}"}}}
"""


def test_the_example_of_the_documentation():
    """Every part of a full mapping is understood."""
    spec = parse(EVERYTHING)
    assert (spec.source.format.encoding, spec.source.format.delimiter) == ("cp1252", ";")
    assert [condition.column for condition in spec.source.where] == ["Status", "Key", "Kind"]
    assert [request.operation.name for request in spec.requests] == [
        "update_contact_attributes",
        "update_contact",
    ]
    assert spec.warnings == ()


def test_defaults():
    """Every key of `source` has a default, and so has `source`."""
    for before in ("", "source:\n", "source: {}\n"):
        spec = parse(attributes("a: x", before=before))
        assert (spec.source.format.encoding, spec.source.format.delimiter) == ("utf-8", ",")
        assert spec.source.where == ()


class TestLoad:
    def test_path_and_digest(self, tmp_path):
        """A mapping knows its file and the SHA-256 of its bytes."""
        path = tmp_path / "m.yaml"
        path.write_text(attributes("a: x"))
        spec = load_spec(path)
        assert spec.path == path
        assert spec.digest == hashlib.sha256(path.read_bytes()).hexdigest()

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_encodings(self, tmp_path, encoding):
        """UTF-8 with or without a mark is read, and UTF-16 with one, as PowerShell writes it."""
        path = tmp_path / "m.yaml"
        path.write_bytes(attributes("a: ü😀").replace("\n", "\r\n").encode(encoding))
        assert (
            load_spec(path).requests[0].members["Attributes"].entries["a"].template.constant
            == "ü😀"
        )

    def test_another_encoding_is_refused(self, tmp_path):
        """Bytes that are not UTF-8 are refused at their line."""
        path = tmp_path / "m.yaml"
        path.write_bytes(attributes("b: x", "a: ü").encode("cp1252"))
        with pytest.raises(
            MappingError, match=r"this is not UTF-8 text\. Save the mapping"
        ) as caught:
            load_spec(path)
        assert (caught.value.path, caught.value.line) == (path, 6)

    def test_utf_16_without_a_mark_is_refused(self, tmp_path):
        """Text full of NULs is not taken for YAML."""
        path = tmp_path / "m.yaml"
        path.write_bytes(attributes("a: x").encode("utf-16-le"))
        with pytest.raises(MappingError, match=r"line 1: .* U\+0000"):
            load_spec(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        """A missing file is said to be missing, and how to get one."""
        with pytest.raises(
            MappingError, match=r"m.yaml: there is no such file. `bulk-updater skel"
        ):
            load_spec(tmp_path / "m.yaml")

    def test_a_directory(self, tmp_path):
        """A directory is no mapping."""
        with pytest.raises(MappingError, match="this is a directory"):
            load_spec(tmp_path)

    def test_the_export_in_its_place(self, tmp_path):
        """A file of more than a mebibyte is refused unread: it is likely the export."""
        path = tmp_path / "export.csv"
        path.write_bytes(b"x" * (1024 * 1024 + 1))
        with pytest.raises(MappingError, match=r"larger than 1 MiB\. Is it the export\?"):
            load_spec(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "source: {}",
            (
                "line 1: no operation is named. Add one of update_contact_attributes and "
                "update_contact, or both."
            ),
        ),
        (
            "update-contact: {}",
            (
                'line 1: "update-contact" is not a key of a mapping. Did you mean '
                '"update_contact"? Known: source, contact_started, update_contact_attributes, '
                "update_contact."
            ),
        ),
        (
            attributes("a: x") + "where: []\n",
            (
                'line 6: "where" is not a key of a mapping. Known: '
                "source, contact_started, update_contact_attributes, update_contact."
            ),
        ),
        (
            "update_contact:",
            ("line 1: update_contact must be keys with values, and nothing stands here."),
        ),
        (
            "update_contact: x",
            ('line 1: update_contact must be keys with values, and the text "x" stands here.'),
        ),
        ("source: x", 'line 1: source must be keys with values, and the text "x" stands here.'),
        (
            "source:\n  encodnig: x",
            (
                'line 2: "encodnig" is not a key of source. Did you mean '
                '"encoding"? Known: encoding, delimiter, where.'
            ),
        ),
        (
            "source:\n  encoding: utf8x",
            (
                "line 2: source.encoding: Python knows no text encoding "
                '"utf8x". Did you mean "utf-8"? Known: utf-8, utf-16, '
                "cp1252, latin-1, cp1250, gb18030, "
                "shift_jis, cp437."
            ),
        ),
        (
            "source: {encoding: base64}",
            ('line 1: source.encoding: Python knows no text encoding "base64". Known: '),
        ),
        (
            "source: {delimiter: ab}",
            (
                "line 1: source.delimiter: a delimiter is one character, such as "
                '";" or "\\t", or auto.'
            ),
        ),
        ("source: {delimiter: '\"'}", "line 1: source.delimiter: a delimiter is one character"),
        (
            "source: {where: {column: a}}",
            ("line 1: source.where must be a list, and a group of keys stands here."),
        ),
        (
            "source:\n  where:\n    - {colum: a, in: [x]}",
            ('line 3: "colum" is not a key of source.where[0]. Did you mean "column"?'),
        ),
        (
            "source:\n  where:\n    - {column: a, equal: x}",
            (
                'line 3: "equal" is not a key of '
                'source.where[0]. Did you mean "equals"? Known: column, in, '
                "not_in, equals, not, matches."
            ),
        ),
        (
            "source:\n  where:\n    - {column: a, in: x}",
            ('line 3: source.where[0].in must be a list, and the text "x" stands here.'),
        ),
        (
            "source:\n  where:\n    - {column: a, in: []}",
            ("line 3: source.where[0].in must be a list of one at least, and a list stands here."),
        ),
        (
            "source:\n  where:\n    - column: a\n      equals: [x]",
            ("line 4: source.where[0].equals must be text, and a list stands here."),
        ),
        (
            "source:\n  where:\n    - {column: a}",
            (
                "line 3: source.where[0]: a condition has exactly "
                "one of in, not_in, equals, not, matches."
            ),
        ),
        (
            "source:\n  where:\n    - {column: a, in: [x]}\n    - {column: a, in: [x], not: y}",
            (
                "line 4: source.where[1]: a condition has exactly one of "
                "in, not_in, equals, not, matches."
            ),
        ),
        (
            "source:\n  where:\n    - column: a\n      matches: '('",
            (
                "line 4: source.where[0].matches: "
                "this is not a regular expression: missing ), "
                "unterminated subpattern at position 0."
            ),
        ),
        (
            "source: {where: [{column: a, matches: 'a{99999999999}'}]}",
            (
                "line 1: "
                "source.where[0].matches: this is not a regular expression: "
                "the repetition number is too "
                "large."
            ),
        ),
    ],
)
def test_parts_that_make_no_sense_are_refused(text, message):
    """What was found, what is allowed and the nearest name are said, at the line."""
    assert refusal(text).startswith(message)


def test_delimiters():
    """A tab may be written in words, as an escape or as itself; `auto` is allowed."""
    for written, meant in (
        ("tab", "\t"),
        (r"\t", "\t"),
        (r'"\t"', "\t"),
        ("auto", "auto"),
        ('"|"', "|"),
        ('";"', ";"),
    ):
        text = attributes("a: x", before=f"source: {{delimiter: {written}}}\n")
        assert parse(text).source.format.delimiter == meant


def test_a_thousand_attributes():
    """A mapping of a thousand attributes is a mapping."""
    text = attributes(*(f'a{i}: "{{C}}"' for i in range(1000)))
    (found,) = map_cells(text, {"id": ["c"], "C": ["v"]}).entries()
    assert len(found.params["Attributes"]) == 1000
    assert found.payload_bytes == sum(len(f"a{i}v") for i in range(1000))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_mapping_or_is_refused(text):
    """Whatever stands in the file, it is a mapping or a MappingError."""
    with contextlib.suppress(MappingError):
        assert parse(text).requests


WORDS = r"""
    : { } [ ] " ' # &a *a !!int % \ ~ 0 -1 {X} {{ null é 😀 ? | > <<: * default erase InstanceId
    Type: where ( [[ %d ValueList: 99999999999999999999999999 - empty date reject "*":
"""
PIECES = st.sampled_from([*WORDS.split(), "", " ", "\n", "\t", "\0", "\ufeff", "- "])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_mutated_mapping_is_a_mapping_or_is_refused(data):
    """A mapping with parts cut out, doubled, swapped or put in never ends in another error."""
    text = data.draw(st.sampled_from([EVERYTHING, contact('Name: "{N}"'), attributes("a: x")]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 25)))
        middle = data.draw(PIECES | st.just(text[start:stop] * 2) | st.text(max_size=3))
        text = text[:start] + middle + text[stop:]
    with contextlib.suppress(MappingError):
        assert parse(text).requests


def test_an_export_in_the_mappings_place_is_not_quoted():
    """Text without keys may be somebody's cells: it is refused, and nothing of it is repeated."""
    with pytest.raises(MappingError) as refused:
        parse_spec("Contact,Number\nc-1,MARKER-7f3a\n", Path("export.txt"))
    assert "Is it the export?" in refused.value.message
    assert "MARKER" not in refused.value.message
