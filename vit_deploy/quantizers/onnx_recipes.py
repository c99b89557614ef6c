"""What is quantized in an ONNX file of each precision, and why?"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.quantizers.recipes import LAYERS, Activations, Part, Recipe

ONNX_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe
    for recipe in (
        Recipe("fp16", 16, Activations.FLOAT, frozenset(Part) - {Part.NORMS, Part.SOFTMAX}),
        Recipe("int8", 8, Activations.DYNAMIC, frozenset(LAYERS)),
        Recipe("int8-static", 8, Activations.STATIC, frozenset(LAYERS)),
        Recipe("int4", 4, Activations.FLOAT, frozenset(LAYERS), block_size=32),
    )
}
