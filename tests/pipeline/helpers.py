"""Exports, mappings and configurations for whole runs against the sandbox."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from bulk_updater.config import ConnectionConfig, PacingConfig, RunConfig
from bulk_updater.sandbox import Sandbox, SandboxConfig

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"

MAPPING = f"""
source:
  where:
    - {{column: Status, not: open}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    tier: {{column: Tier, default: standard}}
    name: "{{First Name}} {{Last Name}}"
    number: "{{Number}}"
"""

BOTH = (
    MAPPING
    + f"""
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Last Name}}"
"""
)

HEADER = ["Contact", "Status", "Tier", "First Name", "Last Name", "Number"]


def write_export(folder: Path, rows: list[list[str]], name: str = "export.csv") -> Path:
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def people(n_rows: int, first: int = 1) -> list[list[str]]:
    return [
        [f"contact-{row}", "done", "gold", "Ada", f"Nr {row}", f"{row:05d}"]
        for row in range(first, first + n_rows)
    ]


def config_for(sandbox: Sandbox, folder: Path, *sources: Path, **settings) -> RunConfig:
    settings.setdefault("pacing", PacingConfig(rate=1000))
    return RunConfig(
        mapping=settings.pop("mapping", folder / "mapping.yaml"),
        sources=sources or (folder / "export.csv",),
        runs_dir=folder / "runs",
        connection=ConnectionConfig(
            endpoint_url=sandbox.url,
            region="eu-west-1",
            access_key=("sandbox", "sandbox"),
            read_timeout_s=20.0,
        ),
        command="bulk-updater run mapping.yaml export.csv",
        **settings,
    )


def fast(**settings) -> SandboxConfig:
    return SandboxConfig(rate_per_s=100_000, burst=100_000, latency_ms=20, **settings)


def ledger_of(summary) -> list[dict]:
    return [json.loads(line) for line in Path(summary.ledger).read_text().splitlines()]


def attributes(sandbox: Sandbox, contact: str) -> dict[str, str]:
    return dict(sandbox.state.contact(INSTANCE, contact).attributes)
