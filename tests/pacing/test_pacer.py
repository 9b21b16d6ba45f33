"""The pace of a run, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import PacingConfig
from bulk_updater.model import FoundQuota, Quota, QuotaOrigin
from bulk_updater.pacing import Controller, Pacer, Start
from bulk_updater.pacing.tokens import depth
from tests.pacing.by_hand import Service

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTES = "update_contact_attributes"
CONTACT = "update_contact"
DOCUMENTED = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def pacer_of(*operations: str, **config: object) -> Pacer:
    """A pacer for one operation, or those that are named, at the documented quota."""
    names = operations or (ATTRIBUTES,)
    return Pacer(PacingConfig(**config), dict.fromkeys(names, DOCUMENTED))  # type: ignore[arg-type]


async def take(pacer: Pacer, n: int, operation: str = ATTRIBUTES) -> list[float]:
    starts = [await pacer.acquire(operation) for _ in range(n)]
    return [start.at_s for start in starts]


async def settle() -> None:
    """Lets every task that can run do so, without any time passing."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.looptime
async def test_default_pace():
    """By default an operation starts 8 a second, four fifths of the quota, and 2 at once."""
    pacer = pacer_of()
    at_s = await take(pacer, 82)
    assert at_s.count(0.0) == 2
    assert at_s[-1] == pytest.approx(10.0, abs=1e-3)
    assert pacer.ceiling_per_s(ATTRIBUTES) == 8.0


@pytest.mark.looptime
async def test_named_pace():
    """A rate that somebody named is kept from the first second on."""
    at_s = await take(pacer_of(rate=10.0), 102)
    assert sum(at <= 1.0 for at in at_s) <= 12
    assert at_s[-1] == pytest.approx(10.0, abs=1e-3)


@pytest.mark.looptime
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("rate_per_s", [0.1, 8.0, 100.0, 1000.0])
async def test_nothing_but_the_wait(rate_per_s: float, *, exclusive: bool):
    """Nothing is added to the bucket's wait: n requests take (n - depth) / rate seconds, whether
    they ask one after the other or all at once, and whatever is accepted meanwhile."""
    n = round(depth(rate_per_s)) + 200

    async def one(pacer: Pacer) -> None:
        pacer.accepted(ATTRIBUTES, await pacer.acquire(ATTRIBUTES))

    for at_once in (False, True):
        pacer, began_s = pacer_of(rate=rate_per_s, exclusive=exclusive), loop_time()
        if at_once:
            await asyncio.gather(*(one(pacer) for _ in range(n)))
        else:
            for _ in range(n):
                await one(pacer)
        assert loop_time() - began_s == pytest.approx(200 / rate_per_s, rel=1e-3, abs=1e-3)


@pytest.mark.looptime
async def test_starts_are_numbered():
    """A start knows its time and its number, counted for each operation by itself."""
    pacer = pacer_of(ATTRIBUTES, CONTACT)
    starts = [await pacer.acquire(ATTRIBUTES) for _ in range(3)]
    assert [start.number for start in starts] == [0, 1, 2]
    assert [start.at_s for start in starts] == pytest.approx([0.0, 0.0, 0.125], abs=1e-3)
    assert (await pacer.acquire(CONTACT)).number == 0


@pytest.mark.looptime
async def test_cancelled_is_not_started():
    """Who is cancelled while he waits is neither numbered nor recorded."""
    pacer = pacer_of(rate=1.0)
    await take(pacer, 2)
    waiting = asyncio.create_task(pacer.acquire(ATTRIBUTES))
    await settle()
    waiting.cancel()
    await asyncio.sleep(5)
    assert (await pacer.acquire(ATTRIBUTES)).number == 2
    assert sum(pacer.series()[0]["started"]) == 3


@pytest.mark.looptime
async def test_operations_have_buckets_of_their_own():
    """Two operations run side by side; throttling one leaves the other as it is."""
    pacer = pacer_of(ATTRIBUTES, CONTACT)
    pacer.throttled(ATTRIBUTES, await pacer.acquire(ATTRIBUTES), retry_after_s=60.0)
    at_s = await take(pacer, 42, CONTACT)
    assert at_s[-1] == pytest.approx(5.0, abs=1e-3)
    assert (pacer.rate_per_s(CONTACT), pacer.rate_per_s(ATTRIBUTES)) == (8.0, 4.0)
    assert pacer.allowed_per_s() == 12.0


@pytest.mark.looptime
async def test_operations_have_quotas_of_their_own():
    """Each operation's pace comes from its own quota."""
    quotas = {ATTRIBUTES: DOCUMENTED, CONTACT: Quota(rate_per_s=5.0, origin=QuotaOrigin.APPLIED)}
    pacer = Pacer(PacingConfig(), quotas)
    assert (pacer.ceiling_per_s(ATTRIBUTES), pacer.ceiling_per_s(CONTACT)) == (8.0, 4.0)
    assert pacer.allowed_per_s() == 12.0


@pytest.mark.looptime
@pytest.mark.parametrize("config", [{}, {"rate": "auto"}, {"rate": "auto", "exclusive": True}])
async def test_retry_after_holds_for_everybody(config: dict[str, object]):
    """Nobody comes back before the service said, whether throttled himself or not."""
    pacer = pacer_of(**config)
    at_s: list[float] = []

    async def ask(*, front: bool) -> None:
        at_s.append((await pacer.acquire(ATTRIBUTES, front=front)).at_s)

    first = await pacer.acquire(ATTRIBUTES)
    waiting = [asyncio.create_task(ask(front=n % 2 == 0)) for n in range(30)]
    await settle()
    n_before = len(at_s)
    pacer.throttled(ATTRIBUTES, first, retry_after_s=45.0)
    await asyncio.gather(*waiting)
    assert n_before == 1
    assert min(at_s[1:]) >= 45.0


@pytest.mark.looptime
async def test_the_longest_retry_after_holds():
    """Of several, also in one volley, the latest moment holds; no later word undercuts it."""
    pacer = pacer_of()
    starts = [await pacer.acquire(ATTRIBUTES) for _ in range(2)]
    starts.append(await pacer.acquire(ATTRIBUTES))
    for start, retry_after_s in zip(starts, (5.0, 40.0, 10.0), strict=True):
        pacer.throttled(ATTRIBUTES, start, retry_after_s)
    waiting = asyncio.create_task(pacer.acquire(ATTRIBUTES))
    await asyncio.sleep(20)
    pacer.throttled(ATTRIBUTES, starts[0])  # one that says nothing about when
    pacer.throttled(ATTRIBUTES, starts[0], 1.0)
    pacer.accepted(ATTRIBUTES, starts[0])  # nor does an acceptance open it
    assert (await waiting).at_s >= 40.0


@pytest.mark.looptime
async def test_throttling_empties_the_bucket():
    """The burst that is left is not spent against a service that has just said no."""
    pacer = pacer_of()
    pacer.throttled(ATTRIBUTES, await pacer.acquire(ATTRIBUTES))
    again = await pacer.acquire(ATTRIBUTES)
    assert again.at_s == pytest.approx(1 / 4, abs=1e-3)


@pytest.mark.looptime
async def test_throttling_slows_those_who_wait():
    """Who already waits when the pace falls waits as long as the new pace says."""
    pacer = pacer_of()
    starts = [await pacer.acquire(ATTRIBUTES) for _ in range(2)]
    waiting = asyncio.create_task(take(pacer, 3))
    await asyncio.sleep(0.1)
    pacer.throttled(ATTRIBUTES, starts[0])
    assert await waiting == pytest.approx([0.35, 0.6, 0.85], abs=1e-3)


@pytest.mark.looptime
async def test_acceptances_bring_the_pace_back():
    """After a throttled answer, acceptances alone bring the bucket itself nearly back within half
    a minute; without them it stays where it is."""
    pacer = pacer_of()
    pacer.throttled(ATTRIBUTES, await pacer.acquire(ATTRIBUTES))
    await asyncio.sleep(100)
    assert pacer.rate_per_s(ATTRIBUTES) == 4.0
    began_s = loop_time()
    while pacer.rate_per_s(ATTRIBUTES) < 7.2:
        pacer.accepted(ATTRIBUTES, await pacer.acquire(ATTRIBUTES))
    assert 5 <= loop_time() - began_s <= 20


@pytest.mark.looptime
async def test_finds_the_quota():
    """With `auto` and nobody else about, the run ends up at the quota, and knows it."""
    pacer, service = pacer_of(rate="auto", exclusive=True), Service(25.0)
    at_s: list[float] = []
    assert pacer.ceiling_per_s(ATTRIBUTES) is None
    while loop_time() < 80:
        start = await pacer.acquire(ATTRIBUTES)
        if service.takes(start.at_s):
            at_s.append(start.at_s)
            pacer.accepted(ATTRIBUTES, start)
        else:
            pacer.throttled(ATTRIBUTES, start)
    assert sum(at > 40 for at in at_s) >= 0.98 * 40 * 25
    found = pacer.found(ATTRIBUTES)
    assert found is not None
    assert found.rate_per_s == pytest.approx(25.0, rel=0.01)


@pytest.mark.looptime
async def test_started_per_second():
    """What is shown is what was started in the last ten seconds, over all operations."""
    pacer = pacer_of(ATTRIBUTES, CONTACT, rate=10.0)
    assert pacer.started_per_s() == 0.0
    await asyncio.gather(take(pacer, 300, ATTRIBUTES), take(pacer, 300, CONTACT))
    assert pacer.started_per_s() == pytest.approx(20.0, rel=0.05)
    await asyncio.sleep(5)
    assert pacer.started_per_s() == pytest.approx(10.0, rel=0.2)
    await asyncio.sleep(6)
    assert pacer.started_per_s() == 0.0


@pytest.mark.looptime
async def test_the_pace_of_one_operation_leaves_the_other_out():
    """Allowed and started per second of one of two operations, each at 10 a second."""
    pacer = pacer_of(ATTRIBUTES, CONTACT, rate=10.0)
    await asyncio.gather(take(pacer, 300, ATTRIBUTES), take(pacer, 100, CONTACT))
    assert (pacer.allowed_per_s([CONTACT]), pacer.allowed_per_s()) == (10.0, 20.0)
    assert pacer.started_per_s([ATTRIBUTES]) == pytest.approx(10.0, rel=0.05)
    assert pacer.started_per_s([CONTACT]) == 0.0  # it ended twenty seconds ago


@pytest.mark.looptime
async def test_series():
    """Each operation's record counts its own starts and refusals, by the second."""
    pacer = pacer_of(ATTRIBUTES, CONTACT, rate=10.0)
    starts = [await pacer.acquire(ATTRIBUTES) for _ in range(22)]
    for start in starts[:3]:
        pacer.throttled(ATTRIBUTES, start)
    attributes, contact = pacer.series()
    assert (attributes["operation"], contact["operation"]) == (ATTRIBUTES, CONTACT)
    assert sum(attributes["started"]) == 22
    assert attributes["throttled"][-1] == sum(attributes["throttled"]) == 3
    assert (attributes["allowed_per_s"][0], attributes["allowed_per_s"][-1]) == (10.0, 5.0)
    assert contact["started"] == []


class Deciding:
    """A controller that does as it is told."""

    def __init__(self, rate_per_s: float) -> None:
        self.rate = rate_per_s
        self.debt: float | None = 0.0
        self.heard: list[tuple[object, ...]] = []

    def started(self, start: Start) -> None:
        self.heard.append(("started", start))

    def accepted(self, start: Start, now_s: float) -> None:
        self.heard.append(("accepted", start.number, now_s))

    def throttled(self, start: Start, now_s: float) -> float | None:
        self.heard.append(("throttled", start.number, now_s))
        return self.debt

    def rate_per_s(self, now_s: float) -> float:
        assert now_s >= 0
        return self.rate

    def held(self, limit_per_s: float, now_s: float) -> None:
        self.heard.append(("held", limit_per_s, now_s))

    def found(self) -> FoundQuota | None:
        return FoundQuota(rate_per_s=self.rate)


def deciding(rate_per_s: float) -> tuple[Pacer, Deciding]:
    controller = Deciding(rate_per_s)
    choose: Callable[[PacingConfig, Quota, float], Controller] = lambda *_: controller  # noqa: E731
    return Pacer(PacingConfig(), {ATTRIBUTES: DOCUMENTED}, choose=choose), controller


@pytest.mark.looptime
async def test_another_controller_takes_the_seam():
    """Whatever `choose` makes hears starts and answers with their time, and sets the rate."""
    pacer, controller = deciding(4.0)
    assert pacer.rate_per_s(ATTRIBUTES) == 4.0
    first, second = [await pacer.acquire(ATTRIBUTES) for _ in range(2)]
    await asyncio.sleep(2)
    controller.rate = 3.0
    pacer.accepted(ATTRIBUTES, second)
    assert pacer.rate_per_s(ATTRIBUTES) == 3.0
    controller.rate = 1.0
    pacer.throttled(ATTRIBUTES, first)
    assert pacer.rate_per_s(ATTRIBUTES) == 1.0
    assert pacer.found(ATTRIBUTES) == FoundQuota(rate_per_s=1.0)
    assert controller.heard == [
        ("started", Start(0.0, 0)),
        ("started", Start(0.0, 1)),
        ("accepted", 1, 2.0),
        ("throttled", 0, 2.0),
    ]


@pytest.mark.looptime
async def test_what_throttling_costs():
    """The bucket is emptied, and goes without as many tokens as the controller says; an answer
    that is no news leaves it as it is."""
    pacer, controller = deciding(4.0)
    for debt, wait_s in ((0.0, 0.25), (3.0, 1.0), (None, 0.0)):
        await asyncio.sleep(100)  # full again
        controller.debt = debt
        first, began_s = await pacer.acquire(ATTRIBUTES), loop_time()
        pacer.throttled(ATTRIBUTES, first)
        again = await pacer.acquire(ATTRIBUTES)
        assert again.at_s - began_s == pytest.approx(wait_s, abs=1e-3)


@pytest.mark.looptime
async def test_a_retry_after_that_is_no_news():
    """Where a volley is no news to the controller, what the service asks to wait still holds."""
    pacer, controller = deciding(4.0)
    controller.debt = None
    pacer.throttled(ATTRIBUTES, await pacer.acquire(ATTRIBUTES), 30.0)
    assert (await pacer.acquire(ATTRIBUTES)).at_s >= 30.0


@pytest.mark.looptime
async def test_a_rising_rate_wakes_those_who_wait():
    """Who waits at a slow rate goes at the faster one as soon as that is known."""
    pacer, controller = deciding(0.01)
    first = (await pacer.acquire(ATTRIBUTES), await pacer.acquire(ATTRIBUTES))[0]
    waiting = asyncio.create_task(pacer.acquire(ATTRIBUTES))
    await asyncio.sleep(1)
    controller.rate = 10.0
    pacer.accepted(ATTRIBUTES, first)
    assert (await waiting).at_s == pytest.approx(1.099, abs=1e-3)
