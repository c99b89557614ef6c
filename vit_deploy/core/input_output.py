"""What a model file itself takes and gives, behind the float32 that every runtime takes and gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.core.config_checks import is_count
from vit_deploy.errors import ConfigError


@dataclass(frozen=True)
class InputSpec:
    """What the model file itself takes; our runtimes hide it behind NHWC float32 (or uint8 pixels).

    Args:
        shape: the shape of the input in the file's own layout, None where it is dynamic.
        dtype: "float32", "uint8" (raw pixels, preprocessing inside) or "int8" (quantized).
        layout: "nhwc" or "nchw".
        scale: the scale of a quantized input: real value = scale * (stored - zero_point).
        zero_point: the zero point of a quantized input.
        preprocessing_inside: whether scaling, mean and standard deviation are part of the graph.
        name: the name of the input.

    Raises:
        ConfigError: values that no input has.
    """

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    layout: str = "nhwc"
    scale: float | None = None
    zero_point: int | None = None
    preprocessing_inside: bool = False
    name: str = "images"

    def __post_init__(self) -> None:
        sides: object = self.shape
        scale, zero_point = self.scale, self.zero_point
        checks = {
            "shape": isinstance(sides, tuple) and len(sides) == 4 and all(map(_is_side, sides)),
            "dtype": self.dtype in ("float32", "float16", "uint8", "int8"),
            "layout": self.layout in ("nhwc", "nchw"),
            "scale": scale is None or (isinstance(scale, int | float) and 0 < scale < math.inf),
            "zero_point": zero_point is None or is_count(zero_point),
            "preprocessing_inside": isinstance(self.preprocessing_inside, bool),
            "name": isinstance(self.name, str),
        }
        if wrong := [f"input {name} is {getattr(self, name)!r}" for name, right in checks.items() if not right]:
            raise ConfigError("; ".join(wrong))

    @property
    def batch(self) -> int | None:
        """The batch the file is made for, None where any will do."""
        return self.shape[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """The inverse of `to_dict`."""
        return cls(**{**values, "shape": tuple(values["shape"])})


@dataclass(frozen=True)
class OutputSpec:
    """What the numbers are that the model file gives; our runtimes hide it behind float32.

    Args:
        dtype: "float32", "float16", or "int8" and "int16" (quantized).
        scale: the scale of a quantized output: real value = scale * (stored - zero_point).
        zero_point: the zero point of a quantized output.

    Raises:
        ConfigError: values that no output has.
    """

    dtype: str = "float32"
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        scale, zero_point = self.scale, self.zero_point
        checks = {
            "dtype": self.dtype in ("float32", "float16", "int8", "int16"),
            "scale": scale is None or (isinstance(scale, int | float) and 0 < scale < math.inf),
            "zero_point": zero_point is None or is_count(zero_point),
        }
        if wrong := [f"output {name} is {getattr(self, name)!r}" for name, right in checks.items() if not right]:
            raise ConfigError("; ".join(wrong))


def _is_side(side: object) -> bool:
    return side is None or (is_count(side) and side > 0)
