"""A mapped frame: entries in file order, counts that add up, and no cell in any error."""

from __future__ import annotations

import numpy as np
import pytest

from bulk_updater.errors import RowError
from bulk_updater.keys import KEY_DTYPE, contact_key
from bulk_updater.mapping import EXPIRED, compile_mapping
from bulk_updater.model import Frame, Outcome, Request, Result, UnreadableRow

from .helpers import INSTANCE, SOURCE, attributes, contact, entries, frame, map_cells, parse

BEFORE = "source: {where: [{column: W, not: x}]}\n"
TEXT = attributes('a: "{A}"', "b: {column: B, map: {y: z}}", contact='"{K}"', before=BEFORE)
CELLS = {
    "K": ["k1", "k2", "", "k4", "k5", "k6"],
    "A": ["v", "", "v", "v", "", "w"],
    "B": ["y", "", "y", "n", "", "y"],
    "W": ["", "x", "", "", "", ""],
}


def test_entries_in_file_order():
    """Every row has one entry: a request, or the result of a row that makes none."""
    first, *rest, last = map_cells(TEXT, CELLS).entries()
    assert first == Request(
        row=1,
        source=SOURCE,
        operation="update_contact_attributes",
        instance_id=INSTANCE,
        contact_id="k1",
        params={
            "InstanceId": INSTANCE,
            "InitialContactId": "k1",
            "Attributes": {"a": "v", "b": "z"},
        },
        payload_bytes=len("avbz"),
        payload_digest=first.payload_digest,
    )
    assert int(first.payload_digest, 16) > 0
    assert isinstance(last, Request)
    assert last.params["Attributes"] == {"a": "w", "b": "z"}
    named = {"instance_id": INSTANCE}
    shared = {"source": SOURCE, "operation": "update_contact_attributes"}
    assert rest == [
        Result(row=2, outcome=Outcome.SKIPPED, error_code="filtered", **shared),
        Result(
            row=3,
            outcome=Outcome.INVALID,
            error_code="empty_id",
            error='row 3: InitialContactId (from "K") is empty; `source.where` can leave such rows '
            "out.",
            **shared,
        ),
        Result(
            row=4,
            outcome=Outcome.INVALID,
            error_code="unknown_value",
            error='row 4: Attributes.b (from "B") is none of the 1 texts in its map, which has no '
            "default.",
            contact_id="k4",
            **named,
            **shared,
        ),
        Result(
            row=5,
            outcome=Outcome.SKIPPED,
            error_code="nothing_to_send",
            contact_id="k5",
            **named,
            **shared,
        ),
    ]


def test_counts_add_up():
    """Requests, INVALID and SKIPPED rows are all rows, and each is counted once."""
    (mapped,) = map_cells(TEXT, CELLS).operations
    assert mapped.to_send.tolist() == [True, False, False, False, False, True]
    assert mapped.skipped() == {"filtered": 1, "nothing_to_send": 1}
    broken = [(breach.rule, rows.tolist()) for breach, rows in mapped.invalid_rows()]
    assert broken == [("empty_id", [3]), ("unknown_value", [4])]
    assert mapped.sizes.tolist() == [4, 0, 4, 2, 0, 4]


def test_one_row_can_be_asked_for():
    """Any position gives the entry that the row has in file order, in any order of asking."""
    (mapped,) = map_cells(TEXT, CELLS).operations
    in_order = list(map_cells(TEXT, CELLS).entries())
    for position in (5, 0, 3, 2, 1, 4, 0):
        assert mapped.entry(position) == in_order[position]
    assert mapped.request(5) == in_order[5]


def test_settled_rows_have_no_entry():
    """Nothing is made for what has its result already, row by row and operation by operation."""
    text = attributes('a: "{A}"') + contact('Name: "{A}"')
    mapped = map_cells(text, {"id": ["c"] * 3, "A": ["x"] * 3})
    settled = {(1, "update_contact"), (2, "update_contact"), (2, "update_contact_attributes")}
    found = mapped.entries(lambda row, operation: (row, operation) in settled)
    assert [(entry.row, entry.operation) for entry in found] == [
        (1, "update_contact_attributes"),
        (3, "update_contact_attributes"),
        (3, "update_contact"),
    ]


@pytest.mark.parametrize(
    ("rows", "unreadable"),
    [([2, 3], [1]), ([1, 3], [2]), ([1, 2], [3]), ([2, 5], [1, 3, 4, 6, 7]), ([], [1, 2])],
)
def test_unreadable_rows_stand_in_their_place(rows, unreadable):
    """A row that could not be read is INVALID, in its place, once for each operation."""
    text = attributes('a: "{A}"') + contact('Name: "{A}"')
    cells = frame({"id": ["c"] * len(rows), "A": ["v"] * len(rows)}).cells
    error = RowError("row 7: has 3 cells, and the header 2.", rule="ragged_row")
    whole = Frame(
        SOURCE,
        np.array(rows, dtype=np.int64),
        cells,
        tuple(UnreadableRow(row, error, (b"planted",)) for row in unreadable),
    )
    mapped = compile_mapping(parse(text), ["id", "A"], SOURCE).map_frame(whole)
    found = list(mapped.entries())
    assert [entry.row for entry in found] == sorted([*rows, *unreadable] * 2)
    broken = [entry for entry in found if isinstance(entry, Result)]
    assert [entry.row for entry in broken] == sorted(unreadable * 2)
    assert {(r.outcome, r.error_code, r.error) for r in broken} == {
        (Outcome.INVALID, "ragged_row", error.message)
    }
    settled = list(mapped.entries(lambda _row, operation: operation == "update_contact"))
    assert {entry.operation for entry in settled} == {"update_contact_attributes"}


def test_entries_among_some_rows():
    """Rows that are not among those asked about are passed over, unreadable ones never."""
    text = attributes('a: "{A}"') + contact('Name: "{A}"')
    error = RowError("row 3: has 3 cells, and the header 2.", rule="ragged_row")
    cells = frame({"id": ["c"] * 4, "A": ["v"] * 4}).cells
    whole = Frame(SOURCE, np.array([1, 2, 4, 5]), cells, (UnreadableRow(3, error, ()),))
    mapped = compile_mapping(parse(text), ["id", "A"], SOURCE).map_frame(whole)
    asked = []

    def is_settled(row, operation):
        asked.append(row)
        return operation == "update_contact"

    among = np.array([True, False, False, True])
    assert [entry.row for entry in mapped.entries(is_settled, among=among)] == [1, 3, 5]
    assert asked == [1, 1, 3, 3, 5, 5]
    assert [entry.row for entry in mapped.entries(among=among & False)] == [3, 3]


def test_rows_keep_their_numbers():
    """Row numbers are the source's, whatever position a row has in its frame."""
    cells = {"id": ["c", "c"], "A": ["v", ""]}
    compiled = compile_mapping(parse(attributes('a: "{A}"')), list(cells), SOURCE)
    mapped = compiled.map_frame(frame(cells, first=1001))
    assert [entry.row for entry in mapped.entries()] == [1001, 1002]


def test_keys_of_contacts_stand_at_their_rows():
    """Each row whose ids can be used has its contact's key at its position, any other NULs."""
    (mapped,) = map_cells(TEXT, CELLS).operations
    keys = mapped.contact_keys
    assert keys.dtype == KEY_DTYPE
    wanted = [contact_key(CELLS["K"][at]) if at in (0, 3, 4, 5) else bytes(16) for at in range(6)]
    assert [keys[at : at + 1].tobytes() for at in range(6)] == wanted


def test_requests_are_grouped_by_instance():
    """Each instance comes once with its rows that make a request, in file order."""
    text = attributes('a: "{A}"', contact='"{K}"', before=BEFORE).replace(INSTANCE, '"{I}"')
    instances = ["i", "j", "arn:aws:connect:r:1:instance/i", "j", "k", "i"]
    (mapped,) = map_cells(text, {**CELLS, "K": ["c"] * 6, "I": instances}).operations
    groups = [(name, positions.tolist()) for name, positions in mapped.instance_groups()]
    assert groups == [("i", [0, 2, 5]), ("j", [3])]
    (one,) = map_cells(TEXT, CELLS).operations
    assert [(name, at.tolist()) for name, at in one.instance_groups()] == [(INSTANCE, [0, 5])]
    (alone,) = map_cells(
        text, {**CELLS, "K": ["c"] * 6, "I": ["i", "j", "i", "i", "k", "i"]}
    ).operations
    assert [(name, at.tolist()) for name, at in alone.instance_groups()] == [("i", [0, 2, 3, 5])]
    (none,) = map_cells(TEXT, {name: [""] * 2 for name in CELLS}).operations
    assert none.instance_groups() == []


def test_rows_that_are_not_sent_are_told_together():
    """Selected rows come with the numbers, ids and digests that their requests have."""
    (mapped,) = map_cells(TEXT, {**CELLS, "B": ["y"] * 6}).operations
    selected = mapped.to_send.copy()
    selected[3] = False
    block = mapped.unsent(selected, Outcome.SKIPPED, EXPIRED)
    requests = [mapped.request(int(at)) for at in np.flatnonzero(selected)]
    assert len(block) == len(requests) == 3
    assert (block.source, block.operation) == (SOURCE, "update_contact_attributes")
    assert (block.outcome, block.error_code) == (Outcome.SKIPPED, "expired")
    assert block.rows.tolist() == [request.row for request in requests]
    assert block.instance_ids.to_pylist() == [request.instance_id for request in requests]
    assert block.contact_ids.to_pylist() == [request.contact_id for request in requests]
    assert [f"{number:016x}" for number in block.digests.tolist()] == [
        request.payload_digest for request in requests
    ]


def test_requests_do_not_share_what_they_hold():
    """The requests of two rows, and of two operations, hold nothing in common."""
    text = contact('References: {r: {Type: URL, Value: "{A}"}}')
    first, second = entries(text, {"A": ["x", "y"]})
    first.params["References"]["r"]["Value"] = "changed"
    assert second.params["References"]["r"]["Value"] == "y"


def test_more_rows_than_are_made_at_once():
    """A frame of thousands of rows, some left out, gives each row its own cells."""
    n_rows = 3000
    text = attributes(
        'a: "{A}"', contact='"{K}"', before="source: {where: [{column: A, not: '7'}]}\n"
    )
    found = entries(
        text, {"K": [f"k{i}" for i in range(n_rows)], "A": [str(i % 10) for i in range(n_rows)]}
    )
    assert len(found) == n_rows
    for number, made in enumerate(found):
        assert made.row == number + 1
        if number % 10 == 7:
            assert made.error_code == "filtered"
        else:
            assert made.contact_id == f"k{number}"
            assert made.params["Attributes"] == {"a": str(number % 10)}
