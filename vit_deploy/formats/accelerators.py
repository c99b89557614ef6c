"""The operators of a TFLite file that an integer accelerator would leave to the CPU, and why.

The lists and rules are those of the makers' documents, each named beside its device; nothing was tried on one. What is
named here is likely to fall back; what is not may still do so, for the devices have rules about memory besides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vit_deploy.core.compiled import Fallback
from vit_deploy.formats import accelerator_rules as rules
from vit_deploy.formats.accelerator_rules import Rule
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import Step, read_steps

EIGHT_BITS = frozenset(("int8", "uint8"))
UP_TO_SIXTEEN_BITS = EIGHT_BITS | {"int16", "int32"}
PARAMETERS = frozenset(("int32", "int64"))  # constants: biases, shapes, axes


# Operators by the names of TFLite's schema; the documents are named with the devices below.
_CORAL = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION "
    "LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 "
    "RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT "
    "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM"
)
_ETHOS_U55 = (
    "ABS ADD ARG_MAX AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXP EXPAND_DIMS FULLY_CONNECTED "
    "HARD_SWISH LEAKY_RELU LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL PACK PAD PRELU QUANTIZE RELU "
    "RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SHAPE SLICE SOFTMAX "
    "SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV "
    "UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
)
_ETHOS_U85 = (
    "BATCH_MATMUL CAST DIV EQUAL GATHER GREATER GREATER_EQUAL LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR "
    "NOT_EQUAL PADV2 REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REVERSE_V2 SCATTER_ND SELECT SELECT_V2 SUM TILE"
)
_HEXAGON = (
    "ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CEIL CONCATENATION CONV_2D CONV_3D COS "
    "CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP "
    "FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GELU GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION "
    "L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D "
    "MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX "
    "REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 "
    "ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQRT SQUARE SQUARED_DIFFERENCE "
    "STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK"
)


@dataclass(frozen=True)
class Accelerator:
    """What a device computes.

    Args:
        name: the usual name of the accelerator.
        operators: the supported operators, by the names of TFLite's schema.
        activations: types of the tensors that it computes with.
        kernels: types of constants that it takes besides.
        always: what it asks of every operator.
        limits: what it asks of some, by their names.
        remark: what else there is to know where anything falls back.
    """

    name: str
    operators: frozenset[str]
    activations: frozenset[str]
    kernels: frozenset[str] = PARAMETERS
    always: tuple[Rule, ...] = (rules.fixed_sizes,)
    limits: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    remark: str = ""

    def objection(self, step: Step) -> str:
        """Why it would leave an operator to the CPU; empty where it would not."""
        computed = {tensor.dtype for tensor in (*step.inputs, *step.outputs) if not tensor.is_constant}
        constant = {tensor.dtype for tensor in step.inputs if tensor.is_constant}
        if alien := (computed - self.activations) | (constant - self.activations - self.kernels):
            return f"computes in {min(alien)}"
        if step.kind not in self.operators:
            return "no such operator"
        checks = (*self.always, *self.limits.get(step.kind, ()))
        return next((said for said in (rule(step) for rule in checks) if said), "")


# coral.ai, "TensorFlow models on the Edge TPU", table of supported operations and their limitations (compiler 16).
CORAL = Accelerator(
    "Coral Edge TPU",
    frozenset(_CORAL.split()),
    EIGHT_BITS,
    always=(rules.fixed_sizes, rules.three_inner_dimensions),
    limits={
        "CONCATENATION": (rules.joins_no_constant,),
        "FULLY_CONNECTED": (rules.one_row,),
        "MEAN": (rules.channels_by_four,),
        "SOFTMAX": (rules.short_row,),
        "STRIDED_SLICE": (rules.plain_slice,),
    },
    # google-coral/edgetpu, issues 30, 667 and 818.
    remark="its compiler leaves all that follows the first of them to the CPU too, and refuses a file with GELU",
)

# Arm's Vela 4.5.0, SUPPORTED_OPS.md, which the compiler itself writes.
ETHOS_U55 = Accelerator(
    "Arm Ethos-U55/U65",
    frozenset(_ETHOS_U55.split()),
    UP_TO_SIXTEEN_BITS,
    always=(
        rules.fixed_sizes,
        rules.dimensions(4),
        rules.one_image(
            *("FULLY_CONNECTED", "RESHAPE", "SHAPE", "SLICE", "SOFTMAX", "SPLIT", "SPLIT_V", "SQUEEZE"),
            *("STRIDED_SLICE", "UNPACK"),
        ),
    ),
    limits={
        "CONV_2D": (rules.eight_bit_kernel, rules.strides_to_three),
        "FULLY_CONNECTED": (rules.eight_bit_kernel,),
        "HARD_SWISH": (rules.input_of("int8", "uint8"),),
        "MEAN": (rules.mean_of_a_plane,),
        "RSQRT": (rules.input_of("int8"),),
        "SOFTMAX": (rules.few_rows,),
        "TRANSPOSE": (rules.swaps_neighbours,),
    },
)

# The same document, under "Ethos-U85".
ETHOS_U85 = Accelerator(
    "Arm Ethos-U85",
    (ETHOS_U55.operators - {"SHAPE"}) | frozenset(_ETHOS_U85.split()),
    UP_TO_SIXTEEN_BITS | {"int64", "bool"},
    limits={
        "CONV_2D": (rules.eight_bit_kernel,),
        "FULLY_CONNECTED": (rules.eight_bit_kernel,),
        "MEAN": (rules.one_image(), rules.mean_of_a_plane),
        "RSQRT": (rules.input_of("int8", "int16"),),
        "SOFTMAX": (rules.few_rows,),
    },
)

# google-ai-edge/LiteRT, litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md (2026). TensorFlow's older
# delegate for Snapdragon 820 to 855 has neither products of two activations nor GELU, and no strides above 3.
HEXAGON = Accelerator(
    "Qualcomm Hexagon",
    frozenset(_HEXAGON.split()),
    UP_TO_SIXTEEN_BITS | {"bool"},
    kernels=PARAMETERS | {"int4"},
)

ACCELERATORS: Mapping[str, Accelerator] = MappingProxyType(
    {"coral": CORAL, "ethos-u": ETHOS_U55, "ethos-u85": ETHOS_U85, "hexagon": HEXAGON}
)


def fallbacks(path: Path, accelerator: Accelerator) -> tuple[Fallback, ...]:
    """What of a TFLite file would not run on an accelerator, the most frequent first.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        found = Counter((step.kind, said) for step in read_steps(model) if (said := accelerator.objection(step)))
    ordered = sorted(found.items(), key=lambda counted: (-counted[1], counted[0]))
    return tuple(Fallback(kind, count, reason) for (kind, reason), count in ordered)


def to_json(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The fallbacks of every accelerator by its key."""
    return {key: [vars(fallback) for fallback in fallbacks(path, device)] for key, device in ACCELERATORS.items()}
