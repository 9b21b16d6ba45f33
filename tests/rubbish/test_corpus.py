"""Awkward files, one by one: what is read of each, cell by cell, and what `plan` says of it.

The small ones stand in `corpus/`; the large ones, and those that no editor can keep, are built
here. Takes six seconds.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from bulk_updater.config import SourceFormat
from bulk_updater.errors import SourceError
from bulk_updater.readers import open_source
from tests.readers.reading import read_all, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cli.conftest import Ran

CORPUS = Path(__file__).parent / "corpus"
INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
HEADER = ("Contact", "Tier", "Notes")


@dataclass(frozen=True)
class Case:
    """One awkward file and what is to come of it.

    Attributes:
        name: The file.
        n_rows: Its data rows.
        unreadable: The rule that each unreadable row breaks.
        cells: Some rows' cells, exactly; all others of the file are readable all the same.
        refused: Words of the `SourceError`, if it is one; then nothing else counts.
        columns: The header.
        encoding: What the mapping says.
        content: What is in it, if it is not in the corpus.
    """

    name: str
    n_rows: int = 0
    unreadable: Mapping[int, str] = field(default_factory=dict)
    cells: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    refused: str = ""
    columns: tuple[str, ...] = HEADER
    encoding: str = "utf-8"
    content: Callable[[], bytes] | None = None

    def write(self, folder: Path) -> Path:
        """The file, where it can be read."""
        if self.content is None:
            return CORPUS / self.name
        path = folder / self.name
        path.write_bytes(self.content())
        return path


def typed() -> bytes:
    """Numbers and dates as Parquet keeps them, at their ends."""
    table = pa.table(
        {
            "Contact": ["007", "1e5"],
            "n": pa.array([2**63 - 1, -(2**63)]),
            "f": [0.1, 1e15],
            "d": pa.array([Decimal("1.10"), Decimal("-0.01")], pa.decimal128(9, 2)),
            "day": pa.array([date(2026, 3, 1), None]),
            "at": pa.array([datetime(2026, 3, 1, 9, 30), datetime(1, 1, 1)]),  # noqa: DTZ001
            "ok": [True, None],
        }
    )
    return of_parquet(table)


def of_parquet(table: pa.Table, **options: Any) -> bytes:
    """A Parquet file's bytes."""
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue())


WIDE = tuple(f"column {at}" for at in range(5000))
LONG = "x" * (10 << 20)
WHOLE = b"Contact,Tier,Notes\n" + b"c-1,gold,a\n" * 3

CASES = [
    Case(
        "ragged.csv",
        5,
        dict.fromkeys((2, 3, 4), "ragged_row"),
        {1: ("c-1", "gold", "a"), 5: ("c-5", "gold", "a,b")},
    ),
    Case(
        "quote-in-cell.csv",
        3,
        {},
        {1: ("c-1", '5" pipe', 'a"b"c'), 2: ("c-2", 'x"y', 'z"'), 3: ("c-3", 'xy"z"', '"')},
    ),
    Case("quote-unclosed.csv", 2, {2: "unclosed_quote"}, {1: ("c-1", "gold", "a")}),
    Case("quote-unclosed-at-end.csv", 2, {2: "unclosed_quote"}),
    Case("line-end-lone-cr.csv", 3, {}, {1: ("c-1", "gold", "a"), 2: ("c-2", "gold", "b")}),
    Case(
        "line-end-cr-in-quotes.csv",
        2,
        {},
        {1: ("c-1", "gold", "a\rb"), 2: ("c-2\rc-9", "gold", "b")},
    ),
    Case("line-end-mixed.csv", 5, {}, {3: ("c-3", "gold", "c\r\nd"), 5: ("c-5", "gold", "f")}),
    Case("line-end-none-last.csv", 2, {}, {2: ("c-2", "gold", "b")}),
    Case(
        "line-end-vertical.csv",
        2,
        {},
        {1: ("c-1", "go\vld", "a\fb"), 2: ("c-2", "\x1c\x1d\x1e", "\x85\u2028\u2029")},
    ),
    Case(
        "tabs.tsv", 3, {3: "ragged_row"}, {1: ("c-1", "gold", "a\tb"), 2: ("c-2", "go ld", "a,b")}
    ),
    Case("tabs-inside.csv", 1, {}, {1: ("c-1", "\tgold\t", "a\tb")}),
    Case(
        "formulas.csv",
        3,
        {},
        {
            1: ("c-1", "=1+1", "@SUM(A1:A9)"),
            2: ("c-2", "+cmd|' /C calc'!A0", "-2+3"),
            3: ("c-3", '=HYPERLINK("http://x")', "\t=1"),
        },
    ),
    Case(
        "right-to-left.csv",
        3,
        {},
        {
            1: ("c-1", "שלום", "\u202eevil\u202c"),
            2: ("c-2", "\u200f\u200e", "\u2066x\u2069"),
            3: ("c-3", "e\u0301\u200d", "😀\ufe0f"),
        },
    ),
    Case("surrogates.csv", 3, dict.fromkeys((1, 2), "undecodable"), {3: ("c-3", "gold", "😀")}),
    Case("overlong.csv", 5, dict.fromkeys((1, 2, 3, 4), "undecodable"), {5: ("c-5", "gold", "a")}),
    Case("latin-1.csv", 2, {1: "undecodable"}, {2: ("c-2", "gold", "café")}),
    Case(
        "latin-1.csv",
        2,
        {},
        {1: ("c-1", "gold", "café"), 2: ("c-2", "gold", "cafÃ©")},
        encoding="cp1252",
    ),
    Case("nul.csv", 3, dict.fromkeys((1, 2), "nul_character"), {3: ("c-3", "gold", "a")}),
    Case("nul-in-header.csv", refused="the header has NUL characters"),
    Case(
        "lines-empty.csv", 3, {2: "ragged_row"}, {1: ("c-1", "gold", "a"), 3: ("c-2", "gold", "b")}
    ),
    Case(
        "lines-comments.csv",
        2,
        {},
        {1: ("# c-1", "gold", "a"), 2: ("c-2", "gold", "#b")},
        columns=("#Contact", "Tier", "Notes"),
    ),
    Case("header-only.csv", 0),
    Case("header-only-unended.csv", 0),
    Case("header-twice.csv", refused="a name more than once: 'Tier' (columns 2 and 3)"),
    Case("header-unnamed.csv", refused="the header has no name for column 2, 4"),
    Case(
        "header-odd.csv",
        1,
        {},
        {1: ("c-1", "gold", "a", "b", "c")},
        columns=("Contact", " Tier ", 'say "x"', "Last\nName", "=1+1"),
    ),
    Case("header-again.csv", 3, {}, {2: HEADER, 3: ("c-2", "gold", "b")}),
    Case("bom.csv", 1, {}, {1: ("c-1", "gold", "a")}),
    Case(
        "bom-twice.csv",
        1,
        {},
        {1: ("c-1", "gold", "a")},
        columns=("\ufeffContact", "Tier", "Notes"),
    ),
    Case(
        "bom-in-the-middle.csv",
        3,
        {3: "ragged_row"},
        {1: ("\ufeffc-1", "gold", "a"), 2: ("c-2", "\ufeffgold", "\ufeff")},
    ),
    Case("bom-half.csv", 1, {1: "undecodable"}, columns=("Contact",)),
    Case(
        "looks-typed.csv",
        2,
        {},
        {
            1: ("007", "1e5", "NA", "null", "TRUE", "2026-03-01", "0x1F"),
            2: ("-0", "1_000", "nan", "None", "", "1.10", "#N/A"),
        },
        columns=("Contact", "a", "b", "c", "d", "e", "f"),
    ),
    Case("empty.csv", refused="is empty: it has not even a header"),
    Case("blank.csv", refused="is empty: it has not even a header"),
    Case(
        "a-page.csv",
        2,
        {},
        {2: ("<body>no</body></html>",)},
        columns=("<!DOCTYPE html>",),
    ),
    Case("a-workbook.csv", refused="looks like a zip archive or an Excel workbook"),
    Case("utf-16-without-mark.csv", refused="set `source.encoding: utf-16`"),
    Case("utf-16.csv", refused="is UTF-16, not utf-8"),
    Case(
        "utf-16.csv",
        3,
        {2: "undecodable"},
        {1: ("c-1", "gold", "ä"), 3: ("c-3", "gold", "😀")},
        encoding="utf-16",
    ),
    Case("utf-16-odd.csv", 2, {2: "undecodable"}, {1: ("c-1", "gold", "a")}, encoding="utf-16"),
    # Large ones.
    Case(
        "long-cell.csv",
        2,
        {},
        {1: ("c-1", "gold", LONG), 2: ("c-2", "gold", "b")},
        content=lambda: b'Contact,Tier,Notes\nc-1,gold,"%b"\nc-2,gold,b\n' % LONG.encode(),
    ),
    Case(
        "wide.csv",
        2,
        {2: "ragged_row"},
        {1: tuple(map(str, range(5000)))},
        columns=WIDE,
        content=lambda: "\n".join(
            [",".join(WIDE), ",".join(map(str, range(5000))), ",".join("x" * 4999)]
        ).encode(),
    ),
    Case(
        "wide-twice.csv",
        refused="'a' (columns 1 and 2 and 3 and more)",
        content=lambda: b",".join([b"a"] * 5000),
    ),
    Case("wide-unnamed.csv", refused="20 and 4981 more", content=lambda: b"," * 5000),
    Case(
        "a-dump.csv",
        refused="the header has NUL characters",
        content=lambda: b"\x7fELF" + bytes(range(1, 9)) + b"\0\n" * 99,
    ),
    # Packed.
    Case("whole.csv.gz", 3, {}, {3: ("c-1", "gold", "a")}, content=lambda: gzip.compress(WHOLE)),
    Case(
        "members.csv.gz",
        6,
        {},
        content=lambda: gzip.compress(WHOLE) + gzip.compress(WHOLE.partition(b"\n")[2]),
    ),
    Case("cut.csv.gz", refused="cut short", content=lambda: gzip.compress(WHOLE)[:-5]),
    Case("cut-in-name.csv.gz", refused="cut short", content=lambda: gzip.compress(WHOLE)[:9]),
    Case("then-more.csv.gz", refused="damaged", content=lambda: gzip.compress(WHOLE) + b"more"),
    Case("then-zeros.csv.gz", 3, content=lambda: gzip.compress(WHOLE) + bytes(512)),
    Case("no-gzip.csv.gz", refused="is no gzip at all", content=lambda: WHOLE),
    Case("gzip.csv", refused="name it `.csv.gz`", content=lambda: gzip.compress(WHOLE)),
    Case(
        "twice.csv.gz",
        refused="looks like gzip",
        content=lambda: gzip.compress(gzip.compress(WHOLE)),
    ),
    # Parquet.
    Case(
        "typed.parquet",
        2,
        {},
        {
            1: (
                "007",
                "9223372036854775807",
                "0.1",
                "1.10",
                "2026-03-01",
                "2026-03-01T09:30:00",
                "true",
            ),
            2: (
                "1e5",
                "-9223372036854775808",
                "1000000000000000",
                "-0.01",
                "",
                "0001-01-01T00:00:00",
                "",
            ),
        },
        columns=("Contact", "n", "f", "d", "day", "at", "ok"),
        content=typed,
    ),
    Case(
        "far.parquet",
        3,
        dict.fromkeys((2, 3), "undecodable"),
        {1: ("c-1", "1970-01-01T00:00:00+00:00")},
        columns=("Contact", "at"),
        content=lambda: of_parquet(
            pa.table(
                {
                    "Contact": ["c-1", "c-2", "c-3"],
                    "at": pa.array([0, 2**62, -(2**62)], pa.timestamp("ms", "UTC")),
                }
            )
        ),
    ),
    Case(
        "views.parquet",
        2,
        {},
        {1: ("c-1", '["a"]'), 2: ("c-2", "")},
        columns=("Contact", "l"),
        content=lambda: of_parquet(
            pa.table(
                {
                    "Contact": pa.array(["c-1", "c-2"], pa.string_view()),
                    "l": pa.array([["a"], None], pa.list_(pa.string_view())),
                }
            )
        ),
    ),
    Case("cut.parquet", refused="is cut short", content=lambda: typed()[:-3]),
    Case("csv.parquet", refused="is not Parquet", content=lambda: WHOLE),
    Case(
        "encrypted.parquet",
        refused="is encrypted Parquet",
        content=lambda: b"PARE" + typed()[4:-4] + b"PARE",
    ),
    Case("parquet.csv", refused="looks like Parquet", content=typed),
]
IDS = [f"{case.name}, {case.encoding}" for case in CASES]


def test_every_file_of_the_corpus_has_its_case():
    """No file lies there that nothing is asked of."""
    assert {path.name for path in CORPUS.iterdir()} == {
        case.name for case in CASES if case.content is None
    }


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_is_read(case: Case, tmp_path: Path):
    """As many rows, unreadable for these reasons, with exactly these cells; or refused so."""
    path = case.write(tmp_path)
    if case.refused:
        with pytest.raises(SourceError) as caught:
            read_all(open_source(path, SourceFormat(encoding=case.encoding)))
        assert case.refused in caught.value.message
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 1000
        return
    source = open_source(path, SourceFormat(encoding=case.encoding))
    assert source.columns == case.columns
    rows, unreadable = read_all(source)
    assert len(rows) + len(unreadable) == source.count_rows() == case.n_rows
    assert rules(unreadable) == case.unreadable
    assert {row: rows[row] for row in case.cells} == dict(case.cells)
    raw = list(source.read_raw_rows(lambda _: True))
    assert [found.row for found in raw] == list(range(1, case.n_rows + 1))
    for row, cells in rows.items():
        assert raw[row - 1].cells == tuple(cell.encode(source.encoding) for cell in cells)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_a_plan_says(case: Case, call: Callable[[str], Ran], tmp_path: Path):
    """0 where every row is good, 1 where one is not, 2 where the file is not; no traceback."""
    attributes = "".join(
        f"    a{at}: {{column: {json.dumps(column)}}}\n"
        for at, column in enumerate(case.columns[:10])
    )
    (tmp_path / "mapping.yaml").write_text(
        f"source: {{encoding: {case.encoding}}}\nupdate_contact_attributes:\n"
        f"  InstanceId: {INSTANCE}\n  InitialContactId: c\n  Attributes:\n{attributes}"
    )
    ran = call(f"plan mapping.yaml {case.write(tmp_path)}")
    assert "Traceback" not in ran.out + ran.err
    if case.refused:
        assert ran.code == 2
        assert case.refused in ran.err.replace("\n", " ")
        return
    too_long = {row for row, cells in case.cells.items() if any(len(x) > 32_767 for x in cells)}
    assert ran.err == ""
    assert ran.code == bool(case.unreadable or too_long)
    assert f": {case.n_rows} row" in ran.out
    assert set(re.findall(r"row.*: (\w+)$", ran.out, re.MULTILINE)) >= set(case.unreadable.values())
