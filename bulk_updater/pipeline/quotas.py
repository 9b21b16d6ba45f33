"""What is believed of the quotas before the first request, and what is kept of what was found.

Under `--rate quota` and `--rate auto` Service Quotas is asked, once; where it says nothing, the
documented quota stands. Under `auto` what an earlier run found comes first, if it is not too old.
Under `--rate N` nobody is asked.

What a run finds is kept in a file for later ones, by account, region and operation. The account
is what Service Quotas or STS said when asked; under `--rate N` it is not known, and no call is
made for that alone, so what such a run finds is not kept. An endpoint on this machine is known for
free: it goes by `local` and its URL in the place of account and region, so that what a sandbox
taught is never used for AWS. A rehearsal, whose sandbox ends with it, neither reads the file nor
writes it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bulk_updater.config import DOCUMENTED_RATE_PER_S
from bulk_updater.connect import AppliedQuotas
from bulk_updater.learnt import Learnt, LearntQuotas
from bulk_updater.model import Quota, QuotaOrigin
from bulk_updater.pipeline.identity import bare_url, is_local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from bulk_updater.config import RunConfig
    from bulk_updater.model import FoundQuota
    from bulk_updater.operations import Operation

__all__ = ["KnownQuotas", "find_quotas", "keep_found", "quota_file"]

_UNASKED: Final = "--rate says how fast, so nobody was asked"

_FORGOTTEN_AFTER_S: Final = 30 * 86_400.0
"""How long what was learnt is begun from, in seconds. Quotas are raised now and then, and a run
finds out anew within minutes."""

_SLOWEST_PER_S: Final = 0.1
_FASTEST_PER_S: Final = 10_000.0
"""What a search may begin from, in requests per second. Beyond, somebody's figure is wrong, and a
search would take hours to come back from it."""

_SAVE_EVERY_S: Final = 60.0
"""How often what was found is saved while a run goes on, in seconds: a run that is killed loses no
more than this."""


@dataclass(frozen=True, slots=True)
class KnownQuotas:
    """What is believed of the quotas before the first request.

    Attributes:
        quotas: By the operation's snake_case name.
        account_id: The AWS account that they are of; None where it is not known, and for an
            endpoint on this machine.
        kept: The file that what is found is kept in; None where it is not kept.
        region: The region that they hold in; None where nobody was asked.
    """

    quotas: Mapping[str, Quota]
    account_id: str | None
    kept: LearntQuotas | None
    region: str | None = None


async def find_quotas(
    config: RunConfig,
    operations: tuple[Operation, ...],
    read: Callable[[tuple[Operation, ...]], Awaitable[AppliedQuotas]],
    *,
    now: Callable[[], float],
) -> KnownQuotas:
    """Ask whoever knows the quotas, as `--rate` says.

    Args:
        config: The run.
        operations: The operations whose quotas are wanted.
        read: Asks Service Quotas; not called where `--rate` is a number.
        now: Seconds since the epoch.
    """
    rate = config.pacing.rate
    if isinstance(rate, str):
        applied = await read(operations)
    elif config.changes.only_changed and not is_local(config):
        applied = await read(())  # whose account it is, and no more
    else:
        applied = AppliedQuotas({}, None, _UNASKED)
    kept = _open_kept(config, applied, now) if isinstance(rate, str) or is_local(config) else None
    learnt: dict[str, Learnt] = {}
    if rate == "auto" and kept is not None:
        learnt = await asyncio.to_thread(kept.load)
    fresh = {
        name: each for name, each in learnt.items() if now() - each.learnt_at <= _FORGOTTEN_AFTER_S
    }
    believed = {
        operation.name: _believe(operation.name, applied, fresh, begins=rate == "auto")
        for operation in operations
    }
    return KnownQuotas(
        believed, None if is_local(config) else applied.account_id, kept, applied.region
    )


@asynccontextmanager
async def keep_found(
    kept: LearntQuotas | None,
    found: Callable[[], Mapping[str, FoundQuota]],
    *,
    now: Callable[[], float],
) -> AsyncIterator[None]:
    """Save what is found while inside, once a minute and at the end.

    Args:
        kept: The file; None keeps nothing.
        found: Asks for what is certain by now, by the operation's snake_case name.
        now: Seconds since the epoch.
    """
    if kept is None:
        yield
        return

    async def save() -> None:
        learnt = {
            name: Learnt(
                rate_per_s=_short(quota.rate_per_s),
                burst=None if quota.burst is None else _short(quota.burst),
                learnt_at=now(),
            )
            for name, quota in found().items()
        }
        if learnt:
            await asyncio.to_thread(kept.save, learnt)

    async def save_now_and_then() -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            await save()

    saving = asyncio.create_task(save_now_and_then())
    try:
        yield
    finally:
        saving.cancel()
        await save()


def _short(measured: float) -> float:
    """A figure without the digits that no measurement has."""
    return float(f"{measured:.6g}")


def quota_file(config: RunConfig) -> Path:
    """What runs learn is kept in it: `--quota-file`, or `quotas.json` beside the runs."""
    return config.quota_file or config.runs_dir / "quotas.json"


def _open_kept(
    config: RunConfig, applied: AppliedQuotas, now: Callable[[], float]
) -> LearntQuotas | None:
    """The file, as far as it concerns the account and region; None where they are not known."""
    if config.sandbox:
        return None
    if is_local(config):
        account, region = "local", bare_url(config.connection.endpoint_url or "")
    elif applied.account_id is None or applied.region is None:
        return None
    else:
        account, region = applied.account_id, applied.region
    return LearntQuotas(quota_file(config), account=account, region=region, clock=now)


def _believe(
    name: str, applied: AppliedQuotas, learnt: Mapping[str, Learnt], *, begins: bool
) -> Quota:
    """One operation's quota; `begins` where a search begins from it."""
    if name in learnt:
        quota = Quota(rate_per_s=learnt[name].rate_per_s, origin=QuotaOrigin.LEARNT)
    elif name in applied.rates_per_s:
        quota = Quota(rate_per_s=applied.rates_per_s[name], origin=QuotaOrigin.APPLIED)
    else:
        quota = Quota(
            rate_per_s=DOCUMENTED_RATE_PER_S,
            origin=QuotaOrigin.DOCUMENTED,
            unread=applied.unread,
        )
    if not begins:
        return quota
    return Quota(
        rate_per_s=min(max(quota.rate_per_s, _SLOWEST_PER_S), _FASTEST_PER_S),
        origin=quota.origin,
        unread=quota.unread,
    )
