"""The transforms by themselves: where a text may be cut, and that a column equals its cells."""

from __future__ import annotations

import sys
import unicodedata
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.mapping import transforms

TEXTS = st.lists(st.text(st.characters(codec="utf-8")), max_size=6)
FLAG, KISS, WAVE = "🇩🇪", "👩\u200d❤\ufe0f\u200d👩", "👋🏽"


@pytest.mark.parametrize(
    ("text", "max_bytes", "kept"),
    [
        ("abc", 2, "ab"),
        ("ab", 2, "ab"),
        ("xe\u0301", 2, "x"),  # the accent does not fit, so its letter goes as well
        ("xe\u0301", 4, "xe\u0301"),
        ("x" + WAVE, 5, "x"),
        ("x" + WAVE, 9, "x" + WAVE),
        ("x" + KISS, len(KISS.encode()), "x"),
        ("x" + FLAG, 5, "x"),
        (FLAG + FLAG, 8, FLAG),
        (FLAG + FLAG, 12, FLAG),
        (FLAG + FLAG, 16, FLAG + FLAG),
        ("xकि", 4, "x"),
        ("x🏴\U000e0067\U000e007f", 9, "x"),
        ("é", 1, ""),
        (WAVE, 4, "👋"),  # nothing whole fits: code points are kept
        ("e\u0301\u0301\u0301", 3, "e\u0301"),
    ],
)
def test_truncate(text, max_bytes, kept):
    """What people see as one character stays whole; where none fits, code points do."""
    assert transforms.truncate(text, max_bytes) == kept


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")), st.integers(1, 40))
def test_truncated_text_is_the_beginning_of_the_text(text, max_bytes):
    """A cut text begins the text, fits, and loses no more than one character as people see it."""
    kept = transforms.truncate(text, max_bytes)
    assert text.startswith(kept)
    assert len(kept.encode()) <= max_bytes
    if kept == text:
        return
    following = text[len(kept) : len(kept) + 1]
    if all(unicodedata.category(c) not in {"Mn", "Mc", "Me", "Cf", "Sk", "So"} for c in text):
        assert len((kept + following).encode()) > max_bytes


@settings(deadline=None)
@given(TEXTS, st.integers(1, 12))
def test_a_column_is_truncated_like_its_cells(texts, max_bytes):
    """Cutting a column equals cutting each of its cells."""
    cut = transforms.truncate_bytes(pa.array(texts, pa.string()), max_bytes).to_pylist()
    assert cut == [transforms.truncate(text, max_bytes) for text in texts]


@settings(deadline=None)
@given(TEXTS)
def test_case_and_length_are_pythons(texts):
    """Case, length and blanks of a column are those of Python's own strings."""
    column = pa.array(texts, pa.string())
    assert transforms.lower(column).to_pylist() == [text.lower() for text in texts]
    assert transforms.upper(column).to_pylist() == [text.upper() for text in texts]
    assert pc.utf8_trim_whitespace(column).to_pylist() == [text.strip() for text in texts]
    assert transforms.n_characters(column).tolist() == [len(text) for text in texts]
    assert transforms.n_bytes(column).tolist() == [len(text.encode()) for text in texts]


def test_white_space_is_pythons():
    """Every code point that Python strips is stripped, and no other."""
    column = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    stripped = pc.utf8_trim_whitespace(pa.array(column)).to_pylist()
    assert stripped == [character.strip() for character in column]


def test_a_function_is_asked_once_for_each_text():
    """A column of few distinct texts costs as many calls as it has."""
    asked = []
    column = pa.array(["a", "b", "a"] * 1000)
    assert transforms.matches(column, lambda text: asked.append(text) or text == "a").sum() == 2000
    transforms.map_each(column, asked.append)
    assert asked == ["a", "b"] * 2


@settings(deadline=None)
@given(
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from(["%Y-%m-%d %H:%M:%S", "%d.%m.%Y", "%s", "%Y%j", "%H:%M %d %b %Y"]),
)
def test_what_is_written_can_be_read(moment, form):
    """A date that was written in a form is read back from it, in any year."""
    text = transforms.write_date(moment.replace(microsecond=0), form)
    assert transforms.make_date_reader(form, form)(text) == text


def test_the_epoch_is_utc():
    """A time without a zone counts as UTC, whatever the machine's zone is."""
    assert transforms.write_date(datetime(1970, 1, 2), "%s") == "86400"  # noqa: DTZ001
    assert transforms.write_date(datetime(999, 1, 2, tzinfo=UTC), "%Y") == "0999"
