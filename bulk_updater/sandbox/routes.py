"""Which operation a request is for, what it says, and how its answer is put.

Paths are matched as they came and decoded only then: an id may hold a slash, as `%2F`. The
content type is not looked at, since botocore and the AWS CLI send `application/json` and R's
paws `application/x-amz-json-1.1`; a body is JSON or it is refused. STS alone is sent a form: its
Query protocol names the operation in the body.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from bulk_updater.sandbox.answers import QUERY_XML, REST_JSON
from bulk_updater.sandbox.errors import ServiceError, invalid_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bulk_updater.sandbox.signing import Scope, WireRequest
    from bulk_updater.sandbox.state import Contact, Receipt, State

__all__ = ["OPERATIONS", "Call", "Operation", "Route", "find_route"]

_ACCOUNT_ID = "123456789012"
"""The account of the AWS documentation's examples."""

_JSON_1_1 = "application/x-amz-json-1.1"

_MAX_DEPTH = 64
"""How deep a body may nest. Ours: the model knows no end, Python's stack does."""

_QUOTAS = {
    "L-F001E5ED": "UpdateContactAttributes",
    "L-40C15531": "UpdateContact",
    "L-5AF7EB96": "GetContactAttributes",
    "L-371095B8": "DescribeContact",
}
"""Quota codes of the operations, as ListAWSDefaultServiceQuotas gives them."""

_CALLER_IDENTITY_FORM = {"Action": "GetCallerIdentity", "Version": "2011-06-15"}
"""What a form must hold to be a GetCallerIdentity; 2011-06-15 is STS's only API version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an operation is called with.

    Attributes:
        state: The contacts.
        request: The members of the request, ids included.
        receipt: What the log is to know.
        scope: What the request's signature is good for.
        quota_per_s: The quota that Service Quotas tells; None: it may not be read.
    """

    state: State
    request: dict[str, Any]
    receipt: Receipt
    scope: Scope
    quota_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        name: Its snake_case name.
        run: Carries it out; gives the members of the answer.
        service: The signing name of its service.
        throttle_code: The error code of an empty bucket; None: it has no bucket.
        writes: Whether it changes a contact.
        content_type: The content type of its answers.
    """

    name: str
    run: Callable[[Call], dict[str, Any]]
    service: str = "connect"
    throttle_code: str | None
    writes: bool = False
    content_type: str = REST_JSON


@dataclass(frozen=True, slots=True)
class Route:
    """A request that found its operation.

    Attributes:
        operation: The operation.
        path_members: The members that stand in the path, still percent-encoded.
    """

    operation: Operation
    path_members: dict[str, str]

    def parse(self, request: WireRequest) -> dict[str, Any]:
        """The members of the request, those of the path and those of the body.

        Members of the path win, and of two equal keys of the body the last. No body is an
        object without members: R's paws sends that when there is nothing to update.

        Args:
            request: The request as it came. The body of a GET is not looked at.

        Raises:
            ServiceError: The path is not UTF-8, or the body is not a JSON object.
        """
        members: dict[str, Any] = {}
        if self.operation.content_type == QUERY_XML:
            return members | _form(request.body)
        if request.method == "POST" and request.body.strip():
            members |= _json_object(request.body)
        try:
            for member, encoded in self.path_members.items():
                members[member] = unquote(encoded, errors="strict")
        except UnicodeDecodeError as error:
            raise invalid_request("The path of the request is not UTF-8.") from error
        return members


def find_route(request: WireRequest) -> Route:
    """The operation that a request is for.

    Args:
        request: The request as it came.

    Raises:
        ServiceError: No operation of the sandbox is there.
    """
    match request.method, request.path.split("/")[1:]:
        case "POST", ["contact", "attributes"]:
            return Route(_UPDATE_CONTACT_ATTRIBUTES, {})
        case "POST", ["contacts", instance_id, contact_id]:
            return Route(_UPDATE_CONTACT, {"InstanceId": instance_id, "ContactId": contact_id})
        case "GET", ["contact", "attributes", instance_id, contact_id]:
            return Route(
                _GET_CONTACT_ATTRIBUTES,
                {"InstanceId": instance_id, "InitialContactId": contact_id},
            )
        case "GET", ["contacts", instance_id, contact_id]:
            return Route(_DESCRIBE_CONTACT, {"InstanceId": instance_id, "ContactId": contact_id})
        case "POST", [""]:
            if request.header("X-Amz-Target") == "ServiceQuotasV20190624.GetServiceQuota":
                return Route(_GET_SERVICE_QUOTA, {})
            if _form(request.body).items() >= _CALLER_IDENTITY_FORM.items():
                return Route(_GET_CALLER_IDENTITY, {})
    raise ServiceError("UnknownOperationException", "The sandbox does not know this operation.")


def _form(body: bytes) -> dict[str, str]:
    # Fields without a name or a value are nothing; latin-1 reads any byte.
    return dict(parse_qsl(body.decode("latin-1")))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise invalid_request("The body of the request is not valid JSON.") from error
    if not isinstance(members, dict):
        raise invalid_request("The body of the request must be a JSON object.")
    level: list[Any] = [members]
    for _ in range(_MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise invalid_request(f"The body of the request nests more than {_MAX_DEPTH} levels.")
    return members


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity; JSON has neither.
    raise ValueError(name)


def _update_contact_attributes(call: Call) -> dict[str, Any]:
    call.state.update_contact_attributes(call.request, call.receipt)
    return {}


def _update_contact(call: Call) -> dict[str, Any]:
    call.state.update_contact(call.request, call.receipt)
    return {}


def _get_contact_attributes(call: Call) -> dict[str, Any]:
    return {"Attributes": call.state.get_contact_attributes(call.request).attributes}


def _describe_contact(call: Call) -> dict[str, Any]:
    contact: Contact = call.state.describe_contact(call.request)
    instance_id, contact_id = call.request["InstanceId"], call.request["ContactId"]
    members = {
        "Arn": f"arn:aws:connect:{call.scope.region}:{_ACCOUNT_ID}"
        f":instance/{instance_id}/contact/{contact_id}",
        "Id": contact_id,
        "InitialContactId": contact_id,
        "InitiationMethod": "INBOUND",
        "Channel": "VOICE",
        "InitiationTimestamp": contact.created_at.timestamp(),
        "LastUpdateTimestamp": (contact.updated_at or contact.created_at).timestamp(),
        "Name": contact.name,
        "Description": contact.description,
        "CustomerEndpoint": contact.other.get("CustomerEndpoint"),
        "SystemEndpoint": contact.other.get("SystemEndpoint"),
        "SegmentAttributes": contact.segment_attributes,
        "Attributes": contact.attributes,
    }
    return {"Contact": {member: value for member, value in members.items() if value is not None}}


def _get_service_quota(call: Call) -> dict[str, Any]:
    if call.quota_per_s is None:
        raise ServiceError(
            "AccessDeniedException",
            "User is not authorized to perform: servicequotas:GetServiceQuota because no "
            "identity-based policy allows the servicequotas:GetServiceQuota action",
        )
    service, code = (call.request.get(member) for member in ("ServiceCode", "QuotaCode"))
    if not isinstance(service, str) or not isinstance(code, str):
        raise ServiceError(
            "IllegalArgumentException", "ServiceCode and QuotaCode must be given as strings."
        )
    if service != "connect" or code not in _QUOTAS:
        raise ServiceError(
            "NoSuchResourceException",
            "The request failed because the specified service or quota does not exist.",
        )
    quota_arn = f"arn:aws:servicequotas:{call.scope.region}:{_ACCOUNT_ID}:{service}/{code}"
    return {
        "Quota": {
            "ServiceCode": service,
            "ServiceName": "Amazon Connect",
            "QuotaArn": quota_arn,
            "QuotaCode": code,
            "QuotaName": f"Rate of {_QUOTAS[code]} API requests",
            "Value": call.quota_per_s,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }
    }


def _get_caller_identity(call: Call) -> dict[str, Any]:
    return {
        "GetCallerIdentityResponse": {
            "GetCallerIdentityResult": {
                "Arn": f"arn:aws:iam::{_ACCOUNT_ID}:user/sandbox",
                "UserId": "AIDASANDBOX",
                "Account": _ACCOUNT_ID,
            },
            "ResponseMetadata": {"RequestId": call.receipt.request_id},
        }
    }


# The model of the attributes operations knows no throttling; what arrives is the code of the
# gateway. The two contact operations model ThrottlingException. All are HTTP 429.
_UPDATE_CONTACT_ATTRIBUTES = Operation(
    name="update_contact_attributes",
    run=_update_contact_attributes,
    throttle_code="TooManyRequestsException",
    writes=True,
)
_UPDATE_CONTACT = Operation(
    name="update_contact",
    run=_update_contact,
    throttle_code="ThrottlingException",
    writes=True,
)
_GET_CONTACT_ATTRIBUTES = Operation(
    name="get_contact_attributes",
    run=_get_contact_attributes,
    throttle_code="TooManyRequestsException",
)
_DESCRIBE_CONTACT = Operation(
    name="describe_contact",
    run=_describe_contact,
    throttle_code="ThrottlingException",
)
_GET_SERVICE_QUOTA = Operation(
    name="get_service_quota",
    run=_get_service_quota,
    service="servicequotas",
    throttle_code=None,
    content_type=_JSON_1_1,
)
_GET_CALLER_IDENTITY = Operation(
    name="get_caller_identity",
    run=_get_caller_identity,
    service="sts",
    throttle_code=None,
    content_type=QUERY_XML,
)

OPERATIONS = (
    _UPDATE_CONTACT_ATTRIBUTES,
    _UPDATE_CONTACT,
    _GET_CONTACT_ATTRIBUTES,
    _DESCRIBE_CONTACT,
    _GET_SERVICE_QUOTA,
    _GET_CALLER_IDENTITY,
)
"""Every operation that the sandbox knows."""
