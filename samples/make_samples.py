# /// script
# requires-python = ">=3.11"
# dependencies = ["pyarrow>=18"]
# ///
"""Make the sample exports: three CRM files as the tools that write them shape them.

    python samples/make_samples.py            rewrite what is not current
    python samples/make_samples.py --check    say what is not current, and exit 1 if anything is

Everybody in them is invented: phone numbers come from ranges that are reserved for fiction, mail
goes to example.com, and names are combined from lists or are a language's own "John Doe".

Every cell is drawn from a hash of the seed, its column and its row. The files are the same on
every machine and every Python version, and a new column leaves the others as they are. Rows are
numbered from 1, header not counted.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
SEED = "bulk_updater samples 1"


# --- Chance ------------------------------------------------------------------------------------


def draw(below: int, *key: object) -> int:
    """A number from 0 to `below`, excluded, that depends on the seed and the key alone."""
    digest = hashlib.sha256("/".join(map(str, (SEED, *key))).encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def pick(options: Sequence[T], *key: object) -> T:
    """One of the options."""
    return options[draw(len(options), *key)]


def happens(percent: int, *key: object) -> bool:
    """Whether something that happens so often happens here."""
    return draw(100, *key) < percent


def contact_id(*key: object) -> str:
    """A contact id as Amazon Connect writes them: a random UUID."""
    digest = hashlib.sha256("/".join(map(str, (SEED, "contact", *key))).encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def csv_text(header: Sequence[str], rows: Sequence[Sequence[str]], **dialect: Any) -> str:
    """A CSV file's text, its rows ended as Windows ends them."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", **dialect)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


# --- Salesforce: one row a VoiceCall --------------------------------------------------------------

N_VOICE_CALLS = 240
VOICE_CALL_HEADER = (
    "Id",
    "VendorCallKey",
    "CallType",
    "CallDisposition",
    "FromPhoneNumber",
    "ToPhoneNumber",
    "CallStartDateTime",
    "CallDurationInSeconds",
    "Owner.Name",
    "Account_Number__c",
    "Customer_Name__c",
    "Tier__c",
    "Callback_Due__c",
    "Subject__c",
    "Notes__c",
)

NO_CONTACT = frozenset({9, 26, 44, 59, 73, 104, 125, 139, 158, 183, 198, 214})
"""Calls of the Sales Dialer, which Amazon Connect never saw."""

BUSY_OR_FAILED = frozenset({17, 39, 52, 70, 91, 113, 132, 161, 190, 217})
IN_PROGRESS = frozenset(range(235, 241))
"""The last rows: somebody was still talking when the export ran."""

DELETED = frozenset({23, 87, 141, 202})
"""Calls whose contact is gone from Amazon Connect; the sandbox refuses ids that begin so."""

JOINED_IDS = 57
"""Two records were merged by hand, and their keys were joined: longer than a contact id may be."""

UNREADABLE_DATE = 118
LONG_NOTES = frozenset({48, 109, 176, 229})

SAME_CONTACT = (
    (12, 150),
    (31, 32, 33),
    (64, 65),
    (78, 221),
    (99, 100, 101),
    (167, 168, 169),
    (205, 206),
)
"""Rows of one contact: transfers stand next to each other, a call back comes days later."""

FIRST_OF_CONTACT = {row: rows[0] for rows in SAME_CONTACT for row in rows}
COMPLETED = frozenset(FIRST_OF_CONTACT) | NO_CONTACT | DELETED | LONG_NOTES
"""Rows that show something else, and one thing is enough."""

AGENTS = ("Amélie Laurent", "Bjørn Håkonsen", "Grace Okafor", "Łukasz Wójtowicz", "Priya Raman")
GIVEN = ("Ana", "Chloë", "Dmitri", "Élodie", "Femi", "Günther", "Ingrid", "José", "Noor", "Siân")
FAMILY = ("Almeida", "Brontëfield", "Çelikkan", "Dąbek", "Fjeldsø", "Müllerhoff", "O'Hanlon-Vey")
PLACEHOLDER_NAMES = (
    "山田 太郎",
    "张三",
    "홍길동",
    "فلان الفلاني",
    "Ivy 🌿 Florists",
    'Café "Zur Linde" 🍰',
    "Smith, Smith & Smythe Ltd",
)
SUBJECTS = (
    "Invoice question",
    "Delivery is late, again",
    "Renewal",
    'Says the app shows "Error 17"',
    "Change of address",
    "Rückfrage zur Rechnung",
    "",
)
NOTES = (
    "Caller asked for the February invoice.",
    'Quoted: "I was promised a call back on Monday."',
    "Verified by date of birth and postcode.",
    "Offered a 10% credit; accepted.",
    "Sent the form by mail \N{EN DASH} signature outstanding.",
    "Möchte künftig auf Deutsch betreut werden.",
    "お客様は折り返しの電話を希望。",
    "Very happy with the engineer 🙌",
)


def salesforce_id(number: int) -> str:
    """A VoiceCall id: 15 characters, and 3 that let tools which fold case tell ids apart."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    serial = ""
    while number:
        number, digit = divmod(number, len(digits))
        serial = digits[digit] + serial
    short = "0LQ5f0000" + serial.rjust(6, "0")
    suffix = ""
    for start in (0, 5, 10):
        capitals = sum(short[start + i].isupper() << i for i in range(5))
        suffix += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[capitals]
    return short + suffix


def voice_call_key(row: int) -> str:
    """The contact id that the telephony connector wrote into the call, if there was one."""
    if row in NO_CONTACT:
        return ""
    if row in DELETED:
        return f"missing-{contact_id('salesforce', row)}"
    if row == JOINED_IDS:
        return ";".join(contact_id("salesforce", row, part) for part in range(8))
    return contact_id("salesforce", FIRST_OF_CONTACT.get(row, row))


def voice_call_type(row: int) -> str:
    """What kind of call it was; a later row of a contact is a transfer or a call back."""
    first = FIRST_OF_CONTACT.get(row, row)
    if row != first:
        return "Transfer" if FIRST_OF_CONTACT.get(row - 1) == first else "Callback"
    return pick(("Inbound", "Inbound", "Inbound", "Outbound"), "call type", row)


def voice_call_disposition(row: int) -> str:
    """How the call ended; an inbound call that nobody took stays `new` for ever."""
    if row in IN_PROGRESS:
        return "in-progress"
    if row in BUSY_OR_FAILED:
        return pick(("busy", "failed"), "disposition", row)
    if row in COMPLETED or row in {JOINED_IDS, UNREADABLE_DATE}:
        return "completed"
    if voice_call_type(row) == "Inbound" and happens(12, "missed", row):
        return "new"
    return "completed"


def voice_call_notes(row: int) -> str:
    """What the agent typed: nothing, a line, several, or far too much."""
    kind = pick(("none", "none", "loose", "lines", "lines", "lines", "lines"), "notes", row)
    if row in LONG_NOTES:
        return "\n".join(pick(NOTES, "note", row, line) for line in range(40))
    if kind == "none":
        return ""
    if kind == "loose":
        return f"  {pick(NOTES, 'note', row)} \n"
    return "\n".join(pick(NOTES, "note", row, line) for line in range(1 + draw(3, "lines", row)))


def voice_call(row: int) -> tuple[str, ...]:
    """One row of the Salesforce export."""
    contact = FIRST_OF_CONTACT.get(row, row)
    call_type = voice_call_type(row)
    disposition = voice_call_disposition(row)
    day, slot = divmod(row - 1, 48)
    started = datetime(2026, 3, 2, 8, 30, tzinfo=UTC) + timedelta(
        days=day, minutes=11 * slot, seconds=draw(600, "start", row)
    )
    if contact % 2:
        customer = f"+447700900{draw(1000, 'phone', contact):03}"
    else:
        customer = f"+120255501{draw(100, 'phone', contact):02}"
    ours = f"+4420794600{draw(20, 'line', row):02}"
    numbers = (ours, customer) if call_type in {"Outbound", "Callback"} else (customer, ours)
    name = f"{pick(GIVEN, 'given', contact)} {pick(FAMILY, 'family', contact)}"
    if happens(15, "placeholder", contact):
        name = pick(PLACEHOLDER_NAMES, "name", contact)
    account = f"{draw(100_000, 'account', contact):07}"
    if happens(3, "account of the old system", contact):
        account = f"00{draw(100, 'account', contact):02}e{draw(100, 'branch', contact):02}"
    due = ""
    if happens(20, "callback", row):
        due = f"{started + timedelta(days=7):%d/%m/%Y}"
    if row == UNREADABLE_DATE:
        due = "next Tuesday"
    answered = disposition == "completed"
    return (
        salesforce_id(4_180_000 + 7 * row),
        voice_call_key(row),
        call_type,
        disposition,
        *numbers,
        f"{started:%Y-%m-%dT%H:%M:%S}.000Z",
        str(30 + draw(1500, "duration", row)) if answered else "0",
        pick(AGENTS, "agent", row),
        account,
        name,
        pick(("Gold", "Silver", "Bronze", "NA", ""), "tier", contact),
        due,
        pick(SUBJECTS, "subject", contact),
        voice_call_notes(row) if answered else "",
    )


def salesforce_voice_calls() -> bytes:
    """UTF-8 with a byte order mark, commas, every cell quoted; line breaks inside cells are LF."""
    rows = [voice_call(row) for row in range(1, N_VOICE_CALLS + 1)]
    return csv_text(VOICE_CALL_HEADER, rows, quoting=csv.QUOTE_ALL).encode("utf-8-sig")


# --- Zendesk: one row a ticket, saved from a spreadsheet in Western Europe ------------------------

N_TICKETS = 600
TICKET_HEADER = (
    "Ticket ID",
    "Brand",
    "Channel",
    "Status",
    "Priority",
    "Subject",
    "Description",
    "Requester",
    "Requester email",
    "Requester locale",
    "Country",
    "Assignee",
    "Tags",
    "Order number",
    "Refund",
    "Satisfaction",
    "Created at",
    "Due date",
    "aws_contact_id",
)

CUSTOM_STATUS = frozenset({211, 432})
"""Somebody added a status to Zendesk and told nobody."""

NO_EMAIL = frozenset({164, 388})
LONG_IN_BYTES = 301
"""A description of fewer than 4,096 characters that is more than 4,096 bytes of UTF-8."""

LONG_DESCRIPTIONS = {77: 5200, LONG_IN_BYTES: 4000, 455: 6000}
"""Whole mail threads: row to characters."""

REOPENED = {93: 92, 248: 247, 249: 247, 400: 120, 517: 30}
"""Follow-up tickets of a contact: row to the row of its first ticket."""

KEPT_TICKETS = frozenset(
    {*CUSTOM_STATUS, *NO_EMAIL, *LONG_DESCRIPTIONS, *REOPENED, *REOPENED.values()}
)
"""Rows that show something else and therefore pass the mapping's filter."""

BRAND_OF_TICKETS = "Fjordlicht"
EUROPEANS = (
    "Jürgen Weißhaupt",
    "Zoé Lefèvre-Quint",
    "Søren Kjærsgård",
    "Begoña Iñarra",
    "Œdipe Marchand",
    "Štefan Žalúdek",
    "François d'Aubépine",
    "Greta Müßig",
)
TICKET_SUBJECTS = (
    "Lampe flackert",
    "Où est ma commande ?",
    "Rückerstattung über 49,90 €",
    "Kabel zu kurz; Stecker passt nicht",
    "Question about the Nordlys\N{TRADE MARK SIGN} warranty",
    "Colis abîmé \N{EN DASH} photos jointes",
    "\N{LEFT DOUBLE QUOTATION MARK}Zugestellt\N{RIGHT DOUBLE QUOTATION MARK}, aber nicht da",
    'Shade 60" instead of 50"',
)
TICKET_SENTENCES = (
    "Die Lampe fällt nach fünf Minuten aus.",
    "Größe und Farbe stimmen, die Prüfplakette fehlt.",
    "Le colis est arrivé ouvert; il manque une pièce.",
    "J'ai payé 49,90 € \N{EN DASH} j'attends le remboursement.",
    "The courier left it with a neighbour who is away.",
    "Bitte um Rückruf zwischen 9 und 12 Uhr.",
    'He wrote: "call me, do not mail me".',
)


def ticket_description(row: int) -> str:
    """What the customer wrote, sometimes with the whole thread below."""
    n_lines = 240 if row in LONG_DESCRIPTIONS else 1 + draw(4, "sentences", row)
    text = "\n".join(pick(TICKET_SENTENCES, "sentence", row, line) for line in range(n_lines))
    if row in LONG_DESCRIPTIONS:
        return text[: LONG_DESCRIPTIONS[row]]
    return f" {text}\n\n" if happens(10, "signature", row) else text


def ticket_channel(row: int) -> str:
    """How the ticket was opened."""
    if row not in KEPT_TICKETS and happens(12, "mail", row):
        return "email"
    return pick(("phone", "phone", "chat"), "channel", row)


def ticket_contact_id(row: int) -> str:
    """The contact that the ticket came from; a mail did not come through Amazon Connect."""
    if ticket_channel(row) == "email":
        return ""
    return contact_id("zendesk", REOPENED.get(row, row))


def ticket(row: int) -> tuple[str, ...]:
    """One row of the Zendesk export."""
    customer = REOPENED.get(row, row)
    email = f"customer{customer}@example.com"
    if happens(8, "typed mail", customer):
        email = f"Customer{customer}@Example.COM "
    created = datetime(2025, 11, 17, 7, 0, tzinfo=UTC) + timedelta(
        minutes=240 * row + draw(200, "created", row)
    )
    status = pick(("new", "open", "pending", "hold", "solved", "closed"), "status", row)
    if row not in KEPT_TICKETS and happens(4, "binned", row):
        status = pick(("deleted", "suspended"), "bin", row)
    if row in CUSTOM_STATUS:
        status = "awaiting supplier"
    brand = BRAND_OF_TICKETS
    if row not in KEPT_TICKETS and happens(12, "brand", row):
        brand = "Fjordlicht Pro"
    cents = 500 + draw(20_000, "refund", row)
    return (
        str(40_000 + row),
        brand,
        ticket_channel(row),
        status,
        pick(("", "low", "normal", "normal", "high", "urgent"), "priority", row),
        pick(TICKET_SUBJECTS, "ticket subject", row),
        ticket_description(row),
        pick(EUROPEANS, "requester", customer),
        "" if row in NO_EMAIL else email,
        pick(("de", "fr", "no", "es", "en-gb"), "locale", customer),
        pick(("DE", "FR", "NO", "ES", " de", "at"), "country", customer),
        pick(("Inès Touré", "Jörg Großkopf", ""), "assignee", row),
        pick(("lighting", "lighting;warranty", "delivery", "delivery;damaged", ""), "tags", row),
        str(700_000 + draw(99_999, "order", row)) if happens(70, "ordered", row) else "",
        f"{cents // 100},{cents % 100:02} €" if happens(30, "refunded", row) else "",
        pick(("good", "bad", "", ""), "satisfaction", row),
        f"{created:%d/%m/%Y %H:%M}",
        f"{created + timedelta(days=14):%d/%m/%Y}" if happens(60, "due", row) else "",
        ticket_contact_id(row),
    )


def zendesk_tickets() -> bytes:
    """Windows-1252, semicolons, quotes only where they are needed."""
    rows = [ticket(row) for row in range(1, N_TICKETS + 1)]
    return csv_text(TICKET_HEADER, rows, delimiter=";").encode("cp1252")


# --- Data warehouse: one row a contact, typed -----------------------------------------------------

N_CONTACTS = 1000
ROW_GROUP_ROWS = 250

WAREHOUSE_SCHEMA = pa.schema(
    [
        pa.field("contact_id", pa.string()),
        pa.field("account_id", pa.int64(), nullable=False),
        pa.field("full_name", pa.string()),
        pa.field("email", pa.string()),
        pa.field("country", pa.string()),
        pa.field("segment", pa.dictionary(pa.int32(), pa.string())),
        pa.field("customer_since", pa.date32()),
        pa.field("last_seen_at", pa.timestamp("us", tz="UTC")),
        pa.field("lifetime_value", pa.decimal128(12, 2)),
        pa.field("open_balance", pa.decimal128(12, 2)),
        pa.field("order_count", pa.int64()),
        pa.field("churn_risk", pa.float64()),
        pa.field("newsletter", pa.bool_()),
        pa.field("nps.2026q1", pa.int64()),
        pa.field("expiry_minutes", pa.int64()),
        pa.field("products", pa.list_(pa.string())),
        pa.field("embedding", pa.binary()),
        pa.field("loaded_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

ABOVE_FLOATS = 2**53
"""Account ids start here: a detour over a float would make two of them one."""


def warehouse_contact(row: int) -> tuple[Any, ...]:
    """One row of the warehouse extract, in the schema's order."""

    def unless(percent: int, column: str, value: T) -> T | None:
        return None if happens(percent, "null", column, row) else value

    contact: str | None = contact_id("warehouse", row)
    if happens(4, "imported", row):
        contact = f"legacy:{row:06}"
    name = f"{pick(GIVEN, 'given name', row)} {pick(FAMILY, 'family name', row)}"
    if happens(10, "other script", row):
        name = pick(PLACEHOLDER_NAMES, "other name", row)
    seen = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(
        seconds=draw(28 * 86_400, "seen", row), microseconds=draw(1_000_000, "micros", row)
    )
    products = [product for product in ("desk", "voice", "chat") if happens(50, product, row)]
    return (
        unless(3, "contact_id", contact),
        ABOVE_FLOATS + 2 * row + 1,
        name,
        unless(6, "email", f"customer{row}@example.com"),
        pick(("DE", "FR", "GB", "NO", "NA"), "country", row),
        unless(10, "segment", pick(("enterprise", "mid-market", "small business"), "seg", row)),
        unless(5, "customer_since", date(2016, 1, 1) + timedelta(days=draw(3650, "since", row))),
        unless(8, "last_seen_at", seen),
        Decimal(draw(50_000_000, "value", row)).scaleb(-2),
        unless(40, "open_balance", Decimal(draw(200_000, "balance", row) - 50_000).scaleb(-2)),
        draw(120, "orders", row),
        unless(7, "churn_risk", draw(10_000, "risk", row) / 10_000),
        unless(12, "newsletter", happens(55, "newsletter", row)),
        unless(60, "nps", draw(11, "nps", row)),
        unless(15, "expiry_minutes", 60 * (1 + draw(168, "expiry", row))),
        unless(20, "products", products),
        unless(30, "embedding", hashlib.sha256(f"{SEED} {row}".encode()).digest()[:16]),
        datetime(2026, 3, 1, 2, 0, tzinfo=UTC),
    )


def warehouse_contacts() -> pa.Table:
    """The extract as a table; its bytes on disk depend on the version of pyarrow."""
    columns = zip(*(warehouse_contact(row) for row in range(1, N_CONTACTS + 1)), strict=True)
    return pa.table(
        [
            pa.array(column, type=field.type)
            for column, field in zip(columns, WAREHOUSE_SCHEMA, strict=True)
        ],
        schema=WAREHOUSE_SCHEMA,
    )


def is_same_table(path: Path, table: pa.Table) -> bool:
    """Whether the Parquet file holds this table: the same schema, the same values."""
    stored = pq.ParquetFile(path).read()
    return stored.schema.equals(table.schema) and stored.to_pylist() == table.to_pylist()


# --- Files ---------------------------------------------------------------------------------------


def make(folder: Path, *, check: bool) -> list[str]:
    """Rewrite the files that are not current, or only look; their names."""
    stale = []
    for name, content in (
        ("salesforce_voice_calls.csv", salesforce_voice_calls()),
        ("zendesk_tickets.csv", zendesk_tickets()),
    ):
        path = folder / name
        if path.exists() and path.read_bytes() == content:
            continue
        stale.append(name)
        if not check:
            path.write_bytes(content)
    path = folder / "warehouse_contacts.parquet"
    table = warehouse_contacts()
    if not (path.exists() and is_same_table(path, table)):
        stale.append(path.name)
        if not check:
            pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS)
    return stale


def main(arguments: Sequence[str] | None = None, *, folder: Path = HERE) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description="Make the sample exports.")
    parser.add_argument("--check", action="store_true", help="only say what is not current")
    check = parser.parse_args(arguments).check
    stale = make(folder, check=check)
    for name in stale:
        sys.stdout.write(f"{name}: {'not current' if check else 'written'}\n")
    if not stale:
        sys.stdout.write("The samples are current.\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
