"""What must hold after the last execution, told from the export, the service and the ledger alone.

Shares no code with the program. Every promise is a generator of violations, as sentences; a
promise that cannot fail is no promise, so `mutations` holds a fault of the program for each.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .export import INVALID, SKIPPED, SUPERSEDED, UNCHANGED, written_by
from .facts import Facts
from .scenario import ATTRIBUTES, INSTANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .history import Attempt, Execution, History

SLACK_S = 1e-6
_CEILING = re.compile(r"[a-z_]+: at most ([\d,.]+)/s")
_MAY_HAVE_BEEN_SENT = re.compile(r"up to ([\d,]+)[a-z ]* may have been sent already")


def violations(history: History) -> Iterator[str]:
    """Every promise that was broken, as `promise: sentence`."""
    for each in history.judged:
        facts = Facts(each)
        for promise in PROMISES:
            for sentence in promise(facts):
                yield f"{promise.__name__}: {sentence}"


def ends(facts: Facts) -> Iterator[str]:
    """After the last crash the same command finishes the run."""
    last = facts.history.executions[-1]
    if facts.is_superseded:
        return
    if last.summary is None or last.summary.state != "finished":
        yield f"the last of {last.number + 1} executions ended with {last.error or last.summary}"


def whole_ledger(facts: Facts) -> Iterator[str]:
    """Every line of the ledger is a record."""
    for number in facts.broken:
        yield f"line {number} is none"


def one_result_each(facts: Facts) -> Iterator[str]:
    """Every row has one standing result for each operation, and nothing else has any."""
    for key in facts.due.keys() - facts.standing.keys():
        yield f"{key} has no result"
    for key in facts.standing.keys() - facts.due.keys():
        yield f"{key} has a result and is no row"
    for (row, operation), course in facts.courses.items():
        for record, next_record in pairwise(course):
            execution = facts.execution_of(next_record)
            if execution.command != "retry" or facts.execution_of(record) is execution:
                yield f"row {row} has {len(course)} records for {operation}"


def right_outcome(facts: Facts) -> Iterator[str]:
    """INVALID and SKIPPED are those rows that must be; every other is UPDATED or FAILED.

    Or it is UNCHANGED, where the run took over; or SUPERSEDED, where it was sent again, or another
    run took over from this one.
    """
    for (row, operation), due in facts.due.items():
        outcome = facts.outcome(row, operation)
        allowed = {due} if isinstance(due, str) else {"UPDATED", "FAILED"}
        if facts.is_dropped(row, operation):
            allowed = {SUPERSEDED}
        elif not isinstance(due, str) and facts.older is not None:
            allowed.add(UNCHANGED)
        elif not isinstance(due, str) and len(facts.courses.get((row, operation), ())) > 1:
            allowed.add(SUPERSEDED)
        if outcome is not None and outcome not in allowed:
            yield f"row {row} is {outcome} for {operation} and should be {' or '.join(allowed)}"


def truthful_summary(facts: Facts) -> Iterator[str]:
    """The last summary counts what stands in the ledger, and failed.csv names its bad rows."""
    counted = Counter(each["outcome"] for each in facts.standing.values())
    summary = facts.history.executions[-1].summary
    outcomes = {} if summary is None else summary.outcomes
    if facts.is_superseded:
        outcomes = facts.history.note["summary"]["outcomes"]
    if {name: count for name, count in outcomes.items() if count} != dict(counted):
        yield f"it says {outcomes}, the ledger {dict(counted)}"
    if facts.is_superseded:
        return  # as it was left
    bad = {
        row for (row, _), each in facts.standing.items() if each["outcome"] in ("FAILED", INVALID)
    }
    if facts.history.failed_rows != bad:
        yield f"failed.csv holds rows {facts.history.failed_rows}, and {bad} are bad"


def updated_means_applied(facts: Facts) -> Iterator[str]:
    """UPDATED is said of what the service applied, by its request id, whole."""
    applied = {write.request_id: arrival for write, arrival in facts.applied}
    for (row, operation), record in facts.standing.items():
        if record["outcome"] != "UPDATED":
            continue
        arrival = applied.get(record.get("request_id"))
        carrier = record.get("merged_into", row)
        if arrival is None or (arrival.operation, arrival.row) != (operation, carrier):
            yield f"row {row} is UPDATED by {record.get('request_id')}, which is not applied as its"
            continue
        if arrival.contact != facts.scenario.rows[row - 1].contact:
            yield f"row {row} was applied to {arrival.contact}"
        due = facts.due[row, operation]
        if isinstance(due, str):
            continue  # `right_outcome` says so
        behind = [n for n in facts.rows_of(arrival.contact) if row <= n <= carrier]
        left_out = facts.written_later(row, operation, facts.execution_of(record).standing)
        for key, value in due.items():
            if key in left_out:
                continue  # `later_rows_stand` says whether it must be
            values = {_written(facts, n, operation, key, value) for n in behind}
            if arrival.written.get(key) not in values:
                yield f"row {row} is UPDATED, and the request lacks its {key}"
        if carrier == row and not arrival.written.keys() >= due.keys() - left_out:
            yield f"row {row} is UPDATED without some of its keys"


def _written(facts: Facts, row: int, operation: str, key: str, default: str) -> str:
    due = facts.due[row, operation]
    return default if isinstance(due, str) else due.get(key, default)


def right_state(facts: Facts) -> Iterator[str]:
    """Each value at the service is that of the last row in file order that took effect.

    Rows of the export that a run took over from come before all of its own.
    """
    if facts.is_superseded:
        return
    stored = facts.history.state.get(INSTANCE, {})
    contacts = {row.contact for row in facts.scenario.rows} | stored.keys()
    for contact in sorted(contacts - {""}):
        for operation in facts.scenario.operations:
            yield from _right_values(facts, contact, operation, stored.get(contact, {}))


def _right_values(
    facts: Facts, contact: str, operation: str, stored: dict[str, Any]
) -> Iterator[str]:
    values = _held(operation, stored)
    allowed: dict[str, set[str | None]] = defaultdict(lambda: {None})
    for said in filter(None, (facts.older, facts)):
        for row in said.rows_of(contact):
            due = said.due[row, operation]
            if isinstance(due, str):
                continue
            for key, value in due.items():
                kept = value or None  # an empty value removes an attribute
                if said.outcome(row, operation) in ("UPDATED", UNCHANGED):
                    allowed[key] = {kept}
                elif _may_have_been_applied(said, row, operation, key, value):
                    allowed[key].add(kept)
    for key in allowed.keys() | values.keys():
        if values.get(key) not in allowed[key]:
            yield f"{operation} of {contact}: {key} is not what the last effective row says"


def _held(operation: str, stored: dict[str, Any]) -> dict[str, str]:
    """What a contact holds at the service, by key."""
    if operation == ATTRIBUTES:
        return dict(stored.get("attributes", {}))
    name = stored.get("name")
    values = {} if name is None else {"Name": name}
    references = stored.get("references", {})
    return values | {f"References.{key}": each["Value"] for key, each in references.items()}


def _may_have_been_applied(facts: Facts, row: int, operation: str, key: str, value: str) -> bool:
    """Whether a row that FAILED was applied all the same: the answer was lost."""
    contact = facts.scenario.rows[row - 1].contact
    return any(
        arrival.operation == operation
        and arrival.contact == contact
        and arrival.row >= row
        and arrival.written.get(key) == value
        for _, arrival in facts.applied
    )


def bad_rows_are_not_sent(facts: Facts) -> Iterator[str]:
    """No request is made for a row that is INVALID or SKIPPED."""
    for attempt in facts.history.attempts:
        if isinstance(facts.due.get((attempt.row, attempt.operation), SKIPPED), str):
            yield f"row {attempt.row} was sent"


def failed_for_a_reason(facts: Facts) -> Iterator[str]:
    """FAILED is said after a refusal, or when all attempts that count were used up."""
    scenario = facts.scenario
    for (row, operation), record in facts.standing.items():
        if record["outcome"] != "FAILED":
            continue
        carrier = record.get("merged_into", row)
        # Of the execution that said so: a torn tail may have taken the carrier's own result, and
        # left those of the rows that it carried.
        mine = [
            each
            for each in facts.history.attempts
            if (each.row, each.operation) == (carrier, operation)
            and each.execution == facts.execution_of(record).number
            and each.ended_s is not None
        ]
        if not mine:
            yield f"row {row} is FAILED and was never sent"
            continue
        last = mine[-1]
        counted = sum(not each.throttled for each in mine)
        if last.succeeded:
            yield f"row {row} is FAILED after a success"
        elif last.throttled:
            yield f"row {row} is FAILED for throttling"
        elif not last.rejected and last.code != "AccessDeniedException":
            # A conflict is tried four times at the most: `RetryConfig.max_conflict_attempts`.
            due = 4 if last.code == "ConflictException" else scenario.max_attempts
            if counted < min(due, scenario.max_attempts):
                yield f"row {row} is FAILED with {last.code} after {counted} attempts"


def figures_are_right(facts: Facts) -> Iterator[str]:
    """`attempts` and `throttled` are what was sent, and throttling does not count as an attempt."""
    for (row, operation), record in facts.standing.items():
        if record["outcome"] not in ("UPDATED", "FAILED") or "merged_into" in record:
            continue
        execution = facts.execution_of(record).number
        mine = [
            each
            for each in facts.history.attempts
            if (each.row, each.operation, each.execution) == (row, operation, execution)
        ]
        # A merged request that was refused is taken apart: the row's own course comes after.
        for index, each in enumerate(mine[:-1]):
            if each.rejected:
                mine = mine[index + 1 :]
                break
        counted = sum(not each.throttled for each in mine)
        found = record.get("attempts", 0), record.get("throttled", 0)
        if found != (counted, len(mine) - counted):
            yield f"row {row}: attempts and throttled are {found}, sent were {len(mine)}"
        if counted > facts.scenario.max_attempts:
            yield f"row {row} was tried {counted} times"


def summaries_count_what_was_sent(facts: Facts) -> Iterator[str]:
    """An execution's summary counts every request that it began."""
    sent = Counter(each.execution for each in facts.history.attempts)
    for each in facts.history.executions:
        n_sent = sent[each.number]
        if each.summary is not None and each.summary.attempts != n_sent:
            yield f"execution {each.number} counts {each.summary.attempts}, sent {n_sent}"


def in_order(facts: Facts) -> Iterator[str]:
    """Requests of one contact never overlap, and go in file order."""
    for lane, attempts in facts.lanes.items():
        for one, next_one in pairwise(attempts):
            if one.execution != next_one.execution:
                continue
            if one.ended_s is None or one.ended_s > next_one.begun_s:
                yield f"{lane}: rows {one.row} and {next_one.row} were under way at once"
            if next_one.row < one.row and not one.rejected:
                yield f"{lane}: row {next_one.row} was sent after {one.row}"


def never_undone(facts: Facts) -> Iterator[str]:
    """No row is sent when a later one of its contact is settled already, or itself is.

    But for those that a retry sends again, of which `later_rows_stand` tells.
    """
    for attempt in facts.history.attempts:
        execution = facts.history.executions[attempt.execution]
        settled = execution.durable_before
        if execution.command == "retry":
            continue
        for row in facts.rows_of(attempt.contact):
            due = facts.due[row, attempt.operation]
            if (
                row >= attempt.row
                and (row, attempt.operation) in settled
                and not isinstance(due, str)
            ):
                yield f"row {attempt.row} was sent though row {row} was settled"


def nothing_twice(facts: Facts) -> Iterator[str]:
    """What was answered clearly is sent again only if a crash took its result away."""
    history = facts.history
    for lane, attempts in facts.lanes.items():
        for index, one in enumerate(attempts):
            if not one.succeeded:
                continue
            execution = history.executions[one.execution]
            again = [each for each in attempts[index + 1 :] if each.row == one.row]
            if any(each.execution == one.execution for each in again):
                yield f"{lane}: row {one.row} was sent again after a success"
            elif again and execution.crashed_s is None and not _lost_its_disk(execution):
                yield f"{lane}: row {one.row} was sent again, and nothing had crashed"
        for one, next_one in pairwise(attempts):
            if (
                one.rejected
                and one.execution == next_one.execution
                and (one.row, one.members) == (next_one.row, next_one.members)
            ):
                yield f"{lane}: row {one.row} was sent again after a refusal"
    for execution in history.executions[:-1]:
        lost = _without_result(facts, execution)
        clean = execution.crashed_s is None and not _lost_its_disk(execution)
        if len(lost) > (0 if clean else execution.max_in_flight):
            yield f"{len(lost)} requests have no result after execution {execution.number}"


def _without_result(facts: Facts, execution: Execution) -> set[tuple[int, str]]:
    """The rows whose requests may have been applied and whose results are not on the disk."""
    later = facts.history.executions[execution.number + 1].before[len(execution.before) :]
    settled = {line.key for line in later}
    return {
        (each.row, each.operation)
        for each in facts.history.attempts
        if each.execution == execution.number
        and (each.row, each.operation) not in settled
        and (each.ended_s is None or each.succeeded)
    }


def honest_resume(facts: Facts) -> Iterator[str]:
    """A resume says how many requests may have been sent already, and no more were."""
    for resumed in facts.history.executions[1:]:
        lost = len(_applied_without_result(facts, resumed))
        said = [_MAY_HAVE_BEEN_SENT.search(each) for each in resumed.said]
        claimed = sum(int(found[1].replace(",", "")) for found in said if found)
        if any("to go" in each for each in resumed.said) and claimed < lost:
            yield f"execution {resumed.number} says {claimed}, and {lost} were"


def _applied_without_result(facts: Facts, resumed: Execution) -> set[tuple[int, str]]:
    """What was applied before an execution began, and has no result; of a retry, no new one."""
    before = facts.history.executions[: resumed.number]
    retries = [each for each in before if each.command == "retry"]
    begun_s = retries[0].begun_s if retries and resumed.command == "retry" else 0.0
    n_lines = len(retries[0].before) if retries and resumed.command == "retry" else 0
    if resumed.command == "retry" and not retries:
        return set()
    applied = {
        (arrival.row, arrival.operation)
        for _, arrival in facts.applied
        if begun_s <= arrival.at_s < resumed.begun_s
    }
    return applied - {line.key for line in resumed.before[n_lines:]}


def stops_when_told(facts: Facts) -> Iterator[str]:
    """Nothing is begun after the first signal, and what hangs is waited for no longer than due."""
    for execution in facts.history.executions:
        if execution.stop_s is None:
            continue
        late = [
            each
            for each in facts.history.attempts
            if each.execution == execution.number and each.begun_s > execution.stop_s
        ]
        if late:
            yield f"execution {execution.number} began {len(late)} requests after it was stopped"
        took_s = execution.ended_s - execution.stop_s
        # An answer that comes at the last moment, and threads that are slow now and then.
        limit_s = facts.scenario.read_timeout_s + 100 * facts.scenario.thread_s + 2
        if execution.crashed_s is None and took_s > limit_s:
            yield f"execution {execution.number} took {took_s:.1f} s to stop"


def true_progress(facts: Facts) -> Iterator[str]:
    """What the display counted is what the summary says."""
    for execution in facts.history.executions:
        summary, progress = execution.summary, execution.progress
        if summary is None:
            continue
        shown = {outcome.value: count for outcome, count in progress.outcomes.items()}
        if shown != summary.outcomes or progress.settled != sum(shown.values()):
            yield f"execution {execution.number} shows {shown}, says {summary.outcomes}"


def _lost_its_disk(execution: Execution) -> bool:
    ending = execution.ending
    return ending is not None and ending.kind in ("disk", "cancel", "deadline")


def durable_before_freed(facts: Facts) -> Iterator[str]:
    """A slot and a contact are free when the result is on the disk, and not before."""
    durable_at = facts.history.durable_first_s
    open_now: list[Attempt] = []
    for attempt in facts.history.attempts:
        mine = [each for each in open_now if each.execution == attempt.execution]
        open_now = [
            each
            for each in mine
            if each.ended_s is None
            or each.ended_s > attempt.begun_s
            or (
                each.succeeded
                and durable_at.get((each.execution, each.row, each.operation), float("inf"))
                > attempt.begun_s + SLACK_S
            )
        ]
        for each in open_now:
            if each.lane == attempt.lane:
                yield f"row {attempt.row} was sent before row {each.row} was settled"
        open_now.append(attempt)
        if len(open_now) > facts.history.executions[attempt.execution].max_in_flight:
            yield f"{len(open_now)} requests were open or unsettled at once"


def within_the_rate(facts: Facts) -> Iterator[str]:
    """No more requests are begun than the ceiling allows, in any stretch of time."""
    scenario = facts.scenario
    rate_per_s = scenario.rate
    if rate_per_s == "auto":
        return
    if rate_per_s == "quota":
        # A quota that changes only falls here; where nobody can be asked it is the documented 10.
        share = 1.0 if scenario.exclusive else 0.8
        rate_per_s = max(scenario.service_rate_per_s, 10.0) * share
    burst = max(2.0, 0.05 * rate_per_s)
    begun: dict[tuple[int, str], list[float]] = defaultdict(list)
    for attempt in facts.history.attempts:
        begun[attempt.execution, attempt.operation].append(attempt.begun_s)
    highest_per_s = rate_per_s
    for key, times in begun.items():
        rate_per_s = highest_per_s
        execution, operation = key
        claimed = _claimed_per_s(facts.history.executions[execution].said, operation)
        if claimed is not None:
            if claimed > rate_per_s + 0.1:
                yield f"execution {execution} allows itself {claimed} of {rate_per_s} a second"
            rate_per_s = claimed + 0.05  # as it is rounded
        # The largest sum of (1 - rate * gap) over a stretch: one pass.
        level = 0.0
        before = times[0]
        for at_s in times:
            level = max(0.0, level - (at_s - before) * rate_per_s) + 1
            before = at_s
            if level > burst + 1e-3:
                yield f"execution {key[0]} overdrew its tokens of {key[1]} by {level - burst:.3f}"
                break


def _claimed_per_s(said: list[str], operation: str) -> float | None:
    """The ceiling that an execution says it has."""
    found = [_CEILING.match(each) for each in said if each.startswith(f"{operation}: ")]
    return next((float(each[1].replace(",", "")) for each in found if each), None)


def all_given_back(facts: Facts) -> Iterator[str]:
    """No execution leaves a task, a slot or a lane behind."""
    for execution in facts.history.executions:
        for left in execution.left_over:
            yield f"execution {execution.number}: {left}"


def private(facts: Facts) -> Iterator[str]:
    """Nobody else may read what a run writes."""
    for name, mode in facts.history.modes.items():
        if mode & 0o077:
            yield f"{name} has mode {mode:o}"


def one_at_a_time(facts: Facts) -> Iterator[str]:
    """A second process in the same directory is refused."""
    if facts.history.rival_refused is False:
        yield "it was let in"


def only_failed_again(facts: Facts) -> Iterator[str]:
    """A retry sends rows that FAILED, with a code that was asked for, and replaces no others."""
    executions = facts.history.executions
    for attempt in facts.history.attempts:
        execution = executions[attempt.execution]
        key = attempt.row, attempt.operation
        if execution.command == "retry" and not execution.sends_again(key):
            yield f"row {attempt.row} was sent again, and was {execution.standing.get(key)}"
    for key, course in facts.courses.items():
        for record in course[1:]:
            execution = facts.execution_of(record)
            if execution.command == "retry" and not execution.sends_again(key):
                yield f"{key} was {execution.standing.get(key)}, and is {record['outcome']}"


def every_failed_again(facts: Facts) -> Iterator[str]:
    """A retry that ends by itself has a new result for every row that it is to send again."""
    for execution in facts.history.executions:
        if execution.summary is None or execution.summary.state != "finished":
            continue
        renewed = {
            key
            for key, course in facts.courses.items()
            if any(facts.execution_of(record) is execution for record in course)
        }
        for key in filter(execution.sends_again, execution.standing.keys() - renewed):
            yield f"{key} has no new result after execution {execution.number}"


def later_rows_stand(facts: Facts) -> Iterator[str]:
    """What is sent late leaves out what later rows wrote; with nothing left it is SUPERSEDED."""
    for attempt in facts.history.attempts:
        execution = facts.history.executions[attempt.execution]
        if execution.command == "retry":
            yield from _undone_by(facts, attempt, execution)
    for (row, operation), course in facts.courses.items():
        record = course[-1]
        execution = facts.execution_of(record)
        if record["outcome"] != SUPERSEDED or execution.command != "retry":
            continue
        left = facts.written_due(row, operation).keys()
        left -= facts.written_later(row, operation, execution.standing)
        if left:
            yield f"row {row} is SUPERSEDED, and nothing later wrote {left}"
        for attempt in facts.lanes[operation, facts.scenario.rows[row - 1].contact]:
            if (attempt.execution, attempt.row) == (execution.number, row):
                yield f"row {row} is SUPERSEDED, and was sent"


def _undone_by(facts: Facts, attempt: Attempt, execution: Execution) -> Iterator[str]:
    """What a late request writes that no row which it is sent for may write any more."""
    operation = attempt.operation
    written = written_by(operation, attempt.members)
    if not written:
        yield f"row {attempt.row} was sent, and writes nothing"
    rows = [
        (facts.written_due(row, operation), facts.written_later(row, operation, execution.standing))
        for row in facts.rows_of(attempt.contact)
        if row <= attempt.row and execution.sends_again((row, operation))
    ]
    for key, value in written.items():
        if not any(due.get(key) == value and key not in later for due, later in rows):
            yield f"row {attempt.row} was sent with {key}, which a later row wrote"


def unchanged_is_so(facts: Facts) -> Iterator[str]:
    """UNCHANGED is each row, and only such, that the older run applied for certain as it is.

    Where a contact has one row in the newer export, and the last row of the older one that was
    sent for it says the same, is UPDATED, and no row of the contact was left.
    """
    if facts.older is None:
        return
    for (row, operation), due in facts.due.items():
        outcome = facts.outcome(row, operation)
        if isinstance(due, str) or outcome is None:
            continue
        contact = facts.scenario.rows[row - 1].contact
        n_rows = sum(not isinstance(facts.due[n, operation], str) for n in facts.rows_of(contact))
        is_same = n_rows == 1 and due == _last_applied(facts.older, contact, operation)
        if outcome == UNCHANGED and not is_same:
            yield f"row {row} is UNCHANGED for {operation}, and nobody applied it"
        elif outcome == UNCHANGED and _is_in_doubt(facts.older, contact, operation):
            yield f"row {row} is UNCHANGED for {operation}, and something else may be applied"
        elif outcome != UNCHANGED and is_same and not _is_left(facts.older, contact, operation):
            yield f"row {row} is {outcome} for {operation}, and was applied before"
    for attempt in facts.history.attempts:
        if facts.outcome(attempt.row, attempt.operation) == UNCHANGED:
            yield f"row {attempt.row} is UNCHANGED, and was sent"


def _last_applied(older: Facts, contact: str, operation: str) -> Any:
    """What the last row of a contact says that was sent to its end; None where it FAILED."""
    for row in reversed(older.rows_of(contact)):
        outcome = older.outcome(row, operation)
        if outcome in ("UPDATED", "FAILED"):
            return older.due[row, operation] if outcome == "UPDATED" else None
    return None


def _is_left(older: Facts, contact: str, operation: str) -> bool:
    return any(older.is_dropped(row, operation) for row in older.rows_of(contact))


def _is_in_doubt(older: Facts, contact: str, operation: str) -> bool:
    """Whether something that has no result was applied for a contact."""
    return any(
        (arrival.operation, arrival.contact) == (operation, contact)
        and older.is_dropped(arrival.row, operation)
        for _, arrival in older.applied
    )


def drops_what_is_left(facts: Facts) -> Iterator[str]:
    """What an older run had left is SUPERSEDED in its ledger, once, and nothing else is changed."""
    if not facts.is_superseded:
        return
    for key in facts.due.keys() | facts.courses.keys():
        course = facts.courses.get(key, [])
        new = [each["outcome"] for each in course if each["line"] >= facts.n_lines_left]
        if new != ([] if key in facts.left else [SUPERSEDED]):
            yield f"{key} was {facts.left.get(key)}, and became {new}"


def takes_over_first(facts: Facts) -> Iterator[str]:
    """Before anything of the newer export is sent, that is durable, and the older run notes it."""
    if facts.older is None:
        return
    for execution in facts.history.executions:
        if execution.older is None:
            continue
        ledger, note = execution.older
        if ledger != facts.older.history.ledger:
            yield f"execution {execution.number} sent before the older ledger was complete"
        if note.get("superseded_by", {}).get("run_id") != facts.history.note["run_id"]:
            yield f"execution {execution.number} sent before the older run noted it"


def older_is_silent(facts: Facts) -> Iterator[str]:
    """Once something of the newer export was sent, nothing of the older one is any more."""
    if facts.older is None or not facts.history.attempts:
        return
    begun_s = facts.history.attempts[0].begun_s
    for attempt in facts.older.history.attempts:
        if attempt.begun_s >= begun_s:
            yield f"row {attempt.row} of the older export was sent"
    for execution in facts.older.history.executions:
        if execution.begun_s >= begun_s and "took over" not in (execution.error or ""):
            yield f"a {execution.command} of the older export ended with {execution.error}"


PROMISES = (
    ends,
    whole_ledger,
    one_result_each,
    right_outcome,
    truthful_summary,
    updated_means_applied,
    right_state,
    bad_rows_are_not_sent,
    failed_for_a_reason,
    figures_are_right,
    summaries_count_what_was_sent,
    in_order,
    never_undone,
    nothing_twice,
    honest_resume,
    stops_when_told,
    true_progress,
    durable_before_freed,
    within_the_rate,
    all_given_back,
    private,
    one_at_a_time,
    only_failed_again,
    every_failed_again,
    later_rows_stand,
    unchanged_is_so,
    drops_what_is_left,
    takes_over_first,
    older_is_silent,
)
