"""Nothing is left to a chance that cannot be had again. No SDK: requests are signed by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from datetime import UTC, datetime

import pytest

from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.sandbox.signing import Scope, WireRequest, sign

from .helpers import send_raw

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CONFIG = SandboxConfig(
    rate_per_s=4,
    burst=3,
    live_per_s=5,
    error_share=0.1,
    drop_before_share=0.1,
    drop_after_share=0.1,
    conflict_share=0.1,
    html_share=0.1,
)


def signed(request: WireRequest) -> dict[str, str]:
    scope = Scope("20260301", "us-east-1", "connect")
    timestamp = "20260301T080000Z"
    headers = {"Host": "sandbox", "X-Amz-Date": timestamp}
    signature = sign(
        WireRequest(request.method, request.path, "", list(headers.items()), request.body),
        secret_key="sandbox",
        scope=scope,
        timestamp=timestamp,
        signed_headers="host;x-amz-date",
    )
    return headers | {
        "Content-Length": str(len(request.body)),
        "Authorization": f"AWS4-HMAC-SHA256 Credential=sandbox/{scope}, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}",
    }


def requests(seed: int, n: int) -> list[tuple[WireRequest, float]]:
    """Requests of all operations, right and wrong, and the seconds to wait before each."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        contact = rng.choice(["a", "b", "c%2Fd", "missing"])
        text = "x" * rng.choice([1, 10, 900, 20_000])
        made.append(
            (
                rng.choice(
                    [
                        WireRequest("GET", f"/contacts/i/{contact}", "", [], b""),
                        WireRequest("GET", f"/contact/attributes/i/{contact}", "", [], b""),
                        WireRequest(
                            "POST",
                            f"/contacts/i/{contact}",
                            "",
                            [],
                            json.dumps({"Name": text}).encode(),
                        ),
                        WireRequest(
                            "POST",
                            "/contact/attributes",
                            "",
                            [],
                            json.dumps(
                                {
                                    "InstanceId": "i",
                                    "InitialContactId": contact,
                                    "Attributes": {rng.choice("xyz"): text},
                                }
                            ).encode(),
                        ),
                    ]
                ),
                rng.choice([0.0, 0.0, 0.02, 0.5]),
            )
        )
    return made


async def replay(seed: int, made: list[tuple[WireRequest, float]], *, at_once: bool) -> list:
    """All answers, in the order of the requests, and what is stored and counted in the end."""

    async def one(sandbox, request, wait_s):
        await asyncio.sleep(wait_s)
        try:
            answer = await send_raw(
                sandbox, request.method, request.path, signed(request), request.body
            )
        except ConnectionError:
            return "dropped"
        return answer.status, sorted(answer.headers.items()), answer.body

    config = dataclasses.replace(CONFIG, seed=seed)
    async with Sandbox(config, now=lambda: AT) as sandbox:
        if at_once:
            # Apart by moments, so that they arrive in one order; they overlap all the same.
            tasks = [
                asyncio.create_task(one(sandbox, request, n / 1000))
                for n, (request, _) in enumerate(made)
            ]
            answers = list(await asyncio.gather(*tasks))
        else:
            answers = [await one(sandbox, request, wait_s) for request, wait_s in made]
    counters = {name: each.to_json() for name, each in sandbox.counters.items()}
    writes = [(write.seq, write.request_id) for write in sandbox.state.log]
    return [*answers, counters, writes, sandbox.state.to_json()]


@pytest.mark.looptime
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_same_seed_and_requests_give_the_same_answers(seed, at_once):
    """Two sandboxes with one seed answer the same requests alike: status, headers, ids, bodies,
    faults, throttling, live traffic, and what is stored in the end."""
    made = requests(seed, 120)
    first = await replay(seed, made, at_once=at_once)
    second = await replay(seed, made, at_once=at_once)
    assert first == second
    assert "dropped" in first
    statuses = {answer[0] for answer in first[:120] if answer != "dropped"}
    assert {200, 404, 429, 500} <= statuses


@pytest.mark.looptime
async def test_another_seed_gives_other_answers():
    """The seed matters: another one lets other requests fail."""
    made = requests(1, 60)
    assert await replay(1, made, at_once=False) != await replay(2, made, at_once=False)


async def test_ids_and_chance_can_be_given():
    """Request ids and chance are arguments."""
    ids = iter(["id-1", "id-2", "id-3"])
    config = SandboxConfig(latency_ms=0, error_share=0.5)
    sandbox = Sandbox(config, now=lambda: AT, rng=random.Random(5), request_ids=lambda: next(ids))
    request = WireRequest("GET", "/contacts/i/c", "", [], b"")
    async with sandbox:
        answers = [await send_raw(sandbox, "GET", request.path, signed(request)) for _ in "123"]
    assert [answer.headers["x-amzn-requestid"] for answer in answers] == ["id-1", "id-2", "id-3"]


async def test_the_clock_of_the_buckets_can_be_given():
    """The buckets and the log go by the clock that was given."""
    time_s = 100.0
    request = WireRequest("POST", "/contacts/i/c", "", [], b'{"Name":"n"}')
    config = SandboxConfig(latency_ms=0, burst=1, rate_per_s=1)
    statuses = []
    async with Sandbox(config, now=lambda: AT, clock=lambda: time_s) as sandbox:
        for _ in range(6):
            answer = await send_raw(sandbox, "POST", request.path, signed(request), request.body)
            statuses.append(answer.status)
            time_s += 0.5
    assert statuses == [200, 429, 200, 429, 200, 429]
    assert [write.finished_s for write in sandbox.state.log] == [100.0, 101.0, 102.0]
