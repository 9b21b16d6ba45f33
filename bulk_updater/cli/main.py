"""The group of commands, and what becomes of errors."""

from __future__ import annotations

import asyncio
import importlib
import sys
import traceback

import click

from bulk_updater._version import __version__
from bulk_updater.cli.exits import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE
from bulk_updater.cli.night import begin_night, end_night, forget_night, how_to_go_on
from bulk_updater.cli.output import abandon_output, open_standard_streams, say_error
from bulk_updater.cli.signals import INTERRUPTED, leave_on_signals
from bulk_updater.cli.stopping import bear_questions
from bulk_updater.errors import BulkUpdaterError, UsageError

__all__ = ["cli", "main"]

_COMMANDS = ("run", "retry", "plan", "skeleton", "ctl", "ledger", "state", "sandbox")

_EPILOG = """\b
Examples:
  bulk-updater skeleton update_contact_attributes > mapping.yaml
  bulk-updater plan mapping.yaml export.csv
  bulk-updater run mapping.yaml export.csv --sandbox
  bulk-updater run mapping.yaml export.csv --region eu-central-1

Every option can also be given by an environment variable that is named for the command and
the option: BULK_UPDATER_RUN_RATE for --rate of run. What is typed comes first.
"""


class _Commands(click.Group):
    """One module a command, loaded when it is asked for: what they stand on takes a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"bulk_updater.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command; before its flags are checked it is known who is to hear of the end."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            begin_night(command, rest, ctx)
        return name, command, rest


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"max_content_width": 88})
@click.version_option(__version__, prog_name="bulk-updater", allow_from_autoenv=False)
def cli() -> None:
    """Update Amazon Connect contacts in bulk, from CRM exports.

    Rows of a CSV or Parquet file become requests of UpdateContactAttributes or UpdateContact,
    as a mapping file says. They are sent no faster than the account's quota allows, and every
    row gets one durable result, so that a run can be stopped, killed and gone on with.
    """


def main() -> None:
    """Run the command line and exit."""
    open_standard_streams()
    leave_on_signals()
    bear_questions(sys.argv[1:])
    forget_night()
    sys.exit(_carry_out())


def _carry_out() -> int:  # noqa: PLR0911 - one for each way to end
    """Run the command line; returns the exit code, when everybody who is to be told is."""
    try:
        # Without click's own handling, `main` returns the code of `Exit` and of the command.
        code = cli.main(standalone_mode=False, auto_envvar_prefix="BULK_UPDATER") or 0
        assert isinstance(code, int)  # noqa: S101 - what every command returns
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        return _fail(EXIT_USAGE, "refused", _one_line(error), error="usage", mended=True)
    except BulkUpdaterError as error:
        mended = isinstance(error, UsageError)
        return _fail(EXIT_USAGE, "refused", error.message, error=error.slug, mended=mended)
    except (KeyboardInterrupt, asyncio.CancelledError, click.Abort):
        return _fail(EXIT_INTERRUPTED, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone, as `--help | head` does; nobody is left to tell.
        abandon_output()
        end_night(0)
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence, and the only one
        # The text of a foreign error may quote a cell: its type and place are enough for a report.
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(
            EXIT_STOPPED,
            "fault",
            f"This is a fault in bulk_updater ({type(error).__name__} in {place.name}, line "
            f"{place.lineno} of {place.filename.rpartition('/')[2]}); please report it. What was "
            "settled is in the ledger; give the same command again to go on.",
            error="fault",
        )
    end_night(code)
    return code


def _fail(
    code: int, state: str, message: str, *, error: str | None = None, mended: bool = False
) -> int:
    """Say what went wrong, and of a run how it goes on."""
    say_error(message, go_on=how_to_go_on(), mended=mended)
    end_night(code, state=state, message=message, error=error)
    return code


def _one_line(error: click.ClickException) -> str:
    """What click says is wrong, and where to read more."""
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return message
    return f"{message} See {context.command_path} --help."
