"""Verdicts, backoff, and a request's way to its end."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.config import ConnectionConfig, PacingConfig, RetryConfig
from bulk_updater.connect import CODES, EXCEPTIONS, Receipt, open_connect
from bulk_updater.errors import (
    AccessError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)
from bulk_updater.model import Quota, QuotaOrigin, Request, Verdict
from bulk_updater.pacing import Pacer, Start
from bulk_updater.retry import (
    LONGEST_RETRY_AFTER_S,
    TREATMENTS,
    Sent,
    may_concern_one_row,
    may_have_been_applied,
    send_until_settled,
    verdict,
)
from tests.stub_service import REQUEST_ID, After, Answer, answer, failure, stub_service

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATION = "update_contact_attributes"
PLANTED = "Planted-Cell-7f3a"
RECEIPT = Receipt(REQUEST_ID, 200)
REQUEST = Request(
    row=1,
    source="crm.csv",
    operation=OPERATION,
    instance_id="i-1",
    contact_id="c-1",
    params={"InstanceId": "i-1", "InitialContactId": "c-1", "Attributes": {"name": PLANTED}},
    payload_bytes=21,
)


def pacer_of(rate: float | None = None) -> Pacer:
    """A pacer for the operation, at a named rate or the default one."""
    config = PacingConfig() if rate is None else PacingConfig(rate=rate)
    return Pacer(config, {OPERATION: Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)})


def throttled(code: str = "TooManyRequestsException", **about: Any) -> Throttled:
    return Throttled("slow down", code=code, http_status=429, **about)


def transient(code: str = "503", **about: Any) -> TransientError:
    return TransientError("failed", code=code, http_status=503, **about)


def rejected(code: str = "InvalidRequestException") -> RequestRejected:
    return RequestRejected("no", code=code, http_status=400)


def access(code: str = "UnrecognizedClientException") -> AccessError:
    return AccessError("no", code=code, http_status=403)


@dataclass
class Service:
    """Answers with what it was told, the last one for ever; knows when it was asked."""

    answers: list[SendError | Receipt]
    at_s: list[float] = field(default_factory=list)

    async def send(self, request: Request) -> Receipt:
        assert request is REQUEST
        self.at_s.append(asyncio.get_running_loop().time())
        said = self.answers[min(len(self.at_s), len(self.answers)) - 1]
        if isinstance(said, SendError):
            raise said
        return said

    @property
    def waits_s(self) -> list[float]:
        return [after - before for before, after in zip(self.at_s, self.at_s[1:], strict=False)]


async def settle(
    *answers: SendError | Receipt,
    config: RetryConfig | None = None,
    pacer: Pacer | None = None,
    seed: int = 1,
    **more: Any,
) -> tuple[Sent, Service]:
    service = Service(list(answers))
    sent = await send_until_settled(
        REQUEST,
        service.send,
        pacer or pacer_of(1e6),
        config or RetryConfig(),
        random.Random(seed),
        **more,
    )
    return sent, service


# ----------------------------------------------------------------------------------------------
# The table

R, F, S = Verdict.RETRY, Verdict.FAIL_ROW, Verdict.STOP_RUN

# kind of error, code, verdict, verdict once the attempts are used up, attempts by default
VERDICTS = [
    *((throttled, code, R, None, None) for code in ("TooManyRequestsException", "429", "NewOne")),
    *(
        (transient, code, R, F, 8)
        for code in (
            "500", "502", "503", "504", "408", "InternalServiceException", "InternalFailure",
            "ServiceUnavailable", "RequestTimeout", "RequestTimeoutException", "RequestAborted",
            "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError",
        )
    ),
    *(
        (transient, code, R, S, 8)
        for code in (
            "EndpointConnectionError", "ConnectTimeoutError", "Redirected", "UnexpectedAnswer",
            "CredentialsUnavailable",
        )
    ),
    *((transient, code, R, F, 4) for code in ("ConflictException", "409")),
    *(
        (rejected, code, F, F, 1)
        for code in (
            "InvalidRequestException", "InvalidParameterException", "ValidationError",
            "ParamValidationError", "ResourceNotFoundException", "RequestEntityTooLarge",
            "RequestEntityTooLargeException",
            "ServiceQuotaExceededException", "404", "413", "NewException",
        )
    ),
    *(
        (access, code, S, S, 1)
        for code in (
            "UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch",
            "IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken",
            "MissingAuthenticationTokenException", "RequestExpired", "RequestTimeTooSkewed",
            "OptInRequired", "NotAuthorized", "UnknownOperationException",
            "InvalidActiveRegionException", "AccessDenied", "AccessDeniedException",
            "NoCredentialsError", "CredentialRetrievalError", "NoRegionError", "SSLError",
            "ProxyConnectionError", "401", "403", "407",
        )
    ),
    *(
        (access, code, R, S, 2)
        for code in ("InvalidSignatureException", "ExpiredToken", "ExpiredTokenException")
    ),
]  # fmt: skip


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("make", "code", "expected", "at_last", "n_attempts"),
    VERDICTS,
    ids=[row[1] for row in VERDICTS],
)
async def test_verdict(
    make: Callable[[str], SendError],
    code: str,
    expected: Verdict,
    at_last: Verdict | None,
    n_attempts: int | None,
):
    """Each error has its verdict, its number of attempts, and what follows the last."""
    error = make(code)
    assert verdict(error) is expected
    if at_last is None:
        return
    sent, service = await settle(error)
    assert (sent.verdict, sent.attempts, len(service.at_s)) == (at_last, n_attempts, n_attempts)
    assert (sent.error, sent.receipt) == (error, None)


def test_every_code_has_a_verdict():
    """Every code that the door knows is in the list above, with the kind that the door gives it."""
    listed = {code: make for make, code, *_ in VERDICTS}
    kinds = {transient: TransientError, rejected: RequestRejected, access: AccessError}
    for code, meaning in CODES.items():
        if meaning.kind is not Throttled:
            assert kinds[listed[code]] is meaning.kind, code
    named = {found for found in TREATMENTS if isinstance(found, str)}
    exceptions = {found.__name__ for found in EXCEPTIONS}
    assert named <= set(CODES) | exceptions | {"409", "CredentialsUnavailable"}
    assert named <= set(listed)


def test_unknown_is_never_tried_again():
    """An error of a kind that nobody knows fails its row."""
    assert verdict(SendError("?", code="?")) is F


@pytest.mark.looptime
@pytest.mark.parametrize("code", ["AccessDeniedException", "ConflictException", "ExpiredToken"])
async def test_throttling_goes_by_its_kind(code: str):
    """HTTP 429 is throttling whatever the code says; no limit on that code holds for it."""
    assert verdict(throttled(code)) is R
    sent, _ = await settle(*[throttled(code)] * 10, RECEIPT)
    assert (sent.receipt, sent.throttled) == (RECEIPT, 10)


@pytest.mark.parametrize("code", sorted({*CODES, "401", "403", "SSLError"}))
def test_may_concern_one_row(code: str):
    """A denial may be about one contact, for policies can be conditioned; nothing else may."""
    error = access(code)
    assert may_concern_one_row(error) is (code in {"AccessDenied", "AccessDeniedException", "403"})


@pytest.mark.parametrize("code", [row[1] for row in VERDICTS if row[0] is transient])
def test_may_have_been_applied(code: str):
    """Only what never reached the service was surely not applied; any other answer may be lost."""
    never_arrived = {"EndpointConnectionError", "ConnectTimeoutError", "CredentialsUnavailable"}
    assert may_have_been_applied(transient(code)) is (code not in never_arrived)


# ----------------------------------------------------------------------------------------------
# The way to the end


@pytest.mark.looptime
async def test_success():
    """A receipt is one attempt, no verdict and no wait."""
    sent, service = await settle(RECEIPT, now=lambda: 1_772_352_000.5)
    assert sent == Sent(None, RECEIPT, None, 1, 0, 1_772_352_000.5, 0)
    assert service.at_s == [0.0]


@pytest.mark.looptime
async def test_success_after_failures():
    """What was overcome is counted and otherwise forgotten."""
    sent, service = await settle(transient(), throttled(), throttled(), transient(), RECEIPT)
    assert (sent.verdict, sent.receipt, sent.error) == (None, RECEIPT, None)
    assert (sent.attempts, sent.throttled, len(service.at_s)) == (3, 2, 5)
    assert sent.took_ms == round(service.at_s[-1] * 1000)


@pytest.mark.looptime
async def test_one_attempt():
    """With --max-attempts 1 nothing is tried again but what was throttled."""
    config = RetryConfig(max_attempts=1)
    for error, expected in ((transient(), F), (access("ExpiredToken"), S), (transient("409"), F)):
        sent, service = await settle(throttled(), error, config=config)
        assert (sent.verdict, sent.attempts, len(service.at_s)) == (expected, 1, 2)


@pytest.mark.looptime
async def test_throttling_does_not_count():
    """A hundred throttled attempts fail no row, and wait for nothing but the bucket."""
    sent, service = await settle(*[throttled()] * 100, RECEIPT)
    assert (sent.verdict, sent.attempts, sent.throttled) == (None, 1, 100)
    assert len(service.at_s) == 101
    # The bucket's own pace: even at its floor 50,000 a second.
    assert sent.took_ms < 10


@pytest.mark.looptime
async def test_full_jitter():
    """Wait n is drawn between 0 and min(20, 0.25 * 2 ** (n - 1)) seconds, over the whole range."""
    longest = [0.0] * 9
    for seed in range(60):
        config = RetryConfig(max_attempts=10)
        _, service = await settle(transient(), config=config, seed=seed)
        for n, wait_s in enumerate(service.waits_s):
            assert wait_s <= min(20.0, 0.25 * 2**n) + 1e-3
            longest[n] = max(longest[n], wait_s)
    for n, wait_s in enumerate(longest):
        assert wait_s > 0.8 * min(20.0, 0.25 * 2**n)


@pytest.mark.looptime
async def test_throttling_does_not_lengthen_the_backoff():
    """The backoff grows with failures alone."""
    _, service = await settle(transient(), *[throttled()] * 50, transient(), RECEIPT)
    assert service.waits_s[-1] <= 0.5 + 1e-3


@pytest.mark.looptime
async def test_replayed_from_its_seed():
    """The same seed waits the same; another waits otherwise."""
    (_, first), (_, second), (_, third) = [
        await settle(transient(), seed=seed) for seed in (7, 7, 8)
    ]
    assert first.waits_s == pytest.approx(second.waits_s, abs=1e-5)
    assert first.waits_s != pytest.approx(third.waits_s, abs=1e-5)


@pytest.mark.looptime
async def test_a_thousand_attempts():
    """However many attempts are allowed, the wait stays within its maximum."""
    config = RetryConfig(max_attempts=1030, backoff_max_s=1.0)
    sent, service = await settle(transient(), config=config)
    assert (sent.verdict, sent.attempts) == (F, 1030)
    assert max(service.waits_s) <= 1.0 + 1e-3


@pytest.mark.looptime
@pytest.mark.parametrize("error", [transient(retry_after_s=90.0), throttled(retry_after_s=90.0)])
async def test_never_back_early(error: SendError):
    """What the service asks to wait is waited, beyond our own maximum too."""
    sent, service = await settle(error, RECEIPT)
    assert sent.receipt == RECEIPT
    assert 90.0 <= service.waits_s[0] < 91.0


@pytest.mark.looptime
@pytest.mark.parametrize("make", [transient, throttled])
async def test_asked_to_come_back_much_later(make: Callable[..., SendError]):
    """More than an hour is an outage: the run stops at once, and holds nobody else up."""
    pacer = pacer_of(10.0)
    error = make(retry_after_s=LONGEST_RETRY_AFTER_S + 1)
    sent, service = await settle(error, pacer=pacer)
    assert (sent.verdict, sent.error, len(service.at_s)) == (S, error, 1)
    await asyncio.wait_for(pacer.acquire(OPERATION), 10)


@pytest.mark.looptime
async def test_signed_anew_once_whatever_came_before():
    """One attempt more after a refused signature, which other failures do not use up."""
    sent, _ = await settle(transient(), transient(), access("ExpiredToken"), RECEIPT)
    assert (sent.receipt, sent.attempts) == (RECEIPT, 4)
    error = access("ExpiredToken")
    sent, _ = await settle(error, transient(), error, RECEIPT)
    assert (sent.verdict, sent.error, sent.attempts) == (S, error, 3)


@pytest.mark.looptime
async def test_conflicts_are_counted_apart():
    """A conflict is tried less often than other failures, and only conflicts count for it."""
    conflict = transient("ConflictException")
    sent, _ = await settle(*[transient()] * 4, *[conflict] * 3, RECEIPT)
    assert (sent.receipt, sent.attempts) == (RECEIPT, 8)
    sent, _ = await settle(*[transient()] * 5, *[conflict] * 3, RECEIPT)
    assert (sent.verdict, sent.attempts) == (F, 8)


@pytest.mark.looptime
async def test_every_attempt_pays():
    """First or repeated, an attempt begins with a token of its operation's bucket."""
    pacer = pacer_of(2.0)
    config = RetryConfig(backoff_base_s=0.0)
    sent, service = await settle(transient(), config=config, pacer=pacer)
    assert sent.attempts == 8
    assert sum(pacer.series()[0]["started"]) == 8
    assert [round(at, 2) for at in service.at_s] == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


@pytest.mark.looptime
async def test_throttled_goes_to_the_front():
    """A request that was throttled is sent again before those that have not been sent."""
    pacer = pacer_of(1.0)
    order: list[str] = []

    def named(name: str, *answers: SendError | Receipt) -> asyncio.Task[Sent]:
        service = Service(list(answers))

        async def send(request: Request) -> Receipt:
            order.append(name)
            return await service.send(request)

        return asyncio.create_task(
            send_until_settled(REQUEST, send, pacer, RetryConfig(), random.Random(1))
        )

    tasks = [
        named("a", throttled(), RECEIPT),
        *(named(name, RECEIPT) for name in "bcd"),
    ]
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "c", "d"]


@dataclass
class Listener:
    """A pacer that only listens."""

    heard: list[tuple[Any, ...]] = field(default_factory=list)
    n_started: int = 0

    async def acquire(self, operation: str, *, front: bool = False) -> Start:
        self.heard.append(("front" if front else "acquire", operation))
        self.n_started += 1
        return Start(asyncio.get_running_loop().time(), self.n_started - 1)

    def accepted(self, operation: str, start: Start) -> None:
        self.heard.append(("accepted", operation, start.number))

    def throttled(self, operation: str, start: Start, retry_after_s: float | None) -> None:
        self.heard.append(("throttled", operation, start.number, retry_after_s))


@pytest.mark.looptime
async def test_what_the_pacer_hears():
    """Throttling and acceptances are told, each with its own attempt's start; a failure of the
    service says nothing of the quota."""
    listener = Listener()
    _, service = await settle(
        throttled(retry_after_s=3.0),
        transient(),
        RECEIPT,
        pacer=listener,  # type: ignore[arg-type]
    )
    assert listener.heard == [
        ("acquire", OPERATION),
        ("throttled", OPERATION, 0, 3.0),
        ("front", OPERATION),
        ("acquire", OPERATION),
        ("accepted", OPERATION, 2),
    ]
    assert len(service.at_s) == listener.n_started


@pytest.mark.looptime
async def test_a_wait_that_is_too_long_is_not_asked_of_others():
    """Where the run stops for it, the pacer hears of the throttling, and not of the hours."""
    listener = Listener()
    await settle(
        throttled(retry_after_s=LONGEST_RETRY_AFTER_S + 1),
        pacer=listener,  # type: ignore[arg-type]
    )
    assert listener.heard[1:] == [("throttled", OPERATION, 0, None)]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (rejected(), ["acquire", "accepted"]),
        (RequestRejected("no", code="ParamValidationError"), ["acquire"]),
        (access(), ["acquire"]),
    ],
)
async def test_a_refused_row_was_let_in(error: SendError, expected: list[str]):
    """A row that Connect refused got past the quota; one that was never sent says nothing."""
    listener = Listener()
    await settle(error, pacer=listener)  # type: ignore[arg-type]
    assert [name for name, *_ in listener.heard] == expected


@pytest.mark.looptime
@pytest.mark.parametrize("where", ["bucket", "answer", "backoff"])
async def test_cancelled(where: str):
    """A cancellation passes wherever it comes, and is never taken for a failure."""
    pacer = pacer_of(0.001)
    n_sent = 0

    async def send(_: Request) -> Receipt:
        nonlocal n_sent
        n_sent += 1
        if where == "answer":
            await asyncio.sleep(1000)
        raise transient(retry_after_s=1000.0 if where == "backoff" else None)

    if where == "bucket":
        pacer.throttled(OPERATION, await pacer.acquire(OPERATION), 1000.0)
    task = asyncio.create_task(
        send_until_settled(REQUEST, send, pacer, RetryConfig(), random.Random(1))
    )
    await asyncio.sleep(100)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert n_sent == (where != "bucket")


@pytest.mark.looptime
async def test_our_own_mistakes_are_not_rows():
    """An exception that is no SendError is a bug, and is neither tried again nor swallowed."""
    n_sent = 0

    async def send(_: Request) -> Receipt:
        nonlocal n_sent
        n_sent += 1
        raise ZeroDivisionError

    pacer = pacer_of()
    with pytest.raises(ZeroDivisionError):
        await send_until_settled(REQUEST, send, pacer, RetryConfig(), random.Random(1))
    assert n_sent == 1


@pytest.mark.looptime
async def test_concurrent_requests_do_not_share_their_counts():
    """Fifty requests that fail side by side each make their own attempts and end on their own."""
    pacer = pacer_of(1000.0)
    services = [Service([transient()]) for _ in range(50)]
    rng = random.Random(1)
    sent = await asyncio.gather(
        *(
            send_until_settled(REQUEST, service.send, pacer, RetryConfig(), rng)
            for service in services
        )
    )
    assert [(one.verdict, one.attempts, one.receipt) for one in sent] == [(F, 8, None)] * 50
    assert [len(service.at_s) for service in services] == [8] * 50


# ----------------------------------------------------------------------------------------------
# Through the door


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("answers", "expected", "n_hits"),
    [
        ([answer()], None, 1),
        ([failure(429, "TooManyRequestsException")] * 20 + [answer()], None, 21),
        ([answer(429, b"")] * 20 + [answer()], None, 21),
        ([answer(503, b"<html>"), Answer(b"", After.RESET), answer()], None, 3),
        ([Answer(b"", After.HANG), answer()], None, 2),
        ([failure(409, "ConflictException")], F, 4),
        ([failure(500, "InternalServiceException")], F, 8),
        ([answer(200, b"half", length=99, after=After.CLOSE)], F, 8),
        ([failure(404, "ResourceNotFoundException", PLANTED)], F, 1),
        ([answer(400, b"null")], F, 1),
        ([answer(200, b"<html>", request_id=None)], S, 8),
        ([answer(request_id=None)], S, 8),
        ([answer(302, b"", Location="/elsewhere")], S, 8),
        ([failure(403, "AccessDeniedException", PLANTED)], S, 1),
        ([failure(403, "ExpiredTokenException")], S, 2),
        ([failure(403, "InvalidSignatureException"), answer()], None, 2),
    ],
)
async def test_through_the_door(answers: list[Answer], expected: Verdict | None, n_hits: int):
    """With a real client and a real socket, each answer makes exactly the attempts it should."""
    async with stub_service(*answers) as stub:
        config = ConnectionConfig(
            region="eu-west-2", access_key=("key", "secret"), endpoint_url=stub.url
        )
        async with open_connect(config, max_in_flight=2) as connect:
            pacer = pacer_of()
            sent = await send_until_settled(
                REQUEST, connect.send, pacer, RetryConfig(), random.Random(1)
            )
    assert (sent.verdict, stub.hits) == (expected, n_hits)
    assert sent.attempts + sent.throttled == n_hits
    assert (sent.receipt is None) == (expected is not None)
    assert PLANTED not in repr(sent)


@pytest.mark.looptime
async def test_nobody_listens():
    """Where nobody listens, a request is tried its times, and then the run stops."""
    config = ConnectionConfig(
        region="eu-west-2", access_key=("key", "secret"), endpoint_url="http://127.0.0.1:1"
    )
    async with open_connect(config, max_in_flight=2) as connect:
        pacer = pacer_of()
        sent = await send_until_settled(
            REQUEST, connect.send, pacer, RetryConfig(), random.Random(1)
        )
    assert (sent.verdict, sent.attempts) == (S, 8)
    assert sent.error is not None
    assert sent.error.code == "EndpointConnectionError"
