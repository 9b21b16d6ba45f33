"""The README says what the program does, and its examples work."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

from bulk_updater.cli import cli
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
from bulk_updater.model import Outcome, Quota, QuotaOrigin
from bulk_updater.operations import iter_operations
from bulk_updater.pacing import Pacer, ceiling_per_s, initial_rate_per_s
from bulk_updater.pipeline import quotas
from bulk_updater.pipeline.estimate import LONG_RUN_S
from bulk_updater.pipeline.quotas import quota_file
from bulk_updater.words import percent

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = " ".join(README.split())


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def all_commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    names = cli.list_commands(context)
    return {name: cli.get_command(context, name) for name in names}


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
    command = all_commands()[words[0]]
    command.make_context(words[0], words[1:])


def test_there_are_commands_to_check():
    """The search for commands finds the five of "Your own export"."""
    assert len(commands()) == 5


def test_every_command_and_every_flag_is_in_the_readme():
    """The generated part is not empty: `cog --check` passes on a section that was never made."""
    for name, command in all_commands().items():
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
}
"""Sentences that no figure of the program stands for, and the test that holds each."""


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
