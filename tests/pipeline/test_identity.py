"""Whose run directory it is, where that is in doubt."""

from __future__ import annotations

import pytest

from bulk_updater.errors import LedgerMismatch
from bulk_updater.pipeline import run
from bulk_updater.sandbox import Sandbox

from .helpers import config_for, fast, people, write_export

pytestmark = pytest.mark.looptime


async def test_a_ledger_that_nobody_described_is_refused(folder):
    """Without its run.json a ledger may be of anything: it is left as it is, nothing is sent."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run")
        await run(config)
        ledger = (folder / "run" / "ledger.jsonl").read_bytes()
        (folder / "run" / "run.json").unlink()
        with pytest.raises(LedgerMismatch, match=r"no run\.json.*--run-dir.*--fresh") as refused:
            await run(config)
        assert sandbox.counters["update_contact_attributes"].received == 3
    assert refused.value.path == folder / "run"
    assert (folder / "run" / "ledger.jsonl").read_bytes() == ledger
    assert not (folder / "run" / "run.json").exists()


async def test_every_fresh_run_keeps_all_the_earlier_ones(folder):
    """Three times --fresh: three ledgers, each with every row, none in another's place."""
    write_export(folder, people(3))
    async with Sandbox(fast()) as sandbox:
        config = config_for(sandbox, folder, run_dir=folder / "run", fresh=True)
        run_ids = [(await run(config)).run_id for _ in range(3)]
        assert sandbox.counters["update_contact_attributes"].received == 9
    kept = [folder / name / "ledger.jsonl" for name in ("run.1", "run.2", "run")]
    assert [path.read_text().count(run_id) for path, run_id in zip(kept, run_ids, strict=True)] == [
        3, 3, 3,
    ]  # fmt: skip
