"""What goes back over the wire, before it is HTTP."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulk_updater.sandbox.errors import ServiceError

__all__ = ["QUERY_XML", "REST_JSON", "Answer", "error_answer", "success_answer"]

REST_JSON = "application/json"
"""Content type of Connect's answers; Service Quotas has its own."""

QUERY_XML = "text/xml"
"""Content type of the Query protocol's answers, which STS speaks."""

_XML_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"

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
        breaks_off: Whether the connection is closed when half of its body has been sent.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": REST_JSON})
    identified: bool = True
    breaks_off: bool = False


def success_answer(members: Mapping[str, Any], *, content_type: str = REST_JSON) -> Answer:
    """A success that says `members`; as XML they are one element, with others in it."""
    return Answer(body=_encode(members, content_type), headers={"Content-Type": content_type})


def error_answer(error: ServiceError, *, content_type: str = REST_JSON) -> Answer:
    """An error as AWS services send it.

    The text stands under both spellings of its key, since botocore reads either and R's paws
    the lower-case one alone; the code stands in the header that paws needs. Services that speak
    JSON 1.1 or XML name the code in the body as well.
    """
    members: dict[str, Any] = {"message": error.message, "Message": error.message}
    if content_type == QUERY_XML:
        named = {"Type": "Sender", "Code": error.code, "Message": error.message}
        members = {"ErrorResponse": {"Error": named}}
    elif content_type != REST_JSON:
        members["__type"] = error.code
    return Answer(
        status=error.http_status,
        body=_encode(members, content_type),
        headers={
            "Content-Type": content_type,
            "x-amzn-ErrorType": f"{error.code}:{_ERROR_NAMESPACE}",
        },
    )


def _encode(members: Mapping[str, Any], content_type: str) -> bytes:
    if content_type != QUERY_XML:
        return json.dumps(members).encode()
    ((root, inner),) = members.items()
    return f'<{root} xmlns="{_XML_NAMESPACE}">{_elements(inner)}</{root}>'.encode()


def _elements(value: Mapping[str, Any] | str) -> str:
    if isinstance(value, str):
        return html.escape(value)
    return "".join(f"<{name}>{_elements(inner)}</{name}>" for name, inner in value.items())
