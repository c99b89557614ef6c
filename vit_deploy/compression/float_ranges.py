"""Ranges of the tensors that quantization-aware training did not learn: norms, residual sums, attention.

A file of integers alone needs ranges for them too. They are measured on training images in the TFLite file of the
trained model, and chosen as calibration would choose them, so that whoever exports the model needs no images.
"""

from __future__ import annotations

from pathlib import Path

from vit_deploy.compression.data import Images
from vit_deploy.core.checkpoint import Checkpoint, Ranges
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.exporters.quantization.calibration import COUNT, Calibration
from vit_deploy.exporters.quantization.clipping import clipped
from vit_deploy.exporters.quantization.recipes import recipe_for
from vit_deploy.exporters.tflite.layers import find_layers, find_tensors, output_factor
from vit_deploy.formats.tflite.file import opened

FORMAT, PRECISION = "tflite", "int8-full"
SIDES = ("input", "output")


def measured_between(checkpoint: Checkpoint, images: Images, folder: Path) -> Ranges:
    """Ranges of what lies between the layers, and around the layers that have none in `checkpoint.ranges`.

    Args:
        checkpoint: trained.
        images: that it was trained on.
        folder: the folder to work in.

    Raises:
        VitDeployError: the TFLite file cannot be made.
    """
    from vit_deploy.exporters.tflite.ranges import observe

    (made,) = export(checkpoint, folder, plan([FORMAT], ["fp32"])[0])
    source = made.artifact
    with opened(source.model_path) as model:
        layers, named = find_layers(model, source.config), find_tensors(model, source.config)
    for name, layer in layers.items():
        own = {f"{name}.{side}": getattr(layer, side) for side in SIDES}
        named |= {side: tensor for side, tensor in own.items() if side not in checkpoint.ranges}
    step = max(len(images) // COUNT, 1)
    pixels = images.read(range(0, len(images), step)[:COUNT])
    calibration = Calibration(checkpoint.preprocess.normalize(pixels), (), 0, "training images")
    seen = observe(source.model_path, source.input, calibration, only=set(named.values()), counted=True).tensors
    recipe = recipe_for(FORMAT, PRECISION)
    found = {}
    for name, tensor in named.items():
        if tensor in seen:
            low, high = clipped(
                seen[tensor], recipe.clipping, bits=recipe.activation_bits, percentile=recipe.percentile
            )
            factor = output_factor(name, source.config)
            found[name] = (low / factor, high / factor)
    return found
