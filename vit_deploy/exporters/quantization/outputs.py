"""Outputs of an artifact on images, and how close they are to another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.exporters.proving import proving_provider
from vit_deploy.runtimes import RuntimeOptions, open_session

CHUNK = 8  # images that go through a model of open batch at once


def answers(artifact: Artifact, images: NDArray[Any] | Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    """Outputs `(n, …)` of the engine that proves the artifact's format.

    Args:
        artifact: an artifact.
        images: `(n, height, width, channels)`, or batches of them.

    Raises:
        DataError: images that cannot be read.
        EngineError: the engine refuses the file.
    """
    batches = _chunks(images) if isinstance(images, np.ndarray) else images
    runtime, options = FORMATS[artifact.format].proving_runtime, RuntimeOptions(provider=proving_provider(artifact))
    with open_session(artifact, runtime, options) as session:
        return np.concatenate([session.infer(batch) for batch in batches])


def _chunks(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (images[at : at + CHUNK] for at in range(0, len(images), CHUNK))


def cosines(outputs: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each image's outputs with the others; zero where one of them has no direction."""
    one, other = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (outputs, others))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    result: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return result
