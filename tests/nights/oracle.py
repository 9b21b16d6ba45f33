"""What must hold in every night and at every dawn.

Told from the exports, the service, the ledgers and the state file alone; shares no code with the
program. The year is gone through in order once, and every promise is asked at every event: each is
a generator of violations, as sentences. `mutations` holds faults of the program for them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.scenario import ATTRIBUTES

from .export import INVALID, SKIPPED, Said, held, values_of
from .history import Dawn, Execution, Meddling
from .scenario import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .history import Attempt, History
    from .scenario import Night

LANE = "tuple[str, str]"
"""Operation and contact."""

_GOOD = {"UPDATED", "UNCHANGED", "SUPERSEDED"}
_LOCKED = {"LedgerLocked", "StateError"}
_ENDS_LATE_S = 2.0
"""Threads that are slow, and files that are written, after the last answer."""


@dataclass
class Holds:
    """What is known for certain of a contact.

    Attributes:
        night: Whose export it holds.
        content: What that says of it.
        at: When the run began that applied it, in seconds since the epoch.
        is_meddled: Whether someone else wrote to it since.
    """

    night: int
    content: Any
    at: float
    is_meddled: bool = False


class Story:
    """The year up to a moment.

    Attributes:
        holds: What contacts were last sent with success, all rows of them.
        doubted: Contacts to which something was sent since, or was to be when a crash came.
        unsure: Contacts that were settled, and perhaps not remembered: the process ended behind
            the result, or it was a retry. They may be sent once more.
        newest: The newest export that was settled well, for each contact.
        remembers: Whether anything was ever applied.
        began_at: When an export's run began, in seconds since the epoch.
        learned: The content that a digest of the state file stands for, for each contact.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.year = history.year
        self.said = [Said(self.year, night) for night in self.year.nights]
        self.holds: dict[LANE, Holds] = {}
        self.doubted: set[LANE] = set()
        self.unsure: set[LANE] = set()
        self.newest: dict[LANE, int] = {}
        self.learned: dict[tuple[LANE, int], Any] = {}
        self.remembers = False
        self.began_at: dict[int, float] = {}
        self.attempts: dict[Execution, list[Attempt]] = defaultdict(list)
        for attempt in history.attempts:
            self.attempts[attempt.execution].append(attempt)

    def night(self, of: Execution) -> Night:
        """The night in which an execution ran."""
        return self.year.nights[of.at_night]

    def lanes(self, of: Execution) -> set[LANE]:
        """The contacts that an execution sent to."""
        return {(each.operation, each.contact) for each in self.attempts[of]}

    def outcomes(self, of: Execution, lane: LANE, *, before: bool = False) -> list[str | None]:
        """How the rows of a contact stand after an execution, or stood before."""
        results = of.before if before else of.after
        return [results.get((row, lane[0])) for row in self.said[of.night].rows[lane]]

    def has_cause(self, of: Execution, lane: LANE) -> bool:
        """Whether something is to be sent to a contact of an execution's export."""
        found = self.holds.get(lane)
        if found is None or lane in self.doubted or lane in self.unsure:
            return True
        if found.content != self.said[of.night].content(*lane):
            return True
        refresh_s = self.year.refresh_s
        # Fresh is what was applied within the time, looked at somewhat later than at the start.
        if refresh_s is not None and found.at < of.begun_at - refresh_s + 60:
            return True
        return of.verifies and found.is_meddled

    # What an event changes.

    def take(self, event: Execution | Meddling | Dawn) -> None:
        """Go on to behind an event."""
        if isinstance(event, Meddling):
            found = self.holds.get((ATTRIBUTES, event.contact))
            if found is not None:
                found.is_meddled = True
        elif isinstance(event, Execution) and event.command != "rival":
            self._take_execution(event)

    def _take_execution(self, event: Execution) -> None:
        self.began_at.setdefault(event.night, event.begun_at)
        sent = self.lanes(event)
        for lane in self.said[event.night].rows:
            due = self.has_cause(event, lane)
            outcomes = self.outcomes(event, lane)
            news = outcomes != self.outcomes(event, lane, before=True)
            if news and None not in outcomes and set(outcomes) <= _GOOD:
                self._take_settled(event, lane, set(outcomes))
            elif lane in sent or (event.crashed_s is not None and due and None in outcomes):
                self.doubted.add(lane)
        self.remembers |= any(outcome == "UPDATED" for outcome in event.after.values())

    def _take_settled(self, event: Execution, lane: LANE, outcomes: set[str]) -> None:
        if "SUPERSEDED" in outcomes and event.command != "retry":
            return  # a newer one stands
        content = self.said[event.night].content(*lane)
        if "UPDATED" in outcomes:
            # What a kill takes from the state file is remembered as of the run's beginning.
            self.holds[lane] = Holds(event.night, content, self.began_at[event.night])
            self.doubted.discard(lane)
            self.unsure.discard(lane)
            if event.command == "retry" or event.crashed_s is not None:
                self.unsure.add(lane)
        elif event.verifies and lane[0] == ATTRIBUTES and len(content) == 1:
            self.holds[lane].is_meddled = False
        self.newest[lane] = max(event.night, self.newest.get(lane, 0))


def violations(history: History) -> Iterator[str]:
    """Every promise that was broken, as `promise: night: sentence`."""
    story = Story(history)
    for event in history.events:
        promises = BEFORE if isinstance(event, Execution) else ()
        yield from _asked(promises, story, event)
        story.take(event)
        behind = {Execution: AFTER, Dawn: AT_DAWN}.get(type(event), ())
        yield from _asked(behind, story, event)


def _asked(promises: Any, story: Story, event: Any) -> Iterator[str]:
    for promise in promises:
        for sentence in promise(story, event):
            yield f"{promise.__name__}: {_where(story, event)}: {sentence}"


def _where(story: Story, event: Execution | Dawn) -> str:
    if isinstance(event, Dawn):
        return f"night {event.night} ({story.year.nights[event.night].trouble})"
    trouble = story.night(event).trouble
    return f"night {event.at_night} ({trouble}), {event.command} of {event.night}"


# Asked with what was known before the execution.


def nothing_twice(story: Story, event: Execution) -> Iterator[str]:
    """A contact is sent to only with a cause, and after a success not again."""
    for lane in sorted(story.lanes(event)):
        if event.command == "rival":
            continue
        if lane not in story.said[event.night].rows:
            yield f"{lane} was sent, and its rows say nothing"
        elif event.command == "retry":
            if "FAILED" not in story.outcomes(event, lane, before=True):
                yield f"{lane} was sent, and no row of it had failed"
        elif not story.has_cause(event, lane):
            yield f"{lane} was sent without a cause"
    succeeded: set[tuple[str, int]] = set()
    for attempt in story.attempts[event]:
        if (attempt.operation, attempt.row) in succeeded:
            yield f"row {attempt.row} was sent again after a success"
        if attempt.succeeded:
            succeeded.add((attempt.operation, attempt.row))


def older_never_undoes_newer(story: Story, event: Execution) -> Iterator[str]:
    """Nothing is sent of an older export to a contact that a newer one has settled."""
    for lane in sorted(story.lanes(event)):
        newest = story.newest.get(lane, -1)
        if newest > event.night:
            yield f"{lane} was sent, and export {newest} had settled it"


def caught_up(story: Story, event: Execution) -> Iterator[str]:
    """A night without trouble sends what has a cause, all of it, and ends with all settled."""
    if event.command != "run" or story.night(event).trouble != "calm":
        return
    if not event.is_finished:
        yield f"it ended with {event.error or event.summary}"
        return
    said = story.said[event.night]
    sent = story.lanes(event)
    for lane in said.rows:
        found = story.holds.get(lane)
        if found is None or found.content != said.content(*lane):
            settled = set(story.outcomes(event, lane, before=True)) <= {"UPDATED", "UNCHANGED"}
            if lane not in sent and not settled:
                yield f"{lane} changed, and was not sent"
    counts = Counter(
        (each.operation, each.contact) for each in story.attempts[event] if not each.throttled
    )
    for lane, count in counts.items():
        if count > len(said.rows.get(lane, ())):
            yield f"{count} requests were made for {lane}"


# Asked when it is known what became of it.


def no_night_past_its_deadline(story: Story, event: Execution) -> Iterator[str]:
    """Nothing begins or is under way after the deadline, and rows are left if it was met."""
    if event.deadline_at is None:
        return
    deadline_s = event.begun_s + event.deadline_at - event.begun_at
    for attempt in story.attempts[event]:
        if attempt.begun_s > deadline_s:
            yield f"row {attempt.row} was begun {attempt.begun_s - deadline_s:.1f} s after it"
        elif attempt.ended_s is not None and attempt.ended_s > deadline_s + 0.01:
            yield f"row {attempt.row} was under way {attempt.ended_s - deadline_s:.1f} s after it"
    if event.crashed_s is None and event.ended_s > deadline_s + _ENDS_LATE_S:
        yield f"it ended {event.ended_s - deadline_s:.1f} s late"
    if event.summary is not None and event.summary.state == "deadline":
        if not event.summary.unsettled:
            yield "it says that it met its deadline, and nothing was left"
        if event.ended_s < event.begun_s + 0.5 * (deadline_s - event.begun_s):
            yield "it says that it met its deadline, and there was time"


def broken_export_overwrites_nothing(story: Story, event: Execution) -> Iterator[str]:
    """With --max-change an export of which most would change is not sent at all."""
    night = story.year.nights[event.night]
    if not night.broken or not story.remembers or event.command != "run":
        return
    if story.attempts[event]:
        yield f"{len(story.attempts[event])} requests were made"
    if event.crashed_s is None and event.error_kind != "RunStopped":
        yield f"it ended with {event.summary or event.error}"


def overlap_refused(story: Story, event: Execution) -> Iterator[str]:
    """A second command at the same time is refused at once, and does nothing."""
    if event.command != "rival":
        return
    if event.error_kind not in _LOCKED:
        yield f"it ended with {event.error or event.summary}"
    if story.attempts[event]:
        yield f"it made {len(story.attempts[event])} requests"
    if event.ended_s - event.begun_s > _ENDS_LATE_S:
        yield f"it took {event.ended_s - event.begun_s:.1f} s"


def finished_is_whole(story: Story, event: Execution) -> Iterator[str]:
    """Of a finished run every row has one result, and the right one."""
    if event.command == "rival":
        return
    due = story.said[event.night].due
    if event.is_finished:
        for key in due.keys() - event.after.keys():
            yield f"{key} has no result"
    for key, outcome in event.after.items():
        wanted = due.get(key)
        allowed = {wanted} if isinstance(wanted, str) else _GOOD | {"FAILED"}
        if wanted is None or outcome not in allowed:
            yield f"{key} is {outcome}"
        if event.n_lines[key] > 1 and event.command != "retry":
            yield f"{key} has {event.n_lines[key]} lines"


def unchanged_is_not_sent(story: Story, event: Execution) -> Iterator[str]:
    """No request was made for a row that is UNCHANGED, INVALID or SKIPPED."""
    for attempt in story.attempts[event]:
        outcome = event.after.get((attempt.row, attempt.operation))
        if outcome in ("UNCHANGED", INVALID, SKIPPED):
            yield f"row {attempt.row} is {outcome}, and was sent"


def summary_counts_true(story: Story, event: Execution) -> Iterator[str]:
    """A summary counts what stands in the ledger, and the attempts of this execution."""
    summary = event.summary
    if summary is None or event.command == "rival":
        return
    counted = Counter(event.after.values())
    if {name: count for name, count in summary.outcomes.items() if count} != dict(counted):
        yield f"it says {summary.outcomes}, the ledger {dict(counted)}"
    if summary.attempts != event.n_watched:
        yield f"it says {summary.attempts} attempts, made were {event.n_watched}"
    if summary.unsettled != len(story.said[event.night].due) - sum(counted.values()):
        yield f"it says that {summary.unsettled} are unsettled"
    if (summary.state == "finished") != (summary.unsettled == 0):
        yield f"it is {summary.state}, and {summary.unsettled} are unsettled"


# Asked at dawn.


def dawn_state(story: Story, dawn: Dawn) -> Iterator[str]:
    """A contact holds what the newest export says that was settled well for it."""
    for lane, found in story.holds.items():
        if lane in story.doubted or found.is_meddled or lane[1] == MISSING:
            continue
        values = held(dawn.service, *lane)
        for key, value in values_of(found.content).items():
            if values.get(key) != value:
                yield f"{lane} holds another {key} than export {found.night} says"


def failed_is_right_after_the_next(story: Story, dawn: Dawn) -> Iterator[str]:
    """After a calm night every contact of its export holds what that says, whatever was before."""
    night = story.year.nights[dawn.night]
    if night.trouble != "calm":
        return
    for lane in story.said[dawn.night].rows:
        found = story.holds.get(lane)
        if lane[1] == MISSING or (found is not None and found.is_meddled):
            continue
        values = held(dawn.service, *lane)
        for key, value in values_of(story.said[dawn.night].content(*lane)).items():
            if values.get(key) != value:
                yield f"{lane} holds another {key}"


def state_is_true(story: Story, dawn: Dawn) -> Iterator[str]:
    """What the state file says for certain of a contact, the service holds."""
    for entry in dawn.entries:
        if entry.contact is None or not entry.is_certain:
            continue
        lane = entry.operation, entry.contact
        found = story.holds.get(lane)
        if found is None:
            yield f"{lane} is certain, and was never settled"
            continue
        name = lane, entry.digest
        if lane not in story.doubted | story.unsure:
            content = story.learned.setdefault(name, found.content)
            if content != found.content:
                yield f"{lane} is remembered as it was, and holds export {found.night}"
        if name not in story.learned or found.is_meddled:
            continue
        values = held(dawn.service, *lane)
        for key, value in values_of(story.learned[name]).items():
            if values.get(key) != value:
                yield f"{lane} is certain, and holds another {key}"


def digests_tell_apart(story: Story, dawn: Dawn) -> Iterator[str]:
    """For a contact, one digest is one content, and the other way round."""
    if dawn.night + 1 < len(story.year.nights):
        return
    by_content: dict[Any, set[int]] = defaultdict(set)
    for (lane, digest), content in story.learned.items():
        by_content[lane, content].add(digest)
    for (lane, _), digests in by_content.items():
        if len(digests) > 1:
            yield f"{lane} has {len(digests)} digests of one content"


BEFORE = (nothing_twice, older_never_undoes_newer, caught_up)
AFTER = (
    no_night_past_its_deadline,
    broken_export_overwrites_nothing,
    overlap_refused,
    finished_is_whole,
    unchanged_is_not_sent,
    summary_counts_true,
)
AT_DAWN = (dawn_state, failed_is_right_after_the_next, state_is_true, digests_tell_apart)
PROMISES = BEFORE + AFTER + AT_DAWN
