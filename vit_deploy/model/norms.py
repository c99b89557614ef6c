"""Layer norm and RMS norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from vit_deploy.core.choices import NormalizationType
from vit_deploy.core.reference import BAND_WIDTH, HEAD_NORM_EPSILON
from vit_deploy.core.weights import ALPHA
from vit_deploy.model.layers import HALF_TYPES, NamedVariables, side_of


@keras.saving.register_keras_serializable("vit_deploy")
class Norm(NamedVariables):
    """The normalization of each token; the formulas are those of `vit_deploy.core.reference.norm`.

    In half precision it computes in float32: the mean square of float16 overflows at 256.
    """

    def __init__(self, kind: str, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = NormalizationType(kind)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights of this kind of norm."""
        dim = (input_shape[-1],)
        if self.kind is NormalizationType.BAND_RMS:
            self.band = self.add_weight(name="band", shape=(), initializer="zeros", autocast=False)
            return
        if self.kind is NormalizationType.DYNAMIC_TANH:
            alpha = keras.initializers.Constant(ALPHA)
            self.alpha = self.add_weight(name="alpha", shape=(), initializer=alpha, autocast=False)
        self.scale = self.add_weight(name="scale", shape=dim, initializer="ones", autocast=False)
        if self.kind is not NormalizationType.RMS_NORM:
            self.bias = self.add_weight(name="bias", shape=dim, initializer="zeros", autocast=False)

    def call(self, inputs: Any) -> Any:
        """`(batch, tokens, dim)` to the same."""
        if keras.backend.standardize_dtype(inputs.dtype) in HALF_TYPES:
            weights = {weight.name: ops.cast(weight, "float32") for weight in self.weights}
            return ops.cast(self._normalized(ops.cast(inputs, "float32"), weights), inputs.dtype)
        return self._normalized(inputs, {weight.name: weight for weight in self.weights})

    def _normalized(self, x: Any, weights: Mapping[str, Any]) -> Any:
        match self.kind:
            case NormalizationType.LAYER_NORM:
                centred = x - ops.mean(x, axis=-1, keepdims=True)
                variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
                return centred * ops.rsqrt(variance + self.epsilon) * weights["scale"] + weights["bias"]
            case NormalizationType.RMS_NORM:
                return self._unit(x) * weights["scale"]
            case NormalizationType.DYNAMIC_TANH:
                return ops.tanh(x * weights["alpha"]) * weights["scale"] + weights["bias"]
            case NormalizationType.BAND_RMS:
                return self._unit(x) * (1 - BAND_WIDTH + BAND_WIDTH * ops.sigmoid(5.0 * weights["band"]))

    def _unit(self, x: Any) -> Any:
        return _unit(x, self.epsilon)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {"kind": str(self.kind), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("vit_deploy")
class PixelNorm(Norm):
    """The norm of the pixels of each patch, in front of the patch embedding: images to images of the same shape.

    Args:
        kind: which norm.
        epsilon: added to the variance.
        patch_size: (height, width) in pixels.
    """

    def __init__(self, kind: str, epsilon: float = 1e-6, patch_size: tuple[int, int] = (16, 16), **kwargs: Any) -> None:
        super().__init__(kind, epsilon, **kwargs)
        self.patch_size = tuple(patch_size)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights, each with the length of a patch's pixels as (height, width, channel)."""
        height, width = self.patch_size
        super().build((None, height * width * int(input_shape[-1] or 0)))

    def call(self, inputs: Any) -> Any:
        """`(batch, height, width, channels)` to the same."""
        (high, wide), channels = self.patch_size, inputs.shape[-1]
        rows, columns = side_of(inputs, 1), side_of(inputs, 2)
        # Four axes are enough, for the pixels of a row of a patch lie side by side.
        cut = ops.reshape(inputs, (-1, high, columns // wide, wide * channels))
        patches = ops.reshape(
            ops.transpose(cut, (0, 2, 1, 3)), (-1, rows * columns // (high * wide), high * wide * channels)
        )
        normed = ops.reshape(super().call(patches), (-1, columns // wide, high, wide * channels))
        return ops.reshape(ops.transpose(normed, (0, 2, 1, 3)), (-1, rows, columns, channels))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {"patch_size": list(self.patch_size)}


@keras.saving.register_keras_serializable("vit_deploy")
class PatchNorm(Norm):
    """The norm behind the patch embedding; by its class Keras tells it from the others in a file."""


@keras.saving.register_keras_serializable("vit_deploy")
class PreNorm(Norm):
    """The norm in front of the first block; by its class Keras tells it from the last one in a file."""


@keras.saving.register_keras_serializable("vit_deploy")
class HeadNorm(NamedVariables):
    """The vector that the head reads, divided by its root mean square; in half precision it computes in float32."""

    def call(self, inputs: Any) -> Any:
        """`(batch, features)` to the same."""
        if keras.backend.standardize_dtype(inputs.dtype) in HALF_TYPES:
            return ops.cast(_unit(ops.cast(inputs, "float32"), HEAD_NORM_EPSILON), inputs.dtype)
        return _unit(inputs, HEAD_NORM_EPSILON)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape


def _unit(x: Any, epsilon: float) -> Any:
    return x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + epsilon)  # `square` has no integer form
