"""A row that cannot be read is that row's result, not the end of the file."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bulk_updater.errors import SourceError
from bulk_updater.model import UnreadableRow
from bulk_updater.readers.delimited import _CellParser

from .reading import read_all, rules


def test_a_ragged_row_is_set_aside(delimited):
    """Too few and too many cells; the rows behind keep their numbers."""
    content = b'a,b,c\n1,2,3\n4,5\n6\n7,8,9\n"x,y",",",0,1\n10,11,12\n'
    rows, unreadable = read_all(delimited(content))
    assert rows == {1: ("1", "2", "3"), 4: ("7", "8", "9"), 6: ("10", "11", "12")}
    assert [str(bad.error) for bad in unreadable.values()] == [
        "row 2: 2 cells where the header has 3",
        "row 3: 1 cell where the header has 3",
        "row 5: 4 cells where the header has 3",
    ]
    assert unreadable[5].cells == (b"x,y", b",", b"0", b"1")
    assert set(rules(unreadable).values()) == {"ragged_row"}


def test_a_ragged_row_need_not_be_utf_8(delimited):
    """Arrow loses a whole block over such a row; here it is one row."""
    rows, unreadable = read_all(delimited(b"a,b\n1,2\n\xff\xfe,3,4\n5,6\n"))
    assert rows == {1: ("1", "2"), 3: ("5", "6")}
    assert unreadable[2].cells == (b"\xff\xfe", b"3", b"4")


def test_a_file_of_ragged_rows_only_is_read_to_its_end(delimited):
    """With no row to read, every row is still told of."""
    rows, unreadable = read_all(delimited(b"a,b\n" + b"1\n" * 100, block_bytes=32))
    assert not rows
    assert sorted(unreadable) == list(range(1, 101))


def test_undecodable_bytes_concern_their_row_if_their_column_is_used(delimited):
    """Only that row, only where the cell is wanted, with the column's name."""
    source = delimited(b"a,b\n1,x\n2,caf\xe9\n3,z\n")
    rows, unreadable = read_all(source, ["b", "a"])
    assert rows == {1: ("x", "1"), 3: ("z", "3")}
    assert rules(unreadable) == {2: "undecodable"}
    assert unreadable[2].error.column == "b"
    assert str(unreadable[2].error) == "row 2: column 'b' has bytes that are not utf-8"
    assert unreadable[2].cells == (b"2", b"caf\xe9")
    assert read_all(source, ["a"]) == ({1: ("1",), 2: ("2",), 3: ("3",)}, {})


def test_a_nul_character_concerns_its_row_if_its_column_is_used(delimited):
    """NUL cannot be sent and is hardly meant."""
    source = delimited(b'a,b\n1,x\n"2\0",y\0\n3,z\n')
    rows, unreadable = read_all(source)
    assert sorted(rows) == [1, 3]
    assert rules(unreadable) == {2: "nul_character"}
    assert unreadable[2].error.column == "a"
    assert str(unreadable[2].error) == "row 2: column 'a' has a NUL character"
    assert read_all(source, [])[1] == {}


@pytest.mark.parametrize("block_bytes", [1, 10, 1 << 20])
@pytest.mark.parametrize(
    ("tail", "cells"),
    [
        (b'3,"never closed\n4,z\n5,q\n', (b"3", b"never closed")),
        (b'3,"never ""closed""\r\n4,z', (b"3", b'never "closed"')),
        (b'"', (b"",)),
        (b'"one\nline",5" pipe,"and\nmore\n', (b"one\nline", b'5" pipe', b"and")),
    ],
)
def test_an_unclosed_quote_ends_the_file_with_a_result(delimited, block_bytes, tail, cells):
    """The rows before it are fine, the row where it opened says so, nothing behind it is sent."""
    content = b'a,b\r\n1,"x\r\ny"\r\n\r\n2,y\r\n'
    source = delimited(content + tail, block_bytes=block_bytes)
    rows, unreadable = read_all(source)
    assert rows == {1: ("1", "x\r\ny"), 2: ("2", "y")}
    assert rules(unreadable) == {3: "unclosed_quote"}
    assert "row 3, from line 6 on: a quote in it is never closed" in str(unreadable[3].error)
    assert unreadable[3].cells == cells
    assert source.count_rows() == 3
    assert [raw.readable for raw in source.read_raw_rows(lambda _: True)] == [True, True, False]


@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n"])
def test_a_closed_quote_at_the_end_is_none(delimited, last):
    """A last cell of many lines is a cell, also with quotes in it and behind it."""
    for cell, text in ((b'"x\ny\nz"', "x\ny\nz"), (b'"x\n"""', 'x\n"'), (b'x"y', 'x"y')):
        rows, unreadable = read_all(delimited(b"a,b\n1," + cell + last))
        assert rows == {1: ("1", text)}
        assert not unreadable


@pytest.mark.parametrize("block_bytes", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize(
    "long",
    [
        b"2," + b"x" * 90,
        b'2,"' + b'y""\r\n,' * 20 + b'"',
        b"2" + b",z" * 50,
        b'2,5" ' + b'"' * 90,
        b'"' * 92,
    ],
    ids=["bare", "quoted", "ragged", "plain-quotes", "doubled-quotes"],
)
def test_a_row_too_long_to_hold_is_passed_over(delimited, block_bytes, long):
    """Its end is found without holding it, in quotes or not; the rows behind it are read."""
    content = b"a,b\n1,x\n" + long + b'\n3,"y\n"\n'
    source = delimited(content, block_bytes=block_bytes, max_row_bytes=64)
    rows, unreadable = read_all(source)
    assert rows == {1: ("1", "x"), 3: ("3", "y\n")}
    assert rules(unreadable) == {2: "row_too_long"}
    assert str(unreadable[2].error) == "row 2, from line 3 on: it is longer than 64 bytes"
    assert source.count_rows() == 3
    assert [raw.row for raw in source.read_raw_rows(lambda _: True)] == [1, 2, 3]


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_a_row_of_the_greatest_length_is_read(delimited, block_bytes):
    """The limit is the longest row that is held, not the first that is not."""
    content = b"a,b\n" + b"x" * 62 + b",1\n" + b"y" * 63 + b",1\n2,3"
    source = delimited(content, block_bytes=block_bytes, max_row_bytes=64)
    rows, unreadable = read_all(source)
    assert sorted(rows) == [1, 3]
    assert rules(unreadable) == {2: "row_too_long"}


@pytest.mark.parametrize("tail", [b"x" * 100, b'"' + b"x\n" * 50])
def test_a_row_too_long_may_be_the_last(delimited, tail):
    """With an unclosed quote it is that; else it is too long."""
    source = delimited(b"a,b\n1,2\n3," + tail, block_bytes=8, max_row_bytes=32)
    rule = "unclosed_quote" if b'"' in tail else "row_too_long"
    assert rules(read_all(source)[1]) == {2: rule}


def test_no_message_and_no_repr_holds_a_cell(delimited):
    """Whatever a row breaks, what stands in it stays out of logs and ledgers."""
    content = b'a,b\nsecret\nsecret,caf\xe9secret\nsecret,\0secret\nsecret,"secret\n'
    _, unreadable = read_all(delimited(content))
    assert len(unreadable) == 4
    for bad in unreadable.values():
        assert isinstance(bad, UnreadableRow)
        assert "secret" not in f"{bad!r} {bad.error} {bad.error!r}"


def test_raw_rows_are_the_wanted_ones_as_they_stand(delimited):
    """Every column, unquoted, by number through all sources; each number is asked for once."""
    asked = []

    def wanted(row: int) -> bool:
        asked.append(row)
        return row % 2 == 0

    source = delimited(b'a,b\n1,x\n"2",\xff\n3\n"4""",,\n5,\n')
    raw = list(source.read_raw_rows(wanted, first_row=11))
    assert asked == [11, 12, 13, 14, 15]
    assert [(row.row, row.cells, row.readable) for row in raw] == [
        (12, (b"2", b"\xff"), True),
        (14, (b'4"', b"", b""), False),
    ]
    assert "\\xff" not in repr(raw)


def test_rows_are_never_numbered_by_guess(delimited, monkeypatch):
    """Should Arrow ever tell rows apart in another way, reading stops: no number is wrong."""
    take = _CellParser._take
    monkeypatch.setattr(
        _CellParser, "_take", lambda self, text: [column[1:] for column in take(self, text)]
    )
    with pytest.raises(SourceError, match="from row 7 on apart in another way"):
        list(delimited(b"a\n1\n2\n").read_frames(["a"], first_row=7))


def test_what_arrow_cannot_parse_is_no_traceback(delimited, monkeypatch):
    """Should Arrow ever refuse rows that are told apart here, reading stops with a sentence."""

    def refuse(*_):
        raise pa.ArrowInvalid("some reason")

    monkeypatch.setattr(_CellParser, "_take", refuse)
    with pytest.raises(SourceError, match="from row 1 on apart in another way"):
        list(delimited(b"a\n1\n2\n").read_frames(["a"]))


@pytest.mark.parametrize("block_bytes", [1, 4, 1 << 20])
def test_a_byte_order_mark_inside_is_text(delimited, block_bytes):
    """Arrow drops one at the beginning of a block, and fails at half of one; here both stay."""
    content = b'a,b\n\xef\xbb\xbf1,x\n2,\xef\xbb\xbf\n\xef\xbb,y\n\xef\xbb\xbf"3,4",z\n\xef,y'
    rows, unreadable = read_all(delimited(content, block_bytes=block_bytes))
    assert rows == {1: ("\ufeff1", "x"), 2: ("2", "\ufeff")}
    assert rules(unreadable) == {3: "undecodable", 4: "ragged_row", 5: "undecodable"}
