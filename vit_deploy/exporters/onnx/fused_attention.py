"""What a fused attention computes on the way, as operators of its own: nobody sees the inside of one kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

FUSED = ("Attention", "MultiHeadAttention")  # of ONNX Runtime's own domain
ROLES = ("query", "key", "value")


def inside_attention(node: onnx.NodeProto, result: str) -> list[onnx.NodeProto]:
    """Nodes that compute queries, keys, values and scores beside a fused attention, all of them as one vector.

    Args:
        node: one of `FUSED`, without a mask, with the attributes `num_heads` and `scale`.
        result: the name of the vector.
    """
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"{result}.{name}"], **attributes))
        return f"{result}.{name}"

    def constant(name: str, values: object) -> str:
        return add("Constant", [], name, value=numpy_helper.from_array(np.array(values)))

    heads = options["num_heads"]
    if node.op_type == "Attention":
        tokens, kernel, bias = node.input[:3]
        joined = add("Add", [add("MatMul", [tokens, kernel], "product"), bias], "joined")
        apart = add("Reshape", [joined, constant("sides", [0, 0, len(ROLES), heads, -1])], "apart")
        parts = [add("Gather", [apart, constant(f"place_{role}", at)], role, axis=2) for at, role in enumerate(ROLES)]
    else:
        sides = constant("sides", [0, 0, heads, -1])
        parts = [add("Reshape", [part, sides], role) for part, role in zip(node.input, ROLES, strict=False)]
    query = add("Transpose", [parts[0]], "turned_query", perm=(0, 2, 1, 3))
    key = add("Transpose", [parts[1]], "turned_key", perm=(0, 2, 3, 1))
    scale = constant("scale", np.float32(options["scale"]))
    scores = add("MatMul", [add("Mul", [query, scale], "scaled_query"), key], "scores")
    flat = constant("flat", [-1])
    vectors = [add("Reshape", [part, flat], f"flat_{at}") for at, part in enumerate((*parts, scores))]
    nodes.append(helper.make_node("Concat", vectors, [result], axis=0))
    return nodes
