"""A tiny ViT and images that it can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig


@pytest.fixture(scope="session")
def small() -> Checkpoint:
    config = ViTConfig(
        image_size=(8, 12), patch_size=(4, 3), channels=1, embed_dim=16, num_heads=2, num_layers=1, mlp_dim=24,
        num_classes=3,
    )  # fmt: skip
    return Checkpoint.random(config, seed=3)


@pytest.fixture(scope="session")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of three classes: which third is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 90, (60, 8, 12, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 4] += 150
    path = tmp_path_factory.mktemp("striped") / "striped.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path
