"""Models as the functions of the API take them: Keras models, checkpoints, files, and names of scales."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import SCALE_CONFIGS
from vit_deploy.errors import ConfigError
from vit_deploy.verification.targets import NAMELESS, Source, load_source


class KerasModel(Protocol):
    """A `ViT`, or a Keras model that is one ViT under a new head."""

    def save(self, filepath: str) -> None:
        """Write a `.keras` file."""


Model = Checkpoint | KerasModel | str | Path
Size = int | tuple[int, int]
"""Pixels of a square, or (height, width)."""


def as_checkpoint(model: Model, stated: Mapping[str, Any] | None = None) -> Checkpoint:
    """The config and the weights of a model, wherever it is.

    Args:
        model: a Keras model, a checkpoint, the path of a checkpoint file, or the name of a scale.
        stated: what a checkpoint file does not say, as `checkpoints.load` takes it: fields of the config, `preprocess`
            with `mean`, `std` and others, `labels`, and `head` False for the features.

    Raises:
        CheckpointError: it is not a ViT, or not one under a new head.
        ConfigError: it is no model at all, or something is stated of one that is no file.
    """
    return open_source(model, {}, None, None, dict(stated or {})).checkpoint


def open_source(
    model: Model, overrides: Mapping[str, Any], seed: int | None, like: str | None, stated: Mapping[str, Any]
) -> Source:
    """A model to work on, with a name and with what has to be known of it; see `targets.load_source`.

    Args:
        model: a Keras model, a checkpoint, the path of a checkpoint file, or the name of a scale.
        overrides: fields of the config that are requested.
        seed: the seed of random weights.
        like: name of the convention that a checkpoint is resized by.
        stated: what a checkpoint file does not say.

    Raises:
        CheckpointError: it is not a ViT, or not one under a new head.
        ConfigError: it is no model at all, or options that it cannot take.
    """
    if isinstance(model, str):
        return load_source(model, overrides, seed, like, stated)
    if isinstance(model, Path):  # never a scale, whatever it is called
        return load_source(
            str(model.absolute() if str(model) in SCALE_CONFIGS else model), overrides, seed, like, stated
        )
    if stated:
        raise ConfigError(
            f"{', '.join(stated)} can be stated of a checkpoint file, and this is a {type(model).__name__}",
            fix="change the model itself",
        )
    if isinstance(model, Checkpoint):
        return load_source(model, overrides, seed, like)
    if not callable(getattr(model, "save", None)):
        raise ConfigError(
            f"a {type(model).__name__} cannot be exported", fix="give a Keras model, a Checkpoint, or a file's path"
        )
    with tempfile.TemporaryDirectory() as folder:  # its file says which layers are around the ViT
        file = Path(folder) / f"{NAMELESS}.keras"
        model.save(str(file))
        source = load_source(str(file), overrides, seed, like)
    return dataclasses.replace(source, origin=None)  # its config is its own, and nothing is assumed


def sides(size: Size) -> tuple[int, int]:
    """The (height, width) of a size."""
    return (size, size) if isinstance(size, int) else size
