"""What is quantized in an ONNX file of each precision, and why?"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.quantizers.recipes import LAYERS, Activations, Part, Recipe

ONNX_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe
    for recipe in (
        Recipe(
            "fp16",
            16,
            Activations.FLOAT,
            frozenset(Part) - {Part.NORMS, Part.SOFTMAX, Part.RESIDUALS},
            reason=(
                "Norms square their input and softmax raises e to it, which overflows 16 bits; residual sums grow from "
                "block to block. In float32 they cost no conversion more, since products lie between them."
            ),
        ),
        Recipe(
            "int8",
            8,
            Activations.DYNAMIC,
            frozenset(LAYERS),
            equalized=True,
            reason=(
                "One scale an output channel, one an activation tensor, found as it runs. Attention products stay in "
                "float: they are a tenth of the work and have no weights. Balancing channels by the weights alone "
                "changes nothing where there are no outliers, and keeps the answers where there are."
            ),
        ),
        Recipe(
            "int8-static",
            8,
            Activations.STATIC,
            frozenset(LAYERS),
            smoothing=0.5,
            reason=(
                "Only inputs of layers become integers, their outputs stay float, so nothing is rounded twice; signed "
                "and symmetric, which TensorRT asks for and ONNX Runtime turns around when it loads the file. There "
                "are images to calibrate with, so outliers move by what was measured: the error of the logits is 4 to "
                "17 % less than balanced by the weights alone, with images of one's own, and as large with the samples."
            ),
        ),
        Recipe(
            "int4",
            4,
            Activations.FLOAT,
            frozenset(LAYERS),
            block_size=32,
            eight_bits=("patch_embed", "*.attention.*", "pre_logits", "head"),
            equalized=True,
            reason=(
                "32 weights share a scale and a zero point. Two thirds of the weights, those of the feed-forward "
                "halves, get 4 bits and the rest 8: on a ViT trained on photographs 98.4 % of the first classes stay, "
                "and 92.2 % with 4 bits everywhere, mostly for the patch embedding and the attention. Products in "
                "float32: with 8-bit activations ONNX Runtime takes twice as long for the rows of a ViT."
            ),
        ),
    )
}
