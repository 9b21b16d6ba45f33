"""The buckets: how many requests get through, counted in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.sandbox import Sandbox, SandboxConfig
from bulk_updater.sandbox.throttle import Bucket

from .helpers import get_json, sdk

ATTRIBUTES = {"InitialContactId": "c", "Attributes": {"a": "1"}}


def bucket(**options) -> Bucket:
    defaults = {"rate_per_s": 10, "burst": 15, "now_s": 0, "live_per_s": 0}
    return Bucket(**(defaults | options), rng=random.Random(1))


async def flood(connect, operation: str, n: int, **members) -> list[str]:
    """Send at once; give the error codes, "" for success, in the order of sending."""

    async def one(instance: int) -> str:
        try:
            await getattr(connect, operation)(InstanceId=f"i{instance % 3}", **members)
        except connect.exceptions.ClientError as error:
            is_429 = error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            said = error.response["Error"]
            return said["Code"] if is_429 and said["Message"] else f"not throttled: {said}"
        return ""

    return list(await asyncio.gather(*(one(n) for n in range(n))))


def test_a_full_bucket_gives_its_burst_and_then_its_rate():
    """15 at once, then one for every tenth of a second, to the request."""
    it = bucket()
    assert sum(it.take(0.0) for _ in range(100)) == 15
    assert [it.take(n / 10) for n in range(1, 101)] == [True] * 100
    assert not it.take(10.0)


def test_a_bucket_never_holds_more_than_its_burst():
    """After an hour of rest it gives its burst and no more."""
    it = bucket()
    assert sum(it.take(3600.0) for _ in range(100)) == 15


def test_a_bucket_that_is_changed_keeps_what_fits():
    """Full at 15, changed to 5 a second and a burst of 3: three at once, then five a second."""
    it = bucket()
    it.change(rate_per_s=5, burst=3, now_s=2.0)
    assert sum(it.take(2.0) for _ in range(100)) == 3
    assert sum(it.take(2.0 + n / 10) for n in range(1, 101)) == 50


def test_what_passed_before_a_change_passed_at_the_old_rate():
    """Emptied, a second at 10 and a second at 2: twelve tokens."""
    it = bucket()
    assert sum(it.take(0.0) for _ in range(100)) == 15
    it.change(rate_per_s=2, burst=15, now_s=1.0)
    assert sum(it.take(2.0) for _ in range(100)) == 12


async def test_a_quota_that_is_changed_is_kept_and_told():
    """Every bucket gives the new burst, and GetServiceQuota the new rate."""
    async with Sandbox(SandboxConfig(latency_ms=0)) as sandbox, sdk(sandbox) as connect:
        sandbox.change_quota(rate_per_s=4, burst=2)
        said = await flood(connect, "update_contact_attributes", 10, **ATTRIBUTES)
        assert said.count("") == 2
        async with sdk(sandbox, "service-quotas") as quotas:
            told = await quotas.get_service_quota(ServiceCode="connect", QuotaCode="L-F001E5ED")
    assert told["Quota"]["Value"] == 4


def test_a_clock_that_goes_back_gives_nothing():
    """Time that passes twice fills the bucket once."""
    it = bucket(burst=1)
    assert it.take(10.0)
    assert [it.take(9.0), it.take(9.9), it.take(10.05), it.take(10.1)] == [False] * 3 + [True]


@given(
    gaps=st.lists(st.floats(0, 3), max_size=60),
    rate_per_s=st.floats(0.1, 100),
    burst=st.floats(1, 50),
)
def test_no_pattern_of_requests_gets_more_than_burst_and_rate(gaps, rate_per_s, burst):
    """Until any moment, at most burst plus rate times time got through."""
    it = bucket(rate_per_s=rate_per_s, burst=burst)
    now_s, taken = 0.0, 0
    for gap in gaps:
        now_s += gap
        taken += it.take(now_s)
        assert taken <= burst + rate_per_s * now_s + 1e-6


def test_live_requests_do_not_depend_on_who_looks():
    """Live traffic is the same however often the bucket is asked, and about as much as told."""
    often, once = bucket(live_per_s=4), bucket(live_per_s=4)
    for n in range(1, 10_001):
        often.catch_up(n / 10)
    once.catch_up(1000.0)
    assert often.live_accepted == once.live_accepted
    assert once.live_refused == often.live_refused == 0
    assert once.live_accepted == pytest.approx(4000, rel=0.05)


def test_live_requests_beyond_the_quota_are_refused():
    """Live traffic of twice the quota gets the quota and the burst, and the rest is counted."""
    it = bucket(live_per_s=20)
    it.catch_up(1000.0)
    assert it.live_accepted == pytest.approx(10_015, abs=15)
    assert it.live_accepted + it.live_refused == pytest.approx(20_000, rel=0.05)
    assert not it.take(1000.0)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("operation", "members", "code"),
    [
        ("update_contact_attributes", ATTRIBUTES, "TooManyRequestsException"),
        ("get_contact_attributes", {"InitialContactId": "c"}, "TooManyRequestsException"),
        ("update_contact", {"ContactId": "c", "Name": "n"}, "ThrottlingException"),
        ("describe_contact", {"ContactId": "c"}, "ThrottlingException"),
    ],
)
async def test_ten_seconds_let_115_requests_through(operation, members, code):
    """At 10 a second with a burst of 15, of 25 a second for 10 s exactly 15 + 100 get through.

    The instance does not matter: the quota is the account's. What is refused is a 429 with the
    operation's own code, and is not applied.
    """
    loop = asyncio.get_running_loop()
    async with Sandbox(SandboxConfig(latency_ms=0)) as sandbox, sdk(sandbox) as connect:
        start_s = loop.time()
        codes = await flood(connect, operation, 25, **members)
        assert codes.count("") == 15
        for n in range(1, 101):
            await asyncio.sleep(start_s + n / 10 + 0.001 - loop.time())
            codes += await flood(connect, operation, 3, **members)
    assert codes.count("") == 115
    assert codes.count(code) == len(codes) - 115 == 210
    counters = sandbox.counters[operation]
    assert (counters.received, counters.accepted, counters.throttled) == (325, 115, 210)
    writes = len(sandbox.state.log)
    assert writes == (115 if operation.startswith("update") else 0)


@pytest.mark.looptime
async def test_each_operation_has_a_bucket_of_its_own():
    """Emptying one operation's bucket leaves the others full, and the quota can be asked for."""
    async with Sandbox(SandboxConfig(latency_ms=0)) as sandbox, sdk(sandbox) as connect:
        codes = await flood(connect, "update_contact_attributes", 40, **ATTRIBUTES)
        assert codes.count("") == 15
        codes = await flood(connect, "update_contact", 40, ContactId="c", Name="n")
        assert codes.count("") == 15
        async with sdk(sandbox, "service-quotas") as quotas:
            for _ in range(40):
                await quotas.get_service_quota(ServiceCode="connect", QuotaCode="L-F001E5ED")


@pytest.mark.looptime
async def test_the_live_contact_centre_drinks_from_the_write_buckets():
    """With 6 live requests a second, a bulk run gets the 4 that are left; reads are not touched."""
    config = SandboxConfig(latency_ms=0, live_per_s=6, seed=7)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        codes: list[str] = []
        for _ in range(500):
            codes += await flood(connect, "update_contact_attributes", 2, **ATTRIBUTES)
            await asyncio.sleep(0.1)
        counters = await get_json(sandbox, "/_sandbox/counters")
    seen = counters["update_contact_attributes"]
    assert seen["accepted"] == codes.count("")
    assert seen["accepted"] + seen["live_accepted"] == pytest.approx(15 + 500, abs=2)
    assert seen["live_accepted"] + seen["live_refused"] == pytest.approx(300, rel=0.2)
    assert counters["update_contact"]["live_accepted"] == pytest.approx(300, rel=0.2)
    assert counters["describe_contact"]["live_accepted"] == 0


@pytest.mark.looptime
async def test_an_invalid_request_pays_its_token():
    """The bucket comes before the rules: a request that is refused for its content has paid."""
    members = {"ContactId": "c", "Name": "x" * 2000}
    async with Sandbox(SandboxConfig(latency_ms=0)) as sandbox, sdk(sandbox) as connect:
        for _ in range(15):
            with pytest.raises(connect.exceptions.InvalidParameterException):
                await connect.update_contact(InstanceId="i", **members)
        with pytest.raises(connect.exceptions.ThrottlingException):
            await connect.update_contact(InstanceId="i", **members)


@pytest.mark.looptime
async def test_latency_is_as_told_in_its_mean_and_its_bounds():
    """Answers take 200 ms on average and never more than half of that longer or shorter."""
    loop = asyncio.get_running_loop()
    config = SandboxConfig(latency_ms=200, latency_jitter=0.5, rate_per_s=1e6, burst=1e6)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        took_s = []
        for _ in range(200):
            start_s = loop.time()
            await connect.update_contact(InstanceId="i", ContactId="c", Name="n")
            took_s.append(loop.time() - start_s)
    assert sum(took_s) / len(took_s) == pytest.approx(0.2, rel=0.1)
    assert 0.1 <= min(took_s) < 0.12
    assert 0.28 < max(took_s) <= 0.301
    for write in sandbox.state.log:
        assert 0.099 <= write.finished_s - write.started_s <= 0.301


@pytest.mark.looptime
async def test_requests_are_worked_on_side_by_side():
    """Fifty slow requests take as long as one, and the log shows that they overlapped."""
    loop = asyncio.get_running_loop()
    config = SandboxConfig(latency_ms=1000, latency_jitter=0, burst=50)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        start_s = loop.time()
        codes = await flood(connect, "update_contact", 50, ContactId="c", Name="n")
        took_s = loop.time() - start_s
    assert codes == [""] * 50
    assert took_s == pytest.approx(1.0, abs=0.1)
    assert sandbox.counters["update_contact"].peak_in_flight == 50
    log = list(sandbox.state.log)
    assert max(write.started_s for write in log) < min(write.finished_s for write in log)
