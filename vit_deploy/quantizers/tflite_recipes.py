"""What is quantized in a TFLite file of each precision, and why?

Measured on ViTs trained on photographs (32x32, 10 classes) and digits, agreement of top-1 with fp32; speed on two cores
with AVX-512 VNNI under LiteRT's XNNPACK. All integer recipes balance the channels
of attention's values by the weights alone: with ten of them 30 times as large, int8 without it kept 95.9 % of the first
classes of the photographs, and failed its proof with two of three models of digits.
"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.quantizers.recipes import LAYERS, Activations, Clipping, Part, Recipe

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
    "the others anything and no data are needed. Products of attention have no kernel: in int8 they cost four times "
    "the time of the whole model. Norms, softmax and GELU are little work and lose most in 8 bits: they stay in float.",
)
INT8_STATIC = Recipe(
    "int8-static",
    weight_bits=8,
    activations=Activations.STATIC,
    parts=frozenset(LAYERS),
    clipping=Clipping.MSE,
    equalized=True,
    reason="As int8, with inputs and outputs of the layers in ranges that were calibrated. The range that loses least "
    "is as good as minimum and maximum on models without outliers and better on those with them; bias correction was "
    "measured and gains nothing, since scales are per channel. On CPUs with AVX-512 VNNI it is slower than int8: "
    "products of base's sizes alone take XNNPACK 1.1 to 1.35 times as long as with ranges found as they run. "
    "Transposes in integers gain 2 %, and GELU in integers costs 3 to 12 %, for XNNPACK leaves it to the interpreter.",
)
INT8_FULL = Recipe(
    "int8-full",
    weight_bits=8,
    activations=Activations.STATIC,
    parts=frozenset(Part),
    attention_bits=16,
    integer_io=True,
    clipping=Clipping.MSE,
    equalized=True,
    reason="For accelerators that have nothing but integers: every operator an integer one, input and output int8. The "
    "8-bit softmax gives steps of 1/256, and the attention of 197 tokens has shares of 1/197: in base with random "
    "weights it alone takes the cosine with fp32 from 0.998 to 0.983. So softmax and the products around it have 16 "
    "bits, which Ethos-U85 and Hexagon take too. On a CPU the file is slower than fp32, for LiteRT has "
    "no fast kernels for integer products of attention, GELU and the parts of a norm.",
)
INT16X8 = Recipe(
    "int16x8",
    weight_bits=8,
    activations=Activations.STATIC,
    parts=frozenset(LAYERS),
    activation_bits=16,
    equalized=True,
    reason="Activations of the layers in 16 bits, nearly exact, for accelerators that have them (Ethos-U, Hexagon). "
    "Squared differences have no 16-bit operator, so norms stay in float, and with them what lies between. On a CPU "
    "the 16-bit kernels are the reference ones, many times slower than fp32.",
)
INT4 = Recipe(
    "int4",
    weight_bits=4,
    activations=Activations.DYNAMIC,
    parts=frozenset(LAYERS),
    eight_bits=("block_0.*", "*.attention.value", "pre_logits", "head"),
    block_size=32,
    equalized=True,
    reason="Kernels in 4 bits with a scale for every 32 weights. The first block, the values of attention and the head "
    "have 8 bits: a sixth of the kernels, and it takes the agreement with fp32 from 95.6 % to 98.4 %.",
)

TFLITE_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe for recipe in (FP16, INT8, INT8_STATIC, INT8_FULL, INT16X8, INT4)
}
