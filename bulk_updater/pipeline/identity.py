"""Which run a run directory belongs to, and where it is by default.

The default directory is derived from what is run, so that the same command finds it again and
tomorrow's export gets one of its own. What a rehearsal against a local endpoint settled says
nothing about the real contacts, so the two never share a directory. The region is not part of
it: a run that a failover interrupted goes on against the other region.
"""

from __future__ import annotations

import platform
import secrets
import time
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bulk_updater._version import __version__
from bulk_updater.config import is_loopback
from bulk_updater.errors import LedgerMismatch, UsageError
from bulk_updater.ledger import RunDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bulk_updater.config import RunConfig
    from bulk_updater.pipeline.job import Job

__all__ = [
    "bare_url",
    "default_run_dir",
    "enter_run_dir",
    "identity_of",
    "is_local",
    "new_run_id",
    "note_as_begun",
    "read_run",
    "reenter_run_dir",
    "what_changed",
]

_PACKAGES = ("aioboto3", "aiobotocore", "botocore", "pandas", "pyarrow", "tenacity")


def is_local(config: RunConfig) -> bool:
    """Whether the target is on this machine: the sandbox, or an endpoint on loopback."""
    return config.sandbox or is_loopback(config.connection.endpoint_url)


def default_run_dir(config: RunConfig, job: Job) -> Path:
    """`runs/<mapping>/<source>-<fingerprint>`, with `-local` behind it for a local target."""
    name = Path(job.sources[0].source.name).name.split(".")[0] or "source"
    more = f"+{len(job.sources) - 1}" if len(job.sources) > 1 else ""
    local = "-local" if is_local(config) else ""
    return config.runs_dir / config.mapping.stem / f"{name}{more}-{job.fingerprint}{local}"


def bare_url(url: str) -> str:
    """A URL without user, password and query, so that it can be written down."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def new_run_id() -> str:
    """A name for a run: when it began, in UTC, and six hex digits against coincidence."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)


@contextmanager
def enter_run_dir(
    config: RunConfig, job: Job, *, now: Callable[[], float] = time.time
) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """Lock the run directory, make sure that it is this run's, and note what the run is.

    Blocks.

    Args:
        config: The run.
        job: What it is about.
        now: Seconds since the epoch: when the run was begun, unless it was begun before.

    Yields:
        The directory, and what `run.json` holds.

    Raises:
        LedgerLocked: If another run works in it.
        LedgerMismatch: If it belongs to another mapping, other sources or another kind of target.
        LedgerError: If it cannot be used.
    """
    path = config.run_dir or default_run_dir(config, job)
    if path.exists() and (config.fresh or _is_last_nights(config, job, path)):
        _put_aside(path)
    with RunDir.open(path) as run_dir:
        noted = run_dir.read_run_json()
        if noted is None and run_dir.ledger_path.exists():
            raise LedgerMismatch(
                "there is a ledger but no run.json, so nobody knows what it belongs to. Name "
                "another directory with --run-dir, or begin anew with --fresh.",
                path=path,
            )
        if noted is not None:
            _expect_same_run(noted, identity_of(config, job), path)
            _refuse_if_superseded(noted, path)
        before = noted or {}
        note = {
            **before,  # also what others noted: that it mends another run, or took over from one
            "run_id": before.get("run_id") or new_run_id(),
            "began_at": before.get("began_at") or now(),
            **identity_of(config, job),
            "operations": [operation.name for operation in job.operations],
            "rows": job.n_rows,
            "versions": _versions(),
            "configuration": _effective(config),
            "summary": before.get("summary"),
            "pace": before.get("pace", []),
            "in_doubt": before.get("in_doubt", 0),
        }
        note_as_begun(run_dir, note, config)
        yield run_dir, note


@contextmanager
def reenter_run_dir(
    config: RunConfig, job: Job, *, now: Callable[[], float] = time.time
) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """Lock the directory of a run that was there before, as `retry` needs it.

    What is noted stays, the configuration too: it is the run's. Nothing is written before
    `note_as_begun`. Blocks.

    Args:
        config: The run, with its directory.
        job: What it is about.
        now: Seconds since the epoch, for a run that did not note when it was begun.

    Yields:
        The directory, and what `run.json` holds.

    Raises:
        UsageError: If it is no run's directory, or the mapping, a source or the kind of target is
            not what the run had.
        LedgerLocked: If another run works in it.
        LedgerError: If it cannot be used, or another run took over from it.
    """
    path = config.run_dir
    assert path is not None  # noqa: S101 - it is what the command names
    read_run(path)  # before anything is created in it
    with RunDir.open(path) as run_dir:
        noted = read_run(path)
        changed = what_changed(noted, identity_of(config, job))
        if changed:
            raise UsageError(_say_changed(changed, config, path))
        _refuse_if_superseded(noted, path)
        began = {"began_at": now(), "pace": [], "in_doubt": 0}
        yield run_dir, {**began, **noted, "versions": _versions()}


def read_run(path: Path) -> dict[str, Any]:
    """What `run.json` of a run's directory holds. Blocks.

    Raises:
        UsageError: If the path is no run's directory.
        LedgerError: If it cannot be read.
    """
    noted = RunDir(path).read_run_json() if path.is_dir() else None
    if noted is None or not isinstance(noted.get("run_id"), str):
        raise UsageError(
            f"{path}: is no directory of a run: there is no run.json that names one. Nothing was "
            "sent. Name the directory that the run's summary names, in which ledger.jsonl is."
        )
    return noted


def note_as_begun(run_dir: RunDir, note: dict[str, Any], config: RunConfig) -> None:
    """Write `run.json` before the first request. Blocks.

    Until it says something better: if the execution is killed, so many requests are open.

    Raises:
        LedgerWriteError: If it cannot be written.
    """
    run_dir.write_run_json({**note, "in_doubt": note["in_doubt"] + config.max_in_flight})


def _refuse_if_superseded(noted: dict[str, Any], path: Path) -> None:
    by = noted.get("superseded_by")
    if by:
        raise LedgerMismatch(
            f"the run {by.get('run_id')} in {by.get('run_dir')} took over from this one, with a "
            "newer export. Nothing was sent: older rows would undo newer ones. Go on with that "
            "run.",
            path=path,
        )


def _say_changed(changed: list[str], config: RunConfig, path: Path) -> str:
    what = " and the ".join(changed)
    verb = "is" if len(changed) == 1 else "are"
    told = f"{path}: the {what} {verb} not what the run had. Nothing was sent. "
    if changed == ["target"]:
        return told + "Name the run's own with --endpoint-url, or leave that out."
    failed = RunDir(path).failed_path
    return told + (
        f"Put back what it had; or run {failed} with the mapping as it is now, as a run of its "
        f"own: bulk-updater run {config.mapping} {failed}"
    )


def _is_last_nights(config: RunConfig, job: Job, path: Path) -> bool:
    """Whether a run of an equal export has finished, on an earlier night.

    With `--only-changed` the same command is the next night's run: an export may come back to what
    it was, and what failed is to be sent again.
    """
    noted = RunDir(path).read_run_json() if config.changes.only_changed else None
    if noted is None or noted.get("superseded_by"):
        return False
    is_whole = noted.get("rows") == job.n_rows  # or it was one with --limit, which goes on
    is_same = is_whole and not what_changed(noted, identity_of(config, job))
    return is_same and (noted.get("summary") or {}).get("state") == "finished"


def _put_aside(path: Path) -> None:
    """Keep an earlier run's directory under another name; never while a run works in it."""
    with RunDir.open(path):
        number = 1
        while (kept := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        path.rename(kept)


def identity_of(config: RunConfig, job: Job) -> dict[str, Any]:
    """What a run is about, as `run.json` notes it."""
    return {
        "target": "local" if is_local(config) else "aws",
        "mapping": {"path": str(config.mapping), "sha256": job.spec.digest},
        "sources": [
            {"path": part.source.name, "sha256": part.digest, "rows": part.n_rows}
            for part in job.sources
        ],
    }


def _expect_same_run(noted: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
    changed = what_changed(noted, identity)
    if changed or not isinstance(noted.get("run_id"), str):
        what = " and the ".join(changed) or "run id"
        raise LedgerMismatch(
            f"it belongs to another run: the {what} "
            f"{'is' if len(changed) < 2 else 'are'} not the same. Nothing was sent. "  # noqa: PLR2004
            "Leave --run-dir out to have one chosen, name another, or begin anew with --fresh "
            "(what is there is kept).",
            path=path,
        )


def what_changed(noted: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """What is not as the run had it: `mapping`, `source`, `target`."""

    def digests(of: dict[str, Any]) -> list[str]:
        return [source.get("sha256", "") for source in of.get("sources", [])]

    return [
        name
        for name, is_same in (
            ("mapping", noted.get("mapping", {}).get("sha256") == identity["mapping"]["sha256"]),
            ("source", digests(noted) == digests(identity)),
            ("target", noted.get("target") == identity["target"]),
        )
        if not is_same
    ]


def _versions() -> dict[str, str]:
    return {
        "bulk_updater": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def _effective(config: RunConfig) -> dict[str, Any]:
    """The configuration as it was in force, without anything that is secret."""
    effective = asdict(config)
    connection = effective["connection"]
    del connection["access_key"]
    if connection["endpoint_url"]:
        connection["endpoint_url"] = bare_url(connection["endpoint_url"])
    effective["mapping"] = str(config.mapping)
    effective["sources"] = [str(source) for source in config.sources]
    effective["run_dir"] = None if config.run_dir is None else str(config.run_dir)
    effective["runs_dir"] = str(config.runs_dir)
    effective["quota_file"] = None if config.quota_file is None else str(config.quota_file)
    effective["supersede"] = None if config.supersede is None else str(config.supersede)
    effective["mends"] = None if config.mends is None else str(config.mends)
    changes = effective["changes"]
    changes["state_file"] = None if changes["state_file"] is None else str(changes["state_file"])
    del effective["command"]
    return effective
