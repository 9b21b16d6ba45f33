"""Any bytes under the name of a CSV file: rows that are read alike by all, or a `SourceError`.

Takes six seconds.
"""

from __future__ import annotations

import csv
import encodings
import gzip
import io
import pkgutil
import tempfile
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.config import SourceFormat
from bulk_updater.errors import SourceError
from bulk_updater.readers import formats, open_source
from bulk_updater.readers.delimited import DelimitedSource
from tests.readers.reading import read_all, rules

from .helpers import assert_clear, examples

BLOCKS = st.sampled_from([1, 2, 3, 7, 16, 64, 2 << 20])

# What a file of cells is made of, with all that has a meaning to somebody.
PIECES = st.sampled_from(
    [
        *('"', '""', ",", ";", "\t", "|", "\n", "\r", "\r\n", "\n\n", " ", "a", "bc", "1e5", "NA"),
        *("\ufeff", "é", "😀", "\u202e", "\u2028", "\x85", "\v", "\0", "=1+1", "#", "'", "\\"),
    ]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, str]:
    """A file that was one of cells in an encoding, until some of its bytes were changed."""
    encoding = draw(ENCODINGS)
    header = draw(st.sampled_from(["id\n", "id,name\n", "id;name\r\n", 'id,"na""me",x\n']))
    content = bytearray((header + draw(TEXTS)).encode(encoding, "replace"))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["insert", "drop", "change", "repeat", "cut"])):
            case "insert":
                content[at:at] = draw(st.binary(max_size=4) | st.sampled_from(ODD_BYTES))
            case "drop":
                del content[at : at + draw(st.integers(1, 4))]
            case "change":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 20))]
            case _:
                del content[at:]
    return bytes(content), encoding


ODD_BYTES = [
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xff\xfe",
    b"\0",
    b"\x81",
]


def opened(path: Path, encoding: str, delimiter: str, block_bytes: int) -> DelimitedSource:
    """A source as `open_source` opens it, but read in blocks of any size."""
    small = partial(DelimitedSource, block_bytes=block_bytes)
    with patch.object(formats, "DelimitedSource", small):
        source = open_source(path, SourceFormat(encoding=encoding, delimiter=delimiter))
    assert isinstance(source, DelimitedSource)
    return source


def read(
    content: bytes,
    encoding: str = "utf-8",
    *,
    delimiter: str = ",",
    block_bytes: int = 2 << 20,
    name: str = "export.csv",
):
    """All that a source says, told twice and in all its ways; None where it is refused.

    Returns:
        The source, its readable rows, the rules that the others break, and all cells as bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            source = opened(path, encoding, delimiter, block_bytes)
            rows, unreadable = read_all(source, first_row=5)
        except SourceError as error:
            assert_clear(error, str(path))
            return None
        again, unreadable_again = read_all(source, first_row=5)
        assert (again, rules(unreadable_again)) == (rows, rules(unreadable))
        raw = {row.row: row.cells for row in source.read_raw_rows(lambda _: True, first_row=5)}
        assert source.count_rows() == len(rows) + len(unreadable) == len(raw)
        for row, bad in unreadable.items():
            assert_clear(bad.error, f"row {row}")
    assert sorted(raw) == list(range(5, 5 + len(raw)))
    for row, texts in rows.items():
        assert raw[row] == tuple(map(source._text.encode, (text.encode() for text in texts)))
    return source, rows, rules(unreadable), raw


@examples(60)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"a\n", b"a,b\n", b"\xef\xbb\xbfa\n", b"\xff\xfea\0\n\0"]),
    ENCODINGS,
    st.sampled_from([",", "auto"]),
    BLOCKS,
)
def test_any_bytes(content, header, encoding, delimiter, block_bytes):
    """Rows without a gap, the same each time, or a `SourceError` of one line."""
    read(header + content, encoding, delimiter=delimiter, block_bytes=block_bytes)


@examples(50)
@given(mutated(), st.sampled_from([",", ";", "\t"]), BLOCKS)
def test_block_edges_may_lie_anywhere(file, delimiter, block_bytes):
    """In whatever blocks a file is read, it says the same."""
    content, encoding = file
    at_once = read(content, encoding, delimiter=delimiter)
    in_blocks = read(content, encoding, delimiter=delimiter, block_bytes=block_bytes)
    assert (at_once is None) == (in_blocks is None)
    if at_once is not None and in_blocks is not None:
        assert at_once[1:] == in_blocks[1:]


@examples(80)
@given(mutated(), st.sampled_from([",", ";", "\t"]), BLOCKS)
def test_no_row_is_read_wrongly(file, delimiter, block_bytes):
    """Where Python's csv module can read the file, every readable row is as it reads it."""
    content, encoding = file
    found = read(content, encoding, delimiter=delimiter, block_bytes=block_bytes)
    if found is None:
        return
    source, rows, broken, raw = found
    try:
        text = content.decode(source.encoding)
    except UnicodeDecodeError:
        # One byte that cannot be decoded changes no other row: they are compared where the bytes
        # are characters of their own.
        if source.encoding != "utf-8":
            return
        text = content.decode("utf-8", "surrogateescape")
    if source.encoding.startswith("utf"):
        text = text.removeprefix("\ufeff")
    table = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    assert table[0] == list(source.columns)
    assert len(table) - 1 == len(raw) or "unclosed_quote" in broken.values()
    for row in [*rows, *broken]:
        cells = table[row - 4] if row - 4 < len(table) else None
        match broken.get(row):
            case None:
                assert rows[row] == tuple(cells or ())
            case "ragged_row":
                assert len(cells or ()) != len(source.columns)
            case "nul_character":
                assert "\0" in "".join(cells or ())
            case "undecodable":
                with pytest.raises(UnicodeEncodeError):
                    "".join(cells or ()).encode()
            case rule:
                assert rule == "unclosed_quote"


@st.composite
def packed(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A text, and what became of it when it was packed: whole, in members, cut, soiled."""
    text = b"id,name\n" + draw(TEXTS).encode()
    at = draw(st.integers(0, len(text)))
    members = [gzip.compress(text[:at], mtime=0), gzip.compress(text[at:], mtime=0)]
    content = bytearray(b"".join(members) if draw(st.booleans()) else gzip.compress(text))
    match draw(st.sampled_from(["whole", "cut", "soiled", "zeros", "flipped"])):
        case "cut":
            del content[draw(st.integers(0, len(content))) :]
        case "soiled":
            content += draw(st.binary(min_size=1, max_size=30))
        case "zeros":
            content += bytes(draw(st.integers(1, 30)))
        case "flipped":
            content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
        case _:
            pass
    return text, bytes(content)


@examples(50)
@given(packed(), BLOCKS)
def test_packed_files_say_what_they_hold_or_that_they_are_damaged(file, block_bytes):
    """The rows of the text that was packed, all of them, or a `SourceError`; never some."""
    text, content = file
    found = read(content, name="export.csv.gz", block_bytes=block_bytes)
    try:
        whole = gzip.decompress(content)
    except (OSError, EOFError, gzip.zlib.error):
        assert found is None
        return
    if content == gzip.compress(text):
        assert whole == text
    plain = read(whole, block_bytes=block_bytes)
    assert (found is None) == (plain is None)
    if found is not None and plain is not None:
        assert found[1:] == plain[1:]


CODECS = sorted({module.name for module in pkgutil.iter_modules(encodings.__path__)})


@pytest.mark.parametrize(
    "content",
    [
        b"id,name\n1,2\n",
        b"id,name\n" + bytes(range(256)),
        "id,name\né,😀\n".encode("utf-16"),
        b"id,name\n\\ud800,\\udc41\n\\x41,\\\n",
        b"id,name\n+2AA-,+\n~{,\x1b$B\n",
        b"xn--a,b\nxn--\xff,2\n",
    ],
)
def test_every_codec_of_python(content: bytes):
    """Whatever `source.encoding` names, however odd its codec."""
    n_read = 0
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        for codec in CODECS:
            n_read += read(content, codec, block_bytes=5) is not None
    assert len(CODECS) > 100
    assert n_read > 0 or content[:2] in (b"\xff\xfe", b"xn")
