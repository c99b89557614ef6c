"""The fields of `onnx.proto` that are read here, by their message, and the usual names of its types."""

from __future__ import annotations

from vit_deploy.formats.protobuf import Message

MODEL_IR_VERSION, MODEL_PRODUCER, MODEL_PRODUCER_VERSION, MODEL_GRAPH, MODEL_OPSETS = 1, 2, 3, 7, 8
MODEL_METADATA, MODEL_FUNCTIONS = 14, 25
OPSET_DOMAIN, OPSET_VERSION = 1, 2
FUNCTION_NODE = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_SPARSE = 1, 5, 11, 12, 15
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES = 22, 23
SPARSE_VALUES, SPARSE_INDICES = 1, 2
TENSOR_DIMENSIONS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW_DATA, TENSOR_EXTERNAL = 1, 2, 8, 9, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_TYPE_ELEMENT, TENSOR_TYPE_SHAPE = 1, 2
SHAPE_DIMENSION = 1
DIMENSION_SIZE, DIMENSION_NAME = 1, 2

# TensorProto.DataType, from 0.
_DTYPES = (
    "undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 complex64 "
    "complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz uint4 int4 float4_e2m1"
)
DTYPES = _DTYPES.split()


def dtype_of(code: int) -> str:
    """The usual name of a type, or its number where it is not known."""
    return DTYPES[code] if 0 <= code < len(DTYPES) else f"type {code}"


def shape_of(tensor: Message) -> list[int]:
    """The sides of an initializer."""
    sides: list[int] = []
    for number, value in tensor.fields():
        if number == TENSOR_DIMENSIONS:  # they are written each by itself or packed into one field
            sides += [value] if isinstance(value, int) else value.packed()
    return sides
