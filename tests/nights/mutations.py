"""Deliberate faults of the program, and the promise that has to catch each.

An oracle that nothing fails proves nothing. Each of these is a mistake that somebody could make in
one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import bulk_updater.pipeline.deciding
import bulk_updater.pipeline.memory
import bulk_updater.pipeline.sender
import bulk_updater.state.store
from bulk_updater.model import Outcome
from bulk_updater.pipeline import execution, sending
from bulk_updater.pipeline.again import FailedRows
from bulk_updater.pipeline.deciding import Recall
from bulk_updater.pipeline.drift import DriftCheck
from bulk_updater.pipeline.later import LaterWrites
from bulk_updater.pipeline.memory import Memory
from bulk_updater.pipeline.work import Batch, WholeJob
from bulk_updater.schedule import ScheduleConfig
from bulk_updater.state import State
from bulk_updater.state.finding import Found

from .scenario import TROUBLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_deciding = bulk_updater.pipeline.deciding
_sender = bulk_updater.pipeline.sender


def remembers_before_it_is_durable() -> AbstractContextManager[Any]:
    """The digest moves when a request is about to be sent."""
    mark = State.mark

    def at_once(self: State, scope: Any, sending: Any) -> None:
        entries = list(sending)
        mark(self, scope, entries)
        self.confirm(scope, [(contact, digest, 2_000_000_000) for contact, digest in entries])

    return mock.patch.object(State, "mark", at_once)


def marks_nothing() -> AbstractContextManager[Any]:
    """Nobody notes that a contact is about to be sent to."""
    return mock.patch.object(State, "mark", return_value=None)


def takes_failed_for_applied() -> AbstractContextManager[Any]:
    """A row that FAILED counts as applied."""

    class Kind:
        def __init__(self, settled: Any) -> None:
            self._settled = settled

        def __contains__(self, key: Any) -> bool:
            return key in self._settled

        def outcome_of(self, row: int, operation: str) -> Outcome | None:
            outcome = self._settled.outcome_of(row, operation)
            return Outcome.UPDATED if outcome is Outcome.FAILED else outcome

    init = Memory.__init__

    def kindly(self: Memory, recall: Any, decisions: Any, settled: Any, **kwargs: Any) -> None:
        init(self, recall, decisions, Kind(settled), **kwargs)

    return mock.patch.object(Memory, "__init__", kindly)


def looks_at_the_last_row_only() -> AbstractContextManager[Any]:
    """Of a contact with several rows the last one's digest stands for all."""

    def last(digests: Any, _: Any, ends: Any) -> Any:
        return digests[ends - 1]

    return mock.patch.object(_deciding, "_chain", last)


def takes_back_what_is_in_doubt() -> AbstractContextManager[Any]:
    """A request whose answer nobody waited for counts as not sent."""
    unmark = Memory._unmark
    return mock.patch.object(Memory, "_unmark", lambda self, _: unmark(self, set()))


def reads_nothing_back() -> AbstractContextManager[Any]:
    """--verify-drift draws no contact."""

    def none(_: DriftCheck, keys: Any) -> Any:
        return np.zeros(len(keys), dtype=np.bool_)

    return mock.patch.object(DriftCheck, "are_drawn", none)


def knows_no_deadline() -> AbstractContextManager[Any]:
    """The deadline is not looked at."""
    return mock.patch.object(ScheduleConfig, "deadline_at", return_value=None)


def sends_whatever_changed() -> AbstractContextManager[Any]:
    """--max-change is not looked at."""
    return mock.patch.object(sending, "refuse_if_too_much")


def takes_no_lock_of_the_state() -> AbstractContextManager[Any]:
    """Two runs may use one state file."""
    unlocked = contextlib.nullcontext()
    return mock.patch.object(bulk_updater.state.store, "hold_lock", return_value=unlocked)


def lets_the_older_run_win() -> AbstractContextManager[Any]:
    """A resumed run does not ask what was applied since it began."""
    init = Recall.__init__

    def late(self: Recall, **kwargs: Any) -> None:
        init(self, **{**kwargs, "began_at": float("inf")})

    return mock.patch.object(Recall, "__init__", late)


def forgets_everything() -> AbstractContextManager[Any]:
    """Nothing is found of what was applied."""
    return mock.patch.object(State, "find", lambda _, __, keys: Found.nothing(len(keys)))


def never_says_the_same_twice() -> AbstractContextManager[Any]:
    """What is remembered is not what was sent."""
    confirm, numbers = State.confirm, itertools.count(1)

    def odd(self: State, scope: Any, applied: Any) -> None:
        entries = list(applied)
        confirm(self, scope, entries)
        confirm(self, scope, [(each[0], next(numbers), each[2]) for each in entries])

    return mock.patch.object(State, "confirm", odd)


def sends_what_is_unchanged() -> AbstractContextManager[Any]:
    """A row that is UNCHANGED is sent all the same."""
    make = WholeJob._batch

    def both(self: WholeJob, frame: Any, group: Any) -> Batch:
        decided = make(self, frame, group)
        decisions, self.decisions = self.decisions, None
        try:
            return dataclasses.replace(make(self, frame, group), unsent=decided.unsent)
        finally:
            self.decisions = decisions

    return mock.patch.object(WholeJob, "_batch", both)


def calls_what_it_sent_unchanged() -> AbstractContextManager[Any]:
    """A row that was sent has the outcome of one that was not."""
    result = _sender._result

    def unchanged(*args: Any, **kwargs: Any) -> Any:
        made = result(*args, **kwargs)
        if made.outcome is Outcome.UPDATED:
            made = dataclasses.replace(made, outcome=Outcome.UNCHANGED)
        return made

    return mock.patch.object(_sender, "_result", unchanged)


def retries_whole_rows() -> AbstractContextManager[Any]:
    """A retry does not ask what later rows of the contact wrote."""
    return mock.patch.object(LaterWrites, "trim", lambda _, request, **__: request)


def retries_every_row() -> AbstractContextManager[Any]:
    """A retry takes rows that did not fail, too."""

    def every(_: FailedRows, frame: Any) -> Any:
        return frame.entries(lambda *_: False)

    return mock.patch.object(FailedRows, "_entries", every)


def forgets_what_was_sent() -> AbstractContextManager[Any]:
    """A summary counts one attempt less."""
    init = execution.RunSummary

    def less(**kwargs: Any) -> Any:
        return init(**{**kwargs, "attempts": max(0, kwargs["attempts"] - 1)})

    return mock.patch.object(execution, "RunSummary", less)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fault of the program.

    Attributes:
        apply: Makes the program faulty while inside.
        breaks: The promises that are broken by it, each by some of the seeds.
        among: What goes wrong in the years in which it is looked for.
    """

    apply: Callable[[], AbstractContextManager[Any]]
    breaks: frozenset[str]
    among: tuple[str, ...]


def _mutation(
    apply: Callable[[], AbstractContextManager[Any]],
    *breaks: str,
    among: tuple[str, ...] = TROUBLES,
) -> Mutation:
    return Mutation(apply, frozenset(breaks), among)


MUTATIONS = (
    _mutation(remembers_before_it_is_durable, "state_is_true", among=("kill_unresumed", "short")),
    _mutation(marks_nothing, "state_is_true", among=("ambiguous", "kill_unresumed")),
    _mutation(takes_failed_for_applied, "state_is_true", among=("retry", "ambiguous")),
    _mutation(
        looks_at_the_last_row_only,
        *("caught_up", "failed_is_right_after_the_next"),
        among=("storm", "retry"),
    ),
    _mutation(reads_nothing_back, "dawn_state", among=("drift",)),
    _mutation(takes_back_what_is_in_doubt, "state_is_true", among=("short", "outage", "ambiguous")),
    _mutation(knows_no_deadline, "no_night_past_its_deadline", among=("short", "quota")),
    _mutation(sends_whatever_changed, "broken_export_overwrites_nothing", among=("broken",)),
    _mutation(takes_no_lock_of_the_state, "overlap_refused", among=("overlap_other",)),
    _mutation(
        lets_the_older_run_win,
        "older_never_undoes_newer",
        among=("short", "kill_unresumed", "late_resume"),
    ),
    _mutation(forgets_everything, "nothing_twice"),
    _mutation(never_says_the_same_twice, "digests_tell_apart", "nothing_twice"),
    _mutation(sends_what_is_unchanged, "finished_is_whole"),
    _mutation(calls_what_it_sent_unchanged, "unchanged_is_not_sent"),
    _mutation(retries_whole_rows, "dawn_state", among=("retry",)),
    _mutation(retries_every_row, "nothing_twice", among=("retry",)),
    _mutation(forgets_what_was_sent, "summary_counts_true"),
)
"""Every fault, and what has to catch it."""
