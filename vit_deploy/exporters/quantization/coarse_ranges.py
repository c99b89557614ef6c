"""Layers for which one calibrated range of 8 bits is too coarse, because a few values are far larger than the rest.

What `clipping.signal_to_noise_db` gives for what layers read and write, by the ranges of TFLite's `int8-static`: 35 dB
or more for ViTs trained on digits and on photographs; 19 to 43 dB for DINOv2-small, half of it below 31, least behind
the feed-forward halves, which write massive activations.
"""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.core.artifact import Artifact

LEAST_DB = 34.0
RECORD, WIDE = "dynamic_layers", "wide_for_outliers"
SHOWN = 4  # layers that are told


def notes_on_coarse_ranges(artifact: Artifact) -> list[str]:
    """What whoever made the file should know; nothing where every range is fine enough."""
    recipe = artifact.options.get("recipe", {})
    if recipe.get(WIDE):
        return [
            f"{artifact.name}: norms and residual sums have 16 bits, for the images to calibrate with have outliers "
            f"that leave less than {LEAST_DB:g} dB of 8 bits; CPUs are slow at them"
        ]
    layers: Sequence[str] = recipe.get(RECORD, ())
    if not layers:
        return []
    some = ", ".join(layers[:SHOWN]) + (f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else "")
    return [
        f"{artifact.name}: {some} find ranges of activations as they run, as int8 does: the images to calibrate with "
        f"have outliers there, for which a fixed range leaves less than {LEAST_DB:g} dB"
    ]
