"""Intermediate activations of an ONNX file in ONNX Runtime.

The requested values become outputs of a copy of the model in memory: two pieces of one protobuf message are
the message that holds both, so the outputs are written behind the file's bytes. Weights beside the file stay there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.formats.onnx.schema import (
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    NODE_INPUT,
    NODE_NAME,
    NODE_OPERATOR,
    NODE_OUTPUT,
    TENSOR_NAME,
    VALUE_NAME,
    shape_of,
)
from vit_deploy.formats.protobuf import Message, opened, written
from vit_deploy.runtimes.ort.errors import explained
from vit_deploy.runtimes.ort.reasons import Setting
from vit_deploy.runtimes.ort.runtime import FATAL
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.locate.flow import Flow, Node

FUSED = ("Attention", "MultiHeadAttention")
DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxTapper:
    """ONNX Runtime on the CPU, with its usual optimizations but those that the taps are in the way of."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact) -> Iterator[OpenedOnnx]:
        """Read an artifact's graph; see `locate.Tapper`."""
        refuse_outside_data(artifact.model_path)
        with opened(artifact.model_path, "an ONNX file") as model:
            flow = _flow(model.message(MODEL_GRAPH), artifact)
        if any(node.operator in FUSED for node in flow.nodes):
            raise EngineError(
                f"the attention of {artifact.model_path} is one operator, which shows nothing of its inside",
                fix="look into the file of the same model that is exported without --for cuda",
            )
        yield OpenedOnnx(artifact, flow)


class OpenedOnnx:
    """An ONNX file."""

    def __init__(self, artifact: Artifact, flow: Flow) -> None:
        self.flow = flow
        self._artifact = artifact

    def values(self, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What is computed on the way; see `locate.Opened`."""
        path, spec = self._artifact.model_path, self._artifact.input
        more = [name for name in names if name not in (self.flow.input, self.flow.output)]
        settings = ort.SessionOptions()
        settings.log_severity_level = FATAL
        settings.add_session_config_entry(DATA_FOLDER, engine_path(path.parent.resolve()))
        with explained(f"show what {path} computes", Setting("cpu")), quiet_stderr():
            model = path.read_bytes() + _outputs(more)
            session = ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
            found = session.run([*names], {spec.name: as_stored(images, spec)})
        return dict(zip(names, found, strict=True))


def _flow(graph: Message, artifact: Artifact) -> Flow:
    stored = {tensor.text(TENSOR_NAME): math.prod(shape_of(tensor)) for tensor in graph.messages(GRAPH_INITIALIZER)}
    nodes = [
        Node(
            operator=node.text(NODE_OPERATOR),
            name=node.text(NODE_NAME) or str(node.messages(NODE_OUTPUT)[0]),
            inputs=tuple(str(value) for value in node.messages(NODE_INPUT)),
            outputs=tuple(str(value) for value in node.messages(NODE_OUTPUT)),
        )
        for node in graph.messages(GRAPH_NODE)
    ]
    return Flow(tuple(nodes), artifact.input.name, artifact.deepest_output, stored)


def _outputs(names: Sequence[str]) -> bytes:
    """A piece of a model that has nothing but outputs; their types follow from the graph."""
    return written(MODEL_GRAPH, b"".join(written(GRAPH_OUTPUT, written(VALUE_NAME, name.encode())) for name in names))
