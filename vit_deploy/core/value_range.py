"""Images that a recorded preprocessing cannot have given, by the range of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.preprocess import Preprocess

OVERSHOOT = 0.25  # of the possible range, by which a resize of floats may pass it at an edge
NEAR = 0.02  # of a round number
CONTRAST = 0.02  # of the possible range, that images together have at least

AS_PIXELS = "give uint8 pixels 0..255, which are normalised as the model records it"


def problem_of(images: Sequence[NDArray[Any]], preprocess: Preprocess) -> str:
    """What is wrong with the values of all images together, in words; empty where they can be right.

    Pixels from 0 to 255 become values from (0 - mean) / std to (1 - mean) / std. Floats far outside of that are of
    another preprocessing. So are those that keep to 0..1, or reach from -1 to 1 and no further, where the model's own
    black is well below: among photographs normalised for it some pixel would be. Nor are all of them of one brightness.

    Args:
        images: uint8 pixels, or finite floats that should be normalised, `(height, width, channels)` each.
        preprocess: the preprocess of the model.
    """
    least = min(float(image.min()) for image in images)
    most = max(float(image.max()) for image in images)
    if images[0].dtype == np.uint8:
        return "" if most > 1 else "they are uint8 and no pixel is above 1, as if 0..1 had been cut to whole numbers"
    mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
    black, white = float((-mean / std).min()), float(((1 - mean) / std).max())
    spare = OVERSHOOT * (white - black)
    possible = f"normalised ones are from {black:.3g} to {white:.3g} (mean {preprocess.mean}, std {preprocess.std})"
    if least < black - spare or most > white + spare:
        scaled = ": pixels 0..255 as floats" if least >= 0 and most > NEAR + 2 else ""
        return f"their values are from {least:.3g} to {most:.3g}{scaled}; {possible}"
    if black < -spare and least >= 0 and most <= 1:
        return f"their values are from {least:.3g} to {most:.3g}, as if only scaled to 0..1; {possible}"
    if black < -1 - NEAR and white > 1 + NEAR and abs(least + 1) < NEAR and abs(most - 1) < NEAR:
        return f"their values are from {least:.3g} to {most:.3g}, as if scaled to -1..1; {possible}"
    if most - least < CONTRAST * (white - black):
        return f"their values are all from {least:.3g} to {most:.3g}; {possible}"
    return ""
