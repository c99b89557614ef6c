"""The functions of single numbers in a ViT, and softmax, in NumPy and in whatever precision they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.choices import Activation, FFNType
from vit_deploy.core.erf import erf

Array = NDArray[Any]

GELU_LIMIT = 10.0  # of the clipped GELU


def softmax(x: Array) -> Array:
    """Over the last axis, shifted so that nothing overflows."""
    exponentials: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), through tanh so that nothing overflows."""
    result: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return result


def gelu(x: Array) -> Array:
    """x times the normal distribution function (Hendrycks and Gimpel 2016), exact."""
    result: Array = 0.5 * x * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))
    return result


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation from the same paper."""
    result: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return result


ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    Activation.GELU: gelu,
    Activation.GELU_TANH: gelu_tanh,
    Activation.QUICK_GELU: lambda x: x * sigmoid(1.702 * x),
    Activation.RELU: lambda x: np.maximum(x, 0),
    Activation.RELU6: lambda x: np.clip(x, 0, 6),
    Activation.LEAKY_RELU: lambda x: np.where(x < 0, 0.2 * x, x),
    Activation.LEAKY_RELU_TORCH: lambda x: np.where(x < 0, 0.01 * x, x),
    Activation.SQUARED_RELU: lambda x: np.square(np.maximum(x, 0)),
    Activation.GELU_CLIPPED: lambda x: np.clip(gelu(x), -GELU_LIMIT, GELU_LIMIT),
    Activation.MISH: lambda x: x * np.tanh(np.logaddexp(x, x.dtype.type(0))),
    Activation.ELU: lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    Activation.SILU: lambda x: x * sigmoid(x),
    Activation.HARD_SILU: lambda x: x * np.clip(x + 3, 0, 6) / 6,
    Activation.SIGMOID: sigmoid,
    Activation.TANH: np.tanh,
}

GATES: Mapping[FFNType, Activation] = {
    FFNType.SWIGLU: Activation.SILU,
    FFNType.GEGLU: Activation.GELU,
    FFNType.GLU: Activation.SIGMOID,
}
