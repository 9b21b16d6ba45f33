"""How often Python looks for garbage while a run goes on."""

from __future__ import annotations

import gc

__all__ = ["collect_less"]

_THRESHOLDS = (10_000, 10, 10)
"""Every request leaves a few dozen objects in cycles, botocore's. At Python's default of 700 (2,000
from 3.12) that is a collection for every other request, 15 % of the CPU of a run; at ten thousand
a tenth of that, for some MB of garbage that lives a little longer."""


def collect_less() -> None:
    """Leave what was imported to itself, and look through the rest less often.

    For the process of one run, whose imports (pandas, pyarrow, the service model) stay to the end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
