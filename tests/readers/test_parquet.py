"""A Parquet file, typed, encoded and broken in every way that it can be."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from bulk_updater.errors import SourceError
from bulk_updater.readers.parquet import ParquetSource
from bulk_updater.readers.text import to_text

from .reading import read_all, rules


@pytest.fixture
def source_of(tmp_path):
    """Writes a table and opens it."""

    def open_table(table: pa.Table, *, batch_rows: int = 8192, **options) -> ParquetSource:
        path = tmp_path / "export.parquet"
        parquet.write_table(table, path, **options)
        return ParquetSource(path, name="export.parquet", batch_rows=batch_rows)

    return open_table


def texts(values: pa.Array) -> list[str]:
    """What becomes of some values."""
    return [cell.decode() for cell in to_text(values).to_pylist()]


SUMMER = datetime(2026, 7, 1, 7, 30, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["0044", "NA", "", None]), ["0044", "NA", "", ""]),
        (pa.array(["x", None], pa.large_string()), ["x", ""]),
        (pa.array(["x", None], pa.string_view()), ["x", ""]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", "", "x"]),
        (pa.nulls(2), ["", ""]),
        (pa.array([1, -2, None, 2**63 - 1]), ["1", "-2", "", "9223372036854775807"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (
            pa.array([Decimal("1.50"), Decimal("0.00"), None], pa.decimal128(9, 2)),
            ["1.50", "0.00", ""],
        ),
        (
            pa.array([Decimal("1E-7"), Decimal(0), Decimal("-2.5")], pa.decimal128(12, 7)),
            ["0.0000001", "0.0000000", "-2.5000000"],
        ),
        (pa.array([Decimal(12300)], pa.decimal128(9, -2)), ["12300"]),
        (pa.array([Decimal("1.5")], pa.decimal256(60, 1)), ["1.5"]),
        (pa.array([date(2026, 3, 1), date(1, 1, 1), None]), ["2026-03-01", "0001-01-01", ""]),
        (pa.array([date(2026, 3, 1)], pa.date64()), ["2026-03-01"]),
        (pa.array([time(9, 30), time(9, 30, 0, 5000)]), ["09:30:00", "09:30:00.005"]),
        (pa.array([34200], pa.time32("s")), ["09:30:00"]),
        (pa.array([1, 10**9], pa.time64("ns")), ["00:00:00.000000001", "00:00:01"]),
        (
            pa.array([0, 1500, 5_400_000, -250, None], pa.duration("ms")),
            ["PT0S", "PT1.5S", "PT5400S", "-PT0.25S", ""],
        ),
        (pa.array([1], pa.duration("ns")), ["PT0.000000001S"]),
        (
            pa.array([UUID(int=0x1234 << 112).bytes, None], pa.uuid()),
            ["12340000-0000-0000-0000-000000000000", ""],
        ),
        (pa.array(['{"a": 1}'], pa.json_()), ['{"a": 1}']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_value_becomes_the_text_that_means_it(values, expected):
    """No `.0` behind an integer, no exponent in a decimal, nothing for null."""
    assert texts(values) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    ("zone", "moment", "expected"),
    [
        (None, NOON.replace(tzinfo=None), "2026-03-01T08:30:00"),
        ("UTC", NOON, "2026-03-01T08:30:00+00:00"),
        ("Europe/Berlin", NOON, "2026-03-01T09:30:00+01:00"),
        ("Europe/Berlin", SUMMER, "2026-07-01T09:30:00+02:00"),
        ("-05:30", NOON, "2026-03-01T03:00:00-05:30"),
    ],
)
def test_a_timestamp_is_iso_8601_with_the_offset_of_its_zone(unit, zone, moment, expected):
    """Whatever its unit; without an offset where it has no zone."""
    assert texts(pa.array([moment, None], pa.timestamp(unit, zone))) == [expected, ""]


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (120_000_000, ".120"),
        (1_000, ".000001"),
        (1_000_000, ".001"),
        (1, ".000000001"),
        (999_999_999, ".999999999"),
        (0, ""),
    ],
)
def test_a_fraction_has_as_many_digits_as_it_needs(nanoseconds, expected):
    """3, 6 or 9 of them, in front of the offset."""
    for zone, offset in ((None, ""), ("+02:00", "+02:00")):
        [text] = texts(pa.array([nanoseconds], pa.timestamp("ns", zone)))
        assert text.endswith(f":00:00{expected}{offset}")


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.1, "0.1"),
        (3.0, "3"),
        (-0.0, "0"),
        (1e15, "1000000000000000"),
        (123456789012345680.0, "123456789012345680"),
        (1e21, "1e+21"),
        (-1.5e300, "-1.5e+300"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (5e-324, "5e-324"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (float("nan"), ""),
        (None, ""),
    ],
)
def test_a_float_is_as_short_as_it_can_be(x, expected):
    """No exponent where a person would write none; NaN is missing."""
    assert texts(pa.array([x, 0.5])) == [expected, "0.5"]


def test_narrow_floats_are_short_at_their_own_width():
    """0.1 of 32 or 16 bits is 0.1, not the digits of its double."""
    assert texts(pa.array([0.1, 1e10, 16777216], pa.float32())) == [
        "0.1",
        "10000000000",
        "16777216",
    ]
    halves = np.array([0.1, 3, 65504, 6e-8, np.nan], np.float16)
    assert texts(pa.array(halves)) == ["0.1", "3", "65500", "6e-8", ""]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_a_float_reads_back_exactly(numbers):
    """At 64 and at 32 bits."""
    assert [float(text) for text in texts(pa.array(numbers, pa.float64()))] == numbers
    with np.errstate(over="ignore"):
        narrow = np.array(numbers, np.float32)
    narrow = narrow[np.isfinite(narrow)]
    read_back = np.array([np.float32(text) for text in texts(pa.array(narrow))], np.float32)
    assert read_back.tolist() == narrow.tolist()


def test_nested_values_are_compact_json():
    """Numbers and booleans bare, all else in quotes, in any depth; slices and nulls, too."""
    kind = pa.struct(
        [
            ("id", pa.int64()),
            ("tags", pa.list_(pa.string())),
            ("paid", pa.list_(pa.struct([("on", pa.date32()), ("sum", pa.decimal128(9, 2))]))),
            ("scores", pa.map_(pa.string(), pa.float32())),
            ("ok", pa.bool_()),
        ]
    )
    value = {
        "id": 7,
        "tags": ["Zoë", None, 'a"b'],
        "paid": [{"on": date(2026, 3, 1), "sum": Decimal("1.50")}, None],
        "scores": [("x", 0.1), ("y", float("nan")), ("z", 2.0)],
        "ok": True,
    }
    empty = {"id": None, "tags": [], "paid": None, "scores": [], "ok": None}
    values = pa.array([empty, value, None, empty], kind)
    expected = (
        '{"id":7,"tags":["Zoë",null,"a\\"b"],"paid":[{"on":"2026-03-01","sum":"1.50"},null],'
        '"scores":{"x":0.1,"y":null,"z":2},"ok":true}'
    )
    nothing = '{"id":null,"tags":[],"paid":null,"scores":{},"ok":null}'
    assert texts(values) == [nothing, expected, "", nothing]
    assert texts(values[1:]) == [expected, "", nothing]
    assert json.loads(expected)["scores"]["z"] == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([[1, 2], None, [], [None]]), ["[1,2]", "", "[]", "[null]"]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), ["[1,2]", ""]),
        (pa.array([[1], []], pa.large_list(pa.int8())), ["[1]", "[]"]),
        (pa.array([[float("inf")]]), ["[null]"]),
        (
            pa.ListArray.from_arrays([0, 1], pa.array([b"\x01" * 16], pa.uuid())),
            ['["01010101-0101-0101-0101-010101010101"]'],
        ),
        (pa.array([[(1, "a")]], pa.map_(pa.int8(), pa.string())), ['{"1":"a"}']),
        (pa.array([{}, None], pa.struct([])), ["{}", ""]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_lists_structs_and_maps_of_every_kind(values, expected):
    """Of any size, of anything."""
    assert texts(values) == expected


def test_a_table_arrives_by_its_columns(source_of):
    """Through many batches and row groups, numbered from where one says."""
    table = pa.table(
        {"id": range(1000), "a.b": [f"x{at}" for at in range(1000)], "a": [{"b": 1}] * 1000}
    )
    source = source_of(table, batch_rows=64, row_group_size=300)
    assert source.columns == ("id", "a.b", "a")
    assert source.count_rows() == 1000
    rows, unreadable = read_all(source, ["a", "id"], first_row=51)
    assert rows == {at + 51: ('{"b":1}', str(at)) for at in range(1000)}
    assert not unreadable
    assert len(read_all(source, [])[0]) == 1000
    assert source.fingerprint() == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert [len(frame.rows) for frame in source.read_frames(["a.b"])][:2] == [64, 64]


def test_a_table_without_rows_has_none(source_of):
    """And is no error."""
    source = source_of(pa.table({"a": pa.array([], pa.string())}))
    assert (source.count_rows(), list(source.read_frames(["a"]))) == (0, [])
    assert list(source.read_raw_rows(lambda _: True)) == []


def test_binary_is_refused_by_name_where_it_is_asked_for(source_of):
    """Also inside of lists; beside the columns asked for it does not matter."""
    source = source_of(
        pa.table(
            {
                "id": [1],
                "photo": [b"\xff"],
                "hash": pa.array([b"ab"], pa.binary(2)),
                "photos": [[b"\xff"]],
            }
        )
    )
    for column, kind in (
        ("photo", "binary"),
        ("hash", r"fixed_size_binary\[2\]"),
        ("photos", "binary"),
    ):
        with pytest.raises(
            SourceError, match=f"column '{column}' cannot be used, because {kind} has no text"
        ):
            source.read_frames(["id", column])
    assert read_all(source, ["id"])[0] == {1: ("1",)}
    [raw] = source.read_raw_rows(lambda _: True)
    assert raw.cells == (b"1", b"/w==", b"YWI=", b"")


def test_a_time_zone_that_is_not_known_is_refused(source_of):
    """At once, by name, also inside of a list."""
    source = source_of(
        pa.table({"at": pa.array([[0]], pa.list_(pa.timestamp("ms", "Mars/Olympus")))})
    )
    with pytest.raises(SourceError, match=r"the time zone 'Mars/Olympus' is not known"):
        source.read_frames(["at"])


def test_a_missing_column_is_refused_at_once(source_of):
    """As with CSV."""
    with pytest.raises(SourceError, match=r"has no column 'b'; it has 'a'\."):
        source_of(pa.table({"a": [1]})).read_frames(["b"])


def test_strings_that_are_no_text_concern_their_row(source_of):
    """Parquet promises UTF-8 and does not look; NUL cannot be sent; nested ones, too."""
    raw = pa.array([b"ok", b"caf\xe9", b"\0", b"z"])
    broken = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    lists = pa.ListArray.from_arrays([0, 1, 2, 3, 4], broken)
    source = source_of(pa.table({"id": [1, 2, 3, 4], "t": broken, "l": lists}))
    rows, unreadable = read_all(source, ["id", "t"])
    assert rows == {1: ("1", "ok"), 4: ("4", "z")}
    assert rules(unreadable) == {2: "undecodable", 3: "nul_character"}
    assert "column 't' has a string that is not UTF-8" in str(unreadable[2].error)
    assert rules(read_all(source, ["l"])[1]) == {2: "undecodable"}
    cells = [row.cells[1] for row in source.read_raw_rows(lambda row: row > 1)]
    assert cells == [b"caf\xe9", b"\0", b"z"]


def test_a_time_too_far_off_concerns_its_row(source_of):
    """It has no text, and none is made up."""
    source = source_of(pa.table({"at": pa.array([0, 2**62, None], pa.timestamp("us"))}))
    rows, unreadable = read_all(source)
    assert rows == {1: ("1970-01-01T00:00:00",), 3: ("",)}
    assert rules(unreadable) == {2: "undecodable"}


def test_old_timestamps_do_not_wrap_around(source_of):
    """INT96, as Spark and Impala write it: a far day is that day, not one 584 years off."""
    far = datetime(9999, 12, 31)  # noqa: DTZ001
    source = source_of(
        pa.table({"at": pa.array([far], pa.timestamp("us"))}), use_deprecated_int96_timestamps=True
    )
    assert read_all(source)[0] == {1: ("9999-12-31T00:00:00",)}


def test_raw_rows_are_the_texts_of_every_column(source_of):
    """In UTF-8, only the wanted ones; each number is asked for once."""
    asked = []
    source = source_of(
        pa.table({"a": ["Zoë", None, "y"], "d": pa.array([timedelta(1)] * 3)}), batch_rows=2
    )
    raw = list(source.read_raw_rows(lambda row: asked.append(row) or row != 11, first_row=10))
    assert asked == [10, 11, 12]
    assert [(row.row, row.cells, row.readable) for row in raw] == [
        (10, ("Zoë".encode(), b"PT86400S"), True),
        (12, (b"y", b"PT86400S"), True),
    ]
    assert (source.encoding, source.delimiter) == ("utf-8", ",")


def test_a_header_that_cannot_be_used_is_refused(source_of):
    """The same rules as for CSV."""
    one = pa.array([1])
    with pytest.raises(SourceError, match=r"'a' \(columns 1 and 2\)"):
        source_of(pa.Table.from_arrays([one, one], names=["a", "a"]))
    with pytest.raises(SourceError, match="no name for column 2"):
        source_of(pa.Table.from_arrays([one, one], names=["a", ""]))


def test_a_file_that_is_not_whole_is_refused(tmp_path):
    """Empty, of another kind, cut at any place, encrypted."""
    whole = tmp_path / "whole.parquet"
    parquet.write_table(pa.table({"a": range(100)}), whole)
    content = whole.read_bytes()
    path = tmp_path / "export.parquet"

    def refusal(broken: bytes) -> str:
        path.write_bytes(broken)
        with pytest.raises(SourceError) as caught:
            ParquetSource(path, name="x")
        return str(caught.value)

    assert refusal(b"") == "x: is empty: it has not even a header."
    assert "is not Parquet" in refusal(b"a,b\n1,2\n")
    assert (
        refusal(content[:-4] + b"PARE") == "x: is encrypted Parquet; write it without encryption."
    )
    for n_bytes in range(4, len(content), 97):
        assert refusal(content[:n_bytes]) == "x: is cut short; copy the file again."
    assert "is cut short" in refusal(b"PAR1PAR1")
    assert "metadata cannot be read" in refusal(b"PAR1" + b"\xff" * 20 + b"\x10\0\0\0PAR1")
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        ParquetSource(path, name="x")


def test_damaged_data_is_a_source_error_with_the_last_whole_row(tmp_path):
    """What comes before the damage arrives."""
    path = tmp_path / "export.parquet"
    table = pa.table({"a": [f"{at}" * 9 for at in range(1000)]})
    parquet.write_table(table, path, row_group_size=500, compression="gzip", use_dictionary=False)
    second = parquet.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[second + 200 : second + 400] = b"\xff" * 200
    path.write_bytes(content)
    source = ParquetSource(path, name="x", batch_rows=100)
    seen = []
    with pytest.raises(SourceError, match="cannot be read behind row 500"):
        seen.extend(int(frame.rows[-1]) for frame in source.read_frames(["a"]))
    with pytest.raises(SourceError, match="cannot be read behind row 500"):
        list(source.read_raw_rows(lambda _: True))
    assert source.count_rows() == 1000
