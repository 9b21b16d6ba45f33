"""The samples, run as their README says, against a served sandbox at a high rate."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest

from .conftest import SAMPLES, standing

RATE = ("--rate", "4000", "--json")


@pytest.fixture
def run_sample(shell, served, warm):
    """Runs a sample to its summary."""

    def run(name: str, source: str, code: int) -> dict:
        ran = warm.run(
            shell.folder,
            *("run", str(SAMPLES / f"{name}.yaml"), str(SAMPLES / source)),
            *("--run-dir", name, "--endpoint-url", served.url, *RATE),
        )
        assert ran.code == code, ran
        summary = json.loads(ran.out)
        ledger = shell.folder / name / "ledger.jsonl"
        assert len(standing(ledger)) == sum(summary["outcomes"].values())
        return summary

    return run


def rows_of(name: str, **settings: str) -> list[dict[str, str]]:
    with (SAMPLES / name).open(newline="", encoding=settings.pop("encoding")) as file:
        return list(csv.DictReader(file, **settings))


def test_salesforce(shell, served, warm, run_sample):
    """240 calls: every outcome, leading zeros and NA as they stand, and failed.csv fed back."""
    summary = run_sample("salesforce_voice_calls", "salesforce_voice_calls.csv", 1)
    assert summary["outcomes"] == {
        "UPDATED": 206,
        "FAILED": 4,
        "INVALID": 2,
        "SKIPPED": 28,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    assert summary["rows_read"] == 240

    held = served.attributes()
    rows = rows_of("salesforce_voice_calls.csv", encoding="utf-8-sig")
    zeros = [row for row in rows if row["Account_Number__c"].startswith("00")]
    kept = [row for row in zeros if row["VendorCallKey"] in held]
    assert len(kept) > 20
    for row in kept:
        account = held[row["VendorCallKey"]]["account"]
        assert account in {r["Account_Number__c"] for r in rows if same_call(r, row)}
    not_assigned = {row["VendorCallKey"] for row in rows if row["Tier__c"] == "NA"} & held.keys()
    assert {held[contact]["tier"] for contact in not_assigned} >= {"na"}
    assert any("\n" in value for each in held.values() for value in each.values())

    failed = shell.folder / "salesforce_voice_calls" / "failed.csv"
    with failed.open(newline="", encoding="utf-8") as file:
        bad = list(csv.DictReader(file))
    assert [row["_row"] for row in bad] == ["23", "57", "87", "118", "141", "202"]
    assert [row["_outcome"] for row in bad].count("INVALID") == 2
    command = ("run", str(SAMPLES / "salesforce_voice_calls.yaml"), str(failed))
    again = warm.run(shell.folder, *command, "--endpoint-url", served.url, *RATE)
    assert again.code == 1
    assert json.loads(again.out)["outcomes"] == {
        "UPDATED": 0,
        "FAILED": 4,
        "INVALID": 2,
        "SKIPPED": 0,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    for row in bad:
        row["VendorCallKey"] = f"mended-{row['_row']}"
        row["Callback_Due__c"] = "01/02/2026"
    with failed.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(bad[0]))
        writer.writeheader()
        writer.writerows(bad)
    mended = warm.run(shell.folder, *command, "--endpoint-url", served.url, *RATE)
    assert mended.code == 0, mended
    assert json.loads(mended.out)["outcomes"]["UPDATED"] == 6
    assert len(served.contacts("mended-")) == 6


def same_call(row: dict[str, str], other: dict[str, str]) -> bool:
    return row["VendorCallKey"] == other["VendorCallKey"]


def test_zendesk(served, run_sample):
    """600 tickets, two operations: Windows-1252 is read, dates are turned, references are made."""
    summary = run_sample("zendesk_tickets", "zendesk_tickets.csv", 1)
    assert summary["outcomes"] == {
        "UPDATED": 900,
        "FAILED": 0,
        "INVALID": 4,
        "SKIPPED": 296,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    contact = served.contacts()["e8c1341f-01a5-4e84-9696-49b5e0566f37"]
    assert contact["attributes"]["assignee"] == "Jörg Großkopf"
    assert contact["attributes"]["refund"] == "110,34 €"
    assert contact["attributes"]["opened"] == "2025-11-17T12:36"
    assert contact["attributes"]["due"] == "2025-12-01"
    assert contact["name"] == "Colis abîmé \N{EN DASH} photos jointes (Greta Müßig)"
    assert contact["references"]["order"]["Value"] == "723400"
    assert contact["references"]["ticket"] == {
        "Type": "URL",
        "Value": "https://example.zendesk.com/agent/tickets/40001",
    }


def test_warehouse(served, run_sample):
    """1,000 contacts from Parquet: integers, decimals and dates keep every digit."""
    summary = run_sample("warehouse_contacts", "warehouse_contacts.parquet", 0)
    assert summary["outcomes"] == {
        "UPDATED": 1878,
        "FAILED": 0,
        "INVALID": 0,
        "SKIPPED": 122,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    contact = served.contacts()["63c10ad3-90bd-44f9-acea-b935ac7f4330"]
    assert contact["attributes"] == {
        "customer_since": "04/04/2022",
        "crm_account_id": "9007199254740995",
        "crm_full_name": "Chloë Dąbek",
        "crm_country": "DE",
        "crm_lifetime_value": "46770.16",
        "crm_order_count": "56",
        "crm_churn_risk": "0.5975",
        "crm_newsletter": "false",
    }
    expiry = contact["segment_attributes"]["connect:ContactExpiry"]["ValueMap"]["ExpiryDuration"]
    assert expiry == {"ValueInteger": 1260}
    table = pq.read_table(SAMPLES / "warehouse_contacts.parquet", columns=["full_name"])
    held = {each["attributes"].get("crm_full_name") for each in served.contacts().values()}
    names = set(table["full_name"].to_pylist())
    assert {'Café "Zur Linde" 🍰', "山田 太郎", "فلان الفلاني"} <= names & held
