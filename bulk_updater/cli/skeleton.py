"""`bulk-updater skeleton`."""

from __future__ import annotations

import click

from bulk_updater.mapping import skeleton as make_skeleton
from bulk_updater.operations import OPERATION_NAMES, get_operation

__all__ = ["skeleton"]

_EPILOG = """\b
Examples:
  bulk-updater skeleton update_contact_attributes > mapping.yaml
  bulk-updater skeleton update_contact
"""


@click.command(epilog=_EPILOG, short_help="Print a mapping with every member of an operation.")
@click.argument("operation", type=click.Choice(OPERATION_NAMES))
def skeleton(operation: str) -> None:
    """Print a mapping with every member of OPERATION, commented.

    The members, their types and limits come from the service model that is installed.
    """
    click.echo(make_skeleton(get_operation(operation)), nl=False)
