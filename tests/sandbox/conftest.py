"""A sandbox that answers at once, and the SDK's client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bulk_updater.sandbox import Sandbox, SandboxConfig

from .helpers import sdk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def config() -> SandboxConfig:
    """No latency and no throttling worth the name; a test overrides what it is about."""
    return SandboxConfig(latency_ms=0, rate_per_s=1e6, burst=1e6)


@pytest.fixture
async def sandbox(config: SandboxConfig) -> AsyncIterator[Sandbox]:
    async with Sandbox(config) as sandbox:
        yield sandbox


@pytest.fixture
async def connect(sandbox: Sandbox) -> AsyncIterator[Any]:
    async with sdk(sandbox) as client:
        yield client
