"""Everything that a sandbox can be told, with every default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SandboxConfig"]

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """How the sandbox behaves. There is no host: it listens on 127.0.0.1 and nowhere else.

    The shares are chances between 0 and 1 for each request to one of Connect's operations that
    passed its signature and its bucket; together they are at most 1.

    Attributes:
        port: TCP port, 0 to 65535; 0 lets the system choose a free one.
        rate_per_s: What each operation's bucket gains a second, above 0. The default is the
            documented RateLimit of the operations ("Amazon Connect service quotas", 2026).
        burst: What a bucket holds at the most, at least 1; the documented BurstLimit.
        live_per_s: Requests a second of the live contact centre, at random moments (a Poisson
            process), that drink from the bucket of each write operation.
        latency_ms: Mean time in milliseconds from a request's arrival to its answer.
        latency_jitter: How far a single latency lies from the mean at the most, as a share of
            the mean, 0 to 1.
        error_share: Answered with 500 InternalServiceException; not applied.
        drop_before_share: The connection is dropped before the request was applied.
        drop_after_share: The connection is dropped after the request was applied.
        conflict_share: Answered with 409 ConflictException; not applied. UpdateContact alone:
            no other operation models a conflict.
        html_share: Answered with 503 and an HTML page, as a load balancer does; not applied.
        contacts: A file of the contacts that exist, one a line, as `contact_id` or as
            `instance_id,contact_id`; None lets every contact exist from its first mention.
        access_key: The one access key that is known.
        secret_key: Its secret.
        seed: Seed of everything that happens by chance.
        applied_quota_per_s: What GetServiceQuota says; None says `rate_per_s`.
        quotas_denied: Whether GetServiceQuota is AccessDeniedException, as for a role without
            the permission.
        log_size: Applied writes that the log remembers, from 0; the oldest go first.

    Raises:
        ValueError: A value is outside of its range.
    """

    port: int = 0
    rate_per_s: float = 10.0
    burst: float = 15.0
    live_per_s: float = 0.0
    latency_ms: float = 60.0
    latency_jitter: float = 0.25
    error_share: float = 0.0
    drop_before_share: float = 0.0
    drop_after_share: float = 0.0
    conflict_share: float = 0.0
    html_share: float = 0.0
    contacts: Path | None = None
    access_key: str = "sandbox"
    secret_key: str = field(default="sandbox", repr=False)
    seed: int = 0
    applied_quota_per_s: float | None = None
    quotas_denied: bool = False
    log_size: int = 10_000

    def __post_init__(self) -> None:
        _check("port", self.port, low=0, high=_MAX_PORT)
        _check("rate_per_s", self.rate_per_s, low=0, low_open=True)
        _check("burst", self.burst, low=1)
        _check("live_per_s", self.live_per_s, low=0)
        _check("latency_ms", self.latency_ms, low=0)
        _check("latency_jitter", self.latency_jitter, low=0, high=1)
        _check("log_size", self.log_size, low=0)
        if self.applied_quota_per_s is not None:
            _check("applied_quota_per_s", self.applied_quota_per_s, low=0)
        for name, share in self.shares.items():
            _check(f"{name}_share", share, low=0, high=1)
        _check("the sum of all shares", math.fsum(self.shares.values()), low=0, high=1)
        if not self.access_key or not self.secret_key:
            raise ValueError("access_key and secret_key must not be empty.")

    @property
    def shares(self) -> dict[str, float]:
        """The chance of each kind of fault, by the kind's name."""
        return {
            "error": self.error_share,
            "drop_before": self.drop_before_share,
            "drop_after": self.drop_after_share,
            "conflict": self.conflict_share,
            "html": self.html_share,
        }


def _check(
    name: str, value: float, *, low: float, high: float = math.inf, low_open: bool = False
) -> None:
    # Written so that NaN, which compares false with everything, is refused too.
    inside = math.isfinite(value) and low <= value <= high and not (low_open and value == low)
    if not inside:
        least = f"above {low:g}" if low_open else f"at least {low:g}"
        most = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} is {value:g}; it must be a number {least}{most}.")
