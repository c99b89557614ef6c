"""Training and held-out images, without a whole folder in memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import Classes, Dataset, Pixels, read_dataset
from vit_deploy.core.images import load_pixels
from vit_deploy.core.older_python import sha256_of
from vit_deploy.errors import DataError

FEWEST = 2  # images of either part
READ = 4096  # images of an `.npz` at a time
THREADS = 4  # that read image files


@dataclass(frozen=True)
class Folders:
    """The class of each folder.

    Args:
        words: for people; empty where names say it.
        record: for JSON; empty without folders.
    """

    words: str = ""
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images at a model's size.

    Args:
        labels: the model's class of each, `(n,)`.
        read: pixels `(len(indices), height, width, channels)`, uint8, of images by their indices.
        files: image files with the index of their folder; empty for an `.npz`.
        source: that they are from.
        mapping: the mapping of its folders to the model's classes.
    """

    labels: Classes
    read: Callable[[Sequence[int]], Pixels]
    source: Dataset
    files: tuple[tuple[Path, int], ...] = ()
    mapping: Folders = field(default_factory=Folders)

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, indices: NDArray[np.int64]) -> Images:
        """Those with these indices."""
        return Images(
            self.labels[indices],
            lambda chosen: self.read([int(indices[position]) for position in chosen]),
            self.source,
            tuple(self.files[int(index)] for index in indices) if self.files else (),
            self.mapping,
        )

    def dataset(self, folder: Path) -> Dataset:
        """What `accuracy.evaluate` takes: image files where they lie, those of an `.npz` in a new one in `folder`."""
        if self.files:
            return dataclasses.replace(self.source, files=self.files)
        path = folder / "images.npz"
        np.savez(path, images=self.read(range(len(self))), labels=self.labels)
        return read_dataset(path)


def open_images(path: Path, artifact: Artifact) -> Images:
    """The images of a folder of class folders, read when they are used, or of an `.npz`, read at once.

    Args:
        path: a folder or an `.npz`, as `datasets.read_dataset` takes it.
        artifact: the model, which says size, preprocessing and classes.

    Raises:
        DataError: nothing there, or images and classes that the model cannot have.
    """
    dataset = read_dataset(path)
    labels = dataset.classes(artifact)
    if dataset.files:
        mapping = Folders(dataset.describe_mapping(artifact), dataset.to_dict(artifact))
        return Images(labels, _files(dataset, artifact), dataset, dataset.files, mapping)
    pixels = np.empty((len(dataset), *dataset.image_shape), np.uint8)
    start = 0
    for batch in dataset.batches(artifact.preprocess, artifact.config.image_size, READ):
        pixels[start : start + len(batch)] = batch
        start += len(batch)
    return Images(labels, lambda indices: np.asarray(pixels[list(indices)]), dataset)


def data_digest(path: Path) -> str:
    """The same as long as images and labels are the same: of names, sizes and times of files, of an `.npz`'s bytes.

    Raises:
        DataError: as `datasets.read_dataset`.
    """
    dataset = read_dataset(path)
    if not dataset.files:
        with path.open("rb") as stream:
            return sha256_of(stream)
    entries = [(str(file), index, file.stat().st_size, file.stat().st_mtime_ns) for file, index in dataset.files]
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def _files(dataset: Dataset, artifact: Artifact) -> Callable[[Sequence[int]], Pixels]:
    def one(index: int) -> Pixels:
        pixels: Pixels = load_pixels(dataset.files[index][0], artifact.preprocess, artifact.config.image_size)
        return pixels

    def read(indices: Sequence[int]) -> Pixels:
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(one, indices)))

    return read


def split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Images to train on and images held out; each class is divided alike where it has enough.

    Raises:
        DataError: too few images to divide.
    """
    rng = np.random.default_rng(seed)
    out: list[int] = []
    for label in np.unique(images.labels):
        of_class = rng.permutation(np.flatnonzero(images.labels == label))
        out += of_class[: round(len(of_class) * fraction)].tolist()
    held = np.array(sorted(out), np.int64)
    trained = np.setdiff1d(np.arange(len(images)), held)
    if min(len(held), len(trained)) < FEWEST:
        raise DataError(
            f"{len(images)} images, of which {len(held)} would be held out, are too few to train with",
            fix="give more images, or images to hold out of their own with --held-out-data",
        )
    return images.some(trained), images.some(held)


def order(count: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Indices of the images of each step of an epoch; every image once, the last step filled up from the first."""
    indices = np.random.default_rng([seed, epoch]).permutation(count)
    filled = np.resize(indices, -(-count // batch) * batch)
    return list(filled.reshape(-1, batch))
