"""The precision of a model file that does not say it, by the types of its weights and its operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vit_deploy.core.format import FP32
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec
from vit_deploy.formats.graph import Graph

STATIC = ("QLinearMatMul", "QLinearConv", "QuantizeLinear")
DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "com.microsoft.DynamicQuantizeMatMul")
BLOCKS = "com.microsoft.MatMulNBits"
LARGE = 0.25  # of the numbers of a file, from which on their type is what it is called by


def precision_of(path: Path, format: str, graph: Graph, spec: InputSpec) -> tuple[str, str]:
    """The precision to hold a file to, and why.

    Args:
        path: the path of the file.
        format: the format of it.
        graph: what it says of itself.
        spec: its input.

    Raises:
        ArtifactError: a damaged file.
    """
    record = FORMATS[format]
    if record.weight_types is None:
        return FP32, f"{record.noun} is held to fp32"
    if spec.scale is not None:
        return "int8-full", f"its input is quantized to {spec.dtype}"
    types: Counter[str] = record.weight_types.load()(path)
    if BLOCKS in graph.operators:
        return "int4", f"it has {BLOCKS} operators"
    for names, precision in ((DYNAMIC, "int8"), (STATIC, "int8-static")):
        if used := [name for name in names if name in graph.operators]:
            return precision, f"it has {', '.join(used)} operators"
    return _by_weights(types, spec)


def _by_weights(types: Counter[str], spec: InputSpec) -> tuple[str, str]:
    total = types.total() or 1
    for dtype, precision in (
        *(("int4", "int4"), ("uint4", "int4"), ("int8", "int8"), ("uint8", "int8")),
        *(("float16", "fp16"), ("bfloat16", "bf16")),
    ):
        if types[dtype] > LARGE * total:
            return precision, f"{types[dtype]} of {total} numbers of its weights are {dtype}"
    if spec.dtype == "float16":
        return "fp16", "its input is float16"
    return "fp32", "its weights are float32"
