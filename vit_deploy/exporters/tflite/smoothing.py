"""Outliers taken out of a float TFLite file before it is quantized.

The converter makes the scale of a norm part of the kernels that read it, which takes the norms' outliers out already.
What is left are channels that one kernel writes and another reads: the values of attention, and a gated feed-forward's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters.quantization.smoothing import smoothed
from vit_deploy.exporters.tflite.layers import Layer
from vit_deploy.formats.tflite.schema import Model


def balanced_weights(model: Model, layers: Mapping[str, Layer], config: ViTConfig) -> dict[str, NDArray[np.float32]]:
    """The weights that are different in the same function with channels balanced by the weights alone.

    Args:
        model: root of the float file.
        layers: the layers of it, by their canonical names.
        config: the config of the function.

    Returns:
        Kernels `(inputs, outputs)` and biases, as `write_weights` takes them; see `smoothing.smoothed`.
    """
    return smoothed(_weights(model, layers), config)


def _weights(model: Model, layers: Mapping[str, Layer]) -> dict[str, NDArray[np.float32]]:
    """Kernels `(inputs, outputs)` and biases `(outputs,)`; of layers whose buffers are theirs alone."""
    buffers = model.buffers
    used = [buffer for layer in layers.values() for buffer in (layer.kernel, layer.bias) if buffer is not None]
    found: dict[str, NDArray[np.float32]] = {}
    for name, layer in layers.items():
        if layer.kind != "FULLY_CONNECTED" or used.count(layer.kernel) > 1:
            continue
        kernel = np.frombuffer(buffers[layer.kernel].content, np.float32).reshape(-1, layer.inputs)
        bias = np.zeros(len(kernel), np.float32)  # of a layer without one
        if layer.bias is not None:
            bias = np.frombuffer(buffers[layer.bias].content, np.float32)
            if used.count(layer.bias) > 1 and bias.any():  # equal constants are stored once
                continue
        found |= {f"{name}.kernel": kernel.T, f"{name}.bias": bias}
    return found
