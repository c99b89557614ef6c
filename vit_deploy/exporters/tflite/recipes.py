"""What is quantized in a TFLite file of each precision, and why.

Measured on ViTs trained on photographs (32x32, 10 classes) and digits, agreement of top-1 with fp32; speed on two cores
with AVX-512 VNNI under LiteRT's XNNPACK. All integer recipes balance the channels
of attention's values by the weights alone: with ten of them 30 times as large, int8 without it kept 95.1 % of the first
classes of the photographs, and failed its proof with two of three models of digits.
"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.recipes import LAYERS, Activations, Part, Recipe

FP16 = Recipe(
    "fp16",
    weight_bits=16,
    activations=Activations.FLOAT,
    parts=frozenset(LAYERS),
    reason="Kernels in half precision, widened when the file is loaded: XNNPACK computes in float32, so nothing can "
    "overflow and norms and softmax are what they were. Half the size, the same speed.",
)
INT8 = Recipe(
    "int8",
    weight_bits=8,
    activations=Activations.DYNAMIC,
    parts=frozenset(LAYERS),
    equalized=True,
    reason="XNNPACK finds the range of every token of an activation as it runs, so outliers of one token do not cost "
    "the others anything and no data are needed. Products of attention have no weights, and ranges that are found as "
    "they run are for layers with weights alone. Norms, softmax and GELU are little work and lose most in 8 bits: they "
    "stay in float.",
)
INT8_STATIC = Recipe(
    "int8-static",
    weight_bits=8,
    activations=Activations.STATIC,
    parts=frozenset(LAYERS) | {Part.ATTENTION_PRODUCTS},
    clipping=Clipping.MSE,
    equalized=True,
    reason="As int8, with inputs and outputs of the layers in ranges that were calibrated, and attention's products in "
    "integers: XNNPACK takes 0.4 of the time of floats for them where keys and values have zero point 0, and leaves "
    "others to the interpreter, 50 times as slow. They cost the photographs 0.8 % of agreement, mostly for the 255 "
    "steps of the shares; `--keep-float block_0.attention.products` and the budgets have them in float again. Tiny "
    "takes 0.9 of int8's time, and base 1.17: with AVX-512 VNNI XNNPACK has assembly for layers whose ranges it finds "
    "as it runs, and for calibrated ones compiled code, in base 1.3 times as slow. GELU in integers costs 3 to 12 %, "
    "for XNNPACK leaves it to the interpreter. Of ranges the one that loses least is as good as minimum and maximum, "
    "or better; errors of scores weigh as much as the shares they become, which takes 4 % off the error of the logits. "
    "Correcting biases gains nothing: one draw of images to calibrate on and another differ by more.",
)
INT8_FULL = Recipe(
    "int8-full",
    weight_bits=8,
    activations=Activations.STATIC,
    parts=frozenset(Part),
    softmax_bits=16,
    integer_io=True,
    clipping=Clipping.MSE,
    equalized=True,
    reason="For accelerators that have nothing but integers: every operator an integer one, input and output int8. The "
    "8-bit softmax gives steps of 1/256, and the attention of 197 tokens has shares of 1/197: in base with random "
    "weights it alone takes the cosine with fp32 from 0.998 to 0.983. So softmax has 16 bits, which Ethos-U and "
    "Hexagon take too, and the products 8, with the shares in calibrated steps: 16 bits for them as well gain nothing "
    "there, and on a CPU take tiny from 2 times fp32's time to 14, for LiteRT has no fast kernels for them. Where "
    "images to calibrate with show outliers, what 8 bits are too coarse for has 16.",
)
INT16X8 = Recipe(
    "int16x8",
    weight_bits=8,
    activations=Activations.STATIC,
    parts=frozenset(LAYERS),
    activation_bits=16,
    equalized=True,
    reason="Activations of the layers in 16 bits, nearly exact, for accelerators that have them (Ethos-U, Hexagon). "
    "Norms stay in float, since some have squared differences, for which there is no 16-bit operator, and with them "
    "what lies between. On a CPU the 16-bit kernels are the reference ones, many times slower than fp32.",
)
INT4 = Recipe(
    "int4",
    weight_bits=4,
    activations=Activations.DYNAMIC,
    parts=frozenset(LAYERS),
    eight_bits=("*.attention.*", "pre_logits", "head"),
    block_size=32,
    equalized=True,
    compensated=True,
    reason="Kernels in 4 bits with a scale for every 32 weights, whose rounding errors make up for each other by what "
    "the layers read. Two thirds of the weights, those of the feed-forward halves, get 4 bits and the rest 8: on a "
    "DINOv2-small the cosine of patch tokens is 0.9961, and 0.9945 with queries, keys and outputs in 4 bits as well.",
)

TFLITE_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe for recipe in (FP16, INT8, INT8_STATIC, INT8_FULL, INT16X8, INT4)
}
WEB_RECIPES: Mapping[str, Recipe] = {name: recipe for name, recipe in TFLITE_RECIPES.items() if recipe is not INT8_FULL}
"""What browsers run: LiteRT.js takes no integers of 8 bits as input."""


def refuse_options(options: QuantizeOptions) -> None:
    """Raise `ConfigError` for what TFLite files are never quantized with."""
    if options.smoothing:
        raise ConfigError(
            "TFLite files are smoothed by their weights alone: the scales of their norms are part of the products "
            "that follow, which undoes the outliers that they make",
            fix="leave --smoothing out, or give 0 to have nothing smoothed",
        )
