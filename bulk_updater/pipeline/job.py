"""What there is to do: the mapping, its sources, and their rows as mapped frames.

`plan` needs no more than the opened sources; `run` has them surveyed first, to know what it is
about and how much there is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bulk_updater.mapping import compile_mapping, load_spec
from bulk_updater.readers import open_source

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from bulk_updater.config import RunConfig
    from bulk_updater.mapping import CompiledMapping, MappedFrame, MappingSpec
    from bulk_updater.model import Frame
    from bulk_updater.operations import Operation
    from bulk_updater.readers import Source

__all__ = ["Job", "OpenedJob", "SurveyedSource", "open_job", "survey"]


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A mapping and the sources that it is for, none of them read yet.

    Attributes:
        spec: The mapping file.
        sources: The sources in order, each with the mapping compiled against its header.
        limit: Rows to take at the most; None takes all.
    """

    spec: MappingSpec
    sources: tuple[tuple[Source, CompiledMapping], ...]
    limit: int | None

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations, in the mapping's order."""
        return tuple(request.operation for request in self.spec.requests)

    def mapped_frames(self) -> Iterator[MappedFrame]:
        """Every row in order, mapped, a few thousand at a time. Blocks: call it in a thread.

        Raises:
            SourceError: If a source turns out to be damaged.
        """
        next_row = 1
        for source, mapping in self.sources:
            if self.limit is not None and next_row > self.limit:
                return
            for frame in source.read_frames(mapping.columns, first_row=next_row):
                kept = frame if self.limit is None else _up_to(frame, self.limit)
                if kept is not None:
                    yield mapping.map_frame(kept)
                if kept is not frame:
                    return
                next_row += len(frame.rows) + len(frame.unreadable)


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


def open_job(config: RunConfig) -> OpenedJob:
    """Read the mapping, open the sources, and check the one against the others. Blocks.

    Raises:
        UsageError: If the mapping or a source is not usable.
    """
    spec = load_spec(config.mapping)
    opened = [open_source(path, spec.source.format) for path in config.sources]
    sources = tuple(
        (
            source,
            compile_mapping(
                spec, source.columns, source.name, expect_instance=config.expect_instance
            ),
        )
        for source in opened
    )
    for source, mapping in sources:
        source.read_frames(mapping.columns)  # refuses a column that has no text; reads nothing
    return OpenedJob(spec, sources, config.limit)


@dataclass(frozen=True, slots=True)
class SurveyedSource:
    """What reading a source once told.

    Attributes:
        source: The source.
        digest: SHA-256 of its bytes, in hex.
        first_row: Number of its first data row.
        n_rows: Its data rows, whatever the limit.
    """

    source: Source
    digest: str
    first_row: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job of which it is known what it is about and how much there is.

    Attributes:
        opened: The mapping and its sources.
        sources: What is known of each source.
        n_rows: Rows to take: those of all sources, or the limit where that is less.
    """

    opened: OpenedJob
    sources: tuple[SurveyedSource, ...]
    n_rows: int

    @property
    def spec(self) -> MappingSpec:
        """The mapping file."""
        return self.opened.spec

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations, in the mapping's order."""
        return self.opened.operations

    @property
    def fingerprint(self) -> str:
        """What the run is about: 12 hex digits over the mapping and the sources' content."""
        digests = [self.spec.digest, *(part.digest for part in self.sources)]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]


def survey(opened: OpenedJob, *, stop: threading.Event | None = None) -> Job:
    """Read every source once, to fingerprint it and to count its rows. Blocks.

    A source that is damaged anywhere is found here, before a request is sent.

    Args:
        opened: The mapping and its sources.
        stop: When another thread sets it, no further block of a source is read.

    Raises:
        SourceError: If a source cannot be read to its end, or `stop` was set.
    """
    sources: list[SurveyedSource] = []
    next_row = 1
    for source, _ in opened.sources:
        digest = source.fingerprint(stop=stop)
        part = SurveyedSource(source, digest, next_row, source.count_rows(stop=stop))
        next_row += part.n_rows
        sources.append(part)
    n_rows = next_row - 1
    if opened.limit is not None:
        n_rows = min(n_rows, opened.limit)
    return Job(opened, tuple(sources), n_rows)
