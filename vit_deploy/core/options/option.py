"""Description of one option, of a group of them, and those that a dataclass has."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

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
        repeats: whether the option is given once for each of several values, which `parse` reads one by one.
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
    repeats: bool = False
    values: tuple[str, ...] | str = ()
    panel: str | None = None


def panel(name: str) -> Callable[[Group], Group]:
    """Name the heading of the help that a dataclass's options stand under."""

    def named(group: Group) -> Group:
        setattr(group, PANEL, name)
        return group

    return named


@dataclass(frozen=True)
class Described:
    """A field that is an option.

    Args:
        name: its name.
        type: its type, without the description.
        option: its description.
        default: its default; `dataclasses.MISSING` without one.
    """

    name: str
    type: Any
    option: Option
    default: Any


@functools.cache
def described(group: type) -> tuple[Described, ...]:
    """The fields of a dataclass that an `Option` describes, in order."""
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in dataclasses.fields(group):
        hint = hints[field.name]
        option = next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Option)), None)
        if option is not None:
            found.append(Described(field.name, hint.__origin__, option, field.default))
    return tuple(found)
