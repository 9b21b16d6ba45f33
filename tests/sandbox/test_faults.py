"""What goes wrong: by chance, in the shares that were told, or as a test scripts it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
)

from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.sandbox.answers import Answer
from bulk_updater.sandbox.faults import CONFLICT, DROP_AFTER, DROP_BEFORE, ERROR, HTML, Fault

from .helpers import get_json, sdk

OPEN = {"latency_ms": 0, "rate_per_s": 1e6, "burst": 1e6}


async def attempt(connect, contact_id: str = "c") -> str:
    """One write; gives what the SDK made of it."""
    try:
        answer = await connect.update_contact(InstanceId="i", ContactId=contact_id, Name="n")
    except ClientError as error:
        return error.response["Error"]["Code"]
    except HTTPClientError as error:
        return type(error).__name__
    return "ok" if "RequestId" in answer["ResponseMetadata"] else "no id"


@pytest.mark.parametrize(
    ("share", "seen", "applied"),
    [
        ("error_share", "InternalServiceException", 0),
        ("drop_before_share", "ConnectionClosedError", 0),
        ("drop_after_share", "ConnectionClosedError", 1),
        ("conflict_share", "ConflictException", 0),
        ("html_share", "503", 0),
    ],
)
async def test_each_fault_looks_to_the_sdk_as_the_real_one(share, seen, applied):
    """The SDK sees each fault as it would at AWS; only a drop `after` has been carried out."""
    config = SandboxConfig(**OPEN, **{share: 1.0})
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        assert await attempt(connect) == seen
    counters = sandbox.counters["update_contact"]
    assert counters.faults == {share.removesuffix("_share"): 1}
    assert counters.accepted == applied
    assert len(sandbox.state.log) == applied


async def test_a_fault_says_what_the_service_says(connect_with):
    """Status, code and message of the modelled faults are those of the model."""
    expected = (
        (ERROR, 500, "Request processing failed because of an internal error."),
        (
            CONFLICT,
            409,
            (
                "Operation cannot be performed at this time as there is a conflict with another "
                "operation or contact state."
            ),
        ),
    )
    for fault, status, message in expected:
        async with connect_with(lambda *_, fault=fault: fault) as connect:
            with pytest.raises(ClientError) as caught:
                await connect.update_contact(InstanceId="i", ContactId="c", Name="n")
        response = caught.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert response["Error"]["Message"] == message
        assert response["ResponseMetadata"]["RequestId"]


async def test_an_answer_that_breaks_off_is_no_success(connect_with):
    """The request was carried out, and half of `{}` is no answer to the SDK."""
    fault = Fault(kind="half", applied=True, breaks_off=True)
    async with connect_with(lambda *_: fault) as connect:
        with pytest.raises(ConnectionClosedError):
            await connect.update_contact(InstanceId="i", ContactId="c", Name="n")
        assert len(connect.sandbox.state.log) == 1
        assert connect.sandbox.counters["update_contact"].faults == {"half": 1}


@pytest.mark.looptime
async def test_an_answer_that_is_late_tells_of_what_was_done_long_ago(connect_with):
    """Applied at once, answered after a minute: `delay_s` would have come before both."""
    clock = asyncio.get_running_loop().time
    begun_s = clock()
    async with connect_with(lambda *_: Fault(kind="late", late_s=50)) as connect:
        await connect.update_contact(InstanceId="i", ContactId="c", Name="n")
        (write,) = connect.sandbox.state.log
    assert write.finished_s - begun_s < 1
    assert 50 <= clock() - begun_s < 51


@pytest.fixture
def connect_with():
    """A client of a sandbox with a script of its own."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def open_one(fault):
        async with (
            Sandbox(SandboxConfig(**OPEN), fault=fault) as sandbox,
            sdk(sandbox) as connect,
        ):
            connect.sandbox = sandbox
            yield connect

    return open_one


async def test_shares_are_kept_and_every_request_is_accounted_for():
    """Of 600 requests each kind of fault takes its share, and the numbers add up."""
    shares = {
        "error_share": 0.1,
        "drop_before_share": 0.1,
        "drop_after_share": 0.1,
        "conflict_share": 0.2,
        "html_share": 0.1,
    }
    config = SandboxConfig(latency_ms=0, rate_per_s=0.001, burst=500, seed=3, **shares)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        seen = Counter([await attempt(connect) for _ in range(600)])
        shown = (await get_json(sandbox, "/_sandbox/counters"))["update_contact"]
    counters = sandbox.counters["update_contact"]
    for share, expected in shares.items():
        assert counters.faults[share.removesuffix("_share")] / 500 == pytest.approx(
            expected, abs=0.05
        )
    not_applied = counters.faults.total() - counters.faults["drop_after"]
    assert counters.received == 600
    assert counters.throttled == seen["ThrottlingException"] == 100
    assert counters.received == counters.accepted + counters.throttled + not_applied
    assert counters.accepted == seen["ok"] + counters.faults["drop_after"]
    assert len(sandbox.state.log) == counters.accepted
    assert shown == counters.to_json()
    assert shown["in_flight"] == 0


async def test_conflicts_are_of_update_contact_alone():
    """No other operation models ConflictException, so no other gets it."""
    config = SandboxConfig(**OPEN, conflict_share=1.0)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        for _ in range(5):
            await connect.update_contact_attributes(
                InstanceId="i", InitialContactId="c", Attributes={"a": "1"}
            )
            assert await attempt(connect) == "ConflictException"


async def test_service_quotas_do_not_fail_by_chance():
    """The shares are of Connect's requests; GetServiceQuota is left alone."""
    config = SandboxConfig(**OPEN, error_share=1.0)
    async with Sandbox(config) as sandbox, sdk(sandbox, "service-quotas") as client:
        for _ in range(5):
            await client.get_service_quota(ServiceCode="connect", QuotaCode="L-F001E5ED")


async def test_a_script_chooses_by_operation_and_members(connect_with):
    """A test sees operation, ids and members of each request, and names its fault."""
    asked = []

    def script(operation, members):
        asked.append((operation, members))
        return ERROR if members.get("ContactId") == "b/d" else None

    async with connect_with(script) as connect:
        assert [await attempt(connect, contact) for contact in ("a", "b/d", "c")] == [
            "ok",
            "InternalServiceException",
            "ok",
        ]
        await connect.get_contact_attributes(InstanceId="i", InitialContactId="x")
    assert asked[1] == ("update_contact", {"InstanceId": "i", "ContactId": "b/d", "Name": "n"})
    assert asked[3] == ("get_contact_attributes", {"InstanceId": "i", "InitialContactId": "x"})


async def test_a_script_may_fail_a_request_and_let_its_retry_pass(connect_with):
    """Faults in turn: dropped before, dropped after, HTML, then well; applied twice."""
    turns = iter([DROP_BEFORE, DROP_AFTER, HTML, None])
    async with connect_with(lambda *_: next(turns)) as connect:
        seen = [await attempt(connect) for _ in range(4)]
        log = list(connect.sandbox.state.log)
    assert seen == ["ConnectionClosedError", "ConnectionClosedError", "503", "ok"]
    assert len(log) == 2


async def test_a_script_may_answer_for_somebody_in_between(connect_with):
    """A proxy's page: 200, HTML, no request id; to the SDK it looks like success."""
    page = Answer(body=b"<html>log in</html>", headers={"Content-Type": "text/html"})
    portal = Fault(
        kind="portal", answer=Answer(body=page.body, headers=page.headers, identified=False)
    )
    async with connect_with(lambda *_: portal) as connect:
        assert await attempt(connect) == "no id"
        assert connect.sandbox.state.instances == {}
        assert connect.sandbox.counters["update_contact"].faults == {"portal": 1}


async def test_an_error_after_the_request_was_applied(connect_with):
    """A fault may be carried out and still answer with an error."""
    late = Fault(kind="error_after", answer=ERROR.answer, applied=True)
    async with connect_with(lambda *_: late) as connect:
        assert await attempt(connect) == "InternalServiceException"
        assert await attempt(connect, "missing") == "InternalServiceException"
        counters = connect.sandbox.counters["update_contact"]
    assert counters.faults == {"error_after": 2}
    assert counters.accepted == 1
    assert counters.rejected == {"ResourceNotFoundException": 1}


@pytest.mark.looptime
async def test_a_slow_request_is_carried_out_though_its_client_gave_up():
    """A client whose read timeout runs out does not know it, but the write is there later."""
    slow = Fault(kind="slow", delay_s=30)
    config = SandboxConfig(**OPEN)
    async with Sandbox(config, fault=lambda *_: slow) as sandbox, sdk(sandbox) as connect:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(attempt(connect), 5)
        assert sandbox.state.instances == {}
        assert sandbox.counters["update_contact"].in_flight == 1
        await asyncio.sleep(26)
        assert sandbox.state.contact("i", "c").name == "n"
        assert sandbox.counters["update_contact"].in_flight == 0


async def test_dropped_connections_leave_the_others_alone():
    """Of twenty requests at once every second is dropped; the others succeed."""

    def script(_, members):
        return DROP_BEFORE if int(members["ContactId"]) % 2 else None

    config = SandboxConfig(**OPEN | {"latency_ms": 5})
    async with Sandbox(config, fault=script) as sandbox, sdk(sandbox) as connect:
        seen = await asyncio.gather(*(attempt(connect, str(n)) for n in range(20)))
    assert seen == ["ok", ConnectionClosedError.__name__] * 10
    assert sorted(sandbox.state.instances["i"], key=int) == [str(n) for n in range(0, 20, 2)]
