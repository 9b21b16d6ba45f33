"""The configuration that the flags make."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from bulk_updater.cli.going_on import command_to_go_on
from bulk_updater.cli.options.sharing import DEFAULTS
from bulk_updater.config import (
    ChangesConfig,
    ConnectionConfig,
    PacingConfig,
    RetryConfig,
    RunConfig,
)
from bulk_updater.connect import check_endpoint_url
from bulk_updater.errors import ConfigError
from bulk_updater.schedule import ScheduleConfig, parse_duration, parse_until, parse_window

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_run_config"]

_SUFFIXES_OF_EXPORTS = {".csv", ".gz", ".parquet", ".tsv"}


def make_run_config(flags: dict[str, Any]) -> RunConfig:
    """The configuration that the flags of `run` or `plan` make.

    Args:
        flags: The command's parameters by name; those that `plan` lacks have their defaults.

    Raises:
        ConfigError: If they are not usable.
    """
    _expect_mapping_first(flags["mapping"])
    endpoint_url = flags["endpoint_url"] or _endpoint_of_environment(flags)
    if endpoint_url is not None:
        # Before anything is written: the command that goes on would hold a password that is in it.
        check_endpoint_url(endpoint_url, allow_http=flags["allow_http"])
    return RunConfig(
        mapping=flags["mapping"],
        sources=tuple(flags["sources"]),
        run_dir=flags.get("run_dir"),
        quota_file=flags["quota_file"],
        fresh=flags.get("fresh", False),
        limit=flags["limit"],
        max_in_flight=flags.get("max_in_flight", DEFAULTS.max_in_flight),
        connection=ConnectionConfig(
            region=flags["region"],
            profile=flags["profile"],
            endpoint_url=endpoint_url,
            ca_bundle=flags["ca_bundle"],
            verify_ssl=not flags["no_verify_ssl"],
            sign_requests=not flags["no_sign_request"],
            allow_http=flags["allow_http"],
            connect_timeout_s=flags["cli_connect_timeout"],
            read_timeout_s=flags["cli_read_timeout"],
        ),
        pacing=_make_pacing_config(flags),
        retry=RetryConfig(max_attempts=flags.get("max_attempts", DEFAULTS.retry.max_attempts)),
        max_failures=flags.get("max_failures", DEFAULTS.max_failures),
        schedule=_make_schedule_config(flags),
        sandbox=flags.get("sandbox", False),
        changes=_make_changes_config(flags),
        order=flags.get("order", DEFAULTS.order),
        canary=flags.get("canary"),
        expect_instance=flags.get("expect_instance"),
        supersede=flags.get("supersede"),
        mends=flags.get("mends"),
        command=command_to_go_on(sys.argv),
    )


def _make_pacing_config(flags: dict[str, Any]) -> PacingConfig:
    share = flags["quota_share"]
    if flags["exclusive"] and share is not None:
        raise ConfigError("--exclusive takes all of the quota; leave --quota-share out.")
    return PacingConfig(
        rate=flags["rate"],
        quota_share=DEFAULTS.pacing.quota_share if share is None else share,
        exclusive=flags["exclusive"],
    )


def _make_changes_config(flags: dict[str, Any]) -> ChangesConfig:
    if not flags.get("only_changed", False):
        _expect_state(flags.get("state"))
        for name in ("refresh", "verify_drift", "max_change"):
            if flags.get(name) is not None:
                raise ConfigError(
                    f"--{name.replace('_', '-')} says how changes are told, and all rows are sent; "
                    "give --only-changed with it, or leave it out."
                )
    return ChangesConfig(
        only_changed=flags.get("only_changed", False),
        state_file=flags.get("state"),
        refresh_s=flags.get("refresh"),
        verify_drift=flags.get("verify_drift") or 0.0,
        max_change=flags.get("max_change"),
    )


def _expect_state(path: Path | None) -> None:
    """Where all rows are sent the state is only told of that, so a wrong path would do nothing."""
    if path is not None and not path.exists():
        raise ConfigError(
            f"--state {path}: there is no such file, and without --only-changed none is made. "
            "Check the path; or leave --state out, if no night has been yet."
        )


def _make_schedule_config(flags: dict[str, Any]) -> ScheduleConfig:
    until, for_s, window = (flags.get(name) for name in ("until", "for", "window"))
    return ScheduleConfig(
        until=None if until is None else parse_until(until),
        for_s=None if for_s is None else parse_duration(for_s),
        window=None if window is None else parse_window(window),
    )


def _expect_mapping_first(mapping: Path) -> None:
    if mapping.suffix.lower() in _SUFFIXES_OF_EXPORTS:
        raise ConfigError(
            f"{mapping} is named as the mapping and looks like an export. The mapping comes first: "
            "MAPPING SOURCE..."
        )


def _endpoint_of_environment(flags: dict[str, Any]) -> str | None:
    """What botocore would take from the environment: it decides whether a target is local."""
    ignored = os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    if ignored or flags.get("sandbox", False):
        return None
    names = ("AWS_ENDPOINT_URL_CONNECT", "AWS_ENDPOINT_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
