"""The README says what the program does, and its examples work."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from bulk_updater.cli import cli, exits
from bulk_updater.cli.figures import WRITE_EVERY_S
from bulk_updater.cli.standing import Standing
from bulk_updater.config import (
    DOCUMENTED_BURST,
    DOCUMENTED_RATE_PER_S,
    MaxFailures,
    PacingConfig,
    RunConfig,
)
from bulk_updater.connect import Connect, read_quotas
from bulk_updater.mapping import compile_mapping, parse_spec
from bulk_updater.mapping.values import Condition, ValueSpec
from bulk_updater.metrics import MetricsFile, Reading
from bulk_updater.model import Outcome, Quota, QuotaOrigin, RunSummary
from bulk_updater.operations import iter_operations
from bulk_updater.pacing import Pacer, ceiling_per_s, initial_rate_per_s
from bulk_updater.pipeline import ordering, quotas
from bulk_updater.pipeline.changes import state_file
from bulk_updater.pipeline.estimate import LONG_RUN_S
from bulk_updater.pipeline.quotas import quota_file
from bulk_updater.words import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = " ".join(README.split())


@pytest.fixture
def standing():
    """Where a run stands that has finished."""
    summary = RunSummary(
        run_id="20261122T220000Z-9b3202",
        state="finished",
        reason=None,
        rows_read=4,
        outcomes=dict.fromkeys((outcome.value for outcome in Outcome), 0),
        unsettled=0,
        attempts=1,
        throttled=0,
        took_s=0.8,
        ledger="runs/mapping/export-98835db0c745/ledger.jsonl",
    )
    finished = Standing()
    finished.summary = summary
    return finished


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def all_commands() -> dict[str, click.Command]:
    """Every command by its words, those of a group behind the group."""
    return dict(commands_of(cli, ()))


def commands_of(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield " ".join((*words, name)), command
        if isinstance(command, click.Group):
            yield from commands_of(command, (*words, name))


def commands() -> list[list[str]]:
    """Every `bulk-updater` command in the README's plain code blocks, help texts left out."""
    shown = README.partition("## Commands")[0]
    found = re.findall(r"^ *bulk-updater .*$", shown, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in found]


def test_the_mapping_in_the_readme_is_one():
    """It parses without a warning, and compiles against the columns that it names."""
    (text,) = blocks("yaml")
    spec = parse_spec(text, Path("README.md"))
    assert spec.warnings == ()
    header = [
        "VendorCallKey",
        "Status",
        "Id",
        "First Name",
        "Last Name",
        "Tier",
        "Renewal",
        "Score",
        "Notes",
        "Subject",
    ]
    assert sorted(compile_mapping(spec, header, "export.csv").columns) == sorted(header)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_in_the_readme_parse(words):
    """Each is a command with flags and arguments that exist."""
    if ">" in words:
        words = words[: words.index(">")]
    known = all_commands()
    n_words = 2 if " ".join(words[:2]) in known else 1
    name = " ".join(words[:n_words])
    known[name].make_context(name, words[n_words:])


def test_there_are_commands_to_check():
    """The search for commands finds the five of "Your own export" and the six of the nights."""
    assert len(commands()) == 5 + 6


def test_every_command_and_every_flag_is_in_the_readme():
    """The generated part is not empty: `cog --check` passes on a section that was never made."""
    known = all_commands()
    assert {"run", "retry", "ctl", "state forget"} <= known.keys()
    for name, command in known.items():
        section = README.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert section, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in section, (name, parameter.opts[0])


def test_every_key_of_a_value_is_in_the_readme():
    """The table of transforms and the sentence on conditions name all that exist."""
    for name in ValueSpec.model_fields:
        assert re.search(rf"`{name}\b", README), name
    for name, field in Condition.model_fields.items():
        if name != "column":
            assert f"`{field.alias or name}`" in README, name


def test_outcomes_and_figures_are_the_programs():
    """Outcomes, quota, share, codes and the breaker's number are what the code says."""
    for outcome in Outcome:
        assert f"| `{outcome.value}` |" in README
    quota = f"{DOCUMENTED_RATE_PER_S:.0f} requests a second with a burst of {DOCUMENTED_BURST:.0f}"
    assert quota in PROSE
    assert f"takes {percent(PacingConfig().quota_share)} of it by default" in PROSE
    assert MaxFailures().in_a_row == 50
    assert "Fifty failures in a row" in README
    for operation in iter_operations():
        assert operation.quota_code in README


def test_the_estimate_in_the_readme_is_right():
    """100,000 rows at the documented quota's share are about three and a half hours."""
    documented = Quota(rate_per_s=DOCUMENTED_RATE_PER_S, origin=QuotaOrigin.DOCUMENTED)
    rate_per_s = initial_rate_per_s(PacingConfig(), documented)
    assert 100_000 / rate_per_s / 3600 == pytest.approx(3.5, abs=0.1)
    assert "100,000 rows take about three and a half hours at 80 % of that" in PROSE


def test_the_figures_of_the_pace_are_the_programs():
    """How long it waits, how long it remembers and how often it saves are what the code says."""
    for ask in (read_quotas, Connect.read_quotas):
        assert inspect.signature(ask).parameters["timeout_s"].default == 3.0
    assert "nobody answers within three seconds" in PROSE
    assert quotas._FORGOTTEN_AFTER_S == 30 * 86_400
    assert "For 30 days later `auto` runs begin from it" in PROSE
    assert quotas._SAVE_EVERY_S == 60
    assert "once a minute and at the end" in PROSE
    assert LONG_RUN_S == 3600
    assert "for more than an hour, also with larger quotas" in PROSE
    config = RunConfig(mapping=Path("mapping.yaml"), sources=(Path("export.csv"),))
    assert f"kept in `{quota_file(config)}`" in PROSE


def test_the_table_of_rates_is_what_the_pace_is():
    """The default and its share; never above for two of the three, and no ceiling for `auto`."""
    quota = Quota(rate_per_s=20.0, origin=QuotaOrigin.APPLIED)
    assert PacingConfig().rate == "quota"
    assert ceiling_per_s(PacingConfig(), quota) == 16.0
    assert (
        "| `quota`, the default | 80 % of the quota that applies to the account | that |" in PROSE
    )
    assert ceiling_per_s(PacingConfig(rate="auto"), quota) is None
    assert (
        "| `auto` | 80 % of what it finds the quota to be | nothing: it looks for more |" in PROSE
    )
    assert ceiling_per_s(PacingConfig(rate=5.0), quota) == 5.0
    assert "| `N` | N requests a second | N |" in PROSE


def test_every_exit_code_is_in_the_readme():
    """Each one that the program has stands in a table."""
    codes = {value for name, value in vars(exits).items() if name.startswith("EXIT_")}
    named = {int(code) for code in re.findall(r"^\| .*?\b(\d+) \|", README, re.MULTILINE)}
    named |= {int(code) for code in re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)}
    assert named == {0, *codes}


def test_the_summary_line_is_the_programs(standing):
    """Every key of a run that finished, in its order, and every outcome among them."""
    (line,) = re.findall(r"^summary (state=.*)$", README, re.MULTILINE)
    keys = [word.partition("=")[0] for word in line.split()]
    assert keys == list(standing.fields(0, state=None, error=None))
    assert {outcome.value.lower() for outcome in Outcome} <= set(keys)
    assert "error" in standing.fields(3, state=None, error="run_stopped")
    assert "`error=` names what ended it" in PROSE


def test_the_names_of_the_metrics_are_the_programs(tmp_path):
    """Those that a run writes that went well, and no other."""
    path = tmp_path / "night.prom"
    figures = {"unsettled": 0, "attempts": 1, "throttled": 0, "in_flight": 0}
    paces = {"ceiling_per_s": 8.0, "allowed_per_s": 8.0, "started_per_s": 1.0}
    end = {"finished_at": 2.0, "finished": True, "exit_code": 0, "outcomes": {"UPDATED": 1}}
    went = Reading(job="mapping", started_at=1.0, duration_s=1.0, **figures, **paces, **end)
    MetricsFile(path).write(went)
    written = re.findall(r"^(bulk_updater_\w+)\{", path.read_text(), re.MULTILINE)
    told = PROSE.partition("- `--metrics-file")[2].partition(" - `--otel`")[0]
    alert, _, others = told.partition("the mapping's name: ")
    named = [f"bulk_updater_{name}" for name in re.findall(r"`(\w+)`", others) if name != "outcome"]
    assert re.findall(r"`(bulk_updater_\w+_seconds)`", alert) + named == [
        "bulk_updater_last_success_timestamp_seconds",
        *(name for name in written if "last_success" not in name),
    ]
    assert f"every {WRITE_EVERY_S:.0f} seconds and at the end" in told


def test_the_defaults_of_the_nights_are_the_programs():
    """Where the state is kept, and how many groups oldest-first makes."""
    config = RunConfig(mapping=Path("mapping.yaml"), sources=(Path("export.csv"),))
    assert f"The state file** is `{state_file(config)}`" in PROSE
    assert ordering.MAX_GROUPS == 64
    assert "in 64 groups at most" in PROSE


async def test_a_throttled_run_halves_its_rate_and_comes_back():
    """Next to live traffic: half at once, and within 30 seconds almost all of it."""
    now = 0.0
    documented = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED)
    pacer = Pacer(PacingConfig(), {"update_contact": documented}, lambda: now)
    for now in range(1, 11):  # noqa: B007 - the pacer's clock reads it
        pacer.accepted("update_contact", await pacer.acquire("update_contact"))
    pacer.throttled("update_contact", await pacer.acquire("update_contact"))
    assert pacer.allowed_per_s() == 4.0
    for now in range(11, 41):  # noqa: B007 - the pacer's clock reads it
        pacer.accepted("update_contact", await pacer.acquire("update_contact"))
    assert 7.0 < pacer.allowed_per_s() < 8.0
    assert "halves its rate and comes back within half a minute, to a little less" in PROSE
    assert '"giving way"' in PROSE


HELD = {
    "before the first request, and the second time, it ends at once": (
        "pipeline/test_stopping.py::test_a_source_that_is_being_read_is_not_waited_for"
    ),
    "says how many requests may have been sent already": (
        "pipeline/test_run.py::test_a_resume_says_how_many_requests_may_have_been_sent_already"
    ),
    "rows of one contact keep their order": (
        "pipeline/test_run.py::test_rows_of_one_contact_end_in_file_order"
    ),
    "each operation is counted by itself": (
        "pipeline/test_breakers.py::test_one_operation_that_fails_is_not_hidden_by_the_other"
    ),
    "A run that stops says why in one sentence": (
        "pipeline/test_breakers.py::test_every_error_that_stops_is_worded"
    ),
    "leaves its rows unsettled, and once it is mended the same command goes on": (
        "pipeline/test_breakers.py::test_an_error_of_the_whole_run_costs_no_row"
    ),
    "such as a role's, are renewed on the way": (
        "pipeline/test_credentials.py::test_a_storm_of_refusals_is_one_renewal_and_no_lost_row"
    ),
    "`run` and `plan` say both times at the start": (
        "pipeline/test_lasting.py::test_a_run_says_it_before_it_sends"
    ),
    "A disk that is full or fails stops the sending at once": (
        "e2e/test_disk_failing.py::test_a_sync_that_fails_stops_the_sending_at_once"
    ),
    "is cut off by the next run, which keeps it beside the ledger": (
        "ledger/test_ledger_recovery.py::test_a_torn_tail_is_kept_beside_the_ledger_and_cut"
    ),
    "A ledger that was damaged in its middle is refused, with the place": (
        "cli/test_ledger.py::test_a_run_never_repairs_by_itself"
    ),
    "cuts it before the damage and keeps the original": (
        "cli/test_ledger.py::test_repair_cuts_before_the_damage_and_says_what_it_did"
    ),
    "hold no other cell and no credential": (
        "e2e/test_secrets.py::test_nothing_that_is_written_holds_a_marker"
    ),
    "Files are 0600, directories 0700": (
        "e2e/test_secrets.py::test_what_a_run_makes_is_for_its_owner_alone"
    ),
    "Plain http beyond this machine needs `--allow-http`": (
        "test_connect_http.py::test_what_leaves_this_machine_in_the_clear"
    ),
    "such as `(a+)+`, can take hours on one cell": (
        "rubbish/test_mappings.py::test_a_regular_expression_that_may_take_for_ever_is_warned_of"
    ),
    "`payload_digest` is equal where rows write the same, whatever their contacts": (
        "mapping/test_digests.py::test_digests_are_equal_where_requests_are"
    ),
    "`attribute_names` is what the row itself writes": (
        "pipeline/test_sender.py::test_waiting_rows_go_as_one_request_and_each_has_its_result"
    ),
    "the last one counts": ("pipeline/test_again.py::test_a_row_that_fails_again_stands_failed"),
    "every message of failure ends with it": (
        "cli/test_night.py::test_every_error_ends_with_the_command_that_goes_on"
    ),
    "an ISO 8601 moment": "mapping/test_started.py::test_two_calendar_years_after_an_iso_moment",
    "or what `date:` says, in UTC where no zone": ("mapping/test_started.py::test_dates_of_a_form"),
    "forgets a contact 24 calendar months later": (
        "mapping/test_started.py::test_every_moment_expires_as_a_calendar_says"
    ),
    "An empty cell never expires": (
        "mapping/test_started.py::test_without_contact_started_nothing_expires"
    ),
    "one that is no date makes the row INVALID": (
        "mapping/test_started.py::test_what_is_no_date_makes_the_row_invalid_for_each_operation"
    ),
    "the same command is the next night's: an export may come back to what it was": (
        "pipeline/test_only_changed.py::"
        "test_an_export_that_comes_back_to_what_it_was_is_applied_again"
    ),
    "the others are UNCHANGED and cost no request": (
        "pipeline/test_only_changed.py::test_exactly_what_changed_is_sent"
    ),
    "--only-changed # how much that would be": (
        "pipeline/test_plan.py::test_a_plan_of_what_changed_counts_what_a_run_would_send"
    ),
    "What a row writes counts, not how the mapping comes to it": (
        "mapping/test_digests.py::test_where_a_value_comes_from_is_nothing"
    ),
    "a changed mapping sends again what it writes otherwise": (
        "pipeline/test_only_changed.py::test_a_changed_mapping_sends_what_it_changes"
    ),
    "Of a contact with several rows all are sent, in file order, or none": (
        "pipeline/test_only_changed.py"
        "::test_a_contact_with_several_rows_is_sent_as_a_whole_or_not_at_all"
    ),
    "Before a request is sent its contact is in doubt": (
        "test_state.py::test_a_contact_from_its_first_request_to_its_second"
    ),
    "once the results of all of its rows are on disk and UPDATED, their digest is remembered": (
        "nights/oracle.py::state_is_true"
    ),
    "Contacts in doubt are sent the next night, changed or not: after a failure": (
        "pipeline/test_only_changed.py::test_a_row_that_failed_is_sent_again_though_it_is_unchanged"
    ),
    "a kill, or an answer": (
        "pipeline/test_only_changed.py"
        "::test_a_request_that_a_kill_left_without_result_is_sent_next_night"
    ),
    "or an answer that never came": (
        "pipeline/test_only_changed.py::test_a_row_whose_answer_was_lost_is_sent_again"
    ),
    "what that has applied since is SUPERSEDED in it": (
        "pipeline/test_only_changed.py::test_an_older_run_that_is_resumed_undoes_nothing"
    ),
    "A run without `--only-changed`": (
        "pipeline/test_doubting.py::test_what_another_run_wrote_is_sent_again_by_the_next_night"
    ),
    "a `retry` and a run of mended rows ask nobody what is remembered": (
        "pipeline/test_doubting.py::test_mended_rows_put_their_contacts_in_doubt"
    ),
    "put the contacts that they write to in doubt: the next night sends those again": (
        "pipeline/test_doubting.py::test_what_a_retry_sends_is_in_doubt"
    ),
    "The state file is the one beside the runs, or what `--state` names": (
        "cli/test_guards.py::test_a_run_of_all_rows_is_told_which_state_it_changes"
    ),
    "`--refresh 30d` sends again what was applied longer ago": (
        "pipeline/test_only_changed.py::test_what_is_older_than_refresh_is_sent_all_the_same"
    ),
    "of the unchanged contacts back, others in every run": (
        "pipeline/test_drift.py::test_a_run_draws_the_same_and_the_next_run_others"
    ),
    "and sends what differs": (
        "pipeline/test_only_changed.py::test_what_somebody_else_changed_is_repaired"
    ),
    "attributes only (UpdateContactAttributes)": (
        "pipeline/test_drift.py::test_the_other_operation_is_never_read"
    ),
    "and contacts with one row": (
        "pipeline/test_only_changed.py::test_a_contact_that_is_sent_is_not_read"
    ),
    "without that, one warning says so and the run goes on": (
        "pipeline/test_only_changed.py::test_without_permission_to_read_there_is_one_warning"
    ),
    "is stopped by `--max-change 20%` before anything is sent": (
        "pipeline/test_only_changed.py::test_too_much_change_stops_before_anything_is_sent"
    ),
    "one run at a time": ("pipeline/test_only_changed.py::test_two_runs_never_share_a_state_file"),
    "less than 60 bytes a contact": (
        "test_state.py::test_ten_million_contacts_take_less_than_600_megabytes"
    ),
    "kept apart by account, region, instance and operation": (
        "test_state.py::test_scopes_are_kept_apart_and_summed_up"
    ),
    "It holds ids of contacts and digests, no cells": (
        "pipeline/test_only_changed.py::test_no_cell_is_remembered"
    ),
    "where SQLite's shared memory cannot be it is refused": (
        "test_state.py::test_a_file_system_without_shared_memory_is_refused"
    ),
    "`bulk-updater state forget` has contacts sent again": (
        "cli/test_state.py::test_forget_takes_what_is_named_and_nothing_else"
    ),
    "says which account it is, nothing is sent": (
        "pipeline/test_only_changed.py::test_without_an_account_nothing_is_sent"
    ),
    "end a run with exit code 4": (
        "e2e/test_night_control.py::test_a_deadline_ends_the_night_and_the_next_goes_on"
    ),
    "no attempt begins that might not be settled by then": (
        "pipeline/test_deadline.py::test_how_long_it_sends"
    ),
    "what hangs at the deadline itself is given up": (
        "pipeline/test_deadline.py::test_what_hangs_at_the_deadline_is_given_up"
    ),
    "the same command goes on the next night": (
        "pipeline/test_deadline.py::test_the_rows_that_do_not_fit_are_left_for_the_next_night"
    ),
    "stays and waits for the next night instead": (
        "pipeline/test_deadline.py::test_a_window_is_waited_for_again_and_again"
    ),
    "with the run directory locked": (
        "pipeline/test_deadline.py::test_while_it_waits_for_its_window"
    ),
    "`plan` counts the nights": "cli/test_schedule.py::test_a_plan_counts_nights",
    "Times are this machine's local time unless a zone stands behind them": (
        "test_schedule.py::test_local_time_is_that_of_the_zone"
    ),
    "is the moment of the jump, and one that comes twice is meant the first time": (
        "test_schedule.py::test_days_on_which_the_clock_is_moved"
    ),
    "a night has an hour less or more": (
        "pipeline/test_deadline.py::test_a_night_in_which_the_clock_is_moved"
    ),
    "sends the FAILED rows of a finished run again, into the same ledger": (
        "pipeline/test_again.py::test_a_failed_row_is_sent_again_into_the_same_ledger"
    ),
    "with the mapping, sources, target and pace that it had": (
        "cli/test_retry.py::test_everything_is_as_the_run_had_it"
    ),
    "what a later row of the contact wrote is left out": (
        "pipeline/test_mended.py::test_a_mended_row_does_not_undo_a_later_one"
    ),
    "and a row of which nothing is left is SUPERSEDED": (
        "pipeline/test_again.py"
        "::test_a_row_of_which_nothing_is_left_is_superseded_without_a_request"
    ),
    "Its run is the one that `--mends RUN_DIR` names, the one that it lies in": (
        "e2e/test_retry.py::test_the_run_of_a_mended_copy_is_found_or_told"
    ),
    "or the only one under `runs` or beside it that left these rows": (
        "pipeline/test_mended.py::test_the_run_of_a_copy_is_found_by_its_rows"
    ),
    "that left these rows with these error codes (`_error_code`)": (
        "pipeline/test_mended.py::test_of_two_runs_the_codes_tell_which_left_the_rows"
    ),
    "Of a run that a newer export took over from no row is mended": (
        "pipeline/test_mended.py::test_rows_of_a_superseded_run_are_not_mended"
    ),
    "both are refused once a newer night has begun": (
        "pipeline/test_doubting.py::test_mended_rows_are_refused_once_a_newer_night_has_begun"
    ),
    "Where there is none": (
        "pipeline/test_mended.py::test_a_copy_whose_run_is_not_near_is_an_export_of_its_own"
    ),
    "or more than one, it is an export of its own": (
        "pipeline/test_mended.py::test_a_copy_that_two_runs_may_have_left_is_an_export_of_its_own"
    ),
    "what the older run has left is SUPERSEDED": (
        "pipeline/test_superseding.py::test_what_is_left_is_superseded_in_its_own_ledger"
    ),
    "what it has applied is not sent again where the newer one says the same": (
        "pipeline/test_superseding.py::test_a_newer_export_sends_what_the_older_run_has_not_applied"
    ),
    "the older run is refused, by `run` and by `retry`": (
        "pipeline/test_again.py::test_a_superseded_run_is_refused"
    ),
    "a row whose contact Connect has forgotten by its turn is SKIPPED as `expired`": (
        "pipeline/test_feeding.py::test_a_contact_that_is_forgotten_before_its_turn_is_not_sent_to"
    ),
    "`plan` counts how many that will be at the pace that the run begins with": (
        "pipeline/test_plan.py::test_a_plan_counts_what_is_forgotten_before_its_turn"
    ),
    "sends first what is forgotten first": (
        "pipeline/test_feeding.py::test_the_oldest_go_first_and_a_contact_keeps_its_order"
    ),
    "by the day, in 64 groups at most": (
        "pipeline/test_ordering.py::test_every_promise_of_the_groups"
    ),
    "rows of one contact keep their order.": (
        "pipeline/test_ordering.py::test_the_soonest_day_of_a_contact_holds_for_all_of_its_rows"
    ),
    "`--expect-instance ID` refuses every other instance": (
        "mapping/test_compile.py::test_another_in_the_mapping_is_refused_at_its_line"
    ),
    "and the others only if none of them failed": (
        "pipeline/test_feeding.py::test_a_canary_that_fails_stops_the_run_behind_it"
    ),
    "says what would be sent, where to and for how long, and asks": (
        "cli/test_confirm.py::test_what_is_said"
    ),
    "without a terminal it sends nothing": (
        "cli/test_confirm.py::test_without_a_terminal_nobody_is_asked"
    ),
    "The last line on standard error is `summary`": (
        "cli/test_night.py::test_the_last_line_holds_the_whole_summary"
    ),
    "There is one at every end": ("cli/test_night.py::test_there_is_a_last_line_without_a_summary"),
    "what is not known is left out": (
        "cli/test_night.py::test_a_fault_in_the_middle_counts_what_is_known"
    ),
    "makes standard error nothing but JSON lines": (
        "cli/test_night.py::test_json_logs_hold_errors_and_the_last_line"
    ),
    "each with the `run_id`": (
        "cli/test_night.py::test_each_line_has_the_run_s_id_once_it_is_known"
    ),
    "with `exit_code`, `message`, `host` and `command_to_go_on`": (
        "cli/test_night.py::test_a_notification_tells_everything_that_is_needed"
    ),
    "at every end but exit code 0; `--notify-on always` at that, too": (
        "cli/test_night.py::test_who_is_notified_when"
    ),
    "What cannot be posted is one warning, and the exit code stays": (
        "cli/test_night.py::test_a_notification_that_fails_changes_nothing"
    ),
    "which outlives the nights that fail": (
        "test_metrics.py::test_the_last_success_outlives_nights_that_fail"
    ),
    "but for `--metrics-file`, which everybody may read": (
        "test_metrics.py::test_everybody_may_read_it"
    ),
    "exports a span for the run and one for each request, and figures": (
        "e2e/test_otel.py::test_a_run_and_its_requests_are_exported"
    ),
    "as the standard `OTEL_` variables say": (
        "test_telemetry.py::test_what_it_cannot_do_is_refused"
    ),
    "it needs `pip install '.[otel]'`": (
        "test_telemetry.py::test_without_the_extra_it_is_a_usage_error"
    ),
    "No span names a contact": "test_telemetry.py::test_no_span_and_no_figure_names_a_contact",
    "return when the run has done it": "cli/test_ctl.py::test_what_a_run_is_told",
    "`log.jsonl` in the run directory notes each": (
        "pipeline/test_control.py::test_each_command_is_done_and_noted"
    ),
    "`kill -USR1 PID` has a run log how far it is": (
        "e2e/test_night_control.py::test_a_run_is_steered_and_asked"
    ),
    "The tests run the crontab's lines": (
        "test_samples_night.py::test_the_lines_of_the_crontab_work"
    ),
    "lines, the service's command": "test_samples_night.py::test_the_service_runs_a_night",
    "and the script of the ECS task": ("test_samples_night.py::test_the_script_of_the_task_works"),
    "have systemd check the units where there is one": (
        "test_samples_night.py::test_systemd_takes_the_units"
    ),
    "hold the ECS files against the service models": (
        "test_samples_night.py::test_ecs_takes_the_task_definition"
    ),
}
"""Sentences that no figure of the program stands for, and the test that holds each.

For one it is a promise of the simulated nights' oracle, which a test there shows can fail."""


@pytest.mark.parametrize("sentence", HELD)
def test_what_is_said_of_ends_has_a_test(sentence):
    """The sentence stands in the README, and the test that holds it in the tests."""
    assert sentence in PROSE
    name, _, function = HELD[sentence].partition("::")
    assert f"def {function}(" in (ROOT / "tests" / name).read_text(encoding="utf-8")


def test_files_that_the_readme_links_to_are_there():
    """No link within the repository leads nowhere."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
