"""`--supersede`: a newer export's run takes over from an older one's.

From then on the older run is not gone on with: its rows that are left are SUPERSEDED, for the newer
export says something newer, or nothing, of their contacts. What it has applied is evidence for the
newer run: a contact that holds already what the newer export says is not sent again.

The order of what is made durable: first that the older run is superseded, then what became of its
rows. Whatever ends this in between, the older run stays refused, and the same command goes on.
"""

from __future__ import annotations

import asyncio
from array import array
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from bulk_updater.errors import LedgerError, LedgerLocked, LedgerMismatch, UsageError
from bulk_updater.keys import KEY_DTYPE, contact_key
from bulk_updater.ledger import Ledger, RunDir, standing_results
from bulk_updater.locks import read_holder
from bulk_updater.mapping import UnsentRows, load_spec
from bulk_updater.model import Outcome, RunSummary, to_iso
from bulk_updater.pipeline.deciding import Evidence
from bulk_updater.pipeline.identity import read_run
from bulk_updater.pipeline.later import SUPERSEDED
from bulk_updater.pipeline.mended import job_as_noted
from bulk_updater.pipeline.threads import entered_in_thread, in_obedient_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from bulk_updater.ledger import SettledRows
    from bulk_updater.pipeline.job import Job

__all__ = ["TakenOver", "take_over"]

_ROWS_AT_ONCE: Final = 1 << 16
"""Rows whose results are appended together: one sync for all of them."""

_APPLIED: Final = (Outcome.UPDATED, Outcome.UNCHANGED)
_PERHAPS_APPLIED: Final = (*_APPLIED, Outcome.FAILED)

_Scope = tuple[str, str]
"""An operation and an instance."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What was taken over from an older run.

    Attributes:
        run_id: The older run.
        evidence: What it applied, for each operation and instance.
        n_dropped: Results that it had left, and that are SUPERSEDED now; 0 where that was noted
            before.
        warning: Why there is no evidence, in a sentence; None where there is.
    """

    run_id: str
    evidence: list[Evidence]
    n_dropped: int
    warning: str | None = None


async def take_over(
    old: Path,
    *,
    run_id: str,
    run_dir: Path,
    target: str,
    now: Callable[[], float],
) -> TakenOver:
    """Take over from an older run, or go on with that.

    Args:
        old: The older run's directory.
        run_id: The run that takes over.
        run_dir: Its directory.
        target: Its kind of target, `local` or `aws`.
        now: Seconds since the epoch.

    Raises:
        UsageError: If there is no such run, it is this one, or its target is of another kind.
        LedgerLocked: If it is going on.
        LedgerMismatch: If another run took over from it.
        LedgerError: If its directory is not usable.
    """
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(_expect_another, old, run_dir)
        try:
            opened = await stack.enter_async_context(entered_in_thread(RunDir.open(old)))
        except LedgerLocked as error:
            holder = await asyncio.to_thread(read_holder, old / "lock") or "another process"
            raise LedgerLocked(
                f"is in use by {holder}. Nothing was sent. Stop that run first, with "
                f"`bulk-updater ctl {old} drain` or SIGTERM, and give the same command again.",
                path=old,
            ) from error
        note = await asyncio.to_thread(_claim, opened, run_id, run_dir, target, now())
        ledger = await stack.enter_async_context(Ledger.open(opened.ledger_path, note["run_id"]))
        # Before its rows are dropped: their results do not tell what may have been sent of them.
        evidence, warning = await in_obedient_thread(
            lambda stop: _gather(note, opened, ledger.settled, stop)
        )
        n_dropped = 0
        left = _left(note, ledger.settled)
        while (rows := await asyncio.to_thread(next, left, None)) is not None:
            await ledger.append_unsent(rows, finished_at=now())
            n_dropped += len(rows)
        note["summary"] = _summarise(note, ledger, run_id, run_dir)
        await asyncio.to_thread(opened.write_run_json, note)
    return TakenOver(note["run_id"], evidence, n_dropped, warning)


def _expect_another(old: Path, run_dir: Path) -> None:
    read_run(old)  # before anything is created in it
    if old.resolve() == run_dir.resolve():
        raise UsageError(
            f"--supersede {old} is the directory of this very run. Nothing was sent. Name the "
            "older run's."
        )


def _claim(opened: RunDir, run_id: str, run_dir: Path, target: str, now_s: float) -> dict[str, Any]:
    """Note, durably, that the run is superseded; returns what `run.json` holds."""
    note = read_run(opened.path)
    if note.get("target") != target:
        told = {"local": "a local endpoint", "aws": "AWS"}
        raise UsageError(
            f"--supersede {opened.path}: that run was sent to "
            f"{told.get(note.get('target', ''), 'another target')}, and this one is sent to "
            f"{told[target]}. Nothing was sent. What a rehearsal settled says nothing of the real "
            "contacts; leave --supersede out."
        )
    by = note.get("superseded_by")
    if by and by.get("run_id") != run_id:
        raise LedgerMismatch(
            f"the run {by.get('run_id')} in {by.get('run_dir')} took over from this one already. "
            f"Nothing was sent. Take over from that one: --supersede {by.get('run_dir')}",
            path=opened.path,
        )
    if not by:
        by = {"run_id": run_id, "run_dir": str(run_dir), "at": to_iso(now_s)}
        note = {**note, "superseded_by": by}
        opened.write_run_json(note)
    note["operations"] = _operations(note)
    return note


def _operations(note: dict[str, Any]) -> list[str]:
    """The run's operations; a run of an older version did not note them, its mapping tells."""
    noted = note.get("operations")
    if isinstance(noted, list):
        return noted
    try:
        spec = load_spec(Path(note["mapping"]["path"]))
    except UsageError:
        return []
    if spec.digest != note["mapping"]["sha256"]:
        return []
    return [request.operation.name for request in spec.requests]


def _left(note: dict[str, Any], settled: SettledRows) -> Iterator[UnsentRows]:
    """Results for what the run had left, some at a time. Blocks."""
    operations = list(dict.fromkeys([*note["operations"], *settled.operations]))
    first_row = 1
    for source in note["sources"]:
        end = min(first_row + source["rows"], note["rows"] + 1)
        for start in range(first_row, end, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, end), dtype=np.int64)
            for operation in operations:
                left = rows[settled.select_unsettled(rows, operation)]
                if len(left):
                    yield _dropped(left, source["path"], operation)
        first_row += source["rows"]


def _dropped(rows: npt.NDArray[np.int64], source: str, operation: str) -> UnsentRows:
    """SUPERSEDED results of rows whose contacts nobody has looked up."""
    no_ids = pa.array([""] * len(rows), pa.string())
    return UnsentRows(
        source=source,
        operation=operation,
        outcome=Outcome.SUPERSEDED,
        error_code=SUPERSEDED,
        rows=rows,
        instance_ids=no_ids,
        contact_ids=no_ids,
        digests=np.zeros(len(rows), dtype=np.uint64),
    )


def _summarise(note: dict[str, Any], ledger: Ledger, run_id: str, run_dir: Path) -> dict[str, Any]:
    """The run's summary, with what became of its rows."""
    before = note.get("summary") or asdict(
        RunSummary(
            run_id=note["run_id"],
            state="",
            reason=None,
            rows_read=note["rows"],
            outcomes={},
            unsettled=0,
            attempts=0,
            throttled=0,
            took_s=0.0,
            ledger=str(ledger.path),
        )
    )
    outcomes = ledger.settled.outcomes()
    return {
        **before,
        "state": "superseded",
        "reason": f"the run {run_id} in {run_dir} took over, with a newer export",
        "outcomes": {outcome.value: n_results for outcome, n_results in outcomes.items()},
        "unsettled": 0,
        "resume": None,
    }


def _gather(
    note: dict[str, Any], opened: RunDir, settled: SettledRows, stop: threading.Event
) -> tuple[list[Evidence], str | None]:
    """What the run left of contacts; where nobody can know, nothing and why."""
    applied = _Applied()
    in_doubt = _RowsInDoubt(note, settled)
    for n_line, record in enumerate(standing_results(opened.ledger_path)):
        applied.add(record)
        in_doubt.see(record)
        if not n_line % 4096 and stop.is_set():
            raise LedgerError("reading it was given up; nothing was sent.", path=opened.path)
    not_evident: dict[_Scope, list[npt.NDArray[np.bytes_]]] = {}
    if in_doubt:
        job = job_as_noted(note)
        if job is None:
            return [], (
                f"{opened.path}: up to {note['in_doubt']:,} of its requests may have been applied "
                "without a result, and its mapping and sources are not there any more as they "
                "were, so nobody knows for which contacts. Whatever the newer export says is sent."
            )
        for scope, keys in in_doubt.contacts(job, stop):
            not_evident.setdefault(scope, []).append(keys)
    for mended in note.get("mended_by", []):
        ledger = RunDir(Path(mended["run_dir"])).ledger_path
        if not ledger.exists():
            return [], (
                f"{opened.path}: rows of it were mended and sent in {mended['run_dir']}, which is "
                "not there any more, so nobody knows which contacts were changed then. Whatever "
                "the newer export says is sent."
            )
        for scope, keys in _touched(ledger):
            not_evident.setdefault(scope, []).append(keys)
    return [applied.evidence(scope, not_evident.get(scope, [])) for scope in applied.scopes], None


def _touched(ledger: Path) -> Iterator[tuple[_Scope, npt.NDArray[np.bytes_]]]:
    """Contacts that something was sent to, perhaps in vain, by a run of mended rows."""
    touched = _Applied()
    for record in standing_results(ledger):
        touched.add(record)
    for scope, seen in touched.scopes.items():
        yield scope, seen.key_array()


@dataclass(slots=True)
class _Seen:
    """Rows of one operation and instance that were sent, perhaps in vain, or need not be.

    Attributes:
        keys: Their contacts' keys, 16 bytes each.
        rows: Their numbers.
        digests: What they write; 0 where that is not known to be what the contact holds.
    """

    keys: bytearray = field(default_factory=bytearray)
    rows: array[int] = field(default_factory=lambda: array("q"))
    digests: array[int] = field(default_factory=lambda: array("Q"))

    def key_array(self) -> npt.NDArray[np.bytes_]:
        """The keys as numpy holds them."""
        return np.frombuffer(bytes(self.keys), dtype=KEY_DTYPE)


class _Applied:
    """What a ledger says of contacts: 32 bytes for each row that was sent."""

    def __init__(self) -> None:
        self.scopes: dict[_Scope, _Seen] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Take a standing result."""
        outcome, contact_id = record["outcome"], record.get("contact_id")
        if outcome not in _PERHAPS_APPLIED or contact_id is None:
            return
        scope = record["operation"], record.get("instance_id", "")
        seen = self.scopes.get(scope)
        if seen is None:
            seen = self.scopes[scope] = _Seen()
        digest = record.get("payload_digest") if outcome in _APPLIED else None
        seen.keys += contact_key(contact_id)
        seen.rows.append(record["row"])
        seen.digests.append(int(digest, 16) if digest else 0)

    def evidence(self, scope: _Scope, not_evident: list[npt.NDArray[np.bytes_]]) -> Evidence:
        """For each contact the digest of its last row, where it is known to be applied."""
        seen = self.scopes[scope]
        keys = seen.key_array()
        order = np.lexsort((np.frombuffer(seen.rows, dtype=np.int64), keys))
        keys = keys[order]
        digests = np.frombuffer(seen.digests, dtype=np.uint64)[order]
        is_last = np.append(keys[1:] != keys[:-1], True)
        is_evident = is_last & (digests != 0)
        for others in not_evident:
            is_evident &= ~np.isin(keys, others)
        return Evidence(*scope, keys[is_evident], digests[is_evident])


class _RowsInDoubt:
    """Rows of which nobody knows whether they were sent: those without a result of their own."""

    def __init__(self, note: dict[str, Any], settled: SettledRows) -> None:
        self._n_in_doubt = note.get("in_doubt", 0)
        self._is_missing = next(_left(note, settled), None) is not None
        self._settled = settled
        # Those that an earlier attempt to take over has dropped: they are settled for all others.
        self._dropped: dict[str, array[int]] = {}

    def see(self, record: dict[str, Any]) -> None:
        """Take a standing result."""
        if (
            self._n_in_doubt
            and record["outcome"] == Outcome.SUPERSEDED
            and record.get("contact_id") is None
        ):
            rows = self._dropped.setdefault(record["operation"], array("q"))
            rows.append(record["row"])

    def __bool__(self) -> bool:
        return bool(self._n_in_doubt and (self._is_missing or self._dropped))

    def contacts(
        self, job: Job, stop: threading.Event
    ) -> Iterator[tuple[_Scope, npt.NDArray[np.bytes_]]]:
        """The contacts of these rows, frame by frame."""
        dropped = {name: np.array(rows, dtype=np.int64) for name, rows in self._dropped.items()}
        for frame in job.opened.mapped_frames():
            if stop.is_set():
                return
            rows = frame.frame.rows
            for mapped in frame.operations:
                name = mapped.operation.name
                is_in_doubt = self._settled.select_unsettled(rows, name)
                is_in_doubt |= np.isin(rows, dropped.get(name, []))
                for instance_id, positions in mapped.instance_groups():
                    wanted = positions[is_in_doubt[positions]]
                    if len(wanted):
                        yield (name, instance_id), mapped.contact_keys[wanted]
