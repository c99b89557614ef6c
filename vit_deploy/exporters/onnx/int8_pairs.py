"""8-bit kernels whose neighbouring products fit 16 bits, so that every processor multiplies them right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vit_deploy.core.saturation import LARGEST_SUM, sums_of_pairs
from vit_deploy.exporters.onnx.layers import array

MOST = 127  # of a weight
QUANTIZED, SCALE = "_quantized", "_scale"  # behind a kernel's name, by ONNX Runtime's tools
SMALLEST = float(np.finfo(np.float32).tiny)


def with_fitting_pairs(graph: onnx.GraphProto, kernels: Mapping[str, NDArray[np.float32]]) -> None:
    """Quantize the kernels of a quantized graph again.

    Args:
        graph: a graph quantized by ONNX Runtime's tools, with signed weights and a scale an output channel; changed.
        kernels: names and values `(inputs, outputs)` before they were quantized.
    """
    weights = {weight.name: weight for weight in graph.initializer}
    for name, kernel in kernels.items():
        stored, scales = fitting(kernel)
        for key, values in ((name + QUANTIZED, stored), (name + SCALE, scales)):
            weights[key].CopyFrom(numpy_helper.from_array(values.reshape(array(graph, key).shape), key))


def fitting(kernel: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers `(inputs, outputs)` and a scale an output channel.

    A scale is the smallest by which no weight passes 127, and no two neighbours along the inputs together 128. Each is
    rounded by at most a half, so that before it two are held to one less.
    """
    values = kernel.astype(np.float64)
    largest = np.abs(values).max(axis=0, initial=0) / MOST
    together = np.abs(sums_of_pairs(values)).max(axis=0, initial=0) / (LARGEST_SUM - 1)
    scales = np.maximum(largest, together).astype(np.float32)
    scales[scales < SMALLEST] = 1.0  # a channel of zeros, or of what float32 cannot divide by
    return np.clip(np.rint(values / scales), -MOST, MOST).astype(np.int8), scales


def scales(kernel: NDArray[np.float32], *, fitting_pairs: bool) -> NDArray[np.float32]:
    """A scale for each output of a kernel `(inputs, outputs)`.

    Args:
        kernel: its values.
        fitting_pairs: whether no two neighbours may come to more than 128; see `saturation`.
    """
    if fitting_pairs:
        return fitting(kernel)[1]
    found: NDArray[np.float32] = (np.abs(kernel).max(axis=0, initial=0) / MOST).astype(np.float32)
    found[found < SMALLEST] = 1.0
    return found
