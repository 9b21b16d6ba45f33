"""A process that has imported everything, and forks a process of its own for each command.

Reads requests and writes exit codes, one JSON value a line. A fork saves the second or two that
the imports take; from there on it is `python -m bulk_updater` to the end of the interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bulk_updater
from bulk_updater.cli import main
from bulk_updater.operations import iter_operations

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(prepare: Callable[[Any], None] | None = None) -> None:
    """Fork a process for each request until nobody asks any more.

    Args:
        prepare: Called in each new process, before the command, with what the request says.
    """
    for name in ("run", "plan", "ledger"):
        importlib.import_module(f"bulk_updater.cli.{name}")
    list(iter_operations())
    gc.freeze()  # a child that looks at every object at its end would copy them all
    while line := sys.stdin.readline():
        request = json.loads(line)
        child = os.fork()
        if not child:
            become(request)
            if prepare is not None:
                prepare(request["prepare"])
            main()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def become(request: dict) -> None:
    """Take over what a shell would have set up."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, path in enumerate((os.devnull, request["out"], request["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    program = Path(bulk_updater.__file__).with_name("__main__.py")
    sys.argv = [str(program), *request["words"]]


if __name__ == "__main__":
    serve()
