"""Rotary positions one patch, one pair and one complex number at a time, as each program writes them."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig

Array = NDArray[Any]


def pair_angles(config: ViTConfig, row: int, column: int, head: int, own: Mapping[str, Array]) -> list[float]:
    """How far one head's pairs are turned for the patch in this row and column."""
    rotary = config.rotary
    assert rotary is not None
    rows, columns = config.grid
    pairs = config.head_dim // 2
    quarter = pairs // 2
    match rotary.convention:
        case "dinov3" | "dinov3_float32":
            y, x = 2 * (row + 0.5) / rows - 1, 2 * (column + 0.5) / columns - 1
            periods = [rotary.base ** (index / quarter) for index in range(quarter)]
            if rotary.convention == "dinov3":
                periods = [ml_dtypes.bfloat16(period) for period in periods]
            turns = [*(y / float(period) for period in periods), *(x / float(period) for period in periods)]
            return [2 * math.pi * turn for turn in turns]
        case "rope_vit_mixed":
            along_x, along_y = own["frequencies"][:, head]
            return [column * along_x[pair] + row * along_y[pair] for pair in range(pairs)]
        case "pixtral":
            places = [row] * quarter + [column] * quarter
            order = [*range(0, pairs, 2), *range(1, pairs, 2)]
            return [
                place * rotary.base ** (-2 * index / config.head_dim)
                for place, index in zip(places, order, strict=True)
            ]
        case kind:
            first = 1 if kind == "pe" and config.class_token else 0
            down, across = rotary.reference_grid or config.grid
            y, x = (row + first) / rows * down, (column + first) / columns * across
            one, two = (x, y) if kind in ("pe", "rope_vit") else (y, x)
            powers = [rotary.base ** (-index / quarter) for index in range(quarter)]
            return [*(one * power for power in powers), *(two * power for power in powers)]


def token_angles(config: ViTConfig, head: int, own: Mapping[str, Array]) -> Iterator[list[float]]:
    """The angles of every token of one head, the prefix first."""
    for index in range(config.num_prefix_tokens):
        learned = index == 0 and "class_angles" in own
        yield list(own["class_angles"][0]) if learned else [0.0] * (config.head_dim // 2)
    for row in range(config.grid[0]):
        for column in range(config.grid[1]):
            yield pair_angles(config, row, column, head, own)


def loop_turned(heads: list[Array], config: ViTConfig, head: int, own: Mapping[str, Array]) -> list[Array]:
    """One head's queries or keys, a token each, turned by their positions."""
    half = config.head_dim // 2
    turned = []
    for values, angles in zip(heads, token_angles(config, head, own), strict=True):
        pairs = [
            complex(values[index], values[index + half]) * cmath.rect(1, angle) for index, angle in enumerate(angles)
        ]
        turned.append(np.array([*(pair.real for pair in pairs), *(pair.imag for pair in pairs)]))
    return turned
