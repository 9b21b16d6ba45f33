"""What the program says of itself."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from bulk_updater._version import __version__
from bulk_updater.cli import cli

COMMANDS = cli.list_commands(click.Context(cli))


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def test_the_version_is_the_package_s(call):
    """--version prints it, whatever the environment says."""
    ran = call("--version")
    assert (ran.code, ran.out) == (0, f"bulk-updater, version {__version__}\n")


def test_the_environment_does_not_ask_for_the_version(call, monkeypatch):
    """BULK_UPDATER_VERSION may be a deployment's own variable."""
    monkeypatch.setenv("BULK_UPDATER_VERSION", "1")
    assert call("skeleton update_contact").out.startswith("#")


def test_help_names_every_command():
    """`--help` has a line for each, none of them cut short, and says how to go on."""
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    for name in COMMANDS:
        assert f"\n  {name} " in text
    assert "..." not in text.partition("Commands:")[2].partition("Examples:")[0]
    assert "BULK_UPDATER_RUN_RATE" in text


def test_without_a_command_there_is_help(call):
    """Exit code 2, since nothing was done."""
    ran = call("")
    assert ran.code == 2
    assert "Usage: bulk-updater [OPTIONS] COMMAND" in ran.err


def test_an_unknown_command_is_named(call):
    """Exit code 2, one line, and where to look."""
    ran = call("update mapping.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: No such command 'update'.")
    assert ran.err.endswith("See bulk-updater --help.\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    """A docstring, examples that begin with the program's name, and help for every option."""
    command = command_of(name)
    assert command.help
    examples = (command.epilog or "").partition("Examples:\n")[2].partition("\n\n")[0]
    lines = examples.strip().splitlines()
    assert len(lines) >= 2
    assert all(line.strip().startswith("bulk-updater ") for line in lines)
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert all(option.help for option in options)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_the_environment_variable_of_its_name(name, monkeypatch):
    """BULK_UPDATER_<COMMAND>_<OPTION>, as the help says."""
    for option in command_of(name).params:
        if not isinstance(option, click.Option) or option.opts == ["--help"]:
            continue
        variable = option.opts[0].removeprefix("--").replace("-", "_").upper()
        expected = f"BULK_UPDATER_{name.upper()}_{variable}"
        context = click.Context(command_of(name), auto_envvar_prefix=f"BULK_UPDATER_{name.upper()}")
        monkeypatch.setenv(expected, "7")
        assert option.resolve_envvar_value(context) == "7", expected
        monkeypatch.delenv(expected)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_parsed(name):
    """Every example names options that exist."""
    known = {
        option: {flag for each in command_of(option).params for flag in each.opts}
        for option in COMMANDS
    }
    for line in (command_of(name).epilog or "").splitlines():
        words = line.split("   ")[0].split() if "bulk-updater" in line else []
        for word in words:
            if word.startswith("--"):
                assert word in known[words[words.index("bulk-updater") + 1]], line


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [80, 88])
def test_help_fits_the_screen(name, width):
    """No line is longer than the screen, examples included."""
    result = CliRunner().invoke(cli, [name, "--help"], terminal_width=width)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= width


@pytest.mark.parametrize("name", ["run", "plan"])
def test_exit_codes_are_documented_where_they_arise(name):
    """The help of `run` and `plan` lists theirs."""
    assert "Exit codes: 0 " in (command_of(name).epilog or "")
