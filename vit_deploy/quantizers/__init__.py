"""How does a proven fp32 artifact become a smaller and faster one, still right?"""

from __future__ import annotations

from typing import Protocol

from vit_deploy.artifact import Artifact
from vit_deploy.calibration import Calibration
from vit_deploy.plugins import Plugin, Registry
from vit_deploy.quantizers.recipes import Recipe

QUANTIZERS = Registry(
    "format to quantize",
    {
        "onnx": Plugin("vit_deploy.quantizers.onnx:OnnxQuantizer", extra="cpu", needs=("onnx", "onnxruntime")),
        "tflite": Plugin(
            "vit_deploy.quantizers.tflite:TFLiteQuantizer", extra="cpu", needs=("ai_edge_quantizer", "ai_edge_litert")
        ),
    },
)


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
