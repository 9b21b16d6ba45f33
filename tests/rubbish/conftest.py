"""The command line in this process, as its own tests have it."""

from tests.cli.conftest import _as_it_was, call

__all__ = ["_as_it_was", "call"]
