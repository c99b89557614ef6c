"""The Keras model that a checkpoint file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from vit_deploy import checkpoints
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.errors import CheckpointError, ConfigError
from vit_deploy.model.vit import ViT


def load(path: str | Path, *, reading: CheckpointOptions = CheckpointOptions()) -> keras.Model:
    """The Keras model in a checkpoint file: a `ViT`, or the functional model around one in a `.keras` file.

    Args:
        path: a file, a folder, or the name of a model on a hub, which gives a `ViT`: no layers of Keras that a
            repository describes are made.
        reading: what the checkpoint does not say; the model is then a `ViT`.

    Raises:
        CheckpointError: as `vit_deploy.checkpoints.load`, but where nothing is stated, any layers of Keras may be
            around the ViT.
    """
    stated = stated_fields(reading)
    located = checkpoints.locate(Path(path), stated.get(checkpoints.REQUIRE_LICENCE, ()))
    ours_alone = bool(stated or located.origin.repository)
    try:
        checkpoint = checkpoints.load(located, config=stated)  # the clear errors, before Keras sees the file
    except checkpoints.FoldingError:
        if ours_alone:
            raise
        return _load_keras(path)
    return _load_keras(path) if Path(path).suffix == ".keras" and not ours_alone else ViT.from_checkpoint(checkpoint)


def _load_keras(path: str | Path) -> Any:
    try:
        return keras.saving.load_model(path)
    except ConfigError:  # it is a ValueError too
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: Keras cannot make its model: {str(error).strip().splitlines()[0]}",
            fix="only layers of Keras and of vit-deploy are loaded, and no code of the file is run",
        ) from error
