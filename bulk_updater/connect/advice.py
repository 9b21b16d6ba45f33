"""Why a run stopped, in one sentence that a person can act on.

    advise   what went wrong, on how many requests, why, and what to mend
    Scene    what is known of the run: region, instances, how far the clock is off

A row's own message says what became of the row; this one speaks of the run. It says the status and
the code once, the cause as nearly as it is known, and what to do before the same command goes on.
All of it is in our own words: the service's text may quote the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from bulk_updater.connect.judging import details_of
from bulk_updater.connect.meanings import SIGNATURE_CODES
from bulk_updater.errors import AccessError
from bulk_updater.operations import get_operation
from bulk_updater.words import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulk_updater.errors import SendError

__all__ = ["ADVICE", "Advice", "Scene", "advise"]

_TOLERATED_SKEW_S: Final = 300.0
"""How far a clock may be off: AWS says "Signature not yet current", "+ 5 min."."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of a run that has to stop.

    Attributes:
        region: The region that requests are signed for; None where it is not known.
        instance_ids: The instance of each operation, by its snake_case name, where the mapping
            holds it as a constant. One that comes from a column is not in here.
        clock_ahead_s: Seconds that this machine's clock is ahead of the service's, negative where
            it is behind; None where no answer told.
    """

    region: str | None = None
    instance_ids: Mapping[str, str] = field(default_factory=dict)
    clock_ahead_s: float | None = None


class Advice(NamedTuple):
    """What an error code means for a run.

    Attributes:
        cause: What is wrong; may name `{action}`, `{operation}` and `{resource}`.
        mend: What to do about it.
    """

    cause: str
    mend: str


_AGAIN: Final = "and give the same command again"
_GOES_ON: Final = "the same command goes on after the rows that failed, which are in failed.csv"

_WRONG_PAIR: Final = "the secret key or the session token does not belong to the access key"

_GROUPS: Final[tuple[tuple[tuple[str, ...], str, str], ...]] = (
    # Who asks.
    (
        ("AccessDeniedException", "AccessDenied", "NotAuthorized"),
        "the role lacks {action} on {resource}",
        f"allow it {_AGAIN}",
    ),
    (
        ("ExpiredTokenException", "ExpiredToken"),
        "the credentials have expired",
        f"log in again or renew them {_AGAIN}",
    ),
    (
        ("UnrecognizedClientException", "InvalidClientTokenId"),
        "AWS does not know the access key",
        f"look at --profile, AWS_PROFILE and AWS_ACCESS_KEY_ID {_AGAIN}",
    ),
    (
        SIGNATURE_CODES,
        f"{_WRONG_PAIR}, or this machine's clock is wrong",
        f"mend the credentials or set the clock {_AGAIN}",
    ),
    (
        ("MissingAuthenticationToken", "MissingAuthenticationTokenException"),
        "Connect wants signed requests",
        "give the same command again without --no-sign-request",
    ),
    (
        ("OptInRequired",),
        "the account has not subscribed to Connect",
        f"subscribe it or use another account's credentials {_AGAIN}",
    ),
    (
        ("CredentialRetrievalError",),
        "the credentials could not be loaded or renewed",
        f"log in again or mend the profile that lends them {_AGAIN}",
    ),
    (
        ("CredentialsUnavailable",),
        "whoever lends the credentials fails or is not reached",
        f"look at the network and the AWS Health Dashboard {_AGAIN}",
    ),
    (
        ("401", "403"),
        "Connect, or a proxy or a firewall in between, forbids the requests",
        f"look at --endpoint-url and at proxies {_AGAIN}",
    ),
    # Whom we ask.
    (
        ("UnknownOperationException",),
        "the endpoint does not know {operation}",
        f"look at --endpoint-url and --region {_AGAIN}",
    ),
    (
        ("InvalidActiveRegionException",),
        "the instance is active in another region",
        "give the same command again with that one as --region",
    ),
    (
        ("EndpointConnectionError", "ConnectTimeoutError"),
        "nobody answers at the endpoint",
        f"look at --endpoint-url, --region and the network {_AGAIN}",
    ),
    (
        ("SSLError",),
        "the connection cannot be made safe",
        f"look at --ca-bundle, --endpoint-url and at proxies that open TLS {_AGAIN}",
    ),
    (
        ("ProxyConnectionError",),
        "the proxy cannot be reached",
        f"look at HTTPS_PROXY and NO_PROXY {_AGAIN}",
    ),
    (
        ("407",),
        "the proxy wants to know who asks",
        f"put user and password into HTTPS_PROXY {_AGAIN}",
    ),
    (
        ("Redirected",),
        "the endpoint redirects, perhaps to a log-in page, which is not followed",
        f"look at --endpoint-url and at proxies {_AGAIN}",
    ),
    (
        ("UnexpectedAnswer",),
        "what answers is not Connect, but perhaps a log-in page",
        f"look at --endpoint-url and at proxies {_AGAIN}",
    ),
    (("404",), "there is nothing of Connect's at this address", f"look at --endpoint-url {_AGAIN}"),
    # What we ask: the rows are FAILED, and too many of them in the same way.
    (
        ("ResourceNotFoundException",),
        (
            "the instance id or the region is wrong, or these contacts are older than 24 months or"
            " of another instance"
        ),
        f"look at InstanceId and --region; {_GOES_ON}",
    ),
    (
        (
            "InvalidRequestException",
            "InvalidParameterException",
            "ValidationError",
            "ParamValidationError",
        ),
        "{operation} does not take what the mapping makes of these rows",
        f"compare one with what `bulk-updater plan` shows; {_GOES_ON}",
    ),
    (
        (
            "InternalServiceException",
            "InternalFailure",
            "ServiceUnavailable",
            "500",
            "502",
            "503",
            "504",
        ),
        "Connect fails on its side",
        f"look at the AWS Health Dashboard; {_GOES_ON}",
    ),
    (
        ("ConnectionClosedError", "HTTPClientError"),
        "connections break off before there is an answer",
        f"look at the network and at proxies; {_GOES_ON}",
    ),
    (
        ("ReadTimeoutError",),
        "answers do not come within --cli-read-timeout",
        f"look at the network; {_GOES_ON}",
    ),
)

ADVICE: Final[Mapping[str, Advice]] = MappingProxyType(
    {code: Advice(cause, mend) for codes, cause, mend in _GROUPS for code in codes}
)
"""What each code means for a run; what any other says of its row has to do."""


def advise(
    error: SendError, where: str, *, operation: str, scene: Scene, asks_too_long: bool = False
) -> str:
    """Why a run stops, in one sentence.

    Args:
        error: The last attempt's.
        where: How many requests ended so, such as `on the first 50 requests`.
        operation: The operation's snake_case name.
        scene: What is known of the run.
        asks_too_long: Whether it stops because of how long the answer asks to wait.
    """
    api_name = get_operation(operation).api_name
    found = _ask_to_wait(error) if asks_too_long else _advice(error, scene)
    cause = found.cause.format_map(
        {
            "action": f"connect:{api_name}",
            "operation": api_name,
            "resource": _resource(operation, scene),
        }
    )
    details = details_of(error)
    behind = f" ({details})" if details else ""
    return f"{_label(error)} {where}: {cause}{behind}; {found.mend}."


def _label(error: SendError) -> str:
    """Status and code, each once: `403 AccessDeniedException`, `503`, `SSLError`."""
    if error.http_status is None or error.code == str(error.http_status):
        return error.code
    return f"{error.http_status} {error.code}"


def _advice(error: SendError, scene: Scene) -> Advice:
    if error.code in SIGNATURE_CODES and scene.clock_ahead_s is not None:
        return _of_signature(scene.clock_ahead_s)
    found = ADVICE.get(error.code)
    if found is not None:
        return found
    # What it says of the row: our own words, without braces.
    cause, _, mend = error.message.partition(" (")[0].rstrip(".").partition("; ")
    again = "give the same command again" if isinstance(error, AccessError) else _GOES_ON
    return Advice(cause[:1].lower() + cause[1:], f"{mend}; {again}" if mend else again)


def _of_signature(ahead_s: float) -> Advice:
    """What a refused signature means where it is known how far the clock is off."""
    if abs(ahead_s) < _TOLERATED_SKEW_S:
        return Advice(
            _WRONG_PAIR,
            f"mend the credentials {_AGAIN}",
        )
    which_way = "ahead of" if ahead_s > 0 else "behind"
    return Advice(
        f"this machine's clock is {duration(abs(ahead_s))} {which_way} the service's",
        f"set it {_AGAIN}",
    )


def _ask_to_wait(error: SendError) -> Advice:
    return Advice(
        f"the service asks to wait {duration(error.retry_after_s or 0.0)}, which is longer than a"
        " run waits",
        "give the same command again after that",
    )


def _resource(operation: str, scene: Scene) -> str:
    """The contacts, as a policy names them."""
    region = scene.region or "*"
    partition = "aws-us-gov" if region.startswith("us-gov-") else "aws"
    # Several instances, or one that a row names: then it is not ours to say which.
    instance_id = scene.instance_ids.get(operation, "...")
    return f"arn:{partition}:connect:{region}:*:instance/{instance_id}/contact/*"
