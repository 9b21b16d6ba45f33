"""Reading unchanged contacts back: who is drawn, what differs, what never stops a run."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bulk_updater.config import PacingConfig, RetryConfig
from bulk_updater.connect import READ_ATTRIBUTES, open_connect
from bulk_updater.errors import (
    AccessError,
    RequestRejected,
    SendError,
    Throttled,
    TransientError,
)
from bulk_updater.keys import contact_key, contact_keys
from bulk_updater.pacing import Pacer
from bulk_updater.pipeline.drift import (
    READ_QUOTA,
    READS_IN_FLIGHT,
    Drift,
    DriftCheck,
    DriftCounts,
    DriftKind,
    DriftReader,
)
from bulk_updater.sandbox import Sandbox

from .fakes import INSTANCE, attributes_request
from .helpers import config_for, fast

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.model import Request

pytestmark = pytest.mark.looptime

PLANTED = "Planted-Cell-7f3a"


@dataclass
class FakeReads:
    """Tells what is stored, or raises what `script` returns; notes each attempt and its time."""

    stored: dict[str, dict[str, str]] = field(default_factory=dict)
    script: Callable[[str], SendError | None] = lambda _contact_id: None
    latency_s: float = 0.1
    calls: list[str] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    open_now: int = 0
    peak: int = 0

    async def read(self, instance_id: str, contact_id: str) -> dict[str, str]:
        assert instance_id == INSTANCE
        self.calls.append(contact_id)
        self.at_s.append(asyncio.get_running_loop().time())
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        try:
            await asyncio.sleep(self.latency_s)
            error = self.script(contact_id)
            if error is not None:
                raise error
            return self.stored.get(contact_id, {})
        finally:
            self.open_now -= 1


def check_of(reads: FakeReads, **settings: Any) -> DriftCheck:
    rate = settings.pop("rate", 1_000_000.0)
    return DriftCheck(
        reads.read,
        pacer=Pacer(PacingConfig(rate=rate), {READ_ATTRIBUTES: READ_QUOTA}),
        retry=RetryConfig(max_attempts=3),
        rng=random.Random(7),
        now=lambda: 1e9 + asyncio.get_running_loop().time(),
        **{"share": 1.0, "run_id": "20260301T080000Z-abcdef", **settings},
    )


@dataclass
class Feeding:
    """What a reader handed on, in which order, and in which task."""

    sent: list[Request] = field(default_factory=list)
    kept: list[tuple[int, Drift]] = field(default_factory=list)
    tasks: set[Any] = field(default_factory=set)
    halted: bool = False

    async def drifted(self, request: Request) -> None:
        self.tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        self.sent.append(request)

    async def unchanged(self, request: Request, drift: Drift) -> None:
        self.tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        self.kept.append((request.row, drift))

    def reader(self, check: DriftCheck, **settings: Any) -> DriftReader:
        return DriftReader(
            check,
            drifted=self.drifted,
            unchanged=self.unchanged,
            is_halted=lambda: self.halted,
            **settings,
        )


DENIED = AccessError("The credentials may not.", code="AccessDeniedException", http_status=403)
GONE = RequestRejected("No such contact.", code="ResourceNotFoundException", http_status=404)
FAILS = TransientError("It fails.", code="InternalServiceException", http_status=500)
SLOW_DOWN = Throttled("Slow down.", code="TooManyRequestsException", http_status=429)


# --- Who is drawn


async def test_the_share_of_the_contacts_is_drawn():
    """Of many contacts about the share is drawn, of UUIDs and of other ids alike."""
    for ids in ([f"c-{n}" for n in range(50_000)], [f"{n:032x}" for n in range(50_000)]):
        for share in (0.01, 0.2):
            drawn = check_of(FakeReads(), share=share).are_drawn(contact_keys(ids)).sum()
            assert abs(drawn - 50_000 * share) < 5 * (50_000 * share) ** 0.5


async def test_one_by_one_is_all_at_once():
    """A key alone is drawn as it is among others, also one that ends in NULs."""
    keys = contact_keys(f"c-{n}" for n in range(300))
    ends_in_nul = np.frombuffer(bytes.fromhex("00112233445566778899aabbcc000000"), dtype="S16")
    for run in range(20):
        check = check_of(FakeReads(), share=0.3, run_id=f"run-{run}")
        together = check.are_drawn(np.concatenate([keys, ends_in_nul])).tolist()
        alone = [check.is_drawn(contact_key(f"c-{n}")) for n in range(300)]
        assert [*alone, check.is_drawn(ends_in_nul[0])] == together


async def test_a_run_draws_the_same_and_the_next_run_others():
    """What is drawn depends on run and contact alone: a run that goes on reads the same ones."""
    keys = contact_keys(f"c-{n}" for n in range(20_000))
    first, again, other = (
        check_of(FakeReads(), share=0.1, run_id=run_id).are_drawn(keys)
        for run_id in ("a", "a", "b")
    )
    assert (first == again).all()
    assert abs((first & other).sum() - 200) < 80  # a tenth of a tenth: no more than by chance


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (1.0, 1000)])
async def test_none_and_all(share, n):
    """0 % draws nobody, 100 % everybody."""
    keys = contact_keys(f"c-{n}" for n in range(1000))
    assert check_of(FakeReads(), share=share).are_drawn(keys).sum() == n


# --- What differs


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ({"tier": "gold", "note": ""}, ()),
        ({"tier": "gold"}, ()),
        ({"tier": "gold", "else": PLANTED}, ()),
        ({"tier": PLANTED}, ("tier",)),
        ({"tier": "gold", "note": PLANTED}, ("note",)),
        ({}, ("tier",)),
        ({"tier": "Gold", "note": " "}, ("tier", "note")),
    ],
)
async def test_every_key_that_is_written_is_compared(held, names):
    """An erased attribute may be missing or empty; what the row does not write does not matter."""
    check = check_of(FakeReads({"c-1": held}))
    drift = await check.check(attributes_request(1, "c-1", tier="gold", note=""))
    assert drift == Drift(DriftKind.DRIFTED if names else DriftKind.SAME, names)
    assert PLANTED not in repr(drift)


async def test_a_contact_that_is_gone():
    """404 is an answer: GONE, after one attempt, and reading goes on."""
    reads = FakeReads(script=lambda _: GONE)
    check = check_of(reads)
    assert await check.check(attributes_request(1, "c-1")) == Drift(DriftKind.GONE)
    assert (len(reads.calls), check.is_off) == (1, False)


async def test_what_fails_is_tried_again_and_then_unread():
    """As many attempts as a request has; then nobody knows, and reading goes on."""
    reads = FakeReads(script=lambda _: FAILS)
    check = check_of(reads)
    drift = await check.check(attributes_request(1, "c-1"))
    assert drift == Drift(DriftKind.UNREAD, why="It fails.")
    assert (len(reads.calls), check.is_off) == (3, False)


async def test_throttling_counts_for_nothing():
    """However often a read is throttled, it is read in the end."""
    left = iter([SLOW_DOWN] * 5)
    reads = FakeReads({"c-1": {"tier": "gold"}}, script=lambda _: next(left, None))
    drift = await check_of(reads, rate=10.0).check(attributes_request(1, "c-1", tier="gold"))
    assert drift.kind is DriftKind.SAME
    assert len(reads.calls) == 6


# --- Beside the sending


async def test_each_row_is_handed_on_once_and_by_the_feeder():
    """What differs is to be sent, the rest is not, and only one task ever hands on."""
    stored = {f"c-{n}": {"row": str(n) if n % 3 else PLANTED} for n in range(1, 101) if n % 10}
    reads = FakeReads(stored, script=lambda name: GONE if name.endswith("0") else None)
    feeding = Feeding()
    reader = feeding.reader(check_of(reads))
    for row in range(1, 101):
        await reader.submit(attributes_request(row, f"c-{row}"))
    await reader.drain()
    expected = [row for row in range(1, 101) if row % 10 and not row % 3]
    assert sorted(request.row for request in feeding.sent) == expected
    assert sorted(row for row, _ in feeding.kept) == sorted(set(range(1, 101)) - set(expected))
    assert feeding.tasks == {asyncio.current_task()}
    assert reader.counts == DriftCounts(
        verified=90, drifted=30, gone=10, unread=0, names=Counter(row=30)
    )


async def test_reads_are_paced_and_bounded():
    """Never more open than there is room for, and in the end no faster than the rate."""
    reads = FakeReads(latency_s=2.0)
    feeding = Feeding()
    reader = feeding.reader(check_of(reads, rate=10.0))
    for row in range(1, 101):
        await reader.submit(attributes_request(row, f"c-{row}"))
        assert len(reader._under_way) <= 64
    await reader.drain()
    assert (len(reads.calls), reads.peak) == (100, READS_IN_FLIGHT)
    # 4 at a time, 2 s each: 25 turns. The rate alone would let them go in under ten seconds.
    assert 48.0 <= reads.at_s[-1] - reads.at_s[0] <= 50.0
    quick = FakeReads(latency_s=0.1)
    reader = feeding.reader(check_of(quick, rate=10.0))
    for row in range(1, 101):
        await reader.submit(attributes_request(row, f"c-{row}"))
    await reader.drain()
    assert (quick.at_s[-1] - quick.at_s[0]) >= (100 - 1 - 15) / 10


async def test_the_other_operation_is_never_read():
    """GetContactAttributes says nothing of UpdateContact: such a row stays as it is, uncounted."""
    reads, feeding = FakeReads(), Feeding()
    reader = feeding.reader(check_of(reads))
    await reader.submit(replace(attributes_request(1, "c-1"), operation="update_contact"))
    await reader.drain()
    assert [row for row, _ in feeding.kept] == [1]
    assert (reads.calls, reader.counts) == ([], DriftCounts())


async def test_a_missing_permission_ends_the_reading_with_one_warning(caplog):
    """Those that are open end; no other is begun, every row stays unchanged, one line says why."""
    reads, feeding = FakeReads(script=lambda _: DENIED), Feeding()
    reader = feeding.reader(check_of(reads))
    with caplog.at_level(logging.INFO):
        for row in range(1, 201):
            await reader.submit(attributes_request(row, f"c-{row}"))
        await reader.drain()
    assert len(reads.calls) == READS_IN_FLIGHT
    assert sorted(row for row, _ in feeding.kept) == list(range(1, 201))
    assert reader.counts == DriftCounts(unread=200)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "Nothing more is read back in this run: the role may not do connect:GetContactAttributes "
        "on the contacts of the instance (AccessDeniedException). Allow it, as "
        "samples/iam_policy.json does, or leave --verify-drift out. What was to be read stays "
        "unchanged."
    )


@pytest.mark.parametrize(
    "error",
    [
        AccessError("Expired (X).", code="OptInRequired", http_status=403),
        TransientError("Nobody there.", code="EndpointConnectionError"),
        Throttled("Slow down.", code="SlowDown", http_status=429, retry_after_s=7200.0),
    ],
)
async def test_what_would_stop_a_run_ends_the_reading(caplog, error):
    """It never stops the run: the row is unread, and the next one is not asked for."""
    reads, feeding = FakeReads(script=lambda _: error), Feeding()
    reader = feeding.reader(check_of(reads))
    await reader.submit(attributes_request(1, "c-1"))
    await reader.drain()
    n_calls = len(reads.calls)
    await reader.submit(attributes_request(2, "c-2"))
    await reader.drain()
    assert len(reads.calls) == n_calls
    assert reader.counts == DriftCounts(unread=2)
    (record,) = caplog.records
    assert f"{error.message.rstrip('.')}. What was to be read" in record.getMessage()


async def test_what_drifted_is_told_without_a_cell(caplog):
    """Row and keys, ten times; further ones are only counted, and no value is ever told."""
    stored = {f"c-{row}": {"tier": PLANTED} for row in range(1, 31)}
    feeding = Feeding()
    reader = feeding.reader(check_of(FakeReads(stored)))
    for row in range(1, 31):
        await reader.submit(attributes_request(row, f"c-{row}", tier="gold", note="x"))
    await reader.drain()
    assert reader.counts.drifted == 30
    assert reader.counts.names == {"tier": 30, "note": 30}
    assert len(caplog.records) == 10
    assert caplog.records[0].getMessage() == (
        "row 1: somebody else changed tier, note of its contact; it is sent again."
    )
    assert caplog.records[-1].getMessage().endswith(" Further ones are counted only.")
    assert PLANTED not in caplog.text


# --- Stopping


async def test_a_halted_run_reads_nothing_more():
    """What is not handed on yet stays unsettled, `drain` returns, and no read is begun."""
    reads, feeding = FakeReads(latency_s=10.0), Feeding()
    reader = feeding.reader(check_of(reads))
    for row in range(1, 21):
        await reader.submit(attributes_request(row, f"c-{row}"))
    await asyncio.sleep(1.0)
    feeding.halted = True
    reader.halt()
    await reader.drain()
    await reader.submit(attributes_request(21, "c-21"))
    await reader.drain()
    assert (len(reads.calls), reads.open_now) == (READS_IN_FLIGHT, 0)
    assert (feeding.sent, feeding.kept, reader.counts) == ([], [], DriftCounts())


async def test_a_sender_that_stops_by_itself_stops_the_reading():
    """Nobody calls `halt`: the next read that ends is the last one that is waited for."""
    reads, feeding = FakeReads(latency_s=1.0), Feeding()
    reader = feeding.reader(check_of(reads))
    for row in range(1, 41):
        await reader.submit(attributes_request(row, f"c-{row}"))
    asyncio.get_running_loop().call_later(1.5, setattr, feeding, "halted", True)
    await reader.drain()
    assert asyncio.get_running_loop().time() < 3.0
    assert len(reads.calls) <= 3 * READS_IN_FLIGHT
    assert len(feeding.kept) + len(feeding.sent) <= 2 * READS_IN_FLIGHT


async def test_aborting_leaves_no_task():
    """Whatever is under way has ended when `abort` returns."""
    reads, feeding = FakeReads(latency_s=100.0), Feeding()
    reader = feeding.reader(check_of(reads))
    for row in range(1, 11):
        await reader.submit(attributes_request(row, f"c-{row}"))
    await asyncio.sleep(1.0)
    before = asyncio.get_running_loop().time()
    await reader.abort()
    assert (reads.open_now, asyncio.get_running_loop().time()) == (0, before)
    assert len(asyncio.all_tasks()) == 1


async def test_a_fault_of_ours_is_not_swallowed():
    """What is no `SendError` reaches whoever feeds."""
    reads = FakeReads(script=lambda _: ZeroDivisionError())  # type: ignore[arg-type,return-value]
    reader = Feeding().reader(check_of(reads))
    await reader.submit(attributes_request(1, "c-1"))
    with pytest.raises(ZeroDivisionError):
        await reader.drain()
    await reader.abort()


# --- Against the sandbox


async def test_what_somebody_else_changed_is_found_over_the_wire(folder):
    """Two contacts as they were left, one overwritten, one erased, one that is not there."""
    async with (
        Sandbox(fast()) as sandbox,
        open_connect(config_for(sandbox, folder).connection, max_in_flight=8) as connect,
    ):
        requests = [attributes_request(row, f"c-{row}", tier="gold") for row in range(1, 5)]
        for request in requests:
            await connect.send(request)
        await connect.send(attributes_request(8, "c-3", tier="silver"))
        await connect.send(attributes_request(9, "c-4", tier=""))
        feeding = Feeding()
        reader = feeding.reader(_check(connect))
        for request in [*requests, attributes_request(5, "missing-5", tier="gold")]:
            await reader.submit(request)
        await reader.drain()
        assert sandbox.counters[READ_ATTRIBUTES].received == 5
    assert sorted(request.row for request in feeding.sent) == [3, 4]
    assert reader.counts == DriftCounts(
        verified=4, drifted=2, gone=1, unread=0, names=Counter(tier=2)
    )


def _check(connect: Any) -> DriftCheck:
    return DriftCheck(
        connect.read_attributes,
        pacer=Pacer(PacingConfig(rate=1000), {READ_ATTRIBUTES: READ_QUOTA}),
        retry=RetryConfig(),
        rng=random.Random(7),
        share=1.0,
        run_id="run",
    )
