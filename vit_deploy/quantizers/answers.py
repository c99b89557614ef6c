"""What does an artifact answer to images, and how like is that to what another answers?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT, RuntimeOptions

CHUNK = 8  # images that go through a model of open batch at once


def answers(artifact: Artifact, images: NDArray[Any]) -> NDArray[np.float32]:
    """Outputs `(n, …)` of the engine that proves the artifact's format."""
    engine = RUNTIMES.load(RUNTIMES_OF_FORMAT[artifact.format][0])()
    with engine.open(artifact, RuntimeOptions()) as session:
        return np.concatenate([session.infer(images[at : at + CHUNK]) for at in range(0, len(images), CHUNK)])


def cosines(outputs: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each image's outputs with the others; zero where one of them has no direction."""
    one, other = (each.reshape(len(each), -1).astype(np.float64) for each in (outputs, others))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    result: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return result
