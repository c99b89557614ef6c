"""Biases that make up for the mean error of a rounded kernel.

After Nagel et al. 2019 (arXiv 1906.04721), section 4.2: (Q - W) E[x] is the mean error, with E[x] from calibration.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters.tflite.layer_weights import stored
from vit_deploy.exporters.tflite.layers import Layer, find_layers
from vit_deploy.exporters.tflite.repack import Content
from vit_deploy.formats.tflite.schema import Model, Tensor

BIASES: Mapping[str, type[Any]] = {"float32": np.float32, "int32": np.int32, "int64": np.int64}


def corrected_biases(
    original: Model, quantized: Model, config: ViTConfig, means: Mapping[str, NDArray[np.float64]]
) -> dict[int, tuple[int, Content]]:
    """New content of the quantized file's biases by their buffers, for `write_model`.

    Layers without a bias of their own and those that stayed in float keep theirs.

    Args:
        original: the float file, whose kernels are not rounded.
        quantized: the file that was made of it.
        config: the config of both files.
        means: the means of each channel of the layers' inputs, by the tensors' names in the float file.
    """
    before, after = find_layers(original, config), find_layers(quantized, config)
    used = Counter(layer.bias for layer in after.values())  # equal constants are stored once
    found: dict[int, tuple[int, Content]] = {}
    for name, layer in after.items():
        old = before[name]
        if layer.kind != "FULLY_CONNECTED" or layer.bias is None or used[layer.bias] > 1 or old.input not in means:
            continue
        rounded = _rounded_kernel(quantized, layer)
        if rounded is None:
            continue
        exact = np.frombuffer(original.buffers[old.kernel].content, np.float32).reshape(rounded.shape)
        found[layer.bias] = _corrected(quantized, layer.bias, (rounded - exact) @ means[old.input])
    return found


def _rounded_kernel(model: Model, layer: Layer) -> NDArray[np.float64] | None:
    """What the integers of a kernel stand for, `(outputs, inputs)`; None where it has none."""
    tensor = _tensor(model, layer.kernel)
    content = model.buffers[layer.kernel].content
    if tensor.quantization is None or tensor.dtype not in ("int8", "int4"):
        return None
    whole = np.frombuffer(content, np.int8) if tensor.dtype == "int8" else _unpacked(content)
    blocks = tensor.quantization.blockwise
    if blocks is None:
        scales = np.array(tensor.quantization.scales, np.float64)
    else:
        of_blocks = model.buffers[model.graph.tensors[blocks.scales].buffer].content
        scales = np.frombuffer(of_blocks, np.float16).astype(np.float64)
    if not scales.size:
        return None
    whole = whole[: math.prod(tensor.shape)].reshape(len(scales), -1)
    values: NDArray[np.float64] = (whole * scales[:, None]).reshape(tensor.shape)
    return values


def _unpacked(content: Any) -> NDArray[np.int8]:
    """Integers of 4 bits, of which a byte holds two, the first in its lower half."""
    pairs = np.frombuffer(content, np.int8)
    return np.stack([pairs << 4 >> 4, pairs >> 4], axis=-1).reshape(-1)


def _corrected(model: Model, buffer: int, error: NDArray[np.float64]) -> tuple[int, Content]:
    tensor = _tensor(model, buffer)
    bias = np.frombuffer(model.buffers[buffer].content, BIASES[tensor.dtype])
    if bias.dtype == np.float32:
        return stored(bias - error, bias.dtype)
    assert tensor.quantization is not None
    return stored(bias - np.rint(error / np.array(tensor.quantization.scales, np.float64)), bias.dtype)


def _tensor(model: Model, buffer: int) -> Tensor:
    """The tensor that a buffer belongs to."""
    return next(tensor for tensor in model.graph.tensors if tensor.buffer == buffer)
