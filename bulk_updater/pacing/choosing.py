"""Which controller a run gets, and where it begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bulk_updater.model import QuotaOrigin
from bulk_updater.pacing.reserving import ReservingController
from bulk_updater.pacing.seeking import SeekingController
from bulk_updater.pacing.yielding import YieldingController

if TYPE_CHECKING:
    from bulk_updater.config import PacingConfig
    from bulk_updater.model import Quota
    from bulk_updater.pacing.controller import Controller

__all__ = ["ceiling_per_s", "choose_controller", "initial_rate_per_s"]


def initial_rate_per_s(config: PacingConfig, quota: Quota) -> float:
    """Requests per second that a run begins with, above 0; but for `auto`, its ceiling.

    Args:
        config: What the user asked for.
        quota: What is believed of the operation's quota.
    """
    return quota.rate_per_s * config.share if isinstance(config.rate, str) else config.rate


def ceiling_per_s(config: PacingConfig, quota: Quota) -> float | None:
    """Requests per second that are never exceeded; None under `auto`: whatever there is."""
    return None if config.rate == "auto" else initial_rate_per_s(config, quota)


def choose_controller(config: PacingConfig, quota: Quota, now_s: float) -> Controller:
    """The controller for one operation.

    Next to a live contact centre, a run that was given a ceiling holds it and gives way, and one
    that was not finds out carefully. With nobody else about, all there is is sought, up to the
    ceiling.

    Args:
        config: What the user asked for.
        quota: What is believed of the operation's quota.
        now_s: The time now, in seconds of a monotonic clock.
    """
    ceiling = ceiling_per_s(config, quota)
    is_sure = quota.origin is not QuotaOrigin.DOCUMENTED
    if not config.exclusive:
        if ceiling is not None:
            return YieldingController(ceiling, now_s)
        return ReservingController(quota.rate_per_s, now_s, share=config.share, is_sure=is_sure)
    return SeekingController(
        quota.rate_per_s if ceiling is None else ceiling,
        now_s,
        ceiling_per_s=math.inf if ceiling is None else ceiling,
        is_sure=is_sure,
    )
