"""What the user says of a checkpoint beside fields of its config: which weights, which head, what to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.documents import ADAPTER, ARCHITECTURE, HEAD
from vit_deploy.errors import ConfigError

WEIGHTS_KEY = "weights"  # in what is stated: the key of the weights that are taken of several
TOWER = "tower"  # likewise: a part of the path of the encoder that is taken of several
IGNORE = "ignore"  # likewise: patterns of names that are left out
HEAD_FILE = "head_file"  # likewise: a file with the head alone


@dataclass(frozen=True)
class Reading:
    """How a file of weights is read.

    Args:
        weights: key of the model that is taken of several in the file; None takes the documented one.
        tower: a part of the path of the encoder that is taken of several, or None.
        ignore: patterns of names that are left out, with `*` for any characters.
        head: False leaves the head out.
        head_file: a file that holds the head alone, or None.
    """

    weights: str | None = None
    tower: str | None = None
    ignore: tuple[str, ...] = ()
    head: bool = True
    head_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.head and self.head_file is not None:
            raise ConfigError("a head is given, and the head is to be left out", fix="leave --head or --no-head out")
        if self.weights is not None and self.tower is not None:
            raise ConfigError("a key of weights and a tower are given", fix="leave --weights or --tower out")

    @property
    def options(self) -> list[str]:
        """The options by which models and tensors are chosen, as far as they are given."""
        given = {"--weights": self.weights, "--tower": self.tower, "--ignore": self.ignore or None}
        return [option for option, value in given.items() if value is not None]

    @classmethod
    def taken_from(cls, stated: dict[str, Any]) -> Reading:
        """What of this is stated, which is taken out of `stated`.

        Raises:
            ConfigError: values of another kind.
        """
        weights, ignore = stated.pop(WEIGHTS_KEY, None), stated.pop(IGNORE, ())
        tower = stated.pop(TOWER, None)
        head, head_file = stated.pop(HEAD, True), stated.pop(HEAD_FILE, None)
        patterns = (ignore,) if isinstance(ignore, str) else ignore
        if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
            raise ConfigError(f"ignore is {ignore!r}; expected patterns of names", fix='give them as ["decoder.*"]')
        if weights is not None and not isinstance(weights, str):
            raise ConfigError(f"weights is {weights!r}; expected a key in the file", fix='give it as "teacher"')
        if tower is not None and not (isinstance(tower, str) and tower):
            raise ConfigError(f"tower is {tower!r}; expected a part of a path", fix='give it as "vision"')
        path = None if head_file is None else Path(head_file)
        return cls(weights, tower, tuple(patterns), head is not False, path)


def options_of_files(stated: Mapping[str, Any]) -> list[str]:
    """The options among what is stated that only a file can be read with."""
    options = {
        ARCHITECTURE: "--architecture",
        ADAPTER: "--adapter",
        WEIGHTS_KEY: "--weights",
        TOWER: "--tower",
        IGNORE: "--ignore",
        HEAD_FILE: "--head",
        "classes": "--classes",
        "templates": "--template",
        "tokenizer": "--tokenizer",
    }
    return [option for key, option in options.items() if key in stated]
