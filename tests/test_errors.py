"""The error tree: what the docstring draws is what stands there, and all of it travels."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from bulk_updater import errors
from bulk_updater.errors import BulkUpdaterError
from bulk_updater.model import RunSummary

SUMMARY = RunSummary(
    run_id="r",
    state="stopped",
    reason="why",
    rows_read=1,
    outcomes={},
    unsettled=1,
    attempts=0,
    throttled=0,
    took_s=0.5,
    ledger="l",
)
SEND = {"code": "c", "http_status": 429, "request_id": "q", "retry_after_s": 1.5}
ARGUMENTS = {
    "MappingError": {"path": Path("m.yaml"), "line": 3},
    "SourceError": {"source": "s.csv"},
    "RowError": {"rule": "ragged_row", "column": "C"},
    "SendError": SEND,
    "Throttled": SEND,
    "TransientError": SEND,
    "RequestRejected": SEND,
    "AccessError": SEND,
    "LedgerError": {"path": Path("d")},
    "LedgerCorrupt": {"path": Path("d"), "offset": 7},
    "LedgerLocked": {"path": Path("d")},
    "LedgerMismatch": {"path": Path("d")},
    "LedgerWriteError": {"path": Path("d")},
    "StateError": {"path": Path("d")},
    "RunStopped": {"summary": SUMMARY},
}


def walk(cls):
    """A class and all below it, as the docstring's order has them."""
    yield cls
    for child in cls.__subclasses__():
        yield from walk(child)


def draw(cls, indent=""):
    """The tree below a class, as lines."""
    children = cls.__subclasses__()
    for number, child in enumerate(children, 1):
        last = number == len(children)
        yield f"{indent}{'└─' if last else '├─'} {child.__name__}"
        yield from draw(child, indent + ("   " if last else "│  "))


CLASSES = [cls for cls in walk(BulkUpdaterError) if cls.__module__ == errors.__name__]
each = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def made(cls):
    return cls("what went wrong", **ARGUMENTS.get(cls.__name__, {}))


def test_the_docstring_is_the_tree():
    """The tree in the module's docstring is the tree of its classes."""
    drawn = "\n".join(["BulkUpdaterError", *draw(BulkUpdaterError)])
    assert errors.__doc__ is not None
    written = errors.__doc__.split("\n\n")[1]
    assert "\n".join(line.removeprefix("    ") for line in written.splitlines()) == drawn


def test_all_are_public():
    """Every class of the tree is public, and nothing else is."""
    assert sorted(cls.__name__ for cls in CLASSES) == errors.__all__


def test_slugs_are_unique():
    """Every kind of error has a name of its own for scripts."""
    slugs = [cls.slug for cls in CLASSES]
    assert len(set(slugs)) == len(slugs) == len(errors.__all__)
    assert all("slug" in vars(cls) for cls in CLASSES)


@each
def test_survives_pickle(cls):
    """An error crosses processes with its class, its message and everything that it carries."""
    error = made(cls)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        revived = pickle.loads(pickle.dumps(error, protocol))
        assert type(revived) is cls
        assert revived.message == str(revived) == error.message
        assert vars(revived) == vars(error)
        assert revived.args == error.args


@each
def test_carries_what_it_was_given(cls):
    """What an error is made with can be read from it, and stands in its docstring."""
    error = made(cls)
    documented = "".join(parent.__doc__ for parent in cls.__mro__ if parent is not object)
    for name, value in ARGUMENTS.get(cls.__name__, {}).items():
        assert getattr(error, name) == value
        assert f"        {name}: " in documented or f"    {name}: " in documented
    assert "what went wrong" in error.message


def test_where_a_mapping_is_wrong():
    """A mapping's fault begins with its file and its line, as far as they are known."""
    path = Path("m.yaml")
    assert errors.MappingError("x", path=path, line=3).message == "m.yaml, line 3: x"
    assert errors.MappingError("x", path=path).message == "m.yaml: x"
    assert errors.MappingError("x").message == "x"


def test_where_a_source_and_a_ledger_are_wrong():
    """The errors of a source and of a ledger begin with their file."""
    assert errors.SourceError("x", source="s.csv").message == "s.csv: x"
    assert errors.SourceError("x").message == "x"
    assert errors.LedgerLocked("x", path=Path("d")).message == "d: x"
