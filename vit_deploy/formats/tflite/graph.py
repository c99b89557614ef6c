"""The graph of a TFLite file, with the usual names of operators and types."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from vit_deploy.errors import ArtifactError
from vit_deploy.formats.graph import Graph, TensorInfo, counted
from vit_deploy.formats.tflite.file import OWN_ENTRY, opened, read_metadata
from vit_deploy.formats.tflite.schema import Model, NamedTensor, SubGraph, Tensor


def read_graph(path: Path) -> Graph:
    """Inputs, outputs (by the first signature's names), operators and metadata of a TFLite file.

    Raises:
        ArtifactError: it is missing, no TFLite file, or a damaged one.
    """
    metadata = _metadata(path)
    with opened(path) as model:
        _check_complete(model)
        codes = [code.name for code in model.codes]
        graphs, signatures = model.graphs, model.signatures
        used = [codes[operator.code] for graph in graphs for operator in graph.operators]
        facts: dict[str, str | int] = {"signature": "none"}
        if signatures:
            first = signatures[0]
            graph = graphs[first.graph]
            facts["signature"] = first.key
            inputs, outputs = (_named(graph, side) for side in (first.inputs, first.outputs))
        else:
            graph = graphs[0]
            inputs, outputs = (_plain(graph, side) for side in (graph.inputs, graph.outputs))
        if model.description:
            facts["made by"] = model.description
        return Graph(inputs, outputs, counted(used), metadata, facts)


def weight_types(path: Path) -> Counter[str]:
    """How many numbers of its weights a TFLite file has in each type.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    counts = Counter[str]()
    with opened(path) as model:
        buffers = model.buffers
        for tensor in (tensor for graph in model.graphs for tensor in graph.tensors):
            if len(buffers[tensor.buffer].content):
                counts[tensor.dtype] += math.prod(tensor.shape)
    return counts


def input_quantization(path: Path) -> tuple[float, int] | None:
    """Scale and zero point of the first input of a TFLite file; None where it has none.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        graph = model.graphs[0]
        found = graph.tensors[graph.inputs[0]].quantization
        if found is None or not found.scales:
            return None
        return found.scales[0], (found.zero_points or [0])[0]


def _metadata(path: Path) -> dict[str, str]:
    """Our own entry taken apart into its keys, and of the others how long they are: they are no texts."""
    try:
        found = read_metadata(path)
        own = json.loads(found.pop(OWN_ENTRY, b"{}"))
        if not isinstance(own, dict):
            raise ValueError("expected a JSON object")
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} has damaged metadata: {error}", fix="export the model again") from error
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in own.items()}
    return texts | {name: f"{len(content)} bytes" for name, content in found.items()}


def _check_complete(model: Model) -> None:
    """Raise `ValueError` unless all weights lie inside the file; nothing else reads them here."""
    for index, buffer in enumerate(model.buffers):
        if buffer.end > len(model.data):
            raise ValueError(f"buffer {index} ends at byte {buffer.end} of {len(model.data)}")


def _named(graph: SubGraph, side: list[NamedTensor]) -> tuple[TensorInfo, ...]:
    tensors = graph.tensors
    return tuple(_info(tensors[named.tensor], named.name) for named in side)


def _plain(graph: SubGraph, side: list[int]) -> tuple[TensorInfo, ...]:
    tensors = graph.tensors
    return tuple(_info(tensors[index], tensors[index].name) for index in side)


def _info(tensor: Tensor, name: str) -> TensorInfo:
    sides = tensor.shape_signature or tensor.shape
    return TensorInfo(name, tensor.dtype, tuple(side if side >= 0 else None for side in sides))
