"""The README says what the program does, and its examples work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bulk_updater.cli import cli
from bulk_updater.config import DOCUMENTED_BURST, DOCUMENTED_RATE_PER_S, MaxFailures, PacingConfig
from bulk_updater.mapping import compile_mapping, parse_spec
from bulk_updater.mapping.values import Condition, ValueSpec
from bulk_updater.model import Outcome
from bulk_updater.operations import iter_operations

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    assert f"{DOCUMENTED_RATE_PER_S:.0f} requests a second with a burst of" in README
    assert f"burst of {DOCUMENTED_BURST:.0f}" in README
    assert f"takes {PacingConfig().quota_share:.0%}".replace("%", " %") in README
    assert MaxFailures().in_a_row == 50
    assert "Fifty failures in a row" in README
    for operation in iter_operations():
        assert operation.quota_code in README


def test_the_estimate_in_the_readme_is_right():
    """100,000 rows at the default pace are about three and a half hours."""
    assert 100_000 / PacingConfig().ceiling_per_s / 3600 == pytest.approx(3.5, abs=0.1)
    assert "100,000 rows take about three\nand a half hours" in README


def test_files_that_the_readme_links_to_are_there():
    """No link within the repository leads nowhere."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
