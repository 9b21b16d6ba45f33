"""What the simulation does differently from other tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """The simulated crash reads files on the loop; the program's own threads are simulated."""


@pytest.fixture(autouse=True)
def _models_are_read_once() -> None:
    """`fast` sees to it, for the whole process and without the operations that nobody calls."""
