"""Facts that an ONNX file states about itself, read without any engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vit_deploy.formats.graph import Graph, TensorInfo, counted
from vit_deploy.formats.onnx.schema import (
    ATTRIBUTE_GRAPH,
    ATTRIBUTE_GRAPHS,
    DIMENSION_NAME,
    DIMENSION_SIZE,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    MODEL_IR_VERSION,
    MODEL_METADATA,
    MODEL_OPSETS,
    MODEL_PRODUCER,
    MODEL_PRODUCER_VERSION,
    NODE_ATTRIBUTE,
    NODE_DOMAIN,
    NODE_OPERATOR,
    OPSET_DOMAIN,
    OPSET_VERSION,
    SHAPE_DIMENSION,
    TENSOR_NAME,
    TENSOR_TYPE,
    TENSOR_TYPE_ELEMENT,
    TENSOR_TYPE_SHAPE,
    TYPE_TENSOR,
    VALUE_NAME,
    VALUE_TYPE,
    dtype_of,
    shape_of,
)
from vit_deploy.formats.protobuf import Message, opened

STANDARD_DOMAINS = ("", "ai.onnx")
CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators


def read_graph(path: Path) -> Graph:
    """Inputs, outputs, operators (those inside of `If` and `Loop` too) and `metadata_props` of an ONNX file.

    Raises:
        ArtifactError: it is missing, no ONNX file, or a damaged one.
    """
    with opened(path, "an ONNX file") as model:
        graph = model.message(MODEL_GRAPH)
        ir_version = model.number(MODEL_IR_VERSION)
        operators = counted(_operators(graph))
        if ir_version is None or not graph.messages(GRAPH_OUTPUT):
            raise ValueError("it has no IR version or no graph with an output")
        weights = {tensor.text(TENSOR_NAME) for tensor in graph.messages(GRAPH_INITIALIZER)}
        opsets = {opset.text(OPSET_DOMAIN): opset.number(OPSET_VERSION) or 0 for opset in model.messages(MODEL_OPSETS)}
        facts: dict[str, str | int] = {"ir_version": ir_version}
        for domain, version in opsets.items():
            facts["opset" if domain in STANDARD_DOMAINS else f"opset of {domain}"] = version
        if producer := f"{model.text(MODEL_PRODUCER)} {model.text(MODEL_PRODUCER_VERSION)}".strip():
            facts["made by"] = producer
        return Graph(
            inputs=tuple(tensor for tensor in map(_tensor, graph.messages(GRAPH_INPUT)) if tensor.name not in weights),
            outputs=tuple(map(_tensor, graph.messages(GRAPH_OUTPUT))),
            operators=operators,
            metadata={key: str(value) for key, value in model.mapping(MODEL_METADATA).items()},
            facts=facts,
        )


def weight_types(path: Path) -> Counter[str]:
    """How many numbers of its weights an ONNX file has in each type.

    Raises:
        ArtifactError: it is missing, no ONNX file, or a damaged one.
    """
    counts = Counter[str]()
    with opened(path, "an ONNX file") as model:
        for tensor in model.message(MODEL_GRAPH).messages(GRAPH_INITIALIZER):
            counts[dtype_of(tensor.number(TENSOR_TYPE) or 0)] += math.prod(shape_of(tensor))
    return counts


def _operators(graph: Message) -> Iterator[str]:
    for node in graph.messages(GRAPH_NODE):
        domain, operator = node.text(NODE_DOMAIN), node.text(NODE_OPERATOR)
        yield operator if domain in STANDARD_DOMAINS else f"{domain}.{operator}"
        for attribute in node.messages(NODE_ATTRIBUTE):
            for inner in (*attribute.messages(ATTRIBUTE_GRAPH), *attribute.messages(ATTRIBUTE_GRAPHS)):
                yield from _operators(inner)


def _tensor(value: Message) -> TensorInfo:
    tensor = value.message(VALUE_TYPE).message(TYPE_TENSOR)
    code = tensor.number(TENSOR_TYPE_ELEMENT) or 0
    shapes = tensor.messages(TENSOR_TYPE_SHAPE)
    shape = tuple(map(_side, shapes[-1].messages(SHAPE_DIMENSION))) if shapes else None
    return TensorInfo(value.text(VALUE_NAME), dtype_of(code), shape)


def _side(dimension: Message) -> int | str | None:
    size = dimension.number(DIMENSION_SIZE)
    return size if size is not None else dimension.text(DIMENSION_NAME) or None
