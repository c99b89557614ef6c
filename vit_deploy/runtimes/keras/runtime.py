"""Keras as the runtime of checkpoint files, as they are."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

from vit_deploy import checkpoints
from vit_deploy.core import engine_errors
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.model.vit import ViT
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.keras.devices import EAGER, call_rounding, chosen_device, name_of, rounding
from vit_deploy.runtimes.tensorflow.options import ONE_STREAM
from vit_deploy.runtimes.values import checked_images

BACKEND = keras.backend.backend()


class KerasRuntime:
    """Keras in float32 on the backend of this process.

    The providers `cpu` and `cuda` compile the model as `Model.predict` compiles it: into a graph of TensorFlow's, with
    XLA for JAX. `cpu-eager` and `cuda-eager` call it, layer by layer, as one does who looks at a model. PyTorch runs
    both the same.
    """

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Open the device; see `runtimes.DeviceRuntime`.

        Raises:
            EngineError: options that the backend cannot take, or a GPU that it does not see.
        """
        with _explained("open the device"), quiet_stderr():
            provider = chosen_device(BACKEND, options)
            if provider != "cpu":
                with keras.device(name_of(BACKEND, provider, options.device)):
                    keras.ops.convert_to_numpy(keras.ops.zeros(1))

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[KerasSession]:
        """Load an artifact whose model file is a Keras checkpoint.

        Raises:
            CheckpointError: a file that holds no ViT.
            EngineError: a file that Keras refuses, or options that its backend cannot take.
        """
        with quiet_stderr():
            provider = chosen_device(BACKEND, options)
        with rounding(BACKEND, provider, options.allow_tf32):
            name = name_of(BACKEND, provider, options.device)
            with _explained(f"load {artifact.model_path}"), quiet_stderr(), keras.device(name):
                # A model saved under mixed precision would answer in it: here the function in float32 is run.
                model = ViT.from_checkpoint(checkpoints.load(artifact.model_path), dtype="float32")
            session = KerasSession(model, artifact, provider, options)
            try:
                yield session
            finally:
                session.close()


class KerasSession:
    """One loaded Keras model, whose calls come one after the other: the first of a shape traces and compiles it."""

    def __init__(self, model: Any, artifact: Artifact, provider: str, options: RuntimeOptions) -> None:
        self._eager = (options.provider or "").endswith(EAGER)
        self.provider = provider + EAGER if self._eager else provider
        self._device = name_of(BACKEND, provider, options.device)
        self._rounding = (BACKEND, provider, options.allow_tf32)
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = (ONE_STREAM,) if provider != "cpu" and BACKEND == "tensorflow" else ()
        self._model = model
        self._turn = threading.Lock()
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        checked_images(images, self._artifact)
        with (
            self._turn,
            _explained(f"run {self._artifact.model_path}"),
            keras.device(self._device),
            call_rounding(*self._rounding),
        ):
            if self._eager:
                return np.asarray(keras.ops.convert_to_numpy(self._model(images, training=False)), np.float32)
            return np.asarray(self._model.predict_on_batch(images), np.float32)

    def close(self) -> None:
        """Free the model and its weights."""
        self._model = None


def _explained(doing: str) -> engine_errors.explained:
    return engine_errors.explained(
        f"Keras {keras.__version__} cannot {doing}",
        (ValueError, TypeError, OSError),
        "write the file again with vit-deploy convert, or check the installation with vit-deploy doctor",
    )
