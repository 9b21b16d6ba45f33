"""Everything that a run can be told, frozen, with every default.

`cli` builds one `RunConfig` and nothing below it reads a flag or an environment variable again.
`None` means no limit wherever a limit is expected.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from bulk_updater.errors import ConfigError
from bulk_updater.schedule import ScheduleConfig

__all__ = [
    "DOCUMENTED_BURST",
    "DOCUMENTED_RATE_PER_S",
    "ChangesConfig",
    "ConnectionConfig",
    "MaxFailures",
    "PacingConfig",
    "RetryConfig",
    "RunConfig",
    "ScheduleConfig",
    "SourceFormat",
    "is_loopback",
    "is_plain_http",
]

DOCUMENTED_RATE_PER_S = 10.0
"""RateLimit of both operations: "Amazon Connect service quotas", API throttling quotas, 2026."""

DOCUMENTED_BURST = 15.0
"""BurstLimit of both operations, from the same table."""


def is_loopback(url: str | None) -> bool:
    """Whether a URL's host is this machine."""
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:  # brackets without an address between them
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_plain_http(url: str | None) -> bool:
    """Whether what is sent to a URL leaves this machine unprotected."""
    return (url or "").lower().startswith("http://") and not is_loopback(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFormat:
    """How a CSV source is written; Parquet carries its own.

    Attributes:
        encoding: A Python codec name; a byte order mark is understood whatever it says.
        delimiter: One character, or `auto` to tell it from the header.
    """

    encoding: str = "utf-8"
    delimiter: str = ","


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """How Amazon Connect is reached; the AWS CLI's own options.

    Attributes:
        region: AWS region; None asks the profile and the environment.
        profile: Profile of the shared configuration; None is the default one.
        endpoint_url: Where to send instead of the region's endpoint.
        ca_bundle: CA certificates to trust instead of the system's.
        verify_ssl: Whether certificates are verified.
        sign_requests: Whether requests are signed; without, no credentials are loaded.
        allow_http: Whether a plain http endpoint beyond this machine may be used, where contacts'
            data and signatures cross the network in the clear.
        connect_timeout_s: Seconds to wait for a connection; None waits for ever. The AWS CLI's
            default.
        read_timeout_s: Seconds to wait between two bytes of an answer; None waits for ever. The
            AWS CLI's default.
        access_key: Access key to sign with instead of what the environment holds, and its
            secret: the pair that the sandbox knows.
    """

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    verify_ssl: bool = True
    sign_requests: bool = True
    allow_http: bool = False
    connect_timeout_s: float | None = 60.0
    read_timeout_s: float | None = 60.0
    access_key: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingConfig:
    """How fast requests may be started, for each operation by itself.

    Attributes:
        rate: `quota` takes `quota_share` of the quota that applies to the account and never goes
            beyond; `auto` finds out how much there is, and takes `quota_share` of that; a number
            of requests per second, above 0, is never exceeded.
        quota_share: The part of the quota that the run may use, above 0 and up to 1. The rest is
            the live contact centre's.
        exclusive: Whether nobody else uses the account: then all of the quota is taken, and the
            run does not give way.
    """

    rate: float | Literal["quota", "auto"] = "quota"
    quota_share: float = 0.8
    exclusive: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.rate, str) and not 0 < self.rate < math.inf:
            raise ConfigError(f"--rate is {self.rate:g}; it must be above 0 requests a second.")
        if not 0 < self.quota_share <= 1:
            raise ConfigError(
                f"--quota-share is {self.quota_share:g}; it must be above 0 and at most 1."
            )

    @property
    def share(self) -> float:
        """The part of the quota that the run may use, above 0 and up to 1."""
        return 1.0 if self.exclusive else self.quota_share


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """How often and how patiently a request is tried again.

    Attributes:
        max_attempts: Attempts in all, the first included, from 1; throttled ones do not count.
        max_conflict_attempts: The same for conflicts (HTTP 409), which rarely heal.
        backoff_base_s: Full jitter waits between 0 and `backoff_base_s * 2 ** (attempt - 1)`.
        backoff_max_s: The most that one such wait may be.
        seed: Seed of the jitter, so that a run can be replayed; None draws one.
    """

    max_attempts: int = 8
    max_conflict_attempts: int = 4
    backoff_base_s: float = 0.25
    backoff_max_s: float = 20.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"--max-attempts is {self.max_attempts}; it must be at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxFailures:
    """When failing rows stop the run; each operation is counted by itself.

    Attributes:
        in_a_row: This many FAILED rows in a row with one code stop the run; None: never.
        share: More than this share of the first `share_of` rows sent FAILED stops the run, above
            0 and up to 1; None: never.
        share_of: How many of the first rows sent the share is taken of.
    """

    in_a_row: int | None = 50
    share: float | None = 0.5
    share_of: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesConfig:
    """Sending only what changed since it was last applied.

    Attributes:
        only_changed: Whether rows that would change nothing are left out, as UNCHANGED.
        state_file: What was last applied to each contact; None keeps it in `runs_dir`.
        refresh_s: What was applied longer ago than this many seconds is sent all the same; None
            never is.
        verify_drift: Share of the unchanged contacts that is read back, from 0 to 1.
        max_change: The run stops before it sends anything where more than this share of the rows
            would change, above 0 and up to 1; None: whatever the share.
    """

    only_changed: bool = False
    state_file: Path | None = None
    refresh_s: float | None = None
    verify_drift: float = 0.0
    max_change: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run.

    Attributes:
        mapping: The mapping file.
        sources: The sources, in order; row numbers run on through them.
        run_dir: The run directory; None derives it under `runs_dir` from what is run.
        runs_dir: Where derived run directories go.
        quota_file: What runs learn about the quotas, for later ones; None keeps it in `runs_dir`.
        fresh: Begin anew; an earlier run's directory is kept beside the new one.
        limit: Rows to take at the most, from the first; None takes all.
        max_in_flight: Requests open at once, at the most.
        max_waiting: Rows read ahead at the most that wait for an earlier row of their contact.
        connection: How Amazon Connect is reached.
        pacing: How fast.
        retry: How patiently.
        max_failures: When to give up.
        schedule: When it may work, and until when.
        sandbox: Whether the target is the local sandbox; kept apart from real runs.
        changes: Whether only what changed is sent.
        supersede: The run directory of an older export's run, which this run takes over from.
        mends: The run directory that a mended `failed.csv` comes from; None looks for it, beside
            the file and by the rows that it names.
        order: `file` sends in the order of the rows; `oldest-first` sends first what Connect
            forgets first, rows of one contact in their order all the same.
        canary: This many rows are sent first, and the others only if none of them failed.
        expect_instance: The only instance that may be written to; None: any.
        command: The command that started the run, for the sentence that says how to go on.
    """

    mapping: Path
    sources: tuple[Path, ...]
    run_dir: Path | None = None
    runs_dir: Path = Path("runs")
    quota_file: Path | None = None
    fresh: bool = False
    limit: int | None = None
    max_in_flight: int = 32
    max_waiting: int = 4096
    connection: ConnectionConfig = field(default_factory=ConnectionConfig)
    pacing: PacingConfig = field(default_factory=PacingConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    max_failures: MaxFailures = field(default_factory=MaxFailures)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sandbox: bool = False
    changes: ChangesConfig = field(default_factory=ChangesConfig)
    supersede: Path | None = None
    mends: Path | None = None
    order: Literal["file", "oldest-first"] = "file"
    canary: int | None = None
    expect_instance: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("No source was given; name at least one CSV or Parquet file.")
        if self.max_in_flight < 1:
            raise ConfigError(f"--max-in-flight is {self.max_in_flight}; it must be at least 1.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit is {self.limit}; it must be at least 1.")
