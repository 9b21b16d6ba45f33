"""What is opened, by its name and its first bytes, and what is refused with what to do."""

from __future__ import annotations

import gzip
import hashlib
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from bulk_updater.config import SourceFormat
from bulk_updater.errors import SourceError
from bulk_updater.readers import Source, open_source
from bulk_updater.readers.delimited import DelimitedSource

from .reading import read_all, rules

AUTO = SourceFormat(delimiter="auto")
DEFAULT = SourceFormat()


def refusal(path: Path, fmt: SourceFormat = DEFAULT) -> str:
    """Why a source is not opened, without its name."""
    with pytest.raises(SourceError) as caught:
        open_source(path, fmt)
    assert caught.value.source == str(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.txt", "a.csv.gz", "A.TXT.GZ", "a.b.csv"])
def test_a_name_says_what_a_source_is(write, name):
    """Upper or lower case, packed or not."""
    content = b"a,b\n1,2\n"
    path = write(gzip.compress(content) if name.lower().endswith("gz") else content, name)
    source: Source = open_source(path, DEFAULT)
    assert (source.name, source.path, source.columns) == (str(path), path, ("a", "b"))
    assert read_all(source)[0] == {1: ("1", "2")}
    assert source.fingerprint() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tsv_means_tabs_unless_a_delimiter_is_set(write):
    """The default delimiter says nothing; the name does."""
    assert open_source(write(b"a\tb,c\n", "a.tsv"), DEFAULT).columns == ("a", "b,c")
    assert open_source(write(b"a;b\tc\n", "a.tsv"), SourceFormat(delimiter=";")).columns == (
        "a",
        "b\tc",
    )
    packed = write(gzip.compress(b"a\tb\n"), "a.tsv.gz")
    assert open_source(packed, DEFAULT).columns == ("a", "b")


@pytest.mark.parametrize("name", ["a", "a.xlsx", "a.gz", "a.json", "a.parquet.gz", "csv"])
def test_any_other_name_is_refused(write, name):
    """Guessing would be worse than asking."""
    assert "a source ends with .csv, .tsv, .txt" in refusal(write(b"a\n", name))


def test_what_cannot_be_opened_is_refused_with_what_to_do(tmp_path, monkeypatch):
    """No file, a folder, a pipe, no permission."""
    assert refusal(tmp_path / "none.csv") == "there is no such file; check the path."
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv") == "is a folder; name the files in it."
    os.mkfifo(tmp_path / "pipe.csv")
    assert "save it to a file first" in refusal(tmp_path / "pipe.csv")
    (tmp_path / "shut.csv").write_bytes(b"a\n")
    assert refusal(tmp_path / "shut.csv" / "x.csv") == "cannot be opened: Not a directory."
    assert "NUL character" in refusal(tmp_path / "a\0.csv")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read whatever the mode says
    assert "give this user read permission" in refusal(tmp_path / "shut.csv")


@pytest.mark.parametrize(
    ("magic", "expected"),
    [
        (b"PAR1\x15\x04", "looks like Parquet; name it `.parquet`"),
        (b"PK\x03\x04\x14\0", "looks like a zip archive or an Excel workbook; export it as CSV"),
        (gzip.compress(b"a\n"), "looks like gzip; name it `.csv.gz`"),
        (b"\xd0\xcf\x11\xe0\xa1", "looks like an old Excel workbook; export it as CSV"),
        (b"\x28\xb5\x2f\xfd", "looks like zstd; unpack it first"),
    ],
)
def test_another_kind_of_file_is_told_by_its_first_bytes(write, magic, expected):
    """Packed or not; a header that begins alike is a header."""
    assert expected in refusal(write(magic))
    assert expected in refusal(write(gzip.compress(magic), "a.csv.gz"))
    assert open_source(write(b"PAR1,PK\n"), DEFAULT).columns == ("PAR1", "PK")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n\r\n\n", "is empty"),
        (b"a,b,a,c,b,a\n", "'a' (columns 1 and 3 and 6), 'b' (columns 2 and 5)"),
        (b"a,,b, \n", "no name for column 2, 4"),
        (b'a,""\n', "no name for column 2"),
        (b"a,\xe9\n", "the header is not utf-8 (column 2); set `source.encoding`"),
        ("a,b\n".encode("utf-16-le"), "set `source.encoding: utf-16`"),
        ("a,b\n".encode("utf-16-be"), "set `source.encoding: utf-16`"),
        ("a,b\n".encode("utf-16"), "is UTF-16, not utf-8: set `source.encoding: utf-16`"),
        (b'a,"b\n1,2\n', "a quote in it is never closed"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(write, content, expected):
    """By what is wrong and where."""
    assert expected in refusal(write(content))


def test_a_header_alone_is_a_source_without_rows(write):
    """Whether that is right is not for the reader to say."""
    for content in (b"a,b", b"a,b\n", b"a,b\r\n\r\n"):
        source = open_source(write(content), DEFAULT)
        assert source.columns == ("a", "b")
        assert source.count_rows() == 0
        assert list(source.read_frames(["a"])) == []


def test_names_are_kept_as_they_stand(write):
    """Blanks, quotes and line ends in a name belong to it."""
    source = open_source(write(b'"Last\nName", b ,"say ""x""",0\n1,2,3,4\n'), DEFAULT)
    assert source.columns == ("Last\nName", " b ", 'say "x"', "0")
    assert read_all(source)[0] == {1: ("1", "2", "3", "4")}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b,c\n1,2,3\n", ","),
        (b"a;b;c\n1,5;2,5;3,5\n", ";"),
        (b"a\tb\n1,2\t3\n", "\t"),
        (b"a|b\n1|2\n", "|"),
        (b'"x;y",b\n"1;2",3\n', ","),
        (b"name, first;b\n1;2\n", ";"),
        (b"a\n1\n", ","),
        (b"a;b", ";"),
        (b"", ","),
    ],
)
def test_auto_tells_the_delimiter_from_the_first_rows(write, content, expected):
    """By which of them the rows have as many cells as the header."""
    path = write(content or b"\n")
    if not content:
        assert "is empty" in refusal(path, AUTO)
        return
    assert open_source(path, AUTO).delimiter == expected


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "\0", "§", "tab"])
def test_a_delimiter_that_cannot_be_is_refused(write, delimiter):
    """By the key that holds it."""
    assert "`source.delimiter` is" in refusal(write(b"a\n"), SourceFormat(delimiter=delimiter))


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "undefined", "", "a\0"])
def test_an_unknown_encoding_is_refused(write, encoding):
    """By the key that holds it."""
    assert "`source.encoding` is" in refusal(write(b"a\n"), SourceFormat(encoding=encoding))


@pytest.mark.parametrize(
    ("encoding", "said", "found"),
    [
        ("cp1252", "cp1252", "cp1252"),
        ("latin-1", "latin-1", "iso8859-1"),
        ("utf-16", "utf-16", "utf-16-le"),
        ("utf-16", "utf-16-be", "utf-16-le"),
        ("utf-16-le", "utf-16", "utf-16-le"),
        ("utf-16-be", "utf-16", "utf-16-be"),
        ("utf-32", "utf-32", "utf-32-le"),
        ("utf-8-sig", "cp1252", "utf-8"),
        ("utf-8", "utf-8-sig", "utf-8"),
        ("shift_jis", "shift_jis", "shift_jis"),
    ],
)
def test_other_encodings_are_read_and_written_back(delimited, encoding, said, found):
    """Over any block edge; raw cells are the file's own bytes, without any mark."""
    name = "名前" if encoding == "shift_jis" else "Zoë"
    content = f'id,{name}\r\n1,"a\n{name}"\r\n'.encode(encoding)
    for block_bytes in (1, 3, 1 << 20):
        source = delimited(content, encoding=said, block_bytes=block_bytes)
        assert source.encoding == found
        assert source.columns == ("id", name)
        assert read_all(source)[0] == {1: ("1", f"a\n{name}")}
        [raw] = source.read_raw_rows(lambda _: True)
        assert raw.cells == ("1".encode(found), f"a\n{name}".encode(found))


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [
        ("cp1252", b"\x81"),
        ("ascii", b"\xc3\xa9"),
        ("shift_jis", b"\x81\xff"),
        ("utf-16-le", b"\x00\xd8"),
        ("utf-16-be", b"\xdc\x22"),
    ],
)
def test_bytes_outside_of_the_encoding_are_kept(delimited, encoding, bad):
    """They concern their row only, cannot pass as something else, and can be written back."""
    first, rest = "a,b\n1,x\n2,".encode(encoding), "y\n3,z".encode(encoding)
    source = delimited(first + bad + rest, encoding=encoding)
    rows, unreadable = read_all(source)
    assert rows == {1: ("1", "x"), 3: ("3", "z")}
    assert rules(unreadable) == {2: "undecodable"}
    assert f"bytes that are not {encoding}" in str(unreadable[2].error)
    assert unreadable[2].cells == ("2".encode(encoding), bad + "y".encode(encoding))


def test_a_wide_encoding_that_the_file_is_not_in_is_refused(write):
    """Or its bytes would pass as Chinese."""
    message = refusal(write(b"a,b\n1,2\n"), SourceFormat(encoding="utf-16"))
    assert message.startswith("is not utf-16-le; set `source.encoding`")


def test_gzip_that_is_none_is_refused(write):
    """Whether nothing of it is gzip or it breaks off before the header."""
    assert "is no gzip at all" in refusal(write(b"a,b\n1,2\n", "a.csv.gz"))
    assert "cut short" in refusal(write(gzip.compress(b"a,b\n1,2\n")[:12], "a.csv.gz"))
    assert "is empty" in refusal(write(b"", "a.csv.gz"))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_gzip_yields_what_is_whole_and_then_says_so(tmp_path, damage):
    """Rows before the damage arrive; the error says up to which row the file was read."""
    lines = b"".join(
        b"%d,%s\n" % (row, hashlib.sha256(b"%d" % row).hexdigest().encode())
        for row in range(1, 3001)
    )
    packed = bytearray(gzip.compress(b"a,b\n" + lines))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2 : len(packed) // 2 + 40] = b"\xff" * 40
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed)
    source = DelimitedSource(path, packed=True, name="a.csv.gz", block_bytes=1000)
    seen = [100]

    def read() -> None:
        for frame in source.read_frames(["a"], first_row=101):
            seen.extend(frame.rows.tolist())
            seen.extend(bad.row for bad in frame.unreadable)

    with pytest.raises(SourceError, match=r"gzip data is (cut short|damaged)") as caught:
        read()
    assert len(seen) > 500
    assert f"it was read up to row {max(seen)}." in str(caught.value)
    with pytest.raises(SourceError):
        source.count_rows()
    with pytest.raises(SourceError):
        list(source.read_raw_rows(lambda _: False))


def test_a_file_that_goes_away_is_a_source_error(delimited):
    """Between two readings, too."""
    source = delimited(b"a\n1\n")
    source.path.unlink()
    for read in (source.count_rows, source.fingerprint, lambda: list(source.read_frames(["a"]))):
        with pytest.raises(SourceError, match=r"cannot be read: No such file"):
            read()


def test_many_gzip_members_are_one_file(write):
    """As `cat a.gz b.gz` makes them."""
    path = write(gzip.compress(b"a,b\n1,") + gzip.compress(b"2\n3,4\n"), "a.csv.gz")
    assert read_all(open_source(path, DEFAULT))[0] == {1: ("1", "2"), 2: ("3", "4")}


def test_parquet_is_opened_by_its_name(tmp_path):
    """Both names."""
    for name in ("a.parquet", "a.PQ"):
        parquet.write_table(pa.table({"a": [1]}), tmp_path / name)
        assert read_all(open_source(tmp_path / name, DEFAULT))[0] == {1: ("1",)}


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A packed file of 24 MB is read, counted and read again within a few blocks."""
    path = tmp_path / "a.csv.gz"
    row = b",".join([b"0123456789"] * 10) + b"\n"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b",".join(b"c%d" % at for at in range(10)) + b"\n")
        for _ in range(220):
            file.write(row * 1000)
    source = open_source(path, DEFAULT)
    arrow_before = pa.total_allocated_bytes()
    arrow_peak = 0
    tracemalloc.start()
    try:
        for frame in source.read_frames(source.columns):
            assert len(frame.rows) <= 16_384
            arrow_peak = max(arrow_peak, pa.total_allocated_bytes() - arrow_before)
        assert source.count_rows() == 220_000
        assert not list(source.read_raw_rows(lambda _: False))
        _, python_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert python_peak < 12e6
    assert arrow_peak < 12e6
