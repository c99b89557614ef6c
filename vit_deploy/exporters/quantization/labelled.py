"""Labelled images that a quantized model is held to, without all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import Classes, Dataset, read_dataset

CHUNK = 32  # images that are pixels at once


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images that are read again each time they are gone through.

    Args:
        dataset: the images.
        artifact: whose input they become.
        classes: the classes of the model, of each image `(n,)`.
    """

    dataset: Dataset
    artifact: Artifact
    classes: Classes

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Batches `(at most 32, height, width, channels)` as a session takes them."""
        preprocess, inside = self.artifact.preprocess, self.artifact.input.preprocessing_inside
        for pixels in self.dataset.batches(preprocess, self.artifact.config.image_size, CHUNK):
            yield pixels if inside else preprocess.normalize(pixels)


def read_labelled(path: Path, artifact: Artifact) -> Labelled:
    """The labelled images at a path.

    Args:
        path: what `datasets.read_dataset` takes.
        artifact: whose input they become.

    Raises:
        DataError: nothing there, or classes that the model does not have.
    """
    dataset = read_dataset(path)
    return Labelled(dataset, artifact, dataset.classes(artifact))
