"""4-bit kernels of a TFLite file rounded before they are quantized, so that their errors make up for each other.

The quantizer takes the scale of a block from its largest weight. So the kernels of the float file get the values that
their integers will stand for, among them the largest one of each block, from which it finds scale and integers again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.recipes import Recipe
from vit_deploy.exporters.quantization.rounding import Levels, rounded_in_blocks
from vit_deploy.exporters.tflite.bits import EIGHT
from vit_deploy.exporters.tflite.layers import Layer
from vit_deploy.exporters.tflite.ranges import layer_squares
from vit_deploy.formats.tflite.file import opened


def rounded_kernels(
    source: Artifact, layers: Mapping[str, Layer], recipe: Recipe, calibration: Calibration | None
) -> dict[str, NDArray[np.float32]]:
    """Kernels of the layers that get fewer than 8 bits, of values that their integers stand for.

    Args:
        source: the float artifact.
        layers: the layers of its file, by their canonical names.
        recipe: says which get how many bits.
        calibration: images that layers read; without them each weight is rounded by itself.

    Returns:
        Kernels `(inputs, outputs)`, as `write_weights` takes them.

    Raises:
        ExportError: as `squares.summed`.
    """
    used = [layer.kernel for layer in layers.values()]
    narrow = [
        layer
        for layer in layers.values()
        if layer.kind == "FULLY_CONNECTED"
        and recipe.bits_of(layer.name) < EIGHT
        and layer.name not in recipe.keep_float
        and used.count(layer.kernel) == 1  # equal constants are stored once
    ]
    found = {}
    if calibration is not None:
        for name, squares in layer_squares(source.model_path, source.input, calibration, narrow):
            for layer in narrow:
                if layer.input == name:
                    found[f"{layer.name}.kernel"] = _rounded(source, layer, recipe, squares)
    for layer in narrow:
        if f"{layer.name}.kernel" not in found:
            found[f"{layer.name}.kernel"] = _rounded(source, layer, recipe, None)
    return found


def _rounded(
    source: Artifact, layer: Layer, recipe: Recipe, squares: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    with opened(source.model_path) as model:
        content = bytes(model.buffers[layer.kernel].content)
    kernel = np.frombuffer(content, np.float32).reshape(-1, layer.inputs).T
    in_blocks = layer.inputs % recipe.block_size == 0
    largest = 2 ** (recipe.bits_of(layer.name) - 1) - 1
    levels = Levels(-largest, largest, half=in_blocks)
    return rounded_in_blocks(kernel, squares, levels, recipe.block_size if in_blocks else layer.inputs)
