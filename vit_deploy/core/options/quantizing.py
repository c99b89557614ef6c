"""Options of everything that quantizes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.errors import ConfigError


class Clipping(StrEnum):
    """How the range of an activation follows from the values that calibration saw."""

    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    MSE = "mse"


@panel("Quantizing")
@dataclass(frozen=True)
class QuantizeOptions:
    """What is asked for besides the precision; None leaves the recipe as it is.

    Args:
        calibrate: folder of images or `.npz`; None for the bundled sample images.
        seed: the seed by which calibration images are chosen.
        clipping: the clipping of calibrated ranges.
        percentile: for `Clipping.PERCENTILE`.
        smoothing: alpha of the migration of outliers, 0 to 1; 0 leaves it out.
        bias_correction: whether biases make up for the mean error of their layers.
        softmax_bits: the bits of softmax in a file with integers for input and output, 8 or 16.
        attention_bits: the bits of attention's matmuls in a file of integers alone, 8 or 16.
        residual_bits: the bits of residual sums and norms in a file with integers for input and output, 8 or 16.
        half_io: whether input and output of an ONNX file of 16-bit floats have 16 bits as well.
        all_integers: whether every operator of TFLite's int16x8 is one of integers, for accelerators.
        full_range: whether 8-bit weights of ONNX files reach 127 everywhere, for processors with VNNI or of ARM alone.
        keep_float: names of layers that stay in float32, and of an attention's products; see `recipes.quantizable`.
        max_drop: keep as few layers in float32 as lose at most this many points of top-1 on `data`.
        min_cosine: keep as few layers in float32 as bring every image's cosine with fp32 to this.
        data: labelled images: a folder of a folder a class, or an `.npz` with `images` and `labels`.
        sensitivity: whether to measure what each layer alone costs.
        measure_speed: whether to time the results beside fp32.

    Raises:
        ConfigError: values that cannot be.
    """

    calibrate: Annotated[
        Path | None,
        Option(
            metavar="DIR|FILE.npz",
            help="Images to measure the ranges of activations on, and to round 4-bit kernels by.",
            show_default="bundled sample images",
        ),
    ] = None
    seed: Annotated[int, Option(min=0, help="By which images are chosen.")] = 0
    clipping: Annotated[
        Clipping | None,
        Option(
            metavar="NAME",
            help="min-max, percentile or mse: how a calibrated range follows from what was seen.",
            show_default="the recipe's",
        ),
    ] = None
    percentile: Annotated[float | None, Option(help="Of values inside the range, with --clipping percentile.")] = None
    smoothing: Annotated[
        float | None,
        Option(
            metavar="ALPHA",
            help="Migrate outliers from activations into weights, 0 (not) to 1.",
            show_default="the recipe's",
        ),
    ] = None
    bias_correction: Annotated[
        bool | None,
        Option(help="Let biases make up for the mean error of their layers.", show_default="the recipe's"),
    ] = None
    softmax_bits: Annotated[
        int | None, Option(metavar="8|16", help="Of softmax in int8-full.", show_default="the recipe's, 16")
    ] = None
    attention_bits: Annotated[
        int | None,
        Option(
            metavar="8|16",
            help="Of the products of attention in int8-full, and with --all-integers.",
            show_default="8, or 16 where images show outliers; with --all-integers 16",
        ),
    ] = None
    residual_bits: Annotated[
        int | None,
        Option(
            metavar="8|16",
            help="Of residual sums and norms in int8-full.",
            show_default="8, or 16 where images show outliers",
        ),
    ] = None
    half_io: Annotated[bool, Option(help="16-bit floats in and out of ONNX files in fp16 as well.")] = False
    all_integers: Annotated[
        bool,
        Option(help="Norms, softmax, matmuls and activations of TFLite's int16x8 in integers too, for accelerators."),
    ] = False
    full_range: Annotated[
        bool,
        Option(help="Let 8-bit weights of ONNX files reach 127 everywhere, which x86 without VNNI gets wrong."),
    ] = False
    keep_float: Annotated[
        tuple[str, ...],
        Option(
            metavar="LAYER",
            help="What stays in float, as block_3.ffn.down; repeat. In int8-static block_3.attention has .products.",
            commas=True,
        ),
    ] = ()
    max_drop: Annotated[
        float | None,
        Option(metavar="POINTS", help="Keep the fewest layers in float that lose no more of top-1 on --data."),
    ] = None
    min_cosine: Annotated[
        float | None, Option(help="Keep the fewest layers in float that bring every cosine with fp32 to this.")
    ] = None
    data: Annotated[
        Path | None,
        Option(metavar="DIR|FILE.npz", help="Labelled images: a folder a class, or images and labels."),
    ] = None
    sensitivity: Annotated[bool, Option(help="Measure and show what quantizing each layer alone costs.")] = False
    measure_speed: Annotated[
        bool, Option(names=("--speed/--no-speed",), help="Time what is made in turns with fp32.")
    ] = True

    def __post_init__(self) -> None:
        problems = []
        object.__setattr__(self, "keep_float", tuple(self.keep_float))
        if self.clipping is not None and self.clipping not in list(Clipping):
            problems.append(f"clipping is {str(self.clipping)!r}; expected one of {', '.join(Clipping)}")
        elif self.clipping is not None:
            object.__setattr__(self, "clipping", Clipping(self.clipping))
        if self.percentile is not None and not 50 < self.percentile <= 100:
            problems.append(f"percentile is {self.percentile}; expected more than 50 and at most 100")
        if self.smoothing is not None and not 0 <= self.smoothing <= 1:
            problems.append(f"smoothing is {self.smoothing}; expected 0 to 1")
        if self.max_drop is not None and self.min_cosine is not None:
            problems.append("both --max-drop and --min-cosine are given; expected one of them")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            problems.append(f"max drop is {self.max_drop}; expected points of top-1, 0 to 100")
        if self.max_drop is not None and self.data is None:
            problems.append("--max-drop needs labelled images; expected --data DIR or FILE.npz")
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            problems.append(f"min cosine is {self.min_cosine}; expected at most 1")
        asked = {"softmax": self.softmax_bits, "attention": self.attention_bits, "residual": self.residual_bits}
        for name, bits in asked.items():
            if bits not in (None, 8, 16):
                problems.append(f"{name} bits are {bits}; expected 8 or 16")
        if self.seed < 0:
            problems.append(f"seed is {self.seed}; expected a whole number from 0")
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")
