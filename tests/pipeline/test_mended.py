"""A mended `failed.csv`: what is sent of it, and what it does not undo. All in all 15 s."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bulk_updater.errors import LedgerLocked, UsageError
from bulk_updater.ledger import RunDir
from bulk_updater.pipeline import run
from bulk_updater.pipeline.again import retry
from bulk_updater.pipeline.threads import entered_in_thread

from .again import INVALID_ROW, Refusing, config_of, export, sandbox_with
from .helpers import attributes, ledger_of, read_table, write_table

pytestmark = pytest.mark.looptime

ATTRIBUTES = "update_contact_attributes"


@pytest.fixture
def folder(folder_again: Path) -> Path:
    (folder_again / "mapping.yaml").write_text(INVALID_ROW)
    return folder_again


def outcomes(summary) -> dict[str, int]:
    return {name: number for name, number in summary.outcomes.items() if number}


def mend(failed: str | Path, *changes: dict[str, str], to: Path | None = None) -> Path:
    """`failed.csv` with some cells of its rows changed, in place or as another file."""
    path = Path(failed)
    rows = read_table(path)
    to = to or path
    write_table(to, [row | change for row, change in zip(rows, changes, strict=True)])
    return to


def replace_in(path: str, old: str, new: str) -> None:
    Path(path).write_text(Path(path).read_text().replace(old, new))


async def test_a_mended_row_does_not_undo_a_later_one(folder):
    """Row 1 was INVALID; mended, only what row 2 of its contact did not write is sent."""
    export(folder / "export.csv", "c-1 a=old b=bad c=kept", "c-1 a=new", "c-2 a=2")
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        assert outcomes(first) == {"UPDATED": 2, "INVALID": 1}
        refusing.seen.clear()
        path = mend(first.failed, {"B": "b1"})
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "mended"))
        assert refusing.seen == [{"b": "b1", "c": "kept"}]
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b1", "c": "kept"}
    assert outcomes(again) == {"UPDATED": 1}
    assert again.failed is None
    noted = json.loads((folder / "mended" / "run.json").read_text())
    assert noted["mends"] == {"run_id": first.run_id, "run_dir": str(folder / "run")}


async def test_nothing_left_of_a_mended_row_is_superseded(folder):
    """Row 2 wrote all of it: no request, and a sentence with the row of the first run."""
    export(folder / "export.csv", "c-1 a=old b=bad", "c-1 a=new b=b2")
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        path = mend(first.failed, {"B": "b1"})
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "mended"))
        assert len(refusing.seen) == 1
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b2"}
    assert outcomes(again) == {"SUPERSEDED": 1}
    (line,) = ledger_of(again)
    assert "row 1: row 2 of the run that it comes from" in line["error"]


async def test_what_earlier_rows_wrote_does_not_stand_in_the_way(folder):
    """Row 2, mended, is newer than row 1 whatever its number in the mended file."""
    export(folder / "export.csv", "c-1 a=old", "c-1 a=new b=bad")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        path = mend(first.failed, {"B": "b1"})
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "mended"))
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b1"}
    assert outcomes(again) == {"UPDATED": 1}


async def test_a_row_between_two_that_were_merged_is_newer_than_the_first(folder):
    """Rows 1 and 3 went as one request; row 2, mended, keeps what row 3 itself did not write."""
    export(folder / "export.csv", "c-1 a=1", "c-1 a=2 b=bad c=2", "c-1 c=3")
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        assert refusing.seen == [{"a": "1", "c": "3"}]
        path = mend(first.failed, {"B": "b2"})
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "mended"))
        assert attributes(sandbox, "c-1") == {"a": "2", "b": "b2", "c": "3"}
    assert outcomes(again) == {"UPDATED": 1}


async def test_a_mended_contact_is_looked_up_as_mended(folder):
    """A row that names another contact now keeps to what later rows wrote to that one."""
    export(folder / "export.csv", "missing-1 a=old b=b1", "c-1 a=new")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        assert outcomes(first) == {"UPDATED": 1, "FAILED": 1}
        path = mend(first.failed, {"Contact": "c-1"})
        await run(config_of(sandbox, folder, path, run_dir=folder / "mended"))
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b1"}


async def test_only_the_operations_that_a_row_failed_for_are_sent(folder):
    """The name was refused and the attributes were not: one request, and one SKIPPED result."""
    export(folder / "export.csv", "c-1 a=1 n=bad", "c-2 a=2 n=two")
    refusing = Refusing("bad")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, mapping=folder / "both.yaml")
        first = await run(config)
        refusing.seen.clear()
        path = mend(first.failed, {"Name": "good", "A": "9"})
        again = await run(replace(config, sources=(path,), run_dir=folder / "mended"))
        assert refusing.seen == [{"Name": "good"}]
        assert attributes(sandbox, "c-1") == {"a": "1"}
    assert outcomes(again) == {"UPDATED": 1, "SKIPPED": 1}
    codes = {each["operation"]: each.get("error_code") for each in ledger_of(again)}
    assert codes == {ATTRIBUTES: "settled_before", "update_contact": None}


@pytest.mark.parametrize(
    ("column", "cell", "named"),
    [
        ("_row", "", "_row"),
        ("_row", "one", "_row"),
        ("_row", "0", "_row"),
        ("_row", "3", "_row"),
        ("_operation", "", "_operation"),
        ("_operation", "update_contacts", "_operation"),
        ("_operation", f"{ATTRIBUTES}; ", "_operation"),
    ],
)
async def test_a_row_that_does_not_say_what_it_was_is_invalid(folder, column, cell, named):
    """It is never sent; its error names the column, and failed.csv keeps the cells to be mended."""
    export(folder / "export.csv", "c-1 a=1 b=bad", "c-2 a=2 b=bad")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        path = mend(first.failed, {"B": "b1", column: cell}, {"B": "b2"})
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "mended"))
        assert sandbox.counters[ATTRIBUTES].received == 1
    assert outcomes(again) == {"UPDATED": 1, "INVALID": 1}
    bad = next(each for each in ledger_of(again) if each["outcome"] == "INVALID")
    assert bad["error_code"] == "bad_origin"
    assert f"row 1: {named} " in bad["error"]
    (row,) = read_table(Path(again.failed))
    assert row[column] == cell


async def test_rows_are_mended_again_and_again(folder):
    """A row that is INVALID twice keeps its first number, and undoes nothing when it is sent."""
    rows = ["c-2 a=2 b=bad", "c-1 a=old b=bad c=x", "c-1 a=new"]
    export(folder / "export.csv", *rows)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        path = mend(first.failed, {"B": "b2"}, {"B": "worse"})
        second = await run(config_of(sandbox, folder, path, run_dir=folder / "second"))
        assert outcomes(second) == {"UPDATED": 1, "INVALID": 1}
        (row,) = read_table(Path(second.failed))
        assert (row["_row"], row["_operation"]) == ("2", ATTRIBUTES)
        path = mend(second.failed, {"B": "b1"})
        third = await run(config_of(sandbox, folder, path, run_dir=folder / "third"))
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b1", "c": "x"}
    assert outcomes(third) == {"UPDATED": 1}
    noted = json.loads((folder / "run" / "run.json").read_text())
    assert [each["run_id"] for each in noted["mended_by"]] == [second.run_id, third.run_id]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_retry_does_not_undo_what_was_mended(folder, is_kept):
    """Row 2 was mended and sent; row 1, retried, leaves that alone, also without the mended file.

    Row 3 is newer than the mended one; without the file nobody knows, and it is left out, too.
    """
    export(folder / "export.csv", "c-1 a=1 c=refused", "c-1 a=2 b=bad", "c-1 a=3 c=refused")
    refusing = Refusing("refused")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        first = await run(config)
        assert outcomes(first) == {"FAILED": 2, "INVALID": 1}
        rows = read_table(Path(first.failed))
        mended = folder / "mended.csv"
        write_table(mended, [rows[1] | {"B": "b2"}])
        await run(
            config_of(sandbox, folder, mended, run_dir=folder / "second", mends=folder / "run")
        )
        assert attributes(sandbox, "c-1") == {"a": "2", "b": "b2"}
        if not is_kept:
            mended.unlink()
        refusing.codes.clear()
        again = await retry(config)
        expected = {"a": "3" if is_kept else "2", "b": "b2", "c": "refused"}
        assert attributes(sandbox, "c-1") == expected
    assert outcomes(again) == {"UPDATED": 2, "INVALID": 1}


async def test_a_mended_run_is_retried_like_any(folder):
    """What failed in it is sent again, and still undoes nothing of the run that it comes from."""
    export(folder / "export.csv", "c-1 a=old b=bad c=refused", "c-1 a=new")
    refusing = Refusing("refused")
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        mended = mend(first.failed, {"B": "b1"}, to=folder / "mended.csv")
        config = config_of(sandbox, folder, mended, run_dir=folder / "second", mends=folder / "run")
        assert outcomes(await run(config)) == {"FAILED": 1}
        refusing.codes.clear()
        again = await retry(config)
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b1", "c": "refused"}
    assert outcomes(again) == {"UPDATED": 1}


async def test_the_run_that_rows_come_from_is_not_going_on_meanwhile(folder):
    """While its directory is locked nothing is sent, and a mended run locks it, too."""
    export(folder / "export.csv", "c-1 a=1 b=bad")
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        first = await run(config)
        path = mend(first.failed, {"B": "b1"}, to=folder / "mended.csv")
        mending = config_of(sandbox, folder, path, run_dir=folder / "m", mends=folder / "run")
        async with entered_in_thread(RunDir.open(folder / "run")):
            with pytest.raises(LedgerLocked):
                await run(mending)
        assert sandbox.counters[ATTRIBUTES].received == 0
        assert outcomes(await run(mending)) == {"UPDATED": 1}
        assert outcomes(await retry(config)) == {"INVALID": 1}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mends": "nowhere"}, r"nowhere is not the run that it comes from"),
        ({"mends": "nowhere"}, r"Name that run's directory with --mends; or take the columns"),
        ({"mends": "run", "supersede": Path("other")}, r"Leave --only-changed and --supersede out"),
    ],
)
async def test_a_run_that_is_named_has_to_be_the_one(folder, settings, told):
    """Where --mends names no run, or does not go with what else is told, nothing is sent."""
    export(folder / "export.csv", "c-1 a=1 b=bad")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        path = Path(shutil.copy(first.failed, folder / "away.csv"))
        settings = settings | {"mends": folder / settings["mends"]}
        with pytest.raises(UsageError, match=told):
            await run(config_of(sandbox, folder, path, run_dir=folder / "m", **settings))
        assert sandbox.counters[ATTRIBUTES].received == 0


async def test_mends_without_a_mended_source_is_refused(folder):
    """An export has no rows of another run, and is not run beside a mended file."""
    export(folder / "export.csv", "c-1 a=1 b=bad")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        config = config_of(sandbox, folder, run_dir=folder / "m", mends=folder / "run")
        with pytest.raises(UsageError, match="no source has the columns _row and _operation"):
            await run(config)
        both = (Path(first.failed), folder / "export.csv")
        with pytest.raises(UsageError, match="Run each kind by itself"):
            await run(config_of(sandbox, folder, *both, run_dir=folder / "n"))
        assert sandbox.counters[ATTRIBUTES].received == 0


async def test_another_target_is_refused(folder):
    """What a rehearsal left is not mended in the real contacts."""
    export(folder / "export.csv", "c-1 a=1 b=bad")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        run_json = folder / "run" / "run.json"
        run_json.write_text(json.dumps(json.loads(run_json.read_text()) | {"target": "aws"}))
        path = mend(first.failed, {"B": "b1"})
        with pytest.raises(UsageError, match="not sent to the same kind of target"):
            await run(config_of(sandbox, folder, path, run_dir=folder / "m"))
        assert sandbox.counters[ATTRIBUTES].received == 0


async def test_unreadable_and_filtered_rows_stay_what_they_are(folder):
    """A ragged row is INVALID for being ragged, and one that `where` leaves out is SKIPPED."""
    where = "source:\n  where:\n    - {column: Name, not: out}\n"
    (folder / "mapping.yaml").write_text(where + INVALID_ROW)
    with (folder / "export.csv").open("a") as file:
        file.write("Contact,A,B,C,Name\nc-1,1,bad,,in\nc-2,2\nc-3,3,bad,,in\n")
    async with sandbox_with(Refusing()) as sandbox:
        first = await run(config_of(sandbox, folder))
        assert outcomes(first) == {"INVALID": 3}
        replace_in(first.failed, "c-1,1,bad,,in", "c-1,1,bad,,out")
        again = await run(config_of(sandbox, folder, Path(first.failed), run_dir=folder / "m"))
    codes = {each["row"]: each["error_code"] for each in ledger_of(again)}
    assert codes == {1: "filtered", 2: "ragged_row", 3: "unknown_value"}


# --- Copies that are saved elsewhere ----------------------------------------------------------

OWN = "it is run as an export of its own, and its rows may overwrite later ones"
"""Part of the warning where nobody knows which run rows come from."""

ROWS = ("c-1 a=old b=bad", "c-1 a=new")
"""Row 1 is INVALID, and row 2 wrote what a mended row 1 would undo."""


def warnings_in(caplog) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def away(summary, folder: Path, *changes: dict[str, str]) -> Path:
    """A mended copy of a run's `failed.csv`, and the file itself gone."""
    (folder / "away").mkdir(exist_ok=True)
    path = mend(summary.failed, *changes, to=folder / "away" / "mended.csv")
    Path(summary.failed).unlink()
    return path


@pytest.mark.parametrize("place", ["away/run", "runs/mapping/export-1"])
async def test_the_run_of_a_copy_is_found_by_its_rows(folder, caplog, place):
    """In the copy's own directory or where runs are, two levels down: row 2 is not undone."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / place))
        path = away(first, folder, {"B": "b1"})
        refusing.seen.clear()
        caplog.clear()
        with caplog.at_level("INFO", logger="bulk_updater"):
            again = await run(config_of(sandbox, folder, path, run_dir=folder / "away" / "m"))
        assert refusing.seen == [{"b": "b1"}]
        assert attributes(sandbox, "c-1") == {"a": "new", "b": "b1"}
    assert outcomes(again) == {"UPDATED": 1}
    told = [line for line in caplog.messages if "its rows come from the run in" in line]
    assert told == [f"{path}: its rows come from the run in {folder / place}."]
    assert warnings_in(caplog) == []
    noted = json.loads((folder / "away" / "m" / "run.json").read_text())
    assert noted["mends"] == {"run_id": first.run_id, "run_dir": str(folder / place)}


async def expect_own(sandbox, folder: Path, refusing: Refusing, caplog, path: Path) -> None:
    """Run a copy of which the run is not known: all of row 1 is sent, after one warning."""
    refusing.seen.clear()
    caplog.clear()
    again = await run(config_of(sandbox, folder, path, run_dir=folder / "away" / "m"))
    assert refusing.seen == [{"a": "old", "b": "b1"}]
    assert outcomes(again) == {"UPDATED": 1}
    (warning,) = warnings_in(caplog)
    assert OWN in warning
    assert "the columns _row and _operation" in warning
    assert warning.endswith("name the run that they come from with --mends.")


@pytest.mark.parametrize("place", ["away/too/deep/run", "elsewhere/run"])
async def test_a_copy_whose_run_is_not_near_is_an_export_of_its_own(folder, caplog, place):
    """Three levels down, or somewhere else, a run is not looked for; one warning says so."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / place))
        path = away(first, folder, {"B": "b1"})
        await expect_own(sandbox, folder, refusing, caplog, path)
        assert f"is in {folder / 'runs'} or {folder / 'away'}" in caplog.text
        assert attributes(sandbox, "c-1") == {"a": "old", "b": "b1"}
    assert "mended_by" not in json.loads((folder / place / "run.json").read_text())


@pytest.mark.parametrize(("column", "cell"), [("_row", "2"), ("_row", "")])
async def test_a_row_that_did_not_fail_is_of_another_run(folder, caplog, column, cell):
    """A copy that names a row or an operation that the run settled well, or none, is not its."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / "away" / "run"))
        path = away(first, folder, {"B": "b1", column: cell})
        await expect_own(sandbox, folder, refusing, caplog, path)


async def test_a_copy_that_two_runs_may_have_left_is_an_export_of_its_own(folder, caplog):
    """Two nights left the same row: the warning names both, and neither is noted or locked."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / "away" / "one"))
        await run(config_of(sandbox, folder, run_dir=folder / "runs" / "two"))
        path = away(first, folder, {"B": "b1"})
        await expect_own(sandbox, folder, refusing, caplog, path)
        both = f"from {folder / 'runs' / 'two'} and from {folder / 'away' / 'one'}"
        assert f"its rows may come {both}" in caplog.text
        # Named, it is one of them.
        refusing.seen.clear()
        named = config_of(
            sandbox, folder, path, run_dir=folder / "n", mends=folder / "away" / "one"
        )
        assert outcomes(await run(named)) == {"UPDATED": 1}
        assert refusing.seen == [{"b": "b1"}]


@pytest.mark.parametrize("code", ["unknown_value", "", "ConflictException"])
async def test_of_two_runs_the_codes_tell_which_left_the_rows(folder, caplog, code):
    """Row 1 was INVALID one night, and FAILED the next: `_error_code` tells them apart.

    Where it is empty, two runs may have left the row; where it is of neither, it is of no run, and
    the warning says so.
    """
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        export(folder / "export.csv", *ROWS)
        first = await run(config_of(sandbox, folder, run_dir=folder / "away" / "one"))
        path = away(first, folder, {"B": "b1", "_error_code": code})
        export(folder / "export.csv", "missing-1 a=old", "c-1 a=new")
        second = await run(config_of(sandbox, folder, run_dir=folder / "runs" / "two"))
        assert outcomes(second) == {"UPDATED": 1, "FAILED": 1}
        if code != "unknown_value":
            await expect_own(sandbox, folder, refusing, caplog, path)
            why = "with other codes than _error_code says" if code else "its rows may come from"
            assert why in caplog.text
            return
        refusing.seen.clear()
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "m"))
        assert refusing.seen == [{"b": "b1"}]
    assert outcomes(again) == {"UPDATED": 1}
    noted = json.loads((folder / "m" / "run.json").read_text())
    assert noted["mends"]["run_dir"] == str(folder / "away" / "one")


async def test_codes_of_both_operations_are_compared(folder):
    """A row that failed for both has two codes in one cell, and each has to be the run's."""
    export(folder / "export.csv", "c-1 a=bad n=bad", "c-2 a=2")
    refusing = Refusing("bad", code="ConflictException")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder, mapping=folder / "both.yaml")
        first = await run(replace(config, run_dir=folder / "away" / "run"))
        (row,) = read_table(Path(first.failed))
        assert row["_error_code"] == "ConflictException; ConflictException"
        for number, codes in enumerate(
            ["ConflictException; ConflictException", "ConflictException", "ConflictException; X"]
        ):
            name = f"{number}.csv"
            path = mend(
                first.failed, {"A": "1", "Name": "n", "_error_code": codes}, to=folder / name
            )
            again = replace(
                config, sources=(path,), run_dir=folder / name[0], runs_dir=folder / "away"
            )
            await run(again)
            noted = json.loads((folder / name[0] / "run.json").read_text())
            assert (noted["mends"] is None) == codes.endswith("X")


# --- Runs that a newer export took over from --------------------------------------------------

OLDER = "took over from the run that the rows come from, with a newer export. Nothing was sent"


@pytest.mark.parametrize("how", ["named", "lies in it", "found"])
async def test_rows_of_a_superseded_run_are_not_mended(folder, how):
    """A newer export wrote to their contacts: however the run is known, nothing is sent."""
    export(folder / "export.csv", *ROWS)
    newer = export(folder / "newer.csv", "c-1 a=newest b=b2")
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / "runs" / "old"))
        path = mend(first.failed, {"B": "b1"})
        if how != "lies in it":
            path = away(first, folder, {"B": "b1"})
        settings = {"run_dir": folder / "new", "supersede": folder / "runs" / "old"}
        await run(config_of(sandbox, folder, newer, **settings))
        refusing.seen.clear()
        mends = folder / "runs" / "old" if how == "named" else None
        with pytest.raises(UsageError, match=f"run in .*new {OLDER}"):
            await run(config_of(sandbox, folder, path, run_dir=folder / "m", mends=mends))
        assert refusing.seen == []
        assert attributes(sandbox, "c-1") == {"a": "newest", "b": "b2"}
    assert "mended_by" not in json.loads((folder / "runs" / "old" / "run.json").read_text())


async def test_where_one_of_two_runs_is_superseded_the_right_one_is_to_be_named(folder):
    """The rows may be older than what is applied, so they are no export of their own."""
    export(folder / "export.csv", *ROWS)
    newer = export(folder / "newer.csv", "c-1 a=newest b=bad", "c-2 a=2")
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        old, new = folder / "runs" / "old", folder / "runs" / "new"
        first = await run(config_of(sandbox, folder, run_dir=old))
        path = mend(first.failed, {"B": "b1"}, to=folder / "mended.csv")
        second = await run(config_of(sandbox, folder, newer, run_dir=new, supersede=old))
        assert outcomes(second) == {"UPDATED": 1, "INVALID": 1}
        refusing.seen.clear()
        with pytest.raises(UsageError, match=r"Name the run that they come from with --mends"):
            await run(config_of(sandbox, folder, path, run_dir=folder / "m"))
        assert refusing.seen == []
        path = mend(second.failed, {"B": "b2"}, to=folder / "newer_mended.csv")
        again = await run(config_of(sandbox, folder, path, run_dir=folder / "n", mends=new))
        assert attributes(sandbox, "c-1") == {"a": "newest", "b": "b2"}
    assert outcomes(again) == {"UPDATED": 1}


async def test_a_mended_run_that_is_superseded_ends_the_mending(folder):
    """What took over from it is newer than all rows of the first run: none is sent again."""
    export(folder / "export.csv", *ROWS, "c-3 a=refused")
    newer = export(folder / "newer.csv", "c-1 a=newest b=b3")
    refusing = Refusing("refused")
    async with sandbox_with(refusing) as sandbox:
        config = config_of(sandbox, folder)
        first = await run(config)
        path = mend(first.failed, {"B": "b1"}, {}, to=folder / "mended.csv")
        mended = {"run_dir": folder / "m", "mends": folder / "run"}
        await run(config_of(sandbox, folder, path, **mended))
        settings = {"run_dir": folder / "new", "supersede": folder / "m"}
        await run(config_of(sandbox, folder, newer, **settings))
        refusing.codes.clear()
        refusing.seen.clear()
        with pytest.raises(UsageError, match=OLDER):
            await retry(config)
        with pytest.raises(UsageError, match=OLDER):
            await run(config_of(sandbox, folder, path, run_dir=folder / "o", mends=folder / "run"))
        assert refusing.seen == []


async def test_what_is_decided_of_a_copy_holds_when_it_goes_on(folder, caplog):
    """A run that began as an export of its own stays one, though its origin is there by now."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing("b1")
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / "elsewhere" / "run"))
        path = away(first, folder, {"B": "b1"})
        config = config_of(sandbox, folder, path, run_dir=folder / "away" / "m")
        assert outcomes(await run(config)) == {"FAILED": 1}
        (folder / "elsewhere" / "run").rename(folder / "away" / "run")
        refusing.codes.clear()
        refusing.seen.clear()
        caplog.clear()
        assert outcomes(await retry(config)) == {"UPDATED": 1}
        assert refusing.seen == [{"a": "old", "b": "b1"}]
        assert [OWN in warning for warning in warnings_in(caplog)] == [True]


async def test_what_is_found_of_a_copy_holds_when_it_goes_on(folder, caplog):
    """A run whose origin was found keeps it, though another run would fit by now."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing("b1")
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / "runs" / "one"))
        path = away(first, folder, {"B": "b1"})
        config = config_of(sandbox, folder, path, run_dir=folder / "away" / "m")
        assert outcomes(await run(config)) == {"FAILED": 1}
        await run(config_of(sandbox, folder, run_dir=folder / "runs" / "two"))
        refusing.codes.clear()
        refusing.seen.clear()
        assert outcomes(await retry(config)) == {"UPDATED": 1}
        assert refusing.seen == [{"b": "b1"}]
    assert warnings_in(caplog) == []


async def test_what_an_export_of_its_own_left_is_still_numbered_by_the_first_run(folder):
    """Its failed.csv is never taken for rows of its own; with the first run there, they are that's.

    Named as the run that they come from, it is refused.
    """
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder, run_dir=folder / "elsewhere" / "run"))
        path = away(first, folder, {"B": "worse"})
        second = await run(config_of(sandbox, folder, path, run_dir=folder / "away" / "m"))
        assert outcomes(second) == {"INVALID": 1}
        (row,) = read_table(Path(second.failed))
        assert row["_row"] == "1"
        path = mend(second.failed, {"B": "b1"})
        refusing.seen.clear()
        named = config_of(sandbox, folder, path, run_dir=folder / "n", mends=folder / "away" / "m")
        with pytest.raises(UsageError, match="nobody knew from which"):
            await run(named)
        assert refusing.seen == []
        (folder / "elsewhere" / "run").rename(folder / "away" / "m" / "run")
        third = await run(config_of(sandbox, folder, path, run_dir=folder / "third"))
        assert refusing.seen == [{"b": "b1"}]
    assert outcomes(third) == {"UPDATED": 1}


async def test_copies_of_a_run_that_is_found_and_one_that_is_not_are_refused(folder):
    """Together nobody could say which of their rows are newer; nothing is sent."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        found = mend(first.failed, {"B": "b1"}, to=folder / "found.csv")
        lost = mend(first.failed, {"B": "b1", "_row": "2"}, to=folder / "lost.csv")
        refusing.seen.clear()
        with pytest.raises(UsageError, match="or from some that are not found"):
            await run(config_of(sandbox, folder, found, lost, run_dir=folder / "m"))
    assert refusing.seen == []


async def test_nothing_is_created_where_the_first_run_is_gone(folder):
    """A run of mended rows names its origin; where that is not any more, nothing is sent."""
    export(folder / "export.csv", *ROWS)
    refusing = Refusing()
    async with sandbox_with(refusing) as sandbox:
        first = await run(config_of(sandbox, folder))
        path = mend(first.failed, {"B": "worse"})
        second = await run(config_of(sandbox, folder, path, run_dir=folder / "second"))
        path = mend(second.failed, {"B": "b1"})
        (folder / "run").rename(folder / "gone")
        refusing.seen.clear()
        with pytest.raises(UsageError, match="is no directory of a run"):
            await run(config_of(sandbox, folder, path, run_dir=folder / "third"))
    assert refusing.seen == []
    assert not (folder / "run").exists()
