"""Intermediate activations of an ONNX file in ONNX Runtime.

The requested values become outputs of a copy of the model in memory: two pieces of one protobuf message are
the message that holds both, so the outputs are written behind the file's bytes. Weights beside the file stay there.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from vit_deploy.runtimes.ort.sessions import FATAL
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.locate.flow import Flow, Node

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
FUSED = ("Attention", "MultiHeadAttention")
DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxTapper:
    """ONNX Runtime on the CPU, with its usual optimizations but those that the activations are in the way of."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact) -> Iterator[OpenedOnnx]:
        """Read an artifact's graph; see `locate.Tapper`."""
        refuse_outside_data(artifact.model_path)
        flow = flow_of(artifact)
        if any(node.operator in FUSED for node in flow.nodes):
            raise EngineError(
                f"the attention of {artifact.model_path} is one operator, which shows nothing of its inside",
                fix="look into the file of the same model that is exported without --for cuda",
            )
        yield OpenedOnnx(artifact, flow)


def flow_of(artifact: Artifact) -> Flow:
    """The graph of an artifact's file."""
    with opened(artifact.model_path, "an ONNX file") as model:
        return _flow(model.message(MODEL_GRAPH), artifact)


def giving(artifact: Artifact, names: Sequence[str], flow: Flow) -> bytes:
    """A copy of an artifact's model, with further values as its outputs."""
    more = [name for name in names if name not in (flow.input, flow.output)]
    return artifact.model_path.read_bytes() + _outputs(more)


class OpenedOnnx:
    """An ONNX file."""

    def __init__(self, artifact: Artifact, flow: Flow) -> None:
        self.flow = flow
        self._artifact = artifact

    def values(self, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What is computed on the way; see `locate.Opened`."""
        path, spec = self._artifact.model_path, self._artifact.input
        settings = ort.SessionOptions()
        settings.log_severity_level = FATAL
        settings.add_session_config_entry(DATA_FOLDER, engine_path(path.parent.resolve()))
        with explained(f"show what {path} computes", Setting("cpu")), quiet_stderr():
            session = ort.InferenceSession(
                giving(self._artifact, names, self.flow), settings, providers=["CPUExecutionProvider"]
            )
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
    return Flow(_without_conversions(nodes), artifact.input.name, artifact.deepest_output, stored)


def _without_conversions(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes of a graph whose values are integers, each with the value that is restored of what it gives.

    Where nothing but its quantizer reads a value, the restored one stands for it: those that follow read that, and an
    engine that computes in integers has no other.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    restored, gone = dict[str, str](), set[str]()
    for node in nodes:
        for name in node.outputs:
            quantizer = _only(readers.get(name, ()), QUANTIZE)
            back = None if quantizer is None else _only(readers.get(quantizer.outputs[0], ()), DEQUANTIZE)
            if quantizer is not None and back is not None:
                restored[name] = back.outputs[0]
                gone |= {quantizer.outputs[0], back.outputs[0]}

    def at_last(name: str) -> str:
        """What stands for a value, which may have been converted to other integers on the way."""
        while name in restored:
            name = restored[name]
        return name

    return tuple(
        dataclasses.replace(node, outputs=tuple(map(at_last, node.outputs)))
        for node in nodes
        if not gone & set(node.outputs)
    )


def _only(readers: Sequence[Node], operator: str) -> Node | None:
    return readers[0] if len(readers) == 1 and readers[0].operator == operator else None


def _outputs(names: Sequence[str]) -> bytes:
    """A piece of a model that has nothing but outputs; their types follow from the graph."""
    return written(MODEL_GRAPH, b"".join(written(GRAPH_OUTPUT, written(VALUE_NAME, name.encode())) for name in names))
