"""The images that ranges of activations are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import read_chosen
from vit_deploy.core.images import channels_first, images_in, load_pixels
from vit_deploy.core.listing import listed
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.core.value_range import AS_PIXELS, problem_of
from vit_deploy.errors import DataError

COUNT = 128  # images that are taken of more
FEWEST = 8
LISTED = 5  # problems that are told in full
SAMPLES = "sample images"
SAMPLES_WARNING = (
    "calibrated on the bundled sample images, which are drawn and no photographs: ranges that your own images "
    "need are missed, which costs accuracy (some percent of top-1 with int8-static, more with int8-full); "
    "give --calibrate a folder of your own images"
)
ROUNDING_NOTE = (
    "kernels of 4 bits were rounded by what the layers read of the bundled sample images, which are drawn: "
    "by a folder of your own images they lose less, see --calibrate"
)
CORRECTION_NOTE = (
    "biases make up for what kernels lose on the bundled sample images, which are drawn: "
    "for your own give a folder of them, see --calibrate"
)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images to measure on, and where they come from.

    Args:
        images: `(n, height, width, channels)` as the model's session takes them: normalised float32, or uint8
            pixels where preprocessing is inside.
        digests: SHA-256 of each image's pixels as they were given, in the order of `images`.
        seed: the seed by which they were chosen of more.
        source: a path, or "sample images".
    """

    images: NDArray[Any]
    digests: tuple[str, ...]
    seed: int
    source: str

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"source": self.source, "images": len(self.images), "seed": self.seed, "digests": list(self.digests)}


def read_calibration(path: Path | None, artifact: Artifact, *, seed: int = 0, count: int = COUNT) -> Calibration:
    """Images of a folder (with its subfolders), of the array `images` of an `.npz`, or without a path the samples.

    Args:
        path: a folder of image files; an `.npz` with `images` `(n, height, width, channels)`, uint8 pixels or
            normalised float32; None for the bundled sample images.
        artifact: whose input they become.
        seed: the seed by which `count` are chosen where there are more.
        count: that are taken.

    Raises:
        DataError: nothing there, too few images, some that are constant, not finite or of another size.
    """
    if path is None:
        config = artifact.config
        pixels = natural_pixels(count, *config.image_size, config.channels, seed=seed)
        return _calibration(list(pixels), artifact, seed, SAMPLES)
    if path.is_dir():
        files = images_in(path)
        chosen = [files[index] for index in _enough(len(files), path, count, seed)]
        images = [load_pixels(path, artifact.preprocess, artifact.config.image_size) for path in chosen]
        return _calibration(images, artifact, seed, str(path), [str(path) for path in chosen])
    array, indices = read_chosen(path, lambda available: _enough(available, path, count, seed))
    return _calibration(list(array), artifact, seed, str(path), [f"{path}[{index}]" for index in indices])


def batches(images: NDArray[Any], batch: int | None, usual: int) -> Iterator[NDArray[Any]]:
    """All images in their order; where a file takes a fixed number at once, the last batch begins again with the first.

    Args:
        images: `(n, height, width, channels)`, of which there may be fewer than a batch has.
        batch: the number that the file takes; None where it takes any.
        usual: images a batch then.
    """
    size = batch or usual
    for start in range(0, len(images), size):
        end = min(start + size, len(images)) if batch is None else start + size
        yield images[np.arange(start, end) % len(images)]


def _enough(available: int, path: Path, count: int, seed: int) -> list[int]:
    _check_count(available, path)
    return _chosen(available, count, seed)


def _chosen(available: int, count: int, seed: int) -> list[int]:
    if available <= count:
        return list(range(available))
    return sorted(int(index) for index in np.random.default_rng(seed).permutation(available)[:count])


def _check_count(found: int, path: Path) -> None:
    if found < FEWEST:
        raise DataError(
            f"{path} holds {found} images; ranges of activations, and what is compared with fp32, need at least "
            f"{FEWEST}, and {COUNT} are better",
            fix="give more images of the kind that the model will see",
        )


def _calibration(
    images: Sequence[NDArray[Any]], artifact: Artifact, seed: int, source: str, names: Sequence[str] = ()
) -> Calibration:
    names = names or [f"{source}[{index}]" for index in range(len(images))]
    taken = as_session_takes(images, names, artifact)
    if constant := [name for name, image in zip(names, images, strict=True) if image.min() == image.max()]:
        told = listed(constant, LISTED, "; ")
        raise DataError(
            f"images that cannot be calibrated with, since all their values are the same: {told}", fix="leave them out"
        )
    digests = tuple(hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images)
    return Calibration(taken, digests, seed, source)


def as_session_takes(images: Sequence[NDArray[Any]], names: Sequence[str], artifact: Artifact) -> NDArray[Any]:
    """Images of one size, stacked: normalised float32, or uint8 pixels where preprocessing is inside.

    Args:
        images: uint8 pixels, or normalised float32, each `(height, width, channels)`.
        names: the names of the images, for errors.
        artifact: whose input they become.

    Raises:
        DataError: images of another size or dtype, or with values that are not finite, which are named; or such as
            the model's preprocessing cannot have given.
    """
    expected = (*artifact.config.image_size, artifact.config.channels)
    inside = artifact.input.preprocessing_inside
    problems = []
    for name, image in zip(names, images, strict=True):
        if image.shape != expected:
            turned = ", its channels last" if channels_first(image.shape, expected) else ""
            problems.append(f"{name} has shape {image.shape}, expected {expected}{turned}")
        elif image.dtype != np.uint8 and (inside or image.dtype != np.float32):
            kinds = "uint8 pixels" if inside else "uint8 pixels or normalised float32"
            problems.append(f"{name} is {image.dtype}, expected {kinds}")
        elif not np.isfinite(image).all():
            problems.append(f"{name} has values that are NaN or infinite")
    if len({image.dtype for image in images}) > 1:
        problems.append("some are uint8 pixels and some are normalised float32")
    if problems:
        told = listed(problems, LISTED, "; ")
        raise DataError(f"images that cannot be used: {told}", fix="leave them out, or correct them")
    if problem := problem_of(images, artifact.preprocess):
        raise DataError(f"these are not the images that the model takes: {problem}", fix=AS_PIXELS)
    stacked = np.stack(images)
    return artifact.preprocess.normalize(stacked) if stacked.dtype == np.uint8 and not inside else stacked
