"""Which run left the rows that a `failed.csv` names. All in all 1 s."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bulk_updater.errors import LedgerCorrupt
from bulk_updater.pipeline.origin import is_run, runs_that_left

OPERATION = "update_contact_attributes"
ROWS = dict.fromkeys([(2, OPERATION), (3, OPERATION)])
CODES = {(2, OPERATION): "unknown_value", (3, OPERATION): "TooOldException"}
NOTED = {
    "run_id": "r",
    "mapping": {"path": "mapping.yaml", "sha256": "a" * 64},
    "target": "local",
    "rows": 4,
    "summary": {"outcomes": {"UPDATED": 1, "FAILED": 1, "INVALID": 2}},
}
LEDGER = ((1, "UPDATED"), (2, "INVALID"), (3, "FAILED"), (4, "INVALID"))


def write_run(path: Path, *, ledger=LEDGER, **change) -> Path:
    """A run of four rows, of which the last three are FAILED or INVALID."""
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(NOTED | change))
    records = (
        {"run_id": "r", "row": row, "operation": OPERATION, "outcome": outcome}
        | ({"error_code": code[0]} if code else {})
        for row, outcome, *code in ledger
    )
    (path / "ledger.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def found(*roots: Path, rows=ROWS, but: Path = Path("nowhere")) -> list[Path]:
    return [each.path for each in runs_that_left(rows, NOTED, roots=roots, but=but)]


def has_codes(path: Path) -> list[bool]:
    return [each.has_codes for each in runs_that_left(CODES, NOTED, roots=[path], but=path)]


def test_runs_are_looked_for_two_levels_down(tmp_path):
    """In every root, one and two levels down, each run once by whatever way; no level deeper."""
    near = write_run(tmp_path / "a" / "near")
    deep = write_run(tmp_path / "a" / "b" / "deep")
    write_run(tmp_path / "a" / "b" / "c" / "too_deep")
    other = write_run(tmp_path / "other" / "run")
    (tmp_path / "other" / "link").symlink_to(near)
    roots = (tmp_path / "a", tmp_path / "missing", tmp_path / "other", tmp_path / "a")
    assert sorted(found(*roots)) == sorted([deep, near, other])


def test_the_run_that_asks_is_never_found(tmp_path):
    """By whatever name it is reached."""
    path = write_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(path)
    assert found(tmp_path) == [tmp_path / "link"]
    assert found(tmp_path, but=path) == []
    assert found(tmp_path, but=tmp_path / "link") == []


@pytest.mark.parametrize(
    "change",
    [
        {"mapping": {"sha256": "b" * 64}},
        {"mapping": None},
        {"target": "aws"},
        {"rows": 2},
        {"rows": None},
        {"run_id": None},
        {"mends": {"run_id": "another", "run_dir": "elsewhere"}},
        {"mends": None},
        {"summary": {"outcomes": {"UPDATED": 3, "INVALID": 1}}},
        {"ledger": ()},
        {"ledger": ((1, "UPDATED"), (2, "INVALID"), (3, "UPDATED"), (4, "INVALID"))},
        # The last line of a row counts.
        {"ledger": (*LEDGER, (3, "UPDATED"))},
        {"ledger": (*LEDGER, (3, "SUPERSEDED"))},
    ],
)
def test_a_run_that_cannot_have_left_the_rows_is_passed_over(tmp_path, change):
    """Of another mapping or target, with fewer rows, numbered by another run, or settled well."""
    write_run(tmp_path / "run", **change)
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 3},
        {"summary": None},  # its first execution was killed
        {"ledger": (*LEDGER, (1, "FAILED"), (4, "UPDATED"))},
    ],
)
def test_what_else_a_run_left_does_not_matter(tmp_path, change):
    """All that the file names stand FAILED or INVALID in it, and that is enough."""
    assert found(write_run(tmp_path / "run", **change).parent) == [tmp_path / "run"]


@pytest.mark.parametrize(
    "rows", [[], [(2, "update_contact")], [(2, OPERATION), (2, "update_contact")]]
)
def test_rows_count_with_their_operations(tmp_path, rows):
    """A row that failed for one operation did not fail for the other; no rows are of no run."""
    write_run(tmp_path / "run")
    assert found(tmp_path, rows=dict.fromkeys(rows)) == []


ROW_2 = (2, "INVALID", "unknown_value")
ROW_3 = (3, "FAILED", "TooOldException")
OTHER_3 = (3, "FAILED", "ReadTimeoutError")


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        ((ROW_2, ROW_3), True),
        ((ROW_2, OTHER_3), False),
        ((ROW_2, (3, "FAILED")), False),
        (((2, "INVALID", "TooOldException"), (3, "FAILED", "unknown_value")), False),
        # A retry came since: the code that the file names stands in the ledger all the same.
        ((ROW_2, ROW_3, OTHER_3), True),
        ((ROW_2, OTHER_3, ROW_3), True),
        # One of a row that was settled well meanwhile, and failed again.
        ((ROW_2, ROW_3, (3, "UPDATED"), OTHER_3), True),
        # A code of another outcome is none that failed.csv names.
        ((ROW_2, (3, "SKIPPED", "TooOldException"), OTHER_3), False),
    ],
)
def test_rows_that_failed_for_other_reasons_are_of_another_run(tmp_path, ledger, expected):
    """The run has them among its failed ones, and it is told that their codes are not its."""
    write_run(tmp_path / "run", ledger=(*ledger, (4, "INVALID", "too_long")))
    assert has_codes(tmp_path) == [expected]


@pytest.mark.parametrize(
    ("mending", "expected"),
    [
        # Its numbers are its own: row 1 there is row 3 here.
        (((1, "FAILED", "TooOldException"),), True),
        (((1, "FAILED", "ReadTimeoutError"),), False),
        (((1, "SKIPPED", "TooOldException"),), False),
        (None, False),
    ],
)
def test_codes_of_a_run_that_mended_the_rows_count(tmp_path, mending, expected):
    """What fails there again has its number in the first run, and a new code."""
    other = tmp_path / "other" / "deep" / "run"
    noted = [{"run_id": "m", "run_dir": str(other)}]
    write_run(tmp_path / "runs" / "run", ledger=(ROW_2, OTHER_3), mended_by=noted)
    if mending is not None:
        write_run(other, ledger=mending)
    assert has_codes(tmp_path / "runs") == [expected]


@pytest.mark.parametrize("content", [b"", b"[]", b"no JSON", b"\xff\xfe"])
def test_what_only_looks_like_a_run_is_passed_over(tmp_path, content):
    """A run.json of another program is nothing to stop for, nor a run without a ledger."""
    (write_run(tmp_path / "run") / "run.json").write_bytes(content)
    (write_run(tmp_path / "empty") / "ledger.jsonl").unlink()
    assert is_run(tmp_path / "run")
    assert not is_run(tmp_path / "empty")
    assert found(tmp_path) == []


def test_a_damaged_ledger_is_not_passed_over(tmp_path):
    """The run may be the one: that nobody can tell is said, and not taken for a no."""
    path = write_run(tmp_path / "run") / "ledger.jsonl"
    path.write_bytes(b"damaged\n" + path.read_bytes())
    with pytest.raises(LedgerCorrupt):
        found(tmp_path)
