"""Arguments of the runner on a device, made from the dataclasses that commands take their options from."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, get_args, get_origin

from vit_deploy.core.options.option import Described, described
from vit_deploy.core.options.parsing import at_commas

REQUEST = "--request"  # a whole request as JSON, as another machine sends it

Options = TypeVar("Options")


def add_options(parser: argparse.ArgumentParser, group: type) -> None:
    """Let a parser take the options of a dataclass, and a whole request in their place.

    Args:
        parser: of one command.
        group: dataclass of options.
    """
    for field in described(group):
        name, text = f"--{field.name.replace('_', '-')}", field.option.help
        if field.type is bool:
            parser.add_argument(name, action="store_true", help=text)
        elif field.option.commas:
            parser.add_argument(
                name, action="extend", type=_converter(at_commas), metavar=field.option.metavar, help=text
            )
        else:
            parser.add_argument(name, type=_converter(_parse(field)), metavar=field.option.metavar, help=text)
    parser.add_argument(REQUEST, type=json.loads, default={}, help=argparse.SUPPRESS)


def request(command: str, options: Any, more: Mapping[str, Any] | None = None) -> list[str]:
    """The arguments that ask the runner on another machine for the same.

    Args:
        command: of the runner.
        options: an instance of the dataclass that the command takes.
        more: what it takes beside options, as plain JSON values.
    """
    return [command, REQUEST, json.dumps({"options": dataclasses.asdict(options), **(more or {})})]


def options_from(given: argparse.Namespace, group: type[Options]) -> Options:
    """The options that were given to the runner, one by one or as a request.

    Args:
        given: from a parser that `add_options` has made.
        group: dataclass of options.
    """
    values = given.request.get("options")
    if values is None:
        named = {field.name: getattr(given, field.name) for field in described(cast(type, group))}
        values = {name: value for name, value in named.items() if value is not None}
    return group(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _parse(field: Described) -> Callable[[str], Any]:
    """What gives the value of a text."""
    if field.option.parse is not None:
        return field.option.parse
    kinds = [
        kind for kind in (get_args(field.type) if get_origin(field.type) else (field.type,)) if kind is not type(None)
    ]
    kind: Callable[[str], Any] = kinds[0]
    least, most = field.option.min, field.option.max

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise ValueError("a number") from error
        if (least is not None and not value >= least) or (most is not None and not value <= most):
            bounds = [f"from {least:g}"] * (least is not None) + [f"up to {most:g}"] * (most is not None)
            raise ValueError(f"a number {' '.join(bounds)}")
        return value

    return parse


def _converter(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same for argparse, which prints nothing but its own kind of error."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}; expected {error}") from error

    return convert
