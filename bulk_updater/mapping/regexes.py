"""Regular expressions that may take for ever.

Python's engine tries one way to match after the other, holds all other threads up meanwhile, and
cannot be interrupted. A repeat inside of a repeat, such as `(a+)+$`, doubles the ways with every
character of a cell: thirty of them take minutes, forty take days.
"""

from __future__ import annotations

import re

__all__ = ["may_take_for_ever"]

_REPEAT = r"([*+]|\{[0-9]*,[0-9]*\})([+?]?)"
_TOKEN = re.compile(
    r"\\."  # an escape
    r"|\[\^?\]?(?:\\.|[^\]\\])*\]"  # a class
    r"|(?P<opening>\((?P<atomic>\?(?:>|<?[=!]))?)"
    rf"|(?P<closing>\))(?:{_REPEAT})?"
    rf"|{_REPEAT}",
    re.DOTALL,
)
_FEW = 9
"""Bounded repeats up to this many are harmless."""


def may_take_for_ever(pattern: str) -> bool:
    """Whether a group that repeats something is itself repeated, and may be tried in many ways.

    Possessive repeats (`a++`) and atomic groups (`(?>a+)`) are tried in one way only. Says yes to
    some that are harmless as well, such as `(a+;)*`.

    Args:
        pattern: A regular expression that Python compiles.
    """
    # For each group that is open, whether it is tried in one way, and whether it repeats something.
    atomic, repeats = [False], [False]
    for token in _TOKEN.finditer(pattern):
        if token["opening"]:
            atomic.append(token["atomic"] is not None)
            repeats.append(False)
            continue
        is_repeat, is_possessive = _repeat(token)
        many_ways = False
        if token["closing"] and len(repeats) > 1:
            in_one_way, inner = atomic.pop(), repeats.pop()
            many_ways = inner and not in_one_way and not is_possessive
        if is_repeat and many_ways:
            return True
        repeats[-1] |= many_ways or is_repeat
    return False


def _repeat(token: re.Match[str]) -> tuple[bool, bool]:
    """Whether a token repeats what it stands behind, and whether possessively."""
    *_, first, first_kind, second, second_kind = token.groups()
    quantifier, kind = first or second, first_kind or second_kind
    if not quantifier or kind == "+":
        return False, kind == "+"
    last = quantifier.strip("{}").rpartition(",")[2]
    return not last.isdigit() or len(last) > 1 or int(last) > _FEW, False
