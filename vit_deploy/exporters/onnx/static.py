"""8-bit weights and activations with calibrated ranges for the layers of an ONNX file, in QDQ form.

Every engine reads a different part of QDQ. TensorRT takes signed integers with zero points of zero only, and no integer
biases; so activations are signed and symmetric, and biases are added as floats. ONNX Runtime multiplies signed
activations fast on x86 only after turning them into unsigned ones, which it does where a quantizer has one reader;
so layers that share an input are joined, and whatever else reads that tensor reads the float. Measured on tiny with
one thread of a CPU with AVX-512 VNNI, over the float file's time: signed with shared quantizers 1.57, joined 0.60,
unsigned 0.59; with QDQ around `MatMul` and a bias of one axis, which ONNX Runtime does not fuse, 1.9.

OpenVINO 2026.4 runs all products in int8 and answers the same. Of an open batch it refuses models with at least as many
tokens as channels, such as ViT-Tiny at 224 pixels: it moves a channel's scale through a reshape, and counts wrong. With
a fixed batch it takes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.core.weights import JOINED
from vit_deploy.exporters.onnx.int8_pairs import with_fitting_pairs
from vit_deploy.exporters.onnx.layers import (
    array,
    bias_apart,
    drop_unused_initializers,
    join_layers,
    layers_of,
)
from vit_deploy.exporters.quantization.clipping import Observed, clipped
from vit_deploy.exporters.quantization.recipes import Recipe

NONE_LEARNED: Mapping[str, tuple[float, float]] = MappingProxyType({})
SIGN = 1 << 15  # of a bfloat16, by which `Observed` counts values


def with_static_integers(
    model: onnx.ModelProto,
    names: Collection[str],
    seen: Mapping[str, Observed],
    recipe: Recipe,
    learned: Mapping[str, tuple[float, float]] = NONE_LEARNED,
) -> onnx.ModelProto:
    """The model with `QuantizeLinear` and `DequantizeLinear` around the inputs and the kernels of its layers.

    Args:
        model: fp32, its patch embedding as a product; changed.
        names: the names of the layers to quantize.
        seen: the values of every layer's input.
        recipe: the recipe that says how ranges follow from them.
        learned: ranges that training found, by layer and side; they count more.
    """
    join_layers(model.graph, names)
    wanted = {part for layer in layers_of(model.graph) for part in [layer.name] if set(part.split("+")) <= set(names)}
    bias_apart(model.graph, wanted, "Gemm")
    layers = [layer for layer in layers_of(model.graph) if layer.name in wanted]
    if not layers:
        return model
    ranges = {}
    for layer in layers:
        known = learned.get(f"{layer.name.split(JOINED)[0]}.input")
        largest = None if known is None else np.float32(max(map(abs, known)))
        ranges[layer.input] = symmetric_range(seen[layer.input], recipe) if largest is None else (-largest, largest)
    kernels = {layer.kernel: array(model.graph, layer.kernel) for layer in layers}
    operators = ["Gemm", "MatMul"]
    work = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[layer.node for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=operators,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "OpTypesToExcludeOutputQuantization": operators,
        },
    )
    work.quantize_model()
    result: onnx.ModelProto = work.model.model
    if recipe.fitting_pairs:
        with_fitting_pairs(result.graph, kernels)
    _others_read_floats(result.graph, {layer.node for layer in layers})
    drop_unused_initializers(result.graph)
    return result


def symmetric_range(seen: Observed, recipe: Recipe) -> tuple[np.float32, np.float32]:
    """The range about zero that a tensor's integers stand for."""
    largest = max(abs(seen.low), abs(seen.high))
    if recipe.clipping is not Clipping.MIN_MAX and seen.counts.size:
        counts = seen.counts + np.roll(seen.counts, SIGN)
        both = dataclasses.replace(seen, low=-largest, high=largest, counts=counts)
        largest = max(map(abs, clipped(both, recipe.clipping, bits=8, percentile=recipe.percentile)))
    return np.float32(-largest), np.float32(largest)


def _others_read_floats(graph: onnx.GraphProto, nodes: Collection[str]) -> None:
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.name in nodes or node.op_type == "DequantizeLinear":
            continue
        for index, name in enumerate(node.input):
            restored = makers.get(name)
            if restored is not None and restored.op_type == "DequantizeLinear" and restored.input[0] in makers:
                node.input[index] = makers[restored.input[0]].input[0]
