"""Quantization steps of attention probabilities between a 16-bit softmax and an 8-bit matmul.

TFLite's softmax gives steps that are fixed: 1/256 in 8 bits, 1/32768 in 16. litert-quantizer takes a fixed range for
whatever reads it too, of -1 to 1: among 197 tokens a share of 1/197 is then rounded to zero or to 1/128. What stands
between the two is a tensor of its own, whose steps can be those that calibration asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from vit_deploy.errors import ExportError
from vit_deploy.exporters.tflite.layers import operators
from vit_deploy.exporters.tflite.matmuls import PRODUCT
from vit_deploy.formats.tflite.file import root
from vit_deploy.formats.tflite.schema import Tensor

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
    graph = model.graph
    tensors, steps = graph.tensors, list(operators(graph, model))
    writers = {index: step for step in steps for index in step.outputs}
    for step in steps:
        name = tensors[step.outputs[0]].name
        rounding = writers.get(step.inputs[0])
        if step.kind != PRODUCT or rounding is None or rounding.kind != "QUANTIZE" or name not in highest:
            continue
        shares = tensors[step.inputs[0]]
        if writers[rounding.inputs[0]].kind == "SOFTMAX" and shares.dtype == "int8":
            _rescale(changed, shares, highest[name] / STEPS, LOWEST)
    return changed


def _rescale(content: bytearray, tensor: Tensor, scale: float, zero_point: int) -> None:
    found = tensor.quantization
    counts = () if found is None else (len(found.scales), len(found.zero_points))
    if found is None or counts != (1, 1):
        raise ExportError(
            f"the shares of attention in {tensor.name} have no scale",
            fix="use --attention-bits 16, and report this with the model's config",
        )
    struct.pack_into("<f", content, found.scales_start, scale)
    struct.pack_into("<q", content, found.zero_points_start, zero_point)
