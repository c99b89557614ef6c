"""Values that a shell completes."""

from __future__ import annotations

import importlib
from collections.abc import Callable


def completion(values: tuple[str, ...] | str, *, commas: bool = False) -> Callable[[str], list[str]] | None:
    """What gives a shell the values that begin as what is typed.

    Args:
        values: the values themselves, or "module:name" of something that lists them, imported when it is needed; None
            comes back where there are none.
        commas: whether values are joined by commas, so that after one the next is completed.
    """
    if not values:
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",") if commas else ("", "", incomplete)
        return [f"{before}{comma}{value}" for value in _listed(values) if value.startswith(begun)]

    return complete


def _listed(values: tuple[str, ...] | str) -> list[str]:
    if not isinstance(values, str):
        return list(values)
    module, _, name = values.partition(":")
    found = getattr(importlib.import_module(module), name)
    return [str(value) for value in (found() if callable(found) and not isinstance(found, type) else found)]
