"""A check that an image file still becomes the input that it became where the model was exported.

A small PNG travels in the artifact with the pixels that the checkpoint's preprocessing makes of it. With it, a device
proves that its manifest, its Pillow and its resize filters are still those of the export: a wrong mean, crop or filter
is the commonest cause of lost accuracy, and golden inputs that are already normalised cannot show it.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.images import load_pixels
from vit_deploy.core.preprocess import Preprocess

ARRAYS = ("photo_file", "photo_pixels", "photo_ends")
SIZE = (150, 200)  # (height, width) of the file
LEVELS = 8  # pixel values are multiples of it, so that the file is small
ROUNDING = 1  # of 255: how far Pillow's resize may round another way on another machine


@dataclass(frozen=True)
class Photo:
    """An image file and what preprocessing makes of it.

    Args:
        file: bytes of a PNG.
        pixels: `(height, width, channels)` of the model's input, before normalisation.
        ends: `(2, channels)`, what the pixel values 0 and 255 are normalised to.
    """

    file: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    ends: NDArray[np.float32]


def record_photo(preprocess: Preprocess, image_size: tuple[int, int], picture: NDArray[np.uint8]) -> Photo | None:
    """A picture `(height, width, 3)` as a file, and what becomes of it; None for models of neither 1 nor 3 channels.

    Without Pillow there is none either: nothing can be said of image files where none can be read.
    """
    if preprocess.channels not in (1, 3) or importlib.util.find_spec("PIL") is None:
        return None
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture // LEVELS * LEVELS).save(buffer, "PNG")
    file = np.frombuffer(buffer.getvalue(), np.uint8)
    return Photo(file, _pixels(file, preprocess, image_size), ends(preprocess))


def photo_problems(photo: Photo, preprocess: Preprocess, image_size: tuple[int, int]) -> list[str]:
    """What the given preprocessing makes otherwise of the recorded file, in words.

    Raises:
        MissingEngineError: Pillow is not installed.
        DataError: the preprocessing leads to another size.
    """
    found: list[str] = []
    off = np.abs(_pixels(photo.file, preprocess, image_size).astype(int) - photo.pixels.astype(int)).max()
    if off > ROUNDING:
        found.append(f"the recorded image file becomes other pixels, up to {off} of 255 away (resize, crop or filter)")
    given = ends(preprocess)
    if not np.allclose(given, photo.ends, rtol=1e-6, atol=1e-7):
        found.append(
            f"pixels 0 and 255 become {given.tolist()}, recorded were {photo.ends.tolist()} (mean or deviation)"
        )
    return found


def ends(preprocess: Preprocess) -> NDArray[np.float32]:
    """What the pixel values 0 and 255 are normalised to, `(2, channels)`."""
    pixels = np.repeat(np.array([[0], [255]], np.uint8), preprocess.channels, axis=1)
    return preprocess.normalize(pixels)


def to_arrays(photo: Photo) -> dict[str, NDArray[Any]]:
    """Arrays for `golden.npz`."""
    return dict(zip(ARRAYS, (photo.file, photo.pixels, photo.ends), strict=True))


def from_arrays(arrays: Mapping[str, NDArray[Any]], like: NDArray[Any]) -> Photo:
    """The inverse of `to_arrays`.

    Args:
        arrays: the stored arrays by name.
        like: the golden images, whose shape the photo's pixels have.

    Raises:
        ValueError: arrays that do not fit.
    """
    file, pixels, limits = (arrays[name] for name in ARRAYS)
    if file.dtype != np.uint8 or file.ndim != 1 or pixels.dtype != np.uint8 or pixels.shape != like.shape[1:]:
        raise ValueError(f"the photo is {pixels.dtype} {pixels.shape}, expected uint8 {like.shape[1:]}")
    if limits.dtype != np.float32 or limits.shape != (2, pixels.shape[-1]) or not np.isfinite(limits).all():
        raise ValueError(f"the photo's normalisation is {limits.dtype} {limits.shape}")
    return Photo(file, pixels, limits)


def _pixels(file: NDArray[np.uint8], preprocess: Preprocess, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        path.write_bytes(file.tobytes())
        return load_pixels(path, preprocess, image_size)
