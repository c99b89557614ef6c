"""How does Keras run a checkpoint file as it is?"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
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
from vit_deploy.runtimes import PROVIDERS_OF_RUNTIME, RuntimeOptions
from vit_deploy.runtimes.tensorflow_options import apply
from vit_deploy.runtimes.values import checked_images

EAGER = "-eager"
DEVICE_NAMES = {"cpu": "cpu:0", "cuda": "gpu:0"}


class KerasRuntime:
    """Keras in float32 on the backend of this process.

    The providers `cpu` and `cuda` compile the model as `Model.predict` compiles it: into a graph of TensorFlow's, with
    XLA for JAX. `cpu-eager` and `cuda-eager` call it, layer by layer, as one does who looks at a model. PyTorch runs
    both the same.
    """

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[KerasSession]:
        """Load an artifact whose model file is a Keras checkpoint.

        Raises:
            CheckpointError: a file that holds no ViT.
            EngineError: a file that Keras refuses, or options that its backend cannot take.
        """
        eager = (options.provider or "").endswith(EAGER)
        with quiet_stderr():
            device = _device(options)
        with _explained(f"load {artifact.model_path}"), quiet_stderr(), keras.device(DEVICE_NAMES[device]):
            # A model saved under mixed precision would answer in it: here the function in float32 is run.
            model = ViT.from_checkpoint(checkpoints.load(artifact.model_path), dtype="float32")
        session = KerasSession(model, artifact, device, eager=eager)
        try:
            yield session
        finally:
            session.close()


class KerasSession:
    """One loaded Keras model."""

    def __init__(self, model: Any, artifact: Artifact, device: str, *, eager: bool) -> None:
        self.provider = device + EAGER if eager else device
        self._device, self._eager = DEVICE_NAMES[device], eager
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = ()
        self._model = model
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        checked_images(images, self._artifact)
        with _explained(f"run {self._artifact.model_path}"), keras.device(self._device):
            if self._eager:
                return np.asarray(keras.ops.convert_to_numpy(self._model(images, training=False)), np.float32)
            return np.asarray(self._model.predict_on_batch(images), np.float32)

    def close(self) -> None:
        """Free the model and its weights."""
        self._model = None


def _device(options: RuntimeOptions) -> str:
    known = PROVIDERS_OF_RUNTIME["keras"]
    if options.provider is not None and options.provider not in known:
        raise EngineError(f"Keras has no provider {options.provider!r}", fix=f"choose one of {', '.join(known)}")
    provider = None if options.provider is None else options.provider.removesuffix(EAGER)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return apply(tf, dataclasses.replace(options, provider=provider))
    if options.threads is not None:
        raise EngineError(
            f"Keras on {backend} takes no number of threads here",
            fix="set KERAS_BACKEND=tensorflow, or leave --threads out",
        )
    return provider or "cpu"


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
