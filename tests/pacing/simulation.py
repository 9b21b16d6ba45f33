"""A service with a token bucket, clients that are paced, and others that drink: in virtual time.

Discrete events on one heap; half an hour at 10 a second takes a tenth of a second. Everything
that happens by chance comes from one seed.

A request starts when its client's bucket and slots allow, reaches the service after half of its
latency, is accepted or refused there, and is answered after the other half. A client has always
more to send, and sends what was refused again.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal, NamedTuple

from bulk_updater.pacing import Regulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulk_updater.pacing import Controller

__all__ = ["Client", "Competitor", "Outcome", "World", "simulate"]


class Competitor(NamedTuple):
    """Somebody else who drinks, whatever he is told.

    Attributes:
        from_s: When he begins.
        to_s: When he ends.
        rate_per_s: Requests per second.
        at_random: Whether they come at random (a Poisson process), or like clockwork.
    """

    from_s: float
    to_s: float
    rate_per_s: float
    at_random: bool = False


@dataclass(frozen=True, kw_only=True)
class World:
    """What a run meets.

    Attributes:
        rate_per_s: Tokens per second of the service's bucket.
        burst: Tokens that it holds; it begins full.
        changes: When rate and burst become others.
        nodes: Buckets that the rate is spread over; a request meets any of them.
        stray_share: The part of the requests that is refused for no reason.
        refusal_costs: Whether a refused request takes a token, too, and leaves a debt.
        competitors: Who else drinks.
        live_per_s: Live requests per second, at random; those that are refused are counted.
        latency_s: Mean of the latency, which is lognormal.
        latency_spread: Its standard deviation, as a part of the mean.
        max_in_flight: Slots of each client.
        seconds: How long it goes on.
    """

    rate_per_s: float
    burst: float
    changes: tuple[tuple[float, float, float], ...] = ()
    nodes: int = 1
    stray_share: float = 0.0
    refusal_costs: bool = False
    competitors: tuple[Competitor, ...] = ()
    live_per_s: float = 0.0
    latency_s: float = 0.08
    latency_spread: float = 0.53
    max_in_flight: int = 64
    seconds: float = 1800.0


class Client(NamedTuple):
    """A client: how its controller is made, given the time, and when it begins."""

    make: Callable[[float], Controller]
    from_s: float = 0.0


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        accepted: By client and second.
        throttled: By client and second.
        possible: What the bucket could have given the clients: its burst, and what dripped in,
            less what others took.
        live_accepted: Live requests that were let in.
        live_refused: Live requests that were not.
        controllers: The clients' controllers, as they ended.
    """

    accepted: list[list[int]]
    throttled: list[list[int]]
    possible: float = 0.0
    live_accepted: int = 0
    live_refused: int = 0
    controllers: list[Controller] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """What was accepted, over what could have been."""
        return sum(map(sum, self.accepted)) / self.possible

    @property
    def throttled_share(self) -> float:
        """The part of all attempts that was throttled."""
        throttled = sum(map(sum, self.throttled))
        return throttled / max(1, throttled + sum(map(sum, self.accepted)))

    @property
    def live_refused_share(self) -> float:
        """The part of the live requests that was refused."""
        return self.live_refused / max(1, self.live_refused + self.live_accepted)


class _Bucket:
    """The service's, or one node's of it."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = self._tokens = burst
        self._as_of_s = 0.0

    def take(self, now_s: float, *, refusal_costs: bool = False) -> bool:
        self._refill(now_s)
        if self._tokens >= 1.0 - 1e-9:
            self._tokens -= 1.0
            return True
        if refusal_costs:
            self._tokens -= 1.0
        return False

    def change(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._refill(now_s)
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tokens = min(self._tokens, burst)

    def _refill(self, now_s: float) -> None:
        gained = (now_s - self._as_of_s) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + gained)
        self._as_of_s = now_s


class _Sender:
    """A client while the simulation goes on."""

    def __init__(self, controller: Controller, now_s: float, max_in_flight: int) -> None:
        self.regulator = Regulator(controller, now_s)
        self.free_slots = max_in_flight
        self.waits_for_slot = False


_Event = Literal["begin", "send", "arrive", "answer", "change", "compete", "live"]


class _Simulation:
    def __init__(self, world: World, clients: Sequence[Client], seed: int) -> None:
        self._world = world
        self._clients = clients
        self._rng = random.Random(seed)
        self._buckets = [
            _Bucket(world.rate_per_s / world.nodes, world.burst / world.nodes)
            for _ in range(world.nodes)
        ]
        self._senders: dict[int, _Sender] = {}
        seconds = math.ceil(world.seconds) + 1
        self.outcome = Outcome([[0] * seconds for _ in clients], [[0] * seconds for _ in clients])
        # The lognormal distribution with this mean and this spread.
        self._sigma = math.sqrt(math.log(1.0 + world.latency_spread**2))
        self._mu = math.log(world.latency_s) - self._sigma**2 / 2
        self._heap: list[tuple[float, int, _Event, object]] = []
        self._order = count()
        self._taken_by_others = 0

    def run(self) -> Outcome:
        world = self._world
        for at, client in enumerate(self._clients):
            self._push(client.from_s, "begin", at)
        for change in world.changes:
            self._push(change[0], "change", change)
        for competitor in world.competitors:
            self._push(competitor.from_s, "compete", competitor)
        if world.live_per_s:
            self._push(self._rng.expovariate(world.live_per_s), "live", None)
        handlers: dict[_Event, Callable[[float, object], None]] = {
            "begin": self._begin,
            "send": self._send,
            "arrive": self._arrive,
            "answer": self._answer,
            "change": self._change,
            "compete": self._compete,
            "live": self._live,
        }
        heap = self._heap
        while heap and heap[0][0] <= world.seconds:
            now_s, _, event, what = heapq.heappop(heap)
            handlers[event](now_s, what)
        self.outcome.possible = self._given() - self._taken_by_others
        self.outcome.controllers = [
            sender.regulator.controller for _, sender in sorted(self._senders.items())
        ]
        return self.outcome

    def _push(self, at_s: float, event: _Event, what: object) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), event, what))

    def _begin(self, now_s: float, at: object) -> None:
        controller = self._clients[at].make(now_s)
        self._senders[at] = _Sender(controller, now_s, self._world.max_in_flight)
        self._send(now_s, at)

    def _send(self, now_s: float, at: object) -> None:
        sender = self._senders[at]
        if not sender.free_slots:
            sender.waits_for_slot = True
            return
        tokens = sender.regulator.tokens
        if tokens.take(now_s):
            sender.free_slots -= 1
            start = sender.regulator.started(now_s)
            latency_s = self._rng.lognormvariate(self._mu, self._sigma)
            self._push(now_s + latency_s / 2, "arrive", (at, start, now_s + latency_s))
        self._push(max(now_s + 1e-6, tokens.ready_at_s(now_s)), "send", at)

    def _arrive(self, now_s: float, what: object) -> None:
        at, start, answered_at_s = what
        is_stray = self._world.stray_share and self._rng.random() < self._world.stray_share
        accepted = not is_stray and self._bucket().take(
            now_s, refusal_costs=self._world.refusal_costs
        )
        self._push(answered_at_s, "answer", (at, start, accepted))

    def _answer(self, now_s: float, what: object) -> None:
        at, start, accepted = what
        sender = self._senders[at]
        sender.free_slots += 1
        if accepted:
            self.outcome.accepted[at][int(now_s)] += 1
            sender.regulator.accepted(start, now_s)
        else:
            self.outcome.throttled[at][int(now_s)] += 1
            sender.regulator.throttled(start, now_s)
        if sender.waits_for_slot:
            sender.waits_for_slot = False
            self._send(now_s, at)

    def _change(self, now_s: float, what: object) -> None:
        _, rate_per_s, burst = what
        for bucket in self._buckets:
            bucket.change(rate_per_s / self._world.nodes, burst / self._world.nodes, now_s)

    def _compete(self, now_s: float, competitor: object) -> None:
        if now_s >= competitor.to_s:
            return
        self._taken_by_others += self._bucket().take(now_s)
        rate_per_s = competitor.rate_per_s
        wait_s = self._rng.expovariate(rate_per_s) if competitor.at_random else 1.0 / rate_per_s
        self._push(now_s + wait_s, "compete", competitor)

    def _live(self, now_s: float, _: object) -> None:
        if self._bucket().take(now_s):
            self.outcome.live_accepted += 1
            self._taken_by_others += 1
        else:
            self.outcome.live_refused += 1
        self._push(now_s + self._rng.expovariate(self._world.live_per_s), "live", None)

    def _bucket(self) -> _Bucket:
        if len(self._buckets) == 1:
            return self._buckets[0]
        return self._rng.choice(self._buckets)

    def _given(self) -> float:
        """The burst, and all that dripped in."""
        world = self._world
        steps = [(0.0, world.rate_per_s), *((at, rate) for at, rate, _ in world.changes)]
        ends = [at for at, _ in steps[1:]] + [world.seconds]
        dripped = sum(rate * (end - at) for (at, rate), end in zip(steps, ends, strict=True))
        return world.burst + dripped


def simulate(world: World, clients: Sequence[Client], seed: int) -> Outcome:
    """Plays a world with its clients to the end.

    Args:
        world: What they meet.
        clients: Who is paced.
        seed: The same seed gives the same outcome.
    """
    return _Simulation(world, clients, seed).run()
