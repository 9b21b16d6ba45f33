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

import numpy as np

import bulk_updater.files
import bulk_updater.ledger.recovery
import bulk_updater.ledger.writer
import bulk_updater.locks
import bulk_updater.operations
import bulk_updater.pipeline.failed
import bulk_updater.pipeline.later
import bulk_updater.pipeline.sender
import bulk_updater.retry
from bulk_updater.connect import Receipt
from bulk_updater.connect.client import Connect
from bulk_updater.errors import AccessError, RequestRejected, SendError, Throttled, TransientError
from bulk_updater.ledger.writer import Ledger
from bulk_updater.model import Outcome, Progress, Request, Verdict
from bulk_updater.pacing import Pacer
from bulk_updater.pipeline import again, execution, identity, superseding
from bulk_updater.pipeline.execution import Execution
from bulk_updater.pipeline.later import LaterWrites
from bulk_updater.pipeline.sender import Sender
from bulk_updater.retry import TREATMENTS, Treatment

from .scenario import Ending, Episode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .scenario import Scenario

_later = bulk_updater.pipeline.later
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

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Sender, "_append", append))
    stack.enter_context(mock.patch.object(Execution, "_expect_all_settled", return_value=None))
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
    init = execution.RunSummary

    def less(**kwargs: Any) -> Any:
        return init(**{**kwargs, "attempts": kwargs["attempts"] - kwargs["throttled"]})

    return mock.patch.object(execution, "RunSummary", less)


def counts_every_row_as_updated() -> AbstractContextManager[Any]:
    """The display does not tell failures from successes."""
    count = Progress.count

    def updated(self: Progress, _: Outcome, n_results: int = 1) -> None:
        count(self, Outcome.UPDATED, n_results)

    return mock.patch.object(Progress, "count", updated)


def is_never_in_doubt() -> AbstractContextManager[Any]:
    """A resume does not say that requests may have been sent already."""
    say = Execution._say_settled

    def surely(self: Any) -> str:
        self._in_doubt = 0
        return say(self)

    return mock.patch.object(Execution, "_say_settled", surely)


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


def retries_whole_rows() -> AbstractContextManager[Any]:
    """A retry does not ask what later rows of the contact wrote."""
    return mock.patch.object(LaterWrites, "trim", lambda _, request, **__: request)


def leaves_out_what_failed() -> AbstractContextManager[Any]:
    """A retry leaves out what later rows wrote, those that FAILED as well."""
    return mock.patch.object(_later, "_STANDING", (*_later._STANDING, Outcome.FAILED))


def lets_earlier_rows_stand() -> AbstractContextManager[Any]:
    """A retry leaves out what any other row of the contact wrote."""
    trim = LaterWrites.trim

    def behind_all(self: LaterWrites, request: Request, **_: Any) -> Any:
        return trim(self, request, row=0)

    return mock.patch.object(LaterWrites, "trim", behind_all)


def retries_what_was_applied() -> AbstractContextManager[Any]:
    """A retry takes rows that are UPDATED, too."""
    results = again.standing_results

    def as_failed(ledger: Any) -> Any:
        for record in results(ledger):
            is_updated = record["outcome"] == Outcome.UPDATED
            yield {**record, "outcome": Outcome.FAILED} if is_updated else record

    return mock.patch.object(again, "standing_results", as_failed)


def hears_no_code() -> AbstractContextManager[Any]:
    """`retry --code` sends the rows with other codes, too."""
    select = again.select_failed

    def every(ledger: Any, _: Any, **kwargs: Any) -> Any:
        return select(ledger, (), **kwargs)

    return mock.patch.object(again, "select_failed", every)


def retries_all_but_one() -> AbstractContextManager[Any]:
    """A retry does not take the last row that failed."""
    select = again.select_failed

    def fewer(*args: Any, **kwargs: Any) -> Any:
        selection = select(*args, **kwargs)
        for rows in selection.rows.values():
            rows.remove(max(rows))
        return selection

    return mock.patch.object(again, "select_failed", fewer)


def counts_a_retry_before_fsync() -> AbstractContextManager[Any]:
    """A retry does not wait until its results are on the disk."""

    class Hasty(Ledger):
        @classmethod
        def open(cls, path: Any, run_id: str) -> Any:
            return Ledger.open(path, run_id, sync=lambda _: None)

    return mock.patch.object(again, "Ledger", Hasty)


def forgets_the_doubt_of_a_retry() -> AbstractContextManager[Any]:
    """What a retry leaves in doubt is not noted, since all of its rows have results."""
    return mock.patch.object(Execution, "_count_in_doubt", return_value=0)


def believes_what_is_in_doubt() -> AbstractContextManager[Any]:
    """Rows of the older run that may have been sent count as not sent."""
    return mock.patch.object(superseding._RowsInDoubt, "__bool__", return_value=False)


def believes_what_failed() -> AbstractContextManager[Any]:
    """Rows of the older run that FAILED count as applied."""
    applied = (*superseding._APPLIED, Outcome.FAILED)
    return mock.patch.object(superseding, "_APPLIED", applied)


def believes_the_first_row() -> AbstractContextManager[Any]:
    """What a contact holds is what the older run's first row of it said."""

    def first(of: Any) -> Any:
        digests, keys = of
        return np.lexsort((-np.asarray(digests), keys))

    numpy = mock.Mock(wraps=np, lexsort=first, int64=np.int64, uint64=np.uint64)
    return mock.patch.object(superseding, "np", numpy)


def believes_nothing() -> AbstractContextManager[Any]:
    """What the older run applied is sent once more."""
    applied = superseding._Applied
    return mock.patch.object(applied, "add", return_value=None)


def drops_nothing() -> AbstractContextManager[Any]:
    """The older run's rows that are left stay as they are."""
    return mock.patch.object(superseding, "_left", side_effect=lambda *_: iter(()))


def drops_every_row() -> AbstractContextManager[Any]:
    """The older run's rows are SUPERSEDED, settled or not."""

    class Nothing:
        operations: tuple[str, ...] = ()

        def select_unsettled(self, rows: Any, _: str) -> Any:
            return np.ones(len(rows), dtype=np.bool_)

    left = superseding._left
    return mock.patch.object(superseding, "_left", lambda note, _: left(note, Nothing()))


def takes_over_behind_its_back() -> AbstractContextManager[Any]:
    """The older run is not told that another one took over from it."""
    claim = superseding._claim

    def unnoted(*args: Any) -> Any:
        with mock.patch.object(superseding.RunDir, "write_run_json"):
            note = claim(*args)
        del note["superseded_by"]
        return note

    return mock.patch.object(superseding, "_claim", unnoted)


def goes_on_when_superseded() -> AbstractContextManager[Any]:
    """A run that another one took over from is not refused."""
    return mock.patch.object(identity, "_refuse_if_superseded", return_value=None)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fault of the program.

    Attributes:
        apply: Makes the program faulty while inside.
        breaks: The promises that are broken by it, each by some of the seeds.
        among: What is the same in all scenarios that it is looked for in; the rest is drawn.
        needs: Which of the seeds it is looked for in.
    """

    apply: Callable[[], AbstractContextManager[Any]]
    breaks: frozenset[str]
    among: dict[str, Any] = dataclasses.field(default_factory=dict)
    needs: Callable[[Scenario], bool] = lambda _: True


def _mutation(
    apply: Callable[[], AbstractContextManager[Any]], *breaks: str, **among: Any
) -> Mutation:
    return Mutation(apply, frozenset(breaks), among)


def _of_retry(apply: Callable[[], AbstractContextManager[Any]], *breaks: str) -> Mutation:
    return Mutation(apply, frozenset(breaks), needs=lambda scenario: bool(scenario.retries))


def _of_newer(
    apply: Callable[[], AbstractContextManager[Any]], *breaks: str, **among: Any
) -> Mutation:
    return Mutation(
        apply, frozenset(breaks), among, needs=lambda scenario: scenario.newer is not None
    )


_STOPS = (Ending("stop", "before send", 3),)
_TEARS = (Ending("kill", "in a write", 2),)
_FORGETS = (Ending("kill", "after send", 9),)

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
    _mutation(swallows_a_failure, "one_result_each", "ends", retries=(), newer=None),
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
    _of_retry(retries_whole_rows, "later_rows_stand", "right_state"),
    _of_retry(leaves_out_what_failed, "later_rows_stand"),
    _of_retry(lets_earlier_rows_stand, "later_rows_stand"),
    _of_retry(retries_what_was_applied, "only_failed_again"),
    _of_retry(hears_no_code, "only_failed_again"),
    _of_retry(retries_all_but_one, "every_failed_again"),
    _of_retry(counts_a_retry_before_fsync, "durable_before_freed"),
    _of_retry(forgets_the_doubt_of_a_retry, "honest_resume"),
    _of_newer(
        believes_what_is_in_doubt,
        "unchanged_is_so",
        retries=(),
        faults={"drop_after": 0.4},
        endings=_FORGETS,
    ),
    _of_newer(believes_what_failed, "unchanged_is_so"),
    _of_newer(believes_the_first_row, "unchanged_is_so", "right_state"),
    _of_newer(believes_nothing, "unchanged_is_so"),
    _of_newer(drops_nothing, "drops_what_is_left"),
    _of_newer(drops_every_row, "drops_what_is_left"),
    _of_newer(takes_over_behind_its_back, "takes_over_first"),
    _of_newer(goes_on_when_superseded, "older_is_silent"),
)
"""Every fault, and what has to catch it."""
