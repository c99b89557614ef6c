"""Images written for a device that they are sent to, in the form that `pixels` reads there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import Dataset, Pixels
from vit_deploy.core.images import load_pixels
from vit_deploy.core.staging import explained_os_errors
from vit_deploy.errors import DataError
from vit_deploy.remote.pixels import LIST

CHUNK = 64  # images that are held at a time


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
        for batch in pixels:
            file.write(np.ascontiguousarray(batch).tobytes())
    return {"pixels": path.name, "shape": [*artifact.config.image_size, artifact.config.channels]}


def _write_list(folder: Path, count: int, names: Sequence[str], artifacts: Sequence[Mapping[str, Any]]) -> None:
    listed = {"count": count, "names": list(names), "artifacts": list(artifacts)}
    (folder / LIST).write_text(json.dumps(listed), encoding="utf-8")
