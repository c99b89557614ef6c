"""Quantizers and their options: a proven fp32 artifact becomes smaller and faster, and is proven again."""

from __future__ import annotations

from typing import Protocol

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.quantizing import QuantizeOptions as QuantizeOptions
from vit_deploy.core.registry import Registry
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.recipes import Recipe

QUANTIZERS = Registry("format to quantize", lambda: FORMATS.plugins(lambda format: format.quantizer))


class Quantizer(Protocol):
    """Quantizes one format. The stage around it does staging, golden data, manifest and proof."""

    libraries: tuple[str, ...]
    """Distributions whose versions go into the manifest."""

    def write(self, source: Artifact, target: Artifact, recipe: Recipe, calibration: Calibration | None) -> Artifact:
        """Write the quantized model files into `target.directory`, with the essentials inside them.

        Args:
            source: the fp32 artifact, which is only read.
            target: the artifact to be; its `input` is the source's until the file has one of its own.
            recipe: what to quantize and how; `recipe.keep_float` names layers that stay as they are.
            calibration: images that the ranges of activations are measured on, where the recipe needs them.

        Returns:
            `target` with the input and output that the file really has; its `essentials()` are those in the file.

        Raises:
            ExportError: the quantizer's result is not what it has to be.
            EngineError: the quantizer failed.
            OSError: the disk is full.
        """
