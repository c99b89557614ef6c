"""The noise floor of a model: what rounding to float32 alone does to its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import Hook, forward
from vit_deploy.core.summation import ORDERS

Array = NDArray[Any]

EPSILON = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)  # the floor of a model that answers zero

# By as much the orders differ for models without large values: 1.0 to 2.8 times over kinds and draws of weights. It is
# part of the distance that `tolerances.NOISE_FACTOR` allows, and only what is more makes a noise floor higher.
USUAL_SPREAD = 3.0


def noise_floor(
    exact: Array, rounded: Sequence[Array], axis: int | tuple[int, ...] | None = None
) -> NDArray[np.float64]:
    """The largest distance between what the reference computes in float64 and in float32.

    Three distances count, and the largest is taken: what NumPy's order of summation gives; what every other order in
    `summation.ORDERS` gives, divided by `USUAL_SPREAD`; and float32's epsilon times the largest value, since no output
    can be closer to the truth than float32 can write it down. It is never zero.

    Args:
        exact: values in float64.
        rounded: the same values computed in float32, in each of `summation.ORDERS`.
        axis: axes over which the largest is taken; None for all of them.
    """
    usual, *others = (np.abs(values - exact).max(axis=axis) for values in rounded)
    computed = np.maximum.reduce([usual, *(distance / USUAL_SPREAD for distance in others)])
    written = EPSILON * np.abs(exact).max(axis=axis)
    return np.asarray(np.maximum(np.maximum(computed, written), TINY), np.float64)


def forward_float32(
    checkpoint: Checkpoint,
    images: Array,
    hooks: Sequence[tuple[Hook | None, Hook | None]] = ((None, None),) * len(ORDERS),
) -> list[Array]:
    """The outputs of the reference in float32, in each of `summation.ORDERS`.

    Args:
        checkpoint: config and weights.
        images: `(batch, height, width, channels)`, normalised.
        hooks: `hook` and `detail` of `reference.forward` for each order.
    """
    outputs = []
    for order, (hook, detail) in zip(ORDERS, hooks, strict=True):
        with order():
            outputs.append(forward(checkpoint, images, np.float32, hook=hook, detail=detail))
    return outputs
