"""The bounds that pacing holds, by simulation; the benchmark `pacing` plays all of it."""

from __future__ import annotations

import pytest

from bulk_updater.pacing import YieldingController
from tests.pacing.rivals import Fixed
from tests.pacing.scenarios import SCENARIOS, Scenario, score
from tests.pacing.simulation import Client, simulate

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_bounds(scenario: Scenario):
    """What was accepted, throttled, and refused to live traffic, in the worst of the seeds."""
    found = score(scenario.shortened(), range(scenario.n_seeds_tested))
    assert found.throttled <= scenario.throttled
    assert found.live_refused <= scenario.live_refused
    if scenario.utilisation is not None:
        assert found.utilisation >= scenario.utilisation


@pytest.mark.parametrize(
    "name", ["two clients on R = 100", "two clients on R = 100, one comes 200 s later"]
)
def test_fair_shares(name: str):
    """Two clients who do not talk each have 40 to 60 of 100 over the second half."""
    for shares in score(BY_NAME[name], range(2)).shares:
        assert all(40 <= share <= 60 for share in shares)


@pytest.mark.parametrize("late_s", [0.0, 300.0])
def test_two_that_give_way_are_fair(late_s: float):
    """Two runs at 80 % of a quota of 10 share it, and leave nobody below two fifths."""
    clients = [Client(lambda now_s: YieldingController(8.0, now_s), at) for at in (0.0, late_s)]
    outcome = simulate(BY_NAME["R = 10, nothing known"].world, clients, seed=1)
    halves = [sum(client[900:]) / 900 for client in outcome.accepted]
    assert min(halves) >= 4.0
    assert outcome.throttled_share <= 0.002


@pytest.mark.parametrize("seed", range(3))
def test_a_fall_is_followed_and_the_return_too(seed: int):
    """From ten seconds after a fall to a quarter on, no second has more than 5 % throttled; a
    minute after the return nine tenths are used again."""
    outcome = BY_NAME["R falls from 100 to 25 for ten minutes"].play(seed)
    accepted, throttled = outcome.accepted[0], outcome.throttled[0]
    for second in range(610, 1200):
        assert throttled[second] <= 0.05 * (accepted[second] + throttled[second])
    assert sum(accepted[1260:1270]) >= 900


def test_what_was_found():
    """Half an hour next to nobody knows the quota to half a percent, and the burst."""
    for name, rate_per_s, burst in (("R = 10, nothing known", 10, 15), ("R = 100", 100, 150)):
        found = BY_NAME[name].play(0).controllers[0].found()
        assert found.rate_per_s == pytest.approx(rate_per_s, rel=0.005)
        assert found.burst == pytest.approx(burst, rel=0.15)


def test_the_bound_of_three_nodes_is_the_frontier():
    """No fixed rate has 0.85 of what three nodes give with 3 % throttled, in the worst of seeds."""
    scenario = BY_NAME["enforcement over 3 nodes"]
    for rate_per_s in (8.6, 8.7, 8.75, 8.8, 8.9):
        found = score(scenario, range(10), lambda _, rate=rate_per_s: Fixed(rate))
        assert found.utilisation < 0.85 or found.throttled > 0.03


def test_a_seed_replays():
    """The same seed gives the same run, second by second."""
    scenario = BY_NAME["0.3 % stray refusals"]
    first, again, other = scenario.play(3), scenario.play(3), scenario.play(4)
    assert (first.accepted, first.throttled) == (again.accepted, again.throttled)
    assert first.accepted != other.accepted
