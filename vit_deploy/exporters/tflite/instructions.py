"""What litert-quantizer is asked to do: which operators of a TFLite file become integers, and of how many bits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence

from litert_quantizer import qtyping
from litert_quantizer import quantizer as aeq
from litert_quantizer.algorithm_manager import AlgorithmName

from vit_deploy.exporters.quantization.recipes import Activations, Part, Recipe
from vit_deploy.exporters.tflite.bits import NOT_OF_16_BITS, OPERATORS, activation_bits_of, product_bits
from vit_deploy.exporters.tflite.layers import Layer
from vit_deploy.exporters.tflite.matmuls import PRODUCT, Product

CHANNELWISE = "CHANNELWISE"
BLOCKS = {32: "BLOCKWISE_32", 64: "BLOCKWISE_64", 128: "BLOCKWISE_128", 256: "BLOCKWISE_256"}


def instruct(
    work: aeq.Quantizer,
    recipe: Recipe,
    layers: dict[str, Layer],
    products: Sequence[Product],
    dynamic: Collection[str],
) -> None:
    """Say what is done with which operators; what comes later counts more."""
    if Part.PATCH_EMBED in recipe.parts:
        # LiteRT has neither 4-bit nor block-wise convolutions.
        _add(work, ".*", "CONV_2D", recipe, max(recipe.weight_bits, 8), CHANNELWISE)
    for part in recipe.parts & OPERATORS.keys():
        for name in OPERATORS[part]:
            if recipe.all_integers and name in NOT_OF_16_BITS:
                continue
            own = dataclasses.replace(recipe, activation_bits=activation_bits_of(recipe, name))
            _add(work, ".*", name, own, recipe.weight_bits, CHANNELWISE)
    for product in products:
        own = dataclasses.replace(recipe, activation_bits=product_bits(recipe, product))
        # A constant gets the bits of a kernel, and one scale.
        granularity = CHANNELWISE if product.left else "TENSORWISE"
        _add(work, _scope(product.output), PRODUCT, own, recipe.weight_bits, granularity)
        for name, kind in (move for side in product.sides for move in side.moves.items()):
            _add(work, _scope(name), kind, recipe, recipe.weight_bits, CHANNELWISE)
    for layer in layers.values():
        scope = _scope(layer.output)
        part = Part.HEAD if layer.name == "head" else Part.PROJECTIONS
        if layer.name in recipe.keep_float or (layer.kind == "FULLY_CONNECTED" and part not in recipe.parts):
            kind = qtyping.TFLOperationName(layer.kind)
            work.update_quantization_recipe(scope, kind, algorithm_key=AlgorithmName.NO_QUANTIZE)
        elif layer.kind == "FULLY_CONNECTED":
            bits = recipe.bits_of(layer.name)
            activations = Activations.DYNAMIC if layer.name in dynamic else recipe.activations
            widths = recipe.activation_bits_of(layer.name)
            own = dataclasses.replace(recipe, activations=activations, activation_bits=widths)
            in_blocks = bits < 8 and recipe.block_size and layer.inputs % recipe.block_size == 0
            _add(work, scope, layer.kind, own, bits, BLOCKS[recipe.block_size] if in_blocks else CHANNELWISE)


def _scope(output: str) -> str:
    # The quantizer looks for the pattern in the names of an operator's outputs, each with a semicolon behind it.
    return f"^{re.escape(output)};$"


def _add(work: aeq.Quantizer, scope: str, kind: str, recipe: Recipe, bits: int, granularity: str) -> None:
    name, shared = qtyping.TFLOperationName(kind), qtyping.QuantGranularity(granularity)
    match recipe.activations:
        case Activations.STATIC:
            work.add_static_config(scope, name, recipe.activation_bits, bits, shared)
        case Activations.DYNAMIC:
            work.add_dynamic_config(scope, name, bits, shared)
        case Activations.FLOAT:
            algorithm = AlgorithmName.FLOAT_CASTING if bits == 16 else AlgorithmName.MIN_MAX_UNIFORM_QUANT
            work._recipe_manager.add_weight_only_config(scope, name, bits, shared, algorithm)
