"""What is quantized in a TFLite file of each precision, and why?"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.quantizers.recipes import LAYERS, Activations, Part, Recipe

TFLITE_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe
    for recipe in (
        Recipe("fp16", 16, Activations.FLOAT, frozenset(LAYERS)),
        Recipe("int8", 8, Activations.DYNAMIC, frozenset(LAYERS)),
        Recipe("int8-static", 8, Activations.STATIC, frozenset(LAYERS)),
        Recipe("int8-full", 8, Activations.STATIC, frozenset(Part), integer_io=True),
        Recipe("int16x8", 8, Activations.STATIC, frozenset(LAYERS), activation_bits=16),
        Recipe("int4", 4, Activations.DYNAMIC, frozenset(LAYERS), block_size=32),
    )
}
