"""What the tests of real processes are given: see `processes`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from .processes import (
    INSTANCE,
    MAPPING,
    PATIENCE_S,
    SAMPLES,
    Ran,
    Served,
    Shell,
    Started,
    Warm,
    environment,
    export_of,
    ledger_of,
    standing,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "INSTANCE",
    "MAPPING",
    "PATIENCE_S",
    "SAMPLES",
    "Ran",
    "Served",
    "Shell",
    "Started",
    "Warm",
    "environment",
    "export_of",
    "ledger_of",
    "standing",
    "state_of",
]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    with contextlib.closing(opened):
        yield opened


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with contextlib.closing(Warm()) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One fast sandbox for the tests of a module; contacts are named by each test."""
    opened = Shell(tmp_path_factory.mktemp("sandbox"))
    with contextlib.closing(opened):
        yield Served(opened, "--rate", "100000", "--burst", "100000", "--latency-ms", "5")
