"""Description of one option, and of a group of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

PANEL = "__panel__"  # attribute of a dataclass that names its group

Group = TypeVar("Group", bound=type)


@dataclass(frozen=True)
class Option:
    """What the command line shows of a field, and how it reads one.

    Args:
        help: one sentence about the value.
        names: on the command line; without any `--field-name`, and `--field-name/--no-field-name` of a flag whose
            default is not False.
        metavar: what stands for the value in the help, as `FILE.json`; of a closed set it follows from the type.
        min: least value that is taken.
        max: largest value that is taken.
        show_default: words in place of the default; False shows none.
        commas: whether several values can be joined by commas, besides repeating the option.
        parse: gives the value that a text stands for, or raises `ValueError` with what was expected.
        values: what a shell completes: the values themselves, or "module:name" of something that lists them.
        panel: heading of the help that the option stands under; None for that of its dataclass.
    """

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    show_default: str | bool = True
    commas: bool = False
    parse: Callable[[str], Any] | None = None
    values: tuple[str, ...] | str = ()
    panel: str | None = None


def panel(name: str) -> Callable[[Group], Group]:
    """Name the heading of the help that a dataclass's options stand under."""

    def named(group: Group) -> Group:
        setattr(group, PANEL, name)
        return group

    return named
