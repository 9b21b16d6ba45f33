"""`bulk-updater plan`: counts, what is wrong where, one request, and the time it takes."""

from __future__ import annotations

import importlib
import json

import pytest

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import AppliedQuotas

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
        "        2  requests  0.2 s at 8/s; the largest has 21 bytes\n"
        "           pace      at most 8/s, 80 % of the documented quota of 10/s; what applies to "
        "the account\n"
        "                     could not be read: there is no AWS region\n"
        "           quota     code L-F001E5ED\n"
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
    assert "        0  requests  0 s at 8/s\n" in ran.out
    assert ran.out.endswith("\nNothing was sent, and a run would send nothing.\n")


def test_two_operations_go_side_by_side(call):
    """Each has its counts and its request; the time is the longer one's."""
    ran = call("plan both.yaml export.csv")
    # Row 3 has no tier and so no name; rows 3 and 5 have no date, which is not this one's concern.
    assert "\nupdate_contact\n        3  requests  0.4 s at 8/s; the largest has" in ran.out
    assert [line.split()[-1] for line in ran.out.splitlines() if "quota     code" in line] == [
        "L-F001E5ED",
        "L-40C15531",
    ]
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
        ("--exclusive", "A run takes 0.2 s at 10 requests a second."),
        ("--rate auto --quota-share 0.1", "A run takes 2 s at 1 requests a second."),
    ],
)
def test_the_time_follows_the_rate(call, flags, says):
    """--rate and --quota-share are what the time is computed with."""
    assert says in call(f"plan mapping.yaml export.csv {flags}").out


LONG = (
    "           pace      at most 0.008/s, 80 % of the quota of 0.01/s that applies to account\n"
    "                     123456789012\n"
    "           quota     code L-F001E5ED; AWS raises it on request. With\n"
    "                       0.02/s  1 h 44 min\n"
    "                       0.05/s  41 min 40 s\n"
    "                        0.1/s  20 min 50 s\n"
)


@pytest.fixture
def asked(monkeypatch):
    """A Service Quotas that says 0.01, and notes how it was to be reached."""
    seen = []

    async def read(config, operations):
        seen.append(config)
        rates = dict.fromkeys((operation.name for operation in operations), 0.01)
        return AppliedQuotas(rates, "123456789012", None, "eu-west-1")

    monkeypatch.setattr(importlib.import_module("bulk_updater.pipeline.plan"), "read_quotas", read)
    return seen


def test_a_long_plan_says_what_would_make_it_shorter(call, tmp_path, asked):
    """The quota that applies, its code, and a table of the time at three larger ones."""
    rows = "\n".join(f"c-{row},done,gold," for row in range(100))
    (tmp_path / "export.csv").write_text(f"Contact,Status,Tier,Due\n{rows}\n")
    ran = call("plan mapping.yaml export.csv")
    assert LONG in ran.out
    assert ran.out.endswith("A run takes 3 h 28 min at 0.008 requests a second.\n")
    found = json.loads(call("plan mapping.yaml export.csv --json").out)
    assert found["account_id"] == "123456789012"
    (operation,) = found["operations"]
    names = ("quota_per_s", "origin", "unread", "ceiling_per_s", "takes_s", "quota_code")
    assert [operation[name] for name in names] == [
        0.01,
        "applied",
        None,
        0.008,
        12_500.0,
        "L-F001E5ED",
    ]
    assert operation["at_other_quotas"] == [
        {"rate_per_s": 0.02, "takes_s": 6250.0},
        {"rate_per_s": 0.05, "takes_s": 2500.0},
        {"rate_per_s": 0.1, "takes_s": 1250.0},
    ]
    assert len(asked) == 2


def test_a_plan_reaches_service_quotas_as_a_run_would(call, asked):
    """The connection's flags are the run's."""
    flags = (
        "--region eu-west-3 --profile crm --endpoint-url http://127.0.0.1:9 --cli-read-timeout 2"
    )
    call(f"plan mapping.yaml export.csv {flags} --ca-bundle ca.pem --cli-connect-timeout 1")
    (config,) = asked
    assert config == ConnectionConfig(
        region="eu-west-3",
        profile="crm",
        endpoint_url="http://127.0.0.1:9",
        ca_bundle="ca.pem",
        connect_timeout_s=1.0,
        read_timeout_s=2.0,
    )


def test_a_plan_for_a_named_rate_asks_nobody(call, asked):
    """--rate N: no question, and in JSON the reason."""
    found = json.loads(call("plan mapping.yaml export.csv --rate 5 --json").out)
    assert asked == []
    (operation,) = found["operations"]
    assert (operation["ceiling_per_s"], operation["pace"]) == (5.0, "at most 5/s, as --rate says")
    assert operation["unread"] == "--rate says how fast, so nobody was asked"


def test_a_plan_without_credentials_says_what_it_counts_with(call):
    """The documented quota and the reason, in text and in JSON, and no error."""
    found = json.loads(call("plan mapping.yaml export.csv --region eu-west-1 --json").out)
    (operation,) = found["operations"]
    assert (operation["origin"], operation["quota_per_s"]) == ("documented", 10.0)
    assert operation["unread"] == "there are no AWS credentials"
    ran = call("plan mapping.yaml export.csv --region eu-west-1")
    assert "could not be read: there are no AWS credentials\n" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize("flags", ["--rate fast", "--exclusive --quota-share 0.8"])
def test_a_plan_of_a_pace_that_cannot_be_is_refused(call, flags):
    """Exit code 2 and one line, as for `run`."""
    ran = call(f"plan mapping.yaml export.csv {flags}")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


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
    """A member that the service model does not know all of warns once, and the plan goes on."""
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
    assert ran.err.count(" WARNING ") == ran.err.count("FUTURE") == len(ran.err.splitlines()) == 1
    assert "warning" not in ran.out
    as_json = call("plan mapping.yaml export.csv --json")
    assert as_json.err.count("FUTURE") == 1
    (warning,) = json.loads(as_json.out)["warnings"]
    assert warning in ran.err
    assert warning in as_json.err


@pytest.mark.parametrize("flags", ["", "--json"])
def test_a_warning_comes_before_the_rows(call, tmp_path, monkeypatch, flags):
    """Where mapping never ends, what was said of the expression is on standard error already."""
    text = MAPPING.replace("{column: Status, not: open}", '{column: Status, matches: "(o+)+$"}')
    (tmp_path / "mapping.yaml").write_text(text)
    mapped = []

    def hang(job):
        mapped.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr("bulk_updater.pipeline.job.OpenedJob.mapped_frames", hang)
    ran = call(f"plan mapping.yaml export.csv {flags}")
    assert ran.code == 130
    assert len(mapped) == 1
    assert ran.out == ""
    assert ran.err.count("regular expression repeats") == ran.err.count(" WARNING ") == 1


def test_a_warning_of_the_credentials_stays_with_the_time(call, monkeypatch):
    """What is known only when the rows are counted stands in the plan itself, as before."""
    module = importlib.import_module("bulk_updater.pipeline.plan")
    monkeypatch.setattr(module, "describe_credentials_end", lambda *_, **__: "They end.")
    ran = call("plan mapping.yaml export.csv")
    assert ran.out.splitlines()[1] == "warning: They end."
    assert ran.err == ""


def test_a_plan_leaves_nothing_behind(call, tmp_path):
    """No run directory is made."""
    before = sorted(tmp_path.iterdir())
    call("plan mapping.yaml export.csv")
    assert sorted(tmp_path.iterdir()) == before
