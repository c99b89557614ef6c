"""Ranges of activations learned in training, and the places where they apply.

Quantization-aware training leaves them in the checkpoint, and exporting in the options of the fp32 artifact. They count
for inputs and outputs of layers unless images to calibrate with are given; all else is measured as ever.
"""

from __future__ import annotations

from vit_deploy.core.artifact import Artifact
from vit_deploy.exporters.quantization.calibration import (
    CORRECTION_NOTE,
    ROUNDING_NOTE,
    SAMPLES,
    SAMPLES_WARNING,
    Calibration,
)
from vit_deploy.exporters.quantization.recipes import Activations, Recipe

PIXELS = "patch_embed.input"
LEARNED_NOTE = (
    "ranges of activations are those that training left in the checkpoint; "
    "--calibrate a folder of your own images measures them again"
)


def learned_ranges(source: Artifact, calibration: Calibration | None) -> dict[str, tuple[float, float]]:
    """(low, high) by layer and side, such as `block_0.ffn.up.input`; empty where measured ranges count.

    Args:
        source: the fp32 artifact.
        calibration: images that ranges would be measured on.
    """
    if calibration is None or calibration.source != SAMPLES:
        return {}
    found = {name: (float(low), float(high)) for name, (low, high) in source.options.get("ranges", {}).items()}
    if source.input.preprocessing_inside:  # its patch embedding reads pixels, and normalised images were trained on
        found.pop(PIXELS, None)
    return found


def notes_on_ranges(source: Artifact, recipe: Recipe, calibration: Calibration | None) -> list[str]:
    """What whoever gave no images should know of where the ranges are from, or how kernels were rounded.

    Args:
        source: the fp32 artifact.
        recipe: the recipe that is followed.
        calibration: images that ranges are measured on, where the recipe needs them.
    """
    if calibration is None or calibration.source != SAMPLES:
        return []
    if recipe.activations is not Activations.STATIC and recipe.smoothing is None:
        corrected = [CORRECTION_NOTE] if recipe.bias_correction else []
        return [*([ROUNDING_NOTE] if recipe.compensated else []), *corrected]
    return [LEARNED_NOTE if learned_ranges(source, calibration) else SAMPLES_WARNING]
