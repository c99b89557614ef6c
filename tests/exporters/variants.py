"""Every option of the model once, each in a ViT that is square in nothing, with weights that no folding can pass by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.features import FAMILIES
from vit_deploy.core.artifact import Artifact, describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, NormalizationPosition, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import outputs_of_model, possible_outputs
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import ExportOptions
from vit_deploy.verification.noise_floor import EPSILON
from vit_deploy.verification.tolerances import NOISE_FACTOR

SMALL: dict[str, Any] = {
    "image_size": (24, 32),
    "patch_size": (8, 4),
    "channels": 3,
    "embed_dim": 12,
    "num_heads": 3,
    "num_layers": 2,
    "mlp_dim": 20,
    "num_classes": 5,
}

VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"{kind}-{position}": {"normalization_type": kind, "normalization_position": position}
        for kind in NormalizationType
        for position in NormalizationPosition
    },
    **{f"{kind}": {"ffn_type": kind} for kind in FFNType if kind is not FFNType.MLP},
    **{f"{kind}": {"activation": kind} for kind in Activation if kind is not Activation.GELU},
    "mean pooling": {"pooling": "mean"},
    "max pooling": {"pooling": "max"},
    "no head, class token": {"include_top": False, "pooling": "cls"},
    "no head, mean": {"include_top": False, "pooling": "mean"},
    "no head, max": {"include_top": False, "pooling": "max"},
    "no head, sequence": {"include_top": False},
    "grayscale": {"channels": 1},
    "five channels": {"channels": 5},
    "no qkv bias": {"qkv_bias": False},
    "one patch": {"image_size": (8, 4)},
    "one pixel a patch": {"image_size": (3, 4), "patch_size": (1, 1)},
    "one head": {"num_heads": 1},
    "one class": {"num_classes": 1},
    "equal widths": {"mlp_dim": 12, "num_classes": 12},
    **FAMILIES,
}


def trained(**changes: Any) -> Checkpoint:
    """A ViT in which no norm's scale is one and no bias zero."""
    config = ViTConfig(**(SMALL | changes))
    rng = np.random.default_rng(5)
    plain = Checkpoint.random(config, 7)
    weights = {
        name: (weight + 0.2 * rng.standard_normal(weight.shape)).astype(np.float32)
        for name, weight in plain.weights.items()
    }
    mean, std = (0.485, 0.456, 0.406, 0.3, 0.6), (0.229, 0.224, 0.225, 0.3, 0.2)
    preprocess = Preprocess(mean=mean[: config.channels], std=std[: config.channels])
    return dataclasses.replace(plain, weights=weights, preprocess=preprocess)


def pixels(checkpoint: Checkpoint, count: int) -> NDArray[np.uint8]:
    """Seeded pixels for a checkpoint."""
    shape = (count, *checkpoint.config.image_size, checkpoint.config.channels)
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def exported(exporter: Any, checkpoint: Checkpoint, directory: Path, options: ExportOptions) -> Artifact:
    """What an exporter writes, without the stage around it."""
    format = type(exporter).__name__.removesuffix("Exporter").lower()
    spec = options.input_spec(checkpoint.config)
    artifact = describe(checkpoint, directory, format=format, precision="fp32", input=spec)
    exporter.write(checkpoint, artifact, options)
    return artifact


def assert_same_function(outputs: NDArray[Any], checkpoint: Checkpoint, images: NDArray[np.float32]) -> None:
    """Within ten times what rounding alone does to this model on these images."""
    expected = forward(checkpoint, images)
    floor = np.abs(forward(checkpoint, images, np.float32) - expected).max()
    floor = max(float(floor), EPSILON * float(np.abs(expected).max()))
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=NOISE_FACTOR * floor, equal_nan=False)
    assert np.ptp(expected, axis=0).max() > 100 * floor, "images too alike to show a wrong function"


def every_name(checkpoint: Checkpoint) -> list[str]:
    """Names of all outputs but those that are another's numbers."""
    names: list[str] = []
    for output in possible_outputs(checkpoint.config):
        try:
            outputs_of_model([*names, output.name], checkpoint.config)
        except ConfigError:
            continue
        names.append(output.name)
    return names
