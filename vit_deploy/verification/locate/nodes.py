"""The kind of each node of a model's graph, whatever its format calls it."""

from __future__ import annotations

from vit_deploy.verification.locate.flow import Flow, Node, Section

ADDS = frozenset({"ADD", "ADDV2", "BIASADD"})
# They give the same numbers in another order, shape or dtype, or some of them.
CARRIERS = frozenset(
    {
        *("RESHAPE", "TRANSPOSE", "IDENTITY", "CAST", "SQUEEZE", "UNSQUEEZE", "EXPANDDIMS", "EXPAND_DIMS", "FLATTEN"),
        *("QUANTIZE", "DEQUANTIZE", "QUANTIZELINEAR", "DEQUANTIZELINEAR", "DYNAMICQUANTIZELINEAR"),
        *("GATHER", "SLICE", "STRIDED_SLICE", "STRIDEDSLICE"),
    }
)


def has_softmax(section: Section) -> bool:
    """Whether it is a half with attention, or a pooling by attention."""
    return any(is_softmax(node) for node in section.nodes)


def is_softmax(node: Node) -> bool:
    """Whether it computes the attention probabilities, with or without all around them."""
    return "SOFTMAX" in node.kind or node.kind.endswith("ATTENTION")


def is_product(node: Node) -> bool:
    """Whether it multiplies matrices."""
    return any(part in node.kind for part in ("MATMUL", "GEMM", "FULLY_CONNECTED", "EINSUM", "CONV"))


def is_projection(flow: Flow, node: Node) -> bool:
    """Whether it multiplies by weights."""
    # A quantized product of two activations has constants as well: scales and zero points, one number each.
    return is_product(node) and flow.constant_size(node) > 1


def carries(section: Section) -> bool:
    """Whether it computes nothing."""
    return all(node.kind in CARRIERS for node in section.nodes)


def adds_bias(flow: Flow, section: Section) -> bool:
    """Whether it adds constants, and nothing else."""
    return len(section.nodes) == 1 and section.nodes[0].kind in ADDS and flow.constant_size(section.nodes[0]) > 0


def source(flow: Flow, value: str, through: frozenset[str] = CARRIERS) -> Node | None:
    """The node that computed a value, past those that only carried it."""
    node = flow.producers.get(value)
    while node is not None and node.kind in through and (before := flow.producers.get(flow.moving_inputs(node)[0])):
        node = before
    return node


def nearest_product(flow: Flow, value: str) -> Node | None:
    """The product that a value was computed from last, through first inputs."""
    node = flow.producers.get(value)
    while node is not None and not is_product(node):
        node = flow.producers.get(flow.moving_inputs(node)[0])
    return node
