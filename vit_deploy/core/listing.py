"""The first of several texts, and how many there are besides."""

from __future__ import annotations

from collections.abc import Sequence


def listed(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first texts in one line, as "a, b and 3 more".

    Args:
        texts: all of them.
        most: that are told.
        separator: what stands between them, and in front of "and" where it is no comma.
    """
    before = "" if separator == ", " else separator.rstrip()
    more = f"{before} and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more
