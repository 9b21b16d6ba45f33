"""Bulk updates of Amazon Connect contacts from CRM exports."""

from bulk_updater._version import __version__

__all__ = ["__version__"]
