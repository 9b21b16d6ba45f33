"""`--verify-drift`: reading a share of the unchanged contacts back, and mending what differs.

What is remembered of a contact is what was applied last; somebody else may have written to it
since. So a few of the contacts that would be UNCHANGED are read with GetContactAttributes, others
in every run, and what a row says is compared with what the contact holds, key by key. A row that
differs is sent as if it had changed.

Reads have a quota of their own (10 a second, 15 deep: "Amazon Connect service quotas", API
throttling quotas, 2026), so they take nothing from the updates. They are a service to the run and
never stop it: what cannot be read stays UNCHANGED and is counted, and what would stop a run, such
as a missing permission, ends the reading with one warning.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np

from bulk_updater.config import DOCUMENTED_RATE_PER_S
from bulk_updater.connect import READ_ATTRIBUTES, Receipt
from bulk_updater.errors import AccessError, SendError
from bulk_updater.keys import KEY_BYTES, KEY_DTYPE
from bulk_updater.model import Quota, QuotaOrigin, Request, Verdict
from bulk_updater.retry import may_concern_one_row, send_until_settled

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    import numpy.typing as npt

    from bulk_updater.config import RetryConfig
    from bulk_updater.pacing import Pacer

__all__ = [
    "COMPARED",
    "READS_IN_FLIGHT",
    "READ_QUOTA",
    "Drift",
    "DriftCheck",
    "DriftCounts",
    "DriftKind",
    "DriftReader",
]

log = logging.getLogger(__name__)

COMPARED: Final = "update_contact_attributes"
"""The operation whose rows can be read back; GetContactAttributes says nothing of any other."""

READ_QUOTA: Final = Quota(rate_per_s=DOCUMENTED_RATE_PER_S, origin=QuotaOrigin.DOCUMENTED)
"""What is believed of the quota of reads."""

READS_IN_FLIGHT: Final = 4
"""Reads that are open at once, at the most: twice what the documented quota keeps busy at 200 ms a
read. The connection has to have room for as many."""

_MAX_WAITING: Final = 64
"""Rows that wait to be read, at the most: eight seconds at the documented quota, so that the reader
of the source need not wait for each, and few enough that their cells take no room."""

_DRIFTS_LOGGED: Final = 10

_READ: Final = Receipt(request_id="read", http_status=200)
"""What a read tells the retry layer, which asks only whether there is a receipt."""

_CANNOT_BE_READ: Final = "GetContactAttributes says nothing of what this operation writes."

_EVERY: Final = 2**64


class DriftKind(Enum):
    """What reading a contact back showed."""

    SAME = "same"
    """It holds what the row says."""
    DRIFTED = "drifted"
    """Somebody else changed what the row says."""
    GONE = "gone"
    """Connect has forgotten it, or never knew it."""
    UNREAD = "unread"
    """Nobody knows."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What reading one contact back showed.

    Attributes:
        kind: What it showed.
        names: Keys of the attributes that differ; none of their values.
        why: Why it could not be read, in a sentence; None where it could.
    """

    kind: DriftKind
    names: tuple[str, ...] = ()
    why: str | None = None


@dataclass(slots=True)
class DriftCounts:
    """What reading back came to, for the summary; rows of this execution.

    Attributes:
        verified: Rows whose contact was read, and holds what they say or does not.
        drifted: Those of them that somebody else had changed, and that were handed on to be sent.
        gone: Rows whose contact Connect does not know any more.
        unread: Rows whose contact could not be read.
        names: How many rows drifted in which attribute.
    """

    verified: int = 0
    drifted: int = 0
    gone: int = 0
    unread: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def by_kind(self) -> dict[str, int]:
        """How many rows each kind of drift was found for, every kind named."""
        return {
            DriftKind.SAME.value: self.verified - self.drifted,
            DriftKind.DRIFTED.value: self.drifted,
            DriftKind.GONE.value: self.gone,
            DriftKind.UNREAD.value: self.unread,
        }

    def add(self, drift: Drift) -> None:
        """Count one row."""
        self.verified += drift.kind in (DriftKind.SAME, DriftKind.DRIFTED)
        self.drifted += drift.kind is DriftKind.DRIFTED
        self.gone += drift.kind is DriftKind.GONE
        self.unread += drift.kind is DriftKind.UNREAD
        self.names.update(drift.names)


class DriftCheck:
    """Draws contacts, reads them, and compares.

    Args:
        read: Makes one attempt, as `Connect.read_attributes` does.
        pacer: Has a bucket for `READ_ATTRIBUTES`.
        retry: How patiently a read is tried again.
        rng: Draws the jitter.
        share: The part of the contacts that is drawn, from 0 to 1.
        run_id: Each run draws others; the same run, when it goes on, the same.
        max_in_flight: Reads open at once, from 1.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        read: Callable[[str, str], Awaitable[dict[str, str]]],
        *,
        pacer: Pacer,
        retry: RetryConfig,
        rng: random.Random,
        share: float,
        run_id: str,
        max_in_flight: int = READS_IN_FLIGHT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._pacer = pacer
        self._retry = retry
        self._rng = rng
        self._now = now
        self._bound = round(share * _EVERY)
        seed = hashlib.blake2b(run_id.encode(), digest_size=KEY_BYTES).digest()
        self._seed = np.frombuffer(seed, dtype="<u8")
        self._open = asyncio.Semaphore(max_in_flight)
        self._off: SendError | None = None

    @property
    def is_off(self) -> bool:
        """Whether nothing is read any more."""
        return self._off is not None

    def is_drawn(self, key: bytes) -> bool:
        """Whether a contact is to be read, by its key: see `bulk_updater.keys`."""
        padded = key.ljust(KEY_BYTES, b"\0")  # numpy takes the NULs at the end off
        return bool(self.are_drawn(np.frombuffer(padded, dtype=KEY_DTYPE))[0])

    def are_drawn(self, keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bool_]:
        """Which of many contacts are to be read, by their keys (`KEY_DTYPE`)."""
        if self._bound >= _EVERY:
            return np.ones(len(keys), dtype=np.bool_)
        halves = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
        mixed = _mix(_mix(halves[:, 0] ^ self._seed[0]) ^ halves[:, 1] ^ self._seed[1])
        return np.asarray(mixed < np.uint64(self._bound))

    async def check(self, request: Request) -> Drift:
        """Read a request's contact, and compare.

        Args:
            request: One of `COMPARED`; what it writes is what the contact should hold.

        Raises:
            asyncio.CancelledError: If the task is cancelled.
        """
        if self._off is not None:
            return Drift(DriftKind.UNREAD, why=self._off.message)
        held: dict[str, str] = {}

        async def attempt(_: Request) -> Receipt:
            async with self._open:  # nothing is signed yet, as it is for who waits for a connection
                if self._off is not None:
                    raise self._off  # while this one waited
                held.update(await self._read(request.instance_id, request.contact_id))
            return _READ

        asked = Request(
            row=request.row,
            source=request.source,
            operation=READ_ATTRIBUTES,
            instance_id=request.instance_id,
            contact_id=request.contact_id,
            params={},
            payload_bytes=0,
        )
        sent = await send_until_settled(
            asked, attempt, self._pacer, self._retry, self._rng, now=self._now
        )
        if sent.error is None:
            return _compare(request, held)
        if sent.error.code == "ResourceNotFoundException":
            return Drift(DriftKind.GONE)
        if sent.verdict is Verdict.STOP_RUN:
            self._stop_reading(sent.error)
        return Drift(DriftKind.UNREAD, why=sent.error.message)

    def _stop_reading(self, error: SendError) -> None:
        """Read nothing more in this run; said once."""
        if self._off is not None:
            return
        self._off = error
        if isinstance(error, AccessError) and may_concern_one_row(error):
            why = (
                f"the role may not do connect:GetContactAttributes on the contacts of the instance "
                f"({error.code}). Allow it, as samples/iam_policy.json does, or leave "
                "--verify-drift out"
            )
        else:
            why = error.message.rstrip(".")
        log.warning(
            "Nothing more is read back in this run: %s. What was to be read stays unchanged.", why
        )


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every bit over all bits: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _compare(request: Request, held: dict[str, str]) -> Drift:
    """Which keys of a request the contact holds otherwise.

    An attribute that was erased may be left out of an answer or come back empty, so both are one.
    """
    wanted: dict[str, str] = request.params.get("Attributes", {})
    names = tuple(key for key, value in wanted.items() if held.get(key, "") != value)
    return Drift(DriftKind.DRIFTED, names) if names else Drift(DriftKind.SAME)


class DriftReader:
    """Reads rows back beside the sending, and hands each on when it is known what it needs.

    Everything is handed on from `submit` and `drain`, in the task that calls them: so whoever feeds
    the sender stays the only one that does. In which order is nobody's promise: of a contact with
    several rows none may be submitted.

    Args:
        check: Reads and compares.
        drifted: Takes a request whose contact somebody else changed, to send it.
        unchanged: Takes any other, with what reading it showed.
        is_halted: Whether the run takes no more requests; then nothing is read any more.

    Attributes:
        counts: What it came to by now.
    """

    def __init__(
        self,
        check: DriftCheck,
        *,
        drifted: Callable[[Request], Awaitable[None]],
        unchanged: Callable[[Request, Drift], Awaitable[None]],
        is_halted: Callable[[], bool] = lambda: False,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        self.counts = DriftCounts()
        self._check = check
        self._drifted = drifted
        self._unchanged = unchanged
        self._is_halted = is_halted
        self._max_waiting = max_waiting
        self._under_way: dict[asyncio.Task[Drift], Request] = {}

    async def submit(self, request: Request) -> None:
        """Take a row that seems to be unchanged; waits where many are waiting to be read.

        Once the run is halted, and after `halt`, it stays unsettled.
        """
        await self._hand_on(asyncio.sleep(0))
        while len(self._under_way) >= self._max_waiting and not self._is_halted():
            await self._hand_on(self._one_ended())
        if self._is_halted():
            self.halt()
        elif request.operation != COMPARED:
            await self._unchanged(request, Drift(DriftKind.UNREAD, why=_CANNOT_BE_READ))
        elif self._check.is_off:
            await self._settle(request, await self._check.check(request))
        else:
            self._under_way[asyncio.create_task(self._check.check(request))] = request

    async def drain(self) -> None:
        """Return when every row is handed on, or the run is halted. Before the sender's own."""
        while self._under_way:
            if self._is_halted():
                self.halt()
            await self._hand_on(self._one_ended())

    def halt(self) -> None:
        """Read nothing more; rows that are not read yet stay unsettled."""
        for task in self._under_way:
            task.cancel()

    async def abort(self) -> None:
        """Cancel whatever is under way, and return when all of it has ended."""
        self.halt()
        if self._under_way:
            await asyncio.wait(self._under_way)
        self._under_way.clear()

    async def _one_ended(self) -> None:
        await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    async def _hand_on(self, when: Awaitable[None]) -> None:
        """Hand on what was read by then."""
        await when
        for task in [task for task in self._under_way if task.done()]:
            request = self._under_way.pop(task)
            if not task.cancelled():
                await self._settle(request, task.result())

    async def _settle(self, request: Request, drift: Drift) -> None:
        self.counts.add(drift)
        if drift.kind is not DriftKind.DRIFTED:
            await self._unchanged(request, drift)
            return
        self._tell(request, drift)
        await self._drifted(request)

    def _tell(self, request: Request, drift: Drift) -> None:
        if self.counts.drifted > _DRIFTS_LOGGED:
            return
        log.warning(
            "row %d: somebody else changed %s of its contact; it is sent again.%s",
            request.row,
            ", ".join(drift.names),
            " Further ones are counted only." if self.counts.drifted == _DRIFTS_LOGGED else "",
        )
