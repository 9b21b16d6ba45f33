"""Whose word on a quota is taken, and under which names what was found is kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bulk_updater.config import ConnectionConfig, PacingConfig, RunConfig
from bulk_updater.connect import AppliedQuotas
from bulk_updater.model import FoundQuota, Quota, QuotaOrigin
from bulk_updater.operations import iter_operations
from bulk_updater.pipeline.quotas import find_quotas, keep_found

ATTRIBUTES, CONTACT = "update_contact_attributes", "update_contact"
OPERATIONS = tuple(iter_operations())
FOUND = {ATTRIBUTES: FoundQuota(rate_per_s=19.123456789, burst=30.0)}
NOW = 1_790_000_000.0


def config_for(folder: Path, *, rate="auto", endpoint_url=None, **settings) -> RunConfig:
    return RunConfig(
        mapping=Path("mapping.yaml"),
        sources=(Path("export.csv"),),
        runs_dir=folder,
        pacing=PacingConfig(rate=rate),
        connection=ConnectionConfig(endpoint_url=endpoint_url),
        **settings,
    )


def says(rates=None, account="123456789012", unread=None, region="eu-west-2"):
    """A Service Quotas that answers so, and counts how often it is asked."""

    async def read(operations):
        read.asked.append([operation.name for operation in operations])
        return AppliedQuotas(rates or {}, account, unread, region)

    read.asked = []
    return read


async def find(config, read, now=lambda: NOW):
    return await find_quotas(config, OPERATIONS, read, now=now)


async def learn(config, read, found=FOUND, now=lambda: NOW):
    """A run that finds something and ends."""
    known = await find(config, read, now)
    async with keep_found(known.kept, lambda: found, now=now):
        pass


def entries(folder: Path) -> list[tuple[str, str, str, float]]:
    path = folder / "quotas.json"
    kept = json.loads(path.read_text())["quotas"] if path.exists() else []
    return [(e["account"], e["region"], e["operation"], e["rate_per_s"]) for e in kept]


async def test_each_operation_has_the_word_of_whoever_knows_most(tmp_path):
    """One quota is applied, the other is documented, with the reason; all is asked at once."""
    read = says({CONTACT: 7.0}, unread="the role lacks it")
    known = await find(config_for(tmp_path, rate="quota"), read)
    assert known.quotas == {
        ATTRIBUTES: Quota(
            rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED, unread="the role lacks it"
        ),
        CONTACT: Quota(rate_per_s=7.0, origin=QuotaOrigin.APPLIED),
    }
    assert known.account_id == "123456789012"
    assert read.asked == [[ATTRIBUTES, CONTACT]]


async def test_what_was_learnt_comes_first_for_the_operation_that_it_is_of(tmp_path):
    """Under `auto` one operation begins from what was found, the other from its quota."""
    config, read = config_for(tmp_path), says({ATTRIBUTES: 20.0, CONTACT: 7.0})
    await learn(config, read)
    known = await find(config, read)
    assert known.quotas == {
        ATTRIBUTES: Quota(rate_per_s=19.1235, origin=QuotaOrigin.LEARNT),
        CONTACT: Quota(rate_per_s=7.0, origin=QuotaOrigin.APPLIED),
    }


async def test_what_is_kept_is_of_an_account_and_a_region(tmp_path):
    """Another account or region begins from its own quota."""
    config = config_for(tmp_path)
    await learn(config, says())
    assert entries(tmp_path) == [("123456789012", "eu-west-2", ATTRIBUTES, 19.1235)]
    for read in (says(account="210987654321"), says(region="us-east-1")):
        known = await find(config, read)
        assert known.quotas[ATTRIBUTES].origin is QuotaOrigin.DOCUMENTED


async def test_an_endpoint_on_this_machine_is_never_taken_for_aws(tmp_path):
    """It goes by its URL, without what stands before the host, whatever account it claims."""
    local = config_for(tmp_path, endpoint_url="http://user:SECRET@127.0.0.1:8080")
    await learn(local, says())
    assert entries(tmp_path) == [("local", "http://127.0.0.1:8080", ATTRIBUTES, 19.1235)]
    assert (await find(local, says())).account_id is None
    assert (await find(config_for(tmp_path), says())).quotas[ATTRIBUTES].rate_per_s == 10.0
    other = config_for(tmp_path, endpoint_url="http://127.0.0.1:8081")
    assert (await find(other, says())).quotas[ATTRIBUTES].rate_per_s == 10.0


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({}, says(account=None)),
        ({}, says(region=None)),
        ({"rate": 5.0}, says()),
        ({"sandbox": True, "endpoint_url": "http://127.0.0.1:8080"}, says()),
    ],
)
async def test_nothing_is_kept_of_nobody_s_account(tmp_path, settings, read):
    """Unknown account or region, a rate that was named, a rehearsal: no file."""
    await learn(config_for(tmp_path, **settings), read)
    assert list(tmp_path.iterdir()) == []


async def test_a_rate_that_was_named_asks_nobody(tmp_path):
    """No call is made only to know the account."""
    read = says()
    known = await find(config_for(tmp_path, rate=5.0), read)
    assert read.asked == []
    assert known.quotas[CONTACT].unread == "--rate says how fast, so nobody was asked"


async def test_nothing_found_is_nothing_kept(tmp_path):
    """A run that learnt nothing makes no file."""
    await learn(config_for(tmp_path), says(), found={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.looptime
async def test_it_is_saved_once_a_minute_and_at_the_end(tmp_path):
    """What is certain by then; at the end also where the run failed."""
    known = await find(config_for(tmp_path), says())
    found: dict[str, FoundQuota] = {}
    with pytest.raises(RuntimeError):  # noqa: PT012 - what stands there while it goes on
        async with keep_found(known.kept, lambda: found, now=lambda: NOW):
            await asyncio.sleep(65)
            assert entries(tmp_path) == []
            found[CONTACT] = FoundQuota(rate_per_s=5.0)
            await asyncio.sleep(50)
            assert entries(tmp_path) == []
            await asyncio.sleep(10)
            assert [rate for *_, rate in entries(tmp_path)] == [5.0]
            found[CONTACT] = FoundQuota(rate_per_s=6.0)
            raise RuntimeError
    assert [rate for *_, rate in entries(tmp_path)] == [6.0]


async def test_the_file_is_where_the_flag_says(tmp_path):
    """`--quota-file`, or else beside the runs."""
    config = replace(config_for(tmp_path / "runs"), quota_file=tmp_path / "kept" / "q.json")
    await learn(config, says())
    assert (tmp_path / "kept" / "q.json").exists()
    assert not (tmp_path / "runs").exists()
