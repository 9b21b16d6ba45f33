"""Deliberate faults of the program, and the promise that has to catch each.

An oracle that nothing fails proves nothing. Each of these is a mistake that somebody could make in
one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any
from unittest import mock

import bulk_updater.files
import bulk_updater.ledger.recovery
import bulk_updater.ledger.writer
import bulk_updater.locks
import bulk_updater.operations
import bulk_updater.pipeline.failed
import bulk_updater.pipeline.sender
import bulk_updater.retry
from bulk_updater.connect import Receipt
from bulk_updater.connect.client import Connect
from bulk_updater.errors import AccessError, RequestRejected, SendError, Throttled, TransientError
from bulk_updater.ledger.writer import Ledger
from bulk_updater.model import Outcome, Progress, Request, Verdict
from bulk_updater.pacing import Pacer
from bulk_updater.pipeline.run import run as run_pipeline
from bulk_updater.pipeline.sender import Sender
from bulk_updater.retry import TREATMENTS, Treatment

from .scenario import Ending, Episode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_sender = bulk_updater.pipeline.sender
_writer = bulk_updater.ledger.writer


def _treating(kind: Any, treatment: Treatment) -> AbstractContextManager[Any]:
    return mock.patch.object(bulk_updater.retry, "TREATMENTS", {**TREATMENTS, kind: treatment})


def acknowledges_before_fsync() -> AbstractContextManager[Any]:
    """A result counts as durable when it was written."""

    def write(self: Ledger, group: list[Any]) -> int:
        return self._file.write(b"".join(waiting.encode() for waiting in group))

    return mock.patch.object(Ledger, "_write_and_sync", write)


def frees_the_contact_early() -> AbstractContextManager[Any]:
    """A row is settled when the server answered."""
    append = Sender._append
    tasks = set()

    async def soon(self: Sender, *arguments: Any) -> None:
        task = asyncio.create_task(append(self, *arguments))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return mock.patch.object(Sender, "_append", soon)


def counts_a_throttle_as_an_attempt() -> AbstractContextManager[Any]:
    """Throttling uses up a row's attempts."""
    return _treating(Throttled, Treatment(Verdict.RETRY, Verdict.FAIL_ROW))


def resumes_one_row_too_far() -> AbstractContextManager[Any]:
    """The row behind the last result is taken for settled."""
    recover = bulk_updater.ledger.recovery.recover

    def too_far(*args: Any, **kwargs: Any) -> Any:
        recovery = recover(*args, **kwargs)
        settled = recovery.settled
        for operation in settled.operations:
            row = 1
            while settled.is_settled(row, [operation]):
                row += 1
            if row > 1:
                settled.add(row, operation, Outcome.UPDATED)
        return recovery

    return mock.patch.object(_writer, "recover", too_far)


def forgets_the_first_row() -> AbstractContextManager[Any]:
    """A resume begins with a row that is settled."""
    recover = bulk_updater.ledger.recovery.recover

    def forget(*args: Any, **kwargs: Any) -> Any:
        recovery = recover(*args, **kwargs)
        for column in recovery.settled._columns.values():
            code = column.codes.put(1, 0)
            column.counts[code] -= code > 0
        return recovery

    return mock.patch.object(_writer, "recover", forget)


def leaves_the_torn_tail() -> AbstractContextManager[Any]:
    """The next result is written behind half a record."""
    return mock.patch.object(bulk_updater.ledger.recovery, "cut", return_value=None)


def lets_the_earlier_row_win() -> AbstractContextManager[Any]:
    """Of two rows that are merged, the first has the last word."""
    merge = bulk_updater.operations.Operation.merge

    def backwards(self: Any, earlier: Any, later: Any) -> Any:
        merged = merge(self, earlier, later)
        if merged is not None and "Attributes" in merged:
            kept = {
                key: earlier["Attributes"].get(key, value)
                for key, value in merged["Attributes"].items()
            }
            merged["Attributes"] = {**kept, "number": later["Attributes"]["number"]}
        return merged

    return mock.patch.object(bulk_updater.operations.Operation, "merge", backwards)


def _believing(wanted: Callable[[SendError], bool]) -> AbstractContextManager[Any]:
    send = Connect.send

    async def believe(self: Connect, request: Request) -> Receipt:
        try:
            return await send(self, request)
        except SendError as error:
            if wanted(error):
                return Receipt(request_id="believed", http_status=200)
            raise

    return mock.patch.object(Connect, "send", believe)


def takes_a_lost_answer_for_a_success() -> AbstractContextManager[Any]:
    """A connection that was closed after the request is a success."""
    return _believing(lambda error: isinstance(error, TransientError) and error.http_status is None)


def takes_a_proxy_for_connect() -> AbstractContextManager[Any]:
    """Any answer with status 200 is a success."""
    return _believing(lambda error: error.code == "UnexpectedAnswer")


def tries_refusals_again() -> AbstractContextManager[Any]:
    """A request that was refused is sent again."""
    return _treating(RequestRejected, Treatment(Verdict.RETRY, Verdict.FAIL_ROW))


def fails_rows_for_want_of_access() -> AbstractContextManager[Any]:
    """Credentials that lapse fail the rows that are under way."""
    fail = Treatment(Verdict.FAIL_ROW, Verdict.FAIL_ROW)
    table = {**TREATMENTS, AccessError: fail, "ExpiredTokenException": fail}
    return mock.patch.object(bulk_updater.retry, "TREATMENTS", table)


def gives_up_after_one_failure() -> AbstractContextManager[Any]:
    """What may pass is not tried again."""
    return _treating(TransientError, Treatment(Verdict.RETRY, Verdict.FAIL_ROW, 1))


def pays_no_token_for_a_repeat() -> AbstractContextManager[Any]:
    """A throttled request goes again without waiting for its turn."""
    acquire = Pacer.acquire

    async def free(self: Pacer, operation: str, *, front: bool = False) -> Any:
        if front:
            return self._lanes[operation].regulator.started(self._clock())
        return await acquire(self, operation, front=front)

    return mock.patch.object(Pacer, "acquire", free)


def swallows_a_failure() -> AbstractContextManager[Any]:
    """A row that failed gets no result, and nobody counts."""

    async def append(self: Sender, batch: Any, sent: Any, real: Any = Sender._append) -> None:
        if sent.error is None:
            await real(self, batch, sent)

    execution = run_pipeline.__globals__["_Execution"]
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Sender, "_append", append))
    stack.enter_context(mock.patch.object(execution, "_expect_all_settled", return_value=None))
    return stack


def lets_rows_overtake() -> AbstractContextManager[Any]:
    """Each row is sent for itself, whatever its contact."""
    lane = property(lambda self: (self.operation, self.contact_id, str(self.row)))
    return mock.patch.object(Request, "lane", lane)


def keeps_a_slot() -> AbstractContextManager[Any]:
    """A lane that ends while the run is halting does not give its slot back."""
    close = Sender._close_lane

    def keep(self: Sender, key: Any, lane: Any) -> None:
        if self.is_halted:
            lane.holds_slot = False
        close(self, key, lane)

    return mock.patch.object(Sender, "_close_lane", keep)


def opens_one_request_too_many() -> AbstractContextManager[Any]:
    """There is a slot more than `--max-in-flight` says."""
    init = Sender.__init__

    def more(self: Sender, config: Any, **kwargs: Any) -> None:
        init(self, dataclasses.replace(config, max_in_flight=config.max_in_flight + 1), **kwargs)

    return mock.patch.object(Sender, "__init__", more)


def sends_what_is_too_large() -> AbstractContextManager[Any]:
    """Nobody counts the bytes of a request before it is sent."""
    limited = mock.PropertyMock(return_value=())
    return mock.patch.object(bulk_updater.operations.Operation, "byte_limits", limited, create=True)


def counts_one_attempt_too_many() -> AbstractContextManager[Any]:
    """A result says that there was an attempt more."""
    result = _sender._result

    def more(*args: Any) -> Any:
        made = result(*args)
        return dataclasses.replace(made, attempts=made.attempts + 1)

    return mock.patch.object(_sender, "_result", more)


def leaves_failures_out() -> AbstractContextManager[Any]:
    """failed.csv holds the INVALID rows only."""
    return mock.patch.object(bulk_updater.pipeline.failed, "_WANTED", (Outcome.INVALID,))


def forgets_what_was_sent() -> AbstractContextManager[Any]:
    """A summary leaves out the attempts that failed."""
    init = run_pipeline.__globals__["RunSummary"]

    def less(**kwargs: Any) -> Any:
        return init(**{**kwargs, "attempts": kwargs["attempts"] - kwargs["throttled"]})

    return mock.patch.dict(run_pipeline.__globals__, {"RunSummary": less})


def counts_every_row_as_updated() -> AbstractContextManager[Any]:
    """The display does not tell failures from successes."""
    count = Progress.count

    def updated(self: Progress, _: Outcome, n_results: int = 1) -> None:
        count(self, Outcome.UPDATED, n_results)

    return mock.patch.object(Progress, "count", updated)


def is_never_in_doubt() -> AbstractContextManager[Any]:
    """A resume does not say that requests may have been sent already."""
    execution = run_pipeline.__globals__["_Execution"]
    say = execution._say_settled

    def surely(self: Any) -> str:
        self._in_doubt = 0
        return say(self)

    return mock.patch.object(execution, "_say_settled", surely)


def goes_on_when_told_to_stop() -> AbstractContextManager[Any]:
    """The first signal is not heard."""
    halt = Sender.halt

    def deaf(self: Sender, why: BaseException | None = None) -> None:
        if why is not None:
            halt(self, why)

    return mock.patch.object(Sender, "halt", deaf)


def sleeps_when_told_to_stop() -> AbstractContextManager[Any]:
    """An attempt that fails after the first signal still waits before it notices."""

    async def attempt(self: Sender, request: Request) -> Receipt:
        self._expect_going_on()
        return await self._attempt(request)

    return mock.patch.object(Sender, "_send", attempt)


def takes_no_lock() -> AbstractContextManager[Any]:
    """Two runs may work in one directory."""
    return mock.patch.object(bulk_updater.locks.fcntl, "flock", return_value=None)


def writes_for_everybody() -> AbstractContextManager[Any]:
    """Files have the mode that the system gives them."""
    return mock.patch.object(bulk_updater.files, "PRIVATE_MODE", 0o644)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fault of the program.

    Attributes:
        apply: Makes the program faulty while inside.
        breaks: The promises that are broken by it, each by some of the seeds.
        among: What is the same in all scenarios that it is looked for in; the rest is drawn.
    """

    apply: Callable[[], AbstractContextManager[Any]]
    breaks: frozenset[str]
    among: dict[str, Any] = dataclasses.field(default_factory=dict)


def _mutation(
    apply: Callable[[], AbstractContextManager[Any]], *breaks: str, **among: Any
) -> Mutation:
    return Mutation(apply, frozenset(breaks), among)


_STOPS = (Ending("stop", "before send", 3),)
_TEARS = (Ending("kill", "in a write", 2),)

MUTATIONS = (
    _mutation(acknowledges_before_fsync, "durable_before_freed"),
    _mutation(frees_the_contact_early, "durable_before_freed"),
    _mutation(counts_a_throttle_as_an_attempt, "failed_for_a_reason"),
    _mutation(resumes_one_row_too_far, "one_result_each", endings=_TEARS),
    _mutation(forgets_the_first_row, "never_undone"),
    _mutation(leaves_the_torn_tail, "whole_ledger", endings=_TEARS),
    _mutation(lets_the_earlier_row_win, "updated_means_applied"),
    _mutation(takes_a_lost_answer_for_a_success, "updated_means_applied"),
    _mutation(takes_a_proxy_for_connect, "updated_means_applied", faults={"proxy_page": 0.2}),
    _mutation(tries_refusals_again, "nothing_twice"),
    _mutation(
        fails_rows_for_want_of_access,
        "failed_for_a_reason",
        episodes=(Episode("expired", 0.0, 100.0),),
    ),
    _mutation(gives_up_after_one_failure, "failed_for_a_reason"),
    _mutation(pays_no_token_for_a_repeat, "within_the_rate", faults={"throttle": 0.3}),
    _mutation(swallows_a_failure, "one_result_each", "ends"),
    _mutation(lets_rows_overtake, "in_order", "right_state"),
    _mutation(keeps_a_slot, "all_given_back"),
    _mutation(opens_one_request_too_many, "durable_before_freed", "all_given_back"),
    _mutation(sends_what_is_too_large, "bad_rows_are_not_sent", "right_outcome"),
    _mutation(counts_one_attempt_too_many, "figures_are_right"),
    _mutation(leaves_failures_out, "truthful_summary"),
    _mutation(forgets_what_was_sent, "summaries_count_what_was_sent", faults={"throttle": 0.2}),
    _mutation(counts_every_row_as_updated, "true_progress"),
    _mutation(is_never_in_doubt, "honest_resume"),
    _mutation(goes_on_when_told_to_stop, "stops_when_told", endings=_STOPS),
    _mutation(
        sleeps_when_told_to_stop,
        "stops_when_told",
        faults={"throttle_for_a_while": 0.5},
        endings=_STOPS,
    ),
    _mutation(takes_no_lock, "one_at_a_time", rival=True),
    _mutation(writes_for_everybody, "private"),
)
"""Every fault, and what has to catch it."""
