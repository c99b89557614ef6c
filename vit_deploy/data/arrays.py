"""Pixels in an `.npz` as a source of images."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.core.datasets import explained_arrays, read_header
from vit_deploy.data.items import Item, file_stamp
from vit_deploy.errors import DataError

IMAGES = "images.npy"


@dataclass(frozen=True)
class Arrays:
    """The array `images` of an `.npz`: uint8 pixels `(n, height, width, channels)` of the model's size.

    Args:
        path: of the file.
    """

    path: Path

    @cached_property
    def identity(self) -> Any:
        """The file with its size and time."""
        return ["npz", str(self.path.resolve()), file_stamp(self.path)]

    @property
    def carries_content(self) -> bool:
        """Items have their bytes with them."""
        return True

    def total(self) -> int | None:
        """How many images there are."""
        return self._shape[0]

    def items(self, start: int = 0) -> Iterator[Item]:
        """The images from one on, named by their numbers."""
        count, *sides = self._shape
        size = int(np.prod(sides))
        with explained_arrays(self.path), zipfile.ZipFile(self.path) as archive, archive.open(IMAGES) as stream:
            read_header(stream, self.path, "images")
            stream.seek(start * size, 1)
            for place in range(start, count):
                content = stream.read(size)
                if len(content) < size:
                    raise DataError(f"{self.path} ends in the middle of its images", fix="get it again")
                yield Item(f"{self.path.name}#{place}", content=content, shape=tuple(sides))

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        fix = "give an .npz with images (n, height, width, channels) of uint8 pixels 0..255"
        if not self.path.exists():
            raise DataError(f"there is nothing at {self.path}", fix=fix)
        with explained_arrays(self.path, fix), zipfile.ZipFile(self.path) as archive:
            if IMAGES not in archive.namelist():
                raise DataError(f"{self.path} has no array images", fix=fix)
            with archive.open(IMAGES) as stream:
                shape, dtype = read_header(stream, self.path, "images")
        if dtype != np.uint8 or len(shape) != 4:
            raise DataError(f"{self.path}: images are {dtype} of shape {shape}", fix=fix)
        return shape
