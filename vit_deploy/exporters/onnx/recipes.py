"""What is quantized in an ONNX file of each precision, and why.

8-bit kernels are scaled so that no two neighbours add up to more than 128; see `saturation`. Signal to noise of the
logits, measured on ViT-Tiny with random weights, on a ViT trained on digits and on the same with planted outliers, each
with VNNI and as ONNX Runtime computes it on a processor without:

    int8          weights to 127  31.0 and 14.9 dB   33.5 and 7.0   35.8 and 7.8
                  7 bits          28.8 and 28.9      33.2 and 33.2  33.1 and 34.4
                  pairs to 128    29.4 and 29.9      32.6 and 32.8  34.3 and 34.4
    int8-static   weights to 127  29.5 and 14.7 dB   35.0 and 10.8  34.2 and 11.0
                  7 bits          27.9 and 28.4      31.1 and 31.2  31.1 and 31.5
                  pairs to 128    28.9 and 28.6      33.7 and 34.1  34.1 and 33.9

Clipping the largest pairs for the least squared error gains nothing. Unsigned weights, which is also what the option
`session.x64quantprecision` of ONNX Runtime makes of signed ones, are exact everywhere and take 1.6 times as long with
VNNI (20.0 ms against 12.5 on tiny, one thread).
"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.errors import ConfigError
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.recipes import LAYERS, Activations, Part, Recipe

ONNX_RECIPES: Mapping[str, Recipe] = {
    recipe.precision: recipe
    for recipe in (
        Recipe(
            "fp16",
            16,
            Activations.FLOAT,
            frozenset(Part) - {Part.NORMS, Part.SOFTMAX, Part.RESIDUALS, Part.ACTIVATION_FUNCTIONS},
            reason=(
                "Norms square their input and softmax raises e to it, which overflows 16 bits; residual sums grow from "
                "block to block. On Arm processors with half arithmetic, ONNX Runtime's error function in it is off by "
                "up to 0.005, which costs 2 dB. In float32 none of them takes a conversion more, since products lie "
                "between them."
            ),
        ),
        Recipe(
            "int8",
            8,
            Activations.DYNAMIC,
            frozenset(LAYERS),
            equalized=True,
            fitting_pairs=True,
            reason=(
                "One scale an output channel, one an activation tensor, found as it runs. Attention products stay in "
                "float: they are a tenth of the work and have no weights. A scale for each row would keep the images "
                "of a batch apart; in standard operators, which nothing fuses, it takes 1.25 times as long for 197 "
                "rows of 768 and 3072 outputs. Balancing channels by the weights alone "
                "changes nothing where there are no outliers, and keeps the answers where there are."
            ),
        ),
        Recipe(
            "int8-static",
            8,
            Activations.STATIC,
            frozenset(LAYERS),
            smoothing=0.5,
            fitting_pairs=True,
            reason=(
                "Only inputs of layers become integers, their outputs stay float, so nothing is rounded twice; signed "
                "and symmetric, which TensorRT asks for and ONNX Runtime turns around when it loads the file. There "
                "are images to calibrate with, so outliers move by what was measured: the error of the logits is 4 to "
                "17 % less than balanced by the weights alone, with images of one's own, and as large with the samples."
            ),
        ),
        Recipe(
            "int16x8",
            8,
            Activations.STATIC,
            frozenset(Part),
            activation_bits=16,
            softmax_bits=16,
            attention_bits=16,
            residual_bits=16,
            whole=True,
            equalized=True,
            reason=(
                "Every operator one of integers, for NPUs (Qualcomm's Hexagon): activations in 16 bits, nearly exact, "
                "and kernels in 8, whose rounding errors make up for each other by what the layers read. Quantizers of "
                "16 bits are standard from opset 21 on. CPUs compute in float between them, about as fast as fp32."
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
            compensated=True,
            reason=(
                "32 weights share a scale, and a zero point where they have 8 bits. Two thirds of the weights, those "
                "of the feed-forward halves, get 4 bits and the rest 8: on a ViT trained on photographs 98.4 % of the "
                "first classes stay, and 92.2 % with 4 bits everywhere, mostly for the patch embedding and the "
                "attention. Products in float32: with 8-bit activations ONNX Runtime takes twice as long for the rows "
                "of a ViT."
            ),
        ),
    )
}

WEB_RECIPES: Mapping[str, Recipe] = {name: recipe for name, recipe in ONNX_RECIPES.items() if name != "int16x8"}
"""What browsers run, and transformers.js has names for."""


def refuse_options(options: QuantizeOptions) -> None:
    """Raise `ConfigError` for what ONNX files are never quantized with."""
    if options.bias_correction:
        raise ConfigError(
            "ONNX files have no bias correction: with a scale for each channel it gained nothing on TFLite",
            fix="leave --bias-correction out, or add --format tflite alone",
        )
