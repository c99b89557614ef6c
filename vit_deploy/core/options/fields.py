"""Options that a dataclass has."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, get_type_hints

from vit_deploy.core.options.option import Option


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
        option = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)), None)
        if option is not None:
            found.append(Described(field.name, hint.__origin__, option, field.default))
    return tuple(found)
