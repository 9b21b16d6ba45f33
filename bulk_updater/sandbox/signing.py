"""Signature Version 4, verified from the request as it came over the wire.

Written from the AWS documentation ("Signature Version 4 signing process"), so that a fault in an
SDK's signer shows here rather than being repeated. The payload hash is always that of the body:
R's paws sends no `X-Amz-Content-Sha256`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from bulk_updater.sandbox.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Scope", "WireRequest", "sign", "verify"]

_ALGORITHM = "AWS4-HMAC-SHA256"
_TIMESTAMP = "%Y%m%dT%H%M%SZ"

_TOLERANCE = timedelta(minutes=5)
"""How far a signature's time may lie from the service's: the "5 min." of the error message."""

_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM}\s+Credential=(?P<credential>[^,\s]+)\s*,"
    r"\s*SignedHeaders=(?P<signed>[^,\s]+)\s*,\s*Signature=(?P<signature>[^,\s]+)"
)


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it came: nothing decoded, nothing put in order.

    Attributes:
        method: The HTTP method.
        path: The path, still percent-encoded.
        query: What stands after the question mark, still percent-encoded.
        headers: Names and values, in their order.
        body: The body, whole.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The values of a header, trimmed and joined by commas; None where there is none."""
        values = [
            " ".join(value.split()) for key, value in self.headers if key.lower() == name.lower()
        ]
        return ",".join(values) if values else None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for.

    Attributes:
        date: The day, as YYYYMMDD.
        region: The AWS region.
        service: The signing name of the service.
    """

    date: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def sign(
    request: WireRequest, *, secret_key: str, scope: Scope, timestamp: str, signed_headers: str
) -> str:
    """Compute the signature of a request.

    Args:
        request: The request.
        secret_key: The secret key.
        scope: What the signature is to be good for.
        timestamp: The time of signing, as YYYYMMDD'T'HHMMSS'Z'.
        signed_headers: Names of the headers that are signed, separated by semicolons.

    Returns:
        The signature, in hexadecimal.
    """
    canonical_headers = "".join(
        f"{name}:{request.header(name) or ''}\n" for name in signed_headers.split(";")
    )
    canonical = "\n".join(
        (
            request.method,
            _canonical_path(request.path),
            _canonical_query(request.query),
            canonical_headers,
            signed_headers,
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    to_sign = "\n".join(
        (_ALGORITHM, timestamp, str(scope), hashlib.sha256(_raw(canonical)).hexdigest())
    )
    key = _raw(f"AWS4{secret_key}")
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, _raw(part), "sha256")
    return hmac.digest(key, _raw(to_sign), "sha256").hex()


def verify(
    request: WireRequest, *, access_key: str, secret_key: str, service: str, now: datetime
) -> Scope:
    """Check who signed the request, when, for which service, and that it is what was signed.

    A session token is allowed and not looked at; where it is a signed header, as the SDKs make
    it, the signature covers it.

    Args:
        request: The request.
        access_key: The access key that is known.
        secret_key: Its secret.
        service: The signing name that the operation needs.
        now: The service's time, aware of its zone.

    Returns:
        The scope of the signature.

    Raises:
        ServiceError: The request is not signed, or not so. All of these are HTTP 403.
    """
    authorization = request.header("Authorization")
    if authorization is None:
        raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(authorization)
    credential = match["credential"].rsplit("/", 4) if match else []
    if match is None or len(credential) != len(("key", "date", "region", "service", "end")):
        raise ServiceError(
            "IncompleteSignatureException",
            "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders', "
            f"after {_ALGORITHM}.",
        )
    if not hmac.compare_digest(_raw(credential[0]), _raw(access_key)):
        raise ServiceError(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    scope = Scope(*credential[1:4])
    timestamp = _check_time(request, now)
    if scope.service != service or credential[4] != "aws4_request" or not scope.region:
        raise _invalid(f"Credential should be scoped to correct service: '{service}'.")
    if scope.date != timestamp[:8]:
        raise _invalid(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
            f"from HTTP: '{scope.date}' != '{timestamp[:8]}', from '{timestamp}'."
        )
    if "host" not in match["signed"].split(";"):
        raise _invalid("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    expected = sign(
        request,
        secret_key=secret_key,
        scope=scope,
        timestamp=timestamp,
        signed_headers=match["signed"],
    )
    if not hmac.compare_digest(_raw(match["signature"]), _raw(expected)):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. Consult the service "
            "documentation for details."
        )
    return scope


def _check_time(request: WireRequest, now: datetime) -> str:
    timestamp = request.header("X-Amz-Date") or ""
    signed_at = _parse_timestamp(timestamp)
    if signed_at is None:
        raise ServiceError(
            "IncompleteSignatureException",
            "Authorization header requires existence of an 'X-Amz-Date' header, "
            "as YYYYMMDD'T'HHMMSS'Z'.",
        )
    # A timestamp has no fraction; one of this very second is not from the past.
    now = now.astimezone(UTC).replace(microsecond=0)
    at = now.strftime(_TIMESTAMP)
    if signed_at < now - _TOLERANCE:
        earliest = (now - _TOLERANCE).strftime(_TIMESTAMP)
        raise _invalid(
            f"Signature expired: {timestamp} is now earlier than {earliest} ({at} - 5 min.)"
        )
    if signed_at > now + _TOLERANCE:
        latest = (now + _TOLERANCE).strftime(_TIMESTAMP)
        raise _invalid(
            f"Signature not yet current: {timestamp} is still later than {latest} ({at} + 5 min.)"
        )
    return timestamp


def _parse_timestamp(timestamp: str) -> datetime | None:
    # fromisoformat knows more spellings than Signature Version 4.
    if not re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", timestamp):
        return None
    try:
        return datetime.fromisoformat(timestamp)
    except ValueError:
        return None


def _canonical_path(path: str) -> str:
    # Dots and doubled slashes are resolved, and what came encoded is encoded once more: so for
    # every service but S3.
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return quote("/" + "/".join(kept) + end, safe="/~", errors="surrogateescape")


def _canonical_query(query: str) -> str:
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    encoded = sorted(
        (quote(unquote(key), safe="-_.~"), quote(unquote(value), safe="-_.~"))
        for key, value in pairs
    )
    return "&".join(f"{key}={value}" for key, value in encoded)


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidSignatureException", message)


def _raw(text: str) -> bytes:
    # Header bytes that are not UTF-8 come as surrogate escapes; they go back as they came.
    return text.encode("utf-8", "surrogateescape")
