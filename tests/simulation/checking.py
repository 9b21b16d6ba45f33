"""A seed's verdict, and the smallest scenario that still fails."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .loop import Stuck
from .oracle import violations
from .scenario import Scenario
from .world import play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .history import History
    from .scenario import Row


def check(scenario: Scenario) -> tuple[list[str], History | None]:
    """What was broken, as `promise: sentence`, and what happened."""
    try:
        history = play(scenario)
    except (Stuck, Exception) as error:  # noqa: BLE001 - whatever it is, it is a finding
        return [f"runs: {type(error).__name__}: {error}"], None
    return list(violations(history)), history


def promises_of(broken: list[str]) -> set[str]:
    """The promises that were broken."""
    return {each.partition(":")[0] for each in broken}


def shrink(
    scenario: Scenario, *, still_fails: Callable[[Scenario], bool], max_tries: int = 400
) -> Scenario:
    """The smallest export, and the fewest troubles, that still fail.

    Args:
        scenario: One that fails.
        still_fails: Whether a smaller one fails, too.
        max_tries: How many smaller ones are tried at the most.
    """
    n_tries = 0
    found = True
    while found:
        found = False
        for smaller in _smaller(scenario):
            n_tries += 1
            if n_tries > max_tries:
                return scenario
            if still_fails(smaller):
                scenario, found = smaller, True
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios with something left out, the largest pieces first."""
    n_rows = len(scenario.rows)
    size = n_rows // 2
    while size:
        for first in range(0, n_rows, size):
            yield _without_rows(scenario, first, first + size)
        size //= 2
    yield from _with_less_afterwards(scenario)
    yield from _without_one_of(scenario, "endings", "episodes")
    for kind in scenario.faults:
        faults = {name: share for name, share in scenario.faults.items() if name != kind}
        yield dataclasses.replace(scenario, faults=faults)
    plain = Scenario(seed=scenario.seed, rows=scenario.rows)
    for name in ("operations", "source", "n_sources", "frame_rows", "live_per_s", "rival"):
        if getattr(scenario, name) != getattr(plain, name):
            yield dataclasses.replace(scenario, **{name: getattr(plain, name)})


def _without_one_of(of: Any, *names: str) -> Iterator[Any]:
    """It, without one of the things that some of its members hold."""
    for name in names:
        left = getattr(of, name)
        for index in range(len(left)):
            yield dataclasses.replace(of, **{name: left[:index] + left[index + 1 :]})


def _with_less_afterwards(scenario: Scenario) -> Iterator[Scenario]:
    """Without some of what comes after the run."""
    yield from _without_one_of(scenario, "retries")
    for index, retry in enumerate(scenario.retries):
        for smaller in _without_one_of(retry, "endings", "episodes"):
            retries = [*scenario.retries[:index], smaller, *scenario.retries[index + 1 :]]
            yield dataclasses.replace(scenario, retries=tuple(retries))
    newer = scenario.newer
    if newer is None:
        return
    yield dataclasses.replace(scenario, newer=None)
    smallers = _without_one_of(newer, "rows", "endings", "episodes")
    for smaller in (*smallers, dataclasses.replace(newer, again=None)):
        if smaller != newer:
            yield dataclasses.replace(scenario, newer=smaller)


def _without_rows(scenario: Scenario, first: int, end: int) -> Scenario:
    """Rows carry their number, so those that are left get new ones."""
    left = scenario.rows[:first] + scenario.rows[end:]
    numbers = {row.number: f"n{number:06d}" for number, row in enumerate(left, 1)}
    gone = {row.number for row in scenario.rows} - numbers.keys()

    def renumbered(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return tuple(
            dataclasses.replace(row, number=numbers.get(row.number, row.number))
            for row in rows
            if row.number not in gone
        )

    newer = scenario.newer
    if newer is not None:
        newer = dataclasses.replace(newer, rows=renumbered(newer.rows))
    return dataclasses.replace(scenario, rows=renumbered(left), newer=newer)
