"""What a source is to the rest of the program, whatever its format."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bulk_updater.errors import SourceError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bulk_updater.model import Frame

__all__ = [
    "RawRow",
    "Source",
    "check_header",
    "check_regular_file",
    "choose",
    "expect_wanted",
    "fingerprint_file",
    "quote",
]

_SHOWN_COLUMNS = 20
_SHOWN_CHARACTERS = 60
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it stands in its source, for `failed.csv`.

    Attributes:
        row: The row's number.
        cells: Every cell, without the quotes around it and with doubled quotes made single, as
            bytes in the source's own encoding. An unreadable row has the cells that can be told
            apart, which may be fewer or more than the header has.
        readable: Whether the row could be told apart into as many cells as the header has.
    """

    row: int
    cells: tuple[bytes, ...] = field(repr=False)
    readable: bool = True


class Source(Protocol):
    """A file of rows. Every method reads the file anew, and blocks: call it in a thread.

    Attributes:
        name: The path as it was given.
        path: The file.
        columns: The header.
        encoding: The codec that the bytes of raw rows are in. Never one with a byte order mark:
            a `utf-16` file has `utf-16-le` or `utf-16-be`.
        delimiter: What stands between the cells of a row; `,` for a format without one.
    """

    name: str
    path: Path
    columns: tuple[str, ...]
    encoding: str
    delimiter: str

    def fingerprint(self, *, stop: threading.Event | None = None) -> str:
        """The SHA-256 of the file's bytes, in hex.

        Args:
            stop: When another thread sets it, no further block of a MiB or two is read.

        Raises:
            SourceError: The file cannot be read, or `stop` was set.
        """

    def count_rows(self, *, stop: threading.Event | None = None) -> int:
        """All data rows, readable or not: as many as `read_frames` and `read_raw_rows` tell of.

        Args:
            stop: As for `fingerprint`.

        Raises:
            SourceError: The file cannot be read to its end, or `stop` was set.
        """

    def read_frames(self, columns: Sequence[str], *, first_row: int = 1) -> Iterator[Frame]:
        """Read the rows, in file order.

        Args:
            columns: The columns to read, in the order wanted; may be empty. What stands in
                others is not looked at, so it cannot make a row unreadable.
            first_row: The number of the source's first data row.

        Returns:
            Frames of at most a few thousand rows. No frame is without rows, but all rows of one
            may be unreadable.

        Raises:
            SourceError: At once where a column is missing or of a type that has no text; while
                iterating where the file is damaged, with the row up to which it was read. A damaged
                `.gz` is noticed some rows late: `count_rows` before sending notices it in time.
        """

    def read_raw_rows(
        self, wanted: Callable[[int], bool], *, first_row: int = 1
    ) -> Iterator[RawRow]:
        """Read some rows with every column, in file order, unreadable ones included.

        Args:
            wanted: Told a row's number, says whether to yield it; asked once for each row.
            first_row: The number of the source's first data row.

        Raises:
            SourceError: While iterating, where the file is damaged.
        """


def expect_wanted(stop: threading.Event | None, *, name: str) -> None:
    """See to it that somebody still waits for what is read of a source.

    Raises:
        SourceError: `stop` was set.
    """
    if stop is not None and stop.is_set():
        raise SourceError("reading it was given up.", source=name)


def fingerprint_file(path: Path, *, name: str, stop: threading.Event | None) -> str:
    """The SHA-256 of a file's bytes, in hex, read block by block; see `Source.fingerprint`."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            expect_wanted(stop, name=name)
            while n_bytes := file.readinto(block):
                digest.update(block[:n_bytes])
                expect_wanted(stop, name=name)
        return digest.hexdigest()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}.", source=name) from error


def check_regular_file(path: Path, *, name: str) -> None:
    """See to it that there is a file that can be read more than once.

    Raises:
        SourceError: There is none, or it is a folder, a pipe, or not ours to read.
    """
    try:
        mode = path.stat().st_mode  # before it is opened: a pipe would wait for a writer
        if stat.S_ISDIR(mode):
            raise SourceError("is a folder; name the files in it.", source=name)
        if not stat.S_ISREG(mode):
            raise SourceError(
                "is not a regular file, and a source is read more than once; save it to a file "
                "first.",
                source=name,
            )
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise SourceError("there is no such file; check the path.", source=name) from error
    except PermissionError as error:
        raise SourceError(
            "may not be read; give this user read permission on the file and its folders.",
            source=name,
        ) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "the path holds a NUL character"
        raise SourceError(f"cannot be opened: {why}.", source=name) from error


def quote(column: str) -> str:
    """A column's name as a message shows it: in quotes, on one line, of bounded length."""
    return repr(column if len(column) <= _SHOWN_CHARACTERS else column[:_SHOWN_CHARACTERS] + "...")


def _some(texts: Sequence[str]) -> str:
    """The first few of some texts, and how many more there are."""
    more = len(texts) - _SHOWN_COLUMNS
    return f"{', '.join(texts[:_SHOWN_COLUMNS])}{f' and {more} more' if more > 0 else ''}"


def check_header(columns: Sequence[str], *, name: str) -> None:
    """See to it that every column can be told by its name.

    Raises:
        SourceError: A name is blank, or two columns share one.
    """
    blank = [str(at) for at, column in enumerate(columns, 1) if not column.strip()]
    if blank:
        raise SourceError(
            f"the header has no name for column {_some(blank)}; name it or take it out.",
            source=name,
        )
    places: dict[str, list[str]] = {}
    for at, column in enumerate(columns, 1):
        places.setdefault(column, []).append(str(at))
    twice = [
        f"{quote(column)} (columns {' and '.join(at[:3])}{' and more' if len(at) > 3 else ''})"  # noqa: PLR2004
        for column, at in places.items()
        if len(at) > 1
    ]
    if twice:
        raise SourceError(
            f"the header has a name more than once: {_some(twice)}; rename all but one.",
            source=name,
        )


def choose(wanted: Sequence[str], columns: Sequence[str], *, name: str) -> tuple[str, ...]:
    """The columns to read, each once, in the order wanted.

    Raises:
        SourceError: One of them is not in the header.
    """
    known = set(columns)
    missing = [column for column in dict.fromkeys(wanted) if column not in known]
    if missing:
        raise SourceError(
            f"has no column {_some([*map(quote, missing)])}; it has "
            f"{_some([*map(quote, columns)])}.",
            source=name,
        )
    return tuple(dict.fromkeys(wanted))
