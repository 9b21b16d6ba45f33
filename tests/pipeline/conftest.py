"""A folder with two mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .helpers import BOTH, MAPPING

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "both.yaml").write_text(BOTH)
    return tmp_path
