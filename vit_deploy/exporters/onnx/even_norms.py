"""The scales of norms moved into the kernels behind them, for norms whose scales have 8 bits.

One step of 1/255 is too much for a channel whose scale is small beside the largest. Afterwards scales are one, or the
sign of what they were, but for channels that hardly count.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from vit_deploy.exporters.onnx.graph_values import layer_nodes
from vit_deploy.exporters.onnx.layers import array, set_array

LEAST = 0.01  # of the largest scale that a channel is divided by
MOVING = frozenset({"Gather", "Reshape", "Slice"})  # which leave the channels where they are


def with_even_norms(graph: onnx.GraphProto, kept: Collection[str] = ()) -> None:
    """Move the scale of each layer norm that nothing but layers with a kernel of their own reads.

    Args:
        graph: changed in place.
        kept: kernels that stay as they are.
    """
    layers = {node.name for node in layer_nodes(graph) if node.op_type != "Conv" and node.input[1] not in kept}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for norm in graph.node:
        if norm.op_type != "LayerNormalization" or len(norm.input) < 3:
            continue
        readers = _readers(graph, norm.output[0])
        if not readers or any(node.name not in layers for node in readers):
            continue
        own = (norm.input[1], norm.input[2], *(node.input[1] for node in readers))
        if any(uses[name] > 1 for name in own):
            continue
        scale, bias = array(graph, norm.input[1]), array(graph, norm.input[2])
        factor = np.maximum(np.abs(scale), LEAST * np.abs(scale).max())
        factor[factor == 0] = 1.0
        if any(array(graph, node.input[1]).shape[0] != len(factor) for node in readers):
            continue
        set_array(graph, norm.input[1], (scale / factor).astype(np.float32))
        set_array(graph, norm.input[2], (bias / factor).astype(np.float32))
        for node in readers:
            kernel = array(graph, node.input[1])
            set_array(graph, node.input[1], (kernel * factor[:, None]).astype(np.float32))


def _readers(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    """The nodes that read a value, through those that only move it; an output of the graph has none of ours."""
    if any(output.name == value for output in graph.output):
        return []
    found = []
    for node in graph.node:
        if value in node.input:
            moved = node.op_type in MOVING and node.input[0] == value
            behind = _readers(graph, node.output[0]) if moved else [node]
            found += behind or [node]
    return found
