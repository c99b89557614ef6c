"""Which images with known classes is a quantized model held to?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.datasets import read_dataset

CHUNK = 64  # images that are pixels at once


def read_labelled(path: Path, artifact: Artifact) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Images `(n, height, width, channels)` as a session takes them, and their classes `(n,)`.

    Args:
        path: what `datasets.read_dataset` takes.
        artifact: whose input they become.

    Raises:
        DataError: nothing there, classes that the model does not have, or images that cannot be used.
    """
    dataset = read_dataset(path)
    labels = dataset.classes(artifact)
    batches = dataset.batches(artifact.preprocess, artifact.config.image_size, CHUNK)
    inside = artifact.input.preprocessing_inside
    return np.concatenate([each if inside else artifact.preprocess.normalize(each) for each in batches]), labels
