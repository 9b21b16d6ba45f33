"""How many examples a property of rubbish is given, and what every refusal has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from bulk_updater.errors import BulkUpdaterError

_USUAL = 100
"""What Hypothesis gives a property unless a profile says otherwise."""


def examples(n_examples: int) -> settings:
    """So many examples, and fifty times as many under `--hypothesis-profile soak`."""
    return settings(
        max_examples=n_examples * settings().max_examples // _USUAL,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def assert_clear(error: BulkUpdaterError, where: str) -> None:
    """The message says where, and is one line that a terminal can show and a person can read."""
    assert error.message.startswith(where)
    assert error.message.isprintable()
    assert len(error.message) < 3000
