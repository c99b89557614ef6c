"""Ranges of the tensors of a TFLite file that become integers, of what was measured or learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_deploy.core.artifact import Artifact
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.clipping import clipped, symmetric
from vit_deploy.exporters.quantization.learned_ranges import learned_ranges
from vit_deploy.exporters.quantization.recipes import Activations, Recipe
from vit_deploy.exporters.tflite.bits import OPERATORS, product_bits
from vit_deploy.exporters.tflite.layers import Layer, output_factor
from vit_deploy.exporters.tflite.matmuls import Product

if TYPE_CHECKING:  # it measures them in LiteRT
    from vit_deploy.exporters.tflite.ranges import Observations


def learned_by_tensor(
    source: Artifact, calibration: Calibration, layers: dict[str, Layer], between: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """Ranges that training learned, by the tensors of the file; those around layers count more than those between."""
    found = learned_ranges(source, calibration)
    # Where norms once took squares, files now have products, whose numbers in a norm are others.
    squared = tuple(name.removesuffix("square.0") for name in found if name.endswith(".square.0"))
    if squared and not between.keys() & {f"{norm}square.0" for norm in squared}:
        found = {name: range_ for name, range_ in found.items() if not name.startswith(squared)}
    for name, (low, high) in found.items():
        factor = output_factor(name, source.config)
        found[name] = (low * factor, high * factor)
    sides = [(f"{name}.{side}", getattr(layer, side)) for name, layer in layers.items() for side in ("input", "output")]
    return {tensor: found[name] for name, tensor in (*between.items(), *sides) if name in found}


def needed_tensors(recipe: Recipe, layers: dict[str, Layer], products: Sequence[Product]) -> set[str] | None:
    """Tensors whose ranges count: around layers and products, or all where other parts become integers too."""
    if recipe.activations is not Activations.STATIC:
        return set()
    if recipe.parts & OPERATORS.keys():
        return None
    around = {name for layer in layers.values() for name in (layer.input, layer.output)}
    return around | {name for product in products for side in product.sides for name in side.tensors}


def ranges_of(seen: Observations, recipe: Recipe, products: Sequence[Product]) -> dict[str, dict[str, Any]]:
    """Both ends of the range of each tensor, in the form that litert-quantizer takes."""
    found = {
        name: seen.learned.get(name)
        or clipped(tensor, recipe.clipping, bits=recipe.activation_bits, percentile=recipe.percentile)
        for name, tensor in seen.tensors.items()
    }
    for product in products:
        for side in product.sides:
            # One scale holds for all tensors of the same values. What training learned counts, a layer's side first.
            from_layer = side.tensors[:: -1 if side is product.result else 1]
            known = [name for name in from_layer if name in found]
            chosen = next((name for name in known if name in seen.learned), known[0])
            narrow = side is product.right and product_bits(recipe, product) == 8
            found |= dict.fromkeys(known, symmetric(*found[chosen]) if narrow else found[chosen])
    # What is nothing but zeros would get steps too small for engines to compute with; in any others it is exact.
    found = {name: (low, high) if low < high else (-1.0, 1.0) for name, (low, high) in found.items()}
    return {
        name: {
            end: np.full((1,) * seen.tensors[name].rank, value, np.float32)
            for end, value in zip(("min", "max"), limits, strict=True)
        }
        for name, limits in found.items()
    }


def largest_shares(ranges: Mapping[str, Mapping[str, Any]], products: Sequence[Product]) -> dict[str, float]:
    """The largest value on the left of each product, by what the product gives."""
    read = {product.output: product.left.tensors[-1] for product in products if product.left is not None}
    return {output: float(ranges[name]["max"].max()) for output, name in read.items() if name in ranges}
