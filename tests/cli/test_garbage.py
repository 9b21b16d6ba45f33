"""Garbage is looked for less often in the process of a run."""

from __future__ import annotations

import gc

from bulk_updater.cli.garbage import collect_less


def test_collections_are_rarer_and_imports_are_left_alone():
    """The first generation grows at least fivefold, and what exists is frozen."""
    before = gc.get_threshold()
    try:
        collect_less()
        assert gc.get_threshold()[0] >= 5 * 2000
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
