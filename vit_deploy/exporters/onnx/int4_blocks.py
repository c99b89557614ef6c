"""4-bit weights in blocks that share a scale, for the layers of an ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

import onnx

from vit_deploy.exporters.onnx.layers import bias_apart, drop_unused_initializers, layers_of
from vit_deploy.exporters.quantization.recipes import Recipe

EIGHT = 8  # bits
IN_FLOAT32 = 1  # accuracy level of `MatMulNBits`: what the products are computed in


def with_blocks(model: onnx.ModelProto, names: Collection[str], recipe: Recipe) -> onnx.ModelProto:
    """The model with `MatMulNBits`, an operator of ONNX Runtime, in the place of its layers.

    Args:
        model: fp32, its patch embedding as a product; changed.
        names: the names of the layers to quantize.
        recipe: says how many bits, and how many weights share a scale.
    """
    tools = _tools()
    bias_apart(model.graph, names, "MatMul")
    layers = layers_of(model.graph)
    wide = {name for name in names for pattern in recipe.eight_bits if fnmatchcase(name, pattern)}
    for bits, wanted in ((recipe.weight_bits, set(names) - wide), (EIGHT, wide)):
        if not wanted:
            continue
        config = tools.DefaultWeightOnlyQuantConfig(
            block_size=recipe.block_size, is_symmetric=False, accuracy_level=IN_FLOAT32, bits=bits
        )
        others = [layer.node for layer in layers if layer.name not in wanted]
        work = tools.MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=config)
        work.process()
        model = work.model.model
    drop_unused_initializers(model.graph)
    return model


def _tools() -> Any:
    """ONNX Runtime's module, whose import would make every library log to stderr."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    from onnxruntime.quantization import matmul_nbits_quantizer

    root.setLevel(level)
    root.handlers[:] = handlers
    return matmul_nbits_quantizer
