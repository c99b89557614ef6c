"""Environment variables that a session sets for libraries of its process, and a child's environment without them."""

from __future__ import annotations

import os

_before: dict[str, str | None] = {}  # the user's values of those that were set


def set_for_libraries(name: str, value: str) -> None:
    """Set a variable that a library of this process is going to read, and that is nobody else's business.

    Args:
        name: the name of the variable.
        value: that it gets.
    """
    _before.setdefault(name, os.environ.get(name))
    os.environ[name] = value


def of_children() -> dict[str, str]:
    """The environment that this process would have had without `set_for_libraries`."""
    users = {name: value for name, value in _before.items() if value is not None}
    return {name: value for name, value in os.environ.items() if name not in _before} | users
