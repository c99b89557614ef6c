"""Images as they travel to a device: pixels of a model's size, so that no image file has to be read there.

A folder holds the bytes `(images, height, width, channels)` for each size and preprocessing that the artifacts have,
the class of each image for each artifact, and a list of both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import Classes, Dataset, Pixels
from vit_deploy.core.images import load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.staging import explained_os_errors
from vit_deploy.errors import DataError

LIST = "list.json"
CHUNK = 64  # images that are held at a time


@dataclass(frozen=True)
class Sent:
    """Images that have arrived.

    Args:
        folder: where they are.
        count: how many.
        names: of the classes' folders; empty where labels are numbers.
        artifacts: for each artifact the file of the pixels, the shape of an image, and the file of the classes if there
            are any.
    """

    folder: Path
    count: int
    names: tuple[str, ...]
    artifacts: tuple[Mapping[str, Any], ...]

    def pixels(self, index: int) -> Pixels:
        """Pixels `(images, height, width, channels)` for the artifact at a place of the listing; not held in memory."""
        entry = self.artifacts[index]
        shape = (self.count, *entry["shape"])
        found: Pixels = np.memmap(self.folder / entry["pixels"], np.uint8, mode="r", shape=shape)
        return found


class SentDataset:
    """Labelled images that have arrived, in the form of `core.datasets.Dataset`.

    Args:
        sent: the images.
        artifacts: that they were sent for, in the same order.
    """

    def __init__(self, sent: Sent, artifacts: Sequence[Artifact]) -> None:
        self.names = sent.names
        self._sent = sent
        self._place = {artifact.directory: index for index, artifact in enumerate(artifacts)}
        kinds = [(artifact.preprocess, artifact.config.image_size) for artifact in artifacts]
        self._of_kind = {kind: index for index, kind in reversed(list(enumerate(kinds)))}

    def __len__(self) -> int:
        return self._sent.count

    def classes(self, artifact: Artifact) -> Classes:
        """The model's class of each image `(n,)`."""
        file = self._sent.artifacts[self._place[artifact.directory]]["classes"]
        found: Classes = np.load(self._sent.folder / file, allow_pickle=False)
        return found

    def batches(self, preprocess: Preprocess, image_size: tuple[int, int], size: int) -> Iterator[Pixels]:
        """All images in order, at most `size` at a time, as pixels of a model's size."""
        pixels = self._sent.pixels(self._of_kind[preprocess, image_size])
        for start in range(0, len(pixels), size):
            yield np.asarray(pixels[start : start + size])


def read_sent(folder: Path) -> Sent:
    """The images in a folder that `write_files` or `write_dataset` has written."""
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    return Sent(folder, listed["count"], tuple(listed["names"]), tuple(listed["artifacts"]))


def write_files(folder: Path, artifact: Artifact, files: Sequence[Path]) -> dict[Path, str]:
    """Write image files for one artifact; gives why each that cannot be read cannot.

    Args:
        folder: to write to.
        artifact: whose preprocessing and size count.
        files: of images.

    Raises:
        MissingEngineError: Pillow is not installed.
        OutputError: the disk is full.
    """
    failures: dict[Path, str] = {}

    def pixels() -> Iterator[Pixels]:
        for file in files:
            try:
                yield load_pixels(file, artifact.preprocess, artifact.config.image_size)
            except DataError as error:
                failures[file] = error.message

    entry = _write_pixels(folder / "pixels-0", artifact, pixels())
    _write_list(folder, sum(file not in failures for file in files), (), [entry])
    return failures


def write_dataset(folder: Path, artifacts: Sequence[Artifact], dataset: Dataset) -> None:
    """Write labelled images for artifacts, once for those of one size and preprocessing.

    Args:
        folder: to write to.
        artifacts: that are going to be run.
        dataset: the images.

    Raises:
        DataError: classes or sizes that do not fit an artifact, or an image that cannot be read.
        MissingEngineError: Pillow is not installed.
    """
    listed: list[dict[str, Any]] = []
    done: dict[Any, dict[str, Any]] = {}
    for index, artifact in enumerate(artifacts):
        np.save(folder / f"classes-{index}.npy", dataset.classes(artifact))
        kind = (artifact.preprocess, artifact.config.image_size)
        if kind not in done:
            done[kind] = _write_pixels(folder / f"pixels-{index}", artifact, dataset.batches(*kind, CHUNK))
        listed.append({**done[kind], "classes": f"classes-{index}.npy"})
    _write_list(folder, len(dataset), dataset.names, listed)


def _write_pixels(path: Path, artifact: Artifact, pixels: Iterable[Pixels]) -> dict[str, Any]:
    """Write images one after the other; gives their entry in the list."""
    with explained_os_errors(path), path.open("wb") as file:
        for each in pixels:
            file.write(np.ascontiguousarray(each).tobytes())
    return {"pixels": path.name, "shape": [*artifact.config.image_size, artifact.config.channels]}


def _write_list(folder: Path, count: int, names: Sequence[str], artifacts: Sequence[Mapping[str, Any]]) -> None:
    listed = {"count": count, "names": list(names), "artifacts": list(artifacts)}
    (folder / LIST).write_text(json.dumps(listed), encoding="utf-8")
