"""Sources of a few bytes, and what a reader makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bulk_updater.readers.delimited import DelimitedSource

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file and returns its path."""

    def write_file(content: bytes, name: str = "export.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


@pytest.fixture
def delimited(write):
    """Opens a source of these bytes, in blocks of any size."""

    def open_delimited(content: bytes, name: str = "export.csv", **options) -> DelimitedSource:
        return DelimitedSource(write(content, name), name=name, **options)

    return open_delimited
