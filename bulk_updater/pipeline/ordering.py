"""`--order oldest-first`: what Connect forgets first is sent first.

An export is too large to be sorted in memory, and a source can only be read from its beginning. So
its rows are put into a few groups by the day on which their contact is forgotten, and the source is
read once for each group. Within a group rows go in file order. Where there are more days than
groups, neighbouring days share one: a row then goes before rows that are forgotten sooner, though
never before those of an earlier group, and no further than its group is long, a 63rd of the export
if its days are evenly filled.

Rows of one contact must not overtake each other, so the soonest of their days holds for all. A row
with two operations may name two contacts; then what hangs together by any of them goes together.

The groups depend on the export alone, so a run that goes on has the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bulk_updater.errors import ConfigError, SourceError
from bulk_updater.mapping.mapped import NEVER
from bulk_updater.pipeline.work import frames_as_counted

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from bulk_updater.mapping import MappedFrame, MappingSpec
    from bulk_updater.pipeline.job import Job

__all__ = [
    "MAX_GROUPS",
    "Ordering",
    "expect_dates",
    "group_rows",
    "order_job",
    "sending_order",
    "will_expire_before_turn",
]

MAX_GROUPS: Final = 64
"""Groups at the most, that of unknown days included: reading and mapping a million rows takes
seconds, sending them a day, so as many passes over the source are lost in the sending."""

_DAY_S: Final = 86_400
_NO_DAY: Final = NEVER // _DAY_S
_BLOCK: Final = 65_536


def expect_dates(spec: MappingSpec) -> None:
    """See to it that the mapping says how old contacts are.

    Raises:
        ConfigError: It does not, so nothing is older than anything else.
    """
    if spec.started is None:
        raise ConfigError(
            f"--order oldest-first needs to know when contacts began, and {spec.path} does not "
            "say. Name the column in it, as in `contact_started: {column: Started}`, or leave "
            "--order out."
        )


class Ordering:
    """Gathers when the contacts of an export are forgotten, frame by frame.

    It holds 24 bytes a row for each operation while it goes on, three times that while the groups
    are made, and one byte a row is what is left.

    Args:
        n_rows: Rows in all sources.
    """

    def __init__(self, n_rows: int) -> None:
        self._expires_at = np.full(n_rows, NEVER, dtype=np.int64)
        self._parts: dict[str, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.bytes_]]]] = {}

    def add(self, frame: MappedFrame) -> None:
        """Take a frame's rows that make a request; the others have nothing that expires."""
        rows = frame.frame.rows
        for mapped in frame.operations:
            at = np.flatnonzero(mapped.to_send)
            self._expires_at[rows[at] - 1] = frame.expires_at[at]
            self._parts.setdefault(mapped.operation.name, []).append(
                (rows[at] - 1, mapped.contact_keys[at])
            )

    def groups(self) -> npt.NDArray[np.uint8]:
        """For each row, from the first, the group that it goes with; can be had once.

        Returns:
            Group 0 is sent first. Rows of which nothing is known, or that make no request, are in
            the last one.
        """
        links = []
        while self._parts:
            _, parts = self._parts.popitem()
            rows, keys = (np.concatenate(column) for column in zip(*parts, strict=True))
            del parts
            links.append((rows, np.unique(keys, return_inverse=True)[1].reshape(-1)))
            del keys
        return group_rows(self._expires_at, links)


def order_job(job: Job, *, stop: threading.Event) -> npt.NDArray[np.uint8]:
    """For each row of a job, from the first, the group that it goes with. Blocks.

    Raises:
        SourceError: A source turns out to be damaged, or `stop` was set.
        RunStopped: A source is not what it was when it was counted.
    """
    ordering = Ordering(job.n_rows)
    for frame in frames_as_counted(job):
        if stop.is_set():
            raise SourceError("reading it was given up.", source=frame.frame.source)
        ordering.add(frame)
    return ordering.groups()


def group_rows(
    expires_at: npt.NDArray[np.int64],
    links: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = (),
    *,
    max_groups: int = MAX_GROUPS,
) -> npt.NDArray[np.uint8]:
    """Put rows into groups by the day on which their contact is forgotten.

    Args:
        expires_at: For each row, in seconds since the epoch; `NEVER` where it is not known.
        links: For each operation: places in `expires_at`, and a number for the contact of each.
            Rows with one contact are in one group.
        max_groups: Groups at the most, from 2 to 256.

    Returns:
        For each row its group, from 0 without a gap, the oldest days first and unknown ones last.
    """
    if not len(expires_at):
        return np.zeros(0, dtype=np.uint8)
    days = _soonest(expires_at, list(links)) // _DAY_S
    each_day, of_row, n_rows = np.unique(days, return_inverse=True, return_counts=True)
    n_known = len(each_day) - int(each_day[-1] == _NO_DAY)
    group = np.arange(len(each_day))
    if len(each_day) > max_groups:
        n_groups = max_groups - (len(each_day) - n_known)
        known = n_rows[:n_known]
        middles = np.cumsum(known) - known / 2  # of a day's rows, among all of them
        # The group that a day's middle falls into, closed up where a long day left one out.
        shares = (middles * n_groups / known.sum()).astype(np.int64)
        group[:n_known] = np.unique(shares, return_inverse=True)[1].reshape(-1)
        group[n_known:] = group[n_known - 1] + 1
    return group[of_row.reshape(-1)].astype(np.uint8)


def _soonest(
    expires_at: npt.NDArray[np.int64],
    links: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> npt.NDArray[np.int64]:
    """For each row the soonest time of all that hang together with it by a contact."""
    together = np.arange(len(expires_at))
    while True:
        before = together.copy()
        for rows, contacts in links:
            least = np.full(int(contacts.max(initial=-1)) + 1, len(expires_at))
            np.minimum.at(least, contacts, together[rows])
            # Whatever stands for a row stands for what it stood for, too: so that chains of
            # contacts, however long, close in a few turns.
            np.minimum.at(together, before[rows], least[contacts])
            np.minimum.at(together, rows, least[contacts])
        together = together[together]
        if np.array_equal(together, before):
            break
    soonest = np.full(len(expires_at), NEVER, dtype=np.int64)
    np.minimum.at(soonest, together, expires_at)
    return soonest[together]


def sending_order(groups: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Places of the rows in the order in which they are sent: by group, then as in the file."""
    return np.argsort(groups, kind="stable")


def will_expire_before_turn(
    expires_at: npt.NDArray[np.int64], now: float, rate_per_s: float
) -> int:
    """How many requests come too late for their contact.

    One that comes too late is not sent, so those behind it come sooner.

    Args:
        expires_at: When the contact of each request is forgotten, in the order of sending, in
            seconds since the epoch; `NEVER` where it is not known.
        now: When the first one is sent, in seconds since the epoch.
        rate_per_s: Requests that are sent per second, above 0.

    Returns:
        Those that are forgotten already, and those that will be when their turn comes.
    """
    n_sent = 0
    for block in _blocks(expires_at):
        if block.min() > now + (n_sent + len(block)) / rate_per_s:
            n_sent += len(block)  # as nearly all are: no row is looked at
        elif block.max() > now + n_sent / rate_per_s:
            for moment in block.tolist():
                n_sent += moment > now + n_sent / rate_per_s
    return len(expires_at) - n_sent


def _blocks(array: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(array), _BLOCK):
        yield array[start : start + _BLOCK]
