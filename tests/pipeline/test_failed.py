"""`failed.csv`, run again with the same mapping: the rows that failed, and nothing else.

Takes ten seconds.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from bulk_updater.config import ConnectionConfig, RunConfig
from bulk_updater.ledger import RunDir, SettledRows
from bulk_updater.ledger.records import encode
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.pipeline import run
from bulk_updater.pipeline.failed import write_failed
from bulk_updater.pipeline.job import open_job, survey
from bulk_updater.sandbox import Sandbox

from .helpers import INSTANCE, config_for, fast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.pipeline.job import OpenedJob

BOMS = {"utf-8": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe"}
# How a source is written -> what the mapping says, the byte order mark, and bytes that are no text.
KINDS = {
    "utf-8": ("utf-8", "utf-8", b"", [b"\xff", b"\xe9", b"\x80\x80"]),
    "utf-8 with a mark": ("utf-8", "utf-8", BOMS["utf-8"], [b"\xff", b"\xe9"]),
    "utf-8 with a mark, said to be cp1252": ("utf-8", "cp1252", BOMS["utf-8"], [b"\xff", b"\xc3"]),
    "utf-16": ("utf-16-le", "utf-16", BOMS["utf-16-le"], [b"\x00\xd8", b"\x41\xdc"]),
    "cp1252": ("cp1252", "cp1252", b"", [b"\x81", b"\x8d\x90"]),
    "ascii": ("ascii", "ascii", b"", [b"\xc3\xa9", b"\xff"]),
}


def mapping_of(encoding: str, delimiter: str = ",") -> str:
    return f"""
source: {{encoding: {encoding}, delimiter: {json.dumps(delimiter)}}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    note: "{{Note}}"
    origin: crm
"""


@dataclass(frozen=True)
class Said:
    """What a mapping makes of some sources: requests as contact and note, and bad rows."""

    requests: list[tuple[str, dict[str, str]]]
    n_invalid: int


def look(opened: OpenedJob) -> Said:
    entries = [entry for frame in opened.mapped_frames() for entry in frame.entries()]
    requests = [entry for entry in entries if isinstance(entry, Request)]
    assert all(isinstance(e, Request) or e.outcome is Outcome.INVALID for e in entries)
    return Said(
        [(entry.contact_id, dict(entry.params["Attributes"])) for entry in requests],
        len(entries) - len(requests),
    )


def fail_all(folder: Path, *sources: Path, name: str = "run", error: str = "no") -> Path | None:
    """`failed.csv` of a run in which every request of these sources failed."""
    config = RunConfig(
        mapping=folder / "mapping.yaml",
        sources=sources,
        runs_dir=folder / "runs",
        connection=ConnectionConfig(region="eu-west-1"),
    )
    job = survey(open_job(config))
    run_dir = RunDir(folder / name)
    run_dir.path.mkdir()
    settled = SettledRows()
    lines = []
    for frame in job.opened.mapped_frames():
        for entry in frame.entries():
            result = (
                entry
                if isinstance(entry, Result)
                else Result(entry.row, entry.source, entry.operation, Outcome.FAILED, error=error)
            )
            lines.append(encode(result, "run"))
            settled.add(result.row, result.operation, result.outcome)
    run_dir.ledger_path.write_bytes(b"".join(lines))
    return write_failed(run_dir, job, settled)


def opened(folder: Path, *sources: Path) -> OpenedJob:
    return open_job(
        RunConfig(
            mapping=folder / "mapping.yaml",
            sources=sources,
            runs_dir=folder / "runs",
            connection=ConnectionConfig(region="eu-west-1"),
        )
    )


@contextmanager
def new_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def quoted(cell: bytes, encoding: str) -> bytes:
    quote = '"'.encode(encoding)
    return quote + cell.replace(quote, quote + quote) + quote


def table(rows: list[list[bytes]], encoding: str, delimiter: str) -> bytes:
    """Every cell in quotes, so that it may hold anything."""
    lines = [
        delimiter.encode(encoding).join(quoted(cell, encoding) for cell in row) for row in rows
    ]
    return "\n".encode(encoding).join(lines)


TEXTS = st.lists(
    st.sampled_from(
        [*"ab,;\t|\"' ", "\r", "\n", "\r\n", "\0", "\ufeff", "é", "€", "c-9", "\\", '""', "\u2028"]
    ),
    max_size=6,
).map("".join)


@st.composite
def exports(draw: st.DrawFn) -> tuple[str, str, list[list[tuple[str, bytes]]]]:
    """A kind of source, a delimiter, and rows of cells: a text and bytes behind it."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    junk = st.just(b"") | st.sampled_from([b"", *KINDS[kind][3]])
    cells = st.tuples(TEXTS, junk)
    rows = st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=6)
    return kind, draw(st.sampled_from(",;\t|")), draw(rows)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(exports())
def test_any_cells_come_back_as_they_were(export):
    """Run again, and again after that, every failed row makes its own request and no other one.

    Only rows with bytes that the file cannot hold do not: they stay unreadable.
    """
    kind, delimiter, rows = export
    encoding, said, mark, _ = KINDS[kind]
    header = [name.encode(encoding) for name in ("Contact", "Note", "Other")]
    body = [[text.encode(encoding, "ignore") + junk for text, junk in cells] for cells in rows]
    lost = {
        row for row, cells in enumerate(rows, 1) if kind == "utf-16" and any(j for _, j in cells)
    }
    with new_folder() as folder:
        (folder / "mapping.yaml").write_text(mapping_of(said, delimiter))
        source = folder / "export.csv"
        source.write_bytes(mark + table([header, *body], encoding, delimiter))
        held = [
            (entry.contact_id, dict(entry.params["Attributes"]))
            for frame in opened(folder, source).mapped_frames()
            for entry in frame.entries()
            if isinstance(entry, Request) and entry.row not in lost
        ]
        again = fail_all(folder, source)
        for n_times in range(2):
            after = look(opened(folder, again))
            assert after.requests == held
            assert after.n_invalid == len(rows) - len(held)
            again = fail_all(folder, again, name=f"run-{n_times}")


@pytest.mark.looptime
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
async def test_a_line_end_in_a_cell_reaches_no_other_contact(folder, end):
    """A failed contact `missing-1`, a line end and `c-9` is asked for again, and `c-9` is not."""
    (folder / "mapping.yaml").write_text(mapping_of("utf-8"))
    (folder / "export.csv").write_bytes(
        f'Contact,Note\n"missing-1{end}c-9",one\n"missing-2","two{end}c-8,three"\n'.encode()
    )
    async with Sandbox(fast()) as sandbox:
        first = await run(config_for(sandbox, folder))
        assert first.outcomes["FAILED"] == 2
        again = await run(config_for(sandbox, folder, Path(first.failed)))
        assert again.outcomes == {
            "UPDATED": 0,
            "FAILED": 2,
            "INVALID": 0,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        assert again.rows_read == 2
        assert sandbox.counters["update_contact_attributes"].received == 4


def test_rows_end_as_rfc_4180_says(tmp_path):
    """The file's own lines end with CR and LF, which is what puts a cell with either in quotes."""
    (tmp_path / "mapping.yaml").write_text(mapping_of("utf-8"))
    (tmp_path / "export.csv").write_bytes(b'Contact,Note\n"c-1\rc-9",one\n')
    failed = fail_all(tmp_path, tmp_path / "export.csv")
    assert failed.read_bytes() == (
        b"Contact,Note,_row,_operation,_outcome,_error_code,_error\r\n"
        b'"c-1\rc-9",one,1,update_contact_attributes,FAILED,,no\r\n'
    )


def test_undecodable_bytes_of_utf_16_leave_their_row_unreadable(tmp_path):
    """A lone surrogate stands there as a number; the row is INVALID again, and the other is not."""
    (tmp_path / "mapping.yaml").write_text(mapping_of("utf-16"))
    text = "Contact,Note\nc-1,one\nc-2,two".encode("utf-16-le")
    source = tmp_path / "export.csv"
    source.write_bytes(BOMS["utf-16-le"] + text + b"\x00\xd8" + ",x\n".encode("utf-16-le")[2:])
    assert look(opened(tmp_path, source)) == Said([("c-1", {"note": "one", "origin": "crm"})], 1)
    failed = fail_all(tmp_path, source)
    assert r"two\x00\xd8" in failed.read_text(encoding="utf-16")
    assert look(opened(tmp_path, failed)) == Said([("c-1", {"note": "one", "origin": "crm"})], 1)


def test_bytes_that_another_encoding_would_read_are_not_read(tmp_path):
    """UTF-8 in an `ascii` source is undecodable, and stays so beside a Parquet file."""
    (tmp_path / "mapping.yaml").write_text(mapping_of("ascii"))
    (tmp_path / "export.csv").write_bytes("Contact,Note\nc-1é,one\nc-2,two\n".encode())
    columns = {"Contact": ["c-3€"], "Note": ["three\r"]}
    parquet.write_table(pa.table(columns), tmp_path / "more.parquet")
    sources = tmp_path / "export.csv", tmp_path / "more.parquet"
    expected = Said(
        [("c-2", {"note": "two", "origin": "crm"}), ("c-3€", {"note": "three\r", "origin": "crm"})],
        1,
    )
    assert look(opened(tmp_path, *sources)) == expected
    assert look(opened(tmp_path, fail_all(tmp_path, *sources))) == expected


def test_a_reason_that_the_encoding_cannot_hold(tmp_path):
    """Letters that cp1252 has not are numbers in a reason, and no obstacle to the file."""
    (tmp_path / "mapping.yaml").write_text(mapping_of("cp1252"))
    (tmp_path / "export.csv").write_bytes("Contact,Note\nc-1,é\n".encode("cp1252"))
    failed = fail_all(tmp_path, tmp_path / "export.csv", error="€ and ж")
    row = failed.read_text(encoding="cp1252").splitlines()[1]
    assert row == r"c-1,é,1,update_contact_attributes,FAILED,,€ and \u0436"
    assert look(opened(tmp_path, failed)) == Said([("c-1", {"note": "é", "origin": "crm"})], 0)


def test_a_first_column_whose_name_begins_with_a_mark(tmp_path):
    """The mapping finds the column in the file under the name that it has in the source."""
    mapping = mapping_of("utf-8").replace("{Contact}", "{\\uFEFFContact}")
    (tmp_path / "mapping.yaml").write_text(mapping)
    (tmp_path / "export.csv").write_bytes(BOMS["utf-8"] * 2 + b"Contact,Note\nc-1,one\n")
    expected = Said([("c-1", {"note": "one", "origin": "crm"})], 0)
    assert look(opened(tmp_path, tmp_path / "export.csv")) == expected
    assert look(opened(tmp_path, fail_all(tmp_path, tmp_path / "export.csv"))) == expected
