"""An artifact of one matrix product, with golden images, for what needs an engine but no ViT."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.runtimes.linear_onnx import expected, write_model
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.manifest import write_manifest
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.recording import write_golden

HEIGHT, WIDTH, CHANNELS, CLASSES = 6, 5, 3, 4


def write_bundle(directory: Path, batch: int | None = None) -> Path:
    """An ONNX artifact in a folder that is made for it."""
    rng = np.random.default_rng(5)
    directory.mkdir()
    weight = rng.standard_normal((HEIGHT * WIDTH * CHANNELS, CLASSES)).astype(np.float32)
    artifact = Artifact(
        directory=directory,
        format="onnx",
        precision="fp32",
        config=ViTConfig((HEIGHT, WIDTH), (3, 5), CHANNELS, 4, 1, 1, 8, CLASSES),
        preprocess=Preprocess.for_channels(CHANNELS),
        labels=(),
        input=InputSpec((batch, HEIGHT, WIDTH, CHANNELS)),
        weights_digest="",
    )
    images = rng.standard_normal((2, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
    write_golden(Golden(images, expected(images, weight), 1e-6), directory)
    return write_manifest(write_model(artifact, weight)).directory
