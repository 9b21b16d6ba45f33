"""Figures as people say them."""

from __future__ import annotations

__all__ = ["count", "duration", "figure", "percent"]

_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Seconds: `0.4 s`, `42 s`, `3 min 20 s`, `27 h 46 min`, `12 d 3 h`."""
    if 0 < seconds < 1:
        return f"{max(seconds, 0.1):.1f} s"
    whole = round(seconds)
    for unit, size, next_unit, next_size in _UNITS:
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def figure(number: float, decimals: int = 2) -> str:
    """A rate: `8`, `2.55`, `1,250`, `0.0001`.

    Args:
        number: 0 or more.
        decimals: Digits behind the point at the most; below 1, that many digits in all.
    """
    if number < 1:
        return f"{number:.{decimals}g}"
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(part: float) -> str:
    """A part of 1: `80 %`, `3.8 %`, and `under 0.1 %` where there is hardly any."""
    if 0 < part < 0.001:  # noqa: PLR2004 - what one digit behind the point can say
        return "under 0.1 %"
    return f"{figure(100 * part, 1)} %"
