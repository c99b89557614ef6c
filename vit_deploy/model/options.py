"""Initializers and regularizers of the projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from vit_deploy.core.weights import STDDEV, truncated_normal


@keras.saving.register_keras_serializable("vit_deploy")
class SeededTruncatedNormal(keras.initializers.Initializer):  # type: ignore[misc]
    """A truncated normal drawn with NumPy from a seed and a weight's canonical name, the same on every backend.

    Args:
        name: canonical name of the weight, which keys its stream.
        seed: the seed of the whole model.
        stddev: before the truncation at two standard deviations.
    """

    def __init__(self, name: str, seed: int, stddev: float = STDDEV) -> None:
        self.name = name
        self.seed = seed
        self.stddev = stddev

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """A tensor of `shape`."""
        return keras.ops.convert_to_tensor(truncated_normal(self.name, tuple(shape), self.seed, self.stddev), dtype)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        return {"name": self.name, "seed": self.seed, "stddev": self.stddev}


@dataclass(frozen=True)
class WeightOptions:
    """First values and regularizers, handed from the model to each projection.

    Args:
        seed: the seed of the weights drawn with NumPy where no initializer is given; None leaves them zero, for
            weights that are assigned afterwards.
        kernel_initializer: anything Keras takes as one; None draws from `seed`.
        bias_initializer: the initializer of biases; None is zeros.
        kernel_regularizer: anything Keras takes as one.
        bias_regularizer: the regularizer of biases.
    """

    seed: int | None = 0
    kernel_initializer: Any = None
    bias_initializer: Any = None
    kernel_regularizer: Any = None
    bias_regularizer: Any = None

    @classmethod
    def of(cls, given: WeightOptions | Mapping[str, Any] | None) -> WeightOptions:
        """Options as they are, as `to_config` wrote them, or the defaults."""
        return given if isinstance(given, WeightOptions) else cls(**(given or {}))

    def drawn(self, name: str) -> Any:
        """The initializer of the token or table `name`, which no option changes."""
        return keras.initializers.Zeros() if self.seed is None else SeededTruncatedNormal(name, self.seed)

    def projection(self, name: str) -> dict[str, Any]:
        """Keyword arguments of the projection whose canonical name is `name`."""
        given = keras.initializers.get(self.kernel_initializer)
        # An initializer without a seed draws one when it is made: a clone each, or equal shapes start equal.
        fresh = given.clone() if isinstance(given, keras.initializers.Initializer) else given
        return {
            "kernel_initializer": self.drawn(f"{name}.kernel") if given is None else fresh,
            "bias_initializer": "zeros" if self.bias_initializer is None else self.bias_initializer,
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
        }

    def to_config(self) -> dict[str, Any]:
        """The fields in the form that Keras stores."""
        return {
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(keras.initializers.get(self.kernel_initializer)),
            "bias_initializer": keras.initializers.serialize(keras.initializers.get(self.bias_initializer)),
            "kernel_regularizer": keras.regularizers.serialize(keras.regularizers.get(self.kernel_regularizer)),
            "bias_regularizer": keras.regularizers.serialize(keras.regularizers.get(self.bias_regularizer)),
        }
