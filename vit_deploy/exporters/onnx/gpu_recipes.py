"""What has 16 bits or fewer in an ONNX file that is made for NVIDIA GPUs, and why."""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.exporters.quantization.recipes import Activations, Part, Recipe

_EVERYTHING = frozenset(Part)

CUDA_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe
    for recipe in (
        Recipe(
            "fp16",
            16,
            Activations.FLOAT,
            _EVERYTHING,
            reason=(
                "All of it has 16 bits: attention, softmax and the norms are inside fused kernels that add up in 32, "
                "and each conversion would read and write the whole residual stream once more. What comes near 65504 "
                "stays in float32, which costs those conversions; bf16 has the range."
            ),
        ),
        Recipe(
            "bf16",
            16,
            Activations.FLOAT,
            _EVERYTHING,
            reason=(
                "The range of float32 with 8 bits of mantissa: nothing overflows, and each value is eight times as "
                "coarse as in fp16. For models whose residual stream passes 65504."
            ),
        ),
    )
}
TENSORRT_RECIPES: Mapping[str, Recipe] = {
    "fp16": Recipe(
        "fp16",
        16,
        Activations.FLOAT,
        _EVERYTHING - {Part.NORMS, Part.RESIDUALS},
        reason=(
            "TensorRT fuses an attention whose softmax has the type of the products around it. Norms and residual sums "
            "stay in float32, as its documents advise for norms that square their input."
        ),
    ),
    "int8-static": ONNX_RECIPES["int8-static"],
}
