"""Whether the credentials last as long as the run: the sentence that says so before it begins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bulk_updater.pipeline.estimate import LONG_RUN_S
from bulk_updater.words import duration

if TYPE_CHECKING:
    from bulk_updater.connect import CredentialsEnd

__all__ = ["describe_credentials_end"]

_OFTEN_LAST_S: Final = LONG_RUN_S
"""How long credentials of a session last where nobody says: STS lends a role for an hour."""


def describe_credentials_end(ends: CredentialsEnd, *, now_s: float, takes_s: float) -> str | None:
    """What to know before a run begins that its credentials will not outlast.

    Args:
        ends: When the credentials end for good.
        now_s: The time, in seconds since the epoch.
        takes_s: Seconds that the run takes at its pace, from 0.

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
