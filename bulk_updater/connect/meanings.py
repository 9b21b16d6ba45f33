"""What error codes, statuses and exceptions say: one table each, with what to do about it."""

from __future__ import annotations

import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from bulk_updater.errors import (
    AccessError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "BROKEN_OFF",
    "CODES",
    "CREDENTIALS",
    "EXCEPTIONS",
    "FOREIGN",
    "LENDER_FAILS",
    "SIGNATURE_CODES",
    "STATUSES",
    "UNEXPECTED",
    "UNKNOWN",
    "Meaning",
]


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


# What the codes say. Sources: the service model of Connect (botocore 1.40.61 and 1.43), the AWS
# pages "Best practices for Amazon Connect APIs" and "Common Errors", and the throttling codes of
# botocore/retries/standard.py.

_SLOW_DOWN = "Connect asks to slow down"
_SERVICE_FAILED = "Connect failed on its side; the same request may succeed later"
_REFUSED = "Connect refuses what the request says"
SIGNATURE_CODES: Final = (
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "RequestExpired",
    "RequestTimeTooSkewed",
)
"""The codes of a signature that is refused: a wrong secret, or a wrong clock."""

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
    (AccessError, _SIGNATURE, SIGNATURE_CODES),
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

UNKNOWN = Meaning(RequestRejected, "Connect refuses the request for a reason unknown here")

_UNSENDABLE = Meaning(
    RequestRejected, "The request does not fit the operation's model and was not sent"
)
_UNREACHABLE = Meaning(
    TransientError,
    "Nobody answers at the endpoint; look at --endpoint-url, --region and the network",
)
BROKEN_OFF = Meaning(
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
CREDENTIALS = Meaning(
    AccessError,
    "The credentials could not be loaded or renewed; look at the profile that lends them",
)
LENDER_FAILS = Meaning(
    TransientError,
    "Whoever lends the credentials fails or is not reached",
    "CredentialsUnavailable",
)
UNEXPECTED = CODES["UnexpectedAnswer"]._replace(code="UnexpectedAnswer")

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
        boto.ConnectionError: BROKEN_OFF,
        boto.HTTPClientError: BROKEN_OFF,
        boto.IncompleteReadError: BROKEN_OFF,
        boto.CapacityNotAvailableError: BROKEN_OFF,
        # Credentials: who asks.
        boto.NoCredentialsError: CREDENTIALS,
        boto.PartialCredentialsError: CREDENTIALS,
        boto.CredentialRetrievalError: CREDENTIALS,
        boto.UnknownCredentialError: CREDENTIALS,
        boto.NoAuthTokenError: CREDENTIALS,
        boto.TokenRetrievalError: CREDENTIALS,
        boto.SSOError: CREDENTIALS,
        boto.MetadataRetrievalError: CREDENTIALS,
        boto.RefreshWithMFAUnsupportedError: CREDENTIALS,
        boto.InvalidIMDSEndpointError: CREDENTIALS,
        boto.InvalidIMDSEndpointModeError: CREDENTIALS,
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
        OSError: BROKEN_OFF._replace(code="ConnectionClosedError"),
        aiohttp.ClientError: BROKEN_OFF._replace(code="ConnectionClosedError"),
        # botocore's parser on a body that is not what it expects.
        ResponseParserError: UNEXPECTED,
        ValueError: UNEXPECTED,
        AttributeError: UNEXPECTED,
        LookupError: UNEXPECTED,
        TypeError: UNEXPECTED,
    }
)
"""What an exception without an error code says; the nearest base class counts."""

# Everything that an attempt may raise but `CancelledError`, which passes. Named bases, for an
# `except Exception` would turn our own mistakes into failed rows.
FOREIGN: Final = (
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
