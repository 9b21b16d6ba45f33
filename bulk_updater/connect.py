"""The only door to AWS: one client for a run, one receipt or one `SendError` for an attempt.

    open_connect   settings -> an open `Connect`; what cannot work is a `ConfigError` here,
                   before a row is read
    Connect.send   one request, one attempt, no retry of the SDK's
    translate      any foreign exception -> exactly one `SendError`

An answer counts as success only if its status is 2xx, its body is blank or a JSON object, and it
carries a request id: a captive portal's page is a 200 too, and botocore parses it to `{}`.

Three things stand between botocore and us, and each closes a hole of its own:

`_StraightSession`
    aiohttp follows redirects, which would send a contact's data to whoever asks for it. Ours does
    not.
`_judge_answer`
    runs before botocore parses an answer. It refuses what is no answer of Connect's, and leaves
    nothing of an error's body but its code, so that odd bodies cannot trip the parser and so that
    the service's text, which may quote the request, goes no further.
`translate`
    turns what is left into `Throttled`, `TransientError`, `RequestRejected` or `AccessError`, by
    code and status, never by `client.exceptions.X`: Connect throttles with codes that its own
    model does not know. The message is always one of ours.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aioboto3
import aiohttp
import orjson
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from bulk_updater._version import __version__
from bulk_updater.config import is_loopback
from bulk_updater.errors import (
    AccessError,
    ConfigError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from bulk_updater.config import ConnectionConfig
    from bulk_updater.model import Request

__all__ = ["CODES", "EXCEPTIONS", "STATUSES", "Connect", "Meaning", "Receipt", "open_connect"]


class Meaning(NamedTuple):
    """What an error code, a status or an exception says.

    Attributes:
        kind: The error that it becomes.
        sentence: What is wrong and what to do, without a full stop.
        code: The code to report; None reports what there is: the service's, or the name of the
            exception.
    """

    kind: type[SendError]
    sentence: str
    code: str | None = None


# ----------------------------------------------------------------------------------------------
# What the codes say. Sources: the service model of Connect (botocore 1.40.61 and 1.43), the AWS
# pages "Best practices for Amazon Connect APIs" and "Common Errors", and the throttling codes of
# botocore/retries/standard.py.

_SLOW_DOWN = "Connect asks to slow down"
_SERVICE_FAILED = "Connect failed on its side; the same request may succeed later"
_REFUSED = "Connect refuses what the request says"
_SIGNATURE = (
    "Connect does not accept the signature; check the credentials, the region and this machine's"
    " clock"
)
_EXPIRED = "The credentials have expired; renew them and run the same command again"
_DENIED = (
    "The credentials may not do this; the policy must allow the operation on"
    " arn:aws:connect:<region>:<account>:instance/<instance id>/contact/*"
)

_GROUPS: Final[tuple[tuple[type[SendError], str, tuple[str, ...]], ...]] = (
    # The quota is used up. UpdateContactAttributes models none of these and gets
    # TooManyRequestsException all the same.
    (
        Throttled,
        _SLOW_DOWN,
        (
            "TooManyRequestsException",
            "ThrottlingException",
            "LimitExceededException",
            "Throttling",
            "ThrottledException",
            "RequestThrottledException",
            "RequestThrottled",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
            "ProvisionedThroughputExceededException",
            "TransactionInProgressException",
            "PriorRequestNotComplete",
            "SlowDown",
            "EC2ThrottledException",
        ),
    ),
    # The service, or the way to it.
    (
        TransientError,
        _SERVICE_FAILED,
        ("InternalServiceException", "InternalFailure", "ServiceUnavailable"),
    ),
    (
        TransientError,
        "Connect did not get the request in time",
        ("RequestTimeout", "RequestTimeoutException", "RequestAborted"),
    ),
    (
        TransientError,
        "Another operation on the contact, or the state that it is in, is in the way",
        ("ConflictException",),
    ),
    (
        TransientError,
        "The answer is not one of Connect's; look at --endpoint-url and at proxies",
        ("UnexpectedAnswer",),
    ),
    (
        TransientError,
        "The endpoint redirects, which is not followed; look at --endpoint-url and at proxies",
        ("Redirected",),
    ),
    # This row.
    (
        RequestRejected,
        _REFUSED,
        ("InvalidRequestException", "InvalidParameterException", "ValidationError"),
    ),
    (
        RequestRejected,
        "There is no such contact in this instance and region, or it is older than 24 months",
        ("ResourceNotFoundException",),
    ),
    (
        RequestRejected,
        "The request is too large",
        ("RequestEntityTooLarge", "RequestEntityTooLargeException"),
    ),
    (
        RequestRejected,
        "A quota of the account, which waiting does not refill, is used up",
        ("ServiceQuotaExceededException",),
    ),
    # Every row.
    (AccessError, _DENIED, ("AccessDeniedException", "AccessDenied", "NotAuthorized")),
    (AccessError, _EXPIRED, ("ExpiredTokenException", "ExpiredToken")),
    (
        AccessError,
        "Connect does not know the credentials",
        ("UnrecognizedClientException", "InvalidClientTokenId"),
    ),
    (
        AccessError,
        _SIGNATURE,
        (
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "RequestExpired",
            "RequestTimeTooSkewed",
        ),
    ),
    (
        AccessError,
        "Connect wants a signed request; leave --no-sign-request out",
        ("MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    ),
    (AccessError, "The account has not subscribed to Connect", ("OptInRequired",)),
    (
        AccessError,
        "The endpoint does not know this operation; look at --endpoint-url and --region",
        ("UnknownOperationException",),
    ),
    (
        AccessError,
        "The instance is active in another region; name that one with --region",
        ("InvalidActiveRegionException",),
    ),
)

CODES: Final[Mapping[str, Meaning]] = MappingProxyType(
    {code: Meaning(kind, sentence) for kind, sentence, codes in _GROUPS for code in codes}
)
"""Every error code that has a meaning of its own; any other is `RequestRejected`."""

STATUSES: Final[Mapping[int, Meaning]] = MappingProxyType(
    {
        401: CODES["NotAuthorized"],
        403: Meaning(AccessError, "Connect, or a proxy in between, forbids this"),
        404: Meaning(RequestRejected, "There is nothing at this address; look at --endpoint-url"),
        407: Meaning(AccessError, "The proxy wants to know who asks; look at HTTPS_PROXY"),
        408: CODES["RequestTimeoutException"],
        409: CODES["ConflictException"],
        413: CODES["RequestEntityTooLarge"],
        429: CODES["TooManyRequestsException"],
        500: CODES["InternalServiceException"],
        502: CODES["ServiceUnavailable"],
        503: CODES["ServiceUnavailable"],
        504: CODES["ServiceUnavailable"],
    }
)
"""What a status says where the code says nothing, for gateways and proxies answer without one."""

_UNKNOWN = Meaning(RequestRejected, "Connect refuses the request for a reason unknown here")

_UNSENDABLE = Meaning(
    RequestRejected, "The request does not fit the operation's model and was not sent"
)
_UNREACHABLE = Meaning(
    TransientError,
    "Nobody answers at the endpoint; look at --endpoint-url, --region and the network",
)
_BROKEN_OFF = Meaning(
    TransientError, "The connection broke off; whether the update was made is not known"
)
_TOO_LATE = Meaning(
    TransientError,
    "The answer did not come within --cli-read-timeout; whether the update was made is not known",
)
_TLS = Meaning(
    AccessError, "The connection cannot be made safe; look at --ca-bundle and --endpoint-url"
)
_NOT_CONFIGURED = Meaning(
    AccessError, "The AWS configuration cannot be used; look at the profile and the environment"
)
_CREDENTIALS = Meaning(
    AccessError,
    "The credentials could not be loaded or renewed; look at the profile that lends them",
)
_UNEXPECTED = CODES["UnexpectedAnswer"]._replace(code="UnexpectedAnswer")

EXCEPTIONS: Final[Mapping[type[Exception], Meaning]] = MappingProxyType(
    {
        # The way to the service. What botocore cannot name (`HTTPClientError`) broke off somewhere.
        boto.EndpointConnectionError: _UNREACHABLE,
        boto.ConnectTimeoutError: _UNREACHABLE,
        boto.SSLError: _TLS,
        boto.ProxyConnectionError: Meaning(
            AccessError, "The proxy cannot be reached; look at HTTPS_PROXY"
        ),
        boto.ReadTimeoutError: _TOO_LATE,
        boto.ConnectionError: _BROKEN_OFF,
        boto.HTTPClientError: _BROKEN_OFF,
        boto.IncompleteReadError: _BROKEN_OFF,
        boto.CapacityNotAvailableError: _BROKEN_OFF,
        # Credentials: who asks.
        boto.NoCredentialsError: _CREDENTIALS,
        boto.PartialCredentialsError: _CREDENTIALS,
        boto.CredentialRetrievalError: _CREDENTIALS,
        boto.UnknownCredentialError: _CREDENTIALS,
        boto.NoAuthTokenError: _CREDENTIALS,
        boto.TokenRetrievalError: _CREDENTIALS,
        boto.SSOError: _CREDENTIALS,
        boto.MetadataRetrievalError: _CREDENTIALS,
        boto.RefreshWithMFAUnsupportedError: _CREDENTIALS,
        boto.InvalidIMDSEndpointError: _CREDENTIALS,
        boto.InvalidIMDSEndpointModeError: _CREDENTIALS,
        # Configuration: whom we ask, and how.
        boto.ProfileNotFound: _NOT_CONFIGURED,
        boto.ConfigParseError: _NOT_CONFIGURED,
        boto.ConfigNotFound: _NOT_CONFIGURED,
        boto.InvalidConfigError: _NOT_CONFIGURED,
        boto.InvalidDefaultsMode: _NOT_CONFIGURED,
        boto.InvalidProxiesConfigError: _NOT_CONFIGURED,
        boto.InvalidRetryConfigurationError: _NOT_CONFIGURED,
        boto.InvalidChecksumConfigError: _NOT_CONFIGURED,
        boto.InvalidEndpointConfigurationError: _NOT_CONFIGURED,
        boto.InvalidSTSRegionalEndpointsConfigError: _NOT_CONFIGURED,
        boto.MissingDependencyException: _NOT_CONFIGURED,
        boto.DataNotFoundError: _NOT_CONFIGURED,
        boto.ApiVersionNotFoundError: _NOT_CONFIGURED,
        boto.UnknownSignatureVersionError: _NOT_CONFIGURED,
        boto.UnsupportedSignatureVersionError: _NOT_CONFIGURED,
        boto.UnsupportedServiceProtocolsError: _NOT_CONFIGURED,
        boto.BaseEndpointResolverError: _NOT_CONFIGURED,
        boto.EndpointProviderError: _NOT_CONFIGURED,
        boto.ServiceNotInRegionError: _NOT_CONFIGURED,
        boto.UnknownRegionError: _NOT_CONFIGURED,
        boto.InvalidRegionError: _NOT_CONFIGURED,
        # The request: what we ask.
        boto.ParamValidationError: _UNSENDABLE,
        boto.ValidationError: _UNSENDABLE,
        boto.MissingParametersError: _UNSENDABLE,
        # A lone surrogate in an id that goes into the path.
        UnicodeEncodeError: _UNSENDABLE._replace(code="ParamValidationError"),
        # The rest of botocore's, for other services than Connect.
        boto.BotoCoreError: Meaning(RequestRejected, "botocore refuses the request"),
        # Not botocore's. `ssl.SSLError` and `TimeoutError` are `OSError`s.
        ssl.SSLError: _TLS._replace(code="SSLError"),
        TimeoutError: _TOO_LATE._replace(code="ReadTimeoutError"),
        OSError: _BROKEN_OFF._replace(code="ConnectionClosedError"),
        aiohttp.ClientError: _BROKEN_OFF._replace(code="ConnectionClosedError"),
        # botocore's parser on a body that is not what it expects.
        ResponseParserError: _UNEXPECTED,
        ValueError: _UNEXPECTED,
        AttributeError: _UNEXPECTED,
        LookupError: _UNEXPECTED,
        TypeError: _UNEXPECTED,
    }
)
"""What an exception without an error code says; the nearest base class counts."""

# Everything that an attempt may raise but `CancelledError`, which passes. Named bases, for an
# `except Exception` would turn our own mistakes into failed rows.
_FOREIGN: Final = (
    boto.ClientError,  # an error answer of Connect's, or of the service that lends credentials
    boto.BotoCoreError,  # the way, the credentials, the parameters: botocore's own tree
    ResponseParserError,  # botocore's, outside of that tree
    aiohttp.ClientError,  # what aiobotocore does not wrap while it reads a body
    OSError,  # sockets, TLS, timeouts, files that hold credentials
    ValueError,  # bodies that are no JSON or no UTF-8; text that has no UTF-8
    AttributeError,  # bodies that are JSON but no object
    LookupError,  # objects that lack a member
    TypeError,  # members of another type
)

# A code is the service's word, and may be an intermediary's: what does not look like a name could
# be anything, even an echo of the request.
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}")

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Receipt:
    """Connect's word that it made an update.

    Attributes:
        request_id: The service's id of the request, never empty.
        http_status: The status of the answer, 200 to 299.
    """

    request_id: str
    http_status: int


class Connect:
    """An open connection to Connect; made by `open_connect`.

    Safe for any number of concurrent calls on the event loop that it was opened on.

    Attributes:
        region: The region that requests are signed for.
        endpoint_url: Where requests go, after flags, environment and profile have had their say.
    """

    def __init__(self, client: Any) -> None:
        self.region: str = client.meta.region_name
        self.endpoint_url: str = client.meta.endpoint_url
        self._client = client
        self._api_names: Mapping[str, str] = client.meta.method_to_api_mapping

    async def send(self, request: Request) -> Receipt:
        """Makes one attempt.

        Take the token of the bucket before this call: botocore signs first and waits for a free
        connection afterwards, and a signature is good for five minutes.

        Args:
            request: What to send; `params` go to the operation as they stand.

        Returns:
            The receipt, if and only if Connect confirmed the update.

        Raises:
            SendError: For everything else, as one of its four subclasses.
        """
        api_name = self._api_names.get(request.operation)
        if api_name is None:
            raise _error("UnknownOperationException", None)
        try:
            answer = await getattr(self._client, request.operation)(**request.params)
        except SendError:
            raise  # `_judge_answer` spoke
        except _FOREIGN as error:
            # `from None`: what botocore says of a parameter quotes it, and a traceback prints
            # causes.
            raise translate(error, api_name) from None
        metadata = answer["ResponseMetadata"]
        request_id = metadata.get("RequestId")
        if not request_id:
            raise _error("UnexpectedAnswer", metadata["HTTPStatusCode"])
        return Receipt(request_id=request_id, http_status=metadata["HTTPStatusCode"])


@asynccontextmanager
async def open_connect(config: ConnectionConfig, *, max_in_flight: int) -> AsyncIterator[Connect]:
    """Opens the one client of a run, and closes it.

    Takes 0.2 s, most of it to read the service's model; longer where credentials come from the
    network. All of it happens in a thread, so that the loop goes on.

    Args:
        config: How Connect is reached. What it leaves open, the environment and the profile say.
        max_in_flight: Connections that may be open at once, from 1. Not more requests than this
            should be under way: those that wait for a connection wait with their signature.

    Yields:
        The connection.

    Raises:
        ConfigError: If there is no region, no such profile, no credentials or no CA bundle, or if
            the endpoint's URL is malformed.
    """
    if config.endpoint_url is not None:
        _check_endpoint_url(config.endpoint_url)
    async with AsyncExitStack() as stack:
        try:
            session = await asyncio.to_thread(_open_session, config)
            if config.sign_requests:
                await _check_credentials(session)
            client = await _off_loop(
                stack.enter_async_context(
                    session.client(
                        "connect",
                        endpoint_url=config.endpoint_url,
                        verify=config.ca_bundle if config.verify_ssl else False,
                        config=_client_config(config, max_in_flight),
                    )
                )
            )
        except boto.ProfileNotFound as error:
            raise ConfigError(
                f"There is no AWS profile {error.kwargs['profile']!r}; name one that stands in the"
                " shared configuration with --profile or AWS_PROFILE, or none."
            ) from error
        except (boto.BotoCoreError, OSError, ValueError) as error:
            raise ConfigError(
                f"{str(error).rstrip('.')}; look at --region, --endpoint-url and --profile, and at"
                " AWS_REGION, AWS_ENDPOINT_URL and AWS_CONFIG_FILE."
            ) from error
        # aiobotocore loses the class when it merges settings; then redirects would be followed.
        if not isinstance(client._endpoint.http_session, _StraightSession):  # noqa: SLF001
            raise ConfigError("This version of aiobotocore would follow redirects; use 2.25.1.")
        client.meta.events.register("before-parse.connect", _judge_answer)
        yield Connect(client)


# ----------------------------------------------------------------------------------------------
# Opening

_T = TypeVar("_T")


async def _off_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs what aiobotocore calls a coroutine, but what reads files, in a thread.

    Nothing that it leaves behind is tied to the thread's loop: connections are opened at the first
    request, and a lock that nobody waits for knows no loop.
    """
    return await asyncio.to_thread(asyncio.run, work)


def _open_session(config: ConnectionConfig) -> aioboto3.Session:
    """Settles region, profile and trust; reads files, so it runs in a thread."""
    # botocore looks at AWS_DEFAULT_REGION only; the AWS CLI looks at AWS_REGION first.
    session = AioSession(
        session_vars={"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
    )
    key, secret = config.access_key or (None, None)
    opened = aioboto3.Session(
        botocore_session=session,
        profile_name=config.profile,
        region_name=config.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    if opened.region_name is None:
        raise ConfigError(
            "There is no AWS region; name one with --region, AWS_REGION, AWS_DEFAULT_REGION or"
            " `region` in the profile."
        )
    if config.verify_ssl:
        # The order in which botocore asks.
        _check_ca_bundle(
            config.ca_bundle
            or session.get_config_variable("ca_bundle")
            or os.environ.get("REQUESTS_CA_BUNDLE")
        )
    return opened


def _client_config(config: ConnectionConfig, max_in_flight: int) -> AioConfig:
    return AioConfig(
        http_session_cls=_StraightSession,
        retries={"mode": "standard", "total_max_attempts": 1},  # `retry` retries, and pays for it
        max_pool_connections=max_in_flight,
        connect_timeout=config.connect_timeout_s or None,  # 0 means no limit, as for the AWS CLI
        read_timeout=config.read_timeout_s or None,
        tcp_keepalive=True,
        user_agent_extra=f"bulk_updater/{__version__}",
        # The environment's proxies are for the way out; None asks for them.
        proxies={} if is_loopback(config.endpoint_url) else None,
        signature_version=None if config.sign_requests else UNSIGNED,
    )


def _check_endpoint_url(url: str) -> None:
    """Raises `ConfigError` unless the URL is one that a request can go to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable or any(character.isspace() for character in url):
        raise ConfigError(
            f"--endpoint-url is {url!r}; it must be a whole URL, such as http://127.0.0.1:8080."
        )


def _check_ca_bundle(path: str | None) -> None:
    """Raises `ConfigError` unless the file can be trusted; None trusts the default one."""
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # `ssl.SSLError` is one
        fault = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"The CA bundle {path} cannot be used ({fault}); name a file of PEM certificates with"
            " --ca-bundle or AWS_CA_BUNDLE, or leave it out."
        ) from error


async def _check_credentials(session: aioboto3.Session) -> None:
    """Raises `ConfigError` unless there are credentials, borrowed ones included.

    botocore looks for them at the first request, when rows are under way already.
    """
    try:
        credentials = await _off_loop(session.get_credentials())
        if credentials is not None:
            await _off_loop(credentials.get_frozen_credentials())
            return
    except boto.ProfileNotFound:
        raise
    except (boto.BotoCoreError, boto.ClientError, OSError, ValueError, LookupError) as error:
        # No row has been read: the text can hold no cell.
        raise ConfigError(
            f"The AWS credentials could not be loaded ({error}); mend the profile, log in again"
            " with `aws sso login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    raise ConfigError(
        "There are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a"
        " profile with --profile. An endpoint that checks no signatures takes --no-sign-request."
    )


class _StraightSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's HTTP session, which sends a request where it was told to and nowhere else.

    It also sets the socket options that botocore asks for, among them keep-alive; aiobotocore
    2.25.1 leaves them out. Without, a peer that vanished is never noticed where there is no read
    timeout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connector_args: dict[str, Any] = {
            **self._connector_args,
            "socket_factory": self._open_socket,
        }

    def _open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, *_ = address
        opened = socket.socket(family, kind, protocol)
        for option in self._socket_options:
            opened.setsockopt(*option)
        return opened

    async def _get_session(self, proxy_url: str | None) -> SimpleNamespace:
        session = await super()._get_session(proxy_url)
        return SimpleNamespace(request=partial(session.request, allow_redirects=False))


# ----------------------------------------------------------------------------------------------
# Judging


def _judge_answer(response_dict: dict[str, Any], **_: Any) -> None:
    """Looks at an answer before botocore parses it (event `before-parse.connect`).

    Args:
        response_dict: `status_code`, `headers` with lower-case names, and `body` as bytes; the body
            of an error is replaced by its code.

    Raises:
        TransientError: If the answer cannot be Connect's: a redirect, or a success that is neither
            blank nor a JSON object.
    """
    status: int = response_dict["status_code"]
    headers: Mapping[str, str] = response_dict["headers"]
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise _error("Redirected", status, headers)
    found = _parse_body(response_dict["body"])
    if status < HTTPStatus.BAD_REQUEST:
        if found is None or status < HTTPStatus.OK:
            raise _error("UnexpectedAnswer", status, headers)
        return
    # botocore prefers the header x-amzn-errortype, then these; from `{}` it takes the status.
    members = (found or {}).get
    code = members("code") or members("Code") or members("__type")
    response_dict["body"] = orjson.dumps({"__type": code} if isinstance(code, str) else {})


def _parse_body(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body, empty for a blank body; None if it holds anything else."""
    if not body.strip():
        return {}
    try:
        found = orjson.loads(body)  # strict: UTF-8, no NaN, no depth that overflows the stack
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def translate(error: Exception, api_name: str) -> SendError:
    """Makes one `SendError` of whatever an attempt raised.

    Args:
        error: One of `_FOREIGN`.
        api_name: The operation as the service calls it, such as `UpdateContact`.

    Returns:
        The error to raise. Its message is made of our own words, the code, the status and, where
        there was no connection, the words of the operating system; it quotes nothing else.
    """
    if isinstance(error, boto.ClientError):
        return _translate_answer(error, api_name)
    cause = getattr(error, "kwargs", {}).get("error")  # what aiobotocore wrapped
    meaning = next(EXCEPTIONS[base] for base in type(error).__mro__ if base in EXCEPTIONS)
    code = meaning.code or type(error).__name__
    if (
        isinstance(error, boto.EndpointConnectionError)
        and isinstance(cause, aiohttp.ClientConnectionError)
        and not isinstance(cause, aiohttp.ClientConnectorError)
    ):
        # aiobotocore gives one name to a connection that was never made and to one that was reset,
        # perhaps because of what this row says.
        meaning, code = _BROKEN_OFF, boto.ConnectionClosedError.__name__
    elif isinstance(cause, aiohttp.ClientResponseError):
        meaning, code = _UNEXPECTED, "UnexpectedAnswer"  # no HTTP
    return meaning.kind(_say(meaning.sentence, code, None, _system_words(cause)), code=code)


def _translate_answer(error: boto.ClientError, api_name: str) -> SendError:
    code = error.response.get("Error", {}).get("Code")
    metadata = error.response.get("ResponseMetadata", {})
    status: int | None = metadata.get("HTTPStatusCode")
    headers: Mapping[str, str] = metadata.get("HTTPHeaders", {})
    if error.operation_name != api_name:
        # Another service's answer: the one that lends the credentials, whose codes do not speak of
        # this row.
        passing = status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = TransientError if passing else AccessError
        name = boto.CredentialRetrievalError.__name__
        return kind(_say(_CREDENTIALS.sentence, name, None), code=name)
    return _error(code if isinstance(code, str) else "", status, headers)


def _error(code: str, status: int | None, headers: Mapping[str, str] | None = None) -> SendError:
    """The one place where code and status become an error.

    Args:
        code: The service's code, or one of ours. What does not look like a name counts as none.
        status: The status of the answer; None where there was no answer.
        headers: The answer's headers, with lower-case names.
    """
    headers = headers or {}
    named = _CODE.fullmatch(code) is not None
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        meaning = STATUSES[status]
    elif code in CODES:
        meaning = CODES[code]
    elif status is not None and (not named or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        meaning = STATUSES.get(status, _UNKNOWN)
    else:
        meaning = _UNKNOWN
    if not named:
        code = str(status)
    return meaning.kind(
        _say(meaning.sentence, code, status),
        code=code,
        http_status=status,
        request_id=headers.get("x-amzn-requestid"),
        retry_after_s=_retry_after_s(headers),
    )


def _say(sentence: str, code: str, status: int | None, detail: str | None = None) -> str:
    details = [
        None if code == str(status) else code,
        None if status is None else f"HTTP {status}",
        detail,
    ]
    return f"{sentence} ({', '.join(filter(None, details))})."


def _system_words(cause: object) -> str | None:
    """What the operating system or OpenSSL says, such as "Connection refused".

    Their texts are fixed, so they hold no cell; aiohttp's and botocore's may hold the URL.
    """
    cause = getattr(cause, "os_error", None) or getattr(cause, "certificate_error", cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError):
        return cause.reason
    if isinstance(cause, socket.gaierror):
        return cause.strerror
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, 0 or more; None if it does not ask or makes no sense.

    Sources: `x-amz-retry-after` is in milliseconds (botocore/retries/standard.py, 1.43.3);
    `Retry-After` is in seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    milliseconds = headers.get("x-amz-retry-after", "")
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    asked = headers.get("retry-after", "")
    if _NUMBER.fullmatch(asked):
        return float(asked)
    until_s = _epoch_s(asked)
    if until_s is None:
        return None
    # The service's own clock where it tells, for this machine's may differ.
    now_s = _epoch_s(headers.get("date", ""))
    return max(0.0, until_s - (time.time() if now_s is None else now_s))


def _epoch_s(http_date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
    except ValueError:
        return None
    # "-0000" yields a moment without a zone; HTTP dates are in UTC whatever they say.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
