"""How far a model's features drift when it is resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import Array, forward, pool, weights_of
from vit_deploy.core.resampling import Float32, bicubic_antialias, resample
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.verification.recording import golden_count


@dataclass(frozen=True)
class Drift:
    """How far the features of the same scenes are from each other at two sizes.

    Args:
        cosines: the cosines of each image's features before and after, the pooled token in front of the head.
        top1_agreement: fraction of images with the same first class; None without a head.
    """

    cosines: tuple[float, ...]
    top1_agreement: float | None

    @property
    def cosine_mean(self) -> float:
        """Over the images."""
        return float(np.mean(self.cosines))

    @property
    def cosine_min(self) -> float:
        """The cosine of the worst image."""
        return min(self.cosines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "cosine_mean": self.cosine_mean,
            "cosine_min": self.cosine_min,
            "top1_agreement": self.top1_agreement,
            "images": len(self.cosines),
        }


def drift(before: Checkpoint, after: Checkpoint) -> Drift:
    """Run both on the sample images, each at its own size, in float32."""
    (features, logits), (resized_features, resized_logits) = (
        _answers(checkpoint, pixels)
        for checkpoint, pixels in zip((before, after), same_scenes(before.config, after.config), strict=True)
    )
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(resized_features, axis=1)
    # Features that are all zero have no direction: as if unlike any other.
    cosines = (features * resized_features).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    agreement = None
    if before.config.include_top:
        agreement = float((logits.argmax(axis=1) == resized_logits.argmax(axis=1)).mean())
    return Drift(tuple(map(float, cosines)), agreement)


def same_scenes(one: ViTConfig, other: ViTConfig) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The sample images at both sizes: made large enough for either and shrunk to each with a bicubic filter."""
    height, width = (max(sides) for sides in zip(one.image_size, other.image_size, strict=True))
    count = min(golden_count(one), golden_count(other))
    scenes = natural_pixels(count, height, width, one.channels)
    first, second = (
        np.stack([resample(scene.astype(np.float32), config.image_size, bicubic_antialias) for scene in scenes])
        for config in (one, other)
    )
    return _as_pixels(first), _as_pixels(second)


def _as_pixels(values: Float32) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _answers(checkpoint: Checkpoint, pixels: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Pooled features `(batch, dim)` as float64, and the model's own outputs."""
    taken: dict[str, Array] = {}
    logits = forward(checkpoint, checkpoint.preprocess.normalize(pixels), np.float32, hook=taken.__setitem__)
    config, normed = checkpoint.config, taken["norm"]
    if config.norm_after_pooling:
        return normed.astype(np.float64), logits
    # A sequence of other length cannot be compared: without pooling the class token speaks for it.
    instead = Pooling.CLS if config.class_token else Pooling.MEAN
    pooled = pool(normed, weights_of("map_pool", checkpoint.weights), _pooling(config, instead))
    return pooled.astype(np.float64), logits


def _pooling(config: ViTConfig, instead: Pooling) -> ViTConfig:
    return config if config.effective_pooling else config.replace(pooling=instead)
