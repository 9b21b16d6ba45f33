"""What every test starts from: no credentials of the machine, no blocked loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from botocore.loaders import create_loader
from hypothesis import settings

from bulk_updater.operations import iter_operations

# A busy machine is no failure: no test depends on how fast an example is.
settings.register_profile("any-speed", deadline=None)
# `pytest --hypothesis-profile soak tests/rubbish`: fifty times the examples, for an hour to spare.
settings.register_profile("soak", settings.get_profile("any-speed"), max_examples=5000)
settings.load_profile("any-speed")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from botocore.loaders import Loader


@pytest.fixture(autouse=True)
def _scrubbed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test sees none of the machine's AWS settings, proxies or flags."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "BULK_UPDATER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", autouse=True)
def _no_loop_left_over() -> None:
    """pytest-asyncio finds no loop of its own to leave open, which would fail a later test."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def _model_is_read() -> None:
    """The service model is read before any loop runs, as `open_job` sees to in a run."""
    list(iter_operations())


@pytest.fixture(scope="session")
def loader() -> Loader:
    """botocore's data, read once for all tests: it takes most of the time of opening a client."""
    return create_loader()


@pytest.fixture(autouse=True)
def _models_are_read_once(monkeypatch: pytest.MonkeyPatch, loader: Loader) -> None:
    monkeypatch.setattr("botocore.session.create_loader", lambda *_, **__: loader)


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """A call of ours that blocks the event loop fails the test that made it."""
    with blockbuster_ctx("bulk_updater"):
        yield
