"""What goes wrong, and how it is chosen: by chance, or by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulk_updater.sandbox.answers import Answer, error_answer
from bulk_updater.sandbox.errors import ServiceError

if TYPE_CHECKING:
    from random import Random

    from bulk_updater.sandbox.config import SandboxConfig

__all__ = [
    "CONFLICT",
    "DROP_AFTER",
    "DROP_BEFORE",
    "ERROR",
    "HTML",
    "Fault",
    "FaultDice",
    "FaultScript",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which a request goes wrong.

    Attributes:
        kind: A name for it, under which it is counted.
        answer: What is answered instead; None leaves the service's own answer.
        drop: Whether the connection is dropped without an answer.
        applied: Whether the request is carried out all the same. One that breaks a rule is
            counted as rejected, and the fault hides it from the client.
        delay_s: Seconds that the request takes longer than its latency, from 0, before it is
            carried out or not.
        late_s: Seconds from there to the answer, from 0: the client may have given up by then on
            what was carried out long ago.
        breaks_off: Whether the connection is closed in the middle of the answer.
    """

    kind: str
    answer: Answer | None = None
    drop: bool = False
    applied: bool = False
    delay_s: float = 0.0
    late_s: float = 0.0
    breaks_off: bool = False

    @property
    def keeps_answer(self) -> bool:
        """Whether the request gets its own answer, however late and however much of it."""
        return self.answer is None and not self.drop


FaultScript = Callable[[str, dict[str, Any]], Fault | None]
"""A test's own choice: operation name and members of the request, ids included, to a fault."""

ERROR = Fault(
    kind="error",
    answer=error_answer(
        ServiceError(
            "InternalServiceException", "Request processing failed because of an internal error."
        )
    ),
)
CONFLICT = Fault(
    kind="conflict",
    answer=error_answer(
        ServiceError(
            "ConflictException",
            "Operation cannot be performed at this time as there is a conflict with another "
            "operation or contact state.",
        )
    ),
)
HTML = Fault(
    kind="html",
    answer=Answer(
        status=503,
        body=b"<html><body><h1>503 Service Unavailable</h1></body></html>",
        headers={"Content-Type": "text/html"},
    ),
)
DROP_BEFORE = Fault(kind="drop_before", drop=True)
DROP_AFTER = Fault(kind="drop_after", drop=True, applied=True)

_BY_CHANCE = (ERROR, DROP_BEFORE, DROP_AFTER, CONFLICT, HTML)


class FaultDice:
    """Chooses faults by chance, in the shares that the configuration names."""

    def __init__(self, config: SandboxConfig, rng: Random) -> None:
        self._rng = rng
        self._shares = config.shares

    def roll(self, operation: str) -> Fault | None:
        """The fault of the next request, if it has one.

        Every request costs one number, so that the faults of later ones do not depend on the
        operations of earlier ones.

        Args:
            operation: The operation's snake_case name.
        """
        number = self._rng.random()
        for fault in _BY_CHANCE:
            number -= self._shares[fault.kind]
            if number < 0:
                # UpdateContact is the only operation here whose model knows a conflict.
                modelled = fault is not CONFLICT or operation == "update_contact"
                return fault if modelled else None
        return None
