"""Images as they travel to a device: pixels of a model's size, so that no image file has to be read there.

A folder holds the bytes `(images, height, width, channels)` for each size and preprocessing that the artifacts have,
the class of each image for each artifact, and a list of both. It is read here; `sending` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.preprocess import Preprocess

if TYPE_CHECKING:  # which are read where the images come from
    from vit_deploy.core.datasets import Classes, Pixels

LIST = "list.json"


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
        self.broken: dict[int, str] = {}  # they were read where they come from
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
    """The images in a folder that `sending.write_files` or `sending.write_dataset` has written."""
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    return Sent(folder, listed["count"], tuple(listed["names"]), tuple(listed["artifacts"]))
