"""Nearest neighbours and a linear probe: how much of the classes features tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NEIGHBOURS = 20  # Caron et al. 2021 (DINO), section 4.1, as is the temperature
TEMPERATURE = 0.07  # of the votes: each neighbour counts exp(cosine / temperature)
CHUNK = 1024  # images whose neighbours are looked for at once
STRENGTHS = tuple(10.0**exponent for exponent in range(-6, 3))  # of the ridge, by the mean square of a feature
NORMAL_95 = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Neighbours:
    """The training images that are most like each image.

    Args:
        indices: `(images, k)`, the nearest first.
        cosines: their cosines, likewise.
    """

    indices: NDArray[np.int64]
    cosines: NDArray[np.float64]

    def classes(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The class with most votes for each image; of several, the one with the lowest number.

        Args:
            labels: the class of each training image.
        """
        votes = np.zeros((len(self.indices), int(labels.max()) + 1))
        weights = np.exp((self.cosines - 1) / TEMPERATURE)
        rows = np.arange(len(votes))[:, None]
        np.add.at(votes, (rows, labels[self.indices]), weights)
        result: NDArray[np.int64] = votes.argmax(axis=1)
        return result

    def shared(self, others: Neighbours) -> float:
        """The mean fraction of each image's neighbours that are among those which other features find."""
        common = (self.indices[:, :, None] == others.indices[:, None, :]).any(axis=-1)
        return float(common.mean())


def nearest(features: Array, training: Array | None = None, count: int = NEIGHBOURS) -> Neighbours:
    """The nearest training images by cosine; without training images, those among the others.

    Args:
        features: `(images, dim)`.
        training: `(training images, dim)`; None leaves each image out of its own neighbours.
        count: how many, or as many as there are.
    """
    own = training is None
    known = _unit(features if training is None else training)
    asking = _unit(features)
    count = min(count, len(known) - own)
    indices, cosines = [], []
    for start in range(0, len(asking), CHUNK):
        likeness = asking[start : start + CHUNK] @ known.T
        if own:
            rows = np.arange(len(likeness))
            likeness[rows, start + rows] = -np.inf
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        indices.append(order)
        cosines.append(np.take_along_axis(likeness, order, axis=1))
    return Neighbours(np.concatenate(indices), np.concatenate(cosines))


def _unit(features: Array) -> NDArray[np.float64]:
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    result: NDArray[np.float64] = values / np.maximum(lengths, np.finfo(np.float64).tiny)
    return result


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A ridge regression of features on classes, one a column.

    Args:
        mean: of each feature, and
        spread: its standard deviation, by which features are scaled.
        directions: `(dim, classes)`, of the scaled features.
        level: share of each class.
        alone: `(training images, classes)`, what each training image is told by the regression on all others.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    directions: NDArray[np.float64]
    level: NDArray[np.float64]
    alone: NDArray[np.float64]

    def classes(self, features: Array) -> NDArray[np.int64]:
        """The class of each image by its features `(images, dim)`."""
        told = (features.astype(np.float64) - self.mean) / self.spread @ self.directions + self.level
        return np.asarray(told.argmax(axis=1), np.int64)


def fit_linear_probe(features: Array, labels: NDArray[np.int64]) -> LinearProbe:
    """The ridge regression whose strength has the least leave-one-out error, which has a closed form.

    So nothing is drawn and nothing iterates.

    Args:
        features: `(images, dim)`.
        labels: the class of each image.
    """
    values = features.astype(np.float64)
    targets = np.eye(int(labels.max()) + 1)[labels]
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    scaled = (values - mean) / spread
    level = targets.mean(axis=0)
    eigenvalues, directions = np.linalg.eigh(scaled.T @ scaled)
    turned = scaled @ directions
    projected = turned.T @ (targets - level)
    best: tuple[float, Array, Array] | None = None
    for strength in STRENGTHS:
        inverse = 1 / (np.maximum(eigenvalues, 0) + strength * len(scaled))
        fitted = turned @ (inverse[:, None] * projected) + level
        leverage = (turned**2) @ inverse + 1 / len(scaled)
        apart = targets - fitted
        alone = targets - apart / np.maximum(1 - leverage, np.finfo(np.float64).eps)[:, None]
        error = float(np.mean((targets - alone) ** 2))
        if best is None or error < best[0]:
            best = (error, alone, directions @ (inverse[:, None] * projected))
    assert best is not None  # there are strengths
    return LinearProbe(mean, spread, best[2], level, best[1])


def linear_probe(
    features: Array, labels: NDArray[np.int64], training: Array | None = None, known: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The class of each image by a linear probe; without training images by the one that all others make.

    Args:
        features: `(images, dim)`.
        labels: the class of each image, which counts where there are no training images.
        training: `(training images, dim)`.
        known: the class of each of those.
    """
    if training is None:
        result: NDArray[np.int64] = fit_linear_probe(features, labels).alone.argmax(axis=1)
        return result
    return fit_linear_probe(training, labels if known is None else known).classes(features)


def interval_95(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a fraction (Wilson 1927).

    Args:
        right: how many of `count` are right.
        count: at least one.
    """
    share, square = right / count, NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = NORMAL_95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)
