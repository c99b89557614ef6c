"""How does plain TensorFlow run a SavedModel bundle?"""

from __future__ import annotations

import contextlib
import glob
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.quiet import quiet_stderr
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.tensorflow_options import DEVICES, apply
from vit_deploy.runtimes.values import as_stored, checked_images, missing_output, refuse_other_input

SIGNATURE = "serving_default"


# What TensorFlow and its loader, which is Python, raise of a file that is damaged.
BROKEN = (
    *(tf.errors.OpError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError),
    RuntimeError,
)


class SavedModelRuntime:
    """`tf.saved_model.load` and its `serving_default` signature."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[SavedModelSession]:
        """Load an artifact.

        Raises:
            EngineError: a folder that TensorFlow refuses, or options that it cannot take.
        """
        with quiet_stderr():
            provider = apply(tf, options)
        with (
            explained(f"load {artifact.model_path}"),
            quiet_stderr(),
            tf.device(DEVICES[provider]),
            literal(artifact.model_path) as path,
        ):
            engine = tf.saved_model.load(str(path))
        session = SavedModelSession(engine, artifact, provider)
        try:
            yield session
        finally:
            session.close()


class SavedModelSession:
    """One loaded SavedModel."""

    def __init__(self, engine: Any, artifact: Artifact, provider: str) -> None:
        signature = engine.signatures.get(SIGNATURE)
        if signature is None:
            raise EngineError(f"{artifact.model_path} has no signature {SIGNATURE}", fix="export the model again")
        _, inputs = signature.structured_input_signature
        name, given = next(iter(inputs.items()))
        refuse_other_input(artifact, name, given.shape.as_list())
        if artifact.config.output_name not in signature.structured_outputs:
            raise missing_output(artifact, list(signature.structured_outputs))
        self.provider = provider
        self.placement: dict[str, int] = {}
        self._engine = engine  # a signature alone does not keep its variables
        self._signature = signature
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        spec = self._artifact.input
        with explained(f"run {self._artifact.model_path}"), tf.device(DEVICES[self.provider]):
            outputs = self._signature(**{spec.name: tf.convert_to_tensor(as_stored(images, spec))})
            output = outputs[self._artifact.config.output_name].numpy()
        return np.asarray(output, np.float32)

    def close(self) -> None:
        """Free the model and its weights."""
        self._engine = self._signature = None


@contextlib.contextmanager
def literal(path: Path) -> Iterator[Path]:
    """A path by which TensorFlow finds a SavedModel, whatever its folder is called."""
    # TensorFlow takes the path of the variables for a pattern, in which a folder "[a]" stands for "a".
    if glob.escape(str(path)) == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / path.name
        link.symlink_to(path.resolve(), target_is_directory=True)
        yield link


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raise what TensorFlow raises as an `EngineError`."""
    try:
        yield
    except BROKEN as error:
        raise EngineError(
            f"TensorFlow {tf.__version__} cannot {doing}: {str(error).strip().splitlines()[0]}",
            fix="export the model again, or check the installation with vit-deploy doctor",
        ) from error
