"""What a record of the ledger is, and how records are streamed from a file."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import orjson

from bulk_updater._version import __version__
from bulk_updater.errors import LedgerCorrupt, LedgerError, LedgerMismatch
from bulk_updater.files import reason
from bulk_updater.ledger.settled import MAX_NIBBLE, OUTCOME_CODES, Nibbles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from bulk_updater.model import Result

__all__ = ["MAX_RECORD_BYTES", "RecordScan", "encode", "read_results", "standing_results"]

MAX_RECORD_BYTES = 1 << 20
"""The longest line that is read back as a record, its newline not counted.

Thirty times what the API's limits let a record grow to. Without a bound, a tail of gigabytes
without a newline would have to be held in memory to find out that it is none.
"""

_BLOCK_BYTES = 1 << 20

_OUTCOME = re.compile("[A-Z][A-Z_]{2,31}")
"""How an outcome is written, also one that only a newer version knows."""


class _NewerOutcomeError(Exception):
    """A whole record with an outcome that this version does not know."""


def encode(result: Result, run_id: str) -> bytes:
    """A result as a line of the ledger, its newline included.

    Text that UTF-8 cannot hold (a source whose name is not UTF-8) is written with backslash
    escapes, so that no row is stuck because of a name.

    Args:
        result: The result.
        run_id: The run that it belongs to.

    Raises:
        ValueError: Recovery would not take the line for a record, such as one of row 0.
        TypeError: A value is of a type that `Result` does not declare.
    """
    record = result.to_record(run_id)
    if not _is_record(record):
        raise ValueError(
            f"Row {result.row!r}, operation {result.operation!r}, run {run_id!r} is not a result: "
            "the row must be an int from 1, operation and run must be text, not empty."
        )
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return orjson.dumps(_escaped(record), option=orjson.OPT_APPEND_NEWLINE)


def _escaped(value: Any) -> Any:
    """The value with every text made encodable."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, tuple):
        return tuple(_escaped(item) for item in value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return value


def _is_record(value: Any) -> bool:
    return _has_shape(value) and value["outcome"] in OUTCOME_CODES


def _has_shape(value: Any) -> bool:
    """Whether it is a record but for its outcome, which is one of ours or of a newer version."""
    # Called for every line of every ledger: hence the subscripts, which beat `get` by half.
    # `type(…) is` and not `isinstance`: a JSON `true` is an int to Python, and not a row.
    try:
        return (
            type(value["row"]) is int
            and value["row"] >= 1
            and type(value["outcome"]) is str
            and type(value["operation"]) is str
            and type(value["run_id"]) is str
        )
    except (KeyError, TypeError):
        return False  # a key is missing, or it is no object


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """The record on a line, given without its newline; None where there is none.

    Raises:
        _NewerOutcomeError: It is one of a newer version.
    """
    if len(line) > MAX_RECORD_BYTES:
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not _has_shape(value):
        return None
    if value["outcome"] in OUTCOME_CODES:
        return cast("dict[str, Any]", value)
    if _is_newer(value["outcome"]):
        raise _NewerOutcomeError(value["outcome"])
    return None


def _is_newer(outcome: str) -> bool:
    """Whether an unknown outcome is a newer version's, and not one of ours that was damaged."""
    return _OUTCOME.fullmatch(outcome) is not None and not any(
        _is_one_letter_from(outcome, known) for known in OUTCOME_CODES
    )


def _is_one_letter_from(one: str, other: str) -> bool:
    """Whether a letter changed, lost or added makes one word of the other."""
    shorter, longer = sorted((one, other), key=len)
    skipped = len(shorter) == len(longer)
    return any(
        shorter[:at] == longer[:at] and shorter[at + skipped :] == longer[at + 1 :]
        for at in range(len(longer))
    )


class RecordScan:
    """One pass over the records of a ledger, in file order, in constant memory.

    Ends silently before a torn tail: a line that is no record and that no record follows.

    Attributes:
        n_lines: Records yielded so far.
        end_bytes: Where the last of them ends, its newline included, in bytes from the start.
        n_behind: Records behind the first line that is none; 0 unless they are to be counted.
    """

    def __init__(self, file: BinaryIO, path: Path, *, count_behind: bool = False) -> None:
        """Scan a file from its start.

        Args:
            file: The ledger, open for reading in binary, at its start.
            path: What the ledger is called in messages.
            count_behind: Take damage for a torn tail, too, and count the records behind it.
        """
        self.n_lines = 0
        self.end_bytes = 0
        self.n_behind = 0
        self._file = file
        self._path = path
        self._count_behind = count_behind

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the records.

        Raises:
            LedgerCorrupt: A line is no record, a record follows it, and such are not counted.
            LedgerMismatch: A newer version wrote the ledger: it has an outcome unknown here, which
                must not be taken for a torn tail, since it was promised.
            LedgerError: The file cannot be read.
        """
        try:
            yield from self._scan()
        except _NewerOutcomeError as newer:
            raise self._newer(str(newer)) from None

    def _scan(self) -> Iterator[dict[str, Any]]:
        rest = b""
        while block := self._read():
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for index, line in enumerate(lines):
                record = _parse_record(line)
                if record is None:
                    self._look_behind(lines[index:], rest)
                    return
                self.n_lines += 1
                self.end_bytes += len(line) + 1
                yield record
            if len(rest) > MAX_RECORD_BYTES:
                self._look_behind([], rest)
                return

    def _look_behind(self, lines: list[bytes], rest: bytes) -> None:
        """Read on to the end of the file, to see that nothing good is behind a bad line."""
        for position in self._find_records(lines, rest):
            if not self._count_behind:
                raise self._corrupt(position)
            self.n_behind += 1

    def _find_records(self, lines: list[bytes], rest: bytes) -> Iterator[int]:
        """Yield where each record behind a bad line begins.

        Args:
            lines: Whole lines that were read already, the bad one first.
            rest: What was read of the line after them.
        """
        position = self.end_bytes
        too_long = False
        while True:
            for line in lines:
                # The end of a line whose beginning was dropped is no line.
                if not too_long and _parse_record(line) is not None:
                    yield position
                too_long = False
                position += len(line) + 1
            if len(rest) > MAX_RECORD_BYTES:
                position += len(rest)
                too_long, rest = True, b""
            block = self._read()
            if not block:
                return
            lines = (rest + block).split(b"\n")
            rest = lines.pop()

    def _corrupt(self, next_record: int) -> LedgerCorrupt:
        run_dir = shlex.quote(str(self._path.parent))
        return LedgerCorrupt(
            f"line {self.n_lines + 1}, from byte {self.end_bytes}, is not a result, but results "
            f"follow it from byte {next_record}: the file was damaged after it was written. "
            f"Nothing was changed. `bulk-updater ledger {run_dir} --repair` keeps a copy and cuts "
            f"the ledger at byte {self.end_bytes}; the same command then sends the rows from "
            "there on again, in order, so that every contact ends as it should. Or begin anew "
            "with --fresh.",
            path=self._path,
            offset=self.end_bytes,
        )

    def _newer(self, outcome: str) -> LedgerMismatch:
        return LedgerMismatch(
            "was written by a newer version of bulk_updater: behind byte "
            f"{self.end_bytes} it holds a result with the outcome {outcome}, which this one, "
            f"{__version__}, does not know. Nothing was changed. Install that version and give the "
            "same command again, or begin anew with --fresh.",
            path=self._path,
        )

    def _read(self) -> bytes:
        try:
            return self._file.read(_BLOCK_BYTES)
        except OSError as error:
            raise _unreadable(self._path, error) from error


def _unreadable(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"cannot be read: {reason(error)}. Check the path, its permissions and the disk.",
        path=path,
    )


def open_to_read(path: Path) -> BinaryIO | None:
    """Open a ledger for a `RecordScan`.

    Returns:
        The file, None where there is none.

    Raises:
        LedgerError: The file exists and cannot be opened.
    """
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the records of a ledger as they stand in it, also while a run is appending.

    Needs no lock and changes nothing. A torn tail is left out, as is a record that is being
    written; a missing file has no records. Blocks while it reads: not for the event loop.

    Args:
        path: The ledger.

    Yields:
        One dict a record, in file order; a row and operation may come more than once.

    Raises:
        LedgerCorrupt: A line is no record, and a record follows it.
        LedgerMismatch: A newer version wrote it.
        LedgerError: The file cannot be read.
    """
    file = open_to_read(path)
    if file is not None:
        with file:
            yield from RecordScan(file, path)


def standing_results(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the last record of every row and operation, in file order.

    Reads the file twice, and takes half a byte a row and operation: the first pass counts the
    records of each, the second yields the one at which the count is used up. Records that a run
    appends meanwhile are left out; otherwise as `read_results`.

    Args:
        path: The ledger.

    Yields:
        One dict a row and operation.

    Raises:
        LedgerCorrupt: A line is no record, and a record follows it. Nothing was yielded then.
        LedgerMismatch: A newer version wrote it.
        LedgerError: The file cannot be read.
    """
    n_lines = n_keys = 0
    remaining: dict[str, Nibbles] = {}
    # What is beyond 15 records of one row and operation; hardly ever anything.
    beyond: Counter[tuple[int, str]] = Counter()
    for record in read_results(path):
        n_lines += 1
        row, operation = record["row"], record["operation"]
        if (counts := remaining.get(operation)) is None:
            counts = remaining[operation] = Nibbles()
        count = counts[row]
        if count < MAX_NIBBLE:
            counts.put(row, count + 1)
        else:
            beyond[row, operation] += 1
        n_keys += count == 0

    # The file may have grown since; the first pass is the truth.
    for record in itertools.islice(read_results(path), n_lines):
        if n_keys == n_lines:
            yield record
            continue
        row, operation = record["row"], record["operation"]
        if beyond and beyond[row, operation]:
            beyond[row, operation] -= 1
            continue
        count = remaining[operation].put(row, 0)
        if count == 1:
            yield record
        else:
            remaining[operation].put(row, count - 1)
