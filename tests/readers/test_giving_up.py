"""Reading a source that nobody waits for any more: given up at the next block.

Takes two seconds.
"""

from __future__ import annotations

import gzip
import hashlib
import threading

import pyarrow as pa
import pytest
from pyarrow import parquet

from bulk_updater.errors import SourceError
from bulk_updater.readers import source as source_module
from bulk_updater.readers.delimited import DelimitedSource
from bulk_updater.readers.parquet import ParquetSource
from bulk_updater.readers.stream import TextFile

BLOCK_BYTES = 100
N_BLOCKS = 40
ROWS = b"a,b\n" + b"1,2\n" * (BLOCK_BYTES * N_BLOCKS // 4 - 1)
ONE_LONG_ROW = b"a,b\n1," + b"x" * (BLOCK_BYTES * N_BLOCKS - 6)
ONE_QUOTE = b'a,b\n1,"' + b"\n" * (BLOCK_BYTES * N_BLOCKS - 7)
BLANK_LINES = b"a,b\n" + b"\n" * (BLOCK_BYTES * N_BLOCKS - 4)


@pytest.fixture
def blocks(monkeypatch) -> list[bytes]:
    """The blocks of text that were read."""
    seen = []
    read_chunks = TextFile.read_chunks

    def note(text, chunk_bytes):
        for chunk in read_chunks(text, chunk_bytes):
            seen.append(chunk)
            yield chunk

    monkeypatch.setattr(TextFile, "read_chunks", note)
    return seen


class StopAfter(threading.Event):
    """Set once so many blocks are in a list."""

    def __init__(self, seen: list[bytes], n_blocks: int) -> None:
        super().__init__()
        self._seen, self._n_blocks = seen, n_blocks

    def is_set(self) -> bool:
        return len(self._seen) >= self._n_blocks


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("n_blocks", [0, 1, 7, N_BLOCKS - 1])
@pytest.mark.parametrize(
    "content",
    [ROWS, ONE_LONG_ROW, ONE_QUOTE, BLANK_LINES],
    ids=["rows", "one long row", "one quote", "blank lines"],
)
def test_counting_ends_with_the_block_that_is_being_read(write, blocks, content, n_blocks, packed):
    """After the event is set not one block more is read, whether rows end in the blocks or not."""
    name = "export.csv.gz" if packed else "export.csv"
    path = write(gzip.compress(content) if packed else content, name)
    source = DelimitedSource(
        path, name=name, packed=packed, block_bytes=BLOCK_BYTES, max_row_bytes=1000
    )
    blocks.clear()
    with pytest.raises(SourceError, match="reading it was given up") as caught:
        source.count_rows(stop=StopAfter(blocks, n_blocks))
    assert len(blocks) == n_blocks
    assert caught.value.message.startswith(name)


def test_counting_that_is_wanted_goes_on_to_the_end(delimited, blocks):
    """An event that nobody sets changes nothing."""
    source = delimited(ROWS, block_bytes=BLOCK_BYTES)
    blocks.clear()
    assert source.count_rows(stop=threading.Event()) == ROWS.count(b"\n") - 1
    assert len(blocks) == N_BLOCKS


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_a_fingerprint_ends_with_the_block_that_is_being_read(
    tmp_path, monkeypatch, kind, n_blocks
):
    """After the event is set not one block more is digested; unset, all are, and it is right."""
    path = tmp_path / f"export.{kind}"
    if kind == "csv":
        path.write_bytes(b"a,b\n" + b"1,2\n" * 1500)
        source = DelimitedSource(path, name="export.csv")
    else:
        parquet.write_table(pa.table({"a": list(range(2000))}), path, compression="none")
        source = ParquetSource(path, name="export.parquet")
    digested = []

    class Noted:
        def __init__(self) -> None:
            self._digest = hashlib.sha256()

        def update(self, block) -> None:
            digested.append(bytes(block))
            self._digest.update(block)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    class Hashing:
        sha256 = Noted

    content = path.read_bytes()
    monkeypatch.setattr(source_module, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(source_module, "hashlib", Hashing)
    with pytest.raises(SourceError, match="reading it was given up"):
        source.fingerprint(stop=StopAfter(digested, n_blocks))
    assert len(digested) == n_blocks
    digested.clear()
    whole = source.fingerprint(stop=threading.Event())
    assert whole == source.fingerprint() == hashlib.sha256(content).hexdigest()
    assert b"".join(digested) == content * 2


def test_parquet_is_not_counted_for_nobody(tmp_path):
    """The number stands in the metadata; all the same, who gave up is not told it."""
    path = tmp_path / "export.parquet"
    parquet.write_table(pa.table({"a": [1, 2, 3]}), path)
    source = ParquetSource(path, name="export.parquet")
    stop = threading.Event()
    assert source.count_rows(stop=stop) == 3
    stop.set()
    with pytest.raises(SourceError, match="reading it was given up"):
        source.count_rows(stop=stop)
