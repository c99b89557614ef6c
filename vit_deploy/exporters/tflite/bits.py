"""Operators of a TFLite file by the part of the network that they are, and the bits that each gets."""

from __future__ import annotations

from vit_deploy.exporters.quantization.recipes import Part, Recipe
from vit_deploy.exporters.tflite.matmuls import PRODUCT, Product

EIGHT = 8  # bits

OPERATORS: dict[Part, tuple[str, ...]] = {
    Part.SOFTMAX: ("SOFTMAX",),
    Part.NORMS: ("MEAN", "SUB", "MUL", "SQUARED_DIFFERENCE", "RSQRT"),
    Part.ACTIVATION_FUNCTIONS: ("GELU", "RELU", "LOGISTIC", "TANH", "HARD_SWISH", "DIV", "SQRT"),
    Part.RESIDUALS: (
        *("ADD", "RESHAPE", "TRANSPOSE", "CONCATENATION", "SLICE", "STRIDED_SLICE", "SUM", "PACK", "MAX_POOL_2D"),
        *("INPUT", "OUTPUT"),
    ),
}
"""Operators of the parts without kernels in a TFLite file, but for attention's products; absent ones do no harm."""

NOT_OF_16_BITS = frozenset(("SQUARED_DIFFERENCE", "INPUT", "OUTPUT"))  # input and output are float then
RESIDUALS_AND_NORMS = ("ADD", "SUB", "MEAN", "MUL", "RSQRT")  # SQUARED_DIFFERENCE has 8 bits alone


def activation_bits_of(recipe: Recipe, kind: str) -> int:
    """The bits of what an operator of this kind reads and writes."""
    if recipe.all_integers and kind == PRODUCT:
        return recipe.attention_bits
    if recipe.all_integers and kind in OPERATORS[Part.ACTIVATION_FUNCTIONS]:
        return 8
    own = {
        **dict.fromkeys(RESIDUALS_AND_NORMS, recipe.residual_bits),
        "SOFTMAX": recipe.softmax_bits,
        PRODUCT: recipe.attention_bits,
    }
    return max(recipe.activation_bits, own.get(kind, 8))


def product_bits(recipe: Recipe, product: Product) -> int:
    """The bits of both sides: a kernel's where one is constant, for LiteRT multiplies only equally wide integers."""
    if product.left:
        return 16 if product.name in recipe.wide_layers else activation_bits_of(recipe, PRODUCT)
    return recipe.weight_bits if recipe.all_integers else recipe.activation_bits
