"""Quantizers and their options: a proven fp32 artifact becomes smaller and faster, and is proven again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.recipes import Clipping, Recipe

QUANTIZERS = Registry(
    "format to quantize",
    {
        "onnx": Plugin("vit_deploy.exporters.onnx.quantize:OnnxQuantizer", extra="cpu", needs=("onnx", "onnxruntime")),
        "tflite": Plugin(
            "vit_deploy.exporters.tflite.quantize:TFLiteQuantizer",
            extra="cpu",
            needs=("ai_edge_quantizer", "ai_edge_litert"),
        ),
    },
)


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
        attention_bits: the bits of softmax and of attention's matmuls in an integer-only file, 8 or 16.
        residual_bits: the bits of residual sums and norms in an integer-only file, 8 or 16.
        half_io: whether input and output of an ONNX file of 16-bit floats have 16 bits as well.
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

    calibrate: Path | None = None
    seed: int = 0
    clipping: Clipping | None = None
    percentile: float | None = None
    smoothing: float | None = None
    bias_correction: bool | None = None
    attention_bits: int | None = None
    residual_bits: int | None = None
    half_io: bool = False
    full_range: bool = False
    keep_float: tuple[str, ...] = ()
    max_drop: float | None = None
    min_cosine: float | None = None
    data: Path | None = None
    sensitivity: bool = False
    measure_speed: bool = True

    def __post_init__(self) -> None:
        problems = []
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
        for name, bits in (("attention", self.attention_bits), ("residual", self.residual_bits)):
            if bits not in (None, 8, 16):
                problems.append(f"{name} bits are {bits}; expected 8 or 16")
        if self.seed < 0:
            problems.append(f"seed is {self.seed}; expected a whole number from 0")
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")


class Quantizer(Protocol):
    """Quantizes one format. The stage around it does staging, golden data, manifest and proof."""

    libraries: tuple[str, ...]
    """Distributions whose versions go into the manifest."""

    def write(self, source: Artifact, target: Artifact, recipe: Recipe, calibration: Calibration | None) -> Artifact:
        """Write the quantized model files into `target.directory`, with the essentials inside them.

        Args:
            source: the fp32 bundle, which is only read.
            target: the bundle to be; its `input` is the source's until the file has one of its own.
            recipe: what to quantize and how; `recipe.keep_float` names layers that stay as they are.
            calibration: images that the ranges of activations are measured on, where the recipe needs them.

        Returns:
            `target` with the input and output that the file really has; its `essentials()` are those in the file.

        Raises:
            ExportError: the quantizer's result is not what it has to be.
            EngineError: the quantizer failed.
            OSError: the disk is full.
        """
