"""Inputs that are like no photograph, with the recorded outputs of the reference for them.

A converter's shortcut, an overflow or a clipped range shows on them first: nothing at all, the same everywhere, only
the two ends of the range, a single bright pixel, and values far beyond any image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.preprocess import Preprocess

ARRAYS = ("adversarial_names", "adversarial_images", "adversarial_outputs", "adversarial_floors")
LARGE = 1000.0  # hundreds of times what a normalised image holds
VERY_LARGE = "very large"


@dataclass(frozen=True)
class Adversarial:
    """Inputs with a name each, and the reference's answers.

    Args:
        names: the names of the inputs.
        images: `(n, height, width, channels)`, normalised float32, or uint8 pixels.
        outputs: the outputs of the float64 reference, `(n, …)`.
        floors: the noise floor of each, since they are of very different sizes.
    """

    names: tuple[str, ...]
    images: NDArray[Any]
    outputs: NDArray[np.float64]
    floors: NDArray[np.float64]

    def as_pixels(self) -> Adversarial:
        """Those that pixels can express, for a model that takes them."""
        pixels = adversarial_pixels(self.images.shape[1:])
        kept = [index for index, name in enumerate(self.names) if name in pixels]
        names = tuple(self.names[index] for index in kept)
        images = np.stack([pixels[name] for name in names])
        return Adversarial(names, images, self.outputs[kept], self.floors[kept])


def adversarial_images(shape: tuple[int, ...], preprocess: Preprocess) -> Mapping[str, NDArray[np.float32]]:
    """All of them, normalised float32 of `shape` (height, width, channels)."""
    pixels = adversarial_pixels(shape)
    images = {name: preprocess.normalize(image) for name, image in pixels.items()}
    images["zero"] = np.zeros(shape, np.float32)
    images["one"] = np.ones(shape, np.float32)
    images[VERY_LARGE] = np.where(pixels["saturated"] > 127, LARGE, -LARGE).astype(np.float32)
    return images


def adversarial_pixels(shape: tuple[int, ...]) -> Mapping[str, NDArray[np.uint8]]:
    """Those that an image file could hold, as pixels of `shape` (height, width, channels)."""
    height, width, depth = shape
    bright = np.zeros(shape, np.uint8)
    bright[height // 3, 2 * width // 3] = 255
    # Rectangles that are aligned with no patch, in another phase for each channel.
    rows, columns, channels = np.ogrid[:height, :width, :depth]
    saturated = np.where((rows // 5 + columns // 7 + channels) % 2, 255, 0).astype(np.uint8)
    return {"saturated": saturated, "bright pixel": bright}


def to_arrays(recorded: Adversarial) -> dict[str, NDArray[Any]]:
    """Arrays for `golden.npz`."""
    return dict(
        zip(ARRAYS, (np.array(recorded.names), recorded.images, recorded.outputs, recorded.floors), strict=True)
    )


def from_arrays(arrays: Mapping[str, NDArray[Any]], like: NDArray[Any], outputs: NDArray[Any]) -> Adversarial:
    """The inverse of `to_arrays`.

    Args:
        arrays: the stored arrays by name.
        like: the golden images, and
        outputs: the golden outputs, which these have to be like.

    Raises:
        ValueError: arrays that do not fit.
    """
    names, images, expected, floors = (arrays[name] for name in ARRAYS)
    count = len(names) if names.ndim == 1 else -1
    fits = (
        names.dtype.kind == "U"
        and count > 0
        and (images.dtype, images.shape) == (like.dtype, (count, *like.shape[1:]))
        and (expected.dtype, expected.shape) == (outputs.dtype, (count, *outputs.shape[1:]))
        and (floors.dtype, floors.shape) == (np.dtype(np.float64), (count,))
    )
    if not fits:
        raise ValueError(
            f"adversarial inputs are {images.dtype} {images.shape}, outputs {expected.dtype} {expected.shape}"
        )
    if not (
        np.isfinite(images).all() and np.isfinite(expected).all() and np.isfinite(floors).all() and (floors > 0).all()
    ):
        raise ValueError("adversarial inputs or outputs are NaN or infinite")
    return Adversarial(tuple(map(str, names)), images, expected, floors)
