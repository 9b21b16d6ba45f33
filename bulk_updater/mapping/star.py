"""`"*"`: every column of a source as an attribute, with keys made legal."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from bulk_updater.mapping.nodes import name_shown
from bulk_updater.model import FAILED_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulk_updater.mapping.request import StarSpec

__all__ = ["legal_key", "star_keys"]


def legal_key(column: str) -> str:
    """A column's name as an attribute key: `First Name` as `First_Name`, `Größe` as `Grosse`.

    Letters lose their accents; a run of anything that a key cannot hold becomes one `_`, and
    none at the ends.
    """
    plain = unicodedata.normalize("NFKD", column.replace("ß", "ss"))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_")


def star_keys(star: StarSpec, header: Sequence[str], named: set[str]) -> dict[str, str]:
    """The attribute keys that `"*"` makes of a header.

    What a run adds to `failed.csv` is no data, and is left out when that file is run.

    Args:
        star: What the mapping says of it.
        header: The source's columns.
        named: Attribute keys that the mapping names itself.

    Returns:
        Column by key, in the header's order.

    Raises:
        MappingError: If a column makes no key, or two keys are equal.
    """
    left_out = {*star.except_, *FAILED_COLUMNS}
    taken: dict[str, str] = {}
    for column in header:
        if column in left_out:
            continue
        legal = legal_key(column)
        key = star.prefix + legal
        if not re.search(r"[A-Za-z0-9]", legal):
            star.node.refuse(
                f'"*" cannot make an attribute key of the column "{name_shown(column)}": no letter '
                'or digit is left of it. Add it to "except" and name its attribute yourself.'
            )
        if key in taken:
            star.node.refuse(
                f'"*" makes the attribute key "{name_shown(key)}" of two columns, '
                f'"{name_shown(taken[key])}" and "{name_shown(column)}". Add one of them to '
                '"except" and name its attribute yourself.'
            )
        if key in named:
            star.node.refuse(
                f'"*" makes the attribute key "{name_shown(key)}" of the column '
                f'"{name_shown(column)}", and the mapping names that key too. Add the column to '
                '"except", or drop the key.'
            )
        taken[key] = column
    return taken
