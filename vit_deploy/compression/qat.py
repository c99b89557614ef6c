"""Quantization-aware training: a model learns with its layers in int8, and learns their ranges.

Weights as they will be quantized: symmetric, one scale an output. Inputs and outputs of the layers: one range a tensor,
which starts as calibration would choose it from the model's own activations, and then follows them; symmetric where
keys and values are written, as in the files (those have no need of it where a norm follows the keys).
Norms, softmax and what lies between stay in float.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from vit_deploy.compression import CompressOptions
from vit_deploy.compression.keras2 import Twin, build
from vit_deploy.compression.method import Call
from vit_deploy.core.checkpoint import Ranges
from vit_deploy.core.weights import Float32
from vit_deploy.exporters.quantization.clipping import NOTHING, clipped
from vit_deploy.exporters.quantization.recipes import recipe_for

BITS = 8
SYMMETRIC = (".attention.key.output", ".attention.value.output")  # right sides of products, see `tflite.matmuls`
quantizers = tfmot.quantization.keras.quantizers


class _DenseConfig(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]
    """A Dense layer of int8 weights and an int8 output."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        by_output = quantizers.LastValueQuantizer(num_bits=BITS, per_axis=True, symmetric=True, narrow_range=True)
        return [(layer.kernel, by_output)]

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        (layer.kernel,) = quantize_weights

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        return None

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [_by_tensor(f"{self.name}.output")]

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def _by_tensor(name: str) -> Any:
    symmetric = name.endswith(SYMMETRIC)
    return quantizers.MovingAverageQuantizer(num_bits=BITS, per_axis=False, symmetric=symmetric, narrow_range=symmetric)


class Qat:
    """Quantization-aware training, by tensorflow-model-optimization; see `method.Method`."""

    def __init__(self, options: CompressOptions, layers: Collection[str], steps: int) -> None:
        self.layers = frozenset(layers)
        self.inputs: dict[str, Any] = {}
        self.wrapped: dict[str, Any] = {}

    def wrap(self, name: str, dense: Any) -> Call:
        """A layer between two fake quantizations."""
        if name not in self.layers:
            return dense  # type: ignore[no-any-return]
        self.inputs[name] = QuantizeLayer(_by_tensor(f"{name}.input"), name=f"{name}.input")
        self.wrapped[name] = QuantizeWrapperV2(dense, _DenseConfig(name))
        return lambda x: self.wrapped[name](self.inputs[name](x))

    def begin(self, twin: Twin, batches: Iterable[Any]) -> None:
        """Let every range begin as calibration would choose it for the model as it is."""
        tensors: dict[str, Any] = {}

        def recorded(name: str, dense: Any) -> Call:
            def call(x: Any) -> Any:
                tensors[f"{name}.input"], tensors[f"{name}.output"] = x, dense(x)
                return tensors[f"{name}.output"]

            return call

        look = tf_keras.Model(build(twin.checkpoint, recorded).model.inputs, tensors)
        seen = dict.fromkeys(tensors, NOTHING)
        for images in batches:
            for name, values in look(images, training=False).items():
                seen[name] = seen[name].also(values.numpy(), counted=True)
        recipe = recipe_for("tflite", "int8-static")
        for name, variables in self._range_variables().items():
            low, high = clipped(seen[name], recipe.clipping, bits=BITS, percentile=recipe.percentile)
            if name.endswith(SYMMETRIC):
                low, high = -max(-low, high), max(-low, high)
            variables["min_var"].assign(low)
            variables["max_var"].assign(high)
        self._fit_weights()

    def _fit_weights(self) -> None:
        """Ranges of the weights as they are now; a step of training leaves those of the weights before it."""
        for layer in self.wrapped.values():
            for weight, _, variables in layer._weight_vars:
                largest = np.abs(weight.numpy()).max(axis=0)
                variables["min_var"].assign(-largest)
                variables["max_var"].assign(largest)

    def _range_variables(self) -> dict[str, Any]:
        inputs = {f"{name}.input": layer.quantizer_vars for name, layer in self.inputs.items()}
        return inputs | {f"{name}.output": layer._output_quantizer_vars for name, layer in self.wrapped.items()}

    def end_epoch(self) -> None:
        """Ranges of activations are followed step by step."""
        self._fit_weights()

    def is_settled(self, step: int) -> bool:
        """Whether the weights have their final form, which they have from the first step."""
        return True

    def kernels(self) -> Mapping[str, Float32]:
        """The kernels are left in float, as near to their integers as they came: quantizing does the rest."""
        return {}

    def ranges(self) -> Ranges:
        """The learned ranges of each layer's input and output."""
        found = {}
        for name, variables in self._range_variables().items():
            low, high = float(variables["min_var"].numpy()), float(variables["max_var"].numpy())
            found[name] = (min(low, 0.0), max(high, 0.0))
        return found
