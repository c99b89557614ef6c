"""Checkpoints written as `.keras` files."""

from __future__ import annotations

from pathlib import Path

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.model.vit import ViT


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Build the Keras model and save it; all that travels with the checkpoint is in the model's config."""
    ViT.from_checkpoint(checkpoint).save(path)
