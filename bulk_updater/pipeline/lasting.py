"""Whether the credentials last as long as the run: when it ends, and the sentence that says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bulk_updater.pipeline.estimate import LONG_RUN_S, nights_of
from bulk_updater.words import duration

if TYPE_CHECKING:
    from bulk_updater.config import RunConfig
    from bulk_updater.connect import CredentialsEnd

__all__ = ["describe_credentials_end", "lasts_s"]

_OFTEN_LAST_S: Final = LONG_RUN_S
"""How long credentials of a session last where nobody says: STS lends a role for an hour."""

_FOR_EVER_S: Final = 3650 * 86_400.0
"""Ten years: what lasts longer is said to last so long, as years beyond 9999 cannot be written."""


def lasts_s(config: RunConfig, takes_s: float, now: float) -> float:
    """How long a process lasts that begins to send now, in seconds, waits included.

    It waits outside of its window, and with the credentials that it has; at its deadline it ends,
    and the next night's process has credentials of its own.

    Args:
        config: The run, with its schedule.
        takes_s: Seconds of sending, from 0.
        now: When it begins, in seconds since the epoch.

    Returns:
        From 0 to ten years, which stand for longer, too.
    """
    schedule = config.schedule
    if isinstance(schedule.until, float | int) and schedule.until <= now:
        return 0.0  # it came while the run was prepared
    deadline_at = schedule.deadline_at(now)
    if deadline_at is not None and deadline_at <= now:
        return 0.0  # a time that is nothing beside the seconds since the epoch
    tonight = replace(config, schedule=replace(schedule, until=deadline_at, for_s=None))
    worked = nights_of(tonight, takes_s, now)
    if worked is None:
        ends_at = now + takes_s
    elif worked.ends_at is not None:
        ends_at = worked.ends_at
    else:
        ends_at = now + _FOR_EVER_S if deadline_at is None else deadline_at
    return min(ends_at - now, _FOR_EVER_S)


def describe_credentials_end(ends: CredentialsEnd, *, now_s: float, takes_s: float) -> str | None:
    """What to know before a run begins that its credentials will not outlast.

    Args:
        ends: When the credentials end for good.
        now_s: The time, in seconds since the epoch.
        takes_s: Seconds until the run ends at its pace, from 0; see `lasts_s`. 0 where it has
            nothing to send.

    Returns:
        One sentence; None where the credentials last long enough, as far as anybody knows.
    """
    if not takes_s:
        return None
    mend = (
        f"it will stop then with the rows left unsettled; {ends.renewal} and give the same command "
        "again, or use a profile that renews itself."
    )
    if ends.at is not None:
        if now_s + takes_s <= ends.at.timestamp():
            return None
        if ends.at.timestamp() <= now_s:
            return (
                f"The credentials ended at {_clock(ends.at.timestamp())}, as far as what wrote them"
                f" says: the run may stop at once; {ends.renewal} and give the same command again."
            )
        return (
            f"The credentials end at {_clock(ends.at.timestamp())}, the run at about "
            f"{_clock(now_s + takes_s)}: {mend}"
        )
    if not ends.is_known and takes_s > _OFTEN_LAST_S:
        return (
            f"The credentials are a session's, and nothing says when they end; the run takes about "
            f"{duration(takes_s)}, and many sessions end after an hour. If they end before it does,"
            f" {mend}"
        )
    return None


def _clock(epoch_s: float) -> str:
    """A moment in UTC, to the minute: `2026-03-01 14:05 UTC`."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
