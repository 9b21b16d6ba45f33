"""What GetContactAttributes answers, judged as strictly as what updates answer.

The operation names a contact by instance and initial contact, and tells the attributes that are
stored for it. Whether one that was erased is left out or comes back empty is not documented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bulk_updater.connect.judging import make_error

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["READ_ATTRIBUTES", "attributes_of", "params_of"]

READ_ATTRIBUTES: Final = "get_contact_attributes"
"""The operation's snake_case name, as `Request.operation` and the pacer name operations."""


def params_of(instance_id: str, contact_id: str) -> dict[str, str]:
    """The request, as boto3 takes it."""
    return {"InstanceId": instance_id, "InitialContactId": contact_id}


def attributes_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """The attributes in an answer that botocore parsed; empty where the contact has none.

    Raises:
        TransientError: If they are not text: then it is no answer of Connect's.
    """
    found = answer.get("Attributes") or {}
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise make_error("UnexpectedAnswer", answer["ResponseMetadata"]["HTTPStatusCode"])
    return found
