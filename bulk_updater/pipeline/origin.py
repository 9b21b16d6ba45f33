"""Looking for the run that the rows of a `failed.csv` come from.

People save a mended copy anywhere. What tells of its run then is the rows that it names: the run is
one of the same mapping and the same kind of target, for which all of them stand FAILED or INVALID.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulk_updater.errors import LedgerError
from bulk_updater.ledger import RunDir, standing_results
from bulk_updater.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = ["is_run", "runs_that_left"]

_LEFT = (Outcome.FAILED, Outcome.INVALID)


def is_run(path: Path) -> bool:
    """Whether a path is the directory of a run that has sent something, or tried to. Blocks."""
    run_dir = RunDir(path)
    return run_dir.run_json_path.exists() and run_dir.ledger_path.exists()


def runs_that_left(
    rows: Collection[tuple[int, str]], note: dict[str, Any], *, roots: Iterable[Path], but: Path
) -> Iterator[Path]:
    """The runs in which some rows stand FAILED or INVALID. Blocks.

    Reads the ledger of every run that may be one: some 8 s for a million results.

    Args:
        rows: The rows, each with the operation that it failed for; of none there is no run.
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
        if _may_have_left(noted, note, last_row, len(rows)) and _has_left(path, rows):
            yield path


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


def _has_left(path: Path, rows: Iterable[tuple[int, str]]) -> bool:
    """Whether all of some rows stand FAILED or INVALID in a run's ledger."""
    missing = set(rows)
    for record in standing_results(RunDir(path).ledger_path):
        if record["outcome"] in _LEFT:
            missing.discard((record["row"], record["operation"]))
    return not missing
