"""Typer signatures built from option dataclasses.

A command is a function whose parameters are arguments of Typer's, options of ours, and whole dataclasses of options:

    @command
    def convert(checkpoint: CheckpointFile, *, reading: CheckpointOptions, printing: OutputOptions) -> int:

Typer sees an option for each field of the dataclasses, and the function gets instances. A field in a dataclass is an
option of every command that takes it; nothing else has to be written.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from vit_deploy.cli.completion import completion
from vit_deploy.cli.options import split_at_commas
from vit_deploy.core.options.option import PANEL, Option, described
from vit_deploy.errors import VitDeployError

METAVARS = {bool: "", int: "N", float: "X", str: "NAME", Path: "PATH", list[str]: "NAME", list[Path]: "PATH"}


@dataclass(frozen=True)
class Without:
    """Fields of a dataclass that are no options of a command: `Annotated[RuntimeOptions, Without("threads")]`."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class Parameter:
    """An option of a command, by the name that the function or the dataclass has for it."""

    name: str
    type: Any
    option: Option
    default: Any
    panel: str | None

    @property
    def option_name(self) -> str:
        """The long one on the command line."""
        long = (name.partition("/")[0] for name in self.option.names if name.startswith("--"))
        return next(long, f"--{self.name.replace('_', '-')}")

    @functools.cached_property
    def for_typer(self) -> inspect.Parameter:
        """What Typer makes an option of."""
        option, kind = self.option, self._typer_type()
        choices = list(kind) if _is_choice(kind) else ()
        many = get_origin(kind) is list
        info: dict[str, Any] = {
            "help": option.help,
            "metavar": option.metavar or "|".join(choices) or METAVARS.get(kind),
            "min": option.min,
            "max": option.max,
            "show_default": option.show_default,
            "callback": split_at_commas if option.commas else None,
            "autocompletion": completion(option.values or tuple(choices), commas=option.commas),
            "rich_help_panel": option.panel or self.panel,
        }
        given = {name: value for name, value in info.items() if value is not None}
        default = self.default
        if option.parse is not None and default is not inspect.Parameter.empty:
            default = None  # the field's own is no text
        elif isinstance(default, tuple):
            default = list(default) if many and default else None
        elif isinstance(default, StrEnum):
            default = str(default)
        optional = default is None
        shown: Any = str if choices else kind
        annotation: Any = Annotated[shown | None if optional else shown, typer.Option(*self._names(), **given)]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    def value(self, given: Any) -> Any:
        """The value of the field.

        Args:
            given: by Typer.

        Raises:
            typer.BadParameter: a text that does not stand for one.
        """
        kind = self._typer_type()
        if get_origin(kind) is list:
            return tuple(given if self.option.parse is None else map(self._parsed, given))
        if _is_choice(kind):
            if given not in list(kind):
                raise typer.BadParameter(f"{self.option_name} is {given!r}; expected one of {', '.join(kind)}")
            return kind(given)
        return given if self.option.parse is None else self._parsed(given)

    def _parsed(self, given: str) -> Any:
        assert self.option.parse is not None  # whoever calls has looked
        try:
            return self.option.parse(given)
        except VitDeployError:  # complete already, and a ValueError too
            raise
        except ValueError as error:
            raise typer.BadParameter(f"{self.option_name} is {given!r}; expected {error}") from error

    def _names(self) -> tuple[str, ...]:
        if self.option.names:
            return self.option.names
        name = self.option_name
        if self._typer_type() is bool and self.default is not False:
            return (f"{name}/--no-{name[2:]}",)
        return (name,)

    def _typer_type(self) -> Any:
        """The type of what Typer gives: a path, a text that is to be parsed, a list, or the field's own."""
        members = get_args(self.type) if get_origin(self.type) in (Union, types.UnionType) else (self.type,)
        members = tuple(member for member in members if member is not type(None))
        if self.option.parse is not None:
            return list[str] if self.option.repeats else str
        if get_origin(members[0]) is tuple and len(members) == 1:
            return list[get_args(members[0])[0]]  # type: ignore[misc]  # known when it runs
        return Path if Path in members else members[0]


@dataclass(frozen=True)
class Group:
    """A dataclass of options that a command takes."""

    name: str
    type: type
    parameters: tuple[Parameter, ...]

    def instance(self, values: Mapping[str, Any]) -> Any:
        """The dataclass with what was given; where nothing was, its own defaults."""
        return self.type(
            **{
                parameter.name: parameter.value(values[parameter.name])
                for parameter in self.parameters
                if values[parameter.name] is not None
            }
        )


def command(function: Callable[..., int]) -> Callable[..., int]:
    """A function that Typer can register: dataclasses among its parameters become one option for each field.

    A name that occurs twice is one option, as it is written first, whose value goes to both places.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters: dict[str, inspect.Parameter] = {}
    groups: list[Group] = []
    own: dict[str, Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        kind, *extras = (hint.__origin__, *hint.__metadata__) if get_origin(hint) is Annotated else (hint,)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            without = [name for extra in extras if isinstance(extra, Without) for name in extra.names]
            fields = tuple(one for one in options_of(kind) if one.name not in without)
            groups.append(Group(parameter.name, kind, fields))
            for one in fields:
                parameters.setdefault(one.name, one.for_typer)
        elif option := next((extra for extra in extras if isinstance(extra, Option)), None):
            own[parameter.name] = Parameter(parameter.name, kind, option, parameter.default, option.panel)
            parameters[parameter.name] = own[parameter.name].for_typer
        else:
            parameters[parameter.name] = parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)

    @functools.wraps(function)
    def called(**given: Any) -> int:
        values = {group.name: group.instance(given) for group in groups}
        for name in hints:
            if name in given and name not in values:
                value = given[name]
                values[name] = own[name].value(value) if name in own and value is not None else value
        gc.enable()  # which parsing does without
        return function(**values)

    called.__dict__["__signature__"] = inspect.Signature(list(parameters.values()))
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters.values()}
    return called


@functools.cache  # many commands take the same
def options_of(group: type) -> tuple[Parameter, ...]:
    """The options that a dataclass has: its fields that an `Option` describes."""
    return tuple(
        Parameter(
            field.name,
            field.type,
            field.option,
            inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            getattr(group, PANEL, None),
        )
        for field in described(group)
    )


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)
