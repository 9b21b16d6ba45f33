"""The rules that a request can break by itself, whatever is stored.

Lengths, kinds and enumerations are those of Connect's service model (API version 2017-08-08,
botocore 1.44.5); strings are counted in characters. Key characters and the byte limits are those
of the operations' documentation.

Which error code the service picks for which rule is not documented. Assumed here:
InvalidRequestException for what concerns the request as a whole (no JSON object, a member
missing, nothing to update, a byte limit over several values), InvalidParameterException for one
member (its type, its length, its characters, an unknown value).
"""

from __future__ import annotations

import re
from typing import Any

from bulk_updater.sandbox.errors import invalid_parameter, invalid_request

__all__ = [
    "MAX_ATTRIBUTES_BYTES",
    "MAX_REFERENCES_BYTES",
    "check_ids",
    "check_update_contact",
    "check_update_contact_attributes",
    "utf8_bytes",
]

MAX_ATTRIBUTES_BYTES = 32_768
"""UTF-8 bytes of all attributes of a contact, keys and values (UpdateContactAttributes)."""

MAX_REFERENCES_BYTES = 4_096
"""UTF-8 bytes of all references of a contact, keys and values (UpdateContact)."""

_MAX_INSTANCE_ID = 100
_MAX_CONTACT_ID = 256
_MAX_ATTRIBUTE = 32_767
_MAX_NAME = 1_024
_MAX_DESCRIPTION = 4_096
_MAX_REFERENCE = 4_096
_MIN_ARN = 20
_MAX_ARN = 256
_MAX_STATUS_REASON = 100
_MAX_SEGMENT_NAME = 128
_MAX_SEGMENT_VALUE = 1_024
_MAX_INTEGER = 2**31 - 1
_MAX_USER_ID = 256
_MAX_ADDRESS = 256
_MAX_CC_ADDRESSES = 50

_ATTRIBUTE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ARN = re.compile(r"[-:/A-Za-z0-9]+")  # as the model has it: only the beginning is looked at
# The keys that a user may choose, and those of the system, such as connect:ContactExpiry.
_SEGMENT_KEY = re.compile(r"(connect:)?[A-Za-z0-9_-]+")

_REFERENCE_TYPES = (
    "URL",
    "ATTACHMENT",
    "CONTACT_ANALYSIS",
    "NUMBER",
    "STRING",
    "DATE",
    "EMAIL",
    "EMAIL_MESSAGE",
    "EMAIL_MESSAGE_PLAIN_TEXT",
    "EMAIL_MESSAGE_PLAIN_TEXT_REDACTED",
    "EMAIL_MESSAGE_REDACTED",
)
_REFERENCE_STATUSES = (
    "AVAILABLE",
    "DELETED",
    "APPROVED",
    "REJECTED",
    "PROCESSING",
    "FAILED",
    "DRAFTING",
)
_ENDPOINT_TYPES = (
    "TELEPHONE_NUMBER",
    "VOIP",
    "CONTACT_FLOW",
    "CONNECT_PHONENUMBER_ARN",
    "EMAIL_ADDRESS",
)


def utf8_bytes(text: str) -> int:
    """UTF-8 bytes of a text that passed its check."""
    return len(text.encode())


def check_ids(request: dict[str, Any], contact_member: str) -> None:
    """Check the two ids that every operation takes.

    Args:
        request: The members of the request.
        contact_member: `ContactId` or `InitialContactId`.

    Raises:
        ServiceError: An id is missing, or is not 1 to 100 or 1 to 256 characters of text.
    """
    _require(request, "InstanceId", contact_member)
    _text(request["InstanceId"], "InstanceId", low=1, high=_MAX_INSTANCE_ID)
    _text(request[contact_member], contact_member, low=1, high=_MAX_CONTACT_ID)


def check_update_contact_attributes(request: dict[str, Any]) -> None:
    """Check UpdateContactAttributes. No attribute at all is legal, as in the model.

    Args:
        request: The members of the request.

    Raises:
        ServiceError: A rule is broken.
    """
    check_ids(request, "InitialContactId")
    _require(request, "Attributes")
    for key, value in _object(request["Attributes"], "Attributes").items():
        _text(key, "An attribute's name", low=1, high=_MAX_ATTRIBUTE)
        if not _ATTRIBUTE_KEY.fullmatch(key):
            raise invalid_parameter(
                "An attribute's name may hold alphanumeric, dash and underscore characters only."
            )
        _text(value, "An attribute's value", high=_MAX_ATTRIBUTE)


def check_update_contact(request: dict[str, Any]) -> None:
    """Check UpdateContact.

    Members that the model does not know are ignored, as services do. An empty map updates
    nothing; that it does not count as a field to be updated is assumed.

    Args:
        request: The members of the request.

    Raises:
        ServiceError: A rule is broken.
    """
    check_ids(request, "ContactId")
    if not any(request.get(member, {}) != {} for member in _UPDATES):
        raise invalid_request("At least one field to be updated must be present in the request.")
    for member, check in _UPDATES.items():
        if member in request:
            check(request[member], member)


def _name(value: Any, member: str) -> None:
    _text(value, member, high=_MAX_NAME)


def _description(value: Any, member: str) -> None:
    _text(value, member, high=_MAX_DESCRIPTION)


def _references(value: Any, member: str) -> None:
    for key, reference in _object(value, member).items():
        _text(key, "A reference's name", low=1, high=_MAX_REFERENCE)
        _require(_object(reference, "A reference"), "Type")
        _one_of(reference["Type"], "A reference's Type", _REFERENCE_TYPES)
        if "Value" in reference:
            _text(reference["Value"], "A reference's Value", high=_MAX_REFERENCE)
        if "Status" in reference:
            _one_of(reference["Status"], "A reference's Status", _REFERENCE_STATUSES)
        if "StatusReason" in reference:
            _text(reference["StatusReason"], "A reference's StatusReason", high=_MAX_STATUS_REASON)
        if "Arn" in reference:
            _text(reference["Arn"], "A reference's Arn", low=_MIN_ARN, high=_MAX_ARN)
            if not _ARN.match(reference["Arn"]):
                raise invalid_parameter("A reference's Arn must begin like an ARN.")


def _segment_attributes(value: Any, member: str) -> None:
    for key, segment in _object(value, member).items():
        _text(key, "A segment attribute's name", low=1, high=_MAX_SEGMENT_NAME)
        if not _SEGMENT_KEY.fullmatch(key):
            raise invalid_parameter(
                "A segment attribute's name may hold alphanumeric, dash and underscore "
                "characters only, after `connect:` where it is the system's."
            )
        _segment_value(segment)


def _segment_value(value: Any) -> None:
    segment = _object(value, "A segment attribute's value")
    known = {"ValueString", "ValueArn", "ValueInteger", "ValueMap", "ValueList"}
    if not known & segment.keys():
        raise invalid_parameter("A segment attribute's value must hold a value.")
    for member in ("ValueString", "ValueArn"):
        if member in segment:
            _text(segment[member], member, high=_MAX_SEGMENT_VALUE)
    if "ValueInteger" in segment:
        _integer(segment["ValueInteger"], "ValueInteger")
    for key, inner in _object(segment.get("ValueMap", {}), "ValueMap").items():
        _text(key, "A name in ValueMap", low=1, high=_MAX_SEGMENT_NAME)
        _segment_value(inner)
    for inner in _list(segment.get("ValueList", []), "ValueList"):
        _segment_value(inner)


def _queue_info(value: Any, member: str) -> None:
    if "Id" in _object(value, member):
        _text(value["Id"], f"{member}.Id", high=None)


def _user_info(value: Any, member: str) -> None:
    if "UserId" in _object(value, member):
        _text(value["UserId"], f"{member}.UserId", low=1, high=_MAX_USER_ID)


def _endpoint(value: Any, member: str) -> None:
    endpoint = _object(value, member)
    if "Type" in endpoint:
        _one_of(endpoint["Type"], f"{member}.Type", _ENDPOINT_TYPES)
    if "Address" in endpoint:
        _text(endpoint["Address"], f"{member}.Address", high=_MAX_ADDRESS)


def _additional_recipients(value: Any, member: str) -> None:
    addresses = _list(_object(value, member).get("CcEmailAddresses", []), "CcEmailAddresses")
    if len(addresses) > _MAX_CC_ADDRESSES:
        raise invalid_parameter(
            f"CcEmailAddresses must hold {_MAX_CC_ADDRESSES} addresses at the most; "
            f"it holds {len(addresses)}."
        )
    for address in addresses:
        for key, text in _object(address, "An address in CcEmailAddresses").items():
            _text(key, "A member of an address", high=None)
            _text(text, "A member of an address", high=None)


_UPDATES = {
    "Name": _name,
    "Description": _description,
    "References": _references,
    "SegmentAttributes": _segment_attributes,
    "QueueInfo": _queue_info,
    "UserInfo": _user_info,
    "CustomerEndpoint": _endpoint,
    "SystemEndpoint": _endpoint,
    "AdditionalRecipients": _additional_recipients,
}


def _require(request: dict[str, Any], *members: str) -> None:
    for member in members:
        if member not in request:
            raise invalid_request(f"The required member {member} is missing.")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid_parameter(f"{name} must be an object.")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid_parameter(f"{name} must be a list.")
    return value


def _integer(value: Any, name: str) -> None:
    # In Python a bool is an int; in JSON it is not.
    inside = isinstance(value, int) and -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER
    if isinstance(value, bool) or not inside:
        raise invalid_parameter(f"{name} must be an integer of 32 bits.")


def _one_of(value: Any, name: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise invalid_parameter(f"{name} must be one of {', '.join(allowed)}.")


def _text(value: Any, name: str, *, low: int = 0, high: int | None) -> None:
    if not isinstance(value, str):
        raise invalid_parameter(f"{name} must be a string.")
    if len(value) < low or (high is not None and len(value) > high):
        raise invalid_parameter(
            f"{name} must be {low} to {high} characters long; it has {len(value)}."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which is no character.
        raise invalid_parameter(f"{name} must be Unicode text.") from error
