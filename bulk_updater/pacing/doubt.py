"""Refusals that nobody asked for, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulk_updater.pacing.tally import Mark

__all__ = ["Doubt"]


class Doubt:
    """How much there is to doubt that the quota is what we believe.

    A refusal while holding adds one, and doubt fades with acceptances and with time. One alone
    may mean nothing. What feeds doubt that is there already also widens the margin, for traffic
    at random needs room; without more of it the margin narrows again.

    Attributes:
        amount: 0 or more; a refusal adds 1.
        since: The first of the refusals that it is made of; None where there is none.
        margin: How far to hold under the quota, as a part of it.
    """

    ENOUGH: Final = 3
    """So much doubt, and the quota is measured anew."""

    _MARGIN: Final = 0.003
    _WIDEST_MARGIN: Final = 0.08
    _MARGIN_STEP: Final = 0.005
    # The share of surprises at which the margin stays as it is.
    _QUIET_SHARE: Final = 0.0035
    _FADES_BY: Final = 0.009
    _FADES_BY_PER_S: Final = 0.03  # or at a low rate it would take an hour

    # Surprises per thousand requests that quiet conditions do not bring.
    _NOISY_SHARE: Final = 0.008
    _WINDOW: Final = 1000
    _WINDOW_S: Final = 100.0
    _SETTLES_IN_S: Final = 30.0

    def __init__(self, now_s: float) -> None:
        self.amount = 0.0
        self.since: Mark | None = None
        self.margin = self._MARGIN
        self._began_s = self._heard_at_s = now_s
        self._n_surprises = 0
        self._n_heard = 0

    def heard(self, now_s: float) -> None:
        """A request was accepted, in whatever phase."""
        self._heard_at_s = now_s

    def fade(self, now_s: float, quota_per_s: float) -> None:
        """A request was accepted while holding."""
        silent_s = now_s - self._heard_at_s
        fades_by = max(self._FADES_BY, self._FADES_BY_PER_S * silent_s)
        self.amount = max(0.0, self.amount - fades_by)
        self.margin = max(self._MARGIN, self.margin - self._MARGIN_STEP * self._QUIET_SHARE)
        self._n_heard += 1
        if self._n_heard >= self._window(quota_per_s):
            self.explain()

    def surprise(self) -> None:
        """There was a refusal that nobody asked for."""
        self._n_surprises += 1

    def is_noisy(self, at_s: float, quota_per_s: float) -> bool:
        """Whether there are more surprises than a quota that is known explains."""
        is_settled = at_s - self._began_s >= self._SETTLES_IN_S
        return is_settled and self._n_surprises >= self._NOISY_SHARE * self._window(quota_per_s)

    def feed(self) -> float:
        """Adds a refusal to it; returns how much of it had been doubted before, from 0 to 1."""
        fed = min(1.0, self.amount)
        self.amount += 1.0
        self.margin = min(self._WIDEST_MARGIN, self.margin + self._MARGIN_STEP * fed**2)
        return fed

    def resolve(self, since: Mark | None = None) -> None:
        """Something was done about it; what follows counts from a mark."""
        self.amount = 0.0
        self.since = since

    def explain(self) -> None:
        """The surprises until now have a reason."""
        self._n_surprises = self._n_heard = 0

    def narrow(self) -> None:
        """There was no reason for a wide margin."""
        self.margin = self._MARGIN

    def _window(self, quota_per_s: float) -> float:
        """Requests that surprises are counted over."""
        return max(self._WINDOW, self._WINDOW_S * quota_per_s)
