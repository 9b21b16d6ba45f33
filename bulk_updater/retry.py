"""What to do after an attempt that did not succeed, and doing it until the row's fate is known.

    verdict                what one error means: RETRY, FAIL_ROW or STOP_RUN; one table
    may_have_been_applied  which attempts leave it open whether the update was made
    may_concern_one_row    which of the STOP_RUN errors may be about this row after all
    send_until_settled     one request to its end; always a value, never a row's exception

There is one retry layer, and this is it: the SDK makes one attempt at a time, and every attempt,
first or repeated, takes a token of the operation's bucket before it is signed.

A throttled attempt says nothing about the row. It does not count, and it waits for nothing but the
bucket, which throttling has slowed, and at the front of whose queue it stands. Any other failure
that may pass counts, and waits by itself with full jitter: between 0 and
`min(backoff_max_s, backoff_base_s * 2 ** (attempt - 1))` seconds, and never less than the service
asked for.

tenacity turns the loop, with a new object for each request: one that is shared between tasks loses
rows (49 of 50 failing calls returned `None`). What stops it and how long it waits are functions of
counted attempts and of the error; tenacity's own strategies look at `time.monotonic` and at the
global `random`, and a run could be neither tested in virtual time nor replayed from its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tenacity import AsyncRetrying

from bulk_updater.errors import AccessError, RequestRejected, SendError, Throttled, TransientError
from bulk_updater.model import Verdict

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping

    from tenacity import RetryCallState

    from bulk_updater.config import RetryConfig
    from bulk_updater.connect import Receipt
    from bulk_updater.model import Request
    from bulk_updater.pacing import Pacer, Start

__all__ = [
    "LONGEST_RETRY_AFTER_S",
    "TREATMENTS",
    "Sent",
    "Treatment",
    "may_concern_one_row",
    "may_have_been_applied",
    "send_until_settled",
    "verdict",
]

LONGEST_RETRY_AFTER_S: Final = 3600.0
"""The most seconds that a run waits because the service asks for it; a longer wait is an outage,
and the run stops, to be resumed. The service is never asked again before its time."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """How one kind of error is treated.

    Attributes:
        verdict: What to do after an attempt that ended so.
        exhausted: What to do when the attempts are used up; the verdict itself unless it is RETRY.
        attempts: Name of the figure in `RetryConfig` that says how many attempts may end so, or
            the figure itself; None: it is not limited, and does not count.
    """

    verdict: Verdict
    exhausted: Verdict
    attempts: str | int | None = "max_attempts"


_FAIL = Treatment(Verdict.FAIL_ROW, Verdict.FAIL_ROW)
_STOP = Treatment(Verdict.STOP_RUN, Verdict.STOP_RUN)
# Signed anew, the request may pass: a signature that grew old in a queue is fresh then, and
# credentials that lapsed are renewed. A wrong clock or a token from the environment stay as they
# are, so once is enough.
_SIGN_ANEW = Treatment(Verdict.RETRY, Verdict.STOP_RUN, 2)
_CONFLICT = Treatment(Verdict.RETRY, Verdict.FAIL_ROW, "max_conflict_attempts")
# Not Connect, but something else or nothing: the next row fares no better.
_NOBODY_THERE = Treatment(Verdict.RETRY, Verdict.STOP_RUN)

TREATMENTS: Final[Mapping[type[SendError] | str, Treatment]] = MappingProxyType(
    {
        # By code, where the code says more than the kind.
        "InvalidSignatureException": _SIGN_ANEW,
        "ExpiredTokenException": _SIGN_ANEW,
        "ExpiredToken": _SIGN_ANEW,
        "ConflictException": _CONFLICT,
        "409": _CONFLICT,
        "EndpointConnectionError": _NOBODY_THERE,
        "ConnectTimeoutError": _NOBODY_THERE,
        "CredentialsUnavailable": _NOBODY_THERE,
        "Redirected": _NOBODY_THERE,
        "UnexpectedAnswer": _NOBODY_THERE,
        # By kind.
        Throttled: Treatment(Verdict.RETRY, Verdict.RETRY, None),
        TransientError: Treatment(Verdict.RETRY, Verdict.FAIL_ROW),
        RequestRejected: _FAIL,
        AccessError: _STOP,
        SendError: _FAIL,  # what nobody knows is never tried again
    }
)
"""Every error's treatment; throttling goes by its kind, all else by code first and kind second."""


def _treatment(error: SendError) -> Treatment:
    if isinstance(error, Throttled):
        return TREATMENTS[Throttled]  # whatever the code: HTTP 429 says it
    if error.code in TREATMENTS:
        return TREATMENTS[error.code]
    return next(TREATMENTS[base] for base in type(error).__mro__ if base in TREATMENTS)


def verdict(error: SendError) -> Verdict:
    """What to do after an attempt that ended in this error, while attempts are left.

    Args:
        error: What `Connect.send` raised.

    Returns:
        RETRY, FAIL_ROW or STOP_RUN.
    """
    return _treatment(error).verdict


# 403 is a denial without a code: a proxy's or a firewall's, which may dislike one row's text.
_DENIALS: Final = frozenset({"AccessDeniedException", "AccessDenied", "403"})


def may_concern_one_row(error: SendError) -> bool:
    """Whether an error that means STOP_RUN may be about this row only.

    A policy can be conditioned on a contact's channel or tags, and then denies single contacts. One
    denial alone does not tell which it is; a denial of the first row, or several in a row, do.

    Args:
        error: What `Connect.send` raised.
    """
    return error.code in _DENIALS


_NEVER_ARRIVED: Final = frozenset(
    {"EndpointConnectionError", "ConnectTimeoutError", "CredentialsUnavailable"}
)


def may_have_been_applied(error: TransientError) -> bool:
    """Whether the service may have made the update all the same: the answer alone was lost.

    Args:
        error: What `Connect.send` raised.
    """
    return error.code not in _NEVER_ARRIVED


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a request.

    Attributes:
        verdict: FAIL_ROW or STOP_RUN; None if Connect made the update.
        receipt: Connect's word for it; None if there is a verdict.
        error: The last attempt's error; None if there is a receipt.
        attempts: Attempts that did not end in throttling, the one that succeeded included.
        throttled: Attempts that ended in throttling.
        started_at: When the first attempt began, in seconds since the epoch: the wait for its
            token lies before.
        took_ms: Milliseconds from then to the end, by the loop's clock; all later waits are in
            it.
    """

    verdict: Verdict | None
    receipt: Receipt | None
    error: SendError | None
    attempts: int
    throttled: int
    started_at: float
    took_ms: int


class _Course:
    """One request's failed attempts so far, and what tenacity asks about them."""

    def __init__(self, config: RetryConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._n_ended_so: dict[Treatment, int] = {}
        self.failed = 0
        self.throttled = 0
        self.verdict = Verdict.RETRY
        self.error: SendError | None = None

    def note(self, error: SendError) -> None:
        """Counts an attempt that failed, and decides what follows."""
        self.error = error
        treatment = _treatment(error)
        n_ended_so = self._n_ended_so[treatment] = self._n_ended_so.get(treatment, 0) + 1
        if isinstance(error, Throttled):
            self.throttled += 1
        else:
            self.failed += 1
        self.verdict = treatment.verdict
        if treatment.verdict is not Verdict.RETRY:
            return
        limit = treatment.attempts
        if isinstance(limit, str):
            limit = getattr(self._config, limit)
        if (error.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            self.verdict = Verdict.STOP_RUN
        elif limit is not None and (
            n_ended_so >= limit or self.failed >= self._config.max_attempts
        ):
            self.verdict = treatment.exhausted

    @property
    def was_throttled(self) -> bool:
        """Whether the last attempt ended in throttling."""
        return isinstance(self.error, Throttled)

    def is_over(self, _: RetryCallState) -> bool:
        """Tenacity's `stop`."""
        return self.verdict is not Verdict.RETRY

    def wait_s(self, _: RetryCallState) -> float:
        """Tenacity's `wait`: seconds until the next attempt asks for its token."""
        if self.error is None or self.was_throttled:
            return 0.0  # it waits in the bucket
        ceiling_s = min(
            self._config.backoff_max_s,
            # No maximum is beyond 2 ** 62 times the base, but the range of a float may be.
            self._config.backoff_base_s * 2.0 ** min(self.failed - 1, 62),
        )
        return max(self._rng.uniform(0.0, ceiling_s), self.error.retry_after_s or 0.0)


def _is_of_the_row(state: RetryCallState) -> bool:
    """Tenacity's `retry`: a cancellation, or a mistake of ours, goes straight through."""
    return state.outcome is not None and isinstance(state.outcome.exception(), SendError)


async def send_until_settled(
    request: Request,
    send: Callable[[Request], Awaitable[Receipt]],
    pacer: Pacer,
    config: RetryConfig,
    rng: random.Random,
    *,
    now: Callable[[], float] = time.time,
) -> Sent:
    """Sends a request until Connect took it, refused it, or attempts ran out.

    A run that is to stop may cancel this while it waits; what was being sent then may or may not
    have reached Connect.

    Args:
        request: What to send.
        send: Makes one attempt, as `Connect.send` does; raises `SendError` if it fails.
        pacer: Sells the tokens, and hears of acceptances and throttling.
        config: How often and how patiently.
        rng: Draws the jitter.
        now: Seconds since the epoch.

    Returns:
        How it ended; that the whole run should stop is a value, too.

    Raises:
        asyncio.CancelledError: If the task is cancelled.
    """
    clock = asyncio.get_running_loop().time
    started_at, began_s = now(), clock()
    operation = request.operation
    course = _Course(config, rng)
    receipt: Receipt | None = None

    async def attempt() -> Receipt:
        nonlocal started_at, began_s
        start = await pacer.acquire(operation, front=course.was_throttled)
        if course.error is None:
            started_at, began_s = now(), clock()
        try:
            taken = await send(request)
        except SendError as error:
            course.note(error)
            _tell(pacer, operation, start, course)
            raise
        pacer.accepted(operation, start)
        return taken

    try:
        receipt = await attempt()
    except SendError as error:
        receipt = await _try_again(attempt, course, error)
    return Sent(
        verdict=course.verdict if receipt is None else None,
        receipt=receipt,
        error=course.error if receipt is None else None,
        attempts=course.failed + (receipt is not None),
        throttled=course.throttled,
        started_at=started_at,
        took_ms=round((clock() - began_s) * 1000),
    )


async def _try_again(
    attempt: Callable[[], Awaitable[Receipt]], course: _Course, error: SendError
) -> Receipt | None:
    """Lets tenacity decide what follows a first attempt that failed.

    It is told of that attempt as if it had made it. Round a request that passes at once it would
    cost 30 us, more than all else that is ours.
    """
    first = [error]

    async def again() -> Receipt:
        if first:
            raise first.pop()
        return await attempt()

    with contextlib.suppress(SendError):  # the row's, and `course` has it
        return await AsyncRetrying(
            retry=_is_of_the_row,
            stop=course.is_over,
            wait=course.wait_s,
            sleep=asyncio.sleep,
            reraise=True,
            before=None,  # type: ignore[arg-type]
            after=None,  # type: ignore[arg-type]
        )(again)
    return None


def _tell(pacer: Pacer, operation: str, start: Start, course: _Course) -> None:
    """Tells the pacer what an attempt that failed says about the quota."""
    error = course.error
    if isinstance(error, Throttled):
        # Where the run stops, a bucket closed for hours would only keep others from stopping.
        waits = course.verdict is Verdict.RETRY
        pacer.throttled(operation, start, error.retry_after_s if waits else None)
    elif isinstance(error, RequestRejected) and error.http_status is not None:
        pacer.accepted(operation, start)  # it was let in, and only then refused
