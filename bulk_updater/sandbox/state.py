"""The contacts that the sandbox keeps, and the rules that need to know what is stored.

What the documentation does not tell is assumed:

- Writes merge: attributes, references and segment attributes that a request does not name stay
  as they are; one that it names is replaced as a whole.
- A value of `""` removes an attribute and its bytes ("Remove unnecessary attributes by setting
  their values to empty"); that it is then left out when read is assumed.
- Too many bytes are an InvalidRequestException, and nothing of the request is stored.
- Every contact is the first of its chain: its `InitialContactId` is its own id.
- Every segment attribute is a predefined one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bulk_updater.sandbox import limits
from bulk_updater.sandbox.errors import ServiceError, invalid_request, not_found

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bulk_updater.sandbox.contacts import KnownContacts

__all__ = ["Contact", "Receipt", "State", "Write"]


@dataclass(slots=True)
class Contact:
    """One contact of one instance.

    Attributes:
        attributes: User-defined attributes, by key; none of them empty.
        attributes_bytes: UTF-8 bytes of their keys and values.
        name: Its name; None where nobody set one.
        description: Its description; None where nobody set one.
        references: References, by key, as they were sent.
        references_bytes: UTF-8 bytes of their keys and values.
        segment_attributes: Segment attributes, by name, as they were sent.
        other: The members of UpdateContact that only some channels know, as they were sent.
        created_at: When the sandbox first heard of it.
        updated_at: When it was last written to; None where it never was.
        n_writes: How often it was written to.
    """

    created_at: datetime
    attributes: dict[str, str] = field(default_factory=dict)
    attributes_bytes: int = 0
    name: str | None = None
    description: str | None = None
    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    references_bytes: int = 0
    segment_attributes: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    updated_at: datetime | None = None
    n_writes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The contact by its attributes' names, times in ISO 8601."""
        return asdict(self) | {
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat() if self.updated_at else None,
        }


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the log is to know of a request besides what it asks for.

    Attributes:
        request_id: The id that the request was given.
        started_s: When it arrived, in seconds on the sandbox's clock.
    """

    request_id: str
    started_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write that was applied.

    Attributes:
        seq: Its place among all applied writes, from 1.
        operation: The operation's snake_case name.
        instance_id: The instance.
        contact_id: The contact.
        request_id: The id that the request was given.
        started_s: When it arrived, in seconds on the sandbox's clock.
        finished_s: When it was applied, just before the answer left.
    """

    seq: int
    operation: str
    instance_id: str
    contact_id: str
    request_id: str
    started_s: float
    finished_s: float

    def to_json(self) -> dict[str, Any]:
        """The write by its attributes' names."""
        return asdict(self)


class State:
    """All contacts, by instance and contact.

    A contact is kept from its first write on; until then, one that exists is empty.

    Attributes:
        instances: The contacts that were written to, by instance id and contact id.
        log: The applied writes, oldest first, as many as the log remembers.
    """

    def __init__(
        self,
        known: KnownContacts,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        log_size: int,
    ) -> None:
        """Begin with nothing stored.

        Args:
            known: Which contacts exist.
            clock: The time in seconds, for the log.
            now: The time of day, aware of its zone, for what contacts say of themselves.
            log_size: Writes that the log remembers, from 0.
        """
        self.instances: dict[str, dict[str, Contact]] = {}
        self.log: deque[Write] = deque(maxlen=log_size)
        self._known = known
        self._clock = clock
        self._now = now
        self._created_at = now()
        self._n_writes = 0

    def contact(self, instance_id: str, contact_id: str) -> Contact:
        """The contact as it is stored; an empty one where nothing was written to it.

        Raises:
            ServiceError: It does not exist.
        """
        if not self._known.has(instance_id, contact_id):
            raise not_found("The specified contact was not found.")
        stored = self.instances.get(instance_id, {}).get(contact_id)
        return stored or Contact(created_at=self._created_at)

    def get_contact_attributes(self, request: dict[str, Any]) -> Contact:
        """The contact whose attributes are asked for.

        Raises:
            ServiceError: The request breaks a rule, or the contact does not exist.
        """
        try:
            limits.check_ids(request, "InitialContactId")
        except ServiceError as error:
            # The one operation here that models no InvalidParameterException.
            raise invalid_request(error.message) from error
        return self.contact(request["InstanceId"], request["InitialContactId"])

    def describe_contact(self, request: dict[str, Any]) -> Contact:
        """The contact that is asked for.

        Raises:
            ServiceError: The request breaks a rule, or the contact does not exist.
        """
        limits.check_ids(request, "ContactId")
        return self.contact(request["InstanceId"], request["ContactId"])

    def update_contact_attributes(self, request: dict[str, Any], receipt: Receipt) -> None:
        """Store attributes beside those that are there.

        Raises:
            ServiceError: The request breaks a rule, or the contact does not exist.
        """
        limits.check_update_contact_attributes(request)
        instance_id, contact_id = request["InstanceId"], request["InitialContactId"]
        contact = self.contact(instance_id, contact_id)
        coming: dict[str, str] = request["Attributes"]
        n_bytes = contact.attributes_bytes
        for key, value in coming.items():
            n_bytes += _attribute_bytes(key, value)
            n_bytes -= _attribute_bytes(key, contact.attributes.get(key, ""))
        if n_bytes > limits.MAX_ATTRIBUTES_BYTES:
            raise invalid_request(
                f"The contact's attributes must be {limits.MAX_ATTRIBUTES_BYTES} bytes at the "
                f"most; with these they would be {n_bytes}."
            )
        merged = contact.attributes | coming
        contact.attributes = {key: value for key, value in merged.items() if value}
        contact.attributes_bytes = n_bytes
        self._keep(contact, "update_contact_attributes", instance_id, contact_id, receipt)

    def update_contact(self, request: dict[str, Any], receipt: Receipt) -> None:
        """Store what the request names of a contact.

        Raises:
            ServiceError: The request breaks a rule, or the contact does not exist.
        """
        limits.check_update_contact(request)
        instance_id, contact_id = request["InstanceId"], request["ContactId"]
        contact = self.contact(instance_id, contact_id)
        references = contact.references | request.get("References", {})
        n_bytes = sum(
            limits.utf8_bytes(key) + limits.utf8_bytes(reference.get("Value", ""))
            for key, reference in references.items()
        )
        if n_bytes > limits.MAX_REFERENCES_BYTES:
            raise invalid_request(
                f"The contact's references must be {limits.MAX_REFERENCES_BYTES} bytes at the "
                f"most; with these they would be {n_bytes}."
            )
        contact.references = references
        contact.references_bytes = n_bytes
        contact.segment_attributes |= request.get("SegmentAttributes", {})
        contact.name = request.get("Name", contact.name)
        contact.description = request.get("Description", contact.description)
        for member in (
            "QueueInfo",
            "UserInfo",
            "CustomerEndpoint",
            "SystemEndpoint",
            "AdditionalRecipients",
        ):
            if member in request:
                contact.other[member] = request[member]
        self._keep(contact, "update_contact", instance_id, contact_id, receipt)

    def to_json(self) -> dict[str, Any]:
        """All stored contacts, by instance id and contact id."""
        return {
            instance_id: {contact_id: contact.to_json() for contact_id, contact in some.items()}
            for instance_id, some in self.instances.items()
        }

    def _keep(
        self, contact: Contact, operation: str, instance_id: str, contact_id: str, receipt: Receipt
    ) -> None:
        contact.updated_at = self._now()
        contact.n_writes += 1
        self.instances.setdefault(instance_id, {})[contact_id] = contact
        self._n_writes += 1
        self.log.append(
            Write(
                seq=self._n_writes,
                operation=operation,
                instance_id=instance_id,
                contact_id=contact_id,
                request_id=receipt.request_id,
                started_s=receipt.started_s,
                finished_s=self._clock(),
            )
        )


def _attribute_bytes(key: str, value: str) -> int:
    # An empty value is how an attribute is removed: neither it nor its key takes room.
    return limits.utf8_bytes(key) + limits.utf8_bytes(value) if value else 0
