"""Sizes of images that one file is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.core.config import Size, ViTConfig, in_words
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess

DYNAMIC = "dynamic"  # of a command: height and width are open


@dataclass(frozen=True)
class ImageSize:
    """A size of images that a file is for, or was proven at.

    Args:
        pixels: (height, width).
        signature: what runs it in a file that has a graph for each size; empty where one graph takes them all.

    Raises:
        ConfigError: no size of an image.
    """

    pixels: Size
    signature: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", as_pair(self.pixels, "image_size"))

    def __str__(self) -> str:
        return in_words(self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a signature where there is one."""
        named = {"signature": self.signature} if self.signature else {}
        return {"image_size": list(self.pixels), **named}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageSize:
        """The inverse of `to_dict`."""
        return cls(tuple(values["image_size"]), values.get("signature", ""))


def signature_of(size: Size) -> str:
    """What the graph for a size is called in a file that has several."""
    return f"images_{in_words(size)}"


def proving_sizes(config: ViTConfig) -> tuple[Size, ...]:
    """The sizes at which a file for images of any size is proven: its own first, smaller and larger ones, and oblong.

    Args:
        config: of the model, with the size that it was trained for.
    """
    (rows, columns), (height, width) = config.grid, config.patch_size
    grids = [
        (rows, columns),
        (_scaled(rows, 1, 2), columns),
        (rows, _scaled(columns, 5, 4)),
        (_scaled(rows, 5, 4) + 1, _scaled(columns, 3, 4)),
        (_scaled(rows, 3, 4), _scaled(columns, 5, 4) + 2),
    ]
    while len(set(grids)) < len(grids):  # of very small grids
        repeated = next(index for index, grid in enumerate(grids) if grid in grids[:index])
        grids[repeated] = (grids[repeated][0] + 1, grids[repeated][1] + 2)
    return tuple((down * height, across * width) for down, across in grids)


def _scaled(count: int, times: int, by: int) -> int:
    return max(1, count * times // by)


def resized_preprocess(preprocess: Preprocess, old: Size, new: Size) -> Preprocess:
    """The recorded resize, scaled as the input is, of which the model then reads all.

    A shorter edge has only one scale. Where the sides' differ, an image that is cropped then covers the scaled edge on
    either side, which shows as much of it as before, and as timm does; without a crop the edge has the scale of the
    shorter side, which it stands for.
    """
    if new == old:
        return preprocess
    scales = [after / before for before, after in zip(preprocess.input_size or old, new, strict=True)]
    preprocess = dataclasses.replace(preprocess, input_size=None)
    match preprocess.resize:
        case None:
            return preprocess
        case (height, width):
            sides = (_pixels(height * scales[0]), _pixels(width * scales[1]))
            return dataclasses.replace(preprocess, resize=sides)
        case edge:
            if preprocess.crop and scales[0] != scales[1]:
                sides = (_pixels(edge * scales[0]), _pixels(edge * scales[1]))
                return dataclasses.replace(preprocess, resize=sides, keep_aspect=True)
            scale = scales[0] if preprocess.crop else min(new) / min(old)
            return dataclasses.replace(preprocess, resize=_pixels(edge * scale))


def _pixels(length: float) -> int:
    return max(1, round(length))


def listed(sizes: Sequence[ImageSize]) -> str:
    """Sizes for people."""
    return ", ".join(map(str, sizes))
