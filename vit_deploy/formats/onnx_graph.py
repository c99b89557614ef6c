"""Facts that an ONNX file states about itself, read without any engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vit_deploy.formats.graph import Graph, TensorInfo, counted
from vit_deploy.formats.onnx_file import (
    ATTRIBUTE_GRAPH,
    ATTRIBUTE_GRAPHS,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    MODEL_GRAPH,
    NODE_ATTRIBUTE,
)
from vit_deploy.formats.protobuf import Message, opened

# More field numbers of onnx.proto, by message.
MODEL_IR_VERSION, MODEL_PRODUCER, MODEL_PRODUCER_VERSION, MODEL_OPSETS, MODEL_METADATA = 1, 2, 3, 8, 14
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
NODE_OPERATOR, NODE_DOMAIN = 4, 7
TENSOR_DIMENSIONS, TENSOR_TYPE, TENSOR_NAME = 1, 2, 8
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_TYPE_ELEMENT, TENSOR_TYPE_SHAPE = 1, 2
SHAPE_DIMENSION = 1
DIMENSION_SIZE, DIMENSION_NAME = 1, 2

STANDARD_DOMAINS = ("", "ai.onnx")
CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators
# TensorProto.DataType, from 0.
_DTYPES = (
    "undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 complex64 "
    "complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz uint4 int4 float4_e2m1"
)
DTYPES = _DTYPES.split()


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
            inputs=tuple(each for each in map(_tensor, graph.messages(GRAPH_INPUT)) if each.name not in weights),
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
            code, sides = tensor.number(TENSOR_TYPE) or 0, list[int]()
            for number, value in tensor.fields():  # the sides are written each by itself or packed into one field
                if number == TENSOR_DIMENSIONS:
                    sides += [value] if isinstance(value, int) else value.packed()
            counts[DTYPES[code] if code < len(DTYPES) else f"type {code}"] += math.prod(sides)
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
    return TensorInfo(value.text(VALUE_NAME), DTYPES[code] if 0 <= code < len(DTYPES) else f"type {code}", shape)


def _side(dimension: Message) -> int | str | None:
    size = dimension.number(DIMENSION_SIZE)
    return size if size is not None else dimension.text(DIMENSION_NAME) or None
