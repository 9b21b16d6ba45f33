"""A service with one exact token bucket, and a regulator driven against it, event by event."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from bulk_updater.pacing import Regulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.pacing import Controller, Start


class Service:
    """Answers at once, from one exact bucket; written without the bucket under test.

    Begins full, unless it is told otherwise.
    """

    def __init__(self, rate_per_s: float, burst: float | None = None, *, now_s: float = 0.0):
        self.rate_per_s = rate_per_s
        self.burst = 1.5 * rate_per_s if burst is None else burst
        self._tokens = max(1.0, self.burst)
        self._as_of_s = now_s

    def takes(self, now_s: float) -> bool:
        passed_s, self._as_of_s = now_s - self._as_of_s, now_s
        self._tokens = min(max(1.0, self.burst), self._tokens + passed_s * self.rate_per_s)
        # A sum of floats that is almost a token is one.
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True


@dataclass
class Hand:
    """Drives a controller with all the demand there is; time moves from start to start.

    Attributes:
        controller: What is driven.
        now_s: The time.
        accepted_at_s: When which were accepted.
        throttled_at_s: When which were throttled.
        rates_per_s: The rate after each answer.
    """

    controller: Controller
    now_s: float = 0.0
    accepted_at_s: list[float] = field(default_factory=list)
    throttled_at_s: list[float] = field(default_factory=list)
    rates_per_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.regulator = Regulator(self.controller, self.now_s)

    def run(self, takes: Callable[[float], bool], for_s: float) -> None:
        """Sends for so many seconds, each request when its token is there."""
        until_s = self.now_s + for_s
        while (at_s := self.regulator.tokens.ready_at_s(self.now_s)) <= until_s:
            self.now_s = at_s
            if not self.regulator.tokens.take(at_s):
                # The moment lies between two floats.
                self.now_s = math.nextafter(at_s, math.inf)
                continue
            start = self.regulator.started(at_s)
            if takes(at_s):
                self.accepted_at_s.append(at_s)
                self.regulator.accepted(start, at_s)
            else:
                self.throttled_at_s.append(at_s)
                self.regulator.throttled(start, at_s)
            self.rates_per_s.append(self.regulator.tokens.rate_per_s)
        self.now_s = until_s

    def accepted_per_s(self, last_s: float) -> float:
        """Requests accepted per second over the last so many seconds."""
        return sum(at > self.now_s - last_s for at in self.accepted_at_s) / last_s

    def throttled_within(self, last_s: float) -> int:
        """Requests throttled over the last so many seconds."""
        return sum(at > self.now_s - last_s for at in self.throttled_at_s)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "accepted", "throttled"]),
        st.sampled_from([0.0, 0.0, 0.01, 0.1, 1.0, 60.0, 86_400.0]) | st.floats(0, 5),
        st.integers(0, 9),
    ),
    max_size=120,
)
"""What happened, after how many seconds, and to which of the requests in flight."""


def play(
    hand: Hand, events: list[tuple[str, float, int]], *, patience_s: float = math.inf
) -> list[float]:
    """Plays events in any order, some requests unanswered, as are all after their patience.

    Returns:
        The rate after each.
    """
    in_flight: list[Start] = []
    rates: list[float] = []
    for what, passed_s, which in events:
        hand.now_s += passed_s
        in_flight = [start for start in in_flight if hand.now_s - start.at_s <= patience_s]
        if what == "start" or not in_flight:
            in_flight.append(hand.regulator.started(hand.now_s))
        else:
            start = in_flight.pop(which % len(in_flight))
            if what == "accepted":
                hand.regulator.accepted(start, hand.now_s)
            else:
                hand.regulator.throttled(start, hand.now_s)
        rates.append(hand.controller.rate_per_s(hand.now_s))
    return rates
