"""Which rows are settled, held against a plain dict."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_cases import ATTRIBUTES, CONTACT

from bulk_updater.ledger import SettledRows
from bulk_updater.ledger.settled import MAX_NIBBLE, OUTCOME_CODES
from bulk_updater.model import Outcome

# Neighbours that share a byte, the edges of a page, and a row number that no file has.
ROWS = st.integers(1, 6) | st.integers(65_533, 65_540) | st.integers(131_070, 131_074)
ADDITIONS = st.lists(
    st.tuples(
        ROWS | st.just(10**15), st.sampled_from([ATTRIBUTES, CONTACT]), st.sampled_from(Outcome)
    )
)


@given(additions=ADDITIONS, wanted=st.sets(st.sampled_from(Outcome)))
def test_settled_rows_are_a_dict_of_the_last_outcome(additions, wanted):
    """Whatever is added in whatever order, every question is answered as a dict would."""
    settled, model = SettledRows(), {}
    for row, operation, outcome in additions:
        settled.add(row, operation, outcome)
        model[row, operation] = outcome

    for row, _, _ in additions:
        for near in (row - 1, row, row + 1):
            for operation in (ATTRIBUTES, CONTACT, "other"):
                assert ((near, operation) in settled) == ((near, operation) in model)
                assert settled.outcome_of(near, operation) == model.get((near, operation))
            assert settled.is_settled(near, (ATTRIBUTES, CONTACT)) == (
                {(near, ATTRIBUTES), (near, CONTACT)} <= model.keys()
            )
    assert settled.count() == len(model)
    assert settled.outcomes() == {o: list(model.values()).count(o) for o in Outcome}
    for operation in (ATTRIBUTES, CONTACT, "other"):
        of_operation = [o for (_, name), o in model.items() if name == operation]
        assert settled.count(operation) == len(of_operation)
        assert settled.outcomes(operation) == {o: of_operation.count(o) for o in Outcome}
    assert set(settled.operations) == {operation for _, operation in model}
    assert list(settled.rows_with(wanted)) == sorted(k for k, o in model.items() if o in wanted)


MANY = st.lists(ROWS | st.just(10**15), max_size=12)
BLOCKS = st.lists(
    st.tuples(MANY, st.sampled_from([ATTRIBUTES, CONTACT]), st.sampled_from(Outcome)), max_size=6
)


@given(blocks=BLOCKS, asked=MANY)
def test_many_rows_at_once_are_settled_like_one_by_one(blocks, asked):
    """Blocks in any order, with rows twice or settled before, leave what single rows leave."""
    at_once, one_by_one = SettledRows(), SettledRows()
    for rows, operation, outcome in blocks:
        at_once.add_many(np.array(rows, dtype=np.int64), operation, outcome)
        for row in rows:
            one_by_one.add(row, operation, outcome)
    assert at_once.operations == one_by_one.operations
    for operation in (ATTRIBUTES, CONTACT, "other"):
        assert at_once.outcomes(operation) == one_by_one.outcomes(operation)
        rows = np.array(asked, dtype=np.int64)
        unsettled = at_once.select_unsettled(rows, operation)
        assert unsettled.dtype == np.bool_
        assert unsettled.tolist() == [(row, operation) not in one_by_one for row in asked]
    assert list(at_once.rows_with(Outcome)) == list(one_by_one.rows_with(Outcome))


def test_a_million_rows_at_once_over_many_pages():
    """Rows of sixteen pages, every third left out, are settled and asked for as they are."""
    rows = np.arange(1, 1_000_001)
    left_out = rows % 3 == 0
    settled = SettledRows()
    settled.add_many(rows[~left_out], CONTACT, Outcome.UNCHANGED)
    assert settled.outcomes()[Outcome.UNCHANGED] == settled.count() == 666_667
    assert (settled.select_unsettled(rows, CONTACT) == left_out).all()
    assert settled.select_unsettled(rows, ATTRIBUTES).all()


def test_an_unknown_outcome_settles_no_row_of_many():
    """Many rows with an outcome that is none settle nothing."""
    settled = SettledRows()
    with pytest.raises(KeyError):
        settled.add_many(np.array([1, 2]), CONTACT, "DONE")
    assert settled.operations == ()


def test_a_retry_moves_the_count_from_the_old_outcome_to_the_new():
    """A row that FAILED and was UPDATED later counts once, as UPDATED."""
    settled = SettledRows()
    settled.add(7, CONTACT, Outcome.FAILED)
    settled.add(7, CONTACT, Outcome.UPDATED)
    assert settled.count() == 1
    assert settled.outcomes()[Outcome.UPDATED] == 1
    assert settled.outcomes()[Outcome.FAILED] == 0
    assert list(settled.rows_with([Outcome.FAILED])) == []


def test_an_unknown_outcome_is_refused_and_leaves_nothing():
    """An outcome that is none settles nothing."""
    settled = SettledRows()
    with pytest.raises(KeyError):
        settled.add(1, CONTACT, "DONE")
    assert settled.operations == ()
    assert settled.count() == 0


def test_every_outcome_has_a_number_of_its_own_that_fits_half_a_byte():
    """Outcomes are told apart in four bits, and none is the 0 of a row that is not settled."""
    numbers = [OUTCOME_CODES[outcome] for outcome in Outcome]
    assert len(set(numbers)) == len(Outcome)
    assert min(numbers) == 1
    assert max(numbers) <= MAX_NIBBLE


def test_a_row_takes_half_a_byte_and_a_far_row_one_page():
    """262,144 rows and one absurd row number take six pages of 32 KiB and little else."""
    tracemalloc.start()
    try:
        settled = SettledRows()
        for row in range(1, 262_145):
            settled.add(row, CONTACT, Outcome.UPDATED)
        settled.add(2**62, CONTACT, Outcome.UPDATED)
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 6 * 32_768 <= taken_bytes < 6 * 32_768 + 8_192
    assert settled.count() == 262_145
