"""Tokens as rows of plain matrices, so that each projection is one Gemm.

A sequence `(batch, tokens, dim)` is laid out as its rows `(batch * tokens, dim)`, so what works on each token alone
can work on the rows: the norms, the activations, the residual sums, and the projections, whose bias a Gemm adds on
the way (5 % faster in ONNX Runtime). Only attention needs the sequence, and takes it apart into heads by a Reshape
anyway.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.constants import add_constant, constant

# Operators that work on each token alone, given constants or weights for their other inputs.
TOKENWISE = frozenset(
    {
        *("Add", "Clip", "Div", "Elu", "Erf", "Gelu", "Gemm", "HardSwish", "LayerNormalization", "LeakyRelu", "MatMul"),
        *("Max", "Min", "Mul", "Neg", "Pow", "ReduceMean", "Relu", "Reciprocal", "Sigmoid", "Sqrt", "Sub", "Tanh"),
    }
)
SEQUENCE_READERS = frozenset({"ReduceMax", "ReduceMean", "Slice"})  # the poolings


def tokens_as_rows(graph: ir.Graph, config: ViTConfig) -> set[ir.Value]:
    """Lay the residual stream out as rows; returns the values that are rows now.

    Raises:
        ExportError: the positions or the tokens are read in a way that no ViT of this config has.
    """
    table = next(value for value in graph.inputs if value.name == "pos_embed.table")
    readers = table.consumers()
    if [reader.op_type for reader in readers] != ["Add"]:
        raise ExportError(f"the positions are read by {[reader.op_type for reader in readers]}, expected one Add")
    sequence = readers[0].outputs[0]
    uses = sequence.uses()
    flat = reshaped(graph, sequence, (-1, config.embed_dim), after=readers[0])
    for user, index in uses:
        user.replace_input_with(index, flat)
    rows = {flat}
    fixed: set[ir.Value | None] = {*graph.inputs[1:]}
    for node in list(graph):
        fixed.update(value for value in node.inputs if constant(value) is not None)
        if all(value in fixed for value in node.inputs):
            fixed.update(node.outputs)
        elif node.op_type == "Reshape" and _sides(node) == (-1, config.sequence_length, config.attention_dim):
            node.replace_input_with(1, shape_constant(graph, (-1, config.attention_dim)))
            rows.update(node.outputs)
        elif any(value in rows for value in node.inputs):
            if is_tokenwise(node) and all(value in rows or value in fixed for value in node.inputs):
                rows.update(node.outputs)
            elif node.op_type in SEQUENCE_READERS:
                _take_sequence(graph, node, rows, config)
            elif node.op_type != "Reshape":
                raise ExportError(f"cannot lay out the tokens: {node.op_type} {node.name} reads them in an unknown way")
    for value in list(graph.outputs):
        if value in rows:
            _give_sequence(graph, value, config)
    return rows


def products_with_bias(graph: ir.Graph) -> None:
    """Merge each product of a matrix and a kernel with the sum of its bias into one Gemm."""
    weights = set(graph.inputs)
    for node in list(graph):
        if node.op_type != "MatMul" or node.inputs[1] not in weights:
            continue
        uses = node.outputs[0].uses()
        (following,) = (use.node for use in uses) if len(uses) == 1 else (node,)
        if following.op_type != "Add" or following.inputs[1] not in weights:
            continue
        product = ir.node("Gemm", [*node.inputs, following.inputs[1]], name=node.name)
        graph.insert_after(node, product)
        _replace(graph, following.outputs[0], product.outputs[0])
        graph.remove([following, node], safe=True)


def is_tokenwise(node: ir.Node) -> bool:
    """Whether an operator works on each token alone, given constants or weights for its other inputs."""
    if node.op_type == "ReduceMean":
        axes = constant(node.inputs[1])
        return axes is not None and axes.tolist() == [-1]
    return node.op_type in TOKENWISE


def _take_sequence(graph: ir.Graph, node: ir.Node, rows: set[ir.Value], config: ViTConfig) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value in rows:
            sides = (-1, config.sequence_length, config.embed_dim)
            producer = value.producer()
            assert producer is not None  # rows are made by nodes
            node.replace_input_with(index, reshaped(graph, value, sides, after=producer))


def _give_sequence(graph: ir.Graph, value: ir.Value, config: ViTConfig) -> None:
    producer = value.producer()
    assert producer is not None
    sequence = reshaped(graph, value, (-1, config.sequence_length, config.embed_dim), after=producer)
    sequence.name, value.name = value.name, f"{value.name}_rows"
    graph.outputs[list(graph.outputs).index(value)] = sequence


def _sides(reshape: ir.Node) -> tuple[int, ...] | None:
    known = constant(reshape.inputs[1])
    return None if known is None else tuple(int(side) for side in known)


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    new.name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def shape_constant(graph: ir.Graph, sides: tuple[int, ...]) -> ir.Value:
    """The sides of a shape as an initializer, the same one for the same sides."""
    name = "shape_" + "x".join(map(str, sides))
    return graph.initializers.get(name) or add_constant(graph, name, np.array(sides, np.int64))


def reshaped(graph: ir.Graph, value: ir.Value, sides: tuple[int, ...], *, after: ir.Node) -> ir.Value:
    """A value with other sides, by a new node."""
    node = ir.node("Reshape", [value, shape_constant(graph, sides)])
    node.outputs[0].name = f"{value.name}_{'x'.join(map(str, sides))}"
    graph.insert_after(after, node)
    return node.outputs[0]
