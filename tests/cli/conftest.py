"""The command line in this process: its exit code, and what it printed where."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.cli import main, night, output
from bulk_updater.model import RunSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bulk_updater.config import RunConfig

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"

MAPPING = f"""
source:
  where:
    - {{column: Status, not: open}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    tier: {{column: Tier, default: standard}}
    due: {{column: Due, date: "%d/%m/%Y", format: "%Y-%m-%d"}}
"""

SECOND = f"""
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Tier}}"
"""

EXPORT = """Contact,Status,Tier,Due
c-1,done,gold,01/02/2026
c-2,open,gold,01/02/2026
c-3,done,,soon
missing-4,done,gold,02/02/2026
c-5,done,silver,soon
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What is wrong, without what every end of a run has: how it goes on, and the summary."""
        lines = self.err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(("To go on", "summary ")))


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What a process sets up once, for itself, is taken back."""
    logger = logging.getLogger("bulk_updater")
    before = logger.handlers[:], logger.level, logger.propagate
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    for number, handler in signals.items():
        signal.signal(number, handler)
    output.set_up_logging.__globals__["_color"] = None
    output.output_console.cache_clear()
    output.error_console.cache_clear()


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ran]:
    """Gives a command as it is typed, in a folder with a mapping and an export."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "both.yaml").write_text(MAPPING + SECOND)
    (tmp_path / "export.csv").write_text(EXPORT)

    def run(line: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bulk-updater", *shlex.split(line)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, printed.out, printed.err)

    return run


def summary_of(**changes: Any) -> RunSummary:
    """The summary of a run that went well, or what is changed of it."""
    names = ("UPDATED", "FAILED", "INVALID", "SKIPPED", "UNCHANGED", "SUPERSEDED")
    outcomes = dict(zip(names, (3, 0, 0, 1, 0, 0), strict=True))
    settings: dict[str, Any] = {
        "run_id": "20260301T080000Z-abcdef",
        "state": "finished",
        "reason": None,
        "rows_read": 4,
        "outcomes": outcomes | changes.pop("outcomes", {}),
        "unsettled": 0,
        "attempts": 3,
        "throttled": 0,
        "took_s": 7.4,
        "ledger": "runs/mapping/export-0123456789ab/ledger.jsonl",
    }
    return RunSummary(**(settings | changes))


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configurations that `run` hands to the pipeline, which does nothing."""
    seen: list[RunConfig] = []

    async def note(config: RunConfig, **_: Any) -> RunSummary:
        seen.append(config)
        return summary_of()

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", note)
    return seen


@pytest.fixture(autouse=True)
def _night_is_over():
    yield
    night.forget_night()


@pytest.fixture
def ends_with(monkeypatch):
    """Makes the pipeline return a summary, or raise."""

    def set_end(end):
        async def pipeline(_config, **_):
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)

    return set_end
