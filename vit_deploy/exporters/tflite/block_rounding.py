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
from vit_deploy.formats.tflite.schema import Model


def rounded_kernels(
    source: Artifact, model: Model, layers: Mapping[str, Layer], recipe: Recipe, calibration: Calibration | None
) -> dict[str, NDArray[np.float32]]:
    """Kernels of the layers that get fewer than 8 bits, of values that their integers stand for.

    Args:
        source: the float artifact.
        model: root of its file.
        layers: the layers of it, by their canonical names.
        recipe: says which get how many bits.
        calibration: images that layers read; without them each weight is rounded by itself.

    Returns:
        Kernels `(inputs, outputs)`, as `write_weights` takes them.
    """
    buffers = model.buffers
    used = [layer.kernel for layer in layers.values()]
    narrow = {
        name: layer
        for name, layer in layers.items()
        if layer.kind == "FULLY_CONNECTED"
        and recipe.bits_of(name) < EIGHT
        and name not in recipe.keep_float
        and used.count(layer.kernel) == 1  # equal constants are stored once
    }
    read = {layer.input: layer.inputs for layer in narrow.values()}
    squares = {} if calibration is None else layer_squares(source.model_path, source.input, calibration, read)
    found = {}
    for name, layer in narrow.items():
        kernel = np.frombuffer(buffers[layer.kernel].content, np.float32).reshape(-1, layer.inputs).T
        in_blocks = layer.inputs % recipe.block_size == 0
        largest = 2 ** (recipe.bits_of(name) - 1) - 1
        levels = Levels(-largest, largest, half=in_blocks)
        size = recipe.block_size if in_blocks else layer.inputs
        found[f"{name}.kernel"] = rounded_in_blocks(kernel, squares.get(layer.input), levels, size)
    return found
