"""The graph of a TFLite file, with the usual names of operators and types."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path

from vit_deploy.errors import ArtifactError
from vit_deploy.formats.graph import Graph, TensorInfo, counted
from vit_deploy.formats.tflite_file import OWN_ENTRY, Table, buffer_view, opened, operator_name, read_metadata

# Field positions of schema.fbs, by table.
MODEL_CODES, MODEL_GRAPHS, MODEL_DESCRIPTION, MODEL_BUFFERS, MODEL_SIGNATURES = 1, 2, 3, 4, 7
BUFFER_DATA, BUFFER_OFFSET, BUFFER_SIZE = 0, 1, 2
GRAPH_TENSORS, GRAPH_INPUTS, GRAPH_OUTPUTS, GRAPH_OPERATORS = 0, 1, 2, 3
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME, TENSOR_QUANTIZATION, TENSOR_SHAPE_SIGNATURE = 0, 1, 2, 3, 4, 7
QUANTIZATION_SCALE, QUANTIZATION_ZERO_POINT = 2, 3
SIGNATURE_INPUTS, SIGNATURE_OUTPUTS, SIGNATURE_KEY, SIGNATURE_GRAPH = 0, 1, 2, 4
MAP_NAME, MAP_TENSOR = 0, 1
OPERATOR_CODE = 0

# TensorType, from 0.
_DTYPES = (
    "float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant "
    "uint32 uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2"
)
DTYPES = _DTYPES.split()
# BuiltinOperator, from 0.
_OPERATORS = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR "
    "FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC "
    "LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH "
    "SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER "
    "BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE "
    "BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM "
    "ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE "
    "TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK "
    "LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL "
    "FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL "
    "REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND "
    "HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM "
    "BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS "
    "HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE "
    "ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU "
    "DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 "
    "UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE "
    "STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE "
    "STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE "
    "STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG "
    "STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT "
    "STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT "
    "STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL "
    "STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE "
    "STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE "
)
OPERATORS = _OPERATORS.split()


def read_graph(path: Path) -> Graph:
    """Inputs, outputs (by the first signature's names), operators and metadata of a TFLite file.

    Raises:
        ArtifactError: it is missing, no TFLite file, or a damaged one.
    """
    metadata = _metadata(path)
    with opened(path) as model:
        _check_complete(model)
        codes = [_known_name(operator_name(code)) for code in model.tables(MODEL_CODES)]
        graphs = model.tables(MODEL_GRAPHS)
        signatures = model.tables(MODEL_SIGNATURES)
        used = [codes[each.number(OPERATOR_CODE, "I")] for graph in graphs for each in graph.tables(GRAPH_OPERATORS)]
        facts: dict[str, str | int] = {"signature": "none"}
        if signatures:
            first = signatures[0]
            graph = graphs[first.number(SIGNATURE_GRAPH, "I")]
            facts["signature"] = first.bytes(SIGNATURE_KEY).decode()
            inputs, outputs = (_named(graph, first.tables(side)) for side in (SIGNATURE_INPUTS, SIGNATURE_OUTPUTS))
        else:
            inputs, outputs = (_plain(graphs[0], side) for side in (GRAPH_INPUTS, GRAPH_OUTPUTS))
        if description := model.bytes(MODEL_DESCRIPTION).decode():
            facts["made by"] = description
        return Graph(inputs, outputs, counted(used), metadata, facts)


def weight_types(path: Path) -> Counter[str]:
    """How many numbers of its weights a TFLite file has in each type.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    counts = Counter[str]()
    with opened(path) as model:
        buffers = model.tables(MODEL_BUFFERS)
        for tensor in (each for graph in model.tables(MODEL_GRAPHS) for each in graph.tables(GRAPH_TENSORS)):
            if len(buffer_view(buffers[tensor.number(TENSOR_BUFFER, "I")])):
                counts[_dtype(tensor)] += math.prod(tensor.numbers(TENSOR_SHAPE, "i"))
    return counts


def input_quantization(path: Path) -> tuple[float, int] | None:
    """Scale and zero point of the first input of a TFLite file; None where it has none.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        graph = model.tables(MODEL_GRAPHS)[0]
        tensor = graph.tables(GRAPH_TENSORS)[graph.numbers(GRAPH_INPUTS, "i")[0]]
        found = tensor.table(TENSOR_QUANTIZATION)
        scales = found.numbers(QUANTIZATION_SCALE, "f") if found is not None else []
        if found is None or not scales:
            return None
        zero_points = found.numbers(QUANTIZATION_ZERO_POINT, "q") or [0]
        return float(scales[0]), int(zero_points[0])


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


def _check_complete(model: Table) -> None:
    """Raise `ValueError` unless all weights lie inside the file; nothing else reads them here."""
    for index, buffer in enumerate(model.tables(MODEL_BUFFERS)):
        start, outside = buffer.target(BUFFER_DATA), buffer.number(BUFFER_OFFSET, "Q")
        end = start + 4 + struct.unpack_from("<I", model.data, start)[0] if start else 0
        end = max(end, outside + buffer.number(BUFFER_SIZE, "Q"))
        if end > len(model.data):
            raise ValueError(f"buffer {index} ends at byte {end} of {len(model.data)}")


def _known_name(name: str) -> str:
    return OPERATORS[int(name)] if name.isdecimal() and int(name) < len(OPERATORS) else name


def _named(graph: Table, maps: list[Table]) -> tuple[TensorInfo, ...]:
    tensors = graph.tables(GRAPH_TENSORS)
    return tuple(_tensor(tensors[each.number(MAP_TENSOR, "I")], each.bytes(MAP_NAME).decode()) for each in maps)


def _plain(graph: Table, side: int) -> tuple[TensorInfo, ...]:
    tensors = graph.tables(GRAPH_TENSORS)
    chosen = [tensors[index] for index in graph.numbers(side, "i")]
    return tuple(_tensor(tensor, tensor.bytes(TENSOR_NAME).decode()) for tensor in chosen)


def _tensor(tensor: Table, name: str) -> TensorInfo:
    sides = tensor.numbers(TENSOR_SHAPE_SIGNATURE, "i") or tensor.numbers(TENSOR_SHAPE, "i")
    shape = tuple(side if side >= 0 else None for side in sides)
    return TensorInfo(name, _dtype(tensor), shape)


def _dtype(tensor: Table) -> str:
    code = tensor.number(TENSOR_TYPE, "b")
    return DTYPES[code] if 0 <= code < len(DTYPES) else f"type {code}"
