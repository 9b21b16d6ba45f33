"""How long a run takes, at its own pace and with other quotas, and the sentences that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bulk_updater.model import QuotaOrigin
from bulk_updater.pacing import initial_rate_per_s
from bulk_updater.pipeline.deadline import attempt_s
from bulk_updater.schedule import Nights, nights
from bulk_updater.words import count, duration, figure, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.config import PacingConfig, RunConfig
    from bulk_updater.model import Quota
    from bulk_updater.operations import Operation

__all__ = [
    "LONG_RUN_S",
    "AtQuota",
    "at_other_quotas",
    "describe_long_run",
    "describe_pace",
    "nights_of",
]

LONG_RUN_S: Final = 3600.0
"""What is worth asking AWS for more, in seconds: small raises are granted within hours."""

_N_OTHER_QUOTAS: Final = 3


@dataclass(frozen=True, slots=True)
class AtQuota:
    """How long it would take with another quota.

    Attributes:
        rate_per_s: The quota, in requests per second.
        takes_s: Seconds, at the same share of it.
    """

    rate_per_s: float
    takes_s: float


def at_other_quotas(n_requests: int, pacing: PacingConfig, quota: Quota) -> tuple[AtQuota, ...]:
    """What a raised quota would make of a long run.

    Args:
        n_requests: Requests to send, 0 or more.
        pacing: How fast.
        quota: What is believed of the quota.

    Returns:
        The next three round figures above the quota: for 10 these are 20, 50 and 100. Empty where
        the run is no longer than `LONG_RUN_S`, and where a rate was named, which a raised quota
        does not change.
    """
    if not isinstance(pacing.rate, str):
        return ()
    if n_requests / initial_rate_per_s(pacing, quota) <= LONG_RUN_S:
        return ()
    return tuple(
        AtQuota(rate_per_s, round(n_requests / (pacing.share * rate_per_s), 3))
        for rate_per_s, _ in zip(
            _round_figures_above(quota.rate_per_s), range(_N_OTHER_QUOTAS), strict=False
        )
    )


def _round_figures_above(rate_per_s: float) -> Iterator[float]:
    """1, 2, 5, 10, 20, 50 and so on, those that are larger."""
    exponent = math.floor(math.log10(rate_per_s))
    while True:
        for digit in (1, 2, 5):
            figure_per_s = digit * 10.0**exponent
            if figure_per_s > rate_per_s:
                yield figure_per_s
        exponent += 1


def nights_of(config: RunConfig, takes_s: float, now: float) -> Nights | None:
    """How many nights a run needs; None where it may always work.

    Args:
        config: The run, with its schedule.
        takes_s: Seconds of sending.
        now: When it begins, in seconds since the epoch.

    Raises:
        ConfigError: If its deadline has passed.
    """
    schedule = config.schedule
    if (schedule.until, schedule.for_s, schedule.window) == (None, None, None):
        return None
    return nights(schedule, takes_s, now, attempt_s=attempt_s(config.connection))


def describe_pace(pacing: PacingConfig, quota: Quota, account_id: str | None) -> str:
    """How fast one operation's requests are sent and why, as a clause without a full stop.

    Args:
        pacing: How fast.
        quota: What is believed of the quota.
        account_id: The AWS account that it is of; None where that is not known.
    """
    rate = f"{figure(initial_rate_per_s(pacing, quota))}/s"
    if not isinstance(pacing.rate, str):
        return f"at most {rate}, as --rate says"
    part = "all" if pacing.share == 1 else percent(pacing.share)
    whose = _whose(quota, account_id)
    told = (
        f"at most {rate}, {part} of {whose}"
        if pacing.rate == "quota"
        else f"begins from {whose}, finds out how much there is, and takes {part} of it"
    )
    if quota.unread is None:
        return told
    return f"{told}; what applies to the account could not be read: {quota.unread}"


def _whose(quota: Quota, account_id: str | None) -> str:
    rate = f"{figure(quota.rate_per_s)}/s"
    if quota.origin is QuotaOrigin.LEARNT:
        return f"the {rate} that an earlier run found"
    if quota.origin is QuotaOrigin.DOCUMENTED:
        return f"the documented quota of {rate}"
    if account_id is None:
        return f"the applied quota of {rate}"
    return f"the quota of {rate} that applies to account {account_id}"


def describe_long_run(
    operation: Operation, n_requests: int, pacing: PacingConfig, quota: Quota
) -> tuple[str, ...]:
    """What to know before a long run begins, a sentence a line; nothing before a short one.

    Args:
        operation: The operation.
        n_requests: Requests to send, at the most.
        pacing: How fast.
        quota: What is believed of the quota.
    """
    rate_per_s = initial_rate_per_s(pacing, quota)
    takes_s = n_requests / rate_per_s
    if takes_s <= LONG_RUN_S:
        return ()
    takes = (
        f"{operation.name}: up to {count(n_requests, 'request')} to go, which take "
        f"{duration(takes_s)} at {figure(rate_per_s)}/s."
    )
    others = at_other_quotas(n_requests, pacing, quota)
    if not others:
        return (takes,)
    told = ", ".join(f"{figure(each.rate_per_s)}/s {duration(each.takes_s)}" for each in others)
    raised = (
        f"{operation.name}: with a quota of {told}. AWS raises it on request; its code is "
        f"{operation.quota_code}."
    )
    return (takes, raised)
