"""Parquet of every type, and of bytes that were changed: rows, or a `SourceError`.

Takes seven seconds.
"""

from __future__ import annotations

import itertools
import tempfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pyarrow.parquet import encryption

from bulk_updater.config import SourceFormat
from bulk_updater.errors import SourceError
from bulk_updater.readers import open_source
from tests.readers.reading import read_all, rules

from .helpers import assert_clear, examples

if TYPE_CHECKING:
    import random


def written(table: pa.Table, **options: Any) -> bytes:
    """The bytes of a table's file."""
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def read(content: bytes):
    """What a file says of each column that has text, told in all its ways; None if refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.parquet")
        path.write_bytes(content)
        try:
            source = open_source(path, SourceFormat())
            columns = [column for column in source.columns if has_text(source, column)]
            rows, unreadable = read_all(source, columns)
            raw = list(source.read_raw_rows(lambda _: True))
        except SourceError as error:
            assert_clear(error, str(path))
            return None
        assert len(rows) + len(unreadable) == len(raw) == source.count_rows()
        assert read_all(source, columns)[0] == rows
    assert set(rules(unreadable).values()) <= {"undecodable", "nul_character"}
    for row, texts in rows.items():
        cells = dict(zip(source.columns, raw[row - 1].cells, strict=True))
        assert texts == tuple(cells[column].decode() for column in columns)
    return dict.fromkeys(columns), rows, unreadable


def has_text(source: Any, column: str) -> bool:
    try:
        source.read_frames([column])
    except SourceError as error:
        assert_clear(error, source.name)
        return False
    return True


# ----------------------------------------------------------------------------------------------
# Every type

INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
EXACT: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int32(): INT32,
    pa.int64(): INT64,
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.decimal128(38, 9): st.decimals(-(10**28), 10**28, places=9),
    pa.decimal256(40, 1): st.integers(-(10**30), 10**30).map(Decimal),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    pa.large_string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    pa.string_view(): st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    pa.date32(): INT32,
    pa.timestamp("ms"): INT64,
    pa.timestamp("us"): INT64,
    pa.timestamp("ns"): INT64,
    pa.timestamp("ms", "UTC"): INT64,
    pa.timestamp("us", "+05:30"): INT64,
    pa.duration("s"): INT64,
    pa.duration("ns"): INT64,
}
OTHER: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.float16(): st.floats(width=16).map(np.float16),
    pa.date64(): st.integers(-(10**11), 10**11).map(lambda days: days * 86_400_000),
    pa.time32("s"): INT32,
    pa.time32("ms"): INT32,
    pa.time64("us"): INT64,
    pa.time64("ns"): INT64,
    pa.timestamp("us", "Europe/Berlin"): INT64,
    pa.timestamp("ns", "Mars/Olympus"): INT64,
    pa.duration("us"): INT64,
    pa.binary(): st.binary(max_size=5),
    pa.large_binary(): st.binary(max_size=5),
    pa.binary_view(): st.binary(max_size=5),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.uuid(): st.binary(min_size=16, max_size=16),
    pa.json_(): st.just("{}"),
    pa.bool8(): st.integers(0, 1),
    pa.null(): st.none(),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["a", "", "é"]),
    pa.dictionary(pa.int32(), pa.int64()): INT64,
}
LEAVES = st.sampled_from([*EXACT.items(), *OTHER.items()])
# Arrow makes no lists of extension types out of Python's values.
PLAIN = LEAVES.filter(lambda part: not isinstance(part[0], pa.BaseExtensionType))


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists, structs and maps of these types, with their values."""

    def list_of(part: Any) -> Any:
        kind, values = part
        return pa.list_(kind), st.lists(st.none() | values, max_size=3)

    def three_of(part: Any) -> Any:
        kind, values = part
        return pa.list_(kind, 3), st.lists(st.none() | values, min_size=3, max_size=3)

    def struct_of(parts: Any) -> Any:
        names = [f"s{at}" for at in range(len(parts))]
        kind = pa.struct([(name, part[0]) for name, part in zip(names, parts, strict=True)])
        members = {name: st.none() | part[1] for name, part in zip(names, parts, strict=True)}
        return kind, st.fixed_dictionaries(members)

    def map_of(part: Any) -> Any:
        kind, values = part
        pairs = st.tuples(st.sampled_from(["k", "l", ""]), st.none() | values)
        return pa.map_(pa.string(), kind), st.lists(pairs, max_size=3)

    return (
        inner.map(list_of)
        | inner.map(three_of)
        | st.lists(inner, min_size=1, max_size=3).map(struct_of)
        | inner.map(map_of)
    )


@st.composite
def tables(draw: st.DrawFn, kinds: st.SearchStrategy[Any]) -> tuple[pa.Table, dict[str, Any]]:
    """A table of some types, and how it is written."""
    n_rows = draw(st.integers(0, 6))
    columns = {}
    for at in range(draw(st.integers(0, 4))):
        kind, values = draw(kinds)
        cells = draw(st.lists(st.none() | values, min_size=n_rows, max_size=n_rows))
        columns[f"c{at}"] = pa.array(cells, kind)
    options = {
        "row_group_size": draw(st.integers(1, 7)),
        "compression": draw(st.sampled_from(["none", "snappy", "gzip", "zstd"])),
        "use_dictionary": draw(st.booleans()),
        "store_schema": draw(st.booleans()),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "write_page_checksum": draw(st.booleans()),
        "version": draw(st.sampled_from(["1.0", "2.4", "2.6"])),
    }
    return pa.table(columns), options


@examples(50)
@given(tables(LEAVES | st.recursive(PLAIN, nested, max_leaves=4)))
def test_every_type_gives_rows_or_is_refused_by_name(table):
    """Whatever Arrow can write, nested or not, is read to its last row."""
    try:
        content = written(table[0], **table[1])
    except pa.ArrowException:
        return  # Arrow itself has no such file, such as times that overflow their unit
    found = read(content)
    # A list whose values are no multiple of its length is what Arrow itself cannot read back.
    fixed = any("fixed_size_list" in str(kind) for kind in table[0].schema.types)
    assert found is not None or fixed
    if found is not None and table[0].num_columns:
        assert len(found[1]) + len(found[2]) == table[0].num_rows


def meaning(text: str, kind: pa.DataType) -> Any:  # noqa: PLR0911 - one for each kind
    """What a text says to one who knows the column's type; the value that Arrow holds."""
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[text]
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_floating(kind):
        return kind.to_pandas_dtype()(text)
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_date(kind):
        return int(np.datetime64(text, "D").astype(int))
    if pa.types.is_timestamp(kind):
        offset = np.timedelta64(0, kind.unit)
        if kind.tz is not None:
            text, sign, hours, minutes = text[:-6], text[-6], text[-5:-3], text[-2:]
            at = timedelta(hours=int(hours), minutes=int(minutes))
            offset = np.timedelta64(at if sign == "+" else -at)
        return int((np.datetime64(text, kind.unit) - offset).astype(f"M8[{kind.unit}]").astype(int))
    if pa.types.is_duration(kind):
        per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return int(Decimal(text.replace("PT", "").removesuffix("S")) * per_s)
    return text


@examples(60)
@given(tables(st.sampled_from([*EXACT.items()])))
def test_no_cell_is_read_wrongly(table):
    """A cell's text means what the column holds, as read back by its type; or it is refused."""
    try:
        content = written(table[0], **table[1])
    except pa.ArrowException:
        return
    found = read(content)
    assert found is not None
    held = parquet.read_table(pa.BufferReader(content), coerce_int96_timestamp_unit="us")
    for row, name in itertools.product(found[1], found[0]):
        kind, value = held.schema.field(name).type, held[name][row - 1]
        text = found[1][row][[*found[0]].index(name)]
        is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not value.is_valid or (pa.types.is_floating(kind) and value.as_py() != value.as_py()):
            assert text == ""
        elif is_number or pa.types.is_boolean(kind) or str(kind).endswith(("string", "view")):
            assert meaning(text, kind) == value.as_py()
        else:
            assert meaning(text, kind) == (
                value.value if hasattr(value, "value") else value.as_py()
            )
    for row, bad in found[2].items():
        kind = held.schema.field(bad.error.column).type
        if bad.error.rule == "nul_character":
            assert "\0" in held[bad.error.column][row - 1].as_py()
        else:
            assert pa.types.is_temporal(kind)


# ----------------------------------------------------------------------------------------------
# Any bytes


def telling_table() -> pa.Table:
    """A bit of everything, with a row number in every row."""
    n_rows = 30
    return pa.table(
        {
            "row": range(1, n_rows + 1),
            "id": [f"k{at}" for at in range(n_rows)],
            "at": pa.array(range(n_rows), pa.timestamp("us", "UTC")),
            "list": [[str(at)] * (at % 3) for at in range(n_rows)],
            "map": pa.array([[("a", at)] for at in range(n_rows)], pa.map_(pa.string(), pa.int8())),
            "sum": pa.array([Decimal(at) for at in range(n_rows)], pa.decimal128(9, 2)),
            "struct": [{"x": at, "y": None} for at in range(n_rows)],
            "kind": pa.array(["a", "b", None] * (n_rows // 3)).dictionary_encode(),
            "blob": [b"\xff"] * n_rows,
        }
    )


FILES = [
    written(telling_table(), **options)
    for options in (
        {},
        {"compression": "none", "use_dictionary": False, "store_schema": False},
        {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 7},
        {"compression": "gzip", "write_page_index": True, "write_page_checksum": True},
    )
]


def footer_of(content: bytes) -> int:
    """Where a file's metadata begins."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


@examples(90)
@given(st.sampled_from(FILES), st.randoms(use_true_random=False), st.booleans())
def test_bytes_that_were_changed(content: bytes, chance: random.Random, in_footer):
    """Bits that flip in pages or in metadata: rows in full number, or a `SourceError`."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 5, 20])):
        at = chance.randrange(footer_of(content) if in_footer else 4, len(content) - 4)
        changed[at] = chance.choice(
            [changed[at] ^ 1 << chance.randrange(8), 0, 0xFF, chance.randrange(256)]
        )
    read(bytes(changed))


@examples(25)
@given(st.randoms(use_true_random=False))
def test_checksums_are_heeded(chance: random.Random):
    """Where pages have checksums, no flipped bit of a page's data passes for a cell."""
    content = FILES[-1]
    metadata = parquet.read_metadata(pa.BufferReader(content))
    whole = read(content)
    assert whole is not None
    column = metadata.row_group(0).column(chance.randrange(metadata.num_columns))
    start = column.dictionary_page_offset or column.data_page_offset
    changed = bytearray(content)
    changed[start + chance.randrange(column.total_compressed_size)] ^= 1 << chance.randrange(8)
    found = read(bytes(changed))
    if found is not None:  # it was in the page's header, in what nobody reads
        assert found[1] == whole[1]


@examples(40)
@given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.booleans())
def test_any_bytes_between_two_magics(body, n_bytes, is_true_length):
    """Metadata of any bytes and of any length that it claims."""
    length = (len(body) if is_true_length else n_bytes).to_bytes(4, "little")
    assert read(b"PAR1" + body + length + b"PAR1") is None


def test_cut_short_at_any_byte():
    """No first part of a file is read as a whole one."""
    content = written(pa.table({"id": ["a", "b"]}), store_schema=False)
    assert read(content) is not None
    n_refused = sum(read(content[:n_bytes]) is None for n_bytes in range(len(content)))
    assert n_refused == len(content)


def test_a_row_count_that_lies():
    """A file that says another number of rows than it has is refused, so no count is wrong."""
    n_99, n_100 = b"\x16\xc6\x01", b"\x16\xc8\x01"  # as Thrift writes them
    content = written(pa.table({"id": ["a"] * 99}), compression="none", store_schema=False)
    pages, footer = content[: footer_of(content)], content[footer_of(content) :]
    parts = footer.split(n_99)
    assert len(parts) == 5  # of the file, of its row group, and two of the column's values
    n_refused = 0
    for lies in itertools.product([False, True], repeat=4):
        counts = [*(n_100 if lie else n_99 for lie in lies), b""]
        found = read(pages + b"".join(itertools.chain(*zip(parts, counts, strict=True))))
        n_refused += found is None
        assert found is None or (len(found[1]) == 99 and not lies[0])
    assert n_refused == 12  # all but where only those of values lie, which nobody goes by


@pytest.mark.parametrize("name", ["\xff", "a\xffb"])
def test_names_that_are_not_text(name: str):
    """A column's name in the metadata need not be UTF-8; then the metadata is refused."""
    content = written(pa.table({"ZZZ"[: len(name)]: ["a"]}), store_schema=False)
    changed = content.replace(b"ZZZ"[: len(name)], name.encode("latin-1"))
    assert changed != content
    assert read(changed) is None


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_files_are_refused(plaintext_footer: bool):
    """With a secret footer by name, with a plain one when its columns are read."""

    class Safe(encryption.KmsClient):
        def wrap_key(self, key_bytes, _):
            return key_bytes.hex().encode()

        def unwrap_key(self, wrapped_key, _):
            return bytes.fromhex(wrapped_key.decode())

    table = pa.table({"id": ["a"]})
    factory = encryption.CryptoFactory(lambda _: Safe())
    config = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["id"]}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    sink = pa.BufferOutputStream()
    with parquet.ParquetWriter(sink, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    content = bytes(sink.getvalue())
    assert content[-4:] == (b"PAR1" if plaintext_footer else b"PARE")
    assert read(content) is None


def test_duplicate_and_missing_names():
    """Two columns of one name, a column without one, and no column at all."""
    one = pa.array(["a"])
    assert read(written(pa.Table.from_arrays([one, one], names=["a", "a"]))) is None
    assert read(written(pa.Table.from_arrays([one], names=[" "]))) is None
    nothing = read(written(pa.table({})))
    assert nothing is not None
    assert nothing[1] == {}
