"""Other weights for the layers of a float TFLite file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vit_deploy.exporters.tflite.layers import Layer
from vit_deploy.exporters.tflite.repack import INLINE_LIMIT, Content, write_model
from vit_deploy.formats.tflite.schema import Model

Weights = Mapping[str, NDArray[np.float32]]
"""Kernels `(inputs, outputs)` and biases by their canonical names, as `block_0.ffn.up.kernel`."""


def write_weights(
    path: Path, model: Model, layers: Mapping[str, Layer], weights: Weights, *, inline_limit: int = INLINE_LIMIT
) -> None:
    """Write a file with other weights.

    Args:
        path: the path of the new file.
        model: root of the old one.
        layers: the layers of it, by their canonical names.
        weights: the weights that are different; the bias of a layer that has none is left out.
        inline_limit: bytes past which the weights are written outside the flatbuffer.

    Raises:
        OSError: the file cannot be written.
    """
    contents: dict[int, tuple[int, Content]] = {}
    for name, values in weights.items():
        layer, is_kernel = layers[name.rpartition(".")[0]], name.endswith(".kernel")
        buffer = layer.kernel if is_kernel else layer.bias
        if buffer is not None:
            contents[buffer] = stored(values.T if is_kernel else values)
    write_model(path, model, contents, {}, inline_limit=inline_limit)


def stored(values: NDArray[Any], dtype: DTypeLike = np.float32) -> tuple[int, Content]:
    """What is written of an array when it is its turn; a kernel is turned then."""
    return values.size * np.dtype(dtype).itemsize, lambda: np.ascontiguousarray(values, dtype).tobytes()
