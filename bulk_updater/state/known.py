"""What is known of contacts, and what it is kept apart by."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Known", "Scope", "ScopeSummary"]


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """What a contact's state is kept apart by.

    Attributes:
        account: The AWS account's number, or what stands for it.
        region: The AWS region.
        instance_id: The Connect instance.
        operation: The operation's snake_case name.
    """

    account: str
    region: str
    instance_id: str
    operation: str


@dataclass(frozen=True, slots=True)
class ScopeSummary:
    """What is known in one scope.

    Attributes:
        scope: Which.
        n_contacts: Contacts of which anything is known.
        n_in_doubt: Those among them to which something was sent that is not known to be applied.
        last_applied_at: When something was last applied, in seconds since the epoch; None: never.
    """

    scope: Scope
    n_contacts: int
    n_in_doubt: int
    last_applied_at: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one contact in one scope.

    Attributes:
        scope: Which.
        contact_id: The contact.
        digest: What was last applied for certain, 64 bit; None where nothing was.
        applied_at: When, in seconds since the epoch; None where never.
        in_doubt: Whether something was sent since that is not known to be applied.
    """

    scope: Scope
    contact_id: str
    digest: int | None
    applied_at: int | None
    in_doubt: bool
