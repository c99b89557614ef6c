"""Suggestions for names that are not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A fix for the unknown `name`: the one it resembles, or all there are."""
    choices = list(known)
    meant = closest(name, choices)
    return meant or f"choose one of {', '.join(choices)}"


def closest(name: str, known: Iterable[str]) -> str:
    """A question after the known name that the unknown `name` resembles; empty if it resembles none."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
