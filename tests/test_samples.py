"""The sample exports: made by one script, shaped as promised, and nobody's real data."""

from __future__ import annotations

import csv
import datetime as dt
import importlib.util
import io
import json
import re
import string
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

SAMPLES = Path(__file__).parent.parent / "samples"
SCRIPT = SAMPLES / "make_samples.py"
EXPORTS = ("salesforce_voice_calls.csv", "zendesk_tickets.csv", "warehouse_contacts.parquet")
MAPPINGS = tuple(f"{Path(name).stem}.yaml" for name in EXPORTS)
OPERATIONS = {"update_contact_attributes", "update_contact"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def make_samples():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_samples", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_csv(name, encoding, delimiter):
    """The header and the rows of a CSV sample, each row a dict; every row has every cell."""
    text = (SAMPLES / name).read_bytes().decode(encoding)
    header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def voice_calls():
    return read_csv("salesforce_voice_calls.csv", "utf-8-sig", ",")


@pytest.fixture(scope="module")
def tickets():
    return read_csv("zendesk_tickets.csv", "cp1252", ";")


@pytest.fixture(scope="module")
def contacts():
    return pq.ParquetFile(SAMPLES / "warehouse_contacts.parquet").read()


def rows_where(rows, holds):
    """The numbers, from 1, of the rows for which something holds."""
    return [number for number, row in enumerate(rows, start=1) if holds(row)]


def rows_of_shared_contacts(rows, column):
    """The row numbers of every contact that has more than one row."""
    seen: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=1):
        if row[column]:
            seen.setdefault(row[column], []).append(number)
    return [numbers for numbers in seen.values() if len(numbers) > 1]


def is_date(text, form):
    try:
        dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
    except ValueError:
        return False
    return True


# --- The script -------------------------------------------------------------------------------


def test_the_committed_csv_files_are_what_the_script_makes(make_samples):
    """Both CSV files are the script's output, byte for byte."""
    for name, made in (
        ("salesforce_voice_calls.csv", make_samples.salesforce_voice_calls()),
        ("zendesk_tickets.csv", make_samples.zendesk_tickets()),
    ):
        assert (SAMPLES / name).read_bytes() == made, f"run {SCRIPT.name}"


def test_the_committed_parquet_file_is_what_the_script_makes(make_samples, contacts):
    """The Parquet file has the script's schema and values; its bytes depend on pyarrow."""
    made = make_samples.warehouse_contacts()
    assert contacts.schema.equals(made.schema)
    assert contacts.to_pylist() == made.to_pylist()


def test_the_command_says_that_the_samples_are_current():
    """`--check` ends with 0 on the committed files, run as the README says."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "The samples are current.\n", "")


def test_check_names_what_is_stale_and_writes_nothing(make_samples, tmp_path, capsys):
    """`--check` in an empty folder names all three files, ends with 1 and makes none of them."""
    assert make_samples.main(["--check"], folder=tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [f"{name}: not current" for name in EXPORTS]
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_stale_is_rewritten(make_samples, tmp_path, capsys):
    """A second run writes nothing; a file that was changed is noticed and made again, alone."""
    assert make_samples.main([], folder=tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: written" for name in EXPORTS]
    assert make_samples.main([], folder=tmp_path) == 0
    assert capsys.readouterr().out == "The samples are current.\n"

    table = pq.ParquetFile(tmp_path / EXPORTS[2]).read()
    pq.write_table(table.slice(0, 999), tmp_path / EXPORTS[2])
    assert make_samples.main(["--check"], folder=tmp_path) == 1
    assert capsys.readouterr().out == f"{EXPORTS[2]}: not current\n"
    assert make_samples.main([], folder=tmp_path) == 0
    assert capsys.readouterr().out == f"{EXPORTS[2]}: written\n"
    assert pq.ParquetFile(tmp_path / EXPORTS[2]).read().equals(table)


def test_every_export_is_small_enough_to_try_and_large_enough_to_watch(
    voice_calls, tickets, contacts
):
    """Each export has from 200 to 2,000 rows."""
    counts = [len(voice_calls), len(tickets), contacts.num_rows]
    assert counts == [240, 600, 1000]
    assert all(200 <= count <= 2000 for count in counts)


def test_phone_numbers_are_reserved_and_mail_goes_to_example_com(voice_calls, tickets, contacts):
    """No phone number can ring anywhere, and no mail address reaches anybody."""
    fiction = re.compile(r"\+44(7700900|2079460)\d{3}|\+120255501\d{2}")
    phones = [row[f"{end}PhoneNumber"] for row in voice_calls for end in ("From", "To")]
    assert [phone for phone in phones if not fiction.fullmatch(phone)] == []
    for row in [*voice_calls, *tickets, *contacts.to_pylist()]:
        for cell in row.values():
            if isinstance(cell, str) and "@" in cell:
                assert re.fullmatch(r"customer\d+@example\.com ?", cell, re.IGNORECASE), cell


# --- Salesforce -------------------------------------------------------------------------------


def test_voice_calls_are_quoted_throughout_and_begin_with_a_byte_order_mark():
    """UTF-8 with a byte order mark, every cell quoted, rows ended by CRLF, in cells LF."""
    raw = (SAMPLES / "salesforce_voice_calls.csv").read_bytes()
    assert raw.startswith(b'\xef\xbb\xbf"Id","VendorCallKey","CallType",')
    assert raw.endswith(b'"\r\n')
    assert raw.count(b"\r\n") == 241
    assert raw.count(b"\r") == 241
    # Without its quoted cells, commas and row ends are all that is left of the file.
    assert set(re.sub(rb'"(?:[^"]|"")*"', b"", raw[3:])) == set(b",\r\n")


def test_voice_calls_have_sound_ids_and_ascending_times(voice_calls):
    """Record ids are distinct and 18 characters long, contact ids UUIDs, calls in time order."""
    assert len({row["Id"] for row in voice_calls}) == 240
    assert {(len(row["Id"]), row["Id"][:3]) for row in voice_calls} == {(18, "0LQ")}
    ordinary = [row for row in voice_calls if UUID.fullmatch(row["VendorCallKey"])]
    assert len(ordinary) == 240 - 12 - 4 - 1
    starts = [row["CallStartDateTime"] for row in voice_calls]
    assert all(re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", start) for start in starts)
    assert starts == sorted(starts)


def test_voice_calls_have_rows_for_every_outcome(voice_calls):
    """The demo ends with 206 UPDATED, 28 SKIPPED, 4 FAILED and 2 INVALID, as its README says."""
    outcomes: Counter[str] = Counter()
    for row in voice_calls:
        due = row["Callback_Due__c"]
        if row["CallDisposition"] not in {"completed", "new"} or not row["VendorCallKey"]:
            outcomes["SKIPPED"] += 1
        elif len(row["VendorCallKey"]) > 256 or (due and not is_date(due, "%d/%m/%Y")):
            outcomes["INVALID"] += 1
        elif row["VendorCallKey"].startswith("missing-"):
            outcomes["FAILED"] += 1
        else:
            outcomes["UPDATED"] += 1
    assert outcomes == {"UPDATED": 206, "SKIPPED": 28, "FAILED": 4, "INVALID": 2}
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert "206 UPDATED, 28 SKIPPED, 4 FAILED, 2 INVALID" in readme
    assert (outcomes["UPDATED"] + outcomes["FAILED"]) / 8 < 40, "at 8 a second, under 40 seconds"


def test_notable_voice_calls_stand_where_the_readme_says(voice_calls):
    """Blank, deleted, over-long and unreadable rows are counted, and each is only one thing."""
    blank = rows_where(voice_calls, lambda row: not row["VendorCallKey"])
    filtered = rows_where(
        voice_calls, lambda row: row["CallDisposition"] in {"busy", "failed", "in-progress"}
    )
    deleted = rows_where(voice_calls, lambda row: row["VendorCallKey"].startswith("missing-"))
    long_id = rows_where(voice_calls, lambda row: len(row["VendorCallKey"]) > 256)
    no_date = rows_where(
        voice_calls,
        lambda row: row["Callback_Due__c"] and not is_date(row["Callback_Due__c"], "%d/%m/%Y"),
    )
    assert (len(blank), len(filtered)) == (12, 16)
    assert (deleted, long_id, no_date) == ([23, 87, 141, 202], [57], [118])
    notable = [*blank, *filtered, *deleted, *long_id, *no_date]
    assert len(notable) == len(set(notable)) == 34


def test_voice_calls_of_one_contact_stand_together_and_apart(voice_calls):
    """Ten rows belong to the contact of an earlier row: three threes, four pairs, two of them far
    apart; all of them pass the filter."""
    shared = rows_of_shared_contacts(voice_calls, "VendorCallKey")
    assert sum(len(rows) - 1 for rows in shared) == 10
    adjacent = [rows for rows in shared if rows[-1] - rows[0] == len(rows) - 1]
    assert sorted(map(len, adjacent)) == [2, 2, 3, 3, 3]
    assert [rows for rows in shared if rows not in adjacent] == [[12, 150], [78, 221]]
    for rows in shared:
        of_contact = [voice_calls[row - 1] for row in rows]
        assert {row["CallDisposition"] for row in of_contact} == {"completed"}
        assert len({row["Customer_Name__c"] for row in of_contact}) == 1
        assert len({row["CallDurationInSeconds"] for row in of_contact}) == len(rows)


def test_voice_calls_hold_the_cells_that_guessing_destroys(voice_calls):
    """Leading zeros, an account that looks like a number with an exponent, NA, blanks."""
    accounts = [row["Account_Number__c"] for row in voice_calls]
    assert all(account.startswith("00") and len(account) == 7 for account in accounts)
    assert sum(bool(re.fullmatch(r"\d+e\d+", account)) for account in accounts) >= 3
    tiers = Counter(row["Tier__c"] for row in voice_calls)
    assert set(tiers) == {"Gold", "Silver", "Bronze", "NA", ""}
    assert min(tiers.values()) >= 20


def test_voice_calls_hold_text_in_many_scripts_and_shapes(voice_calls):
    """Quoted newlines, doubled quotes, commas, accents, CJK, emoji, space around, long notes."""
    notes = [row["Notes__c"] for row in voice_calls]
    assert sum("\n" in note.strip() for note in notes) >= 50
    assert sum('"' in note for note in notes) >= 20
    assert sum(note != note.strip() for note in notes) >= 10
    assert sum(not note for note in notes) >= 20
    long_notes = rows_where(voice_calls, lambda row: len(row["Notes__c"].encode()) > 1024)
    assert long_notes == [48, 109, 176, 229]
    names = [row["Customer_Name__c"] for row in voice_calls]
    assert sum("," in name for name in names) >= 1
    for sample in ("[À-ɏ]", "[\u4e00-\u9fff]", "[\uac00-\ud7a3]", "[\u0600-\u06ff]"):
        assert sum(bool(re.search(sample, name)) for name in names) >= 2, sample
    assert sum(any(ord(character) > 0xFFFF for character in name) for name in names) >= 2


# --- Zendesk ----------------------------------------------------------------------------------


def test_tickets_are_cp1252_and_nothing_else(tickets):
    """The file holds the bytes of €, en dash, ß, ü, é and more, and is not UTF-8."""
    raw = (SAMPLES / "zendesk_tickets.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    for character in "€–ßüéŒŠ™“”":  # noqa: RUF001
        assert raw.count(character.encode("cp1252")) >= 10, character
    assert len(tickets) == 600
    assert raw.startswith(b"Ticket ID;Brand;")


def test_ticket_cells_need_their_quotes(tickets):
    """Delimiters, quotes and line breaks stand inside cells."""
    assert sum(";" in row["Tags"] for row in tickets) >= 50
    assert sum(";" in row["Subject"] for row in tickets) >= 20
    assert sum('"' in row["Subject"] for row in tickets) >= 20
    assert sum("\n" in row["Description"] for row in tickets) >= 100


def test_ticket_dates_are_day_first(tickets):
    """Every date is day-first; some can be read no other way, some would be misread."""
    created = [row["Created at"] for row in tickets]
    assert all(is_date(cell, "%d/%m/%Y %H:%M") for cell in created)
    assert sum(cell.startswith("31/12/2025 ") for cell in created) >= 1
    assert sum(not is_date(cell, "%m/%d/%Y %H:%M") for cell in created) >= 100
    assert sum(is_date(cell, "%m/%d/%Y %H:%M") for cell in created) >= 100
    due = [row["Due date"] for row in tickets]
    assert all(is_date(cell, "%d/%m/%Y") for cell in due if cell)
    assert sum(not cell for cell in due) >= 50


def test_the_ticket_filter_drops_some_for_each_of_its_reasons(tickets):
    """The other brand, binned tickets and tickets without a contact are there to be skipped."""
    assert Counter(row["Brand"] for row in tickets)["Fjordlicht Pro"] >= 30
    assert sum(row["Status"] in {"deleted", "suspended"} for row in tickets) >= 10
    no_contact = [row for row in tickets if not row["aws_contact_id"]]
    assert len(no_contact) >= 30
    assert {row["Channel"] for row in no_contact} == {"email"}
    kept = kept_tickets(tickets)
    assert 300 <= len(kept) <= 560
    assert all(UUID.fullmatch(tickets[row - 1]["aws_contact_id"]) for row in kept)


def kept_tickets(tickets):
    return rows_where(
        tickets,
        lambda row: (
            row["Brand"] == "Fjordlicht"
            and row["Status"] not in {"deleted", "suspended"}
            and row["aws_contact_id"]
        ),
    )


def test_notable_tickets_stand_where_the_readme_says(tickets):
    """Unknown states, missing mail, threads over the limit and follow-ups, all past the filter."""
    known = {"new", "open", "pending", "hold", "solved", "closed", "deleted", "suspended"}
    unknown_status = rows_where(tickets, lambda row: row["Status"] not in known)
    no_mail = rows_where(tickets, lambda row: not row["Requester email"])
    over = rows_where(tickets, lambda row: len(row["Description"].strip().encode()) > 4096)
    shared = rows_of_shared_contacts(tickets, "aws_contact_id")
    assert (unknown_status, no_mail, over) == ([211, 432], [164, 388], [77, 301, 455])
    assert len(tickets[301 - 1]["Description"]) < 4096, "over the limit in bytes only"
    assert shared == [[30, 517], [92, 93], [120, 400], [247, 248, 249]]
    notable = {*unknown_status, *no_mail, *over, *(row for rows in shared for row in rows)}
    assert notable <= set(kept_tickets(tickets))


def test_ticket_cells_need_their_transforms(tickets):
    """There is something to strip, to fold, to default and to look up in every such column."""
    assert sum(row["Requester email"] != row["Requester email"].strip() for row in tickets) >= 10
    assert sum(row["Requester email"] != row["Requester email"].lower() for row in tickets) >= 10
    assert {"DE", " de", "at", "NO"} <= {row["Country"] for row in tickets}
    assert {"no", "es"} <= {row["Requester locale"] for row in tickets}
    for column in ("Priority", "Assignee", "Satisfaction", "Refund", "Order number"):
        assert 50 <= sum(not row[column] for row in tickets) <= 550, column


# --- Data warehouse ---------------------------------------------------------------------------


def test_warehouse_columns_are_typed(contacts):
    """Integers, decimals, dates, times with a zone, booleans, floats, a list, bytes and more."""
    types = {field.name: field.type for field in contacts.schema}
    assert types["account_id"] == types["expiry_minutes"] == types["order_count"] == pa.int64()
    assert types["lifetime_value"] == types["open_balance"] == pa.decimal128(12, 2)
    assert types["customer_since"] == pa.date32()
    assert types["last_seen_at"] == types["loaded_at"] == pa.timestamp("us", tz="UTC")
    assert types["newsletter"] == pa.bool_()
    assert types["churn_risk"] == pa.float64()
    assert pa.types.is_dictionary(types["segment"])
    assert types["segment"].value_type == pa.string()
    assert pa.types.is_list(types["products"])
    assert types["embedding"] == pa.binary()
    assert contacts.num_columns == 18


def test_warehouse_file_has_several_row_groups():
    """The reader has to go on after the first row group."""
    assert pq.ParquetFile(SAMPLES / "warehouse_contacts.parquet").num_row_groups == 4


def test_warehouse_columns_have_nulls_and_values(contacts):
    """Columns that may be null are so sometimes and never always; the others never are."""
    nulls = {name: contacts[name].null_count for name in contacts.column_names}
    never = {name for name, count in nulls.items() if count == 0}
    assert never == {
        "account_id",
        "full_name",
        "country",
        "lifetime_value",
        "order_count",
        "loaded_at",
    }
    assert all(10 <= nulls[name] <= 700 for name in set(nulls) - never)
    assert sum(not products for products in contacts["products"].drop_null().to_pylist()) >= 10


def test_warehouse_values_are_lost_by_a_detour_over_floats(contacts):
    """Ids beyond 2**53, amounts with a trailing zero, the country NA, microseconds."""
    accounts = contacts["account_id"].to_pylist()
    assert len(set(accounts)) == 1000
    assert len(set(map(float, accounts))) < 1000
    values = contacts["lifetime_value"].to_pylist()
    assert sum(str(value).endswith("0") for value in values) >= 20
    assert sum(balance < 0 for balance in contacts["open_balance"].drop_null().to_pylist()) >= 20
    assert all(value < Decimal(10) ** 10 for value in values)
    assert contacts["country"].to_pylist().count("NA") >= 50
    assert sum(bool(seen and seen.microsecond) for seen in contacts["last_seen_at"].to_pylist()) > 0


def test_warehouse_contacts_are_distinct_and_some_are_not_in_connect(contacts):
    """A contact has one row; some have no id or an old one, for `matches` to skip."""
    ids = contacts["contact_id"].drop_null().to_pylist()
    assert len(set(ids)) == len(ids)
    legacy = [contact for contact in ids if contact.startswith("legacy:")]
    assert len(legacy) >= 10
    assert sum(bool(UUID.fullmatch(contact)) for contact in ids) == len(ids) - len(legacy) >= 900


# --- Mappings ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mappings():
    """The mappings as plain text: every scalar is a string."""
    return {
        name: yaml.load((SAMPLES / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        for name in MAPPINGS
    }


def leaves(node):
    """Every value of a request: a template, or a mapping that says where a value comes from."""
    if isinstance(node, str) or {"column", "template"} & set(node):
        yield node
    else:
        for key, child in node.items():
            if key != "*":
                yield from leaves(child)


def templates_and_columns(leaf):
    """The template of a leaf, if it has one, and the columns that the leaf reads."""
    if not isinstance(leaf, str) and "column" in leaf:
        return None, [leaf["column"]]
    template = leaf if isinstance(leaf, str) else leaf["template"]
    return template, [name for _, name, _, _ in string.Formatter().parse(template) if name]


def requests_of(mapping):
    return {name: request for name, request in mapping.items() if name in OPERATIONS}


def test_mappings_say_only_what_the_contract_knows(mappings):
    """Keys at every level are the contract's own, and the instance is the documented one."""
    value_keys = {"column", "template", "strip", "lower", "upper", "map", "default", "date"}
    value_keys |= {"format", "truncate_bytes", "empty"}
    conditions = {"in", "not_in", "equals", "not", "matches"}
    for mapping in mappings.values():
        assert set(mapping) <= {"source", *OPERATIONS}
        assert set(mapping["source"]) <= {"encoding", "delimiter", "where"}
        for condition in mapping["source"]["where"]:
            assert len(condition) == 2
            assert len(set(condition) & conditions) == 1
        for request in requests_of(mapping).values():
            assert request["InstanceId"] == "12345678-90ab-cdef-1234-567890abcdef"
            for leaf in leaves(request):
                if not isinstance(leaf, str):
                    assert set(leaf) <= value_keys
                    assert len(set(leaf) & {"column", "template"}) == 1
                    assert ("date" in leaf) == ("format" in leaf)


def test_attribute_keys_are_legal(mappings):
    """Attribute keys are letters, digits, dash and underscore."""
    for mapping in mappings.values():
        keys = set(mapping["update_contact_attributes"]["Attributes"]) - {"*"}
        assert [key for key in keys if not re.fullmatch("[A-Za-z0-9_-]+", key)] == []


def test_mappings_read_columns_that_their_export_has(mappings, voice_calls, tickets, contacts):
    """Every column that a mapping names is in its export's header."""
    headers = (set(voice_calls[0]), set(tickets[0]), set(contacts.column_names))
    for mapping, header in zip(mappings.values(), headers, strict=True):
        named = {condition["column"] for condition in mapping["source"]["where"]}
        for request in requests_of(mapping).values():
            named.update(request.get("Attributes", {}).get("*", {}).get("except", []))
            for leaf in leaves(request):
                named.update(templates_and_columns(leaf)[1])
        assert named <= header, named - header


def test_mappings_use_both_operations(mappings):
    """Salesforce writes attributes only; the other two make two requests a row."""
    used = {name: set(requests_of(mapping)) for name, mapping in mappings.items()}
    assert used == {
        "salesforce_voice_calls.yaml": {"update_contact_attributes"},
        "zendesk_tickets.yaml": OPERATIONS,
        "warehouse_contacts.yaml": OPERATIONS,
    }


def test_mappings_together_use_everything_that_the_contract_offers(mappings):
    """Each transform, each kind of empty, each condition, `"*"`, and templates of all sorts."""
    conditions: set[str] = set()
    used: set[str] = set()
    for mapping in mappings.values():
        for condition in mapping["source"]["where"]:
            conditions |= set(condition) - {"column"}
        for request in requests_of(mapping).values():
            if "*" in request.get("Attributes", {}):
                used |= {f"* {key}" for key in request["Attributes"]["*"]}
            for leaf in leaves(request):
                template, columns = templates_and_columns(leaf)
                if template is not None:
                    used |= {"several columns"} if len(columns) > 1 else set()
                    used |= {"literal braces"} if "{{" in template and "}}" in template else set()
                if not isinstance(leaf, str):
                    used |= set(leaf)
                    used |= {f"empty: {leaf['empty']}"} if "empty" in leaf else set()
                    if "map" in leaf:
                        used.add("map with default" if "default" in leaf else "map alone")
                    elif "default" in leaf:
                        used.add("column with default")
    assert conditions == {"in", "not_in", "equals", "not", "matches"}
    assert used == {
        *("column", "template", "strip", "lower", "upper", "map", "default", "date", "format"),
        *("truncate_bytes", "empty", "empty: skip", "empty: erase", "empty: reject"),
        *("map with default", "map alone", "column with default"),
        *("several columns", "literal braces", "* prefix", "* except"),
    }


def test_mappings_use_the_nested_members_of_update_contact(mappings):
    """References of three types, an expiry from an integer column, a segment attribute of ours."""
    ticket = mappings["zendesk_tickets.yaml"]["update_contact"]
    assert {"Name", "Description", "References"} <= set(ticket)
    assert ticket["References"]["ticket"] == {
        "Type": "URL",
        "Value": "https://example.zendesk.com/agent/tickets/{Ticket ID}",
    }
    types = {reference["Type"] for reference in ticket["References"].values()}
    assert types == {"URL", "NUMBER", "EMAIL"}
    segments = mappings["warehouse_contacts.yaml"]["update_contact"]["SegmentAttributes"]
    expiry = segments["connect:ContactExpiry"]["ValueMap"]["ExpiryDuration"]["ValueInteger"]
    assert expiry["column"] == "expiry_minutes"
    assert set(segments["crm_segment"]) == {"ValueString"}


def test_every_column_of_the_warehouse_that_is_taken_is_text_or_a_scalar(mappings, contacts):
    """`"*"` leaves out lists and bytes, and no two of its keys are the same once made legal."""
    everything = mappings["warehouse_contacts.yaml"]["update_contact_attributes"]["Attributes"]["*"]
    taken = [field for field in contacts.schema if field.name not in everything["except"]]
    assert len(taken) == 18 - 8
    assert not any(pa.types.is_nested(f.type) or pa.types.is_binary(f.type) for f in taken)
    keys = {re.sub(r"[^A-Za-z0-9_-]", "_", everything["prefix"] + field.name) for field in taken}
    assert len(keys) == len(taken)
    assert "crm_nps_2026q1" in keys


# --- What stands beside the exports -----------------------------------------------------------


def test_the_policy_grants_the_run_and_nothing_more():
    """Two actions on the contacts of one instance; what is only read has statements of its own."""
    policy = json.loads((SAMPLES / "iam_policy.json").read_text(encoding="utf-8"))
    assert policy["Version"] == "2012-10-17"
    update, quotas, drift = policy["Statement"]
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}
    assert update["Action"] == ["connect:UpdateContactAttributes", "connect:UpdateContact"]
    assert update["Resource"] == "arn:aws:connect:REGION:ACCOUNT:instance/INSTANCE-ID/contact/*"
    assert quotas["Action"] == "servicequotas:GetServiceQuota"
    assert quotas["Resource"] == "*"
    assert drift["Action"] == "connect:GetContactAttributes"
    assert drift["Resource"] == update["Resource"]


def test_the_readme_gives_a_command_for_every_export():
    """Each export has its command in the README and in its mapping, and the files are there."""
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for mapping, export in zip(MAPPINGS, EXPORTS, strict=True):
        command = f"bulk-updater run samples/{mapping} samples/{export} --sandbox"
        assert f"$ {command}\n" in readme
        assert f"#   {command}\n" in (SAMPLES / mapping).read_text(encoding="utf-8")
        assert (SAMPLES / mapping).is_file()
        assert (SAMPLES / export).is_file()
