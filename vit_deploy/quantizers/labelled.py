"""Which images with known classes is a quantized model held to?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.calibration import SUFFIXES, as_session_takes, read_arrays
from vit_deploy.errors import DataError
from vit_deploy.images import load_pixels


def read_labelled(path: Path, artifact: Artifact) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Images `(n, height, width, channels)` as a session takes them, and their classes `(n,)`.

    Args:
        path: a folder of a folder a class, named by the recorded labels or else in sorted order; or an `.npz` with
            `images` and `labels`.
        artifact: whose input they become.

    Raises:
        DataError: nothing there, no classes, or images that cannot be used.
    """
    fix = "give a folder with one folder a class, or an .npz with the arrays 'images' and 'labels'"
    if not path.is_dir():
        arrays = read_arrays(path, ("images", "labels"))
        images, labels = list(arrays["images"]), np.asarray(arrays["labels"])
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{path} has labels {labels.dtype} {labels.shape} for {len(images)} images", fix=fix)
        names = [f"{path}[{index}]" for index in range(len(images))]
    else:
        folders = sorted(each for each in path.iterdir() if each.is_dir())
        known = list(artifact.labels)
        by_name = bool(known) and all(each.name in known for each in folders)
        classes = [known.index(each.name) if by_name else index for index, each in enumerate(folders)]
        files = [
            (file, index)
            for folder, index in zip(folders, classes, strict=True)
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES
        ]
        names = [str(file) for file, _ in files]
        images = [load_pixels(file, artifact.preprocess, artifact.config.image_size) for file, _ in files]
        labels = np.array([index for _, index in files], np.int64)
    if not images:
        raise DataError(f"{path} holds no labelled images", fix=fix)
    if not artifact.config.include_top or labels.min() < 0 or labels.max() >= artifact.config.num_classes:
        raise DataError(
            f"{path} has classes from {labels.min()} to {labels.max()}, the model has "
            f"{artifact.config.num_classes if artifact.config.include_top else 0}",
            fix="give the labels that the model was trained with",
        )
    return as_session_takes(images, names, artifact), labels.astype(np.int64)
