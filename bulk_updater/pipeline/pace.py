"""The pace of one execution: what it began from, how it went, and what there is to say of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bulk_updater.model import FoundQuota, PaceSummary, to_iso
from bulk_updater.pacing import Pacer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bulk_updater.config import PacingConfig
    from bulk_updater.model import Quota
    from bulk_updater.pipeline.quotas import KnownQuotas

__all__ = ["Pace"]


class Pace:
    """The pacer of one execution, and its figures. Made on the running loop.

    Attributes:
        pacer: Says when a request may start.
        known: What was believed of the quotas at the start.
    """

    def __init__(
        self,
        config: PacingConfig,
        known: KnownQuotas,
        *,
        now: Callable[[], float],
        beside: Mapping[str, Quota] | None = None,
    ) -> None:
        self._clock = asyncio.get_running_loop().time
        self.pacer = Pacer(config, {**known.quotas, **(beside or {})}, self._clock)
        self.known = known
        self._config = config
        self._began_at = now()
        self._began_s = self._clock()

    def ceiling_per_s(self) -> float | None:
        """Requests per second that are never exceeded, over all operations; None under `auto`."""
        ceilings = [self.pacer.ceiling_per_s(name) for name in self.known.quotas]
        known = [each for each in ceilings if each is not None]
        return sum(known) if len(known) == len(ceilings) else None

    def found(self) -> dict[str, FoundQuota]:
        """What was found out about the quotas by now, by the operation's name."""
        every = {name: self.pacer.found(name) for name in self.known.quotas}
        return {name: found for name, found in every.items() if found is not None}

    def summarise(self) -> tuple[PaceSummary, ...]:
        """How each operation went until now."""
        # At least a second, or a few requests at once would look like thousands a second.
        took_s = max(1.0, self._clock() - self._began_s - self.pacer.paused_s())
        counts = {each["operation"]: each for each in self.pacer.series()}
        return tuple(
            PaceSummary(
                operation=name,
                ceiling_per_s=self.pacer.ceiling_per_s(name),
                quota_per_s=quota.rate_per_s,
                origin=quota.origin,
                exclusive=self._config.exclusive,
                started=sum(counts[name]["started"]),
                throttled=sum(counts[name]["throttled"]),
                started_per_s=round(sum(counts[name]["started"]) / took_s, 3),
                found=self.pacer.found(name),
            )
            for name, quota in self.known.quotas.items()
        )

    def to_note(self) -> dict[str, Any]:
        """This execution's entry in `run.json`: its figures over time."""
        return {"began_at": to_iso(self._began_at), "operations": self.pacer.series()}
