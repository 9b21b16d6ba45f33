"""Any text as a mapping file: a compiled mapping, or a `MappingError` with its line.

Takes twelve seconds.
"""

from __future__ import annotations

import codecs
import itertools
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.errors import MappingError
from bulk_updater.mapping import compile_mapping, load_spec
from bulk_updater.model import Outcome, Request, Result
from tests.mapping.helpers import INSTANCE, attributes, contact, entries, frame, parse
from tests.mapping.test_properties import MAPPING

from .helpers import assert_clear, examples

if TYPE_CHECKING:
    from bulk_updater.mapping import MappingSpec

HEADER = ("W", "K", "A", "B", "M", "D", "T", "N", "U")
MARKER = "planted-7f3a"
CELLS = ["", " ", "a", "planted-7f3a", "31/12/2024", "-7", "c1", "planted-7f3a" * 30, "\u202e😀"]


def loaded(content: bytes) -> MappingSpec | None:
    """A mapping file of these bytes; None where it is refused, which is always said clearly."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mapping.yaml")
        path.write_bytes(content)
        try:
            spec = load_spec(path)
            compile_mapping(spec, HEADER, "export.csv")
        except MappingError as error:
            check_refusal(error, path)
            return None
        check_rows(spec)
    return spec


def check_refusal(error: MappingError, path: Path) -> None:
    """One line of words, and the line of the file, except where it is the file as a whole."""
    if error.line is None:
        assert_clear(error, f"{path}: ")
        assert "the file is empty" in error.message or "larger than 1 MiB" in error.message
    else:
        assert_clear(error, f"{path}, line {error.line}: ")
        assert error.line >= 1


def check_rows(spec: MappingSpec) -> None:
    """Whatever rows a mapping meets, each makes a request or a result, and none tells a cell."""
    assert all(warning.isprintable() for warning in spec.warnings)
    cells = {name: CELLS[at:] + CELLS[:at] for at, name in enumerate(HEADER)}
    mapped = compile_mapping(spec, HEADER, "export.csv").map_frame(frame(cells))
    made = list(mapped.entries())
    assert len(made) == len(CELLS) * len(spec.requests)
    for entry in made:
        assert isinstance(entry, Request | Result)
        if isinstance(entry, Result):
            assert entry.outcome in (Outcome.INVALID, Outcome.SKIPPED)
            assert MARKER not in (entry.error or "") or MARKER in json.dumps(spec.source.encoding)


# ----------------------------------------------------------------------------------------------
# Any bytes, any text, any tree


@examples(60)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-16")))
def test_any_bytes(content):
    """No bytes are a mapping by chance, and none are more than refused."""
    assert loaded(content) is None


SCALARS = st.text(max_size=8) | st.sampled_from(
    [
        *("", "no", "007", "{A}", "{", "{{}}", "*", "<<", "~", "%d/%m/%Y", "(a+)+$", "(", "erase"),
        *(MARKER.upper(), "utf-16", "auto", "9" * 5000, "x" * 40_000, "\u202e", "\x1b", "é" * 300),
    ]
)
KEYS = SCALARS | st.sampled_from(
    [
        *("source", "where", "column", "matches", "in", "encoding", "delimiter", "template", "map"),
        *("update_contact", "update_contact_attributes", "InstanceId", "InitialContactId"),
        *(
            "ContactId",
            "Attributes",
            "References",
            "SegmentAttributes",
            "Type",
            "Value",
            "ValueMap",
        ),
        *("date", "format", "default", "truncate_bytes", "empty", "strip", "prefix", "except"),
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def dumped(tree: Any) -> bytes:
    """A tree as YAML, with anchors where a part of it stands twice."""
    return yaml.dump(tree, allow_unicode=True, sort_keys=False).encode("utf-8", "replace")


@examples(25)
@given(TREES)
def test_any_tree(tree):
    """Whatever keys and values, with or without aliases."""
    loaded(dumped(tree))
    loaded(dumped([tree, tree]))


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    if isinstance(tree, str):
        return [at]
    return [at, *itertools.chain(*(places(part, (*at, key)) for key, part in inner))]


@st.composite
def mutated_trees(draw: st.DrawFn) -> Any:
    """A mapping that was right, with keys dropped, renamed, moved, and values of wrong types."""
    tree = yaml.load(MAPPING, yaml.BaseLoader)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([at for at in places(tree) if at]))
        holder = tree
        for key in way:
            holder = holder[key]
        match draw(st.sampled_from(["drop", "rename", "replace", "wrap", "move"])):
            case "drop":
                del holder[last]
            case "rename" if isinstance(holder, dict):
                holder[draw(KEYS)] = holder.pop(last)
            case "wrap":
                holder[last] = draw(st.sampled_from([[holder[last]], {"column": holder[last]}]))
            case "move":
                tree[draw(KEYS)] = holder[last]
            case _:
                holder[last] = draw(TREES)
        if not tree:
            break
    return tree


@examples(35)
@given(mutated_trees())
def test_a_mapping_that_was_right(tree):
    """Dropped, renamed, wrapped and moved parts, and wrong types, at any depth."""
    loaded(dumped(tree))


TOKENS = st.sampled_from(
    [
        *("- ", ": ", ":", "\n", "  ", "\t", "{", "}", "[", "]", ",", '"', "'", "&a ", "*a", "!t "),
        *(
            "!!int ",
            "!<x>",
            "%YAML 1.1\n",
            "%TAG ! x\n",
            "---\n",
            "...\n",
            "|",
            ">",
            "|-\n  ",
            "? ",
        ),
        *("#", "@", "`", "<<: *a", "\\x", "\\u", "\\UFFFFFFFF", "\\ud800", "\\0", "\\e", "\x85"),
        *("\u2028", "\ufeff", "\0", "\x1b", "é", "😀", "{A}", "{{", "}}", '"*"', "%", "9" * 5000),
        *(
            "~",
            "=",
            "\r",
            "\r\n",
            "|9\n",
            "!",
            "!!",
            "!<",
            "!%41 x",
            "&",
            "*",
            "%41",
            "\\\n",
            "\ud7ff",
        ),
    ]
)


@st.composite
def mutated_texts(draw: st.DrawFn) -> bytes:
    """A mapping that was right, with pieces of YAML put in or taken out, in an encoding."""
    text = MAPPING
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        kept = draw(st.integers(at, min(len(text), at + 12)))
        text = text[:at] + draw(TOKENS | st.just("")) + text[kept:]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
    return text.encode(encoding)


@examples(60)
@given(mutated_texts())
def test_a_text_that_was_right(content):
    """Every token of YAML at every place, tabs, marks, controls and other encodings."""
    loaded(content)


# ----------------------------------------------------------------------------------------------
# Large ones

LINES = "".join(f"k{at}: v\n" for at in range(100_000))  # 0.9 MB
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]\n" for at in range(1, 9)
)
TEXT_BOMB = attributes(
    "a: &x {template: &y " + "z" * 30_000 + ", strip: true}",
    *(f"a{at}: {{template: *y, strip: true}}" for at in range(500)),
)
OWN_TEXT = attributes("a: &x " + "z" * 30_000, "b: *x", "c: *x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LINES * 2, "larger than 1 MiB"),
        (LINES, "line 50000: more than 100,000 values"),
        ("[" * 100_000, "line 1: this is nested too deeply"),
        ("{a: " * 50_000, "line 1: this is nested too deeply"),
        ("\n" + "- " * 100_000, "line 2: this is nested too deeply"),
        (BOMB, "more than 100,000 values once its aliases are followed"),
        (TEXT_BOMB, "more than 2,097,152 characters once its aliases are followed"),
        (OWN_TEXT, "line 2: the texts that update_contact_attributes writes into every row have"),
        ("? " + "x" * 200_000 + "\n: b", "line 1: "),
        (attributes("? " + "x" * 200_000 + "\n    : b"), "line 5: "),
        (attributes("a: {template: " + "z" * 200_000 + ", strip: true}"), "line 5: Attributes.a"),
        (attributes("a: {column: A, map: {x: " + "z" * 200_000 + "}}"), "200,000 characters"),
        (attributes("a: {column: A, default: " + "z" * 40_000 + ", truncate_bytes: 9}"), "line 5"),
        (contact('Name: "' + "{Q" + "q" * 200_000 + '}"'), "has no column"),
        (attributes('a: "\\0"'), "line 5: an escape here is a NUL character"),
        ("source: {encoding: " + "x" * 200_000 + "}", "line 1: source.encoding"),
    ],
    ids=lambda value: value[-12:] if len(value) < 90 else "",
)
def test_large_files_are_refused_in_few_words(text: str, says: str, tmp_path: Path):
    """Whatever is large in them: lines, lists, depth, aliases, keys or texts."""
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(MappingError) as caught:
        compile_mapping(load_spec(path), HEADER, "export.csv")
    check_refusal(caught.value, path)
    assert says in caught.value.message


def test_a_long_constant_is_held_once():
    """A text of 30,000 characters in a frame of 16,384 rows takes no half a gigabyte."""
    text = attributes("a: " + "z" * 30_000)
    tracemalloc.start()
    try:
        made = entries(text, {"A": [""] * 16_384})
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {len(entry.params["Attributes"]["a"]) for entry in made} == {30_000}
    assert {entry.payload_bytes for entry in made} == {30_001}
    assert peak_bytes < 200e6


def test_a_template_that_would_be_larger_than_memory_concerns_its_row():
    """Of two rows, the one of 40 cells of 32 MiB is INVALID, and the other is sent."""
    text = attributes("a: {template: '" + "{A}" * 40 + "', truncate_bytes: 10}")
    large, small = entries(text, {"A": ["x" * (32 << 20), "y"]})
    assert isinstance(large, Result)
    assert (large.outcome, large.error_code) == (Outcome.INVALID, "too_long")
    assert large.error == ('row 1: Attributes.a (from "A") is too long to put together in memory.')
    assert isinstance(small, Request)
    assert small.params["Attributes"] == {"a": "y" * 10}


def test_a_column_that_makes_a_key_that_is_too_long_is_refused(tmp_path: Path):
    """By `"*"`, at its line; every row would be refused by the service."""
    path = tmp_path / "mapping.yaml"
    path.write_text(attributes('"*": {prefix: crm_}', contact="c"))
    with pytest.raises(MappingError, match="makes a key of 40,004 characters") as caught:
        compile_mapping(load_spec(path), ["x" * 40_000], "export.csv")
    check_refusal(caught.value, path)


# ----------------------------------------------------------------------------------------------
# What messages show


@pytest.mark.parametrize("odd", ["\x1b[31m", "\u202e", "a\nb", "\x07", "\ufeff", "x" * 900])
def test_no_name_reaches_the_terminal_raw(odd: str):
    """Control characters, marks of direction and long names, from the mapping and the header."""
    name = json.dumps(odd)
    for text in (
        f"{name}: x",
        f"update_contact: {{{name}: x}}",
        attributes(f"{name}: x"),
        attributes(f"a: {{column: {name}}}"),
        attributes(f"a: {{column: A, {name}: x}}"),
        attributes(f"a: {{column: A, date: {name}, format: x}}"),
        f"source: {{encoding: {name}}}",
        f"source: {{where: [{{column: A, matches: {json.dumps('(?P=' + odd)}}}]}}",
        f"a: *{odd.strip() or 'b'}",
    ):
        assert loaded(text.encode()) is None
    (made,) = entries(
        contact(f"References: {{{name}: {{Type: URL, Value: '{{A}}'}}}}"), {"A": ["x" * 5000]}
    )
    assert isinstance(made, Result)
    assert made.error is not None
    assert made.error.isprintable()
    assert len(made.error) < 300
    (made,) = entries(contact("Name: " + json.dumps("{" + odd + "}")), {odd: ["x" * 5000]})
    assert isinstance(made, Result)
    assert made.error is not None
    assert made.error.isprintable()
    assert len(made.error) < 300


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(a+)+$",
            "(a*)*",
            "((a)+b)*",
            "(a|b+)*",
            "(a{1,900}){1,900}",
            "(?:a+){2,}",
            r"(\w+\s?)*",
        ),
        *("(a+)+?", "((a+))+", "(a++b+)*", "x(?:y(?:z+)?)*"),
    ],
)
def test_a_regular_expression_that_may_take_for_ever_is_warned_of(pattern: str):
    """With its line and what to do; Python's engine cannot be interrupted."""
    (warning,) = with_condition(pattern).warnings
    assert warning.startswith("mapping.yaml, line 4: this regular expression repeats a group")


@pytest.mark.parametrize(
    "pattern",
    [
        *("a+", "(a)+", "(a++)+", "(?>a+)+", "(a+)++", "(a+)?", "(a+){3}", "[(a+)+]", r"\(a+\)+"),
        *(
            "(ab?)*",
            "(a{2})*",
            "^[^q]*$",
            "(a{1,3})+",
            "",
            "(a+){1,2}",
            "(?=a+)*",
            "[]a+]+",
            "a{2,}b+",
        ),
    ],
)
def test_one_that_is_harmless_is_not(pattern: str):
    """Possessive and atomic ones, escapes, classes, and few repeats."""
    assert with_condition(pattern).warnings == ()


def with_condition(pattern: str) -> MappingSpec:
    """A mapping whose one condition is an expression, in line 4."""
    return parse(
        f"source:\n  where:\n  - column: A\n    matches: {json.dumps(pattern)}\n"
        f"update_contact: {{InstanceId: {INSTANCE}, ContactId: c, Name: n}}\n"
    )


def test_marks_and_encodings(tmp_path: Path):
    """UTF-8 with or without a mark and UTF-16 with one are read; the others are refused."""
    path = tmp_path / "mapping.yaml"
    n_read = 0
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp037"):
        path.write_bytes(MAPPING.encode(encoding))
        try:
            n_read += load_spec(path) is not None
        except MappingError as error:
            check_refusal(error, path)
    path.write_bytes(codecs.BOM_UTF16_BE + MAPPING.encode("utf-16-be"))
    assert load_spec(path).requests
    assert n_read == 3


def test_a_path_that_cannot_be():
    """A NUL character in a path is no traceback."""
    with pytest.raises(MappingError, match="its path holds a NUL character"):
        load_spec(Path("a\0b"))
