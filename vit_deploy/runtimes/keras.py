"""How does Keras run a checkpoint file as it is?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

from vit_deploy import checkpoints
from vit_deploy.artifact import Artifact
from vit_deploy.errors import EngineError, VitDeployError
from vit_deploy.model.vit import ViT
from vit_deploy.quiet import quiet_stderr
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.tensorflow_options import DEVICES, apply
from vit_deploy.runtimes.values import checked_images

DEVICE_NAMES = {"cpu": "cpu:0", "cuda": "gpu:0"}


class KerasRuntime:
    """Keras in float32 on the backend of this process, compiled as `Model.predict` compiles it."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[KerasSession]:
        """Load an artifact whose model file is a Keras checkpoint.

        Raises:
            CheckpointError: a file that holds no ViT.
            EngineError: a file that Keras refuses, or options that its backend cannot take.
        """
        with quiet_stderr():
            provider = _provider(options)
        with _explained(f"load {artifact.model_path}"), quiet_stderr(), keras.device(DEVICE_NAMES[provider]):
            # A model saved under mixed precision would answer in it: here the function in float32 is run.
            model = ViT.from_checkpoint(checkpoints.load(artifact.model_path), dtype="float32")
        session = KerasSession(model, artifact, provider)
        try:
            yield session
        finally:
            session.close()


class KerasSession:
    """One loaded Keras model."""

    def __init__(self, model: Any, artifact: Artifact, provider: str) -> None:
        self.provider = provider
        self.placement: dict[str, int] = {}
        self._model = model
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        checked_images(images, self._artifact)
        with _explained(f"run {self._artifact.model_path}"), keras.device(DEVICE_NAMES[self.provider]):
            return np.asarray(self._model.predict_on_batch(images), np.float32)

    def close(self) -> None:
        """Free the model and its weights."""
        self._model = None


def _provider(options: RuntimeOptions) -> str:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return apply(tf, options)
    if options.threads is not None or options.provider not in (None, *DEVICES):
        raise EngineError(
            f"Keras on {backend} takes neither a number of threads nor the provider {options.provider!r} here",
            fix="set KERAS_BACKEND=tensorflow, or leave these options out",
        )
    return options.provider or "cpu"


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except VitDeployError:  # some of them are ValueErrors too
        raise
    except (ValueError, TypeError, OSError) as error:
        raise EngineError(
            f"Keras {keras.__version__} cannot {doing}: {str(error).strip().splitlines()[0]}",
            fix="write the file again with vit-deploy convert, or check the installation with vit-deploy doctor",
        ) from error
