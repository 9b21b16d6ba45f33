"""The skeleton: a mapping of every member that works as it stands, and uncommented."""

from __future__ import annotations

import itertools
import re

import pytest

from bulk_updater.mapping import parse_spec, skeleton
from bulk_updater.mapping.skeleton import first_sentence
from bulk_updater.operations import iter_operations

from .helpers import PATH

OPERATIONS = pytest.mark.parametrize(
    "operation", list(iter_operations()), ids=lambda operation: operation.name
)
COMMENTED = re.compile(r"^( *)# ")


def uncommented(line):
    return COMMENTED.sub(r"\1", line)


def all_members(shape, above=()):
    """Every member of a shape, at any depth, recursion followed once."""
    if shape.kind in ("map", "list"):
        yield from all_members(shape.value, above)
    for name, member in shape.members.items():
        yield name
        if shape.name not in above:
            yield from all_members(member, (*above, shape.name))


@OPERATIONS
def test_parses_as_it_stands(operation):
    """The skeleton is a mapping, with the members live that the operation requires."""
    spec = parse_spec(skeleton(operation), PATH)
    assert set(spec.requests[0].members) == set(operation.shape.required)


@OPERATIONS
def test_parses_fully_uncommented(operation):
    """With every comment mark taken away it is a mapping of every member, and nothing warns."""
    text = "\n".join(map(uncommented, skeleton(operation).splitlines()))
    spec = parse_spec(text, PATH)
    assert set(spec.requests[0].members) == set(operation.shape.members)
    assert spec.warnings == ()
    assert [condition.column for condition in spec.source.where] == [operation.contact_member]


@OPERATIONS
def test_parses_line_by_line(operation):
    """Each commented member becomes live from its first line to any other, and alone."""
    lines = skeleton(operation).splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r" *# \S", line)]
    n_parsed = 0
    for start in starts:
        for stop in range(start, len(lines)):
            if stop > start and not re.match(r" *# {3}", lines[stop]):
                break
            live = [
                uncommented(line) if start <= number <= stop else line
                for number, line in enumerate(lines)
            ]
            parse_spec("\n".join(live), PATH)
            n_parsed += 1
    assert n_parsed >= len(starts) > 0


@OPERATIONS
def test_every_member_has_a_line_and_a_comment(operation):
    """Every member of the model stands in it, and one line about each stands above it."""
    lines = skeleton(operation).splitlines()
    assert set(all_members(operation.shape)) > set(operation.shape.members) or operation.shape
    for name in set(all_members(operation.shape)):
        assert any(re.match(rf"[ #-]*{name}:", line) for line in lines), name
    body = lines[lines.index(f"{operation.name}:") + 1 :]
    for above, line in itertools.pairwise(body):
        if "##" not in line and "KeyName" not in line:
            assert "##" in above or above.endswith(("KeyName:", ":")), line


def test_comments_say_the_limits():
    """Types, limits, enums, what is required and what it is for stand in the comments."""
    attributes, contact = map(skeleton, iter_operations())
    assert "at most 32,768 UTF-8 bytes over all keys and values" in attributes
    assert "keys match [A-Za-z0-9_-]+" in attributes
    assert "## string, required, 1 to 256 characters. The identifier of the contact." in attributes
    assert "at most 4,096 UTF-8 bytes over all keys and values" in contact
    assert "## string, 0 to 1,024 characters. The name of the contact." in contact
    assert "## string, required, one of URL, ATTACHMENT, CONTACT_ANALYSIS, NUMBER, " in contact
    assert "20 to 256 characters, matches ^[-:/A-Za-z0-9]+." in contact
    assert "## integer. The value of a segment attribute." in contact
    assert "## ValueMap: nests the same again, as deep as you like: see above." in contact
    assert "<" not in (attributes + contact)


@pytest.mark.parametrize(
    ("html", "sentence"),
    [
        ("<p>One. Two.</p>", "One."),
        ("<p>One</p> <p>Two.</p>", "One"),
        ('<p>See <a href="https://x.y/">the docs</a> . More</p>', "See the docs."),
        ("<p>a &lt; b &amp; <code>c</code>, d</p>", "a < b & c, d"),
        ("", ""),
        ("<p>Version 1.5 of it\n counts. No</p>", "Version 1.5 of it counts."),
    ],
)
def test_first_sentence(html, sentence):
    """Of the model's HTML the first sentence remains, as plain text."""
    assert first_sentence(html) == sentence
