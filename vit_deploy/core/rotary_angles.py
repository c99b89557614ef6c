"""Angles of rotary positions, and the tables of their cosines and sines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.rotary import Grid, Rotary, RotaryConvention
from vit_deploy.errors import ConfigError

Angles = NDArray[np.float64]


def coordinates(rotary: Rotary, grid: Grid, *, class_token: bool) -> Angles:
    """Where each patch is, row by row: `(patches, 2)`, along (height, width)."""
    sides = []
    for length, reference in zip(grid, rotary.reference_grid or grid, strict=True):
        places = np.arange(length, dtype=np.float64)
        if rotary.traits.centred:
            sides.append(2 * (places + 0.5) / length - 1)
        else:
            start = 1 if rotary.convention is RotaryConvention.PE and class_token else 0
            sides.append((places + start) / length * reference)
    rows, columns = np.meshgrid(*sides, indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], axis=-1)


def frequencies(rotary: Rotary, head_dim: int) -> tuple[Angles, Angles]:
    """Radians that a coordinate stands for along the first and the second axis, each `(head_dim / 4,)`."""
    traits, base = rotary.traits, rotary.base or rotary.traits.base
    count = head_dim // 4
    if traits.alternating:
        series = base ** (-2 * np.arange(2 * count, dtype=np.float64) / head_dim)
        return series[::2], series[1::2]
    # Programs raise a float32 to a float32, which decides what is then rounded to bfloat16.
    periods = np.float32(base) ** (np.arange(count, dtype=np.float32) / np.float32(count))
    exact = as_bfloat16(periods) if traits.rounded else base ** (np.arange(count, dtype=np.float64) / count)
    both = (2 * math.pi if traits.centred else 1.0) / exact
    return both, both


def angles(config: ViTConfig, learned: Mapping[str, NDArray[Any]] | None = None) -> Angles:
    """How far each pair of features is turned, `(tokens, head_dim / 2)`, or `(heads, …)` where heads learn it.

    Prefix tokens come first and are not turned, but for a class token whose angles are learned.

    Args:
        config: of a ViT with rotary positions.
        learned: the weights of a block's attention by their names in it, of which those for positions are taken.

    Raises:
        ConfigError: there are no rotary positions.
    """
    rotary = config.rotary
    if rotary is None:
        raise ConfigError("the model has no rotary positions", fix="ask a config whose field rotary is set")
    places = coordinates(rotary, config.grid, class_token=config.class_token)
    if rotary.traits.columns_first:
        places = places[:, ::-1]
    if rotary.learns_frequencies:
        of_patches = np.einsum("pa,ahf->hpf", places, _learned(rotary, learned))
    else:
        first, second = frequencies(rotary, config.head_dim)
        of_patches = np.concatenate([places[:, :1] * first, places[:, 1:] * second], axis=-1)
    prefix = np.zeros((*of_patches.shape[:-2], config.num_prefix_tokens, config.head_dim // 2))
    if rotary.turns_class_token:
        prefix[..., :1, :] = _learned(rotary, learned)
    return np.concatenate([prefix, of_patches], axis=-2)


def _learned(rotary: Rotary, learned: Mapping[str, NDArray[Any]] | None) -> Angles:
    return np.asarray((learned or {})[rotary.traits.weight], np.float64)


def tables(turned: Angles) -> tuple[Angles, Angles]:
    """Cosine and sine for both halves of a head, so that x is turned to x * cosine + swapped(x) * sine.

    The first half's sine is negative: its partner is taken away from it, and it is added to its partner.

    Args:
        turned: `(…, tokens, head_dim / 2)`, in radians.

    Returns:
        Two arrays `(…, tokens, head_dim)`.
    """
    cosine, sine = np.cos(turned), np.sin(turned)
    return np.concatenate([cosine, cosine], axis=-1), np.concatenate([-sine, sine], axis=-1)


def swapped(x: NDArray[Any]) -> NDArray[Any]:
    """The halves of the last axis in the other order."""
    half = x.shape[-1] // 2
    return np.concatenate([x[..., half:], x[..., :half]], axis=-1)


def halves_of_pairs(head_dim: int) -> NDArray[np.int64]:
    """Where the features of a head are taken from that stores its pairs side by side: the even ones, then the odd."""
    return np.concatenate([np.arange(0, head_dim, 2), np.arange(1, head_dim, 2)])


def as_bfloat16(values: NDArray[np.float32]) -> Angles:
    """Values rounded to bfloat16, to the nearest and among equals to the even one."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
