"""`bulk-updater run`: what it prints, and the exit code that tells scripts how it ended."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from bulk_updater.errors import (
    ConfigError,
    LedgerLocked,
    LedgerWriteError,
    MappingError,
    RunStopped,
    SourceError,
)
from bulk_updater.model import FoundQuota, PaceSummary, QuotaOrigin

from .conftest import summary_of

RESUME = "bulk-updater run mapping.yaml export.csv"


def test_a_run_that_went_well_says_so_in_its_first_line(call, ends_with):
    """Exit code 0; every outcome with its number, in columns, and the ledger."""
    ends_with(summary_of(outcomes={"UPDATED": 1203}, rows_read=1204, attempts=1250, throttled=47))
    ran = call("run mapping.yaml export.csv")
    assert ran.code == 0
    assert ran.out == (
        "Finished in 7 s: every row settled well.\n"
        "\n"
        "  UPDATED  1,203\n"
        "  FAILED       0\n"
        "  INVALID      0\n"
        "  SKIPPED      1\n"
        "\n"
        "1,204 rows; 1,250 requests were sent, 47 of them throttled (3.8 %).\n"
        "ledger  runs/mapping/export-0123456789ab/ledger.jsonl\n"
    )


def paced(found: FoundQuota | None = None, **changes: Any) -> PaceSummary:
    settings: dict[str, Any] = {
        "operation": "update_contact",
        "ceiling_per_s": None,
        "quota_per_s": 10.0,
        "origin": QuotaOrigin.DOCUMENTED,
        "exclusive": False,
        "started": 100,
        "throttled": 3,
        "started_per_s": 7.9,
        "found": found,
    }
    return PaceSummary(**(settings | changes))


FOUND = FoundQuota(rate_per_s=19.94, burst=30.4)


@pytest.mark.parametrize(
    ("pace", "says"),
    [
        (
            [paced(FOUND, exclusive=True)],
            ["Your quota looks like 19.9/s with burst about 30; documented 10."],
        ),
        (
            [paced(FOUND)],
            [
                (
                    "Your quota looks like 19.9/s next to what others took, with burst about 30; "
                    "documented 10."
                )
            ],
        ),
        (
            [paced(FoundQuota(rate_per_s=8.0))],
            ["Your quota looks like 8/s next to what others took; documented 10."],
        ),
        (
            [paced(FOUND, exclusive=True, origin=QuotaOrigin.APPLIED, quota_per_s=25.0)],
            ["Your quota looks like 19.9/s with burst about 30; Service Quotas says 25."],
        ),
        (
            [paced(FOUND, exclusive=True, origin=QuotaOrigin.LEARNT, quota_per_s=25.0)],
            ["Your quota looks like 19.9/s with burst about 30; documented 10."],
        ),
        (
            [paced(operation="update_contact_attributes"), paced(FOUND, exclusive=True)],
            [
                "update_contact: your quota looks like 19.9/s with burst about 30; documented 10.",
            ],
        ),
        ([paced()], []),
        ([], []),
    ],
)
def test_what_the_quota_looks_like_is_said_where_it_was_found(call, ends_with, pace, says):
    """One sentence for each operation that has one, below what was sent; else none."""
    ends_with(summary_of(pace=tuple(pace)))
    lines = call("run mapping.yaml export.csv").out.splitlines()
    below = lines[lines.index("4 rows; 3 requests were sent.") + 1 :]
    assert below[:-1] == says


def test_json_holds_the_pace(call, ends_with):
    """Every figure of it, the burst too."""
    ends_with(summary_of(pace=(paced(FOUND),)))
    (pace,) = json.loads(call("run mapping.yaml export.csv --json").out)["pace"]
    assert pace == {
        "operation": "update_contact",
        "ceiling_per_s": None,
        "quota_per_s": 10.0,
        "origin": "documented",
        "exclusive": False,
        "started": 100,
        "throttled": 3,
        "started_per_s": 7.9,
        "found": {"rate_per_s": 19.94, "burst": 30.4},
    }


def test_bad_rows_are_counted_and_their_file_is_named(call, ends_with):
    """Exit code 1; the headline counts FAILED and INVALID, and says what to do with them."""
    ends_with(
        summary_of(outcomes={"UPDATED": 1, "FAILED": 1, "INVALID": 1}, failed="runs/x/failed.csv")
    )
    ran = call("run mapping.yaml export.csv")
    assert ran.code == 1
    assert ran.out.startswith("Finished in 7 s: 2 results need a look.\n")
    assert ran.out.endswith(
        "ledger  runs/mapping/export-0123456789ab/ledger.jsonl\n"
        "failed  runs/x/failed.csv\n"
        "        Mend these rows and run this file with the same mapping.\n"
    )


def test_one_of_anything_is_one(call, ends_with):
    """One row, one request, one result: no plural."""
    ends_with(
        summary_of(
            outcomes={"UPDATED": 0, "FAILED": 1, "SKIPPED": 0}, rows_read=1, attempts=1, throttled=0
        )
    )
    ran = call("run mapping.yaml export.csv")
    assert "1 result needs a look." in ran.out
    assert "1 row; 1 request was sent.\n" in ran.out


def test_a_run_that_had_nothing_to_do_says_that_nothing_was_sent(call, ends_with):
    """The second time: the same outcomes, and no requests."""
    ends_with(summary_of(attempts=0))
    assert "4 rows; nothing was sent.\n" in call("run mapping.yaml export.csv").out


def test_two_operations_have_results_beside_rows(call, ends_with):
    """Where rows and results differ, both are counted."""
    ends_with(summary_of(rows_read=2))
    assert "2 rows, 4 results; 3 requests were sent.\n" in call("run mapping.yaml export.csv").out


def test_an_interrupted_run_ends_with_the_command_that_goes_on(call, ends_with):
    """Exit code 130; the last line can be pasted."""
    ends_with(summary_of(state="interrupted", unsettled=1, resume=RESUME, rows_read=5))
    ran = call("run mapping.yaml export.csv")
    assert ran.code == 130
    assert ran.out.startswith("Interrupted after 7 s, with 1 result to go.\n")
    assert "  not settled  1\n" in ran.out
    assert ran.out.endswith(f"\nTo go on:\n{RESUME}\n")


def test_a_stopped_run_says_why_and_how_to_go_on(call, ends_with):
    """Exit code 3; the reason is an error, the summary is printed all the same."""
    summary = summary_of(
        state="stopped", reason="No permission.", unsettled=1000, resume=RESUME, rows_read=1004
    )
    ends_with(RunStopped("No permission.", summary=summary))
    ran = call("run mapping.yaml export.csv")
    assert (ran.code, ran.error) == (3, "error: No permission.\n")
    assert ran.out.startswith("Stopped after 7 s, with 1,000 results to go.\n")
    assert ran.out.splitlines()[-1] == RESUME


def test_a_long_command_stays_on_one_line(call, ends_with):
    """A path of 300 characters is not wrapped: it is there to be copied."""
    long = f"{RESUME} --run-dir /{'deep/' * 60}"
    ends_with(summary_of(state="interrupted", unsettled=1, resume=long, rows_read=5))
    assert call("run mapping.yaml export.csv").out.splitlines()[-1] == long


@pytest.mark.parametrize("state", ["finished", "stopped", "interrupted"])
def test_json_is_one_object_and_nothing_else(call, ends_with, state):
    """Standard output parses as one object with every member of the summary."""
    resume = None if state == "finished" else RESUME
    summary = summary_of(state=state, resume=resume)
    ends_with(RunStopped("Why.", summary=summary) if state == "stopped" else summary)
    ran = call("run mapping.yaml export.csv --json")
    assert ran.code == {"finished": 0, "stopped": 3, "interrupted": 130}[state]
    found = json.loads(ran.out)
    assert (found["state"], found["resume"]) == (state, resume)
    assert found["outcomes"] == {
        "UPDATED": 3,
        "FAILED": 0,
        "INVALID": 0,
        "SKIPPED": 1,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    assert len(found) == 14


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("There is no AWS region; name one."),
        MappingError("is wrong."),
        SourceError("cannot be read."),
        LedgerLocked("is in use.", path="runs"),
        LedgerWriteError("cannot be used.", path="runs"),
    ],
)
def test_what_cannot_begin_is_exit_code_2(call, ends_with, error):
    """One line of error, no summary, also with --json."""
    ends_with(error)
    for flags in ("", "--json"):
        ran = call(f"run mapping.yaml export.csv {flags}")
        assert (ran.code, ran.out, ran.error) == (2, "", f"error: {error.message}\n")


def test_a_fault_of_ours_quotes_no_cell(call, ends_with):
    """Exit code 3; type and place of a foreign error, never its text, and no traceback."""
    ends_with(KeyError("0044123 secret"))
    ran = call("run mapping.yaml export.csv")
    assert ran.code == 3
    assert "This is a fault in bulk_updater (KeyError in pipeline, line" in ran.err
    assert "secret" not in ran.err
    assert "Traceback" not in ran.err


def test_text_in_square_brackets_is_printed_as_it_stands(call, ends_with):
    """A path or a column may look like markup, with backslashes too."""
    ends_with(SourceError(r"C:\exports [bold]\[2026].csv: there is no such file."))
    ran = call("run mapping.yaml export.csv")
    assert ran.error == "error: C:\\exports [bold]\\[2026].csv: there is no such file.\n"


def test_debug_logs_ours_only(call, monkeypatch):
    """--debug shows our own debug lines; botocore's hold cells and signatures."""

    async def pipeline(_config, **_):
        logging.getLogger("bulk_updater.x").debug("ours")
        logging.getLogger("botocore.x").debug("theirs")
        return summary_of()

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)
    assert "ours" not in call("run mapping.yaml export.csv").err
    ran = call("run mapping.yaml export.csv --debug")
    assert "DEBUG ours\n" in ran.err
    assert "theirs" not in ran.err


def test_a_whole_rehearsal(call, tmp_path):
    """Five rows to the in-process sandbox: as many outcomes as rows, files, and exit code 1."""
    ran = call("run mapping.yaml export.csv --sandbox --rate 500 --json")
    assert ran.code == 1
    summary = json.loads(ran.out)
    assert summary["outcomes"] == {
        "UPDATED": 1,
        "FAILED": 1,
        "INVALID": 2,
        "SKIPPED": 1,
        "UNCHANGED": 0,
        "SUPERSEDED": 0,
    }
    assert (tmp_path / summary["ledger"]).read_text().count("\n") == 5
    assert (tmp_path / summary["failed"]).read_text().count("\n") == 4
    again = call("run mapping.yaml export.csv --sandbox --rate 500")
    assert again.code == 1
    assert again.err.count("All 5 rows are settled; there is nothing to send.") == 1
    assert "5 rows; nothing was sent." in again.out
