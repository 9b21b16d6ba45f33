"""`contact_started`: when Connect forgets a contact, and what the mapping file may say of it."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.mapping import EXPIRED, NEVER, compile_mapping
from bulk_updater.mapping.started import FixedForm, expiry_of
from bulk_updater.mapping.transforms import read_moment
from bulk_updater.model import Outcome, Request

from .helpers import SOURCE, attributes, contact, entries, map_cells, parse, refusal

ISO = "contact_started: {column: S}\n"
FORM = 'contact_started: {column: S, date: "%d/%m/%Y"}\n'


def expiries(before, cells, **more):
    mapped = map_cells(
        attributes('a: "v"', before=before), {"id": ["c"] * len(cells), "S": cells, **more}
    )
    return mapped.expires_at.tolist()


def epoch(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("cell", "forgotten"),
    [
        ("2024-03-01", "2026-03-01T00:00:00"),
        ("2024-02-29", "2026-02-28T00:00:00"),
        ("2024-02-29T23:59:59.999Z", "2026-02-28T23:59:59"),
        ("2026-02-28", "2028-02-28T00:00:00"),
        ("2023-12-31T12:34:56", "2025-12-31T12:34:56"),
        ("2023-12-31 12:34", "2025-12-31T12:34:00"),
        ("2023-12-31T23:30:00-01:00", "2026-01-01T00:30:00"),
        ("2024-02-29T00:30:00+01:00", "2026-02-28T23:30:00"),  # 28 February in UTC
        ("2024-03-01T00:30:00+0100", "2026-02-28T23:30:00"),
        ("2024-03-01T08:00:00.123456789Z", "2026-03-01T08:00:00"),
        ("20240301T080000Z", "2026-03-01T08:00:00"),
        ("2024-W09-5", "2026-03-01T00:00:00"),
        ("1969-12-31T23:59:59.5Z", "1971-12-31T23:59:59"),
        ("0001-01-01", "0003-01-01T00:00:00"),
    ],
)
def test_two_calendar_years_after_an_iso_moment(cell, forgotten):
    """Connect forgets a contact 24 calendar months on, to the second, alone or among others."""
    assert expiries(ISO, [cell]) == [epoch(forgotten)]
    for other in ("2020-01-01", "2020-01-01T00:00:00Z", "20200101", ""):
        beside = NEVER if not other else epoch("2022-01-01T00:00:00")
        assert expiries(ISO, [other, cell, other]) == [beside, epoch(forgotten), beside]


@pytest.mark.parametrize(
    ("form", "cell", "forgotten"),
    [
        ("%d/%m/%Y", "1/3/2024", "2026-03-01T00:00:00"),
        ("%d/%m/%Y", "29/02/2024", "2026-02-28T00:00:00"),
        ("%m/%d/%Y %I:%M %p", "03/01/2024 08:15 PM", "2026-03-01T20:15:00"),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-03-01T00:30:00+0200", "2026-02-28T22:30:00"),
        ("%s", "1709251200", "2026-03-01T00:00:00"),
    ],
)
def test_dates_of_a_form(form, cell, forgotten):
    """With `date` cells are read as any other date of that form; without a zone they are UTC."""
    before = f'contact_started: {{column: S, date: "{form}"}}\n'
    assert expiries(before, [cell, "", cell]) == [epoch(forgotten), NEVER, epoch(forgotten)]


@given(st.lists(st.datetimes() | st.datetimes().map(lambda d: d.replace(day=min(d.day, 28)))))
def test_every_moment_expires_as_a_calendar_says(moments):
    """Whatever the moment, its year goes up by two and no more than 29 February moves."""
    wanted = []
    for moment in moments:
        year = moment.year + 2
        day = min(moment.day, calendar.monthrange(min(year, 9998), moment.month)[1])
        days = np.datetime64(f"{year:04d}-{moment.month:02d}-{day:02d}").astype(int)
        time_s = (moment.hour * 60 + moment.minute) * 60 + moment.second
        wanted.append(int(days) * 86_400 + time_s)
    assert expiries(ISO, [moment.isoformat() for moment in moments]) == wanted


@given(
    st.lists(
        st.datetimes(timezones=st.none() | st.timezones(), allow_imaginary=False).map(str)
        | st.dates().map(str)
        | st.sampled_from(["", "0000-01-01", "2024-1-1", "2024-01-01T24:00", "x", " 2024-01-01"]),
        max_size=4,
    )
)
def test_a_column_is_read_like_its_cells(cells):
    """However a column mixes forms and zones, each cell is read as it is by itself."""
    whole = expiries(ISO, cells)
    assert whole == [when for cell in cells for when in expiries(ISO, [cell])]


@st.composite
def near_dates(draw, form):
    """A date of the form, or a text that is a letter away from one, or one out of range."""
    text = draw(st.datetimes(min_value=datetime(1000, 1, 1))).strftime(form)  # noqa: DTZ001
    at = draw(st.integers(0, len(text)))
    letter = draw(st.sampled_from([*"0123456789", " ", "/", "t", "", "\u0663", "-"]))
    return draw(st.sampled_from([text, text[:at] + letter + text[at + 1 :], text.lower()]))


@pytest.mark.parametrize(
    "form",
    ["%d/%m/%Y", "%Y%m%d", "%Y-%m-%dT%H:%M:%S", "%H:%M %d.%m.%Y", "%d%m%Y%H%M%S", "%Y 7 %m\t%d"],
)
@given(st.data())
def test_fixed_forms_are_read_like_python_reads_them(form, data):
    """A column of digits in fixed places is read as Python's strptime reads each cell."""
    cells = data.draw(st.lists(near_dates(form), max_size=5))
    moments, fits = FixedForm.of(form).read(pa.array(["cut off", *cells], pa.string()).slice(1))
    for cell, moment, is_read in zip(cells, moments.tolist(), fits.tolist(), strict=True):
        if is_read:
            assert moment == read_moment(cell, form)
    wanted = [read_moment(cell, form) for cell in cells]
    before = f'contact_started: {{column: S, date: "{form}"}}\n'.replace("\t", "\\t")
    assert expiries(before, cells) == [
        NEVER if moment is None else int(expiry_of(np.array([moment]))[0]) for moment in wanted
    ]


def test_dates_of_a_fixed_form_need_no_python(monkeypatch):
    """Dates and times in fixed places are read by columns: Python is asked for none of them."""
    asked = []
    monkeypatch.setattr("bulk_updater.mapping.transforms.read_moment", lambda *of: asked.append(of))
    cells = [
        f"{n % 28 + 1:02d}/{n % 12 + 1:02d}/2024 {n % 24:02d}:{n % 60:02d}" for n in range(1000)
    ]
    before = 'contact_started: {column: S, date: "%d/%m/%Y %H:%M"}\n'
    assert NEVER not in expiries(before, cells)
    assert asked == []
    assert NEVER not in expiries(ISO, [f"2024-03-01T00:{n % 60:02d}:00Z" for n in range(1000)])
    assert asked == []


@pytest.mark.parametrize(
    "form", ["%s", "%d %b %Y", "%Y-%m", "%d/%m/%y", "%%%Y%m%d", "%Y\u2013%m-%d"]
)
def test_other_forms_are_not_taken_for_fixed(form):
    """A form with names, without a day, or that is not all ASCII is left to Python."""
    assert FixedForm.of(form) is None


@pytest.mark.parametrize("cell", ["x", "2023-02-29", "01/03/2024", "1709251200", " ", "0000-01-01"])
def test_what_is_no_date_makes_the_row_invalid_for_each_operation(cell):
    """A cell that cannot be read is the row's INVALID result, and does not expire."""
    text = attributes('a: "v"', before=ISO) + contact("Name: n")
    found = entries(text, {"S": [cell, "2024-01-01", ""]})
    assert [isinstance(each, Request) for each in found] == [False] * 2 + [True] * 4
    for each in found[:2]:
        assert (each.outcome, each.error_code) == (Outcome.INVALID, "unreadable_date")
        assert each.error == (
            'row 1: contact_started (from "S") is no ISO 8601 date, such as 2026-03-01 or '
            "2026-03-01T08:00:00Z."
        )
        assert each.contact_id == "c0"
    assert expiries(ISO, [cell]) == [NEVER]


def test_a_date_of_another_form_is_told_its_form():
    """The message names the form that the mapping asks for, and never the cell."""
    (found,) = entries(attributes('a: "v"', before=FORM), {"S": ["2024-planted"]})
    assert found.error == 'row 1: contact_started (from "S") is no date of the form %d/%m/%Y.'


def test_an_id_that_breaks_a_rule_is_told_first():
    """A row without a contact is told that, whatever its date is."""
    text = attributes('a: "v"', contact='"{K}"', before=ISO)
    (found,) = entries(text, {"K": [""], "S": ["x"]})
    assert found.error_code == "empty_id"


def test_rows_that_where_leaves_out_do_not_expire():
    """What is filtered has no expiry, and nothing is wrong with its date."""
    before = "source: {where: [{column: W, not: x}]}\n" + ISO
    started = ["2024-03-01", "2024-03-01", "bad"]
    assert expiries(before, started, W=["x", "", "x"]) == [NEVER, epoch("2026-03-01"), NEVER]
    (mapped,) = map_cells(
        attributes('a: "v"', before=before),
        {"id": ["c"] * 3, "S": started, "W": ["x", "", "x"]},
    ).operations
    assert not list(mapped.invalid_rows())


def test_without_contact_started_nothing_expires():
    """A mapping that does not say when contacts began makes none expire, nor do empty cells."""
    assert expiries("", ["2024-03-01", "bad"]) == [NEVER, NEVER]
    assert expiries(ISO, ["", ""]) == [NEVER, NEVER]
    assert expiries("contact_started:\n", ["bad"]) == [NEVER]
    assert expiries(ISO, []) == []
    assert expiry_of(np.array([253_402_300_799])).max() < NEVER  # the last second that has a date
    assert EXPIRED == "expired"


def test_its_column_is_read():
    """The column is among those that a reader has to read, once."""
    text = attributes('a: "{A}"', 'b: "{S}"', before=ISO)
    compiled = compile_mapping(parse(text), ["id", "A", "S", "Z"], SOURCE)
    assert sorted(compiled.columns) == ["A", "S", "id"]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            "contact_started: {colum: S}\n",
            (
                'line 1: "colum" is not a key of contact_started. Did you mean "column"? Known: '
                "column, date."
            ),
        ),
        ("contact_started: {date: '%Y'}\n", 'line 1: contact_started lacks the key "column".'),
        (
            "contact_started: S\n",
            'line 1: contact_started must be keys with values, and the text "S" stands here.',
        ),
        (
            "contact_started:\n  column: S\n  date: '%Q'\n",
            (
                'line 3: contact_started.date: Python cannot read a date of the form "%Q"; write '
                "each directive once, "
                'such as "%d/%m/%Y", or "%s" alone for seconds since the epoch.'
            ),
        ),
        (
            "contact_started:\n  column: Started\n",
            'line 2: export.csv has no column "Started". Known: id, S.',
        ),
        (
            "source:\n  contact_started: {column: S}\n",
            (
                'line 2: "contact_started" stands in source, and belongs beside it: move it to the '
                "left margin, a key of its own."
            ),
        ),
        (
            "contact_start: {column: S}\n",
            (
                'line 1: "contact_start" is not a key of a mapping. Did you mean '
                '"contact_started"? Known: source, contact_started, update_contact_attributes, '
                "update_contact."
            ),
        ),
    ],
)
def test_mistakes_are_refused_at_their_line(before, message):
    """What `contact_started` may not say is refused with the line and what is allowed."""
    assert refusal(attributes("a: x", before=before), ["id", "S"]) == message


def test_it_is_no_member_of_a_request():
    """Inside an operation it is refused, with where it belongs; as an attribute's key it is one."""
    text = contact("Name: n", "contact_started: {column: S}")
    assert refusal(text) == (
        'line 5: "contact_started" stands in update_contact, and belongs beside it: move it to '
        "the left margin, a key of its own."
    )
    assert parse(attributes('contact_started: "{S}"')).started is None
