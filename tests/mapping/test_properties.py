"""Mapping a frame equals mapping its rows one by one, with nothing but dicts."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.mapping import compile_mapping
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.operations import get_operation

from .helpers import INSTANCE, SOURCE, frame, map_cells, parse

MAPPING = f"""\
source:
  where:
    - {{column: W, not: "x"}}
    - {{column: W, not_in: [y, z]}}
    - {{column: W, matches: "^[^q]*$"}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{K}}"
  Attributes:
    constant: crm
    joined: "{{A}} {{{{and}}}} {{B}}"
    stripped: {{column: A, strip: true, empty: erase}}
    mapped: {{column: M, map: {{a: high, b: "", "": none}}}}
    stood: {{column: M, map: {{a: high}}, lower: true, default: LOW}}
    dated: {{column: D, strip: true, date: "%d/%m/%Y", format: "%Y-%m-%d", empty: skip}}
    upper: {{template: "<{{A}}>", upper: true, truncate_bytes: 5}}
    needed: {{column: B, strip: true, default: "{{{{}}}}", empty: reject}}
update_contact:
  InstanceId: arn:aws:connect:eu-west-2:123456789012:instance/{INSTANCE}
  ContactId: "{{K}}"
  Name: {{column: A, truncate_bytes: 8}}
  References:
    crm: {{Type: URL, Value: "https://e/{{B}}"}}
    kind: {{Type: "{{T}}", Value: {{column: B, empty: erase}}}}
  SegmentAttributes:
    "connect:ContactExpiry": {{ValueMap: {{ExpiryDuration: {{ValueInteger: "{{N}}"}}}}}}
    other:
      ValueString: "{{A}}"
      ValueInteger: 0
      ValueList: [{{ValueArn: "{{B}}"}}, {{ValueArn: x}}]
  UserInfo: {{UserId: {{column: U, default: agent}}}}
"""
# What a mutation of these cells meets: every transform's own words, blanks, accents, long texts.
WORDS = ["", " ", "a", "b", "x", "q", " é ", "Straße", "😀😀", "e\u0301" * 4, "planted", "x" * 40]
DATES = ["", " ", "31/12/2024", " 1/2/0999 ", "29/02/2023", "planted"]
NUMBERS = ["", "0", "007", "+5", "-2147483648", "2147483648", "1.0", "planted"]
CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=["M", "C", "Sk", "So"]) | st.just("\0"),
    max_size=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "W": st.sampled_from(["", "", "", "x", "y", "q", "ok"]),
            "K": st.sampled_from(["c1", "c1", "c2", "", "k" * 257, "é"]),
            "A": st.sampled_from(WORDS) | CELLS,
            "B": st.sampled_from(WORDS) | CELLS,
            "M": st.sampled_from(["", "a", "a", "b", "b", "A", "planted"]),
            "D": st.sampled_from(DATES),
            "T": st.sampled_from(["URL", "STRING", ""]),
            "N": st.sampled_from(NUMBERS),
            "U": st.sampled_from(["", "u", "u" * 256, "u" * 257]),
        }
    ),
    max_size=8,
)


class Broken(Exception):  # noqa: N818 - how the oracle leaves a row
    """The row is INVALID."""


def cut(text, max_bytes):
    """As many characters as fit, an accent counted with its letter; or else code points."""
    for characters in (re.findall("(?s).\u0301*", text), list(text)):
        kept = ""
        for character in characters:
            if len((kept + character).encode()) > max_bytes:
                break
            kept += character
        if kept:
            return kept
    return ""


def date_of(cell):
    if not cell:
        return ""
    try:
        moment = datetime.strptime(cell, "%d/%m/%Y")  # noqa: DTZ007 - dates have no zone here
    except ValueError:
        raise Broken("unreadable_date") from None
    return f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"


def contact_of(row):
    if not row["K"]:
        raise Broken("empty_id")
    if len(row["K"]) > 256:
        raise Broken("too_long")
    return row["K"]


def attributes_of(row):
    """What update_contact_attributes writes, by the words of the mapping file's documentation."""
    a, b, m = row["A"], row["B"], row["M"]
    attributes = {"constant": "crm"}
    if a or b:
        attributes["joined"] = f"{a} {{and}} {b}"
    attributes["stripped"] = a.strip()
    known = {"a": "high", "b": "", "": "none"}
    if m not in known:
        raise Broken("unknown_value")
    attributes["mapped"] = known[m]
    attributes["stood"] = "high" if m == "a" else "LOW"
    attributes["dated"] = date_of(row["D"].strip())
    attributes["upper"] = cut(f"<{a}>".upper(), 5) if a else ""
    attributes["needed"] = b.strip() or "{}"
    return {
        "Attributes": {
            name: text for name, text in attributes.items() if text or name == "stripped"
        }
    }


def integer_of(cell):
    if not re.fullmatch("[+-]?[0-9]+", cell):
        raise Broken("not_an_integer")
    if not -(2**31) <= int(cell) < 2**31:
        raise Broken("integer_out_of_range")
    return int(cell)


def contact_members_of(row):
    """What update_contact writes."""
    a, b = row["A"], row["B"]
    members = {"Name": cut(a, 8)} if cut(a, 8) else {}
    if b:
        members.setdefault("References", {})["crm"] = {"Type": "URL", "Value": f"https://e/{b}"}
    if not row["T"]:
        raise Broken("missing_member")  # the value is erased or sent, and needs its type
    members.setdefault("References", {})["kind"] = {"Type": row["T"], "Value": b}
    segments = {}
    if row["N"]:
        number = {"ValueInteger": integer_of(row["N"])}
        segments["connect:ContactExpiry"] = {"ValueMap": {"ExpiryDuration": number}}
    if a or b:
        arns = [{"ValueArn": b}, {"ValueArn": "x"}] if b else [{"ValueArn": "x"}]
        segments["other"] = {"ValueString": a} if a else {}
        segments["other"] |= {"ValueInteger": 0, "ValueList": arns}
    if segments:
        members["SegmentAttributes"] = segments
    if len(row["U"]) > 256:
        raise Broken("too_long")
    return members | {"UserInfo": {"UserId": row["U"] or "agent"}}


ORACLES = {
    "update_contact_attributes": ("InitialContactId", attributes_of),
    "update_contact": ("ContactId", contact_members_of),
}


def expected(row):
    """For each operation: the whole request, the rule that is broken, or `filtered`."""
    for operation, (contact_member, members) in ORACLES.items():
        if row["W"] in ("x", "y", "z") or "q" in row["W"]:
            yield operation, "filtered"
            continue
        try:
            ids = {"InstanceId": INSTANCE, contact_member: contact_of(row)}
            yield operation, ids | members(row)
        except Broken as broken:
            yield operation, str(broken)


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in "WKABMDTNU"}


@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_a_frame_is_mapped_like_its_rows_one_by_one(rows):
    """Every row becomes what plain Python makes of it, alone and with dicts."""
    found = list(map_cells(MAPPING, columns_of(rows)).entries())
    wanted = [(number, *entry) for number, row in enumerate(rows, 1) for entry in expected(row)]
    assert [
        (e.row, e.operation, e.params if isinstance(e, Request) else e.error_code) for e in found
    ] == wanted


@settings(deadline=None, max_examples=25)
@given(ROWS)
def test_requests_are_boto3s_and_their_sizes_true(rows):
    """botocore takes every request that is made, and its size is the one counted by columns."""
    for made in map_cells(MAPPING, columns_of(rows)).entries():
        if isinstance(made, Request):
            operation = get_operation(made.operation)
            assert made.payload_bytes == operation.payload_bytes(made.params)
            report = ParamValidator().validate(made.params, operation.shape._shape)
            assert report.generate_report() == ""


@settings(deadline=None, max_examples=25)
@given(ROWS, st.data())
def test_a_frame_may_be_split_anywhere(rows, data):
    """Frames split at any point give the entries of one frame."""
    at = data.draw(st.integers(0, len(rows)))
    cells = columns_of(rows)
    compiled = compile_mapping(parse(MAPPING), list(cells), SOURCE)
    whole = frame(cells)
    parts = [
        type(whole)(SOURCE, whole.rows[span], whole.cells.iloc[span])
        for span in (slice(None, at), slice(at, None))
    ]
    together = [entry for part in parts for entry in compiled.map_frame(part).entries()]
    assert together == list(compiled.map_frame(whole).entries())


@settings(deadline=None, max_examples=25)
@given(ROWS)
def test_counts_are_those_of_the_entries(rows):
    """What is counted without making an entry is what the entries add up to."""
    mapped = map_cells(MAPPING, columns_of(rows))
    for index, operation in enumerate(mapped.operations):
        made = list(mapped.entries())[index::2]
        assert operation.to_send.tolist() == [isinstance(entry, Request) for entry in made]
        results = [entry for entry in made if isinstance(entry, Result)]
        assert {
            row: breach.rule for breach, numbers in operation.invalid_rows() for row in numbers
        } == {entry.row: entry.error_code for entry in results if entry.outcome is Outcome.INVALID}
        assert sum(operation.skipped().values()) == sum(
            entry.outcome is Outcome.SKIPPED for entry in results
        )


@pytest.mark.parametrize("marker", ["planted-7f3a", "\u202eplanted-7f3a", "planted-7f3a" * 4000])
def test_no_error_holds_a_cell(marker):
    """Whatever a row breaks, no text about it holds what stands in a cell."""
    plain = {
        "W": "",
        "K": "c",
        "A": "a",
        "B": "b",
        "M": "a",
        "D": "",
        "T": "URL",
        "N": "1",
        "U": "u",
    }
    rows = [{**plain, column: marker + plain[column]} for column in plain]
    rows.append(dict.fromkeys(plain, marker))
    rules = set()
    for made in map_cells(MAPPING, columns_of(rows)).entries():
        if isinstance(made, Result):
            rules.add(made.error_code)
            assert "planted" not in (made.error or "")
            assert "planted" not in repr(made).replace(repr(made.contact_id), "")
        else:
            assert "planted" not in repr(made).replace(repr(made.contact_id), "")
    assert rules >= {"unknown_value", "unreadable_date", "not_an_integer"}


def test_no_breach_at_all_holds_a_cell():
    """Every rule there is, broken by a marker, is told without it."""
    text = f"""\
update_contact:
  InstanceId: {INSTANCE}
  ContactId: c
  Name: "{{A}}"
  References:
    long: {{Type: URL, StatusReason: "{{A}}"}}
    short: {{Type: URL, Arn: {{column: B, truncate_bytes: 7}}}}
    bad: {{Type: URL, Arn: "___{{B}}_____________________"}}
    large: {{Type: URL, Value: "{{B}}{{B}}"}}
  SegmentAttributes:
    number: {{ValueInteger: "{{A}}"}}
    range: {{ValueInteger: "{{N}}"}}
    mapped: {{ValueString: {{column: A, map: {{x: y}}}}}}
    dated: {{ValueString: {{column: A, date: "%Y", format: "%Y"}}}}
"""
    (mapped,) = map_cells(
        text, {"A": ["planted" * 500], "B": ["planted" * 300], "N": ["9" * 99]}
    ).operations
    told = [(breach.rule, breach.error(1, 0).message) for breach in mapped.breaches.list]
    assert [rule for rule, _ in told] == [
        "too_long",
        "too_long",
        "too_short",
        "too_long",
        "bad_pattern",
        "too_long",
        "not_an_integer",
        "integer_out_of_range",
        "unknown_value",
        "unreadable_date",
        "references_too_large",
    ]
    assert not [message for _, message in told if "planted" in message or "999" in message]
