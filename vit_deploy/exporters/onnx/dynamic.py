"""8-bit weights, with activations quantized as the model runs, for the layers of an ONNX file."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

from vit_deploy.exporters.onnx.int8_pairs import with_fitting_pairs
from vit_deploy.exporters.onnx.layers import array, bias_apart, drop_unused_initializers, layers_of
from vit_deploy.exporters.quantization.recipes import Recipe


def with_dynamic_integers(model: onnx.ModelProto, names: Collection[str], recipe: Recipe) -> onnx.ModelProto:
    """The model with `DynamicQuantizeLinear` and `MatMulInteger`, which ONNX Runtime fuses into one operator a layer.

    Args:
        model: fp32, its patch embedding as a product; changed.
        names: the names of the layers to quantize.
        recipe: says how their weights are scaled.
    """
    bias_apart(model.graph, names, "MatMul")
    layers = [layer for layer in layers_of(model.graph) if layer.name in names]
    if not layers:
        return model
    kernels = {layer.kernel: array(model.graph, layer.kernel) for layer in layers}
    work = ONNXQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        mode=QuantizationMode.IntegerOps,
        static=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,  # the only one that `DynamicQuantizeLinear` gives
        tensors_range=None,
        nodes_to_quantize=[layer.node for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=["MatMul"],
        extra_options={"MatMulConstBOnly": True},
    )
    work.quantize_model()
    result: onnx.ModelProto = work.model.model
    if recipe.fitting_pairs:
        with_fitting_pairs(result.graph, kernels)
    drop_unused_initializers(result.graph)
    return result
