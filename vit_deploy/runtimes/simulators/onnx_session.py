"""An ONNX file that the onnx package runs in NumPy, with operators computed as a processor that is not here would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from vit_deploy.core.activation_functions import gelu, gelu_tanh
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_errors import explained
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.erf import erf
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes.batching import in_batches, outputs_in_batches
from vit_deploy.runtimes.values import as_stored, checked_images


def read_model(artifact: Artifact) -> onnx.ModelProto:
    """The file of an artifact.

    Raises:
        EngineError: a file that the onnx package cannot read.
    """
    refuse_outside_data(artifact.model_path)
    try:
        return onnx.load(engine_path(artifact.model_path))
    except (ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise EngineError(f"onnx cannot read {artifact.model_path}: {error}", fix="export it again") from error


class SimulatedSession:
    """One loaded ONNX file.

    Args:
        processor: name of what is simulated.
        model: the file.
        operators: that are computed otherwise.
        artifact: whose file it is.

    Raises:
        EngineError: a file that the onnx package cannot run.
    """

    def __init__(
        self, processor: str, model: onnx.ModelProto, operators: Sequence[type[OpRun]], artifact: Artifact
    ) -> None:
        self.provider = processor
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = ()
        self._artifact = artifact
        what, fix = f"the onnx package cannot run {artifact.model_path}", "simulate a file of vit-deploy export"
        with explained(what, (RuntimeError, NotImplementedError), fix, words=str):
            self._model = ReferenceEvaluator(model, new_ops=list(operators))

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def infer_outputs(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name; see `runtimes.NamedSession`."""
        return outputs_in_batches(self._run_all, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run_all(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        spec, names = self._artifact.input, self._artifact.output_names
        outputs = self._model.run(list(names), {spec.name: as_stored(images, spec)})
        return {name: np.asarray(output, np.float32) for name, output in zip(names, outputs, strict=True)}

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        spec = self._artifact.input
        (output,) = self._model.run([self._artifact.output_name], {spec.name: as_stored(images, spec)})
        return np.asarray(output, np.float32)


class Erf(OpRun):  # type: ignore[misc]
    """The error function, for which the onnx package asks for one number after the other."""

    def _run(self, x: Any) -> tuple[NDArray[Any]]:
        return (erf(x),)


class Gelu(OpRun):  # type: ignore[misc]
    """The activation function, which the onnx package writes with `Erf`."""

    def _run(self, x: Any, approximate: str = "none") -> tuple[NDArray[Any]]:
        return ((gelu_tanh if approximate == "tanh" else gelu)(x).astype(x.dtype),)
