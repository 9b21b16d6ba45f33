"""`--only-changed`: what is asked for, joined to what is remembered and to what an export says."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bulk_updater.errors import ConfigError, RunStopped, SourceError, UsageError
from bulk_updater.model import Outcome
from bulk_updater.pipeline.deciding import Gathering, Recall, decide
from bulk_updater.pipeline.identity import bare_url, is_local
from bulk_updater.pipeline.work import frames_as_counted
from bulk_updater.state import State
from bulk_updater.words import count, percent

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from bulk_updater.config import ChangesConfig, RunConfig
    from bulk_updater.ledger import SettledRows
    from bulk_updater.pipeline.deciding import Decisions, Evidence
    from bulk_updater.pipeline.job import Job
    from bulk_updater.pipeline.quotas import KnownQuotas

__all__ = [
    "Owner",
    "decide_job",
    "describe",
    "held_for_older",
    "owner_of",
    "recall_of",
    "refuse_if_too_much",
    "state_file",
]


def state_file(config: RunConfig) -> Path:
    """What was last applied is kept in it: `--state`, or `state.sqlite` beside the runs."""
    return config.changes.state_file or config.runs_dir / "state.sqlite"


@contextmanager
def held_for_older(path: Path, noted: dict[str, Any], run_dir: Path) -> Iterator[State | None]:
    """Hold what is remembered while rows of an earlier run are sent. Blocks.

    A night that was under way meanwhile would not know of them, and one that has begun since that
    run stands.

    Args:
        path: The state file.
        noted: What `run.json` of that run holds.
        run_dir: Its directory, for a message.

    Yields:
        The state; None where nothing is remembered.

    Raises:
        StateError: Another run has it, or it cannot be used.
        UsageError: A newer run of the same mapping has begun.
    """
    if not State.is_kept(path):
        yield None
        return
    with State.open(path) as state:
        if state.newest_run_of(Path(noted["mapping"]["path"]).stem) > noted["began_at"]:
            raise UsageError(
                f"{run_dir}: a newer run has begun since. It sends what failed here, changed or "
                "not, and older rows might undo newer ones. Nothing was sent. Retry that run, or "
                "mend its failed.csv."
            )
        yield state


class Owner(NamedTuple):
    """Whose contacts a run writes to, as the state names it.

    Attributes:
        account: The AWS account's number, or `local`; None where nobody says it.
        region: The AWS region, or the endpoint; None likewise.
    """

    account: str | None
    region: str | None


def owner_of(config: RunConfig, known: KnownQuotas) -> Owner:
    """Whose contacts a run writes to."""
    if config.sandbox:
        # Its contacts end with it, but a second rehearsal is to show what a second night does.
        return Owner("local", "sandbox")
    if is_local(config):
        return Owner("local", bare_url(config.connection.endpoint_url or ""))
    return Owner(known.account_id, known.region)


def recall_of(
    config: RunConfig, state: State, known: KnownQuotas, *, began_at: float, now: float
) -> Recall:
    """How a run looks at what is remembered.

    Args:
        config: The run.
        state: What is remembered.
        known: Whose account it is.
        began_at: When the run was begun, in seconds since the epoch.
        now: The time now, likewise.

    Raises:
        ConfigError: If nobody says which account it is.
    """
    account, region = owner_of(config, known)
    if account is None or region is None:
        raise ConfigError(
            "--only-changed remembers what was applied by the AWS account, and neither Service "
            "Quotas nor STS said which one it is. Nothing was sent. Allow "
            "servicequotas:GetServiceQuota or sts:GetCallerIdentity and see that one of them can "
            "be reached, or leave --only-changed out."
        )
    refresh_s = config.changes.refresh_s
    return Recall(
        state=state,
        account=account,
        region=region,
        job=config.mapping.stem,
        began_at=began_at,
        fresh_from=0.0 if refresh_s is None else now - refresh_s,
    )


def decide_job(
    job: Job,
    settled: SettledRows,
    *,
    recall: Recall | None,
    evidence: Sequence[Evidence] = (),
    stop: threading.Event,
) -> Decisions:
    """Read and map every row, and decide which need not be sent. Blocks.

    Raises:
        SourceError: A source turns out to be damaged, or `stop` was set.
        RunStopped: A source is not what it was when it was counted.
        StateError: What is remembered cannot be read.
    """
    gathering = Gathering()
    for frame in frames_as_counted(job):
        if stop.is_set():
            raise SourceError("reading it was given up.", source=frame.frame.source)
        gathering.add(frame)
    return decide(
        gathering,
        settled,
        n_rows=job.n_rows,
        operations=[operation.name for operation in job.operations],
        recall=recall,
        evidence=evidence,
    )


def describe(decisions: Decisions) -> Iterator[str]:
    """What was decided of the rows that are left, a sentence a line."""
    left = decisions.left
    parts = [f"{count(left[Outcome.UNCHANGED], 'row is', 'rows are')} unchanged"]
    if left[Outcome.SUPERSEDED]:
        parts.append(f"{left[Outcome.SUPERSEDED]:,} superseded by a newer run")
    parts.append(f"{left[None]:,} to send")
    yield f"Of {count(sum(left.values()), 'row')} that can be sent, {', '.join(parts)}."


def refuse_if_too_much(decisions: Decisions, changes: ChangesConfig) -> None:
    """`--max-change`: see to it that a broken export overwrites nothing.

    Where nothing is remembered yet, nothing can be compared, and nothing is refused.

    Raises:
        RunStopped: More of the export would change than is allowed.
    """
    limit = changes.max_change
    if limit is None or not decisions.n_remembered or decisions.share_of_change <= limit:
        return
    raise RunStopped(
        f"{decisions.n_changed:,} rows would change a contact and {decisions.n_new:,} are of "
        f"contacts that nothing is remembered of, {percent(decisions.share_of_change)} of the "
        f"export, and --max-change allows {percent(limit)}. Nothing was sent. Look at the export; "
        "if it is right, give the command with a larger --max-change."
    )
