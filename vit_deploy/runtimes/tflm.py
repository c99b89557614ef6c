"""TensorFlow Lite Micro, the interpreter of microcontrollers, as a runtime of integer TFLite artifacts."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tflite_micro.python.tflite_micro import runtime as micro

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.compiled import Compiled
from vit_deploy.core.stderr import Captured, quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import read_steps
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.values import as_stored, checked_images, dequantized, refuse_other_input

TARGET = PROVIDER = "tflm"
NO_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
ARENA = re.compile(r"Arena allocation total (\d+) bytes")
SPARE = 4_000_000  # bytes of the arena beside tensors; what is not used costs nothing here
NOTE = "its kernels are the plain ones, on this machine: times say nothing of a microcontroller"


class TFLM:
    """Micro's interpreter, with all of its operators; it runs what `compile --for tflm` made where there is one."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[MicroSession]:
        """Load an artifact.

        Raises:
            EngineError: an operator that Micro does not have, or another provider.
        """
        if options.provider not in (None, PROVIDER):
            raise EngineError(f"TensorFlow Lite Micro has no provider {options.provider!r}", fix=f"choose {PROVIDER}")
        session = MicroSession(artifact, model_file(artifact))
        try:
            yield session
        finally:
            session.close()


class MicroSession:
    """One loaded file; calls come one after the other, for the arena is one."""

    def __init__(self, artifact: Artifact, path: Path) -> None:
        content = path.read_bytes()
        with quiet_stderr() as said:
            try:
                engine = micro.Interpreter.from_bytes(content, arena_size=len(content) + SPARE + _tensor_bytes(path))
            except (RuntimeError, ValueError):
                engine = None
        if engine is None:
            raise _refusal(path, said)
        self._engine: Any = engine
        given, gives = engine.get_input_details(0), engine.get_output_details(0)
        shape = [int(side) for side in given["shape"]]
        refuse_other_input(artifact, artifact.input.name, shape)  # it does not tell names
        self._steps = _steps_of(gives)
        self._artifact = artifact
        self._turn = threading.Lock()
        self.provider = PROVIDER
        with opened(path) as model:
            self.placement: Mapping[str, int] = {PROVIDER: sum(1 for _ in read_steps(model))}
        self.notes: Sequence[str] = (f"it runs {path.name}; {NOTE}",)

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        values = in_batches(self.stored, checked_images(images, self._artifact), self._artifact.input.batch)
        return values if self._steps is None else dequantized(values, *self._steps)

    def stored(self, images: NDArray[Any]) -> NDArray[Any]:
        """The numbers that the file itself gives for one call's images."""
        with self._turn, quiet_stderr() as said:
            self._engine.set_input(as_stored(images, self._artifact.input), 0)
            try:
                self._engine.invoke()
            except RuntimeError:
                failed = True
            else:
                failed = False
            outputs = np.array(self._engine.get_output(0))
        if failed:
            raise EngineError(f"TensorFlow Lite Micro cannot run {self._artifact.model_path}: {said.tail(1)}")
        return outputs

    def arena_bytes(self) -> int:
        """The bytes of memory that the file takes beside itself on this machine, once it has run."""
        with self._turn, quiet_stderr() as said:
            self._engine.print_allocations()
        found = ARENA.search(said.text)
        if found is None:
            raise EngineError(
                "TensorFlow Lite Micro does not tell its memory", fix="take another version of tflite-micro"
            )
        return int(found[1])

    def close(self) -> None:
        """Free the interpreter and its weights."""
        self._engine = None


def model_file(artifact: Artifact) -> Path:
    """The file that a microcontroller runs: what was compiled for it, else the artifact's own."""
    compiled = Compiled.of(artifact)
    if compiled is not None and compiled.target == TARGET:
        return artifact.directory / compiled.file
    return artifact.model_path


def _tensor_bytes(path: Path) -> int:
    """The bytes of all tensors that are computed, as if none shared its place."""
    with opened(path) as model:
        written = [tensor for step in read_steps(model) for tensor in (*step.inputs[:1], *step.outputs)]
        return sum(int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize for tensor in written)


def _steps_of(details: Mapping[str, Any]) -> tuple[float, int] | None:
    """Scale and zero point of a tensor; None of floats."""
    if not np.issubdtype(details["dtype"], np.integer):
        return None
    steps = details["quantization_parameters"]
    return float(steps["scales"][0]), int(steps["zero_points"][0])


def _refusal(path: Path, said: Captured) -> EngineError:
    if found := NO_OPERATOR.search(said.text):
        fix = "vit-deploy compile ARTIFACT --for tflm puts tables in its place" if found[1] == "GELU" else ""
        return EngineError(
            f"TensorFlow Lite Micro has no operator {found[1]}, and {path} needs it",
            fix=fix or "give the model another activation, norm or pooling",
        )
    return EngineError(
        f"TensorFlow Lite Micro cannot load {path}: {said.tail(2)}", fix="quantize it with the recipe of int8-full"
    )
