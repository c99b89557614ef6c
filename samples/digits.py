"""Handwritten digits as a classifier gets them: 1797 grey images of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Digits(NamedTuple):
    """Pixels `(images, 8, 8, 1)`, uint8, and digits `(images,)`; a quarter is held out for tests."""

    train_pixels: NDArray[np.uint8]
    train_digits: NDArray[Any]
    test_pixels: NDArray[np.uint8]
    test_digits: NDArray[Any]


def load(low: int = 0, high: int = 9) -> Digits:
    """Digits from `low` to `high`."""
    data = load_digits()
    chosen = (data.target >= low) & (data.target <= high)
    pixels = np.round(data.images[chosen, ..., None] * (255 / 16)).astype(np.uint8)  # scikit-learn's go to 16
    digits = data.target[chosen]
    train_pixels, test_pixels, train_digits, test_digits = train_test_split(
        pixels, digits, test_size=0.25, stratify=digits, random_state=0
    )
    return Digits(train_pixels, train_digits, test_pixels, test_digits)


def shifted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every image five times: as it is, and moved by one pixel to each side. A digit stays the same digit."""
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moves = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, y : y + 8, x : x + 8] for y, x in moves])
