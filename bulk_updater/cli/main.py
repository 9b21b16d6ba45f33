"""The group of commands, and what becomes of errors."""

from __future__ import annotations

import asyncio
import sys
import traceback

import click

from bulk_updater._version import __version__
from bulk_updater.cli.exits import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE
from bulk_updater.cli.ledger import ledger
from bulk_updater.cli.output import say_error
from bulk_updater.cli.plan import plan
from bulk_updater.cli.run import run
from bulk_updater.cli.sandbox import sandbox
from bulk_updater.cli.skeleton import skeleton
from bulk_updater.errors import BulkUpdaterError

__all__ = ["cli", "main"]

_EPILOG = """\b
Examples:
  bulk-updater skeleton update_contact_attributes > mapping.yaml
  bulk-updater plan mapping.yaml export.csv
  bulk-updater run mapping.yaml export.csv --sandbox
  bulk-updater run mapping.yaml export.csv --region eu-central-1
"""


@click.group(epilog=_EPILOG, context_settings={"max_content_width": 88})
@click.version_option(__version__, prog_name="bulk-updater")
def cli() -> None:
    """Update Amazon Connect contacts in bulk, from CRM exports.

    Rows of a CSV or Parquet file become requests of UpdateContactAttributes or UpdateContact,
    as a mapping file says. They are sent no faster than the account's quota allows, and every
    row gets one durable result, so that a run can be stopped, killed and gone on with.
    """


for command in (run, plan, skeleton, ledger, sandbox):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    try:
        # Without click's own handling, `main` returns the code of `Exit` and of the command.
        sys.exit(cli.main(standalone_mode=False, auto_envvar_prefix="BULK_UPDATER") or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except BulkUpdaterError as error:
        say_error(error.message)
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, asyncio.CancelledError, click.Abort):
        say_error("Interrupted. What was settled is in the ledger; the same command goes on.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(EXIT_STOPPED)
    except Exception as error:  # noqa: BLE001 - the last line of defence, and the only one
        # The text of a foreign error may quote a cell: its type and place are enough for a report.
        place = traceback.extract_tb(error.__traceback__)[-1]
        say_error(
            f"This is a fault in bulk_updater ({type(error).__name__} in {place.name}, line "
            f"{place.lineno} of {place.filename.rpartition('/')[2]}); please report it. What was "
            "settled is in the ledger; the same command goes on."
        )
        sys.exit(EXIT_STOPPED)
