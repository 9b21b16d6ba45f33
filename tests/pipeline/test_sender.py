"""The sender: bounded, in order for each contact, merged where requests wait, never lying."""

from __future__ import annotations

import asyncio

import pytest

from bulk_updater.config import MaxFailures
from bulk_updater.errors import (
    AccessError,
    LedgerWriteError,
    RequestRejected,
    RunStopped,
    Throttled,
    TransientError,
)
from bulk_updater.model import Outcome, Progress
from tests.pipeline.fakes import FakeConnect, FakeLedger, attributes_request, make_sender

pytestmark = pytest.mark.looptime


def rejected(code: str = "ResourceNotFoundException") -> RequestRejected:
    return RequestRejected("Connect knows no such contact.", code=code, http_status=404)


def denied() -> AccessError:
    return AccessError(
        "the role lacks a permission.", code="AccessDeniedException", http_status=403
    )


async def send_all(sender, requests):
    for request in requests:
        await sender.submit(request)
    await sender.drain()


async def send_first_then(sender, first, later):
    """The later requests come while the first one is in flight."""
    await sender.submit(first)
    await asyncio.sleep(0.01)
    await send_all(sender, later)


async def test_every_request_is_settled_once():
    """A hundred contacts end in a hundred results and a hundred attempts."""
    connect, ledger = FakeConnect(), FakeLedger()
    progress = Progress()
    sender = make_sender(connect, ledger, progress, max_in_flight=8)
    await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 101)])
    assert len(connect.calls) == 100
    assert sorted(result.row for result in ledger.results) == list(range(1, 101))
    assert {result.outcome for result in ledger.results} == {Outcome.UPDATED}
    assert progress.settled == progress.outcomes[Outcome.UPDATED] == 100
    assert progress.in_flight == 0


async def test_never_more_in_flight_than_allowed_and_all_of_it_is_used():
    """With eight slots, eight requests are open at once, and never nine."""
    connect = FakeConnect()
    sender = make_sender(connect, FakeLedger(), max_in_flight=8)
    await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 101)])
    assert connect.peak == 8


async def test_the_reader_is_never_further_ahead_than_the_slots():
    """A submit waits for a slot, so at most the slots' number of requests is held."""
    connect = FakeConnect()
    sender = make_sender(connect, FakeLedger(), max_in_flight=5)
    submitted = 0

    async def feed():
        nonlocal submitted
        for row in range(1, 51):
            await sender.submit(attributes_request(row, f"c{row}"))
            submitted += 1

    feeding = asyncio.create_task(feed())
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert submitted <= len(connect.applied) + 5
    await feeding
    await sender.drain()


async def test_rows_of_one_contact_are_applied_in_order_and_alone():
    """Ten rows of one contact never overlap, and the last one's value stands."""
    connect, ledger = FakeConnect(), FakeLedger()
    sender = make_sender(connect, ledger, max_in_flight=8)
    rows = [attributes_request(row, "one", value=str(row)) for row in range(1, 11)]
    others = [attributes_request(row, f"c{row}") for row in range(11, 31)]
    await send_all(sender, [*rows, *others])
    assert connect.overlaps == 0
    assert connect.state()["one"] == {"value": "10"}
    assert len(ledger.results) == 30


async def test_waiting_rows_go_as_one_request_and_each_has_its_result():
    """While row 1 is in flight, rows 2 to 5 gather and become one request, carried by row 5."""
    connect, ledger = FakeConnect(), FakeLedger()
    sender = make_sender(connect, ledger)
    rows = [
        attributes_request(row, "one", **{f"k{row}": "v", "last": str(row)}) for row in range(1, 6)
    ]
    await send_first_then(sender, rows[0], rows[1:])
    assert len(connect.calls) == 2
    results = ledger.by_row()
    assert [results[row].merged_into for row in range(1, 6)] == [None, 5, 5, 5, None]
    assert {result.outcome for result in results.values()} == {Outcome.UPDATED}
    assert connect.state()["one"] == {
        "k1": "v",
        "k2": "v",
        "k3": "v",
        "k4": "v",
        "k5": "v",
        "last": "5",
    }
    assert results[2].request_id == results[5].request_id
    assert results[2].attribute_names == ("k2", "last")
    assert set(results[5].attribute_names) == {"k5", "last"}
    assert [results[row].attempts for row in (2, 5)] == [0, 1]


async def test_merged_results_are_appended_in_the_rows_order():
    """A torn tail may cut later rows of a merge, never the earlier ones alone."""
    connect, ledger = FakeConnect(), FakeLedger()
    sender = make_sender(connect, ledger)
    await send_all(sender, [attributes_request(row, "one") for row in range(1, 6)])
    assert [result.row for result in ledger.results] == [1, 2, 3, 4, 5]


async def test_rows_that_would_be_too_large_together_are_not_merged():
    """Two rows of 20,000 bytes each exceed a contact's limit together: two requests."""
    connect, ledger = FakeConnect(), FakeLedger()
    sender = make_sender(connect, ledger)
    first = attributes_request(1, "one")
    large = [attributes_request(row, "one", **{f"k{row}": "x" * 20_000}) for row in (2, 3)]
    await send_first_then(sender, first, large)
    assert len(connect.calls) == 3
    assert [result.merged_into for result in ledger.results] == [None, None, None]


async def test_a_merged_request_that_is_refused_is_taken_apart():
    """What one row asks for fails that row alone, not those that it was merged with."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda request: (
        rejected("InvalidRequestException") if "bad" in request.params["Attributes"] else None
    )
    sender = make_sender(connect, ledger)
    rows = [
        attributes_request(1, "one"),
        attributes_request(2, "one", a="2"),
        attributes_request(3, "one", bad="3"),
        attributes_request(4, "one", a="4"),
    ]
    await send_first_then(sender, rows[0], rows[1:])
    outcomes = {row: result.outcome for row, result in ledger.by_row().items()}
    assert outcomes == {
        1: Outcome.UPDATED,
        2: Outcome.UPDATED,
        3: Outcome.FAILED,
        4: Outcome.UPDATED,
    }
    assert connect.state()["one"] == {"row": "1", "a": "4"}
    # Row 1, the merged three, and each of the three for itself.
    assert len(connect.calls) == 5


async def test_two_operations_on_one_contact_do_not_wait_for_each_other():
    """Order is kept for each operation by itself: the two are applied side by side."""
    connect, ledger = FakeConnect(), FakeLedger()
    sender = make_sender(connect, ledger)
    one = attributes_request(1, "one")
    other = attributes_request(1, "one")
    object.__setattr__(other, "operation", "update_contact")
    object.__setattr__(other, "params", {"InstanceId": "i", "ContactId": "one", "Name": "n"})
    connect.script = lambda _request: None
    began = asyncio.get_running_loop().time()
    await sender.submit(one)
    await sender.submit(other)
    await sender.drain()
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.1, abs=0.01)
    assert len(ledger.results) == 2


async def test_a_contact_is_freed_when_its_result_is_durable_and_not_before():
    """The second row of a contact is sent only after the first one's append has returned."""
    connect, ledger = FakeConnect(latency_s=0.1), FakeLedger(latency_s=1.0)
    sender = make_sender(connect, ledger, max_in_flight=1)
    starts = []
    connect.script = lambda _request: starts.append(asyncio.get_running_loop().time())
    await send_all(sender, [attributes_request(1, "one"), attributes_request(2, "two")])
    assert starts[1] - starts[0] == pytest.approx(1.1, abs=0.01)


async def test_read_ahead_behind_one_contact_is_bounded():
    """Rows that wait for a slow contact are held up to `max_waiting`; then the reader waits."""
    connect, ledger = FakeConnect(latency_s=10.0), FakeLedger()
    sender = make_sender(connect, ledger, max_waiting=7)
    submitted = 0

    async def feed():
        nonlocal submitted
        for row in range(2, 31):
            await sender.submit(attributes_request(row, "one", value=str(row)))
            submitted += 1

    await sender.submit(attributes_request(1, "one"))
    await asyncio.sleep(0.1)
    feeding = asyncio.create_task(feed())
    await asyncio.sleep(5)
    assert submitted == 7
    await feeding
    await sender.drain()
    assert len(ledger.results) == 30
    assert connect.state()["one"] == {"row": "1", "value": "30"}


async def test_halting_settles_what_is_under_way_and_begins_nothing():
    """After a halt the open attempts end with results; what waited has none."""
    connect, ledger = FakeConnect(latency_s=1.0), FakeLedger()
    sender = make_sender(connect, ledger, max_in_flight=4)
    for row in range(1, 5):
        await sender.submit(attributes_request(row, f"c{row}"))
    await asyncio.sleep(0.5)
    await sender.submit(attributes_request(5, "c1"))
    sender.halt()
    await sender.submit(attributes_request(6, "c6"))
    await sender.drain()
    assert sorted(result.row for result in ledger.results) == [1, 2, 3, 4]
    assert len(connect.calls) == 4


async def test_halting_does_not_wait_for_backoffs():
    """A request that sleeps between two attempts stays unsettled, at once."""
    connect, ledger = FakeConnect(latency_s=0.0), FakeLedger()
    connect.script = lambda _request: TransientError("down.", code="500", retry_after_s=600.0)
    sender = make_sender(connect, ledger)
    await sender.submit(attributes_request(1, "c1"))
    await asyncio.sleep(1)
    sender.halt()
    began = asyncio.get_running_loop().time()
    await sender.drain()
    assert asyncio.get_running_loop().time() == began
    assert ledger.results == []


async def test_an_error_of_the_whole_run_leaves_what_was_in_flight_unsettled():
    """Expired credentials end the run; no row becomes FAILED by them."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda request: (
        AccessError("expired.", code="UnrecognizedClientException", http_status=403)
        if request.row > 10
        else None
    )
    sender = make_sender(connect, ledger, max_in_flight=4)
    with pytest.raises(RunStopped):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 101)])
    assert sorted(result.row for result in ledger.results) == list(range(1, 11))
    assert len(connect.calls) <= 10 + 4


async def test_denials_before_any_success_stop_the_run_with_no_row_settled():
    """A role without the permission is denied everything: fifty tries, no result."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda _request: denied()
    sender = make_sender(connect, ledger, max_in_flight=8)
    with pytest.raises(RunStopped, match="AccessDeniedException on the first 50 requests: "):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 1001)])
    assert ledger.results == []
    assert len(connect.calls) <= 50 + 8


@pytest.mark.parametrize("n_rows", [1, 3])
async def test_a_short_file_that_is_denied_stops_the_run_too(n_rows):
    """With nothing left to hear of, a few denials are enough."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda _request: denied()
    sender = make_sender(connect, ledger)
    with pytest.raises(RunStopped, match="AccessDeniedException on the first "):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, n_rows + 1)])
    assert ledger.results == []


async def test_a_denied_contact_with_many_rows_does_not_hang_the_run():
    """When the reader waits behind a denied contact and nothing else is open, the run stops."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda _request: denied()
    sender = make_sender(connect, ledger, max_waiting=5)
    with pytest.raises(RunStopped, match="AccessDeniedException on the first "):
        await send_all(sender, [attributes_request(row, "one") for row in range(1, 101)])
    assert ledger.results == []


async def test_the_first_denial_can_be_enough_and_what_is_in_flight_is_settled():
    """With a limit of one the run stops at the first denial; who was not denied has a result."""
    connect, ledger = FakeConnect(), FakeLedger(latency_s=1.0)
    connect.script = lambda request: denied() if request.row == 1 else None
    sender = make_sender(connect, ledger, max_failures=MaxFailures(in_a_row=1, share=None))
    with pytest.raises(RunStopped, match="AccessDeniedException on the first request: "):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 4)])
    assert sorted(ledger.by_row()) == [2, 3]


async def test_a_denial_beside_successes_fails_its_own_row():
    """A conditioned policy may deny single contacts: those are FAILED, the others go on."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda request: denied() if request.row in (1, 2, 7) else None
    sender = make_sender(connect, ledger, max_in_flight=1)
    await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 11)])
    failed = [row for row, result in ledger.by_row().items() if result.outcome is Outcome.FAILED]
    assert sorted(failed) == [1, 2, 7]
    assert len(ledger.results) == 10


def lost_then_denied(n_rows: int):
    """The first answer of these rows is lost, and every further attempt denied."""
    tried = set()

    def script(request):
        if request.row > n_rows:
            return None
        if request.row in tried:
            return denied()
        tried.add(request.row)
        return TransientError("no answer.", code="ReadTimeoutError")

    return script


async def test_a_denied_request_that_may_have_been_applied_keeps_its_slot():
    """Two of two slots are taken by such: the run stops, and no more than two are in doubt."""
    connect, ledger = FakeConnect(script=lost_then_denied(2)), FakeLedger()
    sender = make_sender(connect, ledger, max_in_flight=2)
    with pytest.raises(RunStopped, match="AccessDeniedException on the first 2 requests: "):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 11)])
    assert ledger.results == []
    assert sender.n_in_doubt == 2
    assert {request.row for request in connect.calls} == {1, 2}


async def test_with_a_slot_left_such_requests_wait_for_a_success():
    """A third slot goes on: its success fails the two rows, and nothing is in doubt any more."""
    connect, ledger = FakeConnect(script=lost_then_denied(2)), FakeLedger()
    sender = make_sender(connect, ledger, max_in_flight=3)
    await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 11)])
    failed = [row for row, result in ledger.by_row().items() if result.outcome is Outcome.FAILED]
    assert (sorted(failed), len(ledger.results), sender.n_in_doubt) == ([1, 2], 10, 0)


async def test_failures_in_a_row_with_one_code_stop_the_run():
    """The breaker: fifty rows in a row FAILED with one code are enough, and they have results."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda _request: rejected()
    sender = make_sender(connect, ledger, max_in_flight=4)
    with pytest.raises(RunStopped, match="ResourceNotFoundException on 50 requests in a row: "):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 1001)])
    assert 50 <= len(ledger.results) < 50 + 4
    assert {result.outcome for result in ledger.results} == {Outcome.FAILED}


async def test_the_breaker_can_be_turned_off():
    """With no limit, a hundred failures are a hundred results."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda _request: rejected()
    sender = make_sender(connect, ledger, max_failures=MaxFailures(in_a_row=None, share=None))
    await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 101)])
    assert len(ledger.results) == 100


async def test_throttling_costs_a_row_nothing_but_time():
    """Twenty throttled attempts, ten times the attempts allowed, and the row is UPDATED."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda _request: (
        Throttled("slow down.", code="TooManyRequestsException", http_status=429)
        if len(connect.calls) <= 20
        else None
    )
    progress = Progress()
    sender = make_sender(connect, ledger, progress)
    await send_all(sender, [attributes_request(1, "c1")])
    (result,) = ledger.results
    assert (result.outcome, result.attempts, result.throttled) == (Outcome.UPDATED, 1, 20)
    assert (progress.sent, progress.throttled) == (21, 20)


async def test_a_ledger_that_cannot_write_stops_sending_at_once():
    """After a failed append nothing new is sent; at most what was in flight was."""
    connect, ledger = FakeConnect(), FakeLedger()
    ledger.failure = LedgerWriteError("no space left.", path=__file__)
    sender = make_sender(connect, ledger, max_in_flight=4)
    with pytest.raises(LedgerWriteError):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 101)])
    assert len(connect.calls) <= 4


async def test_a_fault_of_our_own_is_not_swallowed():
    """An unexpected exception in a lane comes out of drain, and the run does not hang."""
    connect, ledger = FakeConnect(), FakeLedger()
    ledger.failure = ZeroDivisionError("a fault")
    sender = make_sender(connect, ledger, max_in_flight=2)
    with pytest.raises(ZeroDivisionError):
        await send_all(sender, [attributes_request(row, f"c{row}") for row in range(1, 11)])


async def test_a_halt_before_a_lane_has_begun_gives_its_slot_back():
    """Requests whose tasks never ran a step leave no lane, no slot and no result behind."""
    connect, ledger = FakeConnect(), FakeLedger()
    sender = make_sender(connect, ledger, max_in_flight=2)
    await sender.submit(attributes_request(1, "c1"))
    await sender.submit(attributes_request(2, "c2"))
    sender.halt()
    await sender.drain()
    assert (connect.calls, ledger.results) == ([], [])
    assert len(asyncio.all_tasks()) == 1


async def test_aborting_cancels_everything():
    """After an abort no task is left."""
    connect, ledger = FakeConnect(latency_s=100), FakeLedger()
    sender = make_sender(connect, ledger)
    for row in range(1, 5):
        await sender.submit(attributes_request(row, f"c{row}"))
    await asyncio.sleep(1)
    await sender.abort()
    assert len(asyncio.all_tasks()) == 1
    assert ledger.results == []


@pytest.mark.parametrize(
    "error",
    [
        TransientError("down.", code="500", retry_after_s=600.0),
        Throttled("busy.", code="TooManyRequestsException", retry_after_s=600.0),
    ],
)
async def test_an_attempt_under_way_at_the_halt_is_followed_by_no_wait(error):
    """It fails after the halt, and would be tried again: unsettled, without backoff or token."""
    connect, ledger = FakeConnect(latency_s=1.0, script=lambda _request: error), FakeLedger()
    sender = make_sender(connect, ledger)
    await sender.submit(attributes_request(1, "c1"))
    await asyncio.sleep(0.5)
    sender.halt()
    began = asyncio.get_running_loop().time()
    await sender.drain()
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.5, abs=0.01)
    assert (len(connect.calls), ledger.results) == (1, [])
