"""Biases that make up for the mean error of a rounded kernel.

After Nagel et al. 2019 (arXiv 1906.04721), section 4.2: (Q - W) E[x] is the mean error, with E[x] from calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters.tflite.layers import Layer, find_layers
from vit_deploy.exporters.tflite.repack import Content
from vit_deploy.formats.tflite.schema import Model

TYPES: Mapping[str, type[Any]] = {"float32": np.float32, "int32": np.int32, "int8": np.int8}


def corrected_biases(
    original: Model, quantized: Model, config: ViTConfig, means: Mapping[str, NDArray[np.float64]]
) -> dict[int, tuple[int, Content]]:
    """New content of the quantized file's biases by their buffers, for `write_model`.

    Layers without a bias, those that stayed in float and those of other than 8 bits keep theirs.

    Args:
        original: the float file.
        quantized: the file that was made of it.
        config: the config of both files.
        means: the means of each channel of the layers' inputs, by the tensors' names in the float file.
    """
    before, after = find_layers(original, config), find_layers(quantized, config)
    found: dict[int, tuple[int, Content]] = {}
    for name, layer in after.items():
        old = before[name]
        if layer.kind != "FULLY_CONNECTED" or layer.bias is None or old.input not in means:
            continue
        scales, stored = _tensor(quantized, layer.kernel)
        if stored.dtype != np.int8 or not scales.size:
            continue
        exact = np.frombuffer(original.buffers[old.kernel].content, np.float32)
        exact = exact.reshape(stored.shape)
        error = (stored * scales.reshape(-1, 1).astype(np.float64) - exact) @ means[old.input]
        found[layer.bias] = _corrected(quantized, layer, error)
    return found


def _corrected(model: Model, layer: Layer, error: NDArray[np.float64]) -> tuple[int, Content]:
    assert layer.bias is not None
    scales, bias = _tensor(model, layer.bias)
    changed = bias - error if bias.dtype == np.float32 else bias - np.rint(error / scales)
    content = np.ascontiguousarray(changed.astype(bias.dtype)).tobytes()
    return len(content), lambda: content


def _tensor(model: Model, buffer: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """The scales of the tensor that a buffer belongs to, and its stored values; others than 8 and 32 bits are empty."""
    (tensor,) = [tensor for tensor in model.graph.tensors if tensor.buffer == buffer]
    kind = TYPES.get(tensor.dtype)
    quantization = tensor.quantization
    scales = np.array([] if quantization is None else quantization.scales, np.float64)
    if kind is None:
        return scales, np.zeros(0, np.uint8)
    return scales, np.frombuffer(model.buffers[buffer].content, kind).reshape(tensor.shape)
