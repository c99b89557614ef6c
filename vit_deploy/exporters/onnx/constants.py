"""Folding of values that are known before a graph runs: shapes, axes and their conversions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[np.generic]


def _cast(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].astype(ir.DataType(node.attributes["to"].as_int()).numpy())


def _unsqueeze(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return np.expand_dims(inputs[0], tuple(int(axis) for axis in np.ravel(inputs[1])))


EVALUATED: Mapping[str, Callable[[ir.Node, Sequence[Array]], Array]] = {
    "Cast": _cast,
    "Concat": lambda node, inputs: np.concatenate(inputs, axis=node.attributes["axis"].as_int()),
    "Reshape": lambda node, inputs: inputs[0].reshape(tuple(int(side) for side in np.ravel(inputs[1]))),
    "Unsqueeze": _unsqueeze,
}


def fold_constants(graph: ir.Graph) -> None:
    """Replace every node of which all inputs are known by its value. Weights are inputs, so they are never folded."""
    for node in list(graph):
        evaluate = EVALUATED.get(node.op_type)
        inputs = [constant(value) for value in node.inputs]
        if evaluate is None or any(value is None for value in inputs):
            continue
        folded = evaluate(node, [value for value in inputs if value is not None])
        add_constant(graph, node.outputs[0].name or "", folded, instead_of=node.outputs[0])
        graph.remove(node, safe=True)


def constant(value: ir.Value | None) -> Array | None:
    """What is known of a value, or None."""
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def add_constant(graph: ir.Graph, name: str, array: Array, *, instead_of: ir.Value | None = None) -> ir.Value:
    """A new initializer of the graph; it takes over the uses of `instead_of`."""
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    if instead_of is not None:
        instead_of.name = f"{name}_folded"
        instead_of.replace_all_uses_with(value)
    graph.register_initializer(value)
    return value
