"""What later rows wrote stands: what is left of a request that is sent late."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.ledger.records import encode
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.operations import get_operation
from bulk_updater.pipeline.later import LaterWrites

from .fakes import INSTANCE, attributes_request

if TYPE_CHECKING:
    from pathlib import Path

ATTRIBUTES = "update_contact_attributes"
CONTACT = "update_contact"


def result(row, outcome=Outcome.UPDATED, names=(), contact="c", **changes):
    made = Result(
        row, "export.csv", ATTRIBUTES, outcome, INSTANCE, contact, attribute_names=tuple(names)
    )
    return replace(made, **changes)


def write(path: Path, *results) -> Path:
    path.write_bytes(b"".join(encode(each, "run") for each in results))
    return path


def later(path: Path, *results, contacts=((ATTRIBUTES, INSTANCE, "c"),), **settings):
    found = LaterWrites(set(contacts), **settings)
    found.read(write(path, *results))
    return found


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger.jsonl"


def test_names_that_a_later_row_wrote_are_left_out(ledger):
    """Row 3 keeps what row 5 did not write, without a digest, and with the bytes that are left."""
    request = replace(attributes_request(3, "c", tier="gold", note="né"), payload_digest="ab" * 8)
    left = later(ledger, result(5, names=["tier", "other"])).trim(request)
    assert left.params == {**request.params, "Attributes": {"note": "né"}}
    assert (left.row, left.payload_bytes, left.payload_digest) == (3, 4 + 3, "")
    assert request.params["Attributes"] == {"tier": "gold", "note": "né"}


def test_a_row_of_which_nothing_is_left_is_superseded(ledger):
    """Two later rows wrote all of it together: no request, and a sentence with the newest row."""
    found = later(ledger, result(5, names=["tier"]), result(8, names=["note"]))
    superseded = found.trim(attributes_request(3, "c", tier="gold", note="x"))
    assert (superseded.outcome, superseded.error_code) == (Outcome.SUPERSEDED, "superseded")
    assert superseded.error == (
        "row 3: row 8 and earlier ones wrote all of this later for the same contact, so it was "
        "not sent."
    )
    assert superseded.attribute_names == ("tier", "note")
    assert (superseded.instance_id, superseded.contact_id) == (INSTANCE, "c")


@pytest.mark.parametrize(
    "other",
    [
        result(2, names=["tier"]),
        result(3, names=["tier"]),
        result(5, names=["tier"], contact="d"),
        result(5, names=["tier"], instance_id="other"),
        result(5, names=["Name"], operation=CONTACT),
        result(5, Outcome.FAILED, names=["tier"]),
        result(5, Outcome.INVALID),
        result(5, Outcome.SKIPPED),
        result(5, names=["other"]),
    ],
    ids=[
        *("earlier", "itself", "other contact", "other instance", "other operation"),
        *("failed", "invalid", "skipped", "other names"),
    ],
)
def test_a_row_that_nothing_was_written_behind_is_sent_as_it_is(ledger, other):
    """Only what later rows of the same contact and operation wrote counts."""
    request = replace(attributes_request(3, "c", tier="gold"), payload_digest="ab" * 8)
    assert later(ledger, other).trim(request) is request


@pytest.mark.parametrize(
    ("other", "left"),
    [
        (result(5, Outcome.UNCHANGED), None),
        (result(5, Outcome.SUPERSEDED), None),
        (result(5, Outcome.SUPERSEDED, names=["tier"]), {"note": "x"}),
        (result(5), None),
    ],
)
def test_what_stands_without_names_stands_for_everything(ledger, other, left):
    """A contact that was not written to, as it holds something newer, is not undone either."""
    made = later(ledger, other).trim(attributes_request(3, "c", tier="gold", note="x"))
    assert (made.params["Attributes"] if isinstance(made, Request) else None) == left


def test_the_last_line_of_a_row_counts(ledger):
    """A later row that failed at first and was UPDATED by a retry counts, and the reverse not."""
    found = later(
        ledger,
        result(5, Outcome.FAILED, names=["tier"]),
        result(6, names=["note"]),
        result(5, names=["tier"]),
        result(6, Outcome.FAILED, names=["note"]),
    )
    left = found.trim(attributes_request(3, "c", tier="gold", note="x"))
    assert left.params["Attributes"] == {"note": "x"}


def test_rows_that_were_merged_count_with_their_carrier(ledger):
    """Row 5's names went with row 6, whose result names both: neither is undone."""
    found = later(
        ledger,
        result(5, names=["tier"], merged_into=6),
        result(6, names=["tier", "note"]),
    )
    left = found.trim(attributes_request(3, "c", tier="gold", note="x", own="1"))
    assert left.params["Attributes"] == {"own": "1"}


def test_a_row_counts_as_the_one_that_it_comes_from(ledger):
    """Mended row 1 was row 7: what row 5 wrote is older than it, and what row 9 wrote is not."""
    found = later(
        ledger, result(5, names=["tier"]), result(9, names=["note"]), origin=" of the run before"
    )
    request = attributes_request(1, "c", tier="gold", note="x")
    assert found.trim(request, row=7).params["Attributes"] == {"tier": "gold"}
    assert (
        "row 1: row 9 of the run before wrote"
        in found.trim(attributes_request(1, "c", note="x"), row=7).error
    )


def test_references_are_left_out_as_a_whole(ledger):
    """A later row that wrote another reference keeps References to itself."""
    params = {"InstanceId": INSTANCE, "ContactId": "c"}
    request = Request(
        3, "s", CONTACT, INSTANCE, "c", {**params, "Name": "n", "References": {"a": {}}}, 2
    )
    other = result(5, names=["References.b"], operation=CONTACT)
    found = later(ledger, other, contacts=[(CONTACT, INSTANCE, "c")])
    assert found.trim(request).params == {**params, "Name": "n"}


def test_several_ledgers_count_together(tmp_path):
    """Rows of a second ledger count as the rows that they are said to be, or not at all."""
    found = LaterWrites({(ATTRIBUTES, INSTANCE, "c")})
    found.read(tmp_path / "missing.jsonl")
    found.read(write(tmp_path / "one.jsonl", result(5, names=["tier"])))
    found.read(
        write(tmp_path / "two.jsonl", result(1, names=["note"]), result(2, names=["own"])),
        {1: 9}.get,
    )
    request = attributes_request(3, "c", tier="gold", note="x", own="1")
    assert found.trim(request).params["Attributes"] == {"own": "1"}


ROWS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), min_size=1), st.booleans()
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200)
@given(ROWS, st.randoms(use_true_random=False))
def test_retried_in_order_a_contact_ends_as_if_nothing_had_failed(tmp_path_factory, rows, rng):
    """Whatever fails and is retried, in several retries, ends as the rows one after the other."""
    path = tmp_path_factory.mktemp("run") / "ledger.jsonl"
    operation = get_operation(ATTRIBUTES)
    state: dict[str, str] = {}
    results = {}
    for row, (attributes, fails) in enumerate(rows, 1):
        results[row] = result(row, Outcome.FAILED if fails else Outcome.UPDATED, attributes)
        state |= {} if fails else attributes
    while failed := [row for row, each in results.items() if each.outcome is Outcome.FAILED]:
        chosen = [row for row in failed if rng.random() < 0.6]
        found = later(path, *results.values())
        for row in chosen:
            made = found.trim(attributes_request(row, "c", **rows[row - 1][0]))
            if isinstance(made, Request):
                state |= made.params["Attributes"]
                made = result(row, names=operation.written_names(made.params))
            results[row] = made
    expected: dict[str, str] = {}
    for attributes, _ in rows:
        expected |= attributes
    assert state == expected
