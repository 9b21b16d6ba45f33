"""One token bucket, and the live contact centre that drinks from it too.

Amazon Connect throttles each operation by itself, for the whole account and region, whatever the
instance or the user ("Amazon Connect service quotas", API throttling quotas). The IVR and the
Lambda functions of the same account therefore empty the same bucket as a bulk run.

Pure arithmetic: the time comes in as a number, and nothing here waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

__all__ = ["Bucket"]

_WHOLE_TOKEN = 1.0 - 1e-9
"""Ten gains of a tenth add up to a little less than one; a request on time must not pay for it."""


class Bucket:
    """A token bucket that is full at the start.

    Live requests are not scheduled but caught up with: whenever somebody looks, those that came
    in the meantime are played in their order. So they need no task, and nothing depends on how
    often somebody looks.
    """

    def __init__(
        self,
        *,
        rate_per_s: float,
        burst: float,
        now_s: float,
        live_per_s: float,
        rng: Random,
    ) -> None:
        """Fill the bucket.

        Args:
            rate_per_s: Tokens that come in a second, above 0.
            burst: Tokens that it holds at the most, at least 1.
            now_s: The time now, in seconds on the caller's clock.
            live_per_s: Live requests a second on average; 0 is none.
            rng: Chance, for the moments of the live requests.
        """
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._filled_s = now_s
        self._live_per_s = live_per_s
        self._rng = rng
        self._next_live_s = self._live_after(now_s)
        self.live_accepted = 0
        self.live_refused = 0

    def take(self, now_s: float) -> bool:
        """Take one token; False where there is none, which costs nothing.

        Args:
            now_s: The time now, in seconds; a time before an earlier call's counts as that one.
        """
        self.catch_up(now_s)
        return self._take(now_s)

    def change(self, *, rate_per_s: float, burst: float, now_s: float) -> None:
        """Gain and hold something else from now on; what is in it stays, as far as it fits.

        Args:
            rate_per_s: Tokens that come in a second, above 0.
            burst: Tokens that it holds at the most, at least 1.
            now_s: The time now, in seconds.
        """
        self.catch_up(now_s)
        self._fill(now_s)
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = min(self._tokens, burst)

    def catch_up(self, now_s: float) -> None:
        """Let every live request drink that came until `now_s`."""
        while self._next_live_s is not None and self._next_live_s <= now_s:
            if self._take(self._next_live_s):
                self.live_accepted += 1
            else:
                self.live_refused += 1
            self._next_live_s = self._live_after(self._next_live_s)

    def _fill(self, now_s: float) -> None:
        gained = max(0.0, now_s - self._filled_s) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_s = max(self._filled_s, now_s)

    def _take(self, now_s: float) -> bool:
        self._fill(now_s)
        if self._tokens < _WHOLE_TOKEN:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def _live_after(self, now_s: float) -> float | None:
        # The gaps of a Poisson process are exponentially distributed.
        return now_s + self._rng.expovariate(self._live_per_s) if self._live_per_s else None
