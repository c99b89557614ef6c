"""The inputs of an ONNX file's layers on calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from vit_deploy.core.input_output import InputSpec
from vit_deploy.exporters.onnx.inside import opened_with
from vit_deploy.exporters.onnx.layers import layers_of
from vit_deploy.exporters.quantization.calibration import Calibration, batches
from vit_deploy.exporters.quantization.clipping import NOTHING, Observed
from vit_deploy.runtimes.values import as_stored

BATCH = 8  # images a call, where the file leaves it open


def observe(model: onnx.ModelProto, spec: InputSpec, calibration: Calibration, *, counted: bool) -> dict[str, Observed]:
    """The values of every layer's input, by the tensor's name.

    Args:
        model: fp32.
        spec: the spec of its input.
        calibration: the images.
        counted: whether values are counted, or only their extremes.
    """
    seen: dict[str, Observed] = {}
    for values in layer_inputs(model, spec, calibration):
        seen = {name: seen.get(name, NOTHING).also(value, counted=counted) for name, value in values.items()}
    return seen


def largest_by_channel(
    model: onnx.ModelProto, spec: InputSpec, calibration: Calibration
) -> dict[str, NDArray[np.float32]]:
    """The largest absolute value of each channel of every layer's input, by the layer's name."""
    largest: dict[str, NDArray[np.float32]] = {}
    for values in layer_inputs(model, spec, calibration):
        for name, value in values.items():
            now = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
            largest[name] = np.maximum(largest.get(name, now), now)
    return {layer.name: largest[layer.input] for layer in layers_of(model.graph)}


def layer_inputs(
    model: onnx.ModelProto, spec: InputSpec, calibration: Calibration
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The inputs of all layers, batch by batch."""
    return values_of(model, list(dict.fromkeys(layer.input for layer in layers_of(model.graph))), spec, calibration)


def values_of(
    model: onnx.ModelProto, names: Sequence[str], spec: InputSpec, calibration: Calibration, *, batch: int = BATCH
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Values that are computed on the way, batch by batch.

    Args:
        model: fp32.
        names: of the values, all of float32.
        spec: the spec of its input.
        calibration: the images.
        batch: images a call, where the file leaves it open.
    """
    with opened_with(model, names) as engine:
        for images in batches(calibration.images, spec.batch, batch):
            yield dict(zip(names, engine.run(list(names), {spec.name: as_stored(images, spec)}), strict=True))
