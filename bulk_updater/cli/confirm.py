"""`--confirm`: what a run would send, and the question whether it may.

Everything stands on standard error, so that standard output stays the run's.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Final

from bulk_updater.errors import BulkUpdaterError, ConfigError
from bulk_updater.operations import get_operation
from bulk_updater.pipeline import plan
from bulk_updater.pipeline.job import open_job
from bulk_updater.pipeline.scene import constant_instances
from bulk_updater.words import count, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_updater.config import RunConfig
    from bulk_updater.pipeline import OperationPlan, Plan

__all__ = ["confirm", "describe_plan"]

_INSTANCES_SHOWN: Final = 3

_YES: Final = frozenset({"y", "yes"})


def confirm(config: RunConfig) -> None:
    """Say what would be sent, and ask; returns where the answer is yes, or nothing would be.

    Blocks: every row is read and mapped, as `plan` does it.

    Args:
        config: The run.

    Raises:
        UsageError: There is nobody to ask, or the mapping or a source is not usable.
        BulkUpdaterError: The answer is not yes.
    """
    _expect_somebody_to_ask(config)
    planned = plan(config)
    if not any(part.n_requests for part in planned.operations):
        return
    for line in describe_plan(planned, config, instances_of(config)):
        print(line, file=sys.stderr)  # noqa: T201 - for the person at the terminal
    print("Send them? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 - the same
    if sys.stdin.readline().strip().lower() not in _YES:
        raise BulkUpdaterError("Nothing was sent.")


def _expect_somebody_to_ask(config: RunConfig) -> None:
    if config.sandbox:
        raise ConfigError(
            "--confirm and --sandbox exclude each other: a rehearsal sends nothing to AWS. Leave "
            "one of them out."
        )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            "--confirm asks on a terminal, and standard input or standard error is none. Leave it "
            "out where nobody can answer; --canary and --max-change guard a run without asking."
        )


def describe_plan(
    planned: Plan, config: RunConfig, instances: dict[str, list[str]]
) -> Iterator[str]:
    """What is about to be sent, a line each.

    Args:
        planned: What a run would do.
        config: The run.
        instances: The instances of each operation, by its snake_case name; the last one is empty
            where there are more than are shown.
    """
    yield f"About to send to {_target(planned, config)}:"
    for part in planned.operations:
        api_name = get_operation(part.operation).api_name
        yield f"  {count(part.n_requests, 'request')} of {api_name}"
        where = instances[part.operation]
        more = " and others" if len(where) > _INSTANCES_SHOWN else ""
        noun = "instance" if len(where) == 1 else "instances"
        yield f"    {noun}: {', '.join(where[:_INSTANCES_SHOWN])}{more}"
        yield f"    not sent: {_unsent(part)}"
        yield f"    pace: {part.pace}"
    yield f"  It takes {duration(planned.takes_s)}{_nights(planned)}."
    yield "  Rows that are settled already are not sent again."
    for warning in planned.warnings:
        yield f"  warning: {warning}"


def _target(planned: Plan, config: RunConfig) -> str:
    connection = config.connection
    region = (
        connection.region
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or "of the profile"
    )
    account = planned.account_id or "not known"
    where = connection.endpoint_url or "AWS"
    return f"{where}, account {account}, region {region}"


def _unsent(part: OperationPlan) -> str:
    n_skipped = sum(part.skipped.values())
    unchanged = f", {part.n_unchanged:,} unchanged" if part.n_unchanged else ""
    return f"{count(n_skipped, 'row')} skipped, {part.n_invalid:,} invalid{unchanged}"


def _nights(planned: Plan) -> str:
    if planned.n_nights is None:
        return ""
    ends = f", until {planned.ends_at}" if planned.ends_at else ""
    return f" in {count(planned.n_nights, 'night')}{ends}"


def instances_of(config: RunConfig) -> dict[str, list[str]]:
    """The instances that each operation writes to, by its snake_case name. Blocks.

    One that the mapping names is there at once; those that rows name are read from the rows, up to
    the first one that is not shown any more.
    """
    job = open_job(config)
    found = {name: [instance] for name, instance in constant_instances(job.spec).items()}
    named_by_rows = [each.name for each in job.operations if each.name not in found]
    if not named_by_rows:
        return found
    seen: dict[str, dict[str, None]] = {name: {} for name in named_by_rows}
    for frame in job.mapped_frames():
        for mapped in frame.operations:
            if mapped.operation.name in seen and mapped.to_send.any():
                groups = mapped.instance_groups()
                seen[mapped.operation.name].update(dict.fromkeys(name for name, _ in groups))
        if all(len(names) > _INSTANCES_SHOWN for names in seen.values()):
            break
    return found | {name: list(islice(names, _INSTANCES_SHOWN + 1)) for name, names in seen.items()}
