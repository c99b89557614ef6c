"""Augmentation of training images, repeated exactly by its seed.

Keras layers do it. Their random generators are set before each step from the seed and the step's number, so that a
training that goes on after a kill sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_deploy.compression import Augmentation
from vit_deploy.core.datasets import Pixels

SHIFT = 1 / 8  # of height and width: as padding with black and cropping at random would do
LARGEST = 255  # of a pixel
ALPHA = 0.2  # of mixup (Zhang et al. 2017)


class Augment:
    """Augments a batch at a time.

    Args:
        kinds: what to do, in the order of `Augmentation`; nothing where it is empty.
        seed: the seed of the training.
    """

    def __init__(self, kinds: Sequence[Augmentation], seed: int) -> None:
        self.seed = seed
        chosen = [kind for kind in Augmentation if kind in kinds]
        self.layers = [_layer(kind, seed) for kind in chosen if kind is not Augmentation.MIXUP]
        self.mix = _layer(Augmentation.MIXUP, seed) if Augmentation.MIXUP in kinds else None
        self._traced = tf.function(self._run)

    def __call__(self, pixels: Pixels, labels: Any, step: int) -> tuple[Any, Any]:
        """Pixels `(batch, height, width, channels)` as floats 0 to 255, and the targets `(batch, classes)`.

        Args:
            pixels: uint8.
            labels: targets, one-hot.
            step: number of the training's step.
        """
        images = tf.cast(pixels, tf.float32)
        if not self.layers and self.mix is None:
            return images, labels
        for number, variable in enumerate(self._generators(images, labels)):
            variable.assign([self.seed * 1009 + number, step])
        return self._traced(images, labels)  # type: ignore[no-any-return]

    def _generators(self, images: Any, labels: Any) -> list[Any]:
        layers = [*self.layers, *([self.mix] if self.mix is not None else [])]
        return [variable for layer in layers for variable in layer.variables if "seed_generator" in variable.path]

    def _run(self, images: Any, labels: Any) -> tuple[Any, Any]:
        for layer in self.layers:
            images = layer(images, training=True)
        if self.mix is not None:
            mixed: Mapping[str, Any] = self.mix({"images": images, "labels": labels}, training=True)
            images, labels = mixed["images"], mixed["labels"]
        return tf.clip_by_value(images, 0.0, float(LARGEST)), labels


def _layer(kind: Augmentation, seed: int) -> Any:
    match kind:
        case Augmentation.CROP:
            return keras.layers.RandomTranslation(
                SHIFT, SHIFT, fill_mode="constant", interpolation="nearest", seed=seed
            )
        case Augmentation.FLIP:
            return keras.layers.RandomFlip("horizontal", seed=seed)
        case Augmentation.RANDAUGMENT:
            return keras.layers.RandAugment(value_range=(0, LARGEST), seed=seed)
        case Augmentation.MIXUP:
            return keras.layers.MixUp(alpha=ALPHA, seed=seed)
