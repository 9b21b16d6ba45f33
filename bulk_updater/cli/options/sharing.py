"""What the flags are made with: their defaults, and several of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bulk_updater.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULTS", "all_of"]

_F = TypeVar("_F", bound="Callable[..., Any]")

DEFAULTS = RunConfig(mapping=Path(), sources=(Path(),))
"""A run that only its defaults are asked of."""


def all_of(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    """A decorator that adds all of these, in the order in which `--help` shows them."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
