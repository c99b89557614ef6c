"""4-bit weights in blocks that share a scale, for the layers of an ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from vit_deploy.core.input_output import InputSpec
from vit_deploy.exporters.onnx.graph_values import layer_nodes, layer_squares
from vit_deploy.exporters.onnx.layers import Layer, array, bias_apart, drop_unused_initializers, layers_of, set_array
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.recipes import Recipe
from vit_deploy.exporters.quantization.rounding import Levels, rounded_in_blocks

EIGHT = 8  # bits
IN_FLOAT32 = 1  # accuracy level of `MatMulNBits`: what the products are computed in
FOUR_BITS = Levels(-8, 7)


def with_blocks(
    model: onnx.ModelProto, names: Collection[str], recipe: Recipe, spec: InputSpec, calibration: Calibration | None
) -> onnx.ModelProto:
    """The model with `MatMulNBits`, an operator of ONNX Runtime, in the place of its layers.

    Args:
        model: fp32, its patch embedding as a product; changed.
        names: the names of the layers to quantize.
        recipe: says how many bits, and how many weights share a scale.
        spec: the spec of the model's input.
        calibration: images by which rounding errors make up for each other, where the recipe asks for it.
    """
    tools = _tools()
    wide = {name for name in names if recipe.bits_of(name) >= EIGHT}
    narrow = set(names) - wide
    if recipe.compensated:
        _round(model, narrow, recipe, spec, calibration)
    bias_apart(model.graph, names, "MatMul")
    layers = layers_of(model.graph)
    for bits, wanted in ((recipe.weight_bits, narrow), (EIGHT, wide)):
        if not wanted:
            continue
        symmetric = recipe.compensated and wanted is narrow
        config = tools.DefaultWeightOnlyQuantConfig(
            block_size=recipe.block_size, is_symmetric=symmetric, accuracy_level=IN_FLOAT32, bits=bits
        )
        others = [layer.node for layer in layers if layer.name not in wanted]
        work = tools.MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=config)
        work.process()
        model = work.model.model
    drop_unused_initializers(model.graph)
    return model


def _round(
    model: onnx.ModelProto, names: Collection[str], recipe: Recipe, spec: InputSpec, calibration: Calibration | None
) -> None:
    """Give kernels the values that their integers will stand for."""
    computed = {output for node in model.graph.node for output in node.output}
    nodes = [node for node in layer_nodes(model.graph) if node.input[0] in computed]
    layers = [layer for layer in layers_of(model.graph) if layer.name in names]
    read = {layer.node for layer in layers}
    wanted = [node for node in nodes if node.name in read]
    found: dict[str, NDArray[np.float32]] = {}

    def rounded(layer: Layer, squares: NDArray[np.float32] | None) -> NDArray[np.float32]:
        return rounded_in_blocks(array(model.graph, layer.kernel), squares, FOUR_BITS, recipe.block_size)

    if calibration is not None:
        for name, squares in layer_squares(model, wanted, spec, calibration):
            found |= {layer.kernel: rounded(layer, squares) for layer in layers if layer.input == name}
    found |= {layer.kernel: rounded(layer, None) for layer in layers if layer.kernel not in found}
    for name, values in found.items():
        set_array(model.graph, name, values)


def _tools() -> Any:
    """ONNX Runtime's module, whose import would make every library log to stderr."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    from onnxruntime.quantization import matmul_nbits_quantizer

    root.setLevel(level)
    root.handlers[:] = handlers
    return matmul_nbits_quantizer
