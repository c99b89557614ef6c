"""Which operators of a TFLite file would an integer accelerator leave to the CPU, and why?

The lists are after the makers' documents (Coral's page of supported operations, Vela's for Ethos-U55 and U65, that of
the Hexagon delegate), but were neither checked against a dated copy of them nor tried on a device. The devices have
rules about shapes and strides besides: what is named here is likely to fall back, and their compilers decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.tflite_file import Table, opened, operator_name
from vit_deploy.tflite_graph import (
    DTYPES,
    GRAPH_OPERATORS,
    GRAPH_TENSORS,
    MODEL_CODES,
    MODEL_GRAPHS,
    OPERATOR_CODE,
    OPERATORS,
    TENSOR_TYPE,
)

OPERATOR_INPUTS, OPERATOR_OUTPUTS = 1, 2
BOUNDARY = frozenset(("QUANTIZE", "DEQUANTIZE"))  # between float and integers; they are at home on the CPU

_SHARED = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED LOGISTIC MAXIMUM MAX_POOL_2D MEAN "
    "MINIMUM MUL PACK PAD QUANTIZE RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX "
    "SPLIT SQUARED_DIFFERENCE STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV "
)
_CORAL = "EXPAND_DIMS L2_NORMALIZATION PRELU REDUCE_MAX REDUCE_MIN RELU_N1_TO_1 SPACE_TO_DEPTH SQUEEZE SUM"
_ETHOS = (
    "ABS ARG_MAX EXP EXPAND_DIMS HARD_SWISH LEAKY_RELU MIRROR_PAD PRELU RELU_0_TO_1 RELU_N1_TO_1 SPLIT_V SQUEEZE "
    "UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
)
_HEXAGON = "ARG_MAX ARG_MIN DEPTH_TO_SPACE HARD_SWISH L2_NORMALIZATION L2_POOL_2D MIRROR_PAD NEG SPACE_TO_DEPTH SQRT"


@dataclass(frozen=True)
class Accelerator:
    """What a device computes.

    Args:
        name: as people call it.
        operators: by the names of TFLite's schema.
        activations: dtypes of the tensors that it computes with.
    """

    name: str
    operators: frozenset[str]
    activations: frozenset[str]


ACCELERATORS: Mapping[str, Accelerator] = {
    "coral": Accelerator("Coral Edge TPU", frozenset((_SHARED + _CORAL).split()), frozenset(("int8", "uint8"))),
    "ethos-u": Accelerator(
        "Arm Ethos-U55/U65", frozenset((_SHARED + _ETHOS).split()), frozenset(("int8", "uint8", "int16"))
    ),
    "hexagon": Accelerator("Qualcomm Hexagon", frozenset((_SHARED + _HEXAGON).split()), frozenset(("int8", "uint8"))),
}


@dataclass(frozen=True)
class Fallback:
    """Operators that an accelerator leaves to the CPU.

    Args:
        operator: their name.
        count: how many of them.
        reason: why.
    """

    operator: str
    count: int
    reason: str


def fallbacks(path: Path, accelerator: Accelerator) -> tuple[Fallback, ...]:
    """What of a TFLite file would not run on an accelerator, the most frequent first.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        found = Counter(
            (kind, reason)
            for kind, dtypes in _steps(model)
            if (reason := _reason(kind, dtypes, accelerator)) is not None
        )
    ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    return tuple(Fallback(kind, count, reason) for (kind, reason), count in ordered)


def to_json(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The fallbacks of every accelerator by its key."""
    return {key: [vars(each) for each in fallbacks(path, device)] for key, device in ACCELERATORS.items()}


def _reason(kind: str, dtypes: frozenset[str], accelerator: Accelerator) -> str | None:
    floats = sorted(name for name in dtypes if name.startswith(("float", "bfloat")))
    if floats and kind not in BOUNDARY:
        return f"computes in {floats[0]}"
    if kind not in accelerator.operators | BOUNDARY:
        return f"{accelerator.name} does not have it"
    wide = {"int16"} & dtypes - accelerator.activations
    return "computes in int16" if wide and kind not in BOUNDARY else None


def _steps(model: Table) -> Iterator[tuple[str, frozenset[str]]]:
    """Name of each operator, and the dtypes of its tensors."""
    names = [operator_name(code) for code in model.tables(MODEL_CODES)]
    for graph in model.tables(MODEL_GRAPHS):
        dtypes = [DTYPES[tensor.number(TENSOR_TYPE, "b")] for tensor in graph.tables(GRAPH_TENSORS)]
        for each in graph.tables(GRAPH_OPERATORS):
            code = names[each.number(OPERATOR_CODE, "I")]
            kind = OPERATORS[int(code)] if code.isdecimal() and int(code) < len(OPERATORS) else code
            used = (*each.numbers(OPERATOR_INPUTS, "i"), *each.numbers(OPERATOR_OUTPUTS, "i"))
            yield kind, frozenset(dtypes[index] for index in used if index >= 0)
