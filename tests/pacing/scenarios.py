"""What a controller has to cope with, and how well: the scenarios and their bounds.

Worlds of half an hour. `python -m tests.benchmarks pacing` plays each with ten seeds, of which the
worst counts; the tests play as many of them as take a minute or two in all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bulk_updater.config import PacingConfig
from bulk_updater.model import Quota, QuotaOrigin
from bulk_updater.pacing import choose_controller
from tests.pacing.simulation import Client, Competitor, World, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.pacing import Controller
    from tests.pacing.simulation import Outcome

__all__ = ["SCENARIOS", "Scenario", "Score", "ours", "score"]

DOCUMENTED = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)


def ours(config: PacingConfig, quota: Quota = DOCUMENTED) -> Callable[[float], Controller]:
    """Makes the controller that a run gets."""
    return lambda now_s: choose_controller(config, quota, now_s)


AUTO = PacingConfig(rate="auto", exclusive=True)
AUTO_RESERVED = PacingConfig(rate="auto")
QUOTA = PacingConfig(rate="quota")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A world, and what is to be reached in it.

    Attributes:
        name: What it is called in the table.
        world: What is met.
        config: What the user asked for.
        quota: What is believed when it begins.
        begins_s: When each client begins; one client for each.
        utilisation: To reach at the least; None where it is not asked for.
        throttled: Share of the attempts, at the most.
        live_refused: Share of the live requests, at the most.
        n_seeds_tested: How many of the ten seeds the tests play.
        tested_s: How many seconds of it the tests play; None for all.
        why: Why a bound is not the one to wish for.
    """

    name: str
    world: World
    config: PacingConfig = AUTO
    quota: Quota = DOCUMENTED
    begins_s: tuple[float, ...] = (0.0,)
    utilisation: float | None = None
    throttled: float = math.inf
    live_refused: float = math.inf
    n_seeds_tested: int = 10
    tested_s: float | None = None
    why: str = ""

    def play(self, seed: int, make: Callable[[float], Controller] | None = None) -> Outcome:
        """Plays it with our controller, or with another."""
        make = make or ours(self.config, self.quota)
        return simulate(self.world, [Client(make, begins) for begins in self.begins_s], seed)

    def shortened(self) -> Scenario:
        """As the tests play it."""
        if self.tested_s is None:
            return self
        return replace(self, world=replace(self.world, seconds=self.tested_s))


@dataclass
class Score:
    """The worst of some seeds."""

    utilisation: float = math.inf
    throttled: float = 0.0
    live_refused: float = 0.0
    shares: list[list[float]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome in."""
        self.utilisation = min(self.utilisation, outcome.utilisation)
        self.throttled = max(self.throttled, outcome.throttled_share)
        self.live_refused = max(self.live_refused, outcome.live_refused_share)
        if len(outcome.accepted) > 1:
            half = len(outcome.accepted[0]) // 2
            self.shares.append(
                [sum(client[half:]) / (len(client) - half - 1) for client in outcome.accepted]
            )


def score(
    scenario: Scenario, seeds: range, make: Callable[[float], Controller] | None = None
) -> Score:
    """Plays a scenario with each seed."""
    result = Score()
    for seed in seeds:
        result.add(scenario.play(seed, make))
    return result


def _applied(rate_per_s: float) -> Quota:
    return Quota(rate_per_s=rate_per_s, origin=QuotaOrigin.APPLIED)


def _world(rate_per_s: float, **more: object) -> World:
    """The documented ratio of burst to rate, at least the smallest documented burst."""
    return World(rate_per_s=rate_per_s, burst=max(5.0, 1.5 * rate_per_s), **more)


_TEN_MINUTES = (600.0, 1200.0)

SCENARIOS = (
    Scenario(name="R = 10, nothing known", world=_world(10.0), utilisation=0.99, throttled=0.003),
    Scenario(name="R = 2", world=_world(2.0), utilisation=0.98, throttled=0.01),
    Scenario(
        name="R = 50", world=_world(50.0), utilisation=0.98, throttled=0.003, n_seeds_tested=3
    ),
    Scenario(
        name="R = 100", world=_world(100.0), utilisation=0.98, throttled=0.003, n_seeds_tested=2
    ),
    Scenario(
        name="R = 200", world=_world(200.0), utilisation=0.98, throttled=0.003, n_seeds_tested=1
    ),
    Scenario(
        name="R = 1,000, 256 in flight",
        world=_world(1000.0, max_in_flight=256),
        utilisation=0.95,
        throttled=0.003,
        n_seeds_tested=1,
        tested_s=600.0,
    ),
    Scenario(
        name="told 10, really 20",
        world=_world(20.0),
        quota=_applied(10.0),
        utilisation=0.96,
        throttled=0.002,
        n_seeds_tested=5,
    ),
    Scenario(
        name="told 20, really 10",
        world=_world(10.0),
        quota=_applied(20.0),
        utilisation=0.99,
        throttled=0.003,
    ),
    Scenario(
        name="a competitor takes 3 of 10 for ten minutes",
        world=_world(10.0, competitors=(Competitor(*_TEN_MINUTES, 3.0),)),
        utilisation=0.95,
        throttled=0.003,
    ),
    Scenario(
        name="the same, at random",
        world=_world(10.0, competitors=(Competitor(*_TEN_MINUTES, 3.0, at_random=True),)),
        utilisation=0.95,
        throttled=0.012,
        why="next to random traffic no rate is quiet that takes 95 % of the rest",
    ),
    Scenario(
        name="enforcement over 3 nodes",
        world=_world(10.0, nodes=3),
        utilisation=0.84,
        throttled=0.03,
        why="at 0.85, the best fixed rate (8.78) has 3.0 % throttled already",
    ),
    Scenario(
        name="0.3 % stray refusals",
        world=_world(10.0, stray_share=0.003),
        utilisation=0.98,
        throttled=0.012,
    ),
    Scenario(
        name="a refused request costs a token",
        world=_world(10.0, refusal_costs=True),
        utilisation=0.97,
        throttled=0.01,
    ),
    Scenario(
        name="latency 300 ms, jitter 100 %",
        world=_world(10.0, latency_s=0.3, latency_spread=1.0),
        utilisation=0.98,
        throttled=0.005,
    ),
    Scenario(
        name="R falls from 100 to 25 for ten minutes",
        world=_world(100.0, changes=((600.0, 25.0, 37.5), (1200.0, 100.0, 150.0))),
        utilisation=0.95,
        throttled=0.003,
        n_seeds_tested=3,
    ),
    Scenario(
        name="two clients on R = 100",
        world=_world(100.0),
        begins_s=(0.0, 0.0),
        utilisation=0.98,
        throttled=0.01,
        n_seeds_tested=2,
    ),
    Scenario(
        name="two clients on R = 100, one comes 200 s later",
        world=_world(100.0),
        begins_s=(0.0, 200.0),
        utilisation=0.98,
        throttled=0.01,
        n_seeds_tested=2,
    ),
    Scenario(
        name="live 0.5 a second on R = 10, `quota` at share 0.8",
        world=_world(10.0, live_per_s=0.5),
        config=QUOTA,
        live_refused=0.001,
    ),
    Scenario(
        name="live 2 a second on R = 10, `quota` at share 0.8",
        world=_world(10.0, live_per_s=2.0),
        config=QUOTA,
        live_refused=0.005,
    ),
    Scenario(
        name="live 0.5 a second on R = 10, `auto` with the reserve",
        world=_world(10.0, live_per_s=0.5),
        config=AUTO_RESERVED,
        live_refused=0.005,
    ),
    Scenario(
        name="live 2 a second on R = 10, `auto` with the reserve",
        world=_world(10.0, live_per_s=2.0),
        config=AUTO_RESERVED,
        live_refused=0.005,
    ),
    Scenario(
        name="R = 20 beside nobody, `auto` with the reserve",
        world=_world(20.0),
        config=AUTO_RESERVED,
        utilisation=0.79,
        throttled=0.001,
        n_seeds_tested=5,
        why="the reserve is a fifth",
    ),
)
