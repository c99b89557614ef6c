"""Layers for which one calibrated range of 8 bits is too coarse, because a few values are far larger than the rest.

What `clipping.signal_to_noise_db` gives for what layers read and write, by the ranges of TFLite's `int8-static`: 35 dB
or more for ViTs trained on digits and on photographs; 19 to 43 dB for DINOv2-small, half of it below 31, least behind
the feed-forward halves, which write massive activations. Of the shares by which attention averages,
24 to 35 dB are left in the small ViTs and 9 to 16 in DINOv2-small: a few tokens draw most of its attention, and those
of the other 250 are smaller than a step. That is most of what its attention loses in 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.listing import listed
from vit_deploy.exporters.quantization.recipes import products_of

LEAST_DB = 34.0
LEAST_SHARES_DB = 20.0  # of the shares that attention averages values by
RECORD, WIDE, FLOAT = "dynamic_layers", "wide_for_outliers", "float_products"
SHOWN = 4  # layers that are told


def notes_on_coarse_ranges(artifact: Artifact) -> list[str]:
    """What whoever made the file should know; nothing where every range is fine enough."""
    recipe = artifact.options.get("recipe", {})
    layers: Sequence[str] = recipe.get(RECORD, ())
    products: Sequence[str] = recipe.get(FLOAT, ())
    wide: Sequence[str] = [name for name in recipe.get("wide_layers", ()) if name.endswith(products_of(""))]
    sides = f"{LEAST_SHARES_DB:g} dB of the shares of attention, or {LEAST_DB:g} dB of queries, keys or values"
    notes = []
    if recipe.get(WIDE):
        notes.append(
            "norms, residual sums and the layers that write into the sums have 16 bits, for the images to calibrate "
            f"with have outliers that leave less than {LEAST_DB:g} dB of 8 bits; CPUs are slow at them"
        )
    if wide:
        notes.append(
            f"{listed(wide, SHOWN)} have 16 bits, since 8 leave less than {sides}; CPUs are slow at them, and "
            "Ethos-U55 and U65 leave them to the CPU, unless --attention-bits 8 is given"
        )
    if layers:
        notes.append(
            f"{listed(layers, SHOWN)} find ranges of activations as they run, as int8 does: the images to calibrate "
            f"with have outliers there, for which a fixed range leaves less than {LEAST_DB:g} dB"
        )
    if products:
        told = listed(products, SHOWN)
        notes.append(f"{told} are computed in float, since 8 bits of a fixed range leave less than {sides}")
    return [f"{artifact.name}: {note}" for note in notes]
