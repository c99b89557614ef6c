"""JSON from files of unknown origin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import CheckpointError, ConfigError

PREPROCESS = "preprocess"  # in a config given: fields of the preprocessing
STATED_PREPROCESS = "--preprocess"  # the document that says that the user states all that is done to images
LABELS = "labels"  # in a config given: names of the classes, in the order of the outputs
ARCHITECTURE = "architecture"  # likewise: timm's name of what the files do not name
ADAPTER = "adapter"  # likewise, by option or call alone: the folder of an adapter
HEAD = "head"  # likewise, by option or call alone: False leaves the head out
GET_AGAIN = "the file is damaged: get it again"
MAX_JSON_BYTES = 100_000_000  # the limit of the safetensors format


def parse_json(text: bytes | str, name: str, *, fix: str = GET_AGAIN) -> dict[str, Any]:
    """A JSON object.

    Args:
        text: that is parsed.
        name: of the file, for messages.
        fix: what to do about a wrong one.

    Raises:
        CheckpointError: other than an object, broken, nested without end, or a key that is there twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{name} is not valid JSON: {detail}", fix=fix) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} is a {type(value).__name__}; expected an object", fix=fix)
    return value


def as_list(value: object) -> list[Any]:
    """`value`, if it is a list; a text would pass for one of letters.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return value


def as_ranges(value: object) -> dict[str, tuple[float, float]]:
    """`value`, if it has two numbers for each name.

    Raises:
        TypeError, ValueError: it has not.
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    found = {}
    for name, values in value.items():
        low, high = as_list(values)
        found[str(name)] = (float(low), float(high))
    return found


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever goes wrong while values of the wrong kind are picked apart into a `CheckpointError`.

    Raises:
        CheckpointError: missing entries, values of another type, or a config that no ViT can have.
    """
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{what}: {error.message}", fix=error.fix) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{what} is damaged: {detail}", fix="get the file again, or save it again") from error


def read_config(path: Path) -> dict[str, Any]:
    """Fields of a config in a JSON file, some of those that `ViTConfig.to_dict` writes, `preprocess` and `labels`.

    Raises:
        CheckpointError: no such file, no JSON, or fields that no config has.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the config {path}: {error.strerror}", fix="check the path") from error
    values = parse_json(text, str(path), fix=f"correct {path}")
    known = [*(field.name for field in dataclasses.fields(ViTConfig)), PREPROCESS, LABELS, ARCHITECTURE]
    if unknown := sorted(set(values) - set(known)):
        raise CheckpointError(
            f"{path} has fields that no config has: {', '.join(unknown)}", fix=f"known are {', '.join(known)}"
        )
    return values


def stated_preprocess(found: Preprocess, fields: object) -> Preprocess:
    """A preprocessing with the fields that the user states in place of its own.

    One number as mean or std counts for all channels.

    Raises:
        CheckpointError: fields that no preprocessing has, or values that it cannot have.
    """
    with explained(f"the {PREPROCESS} of the config given"):
        if not isinstance(fields, Mapping):
            raise TypeError(f"expected an object, found {type(fields).__name__}")
        said = {name: _of_all_channels(name, value, found.channels) for name, value in fields.items()}
        return Preprocess.from_dict(found.to_dict() | said)


def _of_all_channels(name: str, value: object, channels: int) -> object:
    if name not in ("mean", "std"):
        return value
    values = value if isinstance(value, list | tuple) else [value]
    return [*values] * channels if len(values) == 1 else value
