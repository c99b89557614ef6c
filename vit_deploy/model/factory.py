"""A ViT from options whose names are checked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from vit_deploy.errors import ConfigError, did_you_mean
from vit_deploy.model.vit import ViT


def create_vision_transformer(
    scale: str = "base",
    *,
    input_shape: Sequence[int] = (224, 224, 3),
    num_classes: int = 1000,
    patch_size: int | Sequence[int] = 16,
    **options: Any,
) -> ViT:
    """A `ViT` with its options checked by name first; see `ViT` for all of them.

    Raises:
        ConfigError: an option that `ViT` does not have, or values no ViT can have.
    """
    known = [name for name in inspect.signature(ViT.__init__).parameters if name not in ("self", "kwargs")]
    known += ["dtype", "trainable"]
    if unknown := [name for name in options if name not in known]:
        hints = dict.fromkeys(did_you_mean(name, sorted(known)) for name in unknown)
        raise ConfigError(f"unknown ViT options: {', '.join(unknown)}", fix="; ".join(hints))
    return ViT(input_shape=input_shape, num_classes=num_classes, scale=scale, patch_size=patch_size, **options)
