"""A seed's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.loop import Stuck

from .oracle import violations
from .world import play

if TYPE_CHECKING:
    from .history import History
    from .scenario import Year


def check(year: Year) -> tuple[list[str], History | None]:
    """What was broken, as `promise: where: sentence`, and what happened."""
    try:
        history = play(year)
    except (Stuck, Exception) as error:  # noqa: BLE001 - whatever it is, it is a finding
        return [f"runs: {type(error).__name__}: {error}"], None
    return list(violations(history)), history


def promises_of(broken: list[str]) -> set[str]:
    """The promises that were broken."""
    return {each.partition(":")[0] for each in broken}
