"""The command line: flags to configuration, errors to exit codes, and nothing else."""

from bulk_updater.cli.signals import leaving_on_signals

# What follows takes a moment to import, and Ctrl-C in that moment is no reason for a traceback.
with leaving_on_signals():
    from bulk_updater.cli.main import cli, main

__all__ = ["cli", "main"]
