"""What goes back over the wire, before it is HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulk_updater.sandbox.errors import ServiceError

__all__ = ["REST_JSON", "Answer", "error_answer", "json_answer"]

REST_JSON = "application/json"
"""Content type of Connect's answers; Service Quotas has its own."""

_ERROR_NAMESPACE = "http://internal.amazon.com/coral/com.amazonaws.connect/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        status: HTTP status, 100 to 599.
        body: The body, as it goes over the wire.
        headers: Headers besides those that every answer has.
        identified: Whether it carries `x-amzn-RequestId`. Without, it is what something between
            the client and the service would say, such as a proxy's log-in page.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": REST_JSON})
    identified: bool = True


def json_answer(members: Mapping[str, Any], *, content_type: str = REST_JSON) -> Answer:
    """A success that says `members`."""
    return Answer(body=json.dumps(members).encode(), headers={"Content-Type": content_type})


def error_answer(error: ServiceError, *, content_type: str = REST_JSON) -> Answer:
    """An error as AWS services send it.

    The text stands under both spellings of its key, since botocore reads either and R's paws
    the lower-case one alone; the code stands in the header that paws needs. Services that speak
    JSON 1.1 name the code in the body as well.
    """
    members = {"message": error.message, "Message": error.message}
    if content_type != REST_JSON:
        members["__type"] = error.code
    return Answer(
        status=error.http_status,
        body=json.dumps(members).encode(),
        headers={
            "Content-Type": content_type,
            "x-amzn-ErrorType": f"{error.code}:{_ERROR_NAMESPACE}",
        },
    )
