"""Quantization steps of attention probabilities between a 16-bit softmax and an 8-bit matmul.

TFLite's softmax gives steps that are fixed: 1/256 in 8 bits, 1/32768 in 16. ai-edge-quantizer takes a fixed range for
whatever reads it too, of -1 to 1: among 197 tokens a share of 1/197 is then rounded to zero or to 1/128. What stands
between the two is a tensor of its own, whose steps can be those that calibration asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from vit_deploy.errors import ExportError
from vit_deploy.exporters.tflite.layers import GRAPHS, TENSORS, operators
from vit_deploy.exporters.tflite.matmuls import PRODUCT
from vit_deploy.formats.tflite_file import Table, root

TENSOR_TYPE, TENSOR_NAME, TENSOR_QUANTIZATION = 1, 3, 4  # fields of `Tensor`
SCALE, ZERO_POINT = 2, 3  # of `QuantizationParameters`
INT8 = 9  # of `TensorType`
LOWEST, STEPS = -128, 255


def with_calibrated_shares(content: Any, highest: Mapping[str, float]) -> bytearray:
    """The same file with the shares that products of 8 bits read in steps from zero to the largest share.

    Args:
        content: a quantized file.
        highest: largest share by the name of what its product gives.

    Raises:
        ExportError: such a tensor has no scale that could be replaced.
    """
    changed = bytearray(content)
    model = root(changed)
    (graph,) = model.tables(GRAPHS)
    tensors, steps = graph.tables(TENSORS), list(operators(graph, model))
    writers = {index: step for step in steps for index in step.outputs}
    for step in steps:
        name = tensors[step.outputs[0]].bytes(TENSOR_NAME).decode()
        rounding = writers.get(step.inputs[0])
        if step.kind != PRODUCT or rounding is None or rounding.kind != "QUANTIZE" or name not in highest:
            continue
        shares = tensors[step.inputs[0]]
        if writers[rounding.inputs[0]].kind == "SOFTMAX" and shares.number(TENSOR_TYPE, "b") == INT8:
            _rescale(changed, shares, highest[name] / STEPS, LOWEST)
    return changed


def _rescale(content: bytearray, tensor: Table, scale: float, zero_point: int) -> None:
    found = tensor.table(TENSOR_QUANTIZATION)
    counts = () if found is None else (len(found.numbers(SCALE, "f")), len(found.numbers(ZERO_POINT, "q")))
    if found is None or counts != (1, 1):
        raise ExportError(
            f"the shares of attention in {tensor.bytes(TENSOR_NAME).decode()} have no scale",
            fix="use --attention-bits 16, and report this with the model's config",
        )
    struct.pack_into("<f", content, found.target(SCALE) + 4, scale)
    struct.pack_into("<q", content, found.target(ZERO_POINT) + 4, zero_point)
