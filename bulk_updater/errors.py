"""Every error that bulk_updater raises, in one tree.

    BulkUpdaterError
    ├─ UsageError
    │  ├─ ConfigError
    │  ├─ MappingError
    │  └─ SourceError
    ├─ RowError
    ├─ SendError
    │  ├─ Throttled
    │  ├─ TransientError
    │  ├─ RequestRejected
    │  └─ AccessError
    ├─ LedgerError
    │  ├─ LedgerCorrupt
    │  ├─ LedgerLocked
    │  ├─ LedgerMismatch
    │  ├─ LedgerWriteError
    │  └─ StateError
    └─ RunStopped

The branches are grouped by *whom* an error concerns: the person who typed the command
(`UsageError`), one row (`RowError`), one attempt (`SendError`), the durable results
(`LedgerError`), or the whole run (`RunStopped`).

No message holds the value of a cell: a message names the row, the column, the rule and the
figures, so that logs and ledgers can be passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bulk_updater.model import RunSummary

__all__ = [
    "AccessError",
    "BulkUpdaterError",
    "ConfigError",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerLocked",
    "LedgerMismatch",
    "LedgerWriteError",
    "MappingError",
    "RequestRejected",
    "RowError",
    "RunStopped",
    "SendError",
    "SourceError",
    "StateError",
    "Throttled",
    "TransientError",
    "UsageError",
]


def _revive(cls: type[BulkUpdaterError], message: str, state: dict[str, Any]) -> BulkUpdaterError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class BulkUpdaterError(Exception):
    """The root of everything that bulk_updater raises on purpose.

    Attributes:
        slug: A stable name for the kind of error, for scripts and for the documentation.
    """

    slug: ClassVar[str] = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """What went wrong, where, and what to do."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Callable[..., BulkUpdaterError], tuple[Any, ...]]:
        # The default replays __init__ with self.args, which loses keyword arguments.
        return _revive, (type(self), self.message, self.__dict__)


class UsageError(BulkUpdaterError):
    """The command cannot be carried out as it was given; nothing was sent."""

    slug = "usage"


class ConfigError(UsageError):
    """A flag, an environment variable or their combination is not usable."""

    slug = "config"


class MappingError(UsageError):
    """The mapping file is wrong, by itself or for this source.

    Attributes:
        path: The mapping file.
        line: The line in it, from 1; None where the fault has no one line.
    """

    slug = "mapping"

    def __init__(self, message: str, *, path: Path | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(where + message)
        self.path = path
        self.line = line


class SourceError(UsageError):
    """A source cannot be read at all.

    Attributes:
        source: The source, as it was named.
    """

    slug = "source"

    def __init__(self, message: str, *, source: str | None = None) -> None:
        super().__init__(message if source is None else f"{source}: {message}")
        self.source = source


class RowError(BulkUpdaterError):
    """One row cannot become a request; its outcome is INVALID and the run goes on.

    Attributes:
        rule: A stable name for the rule that the row breaks, such as `ragged_row`.
        column: The column or the member that breaks it; None where it is the whole row.
    """

    slug = "row"

    def __init__(self, message: str, *, rule: str, column: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.column = column


class SendError(BulkUpdaterError):
    """One attempt did not succeed.

    Attributes:
        code: The error code of the service, or a name of ours where it gave none.
        http_status: The status of the answer; None where there was no answer.
        request_id: The service's id of the request; None where it gave none.
        retry_after_s: Seconds that the service asked to wait; None where it did not ask.
    """

    slug = "send"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        http_status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class Throttled(SendError):
    """The quota is used up for the moment; says nothing about the row."""

    slug = "throttled"


class TransientError(SendError):
    """The service or the way to it failed; the same request may succeed later."""

    slug = "transient"


class RequestRejected(SendError):
    """The service understood the request and said no."""

    slug = "rejected"


class AccessError(SendError):
    """Credentials, permission, signature, clock or region are wrong: no row can succeed."""

    slug = "access"


class LedgerError(BulkUpdaterError):
    """The run directory cannot be trusted or used.

    Attributes:
        path: The file or folder that it is about.
    """

    slug = "ledger"

    def __init__(self, message: str, *, path: Path) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class LedgerCorrupt(LedgerError):
    """A line before the end of the ledger is not a result.

    Attributes:
        offset: Where the damage begins, in bytes from the start of the file.
    """

    slug = "ledger-corrupt"

    def __init__(self, message: str, *, path: Path, offset: int) -> None:
        super().__init__(message, path=path)
        self.offset = offset


class LedgerLocked(LedgerError):
    """Another run is working in the same run directory."""

    slug = "ledger-locked"


class LedgerMismatch(LedgerError):
    """The run directory is of another mapping, source or target, or of a newer version."""

    slug = "ledger-mismatch"


class LedgerWriteError(LedgerError):
    """A result could not be made durable; sending stops at once."""

    slug = "ledger-write"


class StateError(LedgerError):
    """What was last applied to each contact cannot be looked up, noted or used."""

    slug = "state"


class RunStopped(BulkUpdaterError):
    """The run ended before its source did; the same command goes on from there.

    Attributes:
        summary: What was settled until then.
    """

    slug = "run-stopped"

    def __init__(self, message: str, *, summary: RunSummary | None = None) -> None:
        super().__init__(message)
        self.summary = summary
