"""Fixtures shared by all tests: a tiny ViT that is square in nothing."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_deploy.checkpoint import Checkpoint
from vit_deploy.config import ViTConfig


@pytest.fixture
def config() -> ViTConfig:
    return ViTConfig(
        image_size=(24, 32),
        patch_size=(8, 4),
        channels=3,
        embed_dim=12,
        num_heads=3,
        num_layers=2,
        mlp_dim=20,
        num_classes=5,
    )


@pytest.fixture
def checkpoint(config: ViTConfig) -> Checkpoint:
    return Checkpoint.random(config, seed=7)


@pytest.fixture
def images(config: ViTConfig) -> NDArray[np.float32]:
    shape = (3, *config.image_size, config.channels)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)
