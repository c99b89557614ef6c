"""Intermediate activations of a TFLite file in LiteRT's own kernels."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.runtimes.litert import explained
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.locate.flow import Flow, Node


class TFLiteTapper:
    """LiteRT's interpreter without a delegate: XNNPACK keeps to itself what it computes on the way."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact) -> Iterator[OpenedTFLite]:
        """Load an artifact; see `locate.Tapper`."""
        with (
            explained(f"show what {artifact.model_path} computes"),
            quiet_stderr(),
            warnings.catch_warnings(action="ignore"),  # that it takes memory, which is what is asked for
        ):
            engine = Interpreter(
                model_path=engine_path(artifact.model_path),
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            engine.allocate_tensors()
            yield OpenedTFLite(engine, artifact)


class OpenedTFLite:
    """A TFLite file; values go by their tensors' numbers."""

    def __init__(self, engine: Any, artifact: Artifact) -> None:
        self._engine = engine
        self._artifact = artifact
        self._tensors = {int(tensor["index"]): tensor for tensor in engine.get_tensor_details()}
        self._given = int(engine.get_input_details()[0]["index"])
        self.flow = self._read_flow()

    def values(self, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What is computed on the way; see `locate.Opened`."""
        self._engine.set_tensor(self._given, as_stored(images, self._artifact.input))
        self._engine.invoke()
        return {name: self._real(int(name)) for name in names}

    def _real(self, index: int) -> NDArray[Any]:
        stored: NDArray[Any] = self._engine.get_tensor(index)
        scale, zero_point = self._tensors[index]["quantization"]
        if not np.issubdtype(stored.dtype, np.integer) or not scale:
            return stored
        real: NDArray[Any] = (stored.astype(np.float64) - zero_point) * scale
        return real

    def _read_flow(self) -> Flow:
        nodes = [
            Node(
                operator=operator["op_name"],
                name=f"#{operator['index']}",
                inputs=tuple(str(index) for index in operator["inputs"] if index >= 0),
                outputs=tuple(str(index) for index in operator["outputs"]),
            )
            for operator in self._engine._get_ops_details()  # there is no public way to ask
        ]
        stored = {str(index): math.prod(map(int, tensor["shape"])) for index, tensor in self._tensors.items()}
        computed = {name for node in nodes for name in node.outputs} | {str(self._given)}
        outputs = self._engine.get_output_details()
        if self._artifact.outputs:
            named = self._engine.get_signature_runner().get_output_details()
            outputs = [named[self._artifact.deepest_output]]
        output = outputs[0]["index"]
        constants = {name: size for name, size in stored.items() if name not in computed}
        return Flow(tuple(nodes), str(self._given), str(output), constants)
