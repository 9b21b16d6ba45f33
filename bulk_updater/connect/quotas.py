"""What Service Quotas says that applies to the account.

It is asked once, before the first request, and it is never a reason to stop: what cannot be read
in time is named, in words of ours, and the documented quota stands in for it elsewhere.

`GetServiceQuota` needs the permission `servicequotas:GetServiceQuota`. The account is taken out of
its answer; where there is none, the credentials may know, and STS tells anybody who he is.
"""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from botocore import exceptions as boto

from bulk_updater.config import is_loopback
from bulk_updater.connect.credentials import NEVER, read_end
from bulk_updater.connect.judging import judge_answer, make_error, translate
from bulk_updater.connect.meanings import FOREIGN
from bulk_updater.connect.opening import (
    check_endpoint_url,
    enter_client,
    off_loop,
    open_session,
)
from bulk_updater.errors import (
    AccessError,
    ConfigError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    import aioboto3

    from bulk_updater.config import ConnectionConfig
    from bulk_updater.connect.credentials import CredentialsEnd
    from bulk_updater.operations import Operation

__all__ = ["AppliedQuotas", "ask_quotas", "read_credentials_end", "read_quotas"]

# The API reference of Service Quotas: "arn:aws:servicequotas:REGION:ACCOUNT:connect/CODE".
_QUOTA_ARN: Final = re.compile(r"arn:[a-z-]+:servicequotas:[a-z0-9-]*:([0-9]{12}):.*")
_ACCOUNT_ID: Final = re.compile(r"[0-9]{12}")

_ONE_SECOND: Final = {"PeriodValue": 1, "PeriodUnit": "SECOND"}


@dataclass(frozen=True, slots=True)
class AppliedQuotas:
    """What Service Quotas says that applies to the account, as far as it could be asked.

    Attributes:
        rates_per_s: Requests per second by the operation's snake_case name, finite and above 0;
            only those that were read.
        account_id: The account, 12 digits; None where nobody said.
        unread: Why some could not be read: one clause without a full stop, for a person. None
            where all were read.
        region: The region that was asked; None where nobody was. Settings say it, not the answer,
            so it does not count when two are compared.
    """

    rates_per_s: Mapping[str, float]
    account_id: str | None
    unread: str | None
    region: str | None = field(default=None, compare=False)


@dataclass(slots=True)
class _Notes:
    """What was learnt so far; what is in here when the time runs out is kept.

    Attributes:
        operations: What is asked for.
        rates_per_s: As in `AppliedQuotas`.
        reasons: Why an operation's quota could not be read, by its name.
        account_id: As in `AppliedQuotas`.
        region: As in `AppliedQuotas`.
        silence: What it is that has not happened yet.
    """

    operations: tuple[Operation, ...]
    rates_per_s: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    account_id: str | None = None
    region: str | None = None
    silence: str = "the AWS settings and credentials did not load"

    def close(self, otherwise: str | None) -> AppliedQuotas:
        """What there is to say in the end; `otherwise` is why the rest was not asked."""
        missing = (op.name for op in self.operations if op.name not in self.rates_per_s)
        unread = next((self.reasons.get(name, otherwise) for name in missing), None)
        return AppliedQuotas(dict(self.rates_per_s), self.account_id, unread, self.region)


async def read_quotas(
    config: ConnectionConfig, operations: Iterable[Operation], *, timeout_s: float = 3.0
) -> AppliedQuotas:
    """Asks Service Quotas what applies to the account, without an open connection.

    It opens a session of its own, which nobody sits in front of: a profile that wants an MFA code
    is not asked for one.

    Args:
        config: How Connect is reached. Service Quotas is asked at the same URL where that is this
            machine, which is the sandbox then; otherwise at its own endpoint of the region.
        operations: The operations whose quotas are wanted.
        timeout_s: Seconds that it may take in all, by the loop's clock, above 0. The default is
            ours: what a person waits without wondering.

    Returns:
        What could be read in this time. It raises nothing but `CancelledError`.
    """

    async def ask(notes: _Notes) -> None:
        session = await asyncio.to_thread(_open_unattended, config)
        credentials = await off_loop(session.get_credentials())
        if credentials is None:
            raise boto.NoCredentialsError
        # Borrowed ones are fetched here; the session keeps them.
        frozen = await off_loop(credentials.get_frozen_credentials())
        notes.account_id = _checked_account(frozen.account_id)
        connect_url = config.endpoint_url
        if connect_url is None:
            async with AsyncExitStack() as stack:
                # The environment and the profile may send Connect's client to this machine.
                client = await enter_client(stack, session, "connect", config, 1)
                connect_url = client.meta.endpoint_url
        await _ask(session, config, connect_url, notes)

    return await _read_in_time(ask, config, operations, timeout_s)


async def read_credentials_end(
    config: ConnectionConfig, *, timeout_s: float = 3.0
) -> CredentialsEnd:
    """When the credentials end for good, without an open connection and without a question.

    Nobody is asked for an MFA code, and no role is taken on.

    Args:
        config: How Connect is reached.
        timeout_s: Seconds that it may take in all, by the loop's clock, above 0: credentials may
            come from a process, or from the machine that this runs on.

    Returns:
        What could be found out in this time; no end where nothing could.
    """
    if not config.sign_requests:
        return NEVER
    try:
        async with asyncio.timeout(timeout_s):
            session = await asyncio.to_thread(_open_unattended, config)
            credentials = await off_loop(session.get_credentials())
            if credentials is not None:
                return await asyncio.to_thread(read_end, session, credentials)
    except (TimeoutError, ConfigError, SendError, *FOREIGN):
        pass  # whoever needs them will say so
    return NEVER


async def ask_quotas(
    session: aioboto3.Session,
    config: ConnectionConfig,
    connect_url: str,
    operations: Iterable[Operation],
    *,
    timeout_s: float,
) -> AppliedQuotas:
    """Asks with a session that has its credentials already; see `Connect.read_quotas`."""

    async def ask(notes: _Notes) -> None:
        credentials = await session.get_credentials()  # loaded when the connection was opened
        notes.account_id = _checked_account((await credentials.get_frozen_credentials()).account_id)
        await _ask(session, config, connect_url, notes)

    return await _read_in_time(ask, config, operations, timeout_s)


async def _read_in_time(
    ask: Callable[[_Notes], Awaitable[None]],
    config: ConnectionConfig,
    operations: Iterable[Operation],
    timeout_s: float,
) -> AppliedQuotas:
    notes = _Notes(tuple(operations))
    unasked = _why_not_to_ask(config)
    if unasked is not None:
        return notes.close(unasked)
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            await ask(notes)
    except (ConfigError, SendError, *FOREIGN) as error:
        if not deadline.expired():
            return notes.close(_reason(error))
    return notes.close(f"{notes.silence} within {timeout_s:g} s")


def _why_not_to_ask(config: ConnectionConfig) -> str | None:
    if not config.sign_requests:
        return "requests are not signed"
    try:
        if config.endpoint_url is not None:
            check_endpoint_url(config.endpoint_url, allow_http=config.allow_http)
    except ConfigError as error:
        if error.message.startswith("--endpoint-url"):
            return "--endpoint-url is not a whole URL"
        return _reason(error)
    return None


async def _ask(
    session: aioboto3.Session, config: ConnectionConfig, connect_url: str, notes: _Notes
) -> None:
    """Reads all quotas at once, and then the account if it is not known yet."""
    notes.region = session.region_name
    notes.silence = "Service Quotas did not answer"
    # An endpoint for Connect alone, of a VPC or with FIPS, knows nothing of other services.
    aim = replace(config, endpoint_url=connect_url if is_loopback(connect_url) else None)
    async with AsyncExitStack() as stack:
        if notes.operations:
            n_connections = len(notes.operations)
            client = await enter_client(stack, session, "service-quotas", aim, n_connections)
            client.meta.events.register("before-parse.service-quotas", judge_answer)
            async with asyncio.TaskGroup() as group:
                for operation in notes.operations:
                    group.create_task(_read_quota(client, operation, notes))
        if notes.account_id is None:
            client = await enter_client(stack, session, "sts", aim, 1)
            client.meta.events.register("before-parse.sts", _pass_success)
            notes.account_id = await _ask_who(client)


async def _read_quota(client: Any, operation: Operation, notes: _Notes) -> None:
    """Asks for one quota and notes the answer, or why there is none."""
    try:
        answer = await client.get_service_quota(
            ServiceCode="connect", QuotaCode=operation.quota_code
        )
    except (SendError, *FOREIGN) as error:
        notes.reasons[operation.name] = _reason(error)
        return
    quota = answer.get("Quota", {})
    told = _QUOTA_ARN.fullmatch(str(quota.get("QuotaArn")))
    if told is not None:
        notes.account_id = told[1]
    rate_per_s = _parse_rate(quota)
    if rate_per_s is None:
        notes.reasons[operation.name] = "Service Quotas says nothing usable"
    else:
        notes.rates_per_s[operation.name] = rate_per_s


def _parse_rate(quota: Mapping[str, Any]) -> float | None:
    """Requests per second, finite and above 0; None where a quota says anything else."""
    value = quota.get("Value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Where it names no period it is a second: the default of 10.0 is the documented 10 a second.
    if quota.get("Period", _ONE_SECOND) != _ONE_SECOND:
        return None
    try:
        rate_per_s = float(value)
    except OverflowError:  # JSON's integers have no end
        return None
    return rate_per_s if math.isfinite(rate_per_s) and rate_per_s > 0 else None


async def _ask_who(client: Any) -> str | None:
    """The account, as STS says; None where it says none, for it is nice to have and no more."""
    try:
        answer = await client.get_caller_identity()
    except (SendError, *FOREIGN):
        return None
    return _checked_account(answer.get("Account"))


def _pass_success(response_dict: dict[str, Any], **_: Any) -> None:
    # Before botocore parses: it takes the XML of an error apart level by level, however deep.
    if response_dict["status_code"] != HTTPStatus.OK:
        raise make_error("", response_dict["status_code"])


def _checked_account(account_id: object) -> str | None:
    # What a profile or an answer says may be anything.
    said = isinstance(account_id, str) and _ACCOUNT_ID.fullmatch(account_id) is not None
    return str(account_id) if said else None


def _open_unattended(config: ConnectionConfig) -> aioboto3.Session:
    """A session that asks nobody for an MFA code; reads files, so it runs in a thread."""
    session = open_session(config)
    providers = session._session.get_component("credential_provider")  # noqa: SLF001
    providers.get_provider("assume-role")._prompter = _refuse_to_prompt  # noqa: SLF001
    return session


def _refuse_to_prompt(_: str) -> NoReturn:
    # A prompt would wait in its thread, with the terminal's echo off, long after the time is up.
    raise boto.RefreshWithMFAUnsupportedError


# ----------------------------------------------------------------------------------------------
# Why not, in words

_DENIED: Final = "the role lacks servicequotas:GetServiceQuota"
_UNREACHABLE: Final = "nobody answers at the endpoint of Service Quotas"
_EXPIRED: Final = "the credentials have expired"
_UNKNOWN_KEY: Final = "AWS does not know the credentials"

_CLAUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AccessDenied": _DENIED,
        "AccessDeniedException": _DENIED,
        "NoSuchResourceException": "Service Quotas does not list the quota",
        "ExpiredToken": _EXPIRED,
        "ExpiredTokenException": _EXPIRED,
        "InvalidClientTokenId": _UNKNOWN_KEY,
        "UnrecognizedClientException": _UNKNOWN_KEY,
        "NoCredentialsError": "there are no AWS credentials",
        "RefreshWithMFAUnsupportedError": "the profile wants an MFA code",
        "CredentialRetrievalError": "the credentials could not be loaded or renewed",
        "ConnectTimeoutError": _UNREACHABLE,
        "EndpointConnectionError": _UNREACHABLE,
        "ReadTimeoutError": "Service Quotas did not answer within --cli-read-timeout",
        "SSLError": "the connection to Service Quotas cannot be made safe",
        "ProxyConnectionError": "the proxy cannot be reached",
        "Redirected": "the endpoint of Service Quotas redirects, which is not followed",
        "UnexpectedAnswer": "what answers is not Service Quotas",
    }
)
"""What a code says, where Connect's own sentence for it would not fit or says less."""

_BY_KIND: Final[Mapping[type[SendError], tuple[str, str]]] = MappingProxyType(
    {
        Throttled: (
            "Service Quotas asks to slow down",
            "Service Quotas asks to slow down",
        ),
        TransientError: (
            "Service Quotas, or a proxy in between, failed",
            "the connection to Service Quotas broke off",
        ),
        AccessError: (
            "Service Quotas, or a proxy in between, refuses who asks",
            "the AWS configuration or its credentials cannot be used",
        ),
        RequestRejected: (
            "Service Quotas refuses what it was asked",
            "Service Quotas could not be asked",
        ),
    }
)
"""What any other code says: where there was an answer, and where there was none."""


def _reason(error: Exception) -> str:
    """Why a quota was not read, in one clause.

    Args:
        error: A `ConfigError`, a `SendError` or one of `FOREIGN`.

    Returns:
        Our words, the code and the status, and nothing that anybody else wrote.
    """
    if isinstance(error, boto.ProfileNotFound):
        return f"there is no AWS profile {error.kwargs['profile']!r}"
    if isinstance(error, ConfigError):
        found = error.message.partition(";")[0].rstrip(".")
        return found[:1].lower() + found[1:]
    told = error if isinstance(error, SendError) else translate(error, "GetServiceQuota")
    if told.code in _CLAUSES:
        return _CLAUSES[told.code]
    answered, unanswered = _BY_KIND[type(told)]
    if told.http_status is None:
        return f"{unanswered} ({told.code})"
    named = "" if told.code == str(told.http_status) else f"{told.code}, "
    return f"{answered} ({named}HTTP {told.http_status})"
