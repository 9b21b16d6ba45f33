"""A mended `failed.csv`, run as a source of its own.

Such a file names for each row the row of the run that it comes from, and the operations that it
failed for. Only these are sent, and none of them undoes what a later row of that run wrote, nor
what other mended rows of it wrote: see `later`. The run that it comes from is locked meanwhile, and
notes where its rows were mended, so that a retry of it does not undo them either.

Where nobody says which run that is, it is the one that the file lies in, or the only one that left
these rows with these error codes: see `origin`. Where there is none, nothing is known of later
rows, and the file is an export of its own. A run that a newer export took over from is none to mend
any more, since every row of it is older.

Where a mended row fails again it stands in the `failed.csv` of its own run, still with the row that
it was in the first one: however often rows are mended, one numbering says which is newer.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bulk_updater.config import RunConfig
from bulk_updater.errors import UsageError
from bulk_updater.ledger import RunDir
from bulk_updater.mapping.mapped import FILTERED
from bulk_updater.model import Outcome, Request, Result
from bulk_updater.operations import OPERATION_NAMES
from bulk_updater.pipeline.identity import identity_of, note_as_begun, read_run, what_changed
from bulk_updater.pipeline.job import open_job, survey
from bulk_updater.pipeline.later import LaterWrites
from bulk_updater.pipeline.numbered import (
    CODE_COLUMN,
    UNREADABLE,
    Origins,
    bit_of,
    mends,
    read_origins,
)
from bulk_updater.pipeline.origin import PossibleOrigin, is_run, runs_that_left
from bulk_updater.pipeline.work import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt

    from bulk_updater.pipeline.job import Job, OpenedJob
    from bulk_updater.pipeline.later import LaneKey
    from bulk_updater.pipeline.work import Batch, Entry, Work
    from bulk_updater.readers import Source
    from bulk_updater.state import State

__all__ = [
    "BAD_ORIGIN",
    "SETTLED_BEFORE",
    "Mended",
    "MendedRows",
    "job_as_noted",
    "open_mended",
    "read_mended",
]

log = logging.getLogger(__name__)

BAD_ORIGIN: Final = "bad_origin"
SETTLED_BEFORE: Final = "settled_before"

_NEWEST: Final = 2**63 - 1
"""What a mended row counts as where nobody knows any more which row it was: newer than any."""


class Mended:
    """What is to be sent of mended rows.

    Args:
        origins: What the rows were.
        later: What is not to be undone.
        origin: The directory of the run that they come from.
        n_rows: Rows of that run.
        state: What was last applied, held; None where nothing is remembered, or nobody asked.

    Attributes:
        state: See above.
    """

    def __init__(
        self,
        origins: Origins,
        later: LaterWrites,
        *,
        origin: Path,
        n_rows: int,
        state: State | None,
    ) -> None:
        self.state = state
        self._origins = origins
        self._later = later
        self._origin = origin
        self._n_rows = n_rows

    def mend(self, entry: Entry) -> Entry:
        """What becomes of a row for one operation: what is left of a request, or a result."""
        if isinstance(entry, Check):
            return entry
        row = int(self._origins.rows[entry.row])
        operations = int(self._origins.operations[entry.row])
        if row == UNREADABLE or (isinstance(entry, Result) and entry.error_code == FILTERED):
            return entry
        if not 1 <= row <= self._n_rows:
            return self._bad(entry, f"_row is not the number of a row of the run in {self._origin}")
        if not operations:
            return self._bad(entry, f"_operation names none of {', '.join(OPERATION_NAMES)}")
        if not operations & bit_of(entry.operation):
            return _result_of(entry, Outcome.SKIPPED, SETTLED_BEFORE)
        return self._later.trim(entry, row=row) if isinstance(entry, Request) else entry

    def _bad(self, entry: Request | Result, what: str) -> Result:
        error = f"row {entry.row}: {what}; put back what failed.csv had there."
        return _result_of(entry, Outcome.INVALID, BAD_ORIGIN, error)


def _result_of(
    entry: Request | Result, outcome: Outcome, error_code: str, error: str | None = None
) -> Result:
    return Result(
        row=entry.row,
        source=entry.source,
        operation=entry.operation,
        outcome=outcome,
        instance_id=entry.instance_id,
        contact_id=entry.contact_id,
        error_code=error_code,
        error=error,
    )


class MendedRows:
    """The rows of mended sources that are not settled; a `Work`.

    Args:
        whole: The sources' rows as they stand.
        mended: What is to be sent of them.
    """

    def __init__(self, whole: Work, mended: Mended) -> None:
        self.job = whole.job
        self.n_results = whole.n_results
        self._whole = whole
        self._mended = mended

    def count_outcomes(self) -> dict[Outcome, int]:
        """See `Work`."""
        return self._whole.count_outcomes()

    def n_left(self, operation: str) -> int:
        """See `Work`."""
        return self._whole.n_left(operation)

    def batches(self) -> Iterator[Batch]:
        """See `Work`."""
        for batch in self._whole.batches():
            yield replace(batch, entries=map(self._mended.mend, batch.entries))


@contextmanager
def open_mended(
    config: RunConfig,
    job: Job,
    run_dir: RunDir,
    note: dict[str, Any],
    hold: Callable[[dict[str, Any], Path], AbstractContextManager[State | None]] = (
        lambda _noted, _path: nullcontext()
    ),
) -> Iterator[Mended | None]:
    """What is to be sent of a job's rows, where its sources are mended; locks where they are from.

    Both runs note it in their `run.json` before anything is sent, and the run itself also that it
    is not known where they are from: an execution that goes on decides nothing anew. Blocks.

    Args:
        config: The run.
        job: What it is about.
        run_dir: Its directory, locked.
        note: What its `run.json` holds; `mends` is added to it where sources are mended ones.
        hold: Given what the first run noted and its directory, holds what was last applied, or
            refuses; by default nobody asks.

    Yields:
        None where no source is a mended one, and where it is not known which run they come from.

    Raises:
        UsageError: If the rows come from several runs, or cannot be run so.
        LedgerLocked: If that run is going on.
        LedgerError: If its directory is not usable.
    """
    sources = _mended_sources(config, job.opened)
    path = _origin(config, job.opened, run_dir, note) if sources else None
    if path is None:
        if sources and "mends" not in note:
            note["mends"] = None
            note_as_begun(run_dir, note, config)
        yield None
        return
    if path.resolve() == run_dir.path.resolve():
        raise UsageError(
            f"{path} is the directory of the run that the rows come from. Nothing was sent. Leave "
            "--run-dir out, or name another: mended rows are a run of their own."
        )
    read_run(path)  # before anything is created in its place
    with ExitStack() as held:
        origin = held.enter_context(RunDir.open(path))
        noted = read_run(path)
        _refuse_if_superseded(noted, path)
        if noted.get("target") != note["target"]:
            raise UsageError(
                f"{path}: the run that the rows come from was not sent to the same kind of target "
                "(a local endpoint, or AWS). Nothing was sent. Name the run's own target."
            )
        state = held.enter_context(hold(noted, path))
        contacts: set[LaneKey] = set()
        origins = read_origins(job.opened, contacts)
        later = LaterWrites(contacts, origin=" of the run that it comes from")
        later.read(origin.ledger_path)
        read_mended(later, noted, but=note["run_id"])
        _note_both(config, origin, noted, run_dir, note)
        yield Mended(origins, later, origin=path, n_rows=noted["rows"], state=state)


def read_mended(later: LaterWrites, noted: dict[str, Any], *, but: str = "") -> None:
    """Take what the mended rows of a run wrote, each as the row that it was. Blocks.

    Args:
        later: Takes it.
        noted: What the run's `run.json` holds.
        but: A run that is left out.

    Raises:
        UsageError: If one of the runs that mended rows is not there any more, or a newer export
            took over from it.
        LedgerError: If a ledger cannot be read.
    """
    for mended in noted.get("mended_by", []):
        if mended["run_id"] == but:
            continue
        path = Path(mended["run_dir"])
        if not path.is_dir():
            raise UsageError(
                f"{path} is not there any more. Rows of this run were mended and sent in it, and "
                "what they wrote is not to be undone. Nothing was sent. Put it back."
            )
        mended_noted = read_run(path)
        _refuse_if_superseded(mended_noted, path)
        job = job_as_noted(mended_noted)
        rows = None if job is None else read_origins(job.opened, None).rows
        later.read(RunDir(path).ledger_path, _numbered(rows))


def _numbered(rows: npt.NDArray[np.int64] | None) -> Callable[[int], int]:
    if rows is None:
        return lambda _row: _NEWEST
    return lambda row: int(rows[row]) if row < len(rows) and rows[row] else _NEWEST


def _refuse_if_superseded(noted: dict[str, Any], path: Path) -> None:
    by = noted.get("superseded_by")
    if by:
        raise UsageError(
            f"{path}: the run in {by.get('run_dir')} took over from the run that the rows come "
            "from, with a newer export. Nothing was sent: older rows would undo newer ones. Mend "
            "that run's failed.csv instead, or the export that comes next."
        )


def job_as_noted(noted: dict[str, Any]) -> Job | None:
    """A run's mapping and sources; None where they are not there as it had them. Blocks."""
    config = RunConfig(
        mapping=Path(noted["mapping"]["path"]),
        sources=tuple(Path(source["path"]) for source in noted["sources"]),
        limit=noted.get("configuration", {}).get("limit"),
    )
    try:
        job = survey(open_job(config))
    except UsageError:
        return None
    identity = {**identity_of(config, job), "target": noted.get("target")}
    return None if what_changed(noted, identity) else job


def _note_both(
    config: RunConfig, origin: RunDir, noted: dict[str, Any], run_dir: RunDir, note: dict[str, Any]
) -> None:
    mended_by = noted.get("mended_by", [])
    if all(mended["run_id"] != note["run_id"] for mended in mended_by):
        new = {"run_id": note["run_id"], "run_dir": str(run_dir.path)}
        origin.write_run_json({**noted, "mended_by": [*mended_by, new]})
    if not note.get("mends"):
        note["mends"] = {"run_id": noted["run_id"], "run_dir": str(origin.path)}
        note_as_begun(run_dir, note, config)


def _mended_sources(config: RunConfig, opened: OpenedJob) -> list[Source]:
    """The sources, where they are mended ones; none where they are exports.

    Raises:
        UsageError: If they are of both kinds, or what the run is told does not go with theirs.
    """
    sources = [source for source, _ in opened.sources]
    mended = [source for source in sources if mends(source)]
    if not mended:
        if config.mends is not None:
            raise UsageError(
                f"--mends {config.mends}: no source has the columns _row and _operation of a "
                "failed.csv. Nothing was sent. Put them back, or leave --mends out."
            )
        return []
    if len(mended) < len(sources):
        raise UsageError(
            f"{mended[0].name} is a mended failed.csv, and another source is none. Nothing was "
            "sent. Run each kind by itself."
        )
    if config.changes.only_changed or config.supersede is not None:
        raise UsageError(
            f"{mended[0].name} is a mended failed.csv, of which every row is sent that is not "
            "older than what was sent. Nothing was sent. Leave --only-changed and --supersede out."
        )
    return mended


def _origin(
    config: RunConfig, opened: OpenedJob, run_dir: RunDir, note: dict[str, Any]
) -> Path | None:
    """The directory of the run whose rows were mended first; None where nobody knows it."""
    names = ", ".join(source.name for source, _ in opened.sources)
    if config.mends is not None:
        return _first_run(config.mends, names)
    if "mends" in note:
        noted = note["mends"]
        if noted is None:
            _warn_of_own(names, "it was not known which run its rows come from when it was begun")
        return None if noted is None else _first_run(Path(noted["run_dir"]), names)
    origins = {
        _run_around(source) or _run_found(config, part, run_dir, note)
        for source, part in _each(opened)
    }
    if len(origins) > 1:
        raise UsageError(
            "The sources come from several runs, or from some that are not found. Nothing was "
            "sent. Run those of each run by themselves."
        )
    return origins.pop()


def _each(opened: OpenedJob) -> Iterator[tuple[Source, OpenedJob]]:
    """Each source, with all of its rows as a job of its own."""
    for source, mapping in opened.sources:
        yield source, replace(opened, sources=((source, mapping),), limit=None)


def _run_around(source: Source) -> Path | None:
    """The run whose rows a `failed.csv` numbers, by the run that it lies in."""
    path = source.path.parent
    return _numbered_by(path) if is_run(path) else None


def _run_found(
    config: RunConfig, opened: OpenedJob, run_dir: RunDir, note: dict[str, Any]
) -> Path | None:
    """The only run that left the rows that a `failed.csv` names; says which, or that none is."""
    ((source, _),) = opened.sources
    roots = (config.runs_dir, source.path.parent)
    codes = read_origins(opened, None).codes
    possible = list(runs_that_left(codes, note, roots=roots, but=run_dir.path))
    found = [each for each in possible if each.has_codes]
    if len(found) > 1:
        _refuse_if_unclear(source.name, found)
        why = f"its rows may come from {found[0].path} and from {found[1].path}"
    elif found:
        log.info("%s: its rows come from the run in %s.", source.name, found[0].path)
        return found[0].path
    elif possible:
        why = f"in {possible[0].path} these rows failed with other codes than {CODE_COLUMN} says"
    else:
        why = f"no run of this mapping that left these rows is in {roots[0]} or {roots[1]}"
    _warn_of_own(source.name, why)
    return None


def _refuse_if_unclear(name: str, found: list[PossibleOrigin]) -> None:
    """Where a newer export took over from one of several runs, the rows may be older than that.

    Raises:
        UsageError: They may.
    """
    if any(each.noted.get("superseded_by") for each in found):
        told = " and from ".join(str(each.path) for each in found)
        raise UsageError(
            f"{name}: its rows may come from {told}, and a newer export took over from one of "
            "these runs. Nothing was sent: older rows would undo newer ones. Name the run that "
            "they come from with --mends."
        )


def _warn_of_own(name: str, why: str) -> None:
    log.warning(
        "%s has the columns _row and _operation of a failed.csv, and %s: it is run as an export "
        "of its own, and its rows may overwrite later ones. To have those kept, name the run that "
        "they come from with --mends.",
        name,
        why,
    )


def _first_run(path: Path, name: str) -> Path:
    """The run whose rows a `failed.csv` numbers, by the run that is named."""
    if not is_run(path):
        raise UsageError(
            f"{name} has the columns _row and _operation of a failed.csv, and {path} is not the "
            "run that it comes from. Nothing was sent. Name that run's directory with --mends; "
            "or take the columns that begin with _ out, to run it as an export of its own."
        )
    numbered_by = _numbered_by(path)
    if numbered_by is None:
        raise UsageError(
            f"{path} is a run of rows that come from another, and nobody knew from which. Nothing "
            f"was sent. Name with --mends the run whose rows {name} names in its column _row."
        )
    return numbered_by


def _numbered_by(path: Path) -> Path | None:
    """The run by which a run's `failed.csv` is numbered; None where nobody knew it then."""
    noted = read_run(path)
    if "mends" not in noted:
        return path
    return None if noted["mends"] is None else Path(noted["mends"]["run_dir"])
