"""What there is to do: the mapping, its sources, and their rows as mapped frames.

Shared by `run`, which sends, and `plan`, which only counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bulk_updater.mapping import compile_mapping, load_spec
from bulk_updater.readers import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.config import RunConfig
    from bulk_updater.mapping import CompiledMapping, MappedFrame, MappingSpec
    from bulk_updater.model import Frame
    from bulk_updater.operations import Operation
    from bulk_updater.readers import Source

__all__ = ["Job", "JobSource", "open_job"]


@dataclass(frozen=True, slots=True)
class JobSource:
    """One source of a job.

    Attributes:
        source: The file.
        mapping: The mapping, compiled against its header.
        digest: SHA-256 of its bytes, in hex.
        first_row: Number of its first data row.
        n_rows: Its data rows.
    """

    source: Source
    mapping: CompiledMapping
    digest: str
    first_row: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class Job:
    """A mapping and the rows that it is for.

    Attributes:
        spec: The mapping file.
        sources: The sources, in order.
        n_rows: Rows to take: those of all sources, or the limit where that is less.
    """

    spec: MappingSpec
    sources: tuple[JobSource, ...]
    n_rows: int

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations, in the mapping's order."""
        return tuple(request.operation for request in self.spec.requests)

    @property
    def fingerprint(self) -> str:
        """What the run is about: 12 hex digits over the mapping and the sources' content."""
        digests = [self.spec.digest, *(part.digest for part in self.sources)]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]

    def mapped_frames(self) -> Iterator[MappedFrame]:
        """Every row in order, mapped, a few thousand at a time. Blocks: call it in a thread."""
        for part in self.sources:
            if part.first_row > self.n_rows:
                return
            frames = part.source.read_frames(part.mapping.columns, first_row=part.first_row)
            for frame in frames:
                kept = _up_to(frame, self.n_rows)
                if kept is not None:
                    yield part.mapping.map_frame(kept)
                if kept is not frame:
                    return


def _up_to(frame: Frame, last_row: int) -> Frame | None:
    """The frame's rows up to a row: the frame itself, a shorter one, or None."""
    unreadable = tuple(bad for bad in frame.unreadable if bad.row <= last_row)
    n_rows = int(frame.rows.searchsorted(last_row, side="right"))
    if n_rows == len(frame.rows) and len(unreadable) == len(frame.unreadable):
        return frame
    if not n_rows and not unreadable:
        return None
    return replace(
        frame, rows=frame.rows[:n_rows], cells=frame.cells.iloc[:n_rows], unreadable=unreadable
    )


def open_job(config: RunConfig) -> Job:
    """Read the mapping, open the sources, and check one against the others.

    Reads every source once, to fingerprint it and to count its rows. Blocks.

    Raises:
        UsageError: If the mapping or a source is not usable.
    """
    spec = load_spec(config.mapping)
    opened = [open_source(path, spec.source.format) for path in config.sources]
    # All headers are checked before any file is read to its end.
    compiled = [compile_mapping(spec, source.columns, source.name) for source in opened]
    parts: list[JobSource] = []
    next_row = 1
    for source, mapping in zip(opened, compiled, strict=True):
        source.read_frames(mapping.columns)  # refuses a column that has no text, reads nothing
        part = JobSource(source, mapping, source.fingerprint(), next_row, source.count_rows())
        next_row += part.n_rows
        parts.append(part)
    n_rows = next_row - 1
    return Job(spec, tuple(parts), n_rows if config.limit is None else min(n_rows, config.limit))
