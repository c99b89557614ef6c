"""Layers and products of a TFLite file that one calibrated range of 8 bits is too coarse for.

What the limits are and why: see `quantization.coarse_ranges`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vit_deploy.exporters.quantization.clipping import clipped, signal_to_noise_db, symmetric
from vit_deploy.exporters.quantization.coarse_ranges import LEAST_DB, LEAST_SHARES_DB
from vit_deploy.exporters.quantization.recipes import Activations, Recipe
from vit_deploy.exporters.tflite.layers import Layer
from vit_deploy.exporters.tflite.matmuls import Product
from vit_deploy.exporters.tflite.ranges import Observations

BITS = 8


def coarse_layers(layers: Mapping[str, Layer], recipe: Recipe, seen: Observations | None) -> tuple[str, ...]:
    """Layers that read or write what one range of 8 bits is too coarse for.

    None where ranges were learned, and where values were not counted.
    """
    if seen is None or not _judged(recipe, seen):
        return ()
    candidates = (layer for layer in layers.values() if layer.kind == "FULLY_CONNECTED")
    return tuple(
        layer.name
        for layer in candidates
        if layer.name not in recipe.keep_float
        and min(_left_db(name, recipe, seen) for name in (layer.input, layer.output)) < LEAST_DB
    )


def coarse_products(products: Sequence[Product], recipe: Recipe, seen: Observations | None) -> tuple[str, ...]:
    """Attentions of which a product's side is too coarse in 8 bits, as `block_0.attention.products`.

    Both products then: where shares are smaller than a step, those of the scores show in them.

    Args:
        products: the products that would become integers.
        recipe: how ranges are found.
        seen: what calibration saw.
    """
    if seen is None or not _judged(recipe, seen):
        return ()
    found: dict[str, bool] = {}
    for product in products:
        is_mix = product.name in found  # scores come first
        left = np.inf if product.left is None else _left_db(product.left.tensors[0], recipe, seen)
        right = _left_db(product.right.tensors[0], recipe, seen, narrow=True)
        coarse = left < (LEAST_SHARES_DB if is_mix else LEAST_DB) or right < LEAST_DB
        found[product.name] = found.get(product.name, False) or coarse
    return tuple(name for name, coarse in found.items() if coarse)


def _judged(recipe: Recipe, seen: Observations) -> bool:
    calibrated = recipe.activations is Activations.STATIC and recipe.activation_bits == BITS
    return calibrated and not seen.learned


def _left_db(name: str, recipe: Recipe, seen: Observations, *, narrow: bool = False) -> float:
    """What 8 bits leave of a tensor; without end where it was not counted. `narrow` has zero for its zero point."""
    tensor = seen.tensors.get(name)
    if tensor is None or not tensor.counts.size:
        return np.inf
    low, high = clipped(tensor, recipe.clipping, bits=BITS, percentile=recipe.percentile)
    if narrow:
        low, high = symmetric(low, high)
    return signal_to_noise_db(tensor, low, high, bits=BITS)
