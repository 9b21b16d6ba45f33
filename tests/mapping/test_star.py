"""`"*"`: every column as an attribute."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.errors import MappingError
from bulk_updater.mapping import compile_mapping
from bulk_updater.mapping.star import legal_key
from bulk_updater.model import FAILED_COLUMNS

from .helpers import SOURCE, attributes, parse, refusal, sent


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("Tier", "Tier"),
        ("First Name", "First_Name"),
        ("Größe (cm)", "Grosse_cm"),
        ("Owner.Name", "Owner_Name"),
        ("a{b}", "a_b"),
        ("é__c", "e__c"),
        ("x-y_z", "x-y_z"),
        ("ﬁn", "fin"),
        ("№ 5", "No_5"),
        ("日本", ""),
        ("", ""),
    ],
)
def test_legal_keys(column, key):
    """A column's name keeps its letters and digits, without accents; the rest becomes one `_`."""
    assert legal_key(column) == key


def test_takes_every_column():
    """`"*"` takes every column but those that it leaves out, with its prefix."""
    text = attributes('"*": {prefix: crm_, except: [id, Notes]}', 'named: "{Notes}"')
    assert sent(text, **{"First Name": "A", "Notes": "n", "Empty": "", "a{b}": "x"}) == {
        "Attributes": {"named": "n", "crm_First_Name": "A", "crm_a_b": "x"}
    }


def test_takes_the_id_columns_too():
    """Every column is every column."""
    assert sent(attributes('"*": {}'), C="v") == {"Attributes": {"id": "c0", "C": "v"}}


def test_leaves_out_what_a_run_added_to_failed_csv():
    """`failed.csv` is run like any export: the columns that a run added to it are no data."""
    text = attributes('"*": {except: [id]}')
    assert sent(text, C="v", **dict.fromkeys(FAILED_COLUMNS, "x")) == {"Attributes": {"C": "v"}}


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (
            ['"*": {except: [id]}'],
            ["id", "First Name", "First.Name"],
            (
                'line 5: "*" makes the attribute key "First_Name" of two '
                'columns, "First Name" and '
                '"First.Name". Add one of them to "except" and name its attribute yourself.'
            ),
        ),
        (
            ['"*": {prefix: c_, except: [id]}', "c_Tier: x"],
            ["id", "Tier"],
            (
                'line 5: "*" makes the attribute key "c_Tier" of the '
                'column "Tier", and the mapping '
                'names that key too. Add the column to "except", or drop the key.'
            ),
        ),
        (
            ['"*": {prefix: c_}'],
            ["id", "日本"],
            (
                'line 5: "*" cannot make an attribute key of the column '
                '"日本": no letter or digit is '
                'left of it. Add it to "except" and name its attribute yourself.'
            ),
        ),
        (
            ['"*":', "  except: [idd]"],
            ["id"],
            'line 6: export.csv has no column "idd". Did you mean "id"? Known: id.',
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(lines, header, message):
    """Two columns of one key, or a column of none, are refused before a row is read."""
    assert refusal(attributes(*lines), header) == message


@settings(deadline=None)
@given(st.lists(st.text(), unique=True))
def test_keys_of_any_header_are_legal_or_refused(header):
    """Of any header `"*"` makes legal keys, each once, or it is refused."""
    try:
        compiled = compile_mapping(
            parse(attributes('"*": {prefix: c_, except: [id]}')), ["id", *header], SOURCE
        )
    except MappingError:
        return
    taken = [column for column in header if column not in ("id", *FAILED_COLUMNS)]
    keys = [f"c_{legal_key(column)}" for column in taken]
    assert len(set(keys)) == len(keys)
    assert all(
        set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        for key in keys
    )
    assert set(compiled.columns) == {"id", *taken}
