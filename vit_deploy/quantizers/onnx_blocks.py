"""How do the layers of an ONNX file get 4-bit weights, some of which share a scale?"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from vit_deploy.quantizers.onnx_layers import bias_apart, drop_unused_initializers, layers_of
from vit_deploy.quantizers.recipes import Recipe

IN_FLOAT32 = 1  # accuracy level of `MatMulNBits`: what the products are computed in


def with_blocks(model: onnx.ModelProto, names: Collection[str], recipe: Recipe) -> onnx.ModelProto:
    """The model with `MatMulNBits`, an operator of ONNX Runtime, in the place of its layers.

    Args:
        model: fp32, its patch embedding as a product; changed.
        names: of the layers to quantize.
        recipe: says how many bits, and how many weights share a scale.
    """
    bias_apart(model.graph, names, "MatMul")
    every = {layer.node: layer.name in names for layer in layers_of(model.graph)}
    if not any(every.values()):
        return model
    left_alone = [node for node, wanted in every.items() if not wanted]
    config = DefaultWeightOnlyQuantConfig(
        block_size=recipe.block_size, is_symmetric=False, accuracy_level=IN_FLOAT32, bits=recipe.weight_bits
    )
    work = MatMulNBitsQuantizer(model, nodes_to_exclude=left_alone, algo_config=config)
    work.process()
    result: onnx.ModelProto = work.model.model
    drop_unused_initializers(result.graph)
    return result
