"""From answers and foreign exceptions to exactly one `SendError`, whose words are all ours."""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from botocore import exceptions as boto

from bulk_updater.connect.meanings import (
    BROKEN_OFF,
    CODES,
    CREDENTIALS,
    EXCEPTIONS,
    LENDER_FAILS,
    STATUSES,
    UNEXPECTED,
    UNKNOWN,
)
from bulk_updater.errors import (
    AccessError,
    SendError,
    Throttled,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "details_of",
    "judge_answer",
    "make_error",
    "measure_clock",
    "translate",
    "translate_lender",
]

# A code is the service's word, and may be an intermediary's: what does not look like a name could
# be anything, even an echo of the request.
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}")

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def judge_answer(response_dict: dict[str, Any], **_: Any) -> None:
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
        raise make_error("Redirected", status, headers)
    found = _parse_body(response_dict["body"])
    if status < HTTPStatus.BAD_REQUEST:
        if found is None or status < HTTPStatus.OK:
            raise make_error("UnexpectedAnswer", status, headers)
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
        error: One of `FOREIGN`.
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
        meaning, code = BROKEN_OFF, boto.ConnectionClosedError.__name__
    elif isinstance(cause, aiohttp.ClientResponseError):
        meaning, code = UNEXPECTED, "UnexpectedAnswer"  # no HTTP
    return meaning.kind(_say(meaning.sentence, code, None, _system_words(cause)), code=code)


def _translate_answer(error: boto.ClientError, api_name: str) -> SendError:
    code = error.response.get("Error", {}).get("Code")
    metadata = error.response.get("ResponseMetadata", {})
    status: int | None = metadata.get("HTTPStatusCode")
    headers: Mapping[str, str] = metadata.get("HTTPHeaders", {})
    told = make_error(code if isinstance(code, str) else "", status, headers)
    if error.operation_name != api_name:
        # Another service's answer: the one that lends the credentials, whose codes do not speak of
        # this row.
        return _of_lender(passing=isinstance(told, Throttled | TransientError))
    return told


def translate_lender(error: Exception) -> SendError:
    """Makes one `SendError` of what was raised when credentials were to be lent.

    Nothing that goes wrong there speaks of a row, so none of it may end as a row's failure.

    Args:
        error: One of `FOREIGN`.
    """
    told = translate(error, "")
    if isinstance(told, AccessError):
        return told
    return _of_lender(passing=isinstance(told, TransientError))


def _of_lender(*, passing: bool) -> SendError:
    if passing:
        return TransientError(
            _say(LENDER_FAILS.sentence, "CredentialsUnavailable", None),
            code="CredentialsUnavailable",
        )
    name = boto.CredentialRetrievalError.__name__
    return AccessError(_say(CREDENTIALS.sentence, name, None), code=name)


def make_error(
    code: str, status: int | None, headers: Mapping[str, str] | None = None
) -> SendError:
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
        meaning = STATUSES.get(status, UNKNOWN)
    else:
        meaning = UNKNOWN
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


def details_of(error: SendError) -> str | None:
    """What `_say` put into a message besides code and status: words of the operating system."""
    _, opened, behind = error.message.rpartition(" (")
    told = {error.code, f"HTTP {error.http_status}"}
    details = [each for each in behind.removesuffix(").").split(", ") if each not in told]
    return ", ".join(details) if opened and error.message.endswith(").") and details else None


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


def measure_clock(headers: Mapping[str, str]) -> float | None:
    """Seconds that this machine's clock is ahead of the service's, by an answer that just came.

    The service's clock tells whole seconds, and the answer was under way: good to a few seconds.

    Args:
        headers: The answer's headers, with lower-case names.

    Returns:
        Negative where it is behind; None where the answer has no date.
    """
    sent_s = _epoch_s(headers.get("date", ""))
    return None if sent_s is None else time.time() - sent_s


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
