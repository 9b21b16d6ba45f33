"""Cells of delimited text arrive as they stand."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.errors import SourceError
from bulk_updater.readers.delimited import DelimitedSource

from .reading import read_all, rules

ODD = ["0044123", "NA", "null", "1e5", "TRUE", " 7 ", "", "nan", "007", "1,5", "2026-03-01", "#N/A"]


def test_text_is_never_taken_for_something_else(delimited):
    """What looks like a number, a date, a truth or nothing arrives as the text that it is."""
    source = delimited(b"a;b\n" + b"".join(f"{x};x\n".encode() for x in ODD), delimiter=";")
    rows, unreadable = read_all(source)
    assert [cells[0] for cells in rows.values()] == ODD
    assert not unreadable


def test_frames_are_arrow_text_without_nulls(delimited):
    """A frame's columns are Arrow strings; an empty cell, quoted or not, is "" and never null."""
    [frame] = delimited(b'a,b\n,""\n').read_frames(["b", "a"])
    assert list(frame.cells.columns) == ["b", "a"]
    assert all(dtype == pd.ArrowDtype(pa.string()) for dtype in frame.cells.dtypes)
    assert frame.cells.to_numpy().tolist() == [["", ""]]
    assert frame.source == "export.csv"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "unended"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_every_line_end_is_one(delimited, line_end, last, bom):
    """Rows end with LF, CRLF or CR, the last with the file; a UTF-8 mark is not in the header."""
    content = bom + line_end.join([b"a,b", b'1,"x' + line_end + b'y"', b"2,z"]) + line_end * last
    source = delimited(content)
    assert source.columns == ("a", "b")
    rows, _ = read_all(source)
    assert rows == {1: ("1", f"x{line_end.decode()}y"), 2: ("2", "z")}


def test_quotes_are_read_as_rfc_4180_says_and_kept_where_it_is_silent(delimited):
    """Quoted delimiters and doubled quotes; a quote inside a bare cell is a quote."""
    content = b'a,b\n"1,2","say ""hi"""\n5" pipe,"x"y"z"\n"",""""\n a , "b"\n'
    rows, _ = read_all(delimited(content))
    assert rows == {
        1: ("1,2", 'say "hi"'),
        2: ('5" pipe', 'xy"z"'),
        3: ("", '"'),
        4: (" a ", ' "b"'),
    }


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 1 << 20])
def test_a_blank_line_is_no_row(delimited, block_bytes):
    """Blank lines count nowhere, with one column or more; `""` is a row with an empty cell."""
    one = delimited(b'\n\na\n\n1\r\n\r\n""\n \n\n', block_bytes=block_bytes)
    assert read_all(one)[0] == {1: ("1",), 2: ("",), 3: (" ",)}
    assert one.count_rows() == 3
    assert [raw.cells for raw in one.read_raw_rows(lambda _: True)] == [(b"1",), (b"",), (b" ",)]
    two = delimited(b"a,b\n\n1,2\n\n\n3,4\n\n", block_bytes=block_bytes)
    assert read_all(two)[0] == {1: ("1", "2"), 2: ("3", "4")}
    assert two.count_rows() == 2


@pytest.mark.parametrize("block_bytes", [1, 3, 16, 61, 4096])
def test_blocks_leave_no_trace(delimited, block_bytes):
    """Rows, quotes and line ends may lie over the edge of a block, and longer than one."""
    lines = [b"id,text,more"]
    expected = {}
    for row in range(1, 60):
        text = f"é{'x' * (row % 23)}" + ('\r\n"quoted", ' * (row % 3))
        expected[row] = (str(row), text, "")
        lines.append(f'{row},"{text.replace(chr(34), chr(34) * 2)}",'.encode())
    source = delimited(b"\r\n".join(lines), block_bytes=block_bytes)
    assert read_all(source) == (expected, {})
    assert source.count_rows() == 59


def test_frames_are_cut_to_size_and_numbered_through(delimited):
    """No frame has more rows than allowed, unreadable ones included; numbers run on."""
    content = b"a,b\n" + b"1,2\n" * 10 + b"odd\n" + b"3,4\n" * 14
    source = delimited(content, max_frame_rows=4)
    frames = list(source.read_frames(["a"], first_row=101))
    assert [len(frame.rows) + len(frame.unreadable) for frame in frames] == [4] * 6 + [1]
    rows, unreadable = read_all(source, ["a"], first_row=101)
    assert sorted(rows) == [*range(101, 111), *range(112, 126)]
    assert rules(unreadable) == {111: "ragged_row"}


def test_a_default_frame_has_a_few_thousand_rows(delimited):
    """However narrow rows are, a frame is at most 16,384 of them, and none is a mere rest."""
    frames = list(delimited(b"a\n" + b"1\n" * 40_000).read_frames(["a"]))
    assert [len(frame.rows) for frame in frames] == [13_334, 13_334, 13_332]


def test_only_the_columns_asked_for_are_read(delimited):
    """Each once, in the order asked; without any there are still rows."""
    source = delimited(b"a,b,c\n1,2,3\n4,5\n6,7,8\n")
    assert read_all(source, ["c", "a", "c"])[0] == {1: ("3", "1"), 3: ("8", "6")}
    rows, unreadable = read_all(source, [])
    assert rows == {1: (), 3: ()}
    assert rules(unreadable) == {2: "ragged_row"}


def test_an_unknown_column_is_refused_before_reading(delimited):
    """`read_frames` itself raises, not the first frame; the message names what there is."""
    source = delimited(b"a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"export.csv: has no column 'c'; it has 'a', 'b'\."):
        source.read_frames(["a", "c"])


cells = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6
) | st.sampled_from(['"', '""', "\n", "\r\n", "\r", ",", ';"', " ", "NA", "0012", "é\n"])


@st.composite
def tables(draw):
    """A table of text, a dialect, and the table written in it by Python's csv module."""
    width = draw(st.integers(1, 4))
    table = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=8))
    delimiter = draw(st.sampled_from(",;\t|"))
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    if line_end == "\n" and any("\r" in cell for row in table for cell in row):
        quoting = (
            csv.QUOTE_ALL
        )  # before Python 3.13 csv leaves a CR bare, and reads it as a row end
    written = io.StringIO(newline="")
    writer = csv.writer(
        written,
        delimiter=delimiter,
        lineterminator=line_end,
        quoting=quoting,
    )
    writer.writerow([f"c{at}" for at in range(width)])
    writer.writerows(table)
    text = written.getvalue()
    if draw(st.booleans()):
        text = text.removesuffix(line_end)
    encoding = draw(
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030"])
    )
    return [tuple(row) for row in table], delimiter, encoding, text.encode(encoding)


@settings(max_examples=120, deadline=None)
@given(tables(), st.sampled_from([1, 5, 64, 1 << 20]))
def test_what_pythons_csv_module_writes_arrives_exactly(table, block_bytes):
    """Any table, in any dialect and encoding, over any block edge, by all three ways to read."""
    expected, delimiter, encoding, content = table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.csv")
        path.write_bytes(content)
        source = DelimitedSource(
            path, name="x", encoding=encoding, delimiter=delimiter, block_bytes=block_bytes
        )
        rows, unreadable = read_all(source)
        assert list(rows.values()) == expected
        assert not unreadable
        assert source.count_rows() == len(expected)
        raw = [row.cells for row in source.read_raw_rows(lambda _: True)]
    assert raw == [tuple(cell.encode(source.encoding) for cell in row) for row in expected]


odd_bytes = st.lists(
    st.sampled_from(
        [b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"a", b"bc", b" ", b"\xff", b"\xc3\xa9", b"\0"]
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(
    odd_bytes,
    st.sampled_from([b"h\n", b"h,i\n"]),
    st.sampled_from([1, 2, 9]),
    st.sampled_from([6, 1 << 20]),
)
def test_the_three_ways_to_read_agree_on_any_bytes(body, header, block_bytes, max_row_bytes):
    """Every row is numbered and told of once, with the same cells, whatever bytes and blocks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.csv")
        path.write_bytes(header + body)
        source = DelimitedSource(
            path, name="x", block_bytes=block_bytes, max_row_bytes=max_row_bytes
        )
        rows, unreadable = read_all(source)
        raw = {row.row: row for row in source.read_raw_rows(lambda _: True)}
        assert source.count_rows() == len(rows) + len(unreadable) == len(raw)
        at_once = DelimitedSource(path, name="x", max_row_bytes=max_row_bytes)
        whole = read_all(at_once)
    for row, texts in rows.items():
        assert raw[row].cells == tuple(text.encode() for text in texts)
        assert raw[row].readable
    for row, bad in unreadable.items():
        assert raw[row].cells == bad.cells
        assert raw[row].readable == (bad.error.rule in {"undecodable", "nul_character"})
    assert whole[0] == rows
    assert rules(whole[1]) == rules(unreadable)
    if max_row_bytes > len(body) and rules(unreadable).get(len(raw)) != "unclosed_quote":
        text = io.StringIO(body.decode("latin-1"), newline="")
        as_python = [tuple(row) for row in csv.reader(text) if row]
        assert [tuple(c.decode("latin-1") for c in row.cells) for row in raw.values()] == as_python


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "shift_jis", "utf-7", "ascii", "idna"]),
    st.sampled_from([",", "auto"]),
    st.booleans(),
)
def test_random_bytes_give_rows_or_a_source_error(content, encoding, delimiter, packed):
    """Nothing but `SourceError` ever comes out of a file, whatever is in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.csv")
        path.write_bytes(content)
        try:
            source = DelimitedSource(
                path, name="x", encoding=encoding, delimiter=delimiter, packed=packed
            )
            rows, unreadable = read_all(source)
            assert source.count_rows() == len(rows) + len(unreadable)
            assert len(list(source.read_raw_rows(lambda _: True))) == source.count_rows()
        except SourceError:
            pass
