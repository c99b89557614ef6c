"""The reference as an engine computes it that rounds every operator to 16 bits, though the file is of float32."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.narrow_floats import NARROW, PROTECTED, Overflow, Trace, as_rounded
from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError
from vit_deploy.runtimes import RuntimeOptions

FIX = (
    "have the engine compute in float32 (LiteRT without forced fp16, OpenVINO with INFERENCE_PRECISION_HINT f32), or "
    "give it an ONNX fp16 file of vit-deploy export, which keeps such operators in float32"
)


class NarrowReference:
    """The simulated engine.

    Args:
        checkpoint: the model that the artifact is of.
        kind: "fp16" or "bf16".
    """

    def __init__(self, checkpoint: Checkpoint, kind: str) -> None:
        self._checkpoint = checkpoint
        self._trace = Trace(NARROW[kind])
        self.kind = kind

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[NarrowSession]:
        """Take an artifact, of which only the form of its input counts.

        Raises:
            ConfigError: an artifact of integers, or with outputs by name.
        """
        if artifact.precision not in ("fp32", "fp16", "bf16"):
            raise ConfigError(
                f"{artifact.model_path} is {artifact.precision}; {self.kind} is simulated for files of floats",
                fix="simulate the fp32 file",
            )
        if PROTECTED in artifact.options.get("recipe", {}):
            raise ConfigError(
                f"{artifact.model_path} computes in 16-bit floats and is protected from overflow by what it scales and "
                f"keeps in float32; {self.kind} is simulated operator by operator of the model as it was",
                fix="simulate the fp32 file, or this one with --simulate arm-fp16, which rounds its own operators",
            )
        if artifact.outputs or artifact.sizes:
            raise ConfigError(
                f"{artifact.model_path} has outputs by name or several sizes; {self.kind} is simulated for one",
                fix="simulate a file without --output, for one --image-size",
            )
        yield NarrowSession(self._checkpoint, self._trace, artifact)

    @property
    def overflow(self) -> Overflow | None:
        """The first operator that overflowed on what was run so far."""
        return self._trace.found()

    @property
    def words(self) -> str:
        """The same for people; empty where none did."""
        found = self.overflow
        if found is None:
            return ""
        kind = self._trace.kind
        what = f"the weights {found.place}" if found.operator == "weights" else f"the {found.operator} of {found.place}"
        return f"{what} is the first to overflow: {found.largest:.3g} passes {kind.largest:.6g}"


class NarrowSession:
    """One artifact in the simulated engine.

    Args:
        checkpoint: the model.
        trace: what is told of overflows.
        artifact: the artifact.
    """

    def __init__(self, checkpoint: Checkpoint, trace: Trace, artifact: Artifact) -> None:
        self.provider = trace.kind.name
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = ()
        self._trace, self._artifact = trace, artifact
        self._checkpoint = dataclasses.replace(
            checkpoint, weights={name: self._weight(name, values) for name, values in checkpoint.weights.items()}
        )

    def _weight(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        largest, limit = float(np.abs(values).max(initial=0.0)), self._trace.kind.largest
        if largest > limit:
            self._trace.overflowed("weights", largest)
            self._trace.shown(name, np.array(np.inf))
        return as_rounded(self._trace.kind.rounded(np.clip(values, -limit, limit)), self._trace)

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        given = images
        if self._artifact.input.preprocessing_inside:
            given = self._checkpoint.preprocess.normalize(images)
        with np.errstate(all="ignore"):
            outputs = forward(
                self._checkpoint,
                as_rounded(given, self._trace),
                np.float32,
                hook=self._trace.shown,
                detail=self._trace.shown,
            )
        return np.array(outputs, np.float32, subok=False)
