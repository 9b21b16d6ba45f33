"""How a run stands, as far as it is known: for its last line, its figures, its notification."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulk_updater._version import __version__
from bulk_updater.cli.exits import EXIT_BAD_ROWS
from bulk_updater.cli.going_on import command_to_go_on
from bulk_updater.cli.summary import headline
from bulk_updater.model import Outcome, RunSummary, to_iso

if TYPE_CHECKING:
    from bulk_updater.metrics import Reading
    from bulk_updater.model import Progress

__all__ = ["Standing", "outcomes_of"]

_WELL = (0, EXIT_BAD_ROWS)
"""Exit codes after which nothing is left to go on with."""


class Standing:
    """Where a command stands that may run while nobody looks.

    Attributes:
        mapping: The mapping as it was named; None while it is not known.
        summary: What the run came to; None until it has ended, and where it never began.
        progress: How far the run is; None before it begins.
    """

    def __init__(self) -> None:
        self.mapping: str | None = None
        self.summary: RunSummary | None = None
        self.progress: Progress | None = None
        self._began_s = time.monotonic()
        self._started_at = time.time()

    def take(self, flags: dict[str, Any]) -> None:
        """Take the mapping from the flags as they are known by now."""
        mapping = flags.get("mapping") or _mapping_of(flags.get("run_dir"))
        self.mapping = None if mapping is None else str(mapping)

    @property
    def job(self) -> str:
        """What is run, for labels: the mapping's name without its suffix."""
        return "unknown" if self.mapping is None else Path(self.mapping).stem

    def command(self) -> str:
        """What goes on from here."""
        return (self.summary and self.summary.resume) or command_to_go_on(sys.argv)

    def fields(self, code: int, *, state: str | None, error: str | None) -> dict[str, Any]:
        """The summary line's keys; what is not known is left out."""
        summary, progress = self.summary, self.progress
        fields: dict[str, Any] = {"state": state or "finished", "exit": code}
        if summary is not None:
            fields |= {"state": state or summary.state, "run_id": summary.run_id}
            fields["rows"] = summary.rows_read
            fields |= {key.lower(): number for key, number in summary.outcomes.items()}
            fields |= {"unsettled": summary.unsettled, "attempts": summary.attempts}
            fields |= {"throttled": summary.throttled, "seconds": round(summary.took_s, 1)}
            return fields | {"ledger": summary.ledger} | ({"error": error} if error else {})
        if progress is not None:
            fields |= {"run_id": progress.run_id} if progress.run_id else {}
            if progress.results_total:
                fields |= {key.lower(): number for key, number in outcomes_of(progress).items()}
                fields["unsettled"] = progress.results_total - progress.settled
            fields |= {"attempts": progress.sent, "throttled": progress.throttled}
        fields["seconds"] = round(time.monotonic() - self._began_s, 1)
        return fields | ({"error": error} if error else {})

    def reading(self, code: int | None = None) -> Reading:
        """The figures of now.

        Args:
            code: The exit code; None while the run goes on.
        """
        from bulk_updater.metrics import Reading  # noqa: PLC0415 - not for every command

        return Reading(
            job=self.job,
            mapping=self.mapping or "",
            started_at=self._started_at,
            finished_at=None if code is None else time.time(),
            exit_code=code,
            duration_s=time.monotonic() - self._began_s,
            **self._figures_of_progress(goes_on=code is None),
            **self._figures_of_summary(),
        )

    def _figures_of_progress(self, *, goes_on: bool) -> dict[str, Any]:
        progress = self.progress
        if progress is None:
            return {}
        figures: dict[str, Any] = {
            "in_flight": progress.in_flight,
            "ceiling_per_s": progress.ceiling_per_s,
        }
        if goes_on:
            figures["allowed_per_s"] = progress.allowed_per_s()
            figures["started_per_s"] = progress.started_per_s()
        if self.summary is not None:
            return figures  # it knows the others better
        if progress.results_total:
            figures["outcomes"] = outcomes_of(progress)
            figures["unsettled"] = progress.results_total - progress.settled
        return figures | {
            "run_id": progress.run_id,
            "attempts": progress.sent,
            "throttled": progress.throttled,
        }

    def _figures_of_summary(self) -> dict[str, Any]:
        summary = self.summary
        if summary is None:
            return {}
        return {
            "run_id": summary.run_id,
            "outcomes": summary.outcomes,
            "unsettled": summary.unsettled,
            "attempts": summary.attempts,
            "throttled": summary.throttled,
            "finished": summary.state == "finished",
        }

    def notification(
        self, code: int, fields: dict[str, Any], message: str | None
    ) -> dict[str, Any]:
        """What a notification tells of the end.

        Args:
            code: The exit code.
            fields: The summary line's keys.
            message: Why it ended, in a sentence; None is what the summary says.
        """
        summary = self.summary
        if summary is None:
            told = dict.fromkeys(field.name for field in dataclasses.fields(RunSummary))
            told |= {"run_id": fields.get("run_id"), "took_s": fields["seconds"]}
        else:
            told = dataclasses.asdict(summary)
        return told | {
            "state": fields["state"],
            "exit_code": code,
            "job": self.job,
            "message": message or self._message(),
            "host": socket.gethostname(),
            "time": to_iso(time.time()),
            "command_to_go_on": None if code in _WELL else self.command(),
            "version": __version__,
        }

    def _message(self) -> str:
        if self.summary is None:
            return "The command ended."
        return self.summary.reason or headline(self.summary)


def outcomes_of(progress: Progress) -> dict[str, int]:
    """The results so far by outcome, those that there are none of included."""
    counts = dict(progress.outcomes)
    return {outcome.value: counts.get(outcome, 0) for outcome in Outcome}


def _mapping_of(run_dir: Path | None) -> str | None:
    """The mapping of an earlier run, as its run.json names it."""
    if run_dir is None:
        return None
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        note = json.loads((run_dir / "run.json").read_bytes())
        return str(note["mapping"]["path"])
    return None
