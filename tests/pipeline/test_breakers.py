"""A run that goes wrong as a whole says why in one sentence, loses no row, and can be gone on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bulk_updater.config import MaxFailures, PacingConfig, RetryConfig
from bulk_updater.connect import CODES
from bulk_updater.connect.advice import ADVICE
from bulk_updater.errors import AccessError, RequestRejected, RunStopped, Throttled
from bulk_updater.model import Outcome, Verdict
from bulk_updater.pipeline import run
from bulk_updater.pipeline.drought import DROUGHT_S, Drought
from bulk_updater.retry import TREATMENTS, verdict
from bulk_updater.sandbox import Sandbox
from bulk_updater.sandbox.answers import Answer
from bulk_updater.sandbox.faults import Fault

from .fakes import FakeConnect, FakeLedger, attributes_request, make_sender
from .helpers import INSTANCE, config_for, fast, ledger_of, people, read_table, write_export

pytestmark = pytest.mark.looptime


RESOURCE = f"arn:aws:connect:eu-west-1:*:instance/{INSTANCE}/contact/*"
AGAIN = "give the same command again"


def refusing(status: int, code: str | None = None, **headers: str) -> Fault:
    """An answer of the service's, or of something before it, instead of the sandbox's own."""
    said = {"message": "SERVICE-TEXT quotes the request"}
    kind = {"x-amzn-ErrorType": code} if code else {}
    return Fault(
        kind="refused",
        answer=Answer(status=status, body=json.dumps(said).encode(), headers={**kind, **headers}),
    )


class Faulty:
    """A fault script that can be mended.

    Attributes:
        fault: What requests meet; None once it is mended.
        met: Requests that met it, by contact.
    """

    def __init__(self, fault: Fault | None, *, only_row=lambda _number: True) -> None:
        self.fault = fault
        self.met: Counter[str] = Counter()
        self._only_row = only_row

    def __call__(self, operation: str, members: dict) -> Fault | None:
        if self.fault is None or not operation.startswith("update_contact"):
            return None
        contact = members.get("InitialContactId") or members["ContactId"]
        if not self._only_row(int(contact.rpartition("-")[2])):
            return None
        self.met[contact] += 1
        return self.fault


async def stopped_run(config) -> RunStopped:
    with pytest.raises(RunStopped) as stopped:
        await run(config)
    message = stopped.value.message
    assert "SERVICE-TEXT" not in message
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message  # one sentence
    return stopped.value


# ----------------------------------------------------------------------------------------------
# Run-wide errors, end to end

RUN_WIDE = [
    (403, "AccessDeniedException", "on the first 50 requests", f"on {RESOURCE}; allow it"),
    (401, "NotAuthorized", "on one request", "the role lacks connect:UpdateContactAttributes"),
    (403, None, "on the first 50 requests", "a proxy or a firewall in between, forbids"),
    (403, "ExpiredTokenException", "on 2 attempts at one request", "credentials have expired"),
    (403, "ExpiredToken", "on 2 attempts at one request", "credentials have expired"),
    (403, "UnrecognizedClientException", "on one request", "does not know the access key"),
    (403, "InvalidClientTokenId", "on one request", "does not know the access key"),
    (403, "InvalidSignatureException", "on 2 attempts at one request", "the secret key or the"),
    (403, "SignatureDoesNotMatch", "on one request", "does not belong to the access key"),
    (403, "IncompleteSignature", "on one request", "does not belong to the access key"),
    (400, "RequestExpired", "on one request", "does not belong to the access key"),
    (403, "MissingAuthenticationToken", "on one request", "without --no-sign-request"),
    (403, "OptInRequired", "on one request", "the account has not subscribed to Connect"),
    (404, "UnknownOperationException", "on one request", "does not know UpdateContactAttributes"),
    (400, "InvalidActiveRegionException", "on one request", "is active in another region"),
    (407, None, "on one request", "the proxy wants to know who asks"),
    (302, "Redirected", "on 8 attempts at one request", "perhaps to a log-in page"),
    (200, "UnexpectedAnswer", "on 8 attempts at one request", "what answers is not Connect"),
]


@pytest.mark.parametrize(
    ("status", "code", "where", "why"), RUN_WIDE, ids=[f"{row[0]} {row[1]}" for row in RUN_WIDE]
)
async def test_an_error_of_the_whole_run_costs_no_row(folder, status, code, where, why):
    """It stops with every row unsettled; without the fault the same command updates each once."""
    n_rows = 90 if "50" in where else 40
    write_export(folder, people(n_rows))
    fault = refusing(status, None if code in ("Redirected", "UnexpectedAnswer") else code)
    if code == "Redirected":
        fault = Fault(
            kind="login", answer=Answer(status=302, body=b"", headers={"Location": "/login"})
        )
    if code == "UnexpectedAnswer":
        page = b"<html><body>Please log in</body></html>"
        fault = Fault(
            kind="login",
            answer=Answer(status=200, body=page, headers={"Content-Type": "text/html"}),
        )
    faulty = Faulty(fault)
    async with Sandbox(fast(), fault=faulty) as sandbox:
        config = config_for(sandbox, folder)
        error = await stopped_run(config)
        label = str(status) if code is None else f"{status} {code}"
        assert error.message.startswith(f"{label} {where}: ")
        assert why in error.message
        assert AGAIN in error.message
        summary = error.summary
        assert (summary.state, summary.unsettled, summary.reason) == (
            "stopped",
            n_rows,
            error.message,
        )
        assert ledger_of(summary) == []
        assert summary.failed is None
        # Nobody asked more often than it takes to know: what was in flight, each row a few times.
        assert sum(faulty.met.values()) <= (50 + 32 if "50" in where else 32 * 8)
        faulty.fault = None
        finished = await run(config)
        assert finished.outcomes["UPDATED"] == n_rows
        assert Counter(write.contact_id for write in sandbox.state.log) == Counter(
            f"contact-{row}" for row in range(1, n_rows + 1)
        )
    assert len(ledger_of(finished)) == n_rows


async def test_credentials_that_end_in_the_middle_keep_what_is_settled(folder):
    """After 50 of 90 rows: those stay UPDATED and are not sent again, no row is FAILED."""
    write_export(folder, people(90))
    faulty = Faulty(refusing(403, "ExpiredTokenException"), only_row=lambda row: row > 50)
    async with Sandbox(fast(), fault=faulty) as sandbox:
        config = config_for(sandbox, folder, max_in_flight=8)
        summary = (await stopped_run(config)).summary
        assert summary.outcomes == {
            "UPDATED": 50,
            "FAILED": 0,
            "INVALID": 0,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        assert summary.unsettled == 40
        faulty.fault = None
        assert (await run(config)).outcomes["UPDATED"] == 90
        assert {write.contact_id for write in sandbox.state.log} == {
            f"contact-{row}" for row in range(1, 91)
        }
        assert len(sandbox.state.log) == 90


async def test_nobody_at_the_endpoint(folder):
    """A refused connection names what the system says, once, and what to look at."""
    write_export(folder, people(40))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, retry=RetryConfig(max_attempts=3))
    error = await stopped_run(config)
    assert error.message == (
        "EndpointConnectionError on 3 attempts at one request: nobody answers at the endpoint "
        "(Connection refused); look at --endpoint-url, --region and the network and give the same "
        "command again."
    )
    assert error.summary.unsettled == 40


async def test_an_endpoint_without_tls(folder):
    """A plain service at an https address stops the run at once, and tells what to look at."""
    write_export(folder, people(40))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder)
        url = sandbox.url.replace("http://", "https://")
        secure = replace(config.connection, endpoint_url=url)
        error = await stopped_run(replace(config, connection=secure))
        assert not sandbox.state.log
    assert error.message.startswith("SSLError on one request: the connection cannot be made safe")
    assert "--ca-bundle" in error.message
    assert (error.summary.unsettled, ledger_of(error.summary)) == (40, [])


@pytest.mark.parametrize(("minutes", "says"), [(7, "behind"), (-7, "ahead of")])
async def test_a_wrong_clock_is_told_by_how_much(folder, minutes, says):
    """The answer's date tells how far this machine's clock is off, and the sentence says so."""
    write_export(folder, people(3))

    def service_time() -> datetime:
        return datetime.now(UTC) + timedelta(minutes=minutes)

    async with Sandbox(fast(), now=service_time) as sandbox:
        error = await stopped_run(config_for(sandbox, folder))
    assert error.message.startswith("403 InvalidSignatureException on 2 attempts at one request: ")
    clock = error.message.partition("this machine's clock is ")[2]
    assert clock.startswith(("7 min", "6 min 59 s"))
    assert f"{says} the service's; set it and {AGAIN}." in clock


async def test_a_wrong_secret_is_not_blamed_on_the_clock(folder):
    """Where the clocks agree, it is the secret key."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder)
        wrong = replace(config.connection, access_key=("sandbox", "another"))
        error = await stopped_run(replace(config, connection=wrong))
    assert "the secret key or the session token does not belong to the access key" in error.message
    assert "clock" not in error.message


async def test_a_wait_that_is_too_long_is_named(folder):
    """A service that asks to wait two hours ends the run; the sentence says when to come back."""
    write_export(folder, people(3))
    faulty = Faulty(refusing(429, "TooManyRequestsException", **{"Retry-After": "7200"}))
    async with Sandbox(fast(), fault=faulty) as sandbox:
        config = config_for(sandbox, folder, max_in_flight=1)
        error = await stopped_run(config)
        assert error.message == (
            "429 TooManyRequestsException on one request: the service asks to wait 2 h, which is "
            "longer than a run waits; give the same command again after that."
        )
        assert error.summary.unsettled == 3
        faulty.fault = None
        assert (await run(config)).outcomes["UPDATED"] == 3


async def test_throttling_without_end_is_said_once_and_stops_nothing(folder, caplog):
    """After ten minutes of nothing but 429 one warning says so; then the rows are UPDATED."""
    write_export(folder, people(3))
    faulty = Faulty(refusing(429, "TooManyRequestsException"))
    async with Sandbox(fast(), fault=faulty) as sandbox:
        config = config_for(sandbox, folder, pacing=PacingConfig(rate=0.5))
        running = asyncio.create_task(run(config))
        await asyncio.sleep(2 * DROUGHT_S)
        assert not running.done()
        faulty.fault = None
        assert (await running).outcomes["UPDATED"] == 3
    told = [each for each in caplog.messages if "on every request for" in each]
    assert len(told) == 1
    assert told[0].startswith("429 TooManyRequestsException on every request for 10 min")
    assert "L-F001E5ED" in told[0]


async def test_an_instance_that_a_column_names_is_not_shown(folder):
    """Where rows name their instance, the policy's resource leaves it open."""
    mapping = folder / "by_row.yaml"
    mapping.write_text(
        """
update_contact_attributes:
  InstanceId: "{Tier}"
  InitialContactId: "{Contact}"
  Attributes: {number: "{Number}"}
"""
    )
    write_export(folder, people(3))
    async with Sandbox(fast(), fault=Faulty(refusing(403, "AccessDeniedException"))) as sandbox:
        error = await stopped_run(config_for(sandbox, folder, mapping=mapping))
    assert "arn:aws:connect:eu-west-1:*:instance/.../contact/*" in error.message
    assert "gold" not in error.message


# ----------------------------------------------------------------------------------------------
# Failing rows

IN_A_ROW = [
    (404, "ResourceNotFoundException", "the instance id or the region is wrong, or these contacts"),
    (400, "InvalidRequestException", "UpdateContactAttributes does not take what the mapping"),
    (400, "InvalidParameterException", "UpdateContactAttributes does not take what the mapping"),
    (400, "NewException", "connect refuses the request for a reason unknown here"),
]


@pytest.mark.parametrize(("status", "code", "why"), IN_A_ROW, ids=[row[1] for row in IN_A_ROW])
async def test_rows_that_fail_alike_stop_the_run(folder, status, code, why):
    """50 in a row: those are FAILED, the others unsettled; the same command goes on with them."""
    write_export(folder, people(100))
    faulty = Faulty(refusing(status, code))
    async with Sandbox(fast(), fault=faulty) as sandbox:
        config = config_for(sandbox, folder)
        error = await stopped_run(config)
        assert error.message.startswith(f"{status} {code} on 50 requests in a row: {why}")
        assert "failed.csv" in error.message
        failed = error.summary.outcomes["FAILED"]
        assert 50 <= failed < 50 + 32
        assert error.summary.unsettled == 100 - failed
        assert len(read_table(Path(error.summary.failed))) == failed
        faulty.fault = None
        finished = await run(config)
        assert finished.outcomes == {
            "UPDATED": 100 - failed,
            "FAILED": failed,
            "INVALID": 0,
            "SKIPPED": 0,
            "UNCHANGED": 0,
            "SUPERSEDED": 0,
        }
        assert sandbox.counters["update_contact_attributes"].received == 100
        assert max(faulty.met.values()) == 1


async def test_denials_after_successes_fail_their_own_rows_until_the_breaker(folder):
    """Single denials are FAILED beside UPDATED ones; fifty in a row stop the run, and say so."""
    write_export(folder, people(120))
    denied = {7, 31, 32, *range(50, 121)}
    faulty = Faulty(refusing(403, "AccessDeniedException"), only_row=denied.__contains__)
    async with Sandbox(fast(), fault=faulty) as sandbox:
        config = config_for(sandbox, folder, max_in_flight=1)
        error = await stopped_run(config)
    assert error.message.startswith("403 AccessDeniedException on 50 requests in a row: the role")
    assert RESOURCE in error.message
    assert error.summary.outcomes["FAILED"] == 3 + 50
    assert error.summary.outcomes["UPDATED"] == 49 - 3
    assert error.summary.unsettled == 120 - 99


@pytest.mark.parametrize("denied", ["update_contact", "update_contact_attributes"])
async def test_a_role_that_may_do_one_of_two_operations(folder, denied):
    """The other one is denied as a whole: no row of it is FAILED, and the sentence names it."""
    write_export(folder, people(100))
    fault = refusing(403, "AccessDeniedException")
    denies = True

    def script(operation: str, _members: dict) -> Fault | None:
        return fault if denies and operation == denied else None

    async with Sandbox(fast(), fault=script) as sandbox:
        config = config_for(sandbox, folder, mapping=folder / "both.yaml")
        error = await stopped_run(config)
        action = {
            "update_contact": "connect:UpdateContact on",
            "update_contact_attributes": "connect:UpdateContactAttributes on",
        }[denied]
        assert action in error.message
        assert error.summary.outcomes["FAILED"] == 0
        denies = False
        finished = await run(config)
        assert finished.outcomes["UPDATED"] == 200


async def test_one_operation_that_fails_is_not_hidden_by_the_other(folder):
    """Every second request fails, and never two in a row: each operation is counted by itself."""
    write_export(folder, people(100))

    def script(operation: str, _members: dict) -> Fault | None:
        return refusing(404, "ResourceNotFoundException") if operation == "update_contact" else None

    async with Sandbox(fast(), fault=script) as sandbox:
        error = await stopped_run(config_for(sandbox, folder, mapping=folder / "both.yaml"))
    assert error.message.startswith("404 ResourceNotFoundException on 50 requests in a row: ")


async def test_none_stops_for_no_row_and_for_every_error_of_the_whole_run(folder):
    """With `none` 60 failing rows are 60 results; an unknown key stops it all the same."""
    write_export(folder, people(60))
    never = MaxFailures(in_a_row=None, share=None)
    faulty = Faulty(refusing(404, "ResourceNotFoundException"))
    async with Sandbox(fast(), fault=faulty) as sandbox:
        summary = await run(config_for(sandbox, folder, max_failures=never))
        assert (summary.state, summary.outcomes["FAILED"]) == ("finished", 60)
        for code in ("UnrecognizedClientException", "AccessDenied"):
            faulty.fault = refusing(403, code)
            config = config_for(sandbox, folder, max_failures=never, run_dir=folder / code)
            error = await stopped_run(config)
            assert (error.summary.unsettled, error.summary.outcomes["FAILED"]) == (60, 0)


async def test_the_share_is_taken_of_requests_that_were_sent(folder):
    """INVALID and SKIPPED rows dilute nothing: 11 of the first 55 requests stop the run."""
    rows = people(160)
    for number, row in enumerate(rows):
        if number % 8 == 0:
            row[0] = ""  # INVALID
        elif number % 8 == 1:
            row[1] = "open"  # SKIPPED
    sent = [row for row in rows if row[0] and row[1] == "done"]
    for row in sent[4::5]:
        row[0] = "missing-" + row[0]
    write_export(folder, rows)
    async with Sandbox(fast()) as sandbox:
        config = config_for(
            sandbox,
            folder,
            max_in_flight=1,
            max_failures=MaxFailures(in_a_row=None, share=0.1, share_of=100),
        )
        error = await stopped_run(config)
    assert error.message.startswith(
        "404 ResourceNotFoundException on the last of the failed requests, 11 of the first 55: "
    )
    assert error.summary.outcomes["FAILED"] == 11
    assert error.summary.outcomes["UPDATED"] == 44


# ----------------------------------------------------------------------------------------------
# Requests that carry several rows


async def test_a_merged_request_that_is_refused_for_all_leaves_all_its_rows():
    """Rows of one contact behind each other, credentials gone: none of them has a result."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda request: (
        AccessError("gone.", code="UnrecognizedClientException", http_status=403)
        if request.row > 1
        else None
    )
    sender = make_sender(connect, ledger)
    await sender.submit(attributes_request(1, "one"))
    await asyncio.sleep(0.01)  # in flight: what comes now waits, and goes as one
    for row in range(2, 6):
        await sender.submit(attributes_request(row, "one"))
    with pytest.raises(RunStopped):
        await sender.drain()
    assert [result.row for result in ledger.results] == [1]
    assert [request.row for request in connect.calls] == [1, 5]


async def test_a_merged_request_counts_row_by_row_once_it_is_refused():
    """Four rows in one refused request are sent one by one: four failures, not five."""
    connect, ledger = FakeConnect(), FakeLedger()
    connect.script = lambda request: (
        RequestRejected("no.", code="InvalidRequestException", http_status=400)
        if request.row > 1
        else None
    )
    sender = make_sender(connect, ledger, max_failures=MaxFailures(in_a_row=4, share=None))
    await sender.submit(attributes_request(1, "one"))
    await asyncio.sleep(0.01)  # in flight: what comes now waits, and goes as one
    for row in range(2, 6):
        await sender.submit(attributes_request(row, "one"))
    with pytest.raises(RunStopped, match="on 4 requests in a row"):
        await sender.drain()
    assert [result.outcome for result in ledger.results] == [Outcome.UPDATED, *[Outcome.FAILED] * 4]
    assert [request.row for request in connect.calls] == [1, 5, 2, 3, 4, 5]


def test_a_drought_ends_with_the_first_success(caplog):
    """Nine minutes twice, with a success between them, are no drought; eleven at once are one."""
    now_s = 0.0
    drought = Drought(clock=lambda: now_s)
    throttled = Throttled("slow down.", code="429", http_status=429)
    for until_s in (540.0, 1080.0):
        while now_s < until_s:
            drought.throttled("update_contact", throttled)
            now_s += 1.0
        drought.accepted("update_contact")
    assert caplog.messages == []
    while now_s < 1080.0 + 3 * DROUGHT_S:
        drought.throttled("update_contact", throttled)
        now_s += 1.0
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("429 on every request for 10 min: ")


def test_every_error_that_stops_is_worded():
    """Each code that may stop a run by itself has words of its own, beside those of its row."""
    stopping = {
        code
        for code, meaning in CODES.items()
        if verdict(meaning.kind("x.", code=code)) is Verdict.STOP_RUN
        or (code in TREATMENTS and TREATMENTS[code].exhausted is Verdict.STOP_RUN)
    }
    assert len(stopping) > 15
    assert stopping <= ADVICE.keys()
