"""Looking for the run that the rows of a `failed.csv` come from.

People save a mended copy anywhere. What tells of its run then is the rows that it names: the run is
one of the same mapping and the same kind of target, for which all of them stand FAILED or INVALID,
and failed with the codes that the file names, where it names any.

Two nights' exports may well have failed in the same rows, and not that easily for the same reasons.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bulk_updater.errors import LedgerError
from bulk_updater.ledger import RunDir, read_results
from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["PossibleOrigin", "is_run", "runs_that_left"]

_LEFT = (Outcome.FAILED, Outcome.INVALID)


class PossibleOrigin(NamedTuple):
    """A run in which some rows stand FAILED or INVALID.

    Attributes:
        path: Its directory.
        noted: What its `run.json` holds.
        has_codes: Whether each of them failed with its code there, be it before a retry, or in a
            run that mended rows of it.
    """

    path: Path
    noted: dict[str, Any]
    has_codes: bool


def is_run(path: Path) -> bool:
    """Whether a path is the directory of a run that has sent something, or tried to. Blocks."""
    run_dir = RunDir(path)
    return run_dir.run_json_path.exists() and run_dir.ledger_path.exists()


def runs_that_left(
    rows: Mapping[tuple[int, str], str | None],
    note: dict[str, Any],
    *,
    roots: Iterable[Path],
    but: Path,
) -> Iterator[PossibleOrigin]:
    """The runs in which some rows stand FAILED or INVALID. Blocks.

    Reads the ledger of every run that may be one: some 4 s for a million results.

    Args:
        rows: For the rows, each with the operation that it failed for, its error code; None where
            that is not told. Of no rows there is no run.
        note: What the `run.json` of the run that asks holds; its mapping and its kind of target are
            looked for.
        roots: Directories to look in, and in the directories in them.
        but: The directory of the run that asks.

    Raises:
        LedgerError: If the ledger of a run that may be one cannot be read.
    """
    if not rows:
        return
    last_row = max(row for row, _ in rows)
    for path in _run_dirs(roots):
        if path.resolve() == but.resolve():
            continue
        noted = _noted(path)
        if not _may_have_left(noted, note, last_row, len(rows)):
            continue
        with_codes = _left_with_codes(path, rows)
        if with_codes is None:
            continue
        if len(with_codes) < len(rows):
            with_codes |= _mended_with_codes(noted, rows)
        yield PossibleOrigin(path, noted, has_codes=len(with_codes) == len(rows))


def _run_dirs(roots: Iterable[Path]) -> Iterator[Path]:
    """The run directories in some directories and one level further down, each once."""
    seen: set[Path] = set()
    for root in roots:
        for path in _directories(root):
            for each in (path, *_directories(path)):
                real = each.resolve()
                if real not in seen and is_run(each):
                    seen.add(real)
                    yield each


def _directories(path: Path) -> list[Path]:
    """The directories in one; none where nobody may look, or where it is not there."""
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []


def _noted(path: Path) -> dict[str, Any]:
    """What a `run.json` holds; nothing where it is of another program, or damaged."""
    try:
        return RunDir(path).read_run_json() or {}
    except LedgerError:
        return {}


def _may_have_left(
    noted: dict[str, Any], note: dict[str, Any], last_row: int, n_results: int
) -> bool:
    """Whether a run may be it by what it noted; its ledger takes far longer to read."""
    mapping, n_rows, summary = (noted.get(key) for key in ("mapping", "rows", "summary"))
    if not (isinstance(noted.get("run_id"), str) and isinstance(mapping, dict)):
        return False
    if (mapping.get("sha256"), noted.get("target")) != (note["mapping"]["sha256"], note["target"]):
        return False
    # The rows of a run of mended rows are numbered by the run that they come from.
    if "mends" in noted or not isinstance(n_rows, int) or n_rows < last_row:
        return False
    # Where there is no summary, the first execution was killed.
    outcomes = summary.get("outcomes", {}) if isinstance(summary, dict) else None
    return outcomes is None or sum(outcomes.get(each, 0) for each in _LEFT) >= n_results


def _left_with_codes(
    path: Path, rows: Mapping[tuple[int, str], str | None]
) -> set[tuple[int, str]] | None:
    """Which of some rows failed in a run with their codes; None unless all stand as failed there.

    Codes of every time count that a row was tried: the file may be older than a retry.
    """
    standing: set[tuple[int, str]] = set()
    with_codes = {key for key, code in rows.items() if code is None}
    for record in read_results(RunDir(path).ledger_path):
        key = record["row"], record["operation"]
        if key not in rows:
            continue
        if record["outcome"] not in _LEFT:
            standing.discard(key)
            continue
        standing.add(key)
        if record.get("error_code", "") == rows[key]:
            with_codes.add(key)
    return with_codes if len(standing) == len(rows) else None


def _mended_with_codes(
    noted: dict[str, Any], rows: Mapping[tuple[int, str], str | None]
) -> set[tuple[int, str]]:
    """Which of some rows may have failed with their codes in the runs that mended rows of a run.

    What fails there again stands in their `failed.csv` with its number in the first run. Which row
    of theirs that was is not looked up: the sources may be gone.
    """
    codes = {
        (record["operation"], record.get("error_code", ""))
        for mended in noted.get("mended_by", [])
        for record in read_results(RunDir(Path(mended["run_dir"])).ledger_path)
        if record["outcome"] in _LEFT
    }
    return {key for key, code in rows.items() if (key[1], code) in codes}
