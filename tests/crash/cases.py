"""A run that is killed again and again, and what has to hold of it."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.e2e.processes import INSTANCE, MAPPING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.processes import Ran, Served, Warm

__all__ = [
    "MAX_IN_FLIGHT",
    "RECOVERY_POINTS",
    "RUN_POINTS",
    "SANDBOX",
    "Case",
    "kill_and_resume",
]

RUN_POINTS = (
    "run_json_tmp",
    "run_json_renamed",
    "before_send",
    "after_send",
    "before_append",
    "during_write",
    "after_write",
    "after_sync",
    "random",
)
"""Where a run is killed; `child` says what each is."""

RECOVERY_POINTS = ("tail_copied", "tail_cut")
"""Where a resume is killed that finds the torn tail of a run that was killed `during_write`."""

SANDBOX = ("--rate", "100000", "--burst", "100000", "--latency-ms", "5", "--latency-jitter", "1")
"""Flags of the service: fast, and with answers that overtake each other."""

MAX_IN_FLIGHT = 8
_N_ROWS, _N_CONTACTS = 60, 15
_SKIPPED_EVERY = 10
_ATTRIBUTES, _CONTACT = "update_contact_attributes", "update_contact"

_ONE = f"""
source:
  where:
    - {{column: Status, not: open}}
{MAPPING}"""
_BOTH = f"""{_ONE}
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Note}}"
"""

_Key = tuple[int, str]


@dataclass
class Case:
    """What became of a run that was killed.

    Attributes:
        n_kills: How often it was killed.
        n_resumes: How often it was begun again, the last time to its end.
        n_rows: Rows of the export.
        n_applied_twice: Requests that the service applied and that no result tells of: the rows
            of each were sent again.
        violations: What should not be.
    """

    n_kills: int = 0
    n_resumes: int = 0
    n_rows: int = _N_ROWS
    n_applied_twice: int = 0
    violations: list[str] = field(default_factory=list)

    def expect(self, holds: object, otherwise: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violations.append(otherwise)


class _Killed:
    """The files of one run, and what is known of it from one kill to the next."""

    def __init__(self, folder: Path, prefix: str, operations: tuple[str, ...]) -> None:
        self.ledger = folder / "run" / "ledger.jsonl"
        self.run_json = folder / "run" / "run.json"
        self.sent = folder / "sent"
        self.operations = operations
        self._prefix = prefix

    def contact_of(self, row: int) -> str:
        """Two rows of a contact next to each other, which could overtake, and two more later."""
        return f"{self._prefix}{row // 2 % _N_CONTACTS}"

    def export(self) -> str:
        """Every contact comes again and again, with other cells; some rows are filtered."""
        rows = [
            f"{self.contact_of(row)},{row:07d},note {row},{'open' if _is_open(row) else 'done'}"
            for row in range(1, _N_ROWS + 1)
        ]
        return "\n".join(["Contact,Number,Note,Status", *rows, ""])

    def expected_state(self) -> dict[str, Any]:
        """What the contacts hold when the export is applied in the order of its rows."""
        return {
            self.contact_of(row): {
                "attributes": {"number": f"{row:07d}", "note": f"note {row}"},
                "name": f"note {row}" if _CONTACT in self.operations else None,
            }
            for row in range(1, _N_ROWS + 1)
            if not _is_open(row)
        }

    def expected_results(self) -> dict[_Key, str]:
        return {
            (row, operation): "SKIPPED" if _is_open(row) else "UPDATED"
            for row in range(1, _N_ROWS + 1)
            for operation in self.operations
        }

    def records(self) -> list[dict[str, Any]]:
        """The whole lines of the ledger; what is behind the last newline is torn."""
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_bytes().split(b"\n")[:-1]]

    def keys(self) -> list[_Key]:
        return [(record["row"], record["operation"]) for record in self.records()]

    def is_torn(self) -> bool:
        return self.ledger.exists() and not (b"\n" + self.ledger.read_bytes()).endswith(b"\n")

    def sent_keys(self) -> list[_Key]:
        """The row and operation of every request that was about to be sent, in order."""
        if not self.sent.exists():
            return []
        pairs = [line.split() for line in self.sent.read_text().splitlines()]
        return [(int(row), operation) for row, operation in pairs]

    def n_open_lanes(self) -> int:
        """Contacts and operations that something is left to be sent of: as many requests, or
        more."""
        settled = set(self.keys())
        return len(
            {
                (self.contact_of(row), operation)
                for (row, operation), outcome in self.expected_results().items()
                if outcome == "UPDATED" and (row, operation) not in settled
            }
        )


def _is_open(row: int) -> bool:
    return row % _SKIPPED_EVERY == 0


def kill_and_resume(warm: Warm, served: Served, folder: Path, point: str, seed: int) -> Case:
    """Kill a run at a point, resume it, kill it there again perhaps, and look at what is left.

    Args:
        warm: Forks processes of `child`.
        served: The service.
        folder: An empty folder.
        point: One of `RUN_POINTS` or `RECOVERY_POINTS`.
        seed: What is drawn, is drawn from it and from the point.
    """
    rng = random.Random(f"{point} {seed}")
    case = Case()
    prefix = f"{point}-{seed}-"
    both = rng.random() < 0.5
    run = _Killed(folder, prefix, (_ATTRIBUTES, _CONTACT) if both else (_ATTRIBUTES,))
    (folder / "mapping.yaml").write_text(_BOTH if both else _ONE)
    (folder / "export.csv").write_text(run.export())

    def start(point: str | None = None) -> Ran:
        prepare = {
            "point": point,
            "n": 1 if point is None else _draw_passing(rng, point, run),
            "share": rng.random(),
            "sent": str(run.sent),
        }
        return warm.run(
            folder,
            *("run", "mapping.yaml", "export.csv", "--run-dir", "run"),
            *("--endpoint-url", served.url, "--rate", "500"),
            *("--max-in-flight", str(MAX_IN_FLIGHT), "--json"),
            prepare=prepare,
        )

    on_disk: list[_Key] = []
    n_sent = 0
    points = _points(rng, point)
    while points:
        next_point = points.pop(0)
        if next_point in RECOVERY_POINTS and not run.is_torn():
            case.expect(False, "the ledger has no torn tail")
            break
        if (
            "json" not in next_point
            and next_point not in RECOVERY_POINTS
            and not run.n_open_lanes()
        ):
            break
        ran = start(next_point)
        if next_point == "random" and ran.code == 0:
            break  # it was faster
        case.expect(ran.code == -signal.SIGKILL, f"{next_point} was never passed: {ran}")
        case.n_kills += 1
        _check_execution(case, run, on_disk, n_sent)
        on_disk, n_sent = run.keys(), len(run.sent_keys())
    case.n_resumes = case.n_kills
    last = start()
    _check_execution(case, run, on_disk, n_sent)
    _check_end(case, run, last, served, prefix)
    return case


def _points(rng: random.Random, point: str) -> list[str]:
    """Where a run is killed, one execution after the other."""
    again = rng.randrange(3)
    if point in RECOVERY_POINTS:
        return ["during_write", point] * (1 + again)
    return [point] * (1 + again)


def _draw_passing(rng: random.Random, point: str, run: _Killed) -> int:
    """At which passing of the point to die: one that is sure to come."""
    if point in RECOVERY_POINTS:
        return 1
    if point.startswith("run_json"):
        return rng.choice([1, 2])  # at the beginning and at the end
    n_requests = run.n_open_lanes()
    if point in ("during_write", "after_write", "after_sync"):
        # As many commits at least: each has no more results of requests than are in flight.
        return rng.randint(1, -(-n_requests // MAX_IN_FLIGHT))
    return rng.randint(1, n_requests)


def _check_execution(case: Case, run: _Killed, before: list[_Key], n_sent: int) -> None:
    """What one execution made of what it found."""
    case.expect(run.keys()[: len(before)] == before, "a record that was on the disk is gone")
    again = set(before) & set(run.sent_keys()[n_sent:])
    case.expect(not again, f"sent although settled: {sorted(again)}")
    if run.run_json.exists():
        case.expect(isinstance(json.loads(run.run_json.read_bytes()), dict), "run.json is broken")


def _check_end(case: Case, run: _Killed, last: Ran, served: Served, prefix: str) -> None:
    """What a run that was killed has in common with one that was not."""
    case.expect(last.code == 0, f"the last run ended with {last}")
    case.expect(not run.is_torn(), "the ledger ends in the middle of a record")
    records = run.records()
    results = {(each["row"], each["operation"]): each["outcome"] for each in records}
    case.expect(results == run.expected_results(), "rows are without result, or with a wrong one")
    case.expect(len(results) == len(records), "rows have two results")
    state = {
        contact: {"attributes": stored["attributes"], "name": stored["name"]}
        for contact, stored in served.contacts(prefix).items()
    }
    case.expect(state == run.expected_state(), "contacts are not as the export leaves them")
    applied = {
        write["request_id"] for write in served.get("log") if write["contact_id"].startswith(prefix)
    }
    told = {each["request_id"] for each in records if each["outcome"] == "UPDATED"}
    case.expect(told <= applied, "results tell of requests that were never applied")
    case.n_applied_twice = len(applied - told)
    case.expect(
        case.n_applied_twice <= case.n_kills * MAX_IN_FLIGHT,
        f"{case.n_applied_twice} requests were applied twice after {case.n_kills} kills",
    )
