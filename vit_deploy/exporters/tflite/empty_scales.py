"""Scales for what has no values in a TFLite file: empty blocks, empty channels, empty layers.

litert-quantizer scales weights by their largest value, and by 1e-9 where there is none. In the 16-bit floats of
block-wise scales that is zero, which LiteRT refuses; in a channel of a calibrated layer it makes the steps of the bias,
the scales of input and kernel multiplied, so small that 32 bits no longer hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters.quantization.float16_kernels import LEAST
from vit_deploy.exporters.tflite.layers import Layer, find_layers
from vit_deploy.formats.tflite.file import root
from vit_deploy.formats.tflite.schema import Buffer, Model, Tensor

INTEGERS: Mapping[str, type[Any]] = {"int32": np.int32, "int64": np.int64, "int8": np.int8}
PER_BYTE = 2  # weights of 4 bits
LARGEST_BIAS = 2.0**30  # in steps; the other half of the 32 bits is for the products
BIAS_STEPS = 2.0**20  # of the largest bias of a layer that has no other values


def with_scales_for_empty(content: Any, original: Model, config: ViTConfig) -> bytearray:
    """The same file, in which blocks and channels without values have scales that engines can compute with.

    Blocks get scale 1 and channels that of the layer's largest, and zeros for weights, so that they are exactly what
    they were; and the scale of a channel is large enough for its bias.

    Args:
        content: a quantized file.
        original: the float file that it was made of.
        config: the config of both files.
    """
    changed = bytearray(content)
    model = root(memoryview(changed))
    tensors, buffers = model.graph.tensors, model.buffers
    for tensor in tensors:
        _mend_blocks(tensor, tensors, buffers)
    before, floats = find_layers(original, config), original.buffers
    for name, layer in find_layers(model, config).items():
        old = before[name]
        kernel = np.frombuffer(floats[old.kernel].content, np.float32)
        if old.bias is not None:
            _mend_channels(layer, tensors, buffers, kernel, np.frombuffer(floats[old.bias].content, np.float32))
    return changed


def _mend_blocks(tensor: Tensor, tensors: list[Tensor], buffers: list[Buffer]) -> None:
    details = tensor.quantization.blockwise if tensor.quantization is not None else None
    if details is None:
        return
    scales = np.frombuffer(_content(tensors[details.scales], buffers), np.float16)
    weights = np.frombuffer(_content(tensor, buffers), np.uint8)
    empty = scales == 0
    scales[empty] = 1
    weights.reshape(len(scales), details.block_size // PER_BYTE)[empty] = 0


def _mend_channels(
    layer: Layer,
    tensors: list[Tensor],
    buffers: list[Buffer],
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> None:
    """The scales of a layer whose bias is integers."""
    (kernel_tensor,) = _owners(tensors, layer.kernel)
    bias_tensors = list(_owners(tensors, layer.bias))
    kind = INTEGERS.get(bias_tensors[0].dtype) if len(bias_tensors) == 1 else None
    if kind is None:  # a float one, or zeros that several layers share
        return
    given = next(tensor for tensor in tensors if tensor.name == layer.input)
    step = float(_scales(given)[0])
    stored, shown = _scales(kernel_tensor), _scales(bias_tensors[0])
    kernel = kernel.reshape(len(bias), -1)
    if len(stored) != len(bias):
        return
    scales = fitting_scales(stored.astype(np.float64), kernel, bias, step)
    changed = np.flatnonzero(scales != stored)
    integers = np.frombuffer(_content(kernel_tensor, buffers), np.int8).reshape(kernel.shape)
    integers[changed] = np.clip(np.rint(kernel[changed] / scales[changed, None]), -127, 127)
    sums = np.frombuffer(_content(bias_tensors[0], buffers), kind)
    sums[changed] = np.rint(bias[changed].astype(np.float64) / (step * scales[changed]))
    stored[changed], shown[changed] = scales[changed], step * scales[changed]


def fitting_scales(
    scales: NDArray[np.float64], kernel: NDArray[np.float32], bias: NDArray[np.float32], step: float
) -> NDArray[np.float64]:
    """The scale of each channel of a kernel, no smaller than its bias needs.

    Args:
        scales: `(outputs,)`, as they follow from the largest weights.
        kernel: `(outputs, inputs)`.
        bias: `(outputs,)`.
        step: scale of the layer's input.
    """
    empty = np.abs(kernel).max(axis=1) <= LEAST
    found = scales.copy()
    if not empty.all():
        found[empty] = scales[~empty].max()
    else:
        largest = float(np.abs(bias).max())
        found[:] = largest / (step * BIAS_STEPS) if largest else 1.0
    return np.maximum(found, np.abs(bias) / (step * LARGEST_BIAS))


def _owners(tensors: list[Tensor], buffer: int | None) -> Iterator[Tensor]:
    return (tensor for tensor in tensors if tensor.buffer == buffer)


def _content(tensor: Tensor, buffers: list[Buffer]) -> Any:
    return buffers[tensor.buffer].content


def _scales(tensor: Tensor) -> NDArray[np.float32]:
    """The scales of a tensor, in the file itself."""
    quantization = tensor.quantization
    assert quantization is not None
    return np.frombuffer(quantization.data, np.float32, len(quantization.scales), quantization.scales_start)
