"""The canary: a few rows first."""

from __future__ import annotations

from bulk_updater.model import Outcome, Result
from bulk_updater.pipeline.canary import Canary

OPERATIONS = ("update_contact_attributes", "update_contact")


def result(row: int, code: str | None = None, operation: str = OPERATIONS[0]) -> Result:
    return Result(
        row=row,
        source="export.csv",
        operation=operation,
        outcome=Outcome.UPDATED if code is None else Outcome.FAILED,
        error_code=code,
        error=None if code is None else f"row {row}: no",
    )


def test_the_first_rows_are_the_canary():
    """Exactly so many rows, whatever their numbers; the next one is behind it, and stays so."""
    canary = Canary(3)
    assert [canary.submitted(row) for row in (4, 9, 17, 18, 19)] == [True, True, True, False, False]


def test_a_row_counts_once_with_all_of_its_operations():
    """Two requests of one row are one row, also when it is the last."""
    canary = Canary(2)
    for row in (1, 2):
        assert all(canary.submitted(row) for _ in OPERATIONS)
    assert not canary.submitted(3)


def test_it_has_not_failed_where_none_failed():
    """UPDATED rows are no failure, nor are rows that were never sent."""
    canary = Canary(2)
    assert canary.failure is None
    for row in (1, 2):
        canary.submitted(row)
    canary.settled([result(1), result(2)])
    canary.settled([result(7, "NotOfTheCanary")])
    assert canary.failure is None


def test_one_failed_row_fails_it():
    """The sentence counts the rows and the codes, the most frequent first, and says what to do."""
    canary = Canary(50)
    for row in range(1, 51):
        canary.submitted(row)
    canary.settled(result(row) for row in range(1, 48))
    canary.settled([result(48, "ResourceNotFoundException")])
    assert canary.failure == (
        "The canary failed: 1 of the first 50 rows FAILED (ResourceNotFoundException 1); nothing "
        "after them was sent. failed.csv has them; the same command goes on with the next rows as "
        "its canary."
    )
    canary.settled([result(49, "InvalidRequestException"), result(50, "InvalidRequestException")])
    assert (
        "3 of the first 50 rows FAILED (InvalidRequestException 2, ResourceNotFoundException 1);"
        in (canary.failure or "")
    )


def test_both_operations_of_one_row_fail_one_row():
    """Rows are counted by row, codes by result; a canary of one row says `row`."""
    canary = Canary(1)
    canary.submitted(5)
    canary.settled(result(5, "ResourceNotFoundException", each) for each in OPERATIONS)
    assert "1 of the first 1 row FAILED (ResourceNotFoundException 2);" in (canary.failure or "")


def test_the_next_execution_has_a_canary_of_its_own():
    """Rows that an earlier execution settled are never submitted, so the next ones are taken."""
    first, second = Canary(2), Canary(2)
    assert [first.submitted(row) for row in (1, 2, 3)] == [True, True, False]
    assert [second.submitted(row) for row in (3, 4, 5)] == [True, True, False]
