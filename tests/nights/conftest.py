"""What the simulation does differently from other tests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """The simulated crash reads files on the loop; the program's own threads are simulated."""


@pytest.fixture(autouse=True)
def _models_are_read_once() -> None:
    """`fast` sees to it, for the whole process and without the operations that nobody calls."""


@pytest.fixture(autouse=True)
def _log_is_as_before() -> Iterator[None]:
    """What is heard here is nobody else's level."""
    loggers = [logging.getLogger(name) for name in ("bulk_updater", "asyncio")]
    before = [logger.level for logger in loggers]
    loggers[0].setLevel(logging.INFO)
    loggers[1].setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
