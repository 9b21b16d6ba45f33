"""What a job hands on: every row once, and with a limit the first rows and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bulk_updater.mapping import compile_mapping, load_spec
from bulk_updater.pipeline.job import OpenedJob, survey
from bulk_updater.readers.delimited import DelimitedSource

from .helpers import people, write_export

if TYPE_CHECKING:
    from pathlib import Path

N_ROWS = 15
UNREADABLE = {2, 3, 7, 8, 9}
"""A frame may hold unreadable rows only, and a limit may fall among them."""


def open_in_small_frames(folder: Path, limit: int | None) -> OpenedJob:
    """Two sources, of nine and of six rows, a few rows a frame."""
    spec = load_spec(folder / "mapping.yaml")
    sources = []
    for name, first, last in (("a.csv", 1, 9), ("b.csv", 10, N_ROWS)):
        rows = [
            ["torn"] if row in UNREADABLE else people(1, row)[0] for row in range(first, last + 1)
        ]
        path = write_export(folder, rows, name)
        source = DelimitedSource(path, name=name, block_bytes=64, max_frame_rows=3)
        sources.append((source, compile_mapping(spec, source.columns, name)))
    return OpenedJob(spec, tuple(sources), limit)


@pytest.mark.parametrize("limit", [None, *range(1, N_ROWS + 3)])
def test_a_limit_takes_the_first_rows_and_no_other(folder, limit):
    """Readable or not, through all sources, wherever it falls: each of the first rows, once."""
    job = open_in_small_frames(folder, limit)
    frames = [mapped.frame for mapped in job.mapped_frames()]
    wanted = set(range(1, min(limit or N_ROWS, N_ROWS) + 1))
    assert [row for frame in frames for row in frame.rows.tolist()] == sorted(wanted - UNREADABLE)
    assert [bad.row for frame in frames for bad in frame.unreadable] == sorted(wanted & UNREADABLE)
    assert all(len(frame.cells) == len(frame.rows) for frame in frames)
    assert survey(job).n_rows == len(wanted)


def test_a_source_beyond_the_limit_is_not_read(folder, monkeypatch):
    """Where the limit is the last row of a source, the one behind it is left alone."""
    job = open_in_small_frames(folder, 9)
    read, read_frames = [], DelimitedSource.read_frames

    def note(source, columns, *, first_row=1):
        read.append(source.name)
        return read_frames(source, columns, first_row=first_row)

    monkeypatch.setattr(DelimitedSource, "read_frames", note)
    assert sum(len(mapped.frame.rows) for mapped in job.mapped_frames()) == 4
    assert read == ["a.csv"]
