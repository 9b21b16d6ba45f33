"""What happened to the requests of each operation, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["OperationCounters"]


@dataclass(slots=True)
class OperationCounters:
    """One operation's numbers.

    With nothing in flight, every request was accepted, throttled, rejected, or fell to a fault
    that kept it from being carried out: the four add up to `received`, except for the requests
    that the sandbox's shutdown cut off.

    Attributes:
        received: Requests that arrived whole.
        accepted: Those that were carried out, also where the answer was lost.
        throttled: Those that found the bucket empty.
        rejected: Those that were refused for any other reason, by error code.
        faults: Faults, by kind; some of these requests were carried out, and count as accepted
            or rejected too.
        live_accepted: Requests of the live contact centre that got a token.
        live_refused: Requests of the live contact centre that got none.
        in_flight: Requests that are being worked on.
        peak_in_flight: The most that were ever worked on at once.
    """

    received: int = 0
    accepted: int = 0
    throttled: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    live_accepted: int = 0
    live_refused: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0

    def arrived(self) -> None:
        """Count a request in."""
        self.received += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def left(self) -> None:
        """Count a request out, however it ended."""
        self.in_flight -= 1

    def to_json(self) -> dict[str, Any]:
        """The numbers by name."""
        # asdict would build each Counter anew from pairs, and count the pairs.
        numbers = {each.name: getattr(self, each.name) for each in fields(self)}
        return numbers | {"rejected": dict(self.rejected), "faults": dict(self.faults)}
