"""Oldest first: groups of days, contacts whole, the same ones every time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.config import RunConfig
from bulk_updater.errors import ConfigError
from bulk_updater.mapping.mapped import NEVER
from bulk_updater.pipeline.job import open_job
from bulk_updater.pipeline.ordering import (
    MAX_GROUPS,
    Ordering,
    expect_dates,
    group_rows,
    sending_order,
    will_expire_before_turn,
)

from .helpers import INSTANCE

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400


def moments(*days: float | None) -> np.ndarray:
    return np.array([NEVER if day is None else int(day * DAY_S) for day in days], dtype=np.int64)


def link(*contacts: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(contacts)), np.array(contacts)


def test_days_go_in_order_and_unknown_ones_last():
    """A group for each day, the oldest first, whatever their order in the file."""
    groups = group_rows(moments(20, 3, None, 20.5, 19, None, 3.2))
    assert groups.tolist() == [2, 0, 3, 2, 1, 3, 0]
    assert groups.dtype == np.uint8
    assert sending_order(groups).tolist() == [1, 6, 4, 0, 3, 2, 5]


def test_nothing_known_is_one_group():
    """Without a single day the file is sent as it stands, in one pass; an empty one in none."""
    assert group_rows(moments(None, None)).tolist() == [0, 0]
    assert group_rows(moments()).tolist() == []


def test_the_soonest_day_of_a_contact_holds_for_all_of_its_rows():
    """Rows of one contact are in one group, so they keep the order of the file."""
    groups = group_rows(moments(9, 5, 7, None), [link(0, 1, 0, 0)])
    assert groups.tolist() == [1, 0, 1, 1]


def test_contacts_that_two_operations_tie_together_go_together():
    """A row that names two contacts is in one group with the rows of both, and with theirs."""
    first, second = link(0, 0, 1, 1, 2), link(0, 1, 1, 2, 3)
    groups = group_rows(moments(8, 9, 10, 4, 6), [first, second])
    assert groups.tolist() == [0, 0, 0, 0, 1]


def test_a_chain_of_contacts_through_the_whole_export():
    """However long it is, and in whatever order its rows stand, it ends in one group."""
    n = 20_000
    place = np.random.default_rng(3).permutation(n)
    first = (place, np.arange(n) // 2)
    second = (place, (np.arange(n) + 1) // 2)
    expires_at = np.full(n, NEVER)
    expires_at[place[n // 2]] = DAY_S
    assert set(group_rows(expires_at, [first, second]).tolist()) == {0}


def test_many_days_share_groups_of_about_one_size():
    """Two years of days make 64 groups, the unknown one included, none twice the others' size."""
    rng = np.random.default_rng(5)
    expires_at = moments(*rng.integers(0, 730, 50_000).tolist(), *[None] * 500)
    groups = group_rows(expires_at)
    sizes = np.bincount(groups)
    assert len(sizes) == MAX_GROUPS
    assert sizes[-1] == 500
    assert sizes[:-1].max() < 1.5 * 50_000 / 63
    assert sizes[:-1].min() > 0.5 * 50_000 / 63


def test_a_day_with_most_of_the_rows_leaves_no_gap():
    """Groups are numbered without a gap, so no pass over the source finds nothing."""
    expires_at = moments(*[100] * 900, *range(200))
    groups = group_rows(expires_at)
    assert np.unique(groups).tolist() == list(range(int(groups.max()) + 1))
    assert groups.max() < MAX_GROUPS


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 40)), st.integers(0, 30), st.integers(0, 30)),
        max_size=60,
    ),
    st.integers(2, 12),
)
def test_every_promise_of_the_groups(rows, max_groups):
    """Whole contacts, oldest first between groups, no gap, no more groups than may be."""
    expires_at = moments(*(day for day, _, _ in rows))
    links = [link(*(row[at] for row in rows)) for at in (1, 2)] if rows else []
    groups = group_rows(expires_at, links, max_groups=max_groups).tolist()
    assert sorted(set(groups)) == list(range(max(groups, default=-1) + 1))
    assert len(set(groups)) <= max_groups
    component = components([row[1:] for row in rows])
    soonest = defaultdict(lambda: NEVER)
    for name, moment in zip(component, expires_at.tolist(), strict=True):
        soonest[name] = min(soonest[name], moment)
    of_group = defaultdict(set)
    for name, group in zip(component, groups, strict=True):
        of_group[name].add(group)
    assert all(len(found) == 1 for found in of_group.values())
    days = [soonest[name] // DAY_S for name in component]
    for group, day in zip(groups, days, strict=True):
        for other, other_day in zip(groups, days, strict=True):
            assert group >= other or day < other_day


def components(pairs: list[tuple[int, int]]) -> list[int]:
    """What hangs together, found the slow way."""
    names = list(range(len(pairs)))
    changed = True
    while changed:
        changed = False
        for here, (a, b) in enumerate(pairs):
            for there, (c, d) in enumerate(pairs):
                if (a == c or b == d) and names[here] != names[there]:
                    names[here] = names[there] = min(names[here], names[there])
                    changed = True
    return names


MAPPING = f"""
contact_started: {{column: Started}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    tier: "{{Tier}}"
"""

EXPORT = """Contact,Started,Tier
c-1,2026-03-01,gold
c-2,2026-01-01,gold
c-3,,gold
c-1,2026-02-01,silver
,2020-01-01,gold
c-4,2025-12-01,
c-5,2026-01-01,gold
"""


def job_of(folder: Path, mapping: str):
    (folder / "mapping.yaml").write_text(mapping)
    (folder / "export.csv").write_text(EXPORT)
    return open_job(RunConfig(mapping=folder / "mapping.yaml", sources=(folder / "export.csv",)))


def test_an_export_is_ordered_by_when_its_contacts_began(tmp_path):
    """Rows that make no request have nothing that expires, and are in the last group."""
    job = job_of(tmp_path, MAPPING)
    ordering = Ordering(7)
    for frame in job.mapped_frames():
        ordering.add(frame)
    assert ordering.groups().tolist() == [1, 0, 2, 1, 2, 2, 0]


def test_without_dates_there_is_no_oldest(tmp_path):
    """A mapping without `contact_started` is refused, with what to write into it."""
    expect_dates(job_of(tmp_path, MAPPING).spec)
    without = job_of(tmp_path, MAPPING.replace("contact_started: {column: Started}", ""))
    with pytest.raises(ConfigError) as caught:
        expect_dates(without.spec)
    assert "contact_started: {column: Started}" in caught.value.message


def too_late_one_by_one(expires_at: list[int], now: float, rate_per_s: float) -> int:
    n_sent = 0
    for moment in expires_at:
        n_sent += moment > now + n_sent / rate_per_s
    return len(expires_at) - n_sent


def test_those_that_come_too_late_make_room_for_others():
    """One that is not sent costs no turn: the next one has its place."""
    # At one a second: turns at 0, 1, 2; the second is forgotten already, so the third has turn 1.
    assert will_expire_before_turn(np.array([5, 0, 2, 2]), 0.0, 1.0) == 2
    assert will_expire_before_turn(np.array([5, 0, 2, 3]), 0.0, 1.0) == 1
    assert will_expire_before_turn(np.array([], dtype=np.int64), 0.0, 1.0) == 0
    assert will_expire_before_turn(np.full(3, NEVER), 1e9, 0.001) == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 3.0, 40.0]), st.booleans())
def test_counting_by_blocks_is_counting_one_by_one(seed, rate_per_s, oldest_first):
    """Blocks that need no look at each row are left out of it, and nothing else changes."""
    rng = np.random.default_rng(seed)
    expires_at = rng.integers(0, 3000, 3000)
    expires_at[rng.random(3000) < 0.3] = NEVER
    if oldest_first:
        expires_at.sort()
    expected = too_late_one_by_one(expires_at.tolist(), 500.0, rate_per_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bulk_updater.pipeline.ordering._BLOCK", 100)
        assert will_expire_before_turn(expires_at, 500.0, rate_per_s) == expected
