"""What a year of nights does differently from other tests: what every simulation does."""

from tests.simulation.conftest import (  # noqa: F401 - fixtures, by their names
    _log_is_as_before,
    _models_are_read_once,
    _no_blocking_calls,
)
