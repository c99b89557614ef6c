"""Quantities as text for people, in their units."""

from __future__ import annotations

NOT_FINITE = "NaN or infinite"


def megabytes(count: int) -> str:
    """Bytes for people, in MB of 10^6 bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def milliseconds(value: float) -> str:
    """Three digits at least, for people."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def milliseconds_apart(one: float, other: float) -> tuple[str, str]:
    """Two that differ, with as many digits as it takes to see it."""
    pair = milliseconds(one), milliseconds(other)
    digits = 4
    while pair[0] == pair[1] and one != other:
        pair, digits = (f"{one:.{digits}g}", f"{other:.{digits}g}"), digits + 1
    return pair


def not_finite(count: int) -> str:
    """So many values that are no numbers."""
    return f"{count} {'value that is' if count == 1 else 'values that are'} {NOT_FINITE}"
