"""Folders with mappings, and nights in one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bulk_updater.sandbox import Sandbox

from . import again
from .helpers import BOTH, MAPPING, fast
from .nights import Nights, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Mappings of whole rows."""
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "both.yaml").write_text(BOTH)
    return tmp_path


@pytest.fixture
def folder_again(tmp_path: Path) -> Path:
    """Mappings of which each row writes a part."""
    (tmp_path / "mapping.yaml").write_text(again.MAPPING)
    (tmp_path / "both.yaml").write_text(again.BOTH)
    (tmp_path / "invalid.yaml").write_text(again.INVALID_ROW)
    return tmp_path


@pytest.fixture
async def nights(folder_again: Path) -> AsyncIterator[Nights]:
    """Nights in that folder."""
    service = Service()
    async with Sandbox(fast(), fault=service) as sandbox:
        yield Nights(folder_again, sandbox, service)
