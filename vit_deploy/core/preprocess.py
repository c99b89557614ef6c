"""Preprocessing: resize, crop, scale, mean and standard deviation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config_checks import is_count
from vit_deploy.core.older_python import StrEnum
from vit_deploy.errors import ConfigError


class Interpolation(StrEnum):
    """Resampling filter of the resize, by Pillow's names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


@dataclass(frozen=True)
class Preprocess:
    """The recorded preprocessing of a model.

    Args:
        mean: the mean of each channel, for pixels scaled to 0..1.
        std: the std of each channel, likewise; positive.
        resize: (height, width) that an image is resized to; one number means its shorter edge, with the
            aspect kept. None resizes straight to the model's input.
        crop: whether the middle of the resized image is then cut out, at the model's input size.
        interpolation: the filter of the resize.
        keep_aspect: with a `resize` to (height, width) before a crop: scale with the aspect kept, so that the image
            just covers both; timm's way for inputs that are not square.
        input_size: (height, width) that resize and crop make, where the model reads only the top left of it, for its
            patches do not divide it; None where they make the model's input.

    Raises:
        ConfigError: lengths that differ, or numbers that cannot be.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: int | tuple[int, int] | None = None
    crop: bool = False
    interpolation: Interpolation = Interpolation.BILINEAR
    keep_aspect: bool = False
    input_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "mean", tuple(float(value) for value in self.mean))
        put(self, "std", tuple(float(value) for value in self.std))
        problems = []
        if not self.mean or len(self.mean) != len(self.std):
            problems.append(f"{len(self.mean)} means and {len(self.std)} standard deviations; expected one a channel")
        if not all(math.isfinite(value) for value in self.mean):
            problems.append(f"mean is {self.mean}; expected finite numbers")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            problems.append(f"std is {self.std}; expected positive numbers")
        resize: object = self.resize
        sides = tuple(resize) if isinstance(resize, list | tuple) else (1, 1 if resize is None else resize)
        if len(sides) != 2 or not all(is_count(side) and side > 0 for side in sides):
            problems.append(f"resize is {resize!r}; expected a positive number of pixels or (height, width)")
        elif resize is not None:
            put(self, "resize", sides if isinstance(resize, list | tuple) else resize)
        crop: object = self.crop
        if not isinstance(crop, bool):
            problems.append(f"crop is {crop!r}; expected True or False")
        keep_aspect: object = self.keep_aspect
        if not isinstance(keep_aspect, bool) or (keep_aspect and not (crop is True and isinstance(self.resize, tuple))):
            problems.append(
                f"keep_aspect is {keep_aspect!r}; expected False, or True with a resize to two sides and a crop"
            )
        input_size: object = self.input_size
        if isinstance(input_size, list | tuple) and len(input_size) == 2 and all(map(is_count, input_size)):
            put(self, "input_size", tuple(input_size))
        elif input_size is not None:
            problems.append(f"input_size is {input_size!r}; expected (height, width) in pixels")
        if self.interpolation in list(Interpolation):
            put(self, "interpolation", Interpolation(self.interpolation))
        else:
            problems.append(f"interpolation is {self.interpolation!r}; expected one of {', '.join(Interpolation)}")
        if problems:
            raise ConfigError("preprocessing: " + "; ".join(problems), fix="correct the values named above")

    @classmethod
    def for_channels(cls, channels: int) -> Preprocess:
        """Google's convention for ViTs, for any number of channels: values scaled to -1..1."""
        return cls(mean=(0.5,) * channels, std=(0.5,) * channels)

    @property
    def channels(self) -> int:
        """Channels the means are given for."""
        return len(self.mean)

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels `(batch, height, width, channels)` 0..255 to the model's input: (pixel / 255 - mean) / std."""
        # A row of the image at once: in runs of as many values as there are channels NumPy takes four times as long.
        *before, width, channels = pixels.shape
        scale, offset = (np.tile(constants, width) for constants in self.scale_and_offset())
        rows = np.multiply(pixels.reshape(*before, width * channels), scale, dtype=np.float32)
        rows += offset
        return rows.reshape(pixels.shape)

    def scale_and_offset(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The normalization as one multiplication and one addition a channel, in pixel values 0..255."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one a field; the last two only where they are set: earlier versions know no such field."""
        values = dataclasses.asdict(self)
        if not self.keep_aspect:
            del values["keep_aspect"]
        if self.input_size is None:
            del values["input_size"]
        else:
            values["input_size"] = list(self.input_size)
        resize = list(self.resize) if isinstance(self.resize, tuple) else self.resize
        return values | {
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": resize,
            "interpolation": str(self.interpolation),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: unknown fields or impossible values.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"unknown preprocessing fields: {', '.join(unknown)}", fix=f"known are {', '.join(sorted(known))}"
            )
        return cls(**values)
