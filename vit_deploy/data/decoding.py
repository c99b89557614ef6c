"""Images decoded, resized and cropped for a model; what is broken is a row with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.images import decode_pixels, load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.data.items import Item, pixels_of
from vit_deploy.errors import DataError

Size = tuple[int, int]
Kind = tuple[Preprocess, Size]
"""What is done to a file, and the (height, width) of the result."""


@dataclass(frozen=True)
class Decoder:
    """How images become pixels.

    Args:
        kinds: what models ask for, each once.
        digests: whether the SHA-256 of what is read is wanted.
    """

    kinds: tuple[Kind, ...]
    digests: bool = False

    def __call__(self, items: Sequence[Item]) -> Decoded:
        """Pixels of several images, for each kind of model.

        Raises:
            MissingEngineError: Pillow is not installed.
        """
        rows = [self._row(item) for item in items]
        readable = [pixels for pixels, _, _ in rows if pixels]
        stacked = tuple(
            np.stack([pixels[kind] for pixels in readable])
            if readable
            else np.zeros((0, *size, preprocess.channels), np.uint8)
            for kind, (preprocess, size) in enumerate(self.kinds)
        )
        return Decoded(stacked, tuple(digest for _, digest, _ in rows), tuple(failure for _, _, failure in rows))

    def _row(self, item: Item) -> tuple[list[NDArray[np.uint8]], str, str]:
        digest = ""
        try:
            if not self.digests and item.is_file:
                return [load_pixels(Path(item.path), *kind) for kind in self.kinds], "", ""
            content = item.read()
            if self.digests:
                digest = hashlib.sha256(content).hexdigest()
            return [_pixels(content, item, kind) for kind in self.kinds], digest, ""
        except DataError as error:
            return [], digest, error.message


@dataclass(frozen=True)
class Decoded:
    """Several images, decoded.

    Args:
        pixels: of those that could be read, `(readable, height, width, channels)` uint8, for each kind of model.
        digests: SHA-256 of what was read of each image, in hexadecimal; empty where nothing was, or none was wanted.
        failures: why an image could not be read; empty where it could.
    """

    pixels: tuple[NDArray[np.uint8], ...]
    digests: tuple[str, ...]
    failures: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.failures)

    def parts(self, size: int) -> list[Decoded]:
        """The same in groups of `size` images, of which the last may be smaller."""
        starts = range(0, len(self), size)
        read = np.cumsum([0, *(not failure for failure in self.failures)])
        return [
            Decoded(
                tuple(kind[read[start] : read[min(start + size, len(self))]] for kind in self.pixels),
                self.digests[start : start + size],
                self.failures[start : start + size],
            )
            for start in starts
        ]


def _pixels(content: bytes, item: Item, kind: Kind) -> NDArray[np.uint8]:
    preprocess, size = kind
    if not item.shape:
        name = item.path if item.path and item.size is None else item.name
        return decode_pixels(content, name, preprocess, size)
    expected = (*size, preprocess.channels)
    if item.shape != expected:
        found, wanted = ("x".join(map(str, sides)) for sides in (item.shape, expected))
        raise DataError(f"{item.name} has {found} pixels, the model takes {wanted}", fix="resize the images first")
    pixels: NDArray[np.uint8] = pixels_of(content, item.shape)
    return pixels
