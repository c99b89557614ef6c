"""What is quantized in an ONNX file that is made for Qualcomm's Hexagon, and why."""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.exporters.quantization.recipes import Activations, Part, Recipe

QNN_RECIPES: Mapping[str, Recipe] = {
    "fp16": ONNX_RECIPES["fp16"],
    "int8-static": Recipe(
        "int8-static",
        8,
        Activations.STATIC,
        frozenset(Part),
        softmax_bits=16,
        attention_bits=16,
        residual_bits=16,
        whole=True,
        smoothing=0.5,
        fitting_pairs=True,
        reason=(
            "Every operator one of integers: what layers read and give has 8 bits, and everything between them 16. "
            "Hexagon's compiler leaves out layers that read integers and give floats, as in files for CPUs. With 8 "
            "bits everywhere two random layers come to 19 dB in place of 28."
        ),
    ),
    "int16x8": ONNX_RECIPES["int16x8"],
}
