"""`bulk-updater plan`: counts, what is wrong where, one request, and the time it takes."""

from __future__ import annotations

import json

import pytest

from .conftest import INSTANCE, MAPPING

REQUEST = {
    "InstanceId": INSTANCE,
    "InitialContactId": "c-1",
    "Attributes": {"tier": "gold", "due": "2026-02-01"},
}


def test_a_plan_counts_and_shows_the_first_request(call):
    """Five rows: two requests, one filtered, two invalid with their numbers; exit code 1."""
    ran = call("plan mapping.yaml export.csv")
    assert ran.code == 1
    assert ran.err == ""
    assert ran.out == (
        "export.csv: 5 rows\n"
        "\n"
        "update_contact_attributes\n"
        "        2  requests  0.2 s at 8/s; quota code L-F001E5ED; the largest has 21 bytes\n"
        "        1  skipped   1 left out by `where`\n"
        "        2  invalid\n"
        "           2 rows (3, 5): unreadable_date\n"
        '             Attributes.due (from "Due") is no date of the form %d/%m/%Y.\n'
        "\n"
        "First request, for aws connect update-contact-attributes --cli-input-json:\n"
        + json.dumps(REQUEST, indent=2)
        + "\n"
        "\n"
        "Nothing was sent. A run takes 0.2 s at 8 requests a second.\n"
    )


def test_the_example_of_a_fault_is_that_row_s(call, tmp_path):
    """Behind filtered rows, the figures are still those of the row that is named."""
    rows = ["short,open,,", "short,open,,", f"{'x' * 300},done,gold,"]
    (tmp_path / "export.csv").write_text("\n".join(["Contact,Status,Tier,Due", *rows]))
    ran = call("plan mapping.yaml export.csv")
    assert "row 3: too_long\n" in ran.out
    assert (
        'InitialContactId (from "Contact") has 300 characters; at most 256 are allowed.' in ran.out
    )


def test_every_row_that_can_be_sent_is_exit_code_0(call, tmp_path):
    """One good row: singular words, and 0."""
    (tmp_path / "export.csv").write_text("Contact,Status,Tier,Due\nc-1,done,gold,\n")
    ran = call("plan mapping.yaml export.csv")
    assert ran.code == 0
    assert ran.out.startswith("export.csv: 1 row\n")
    assert "        1  request   0.1 s at 8/s" in ran.out
    assert "        0  invalid\n" in ran.out


def test_nothing_to_send_is_said(call, tmp_path):
    """A header without rows is no fault, and no time is promised."""
    (tmp_path / "export.csv").write_text("Contact,Status,Tier,Due\n")
    ran = call("plan mapping.yaml export.csv")
    assert ran.code == 0
    assert "        0  requests  0 s at 8/s; quota code L-F001E5ED\n" in ran.out
    assert ran.out.endswith("\nNothing was sent, and a run would send nothing.\n")


def test_two_operations_go_side_by_side(call):
    """Each has its counts and its request; the time is the longer one's."""
    ran = call("plan both.yaml export.csv")
    # Row 3 has no tier and so no name; rows 3 and 5 have no date, which is not this one's concern.
    assert "\nupdate_contact\n        3  requests  0.4 s at 8/s; quota code L-40C15531" in ran.out
    assert "2  skipped   1 left out by `where`, 1 with nothing to send\n" in ran.out
    assert "First request, for aws connect update-contact --cli-input-json:\n" in ran.out
    assert ran.out.endswith(
        "Nothing was sent. A run takes 0.4 s at 8 requests a second for each operation.\n"
    )


def test_several_sources_are_counted_one_by_one_and_together(call, tmp_path):
    """Row numbers run on, and so do the counts."""
    (tmp_path / "more.csv").write_text("Contact,Status,Tier,Due\nc-6,done,,never\n")
    ran = call("plan mapping.yaml export.csv more.csv")
    assert ran.out.startswith("export.csv: 5 rows\nmore.csv: 1 row\ntogether: 6 rows\n")
    assert "3 rows (3, 5, 6): unreadable_date\n" in ran.out


def test_a_limit_takes_the_first_rows_only(call):
    """--limit 2 plans two rows."""
    ran = call("plan mapping.yaml export.csv --limit 2")
    assert ran.code == 0
    assert ran.out.startswith("export.csv: 2 rows\n")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--rate 100", "0.1 s at 100 requests a second."),
        ("--quota-share 0.1", "A run takes 2 s at 1 requests a second."),
        ("--rate 0.0001", "A run takes 5 h 33 min at 0.0001 requests a second."),
    ],
)
def test_the_time_follows_the_rate(call, flags, says):
    """--rate and --quota-share are what the time is computed with."""
    assert says in call(f"plan mapping.yaml export.csv {flags}").out


def test_many_bad_rows_are_one_group_with_the_first_five_numbers(call, tmp_path):
    """2,000 rows with one fault: one group, five numbers, no thousands separators in them."""
    rows = "\n".join(f"c-{row},done,,{'' if row < 1500 else 'soon'}" for row in range(1, 3500))
    (tmp_path / "export.csv").write_text(f"Contact,Status,Tier,Due\n{rows}\n")
    ran = call("plan mapping.yaml export.csv")
    assert "2,000 rows (1500, 1501, 1502, 1503, 1504, ...): unreadable_date\n" in ran.out


def test_more_than_twenty_kinds_of_fault_are_left_to_json(call, tmp_path):
    """30 columns with a fault each: 20 are shown, 10 are counted, --json has 30."""
    columns = [f"D{at}" for at in range(30)]
    attributes = "".join(
        f'    a{at}: {{column: {name}, date: "%d", format: "%d"}}\n'
        for at, name in enumerate(columns)
    )
    start = MAPPING.partition("source:")[0] + MAPPING.partition("{column: Status, not: open}")[2]
    (tmp_path / "mapping.yaml").write_text(start.partition("    tier")[0] + attributes)
    rows = [",".join(["c", *("x" if at == row else "1" for at in range(30))]) for row in range(30)]
    (tmp_path / "export.csv").write_text("\n".join([",".join(["Contact", *columns]), *rows]))
    ran = call("plan mapping.yaml export.csv")
    assert ran.out.count("unreadable_date") == 20
    assert "           and 10 more kinds; --json has all\n" in ran.out
    found = json.loads(call("plan mapping.yaml export.csv --json").out)
    assert len(found["operations"][0]["invalid"]) == 30


def test_no_line_is_longer_than_the_screen_or_ends_in_blanks(call, monkeypatch):
    """In 80 columns the groups are wrapped at words; no line has anything behind it."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("plan both.yaml export.csv").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []


def test_json_holds_everything_and_nothing_else_is_printed(call):
    """One object on standard output, which parses, with the request as it would be sent."""
    ran = call("plan mapping.yaml export.csv --json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["n_rows"] == 5
    assert found["sources"] == [["export.csv", 5]]
    (operation,) = found["operations"]
    assert (operation["n_requests"], operation["n_invalid"]) == (2, 2)
    assert operation["skipped"]["filtered"] == 1
    assert operation["example"] == REQUEST
    assert operation["invalid"][0]["first_rows"] == [3, 5]


def test_no_cell_but_the_first_request_s_is_printed(call):
    """The other rows' cells are in neither form of the plan."""
    for flags in ("", "--json"):
        ran = call(f"plan mapping.yaml export.csv {flags}")
        for cell in ("c-3", "soon", "missing-4", "silver", "02/02/2026"):
            assert cell not in ran.out + ran.err


def test_what_is_unusual_is_a_warning(call, tmp_path):
    """A member that the service model does not know all of warns, and the plan goes on."""
    text = f"""
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  References:
    crm: {{Type: FUTURE, Value: "{{Tier}}"}}
"""
    (tmp_path / "mapping.yaml").write_text(text)
    ran = call("plan mapping.yaml export.csv")
    assert ran.code == 0
    assert ran.out.splitlines()[1].startswith("warning: ")
    assert "FUTURE" in ran.out.splitlines()[1]


def test_a_plan_leaves_nothing_behind(call, tmp_path):
    """No run directory is made."""
    before = sorted(tmp_path.iterdir())
    call("plan mapping.yaml export.csv")
    assert sorted(tmp_path.iterdir()) == before
