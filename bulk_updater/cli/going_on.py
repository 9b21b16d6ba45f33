"""The command that goes on where another one ended, as it may be printed, logged and kept."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["command_to_go_on"]


def command_to_go_on(argv: Sequence[str]) -> str:
    """A command as it was typed, as it goes on.

    Without `--fresh`, which would begin anew, and without a `--notify` whose URL holds a user
    name, a password or a query: what is printed, logged and kept holds no secrets. In any other
    URL, a user name and a password are made unreadable.
    """
    program = argv[0]
    words = _public(argv[1:])
    if program.endswith("__main__.py"):
        return shlex.join([sys.executable, "-m", "bulk_updater", *words])
    # A shell hands over the whole path of what it found.
    name = Path(program).name
    return shlex.join([name if shutil.which(name) == program else program, *words])


def _public(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        flag, is_one_word, value = word.partition("=")
        if flag == "--notify" and is_one_word and _has_secrets(value):
            continue
        if kept and kept[-1] == "--notify" and _has_secrets(word):
            kept.pop()
            continue
        if word != "--fresh":
            kept.append(_without_user(word))
    return kept


def _has_secrets(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    return "@" in parts.netloc or bool(parts.query)


def _without_user(word: str) -> str:
    scheme, is_url, rest = word.partition("://")
    if not is_url:
        return word
    host, slash, path = rest.partition("/")
    return f"{scheme}://***@{host.rpartition('@')[2]}{slash}{path}" if "@" in host else word
