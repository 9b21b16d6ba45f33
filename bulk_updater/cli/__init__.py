"""The command line: flags to configuration, errors to exit codes, and nothing else."""

from bulk_updater.cli.main import cli, main

__all__ = ["cli", "main"]
