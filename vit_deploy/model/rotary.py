"""Rotary positions of queries and keys in Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.rotary import FREQUENCIES
from vit_deploy.core.rotary_angles import angles, coordinates, tables

Tables = tuple[Any, Any]
"""Cosine and sine `(tokens, head_dim)`, or `(heads, tokens, head_dim)`; see `vit_deploy.core.rotary_angles.tables`."""


def fixed_tables(config: ViTConfig, learned: Mapping[str, NDArray[Any]] | None = None) -> Tables:
    """The tables of a config as constants.

    Args:
        config: the config of the ViT.
        learned: the values of what the block learned for it, by name.
    """
    cosine, sine = tables(angles(config, learned))
    return cosine.astype(np.float32), sine.astype(np.float32)


def learned_tables(config: ViTConfig, name: str, weight: Any) -> Tables:
    """The tables that follow from a variable, so that it can be trained.

    Args:
        config: the config of the ViT.
        name: the weight's, one of those in `vit_deploy.core.rotary`.
        weight: the variable.
    """
    assert config.rotary is not None  # else nothing is learned
    if name == FREQUENCIES:
        places = coordinates(config.rotary, config.grid, class_token=config.class_token)[:, ::-1]
        along = ops.expand_dims(ops.convert_to_tensor(places.T.astype(np.float32)), (1, 3))
        of_patches = ops.sum(along * ops.expand_dims(weight, 2), axis=0)
        prefix = ops.zeros((config.num_heads, config.num_prefix_tokens, config.head_dim // 2))
        turned = ops.concatenate([prefix, of_patches], axis=1)
    else:
        others = angles(config, {name: np.zeros((1, config.head_dim // 2))})[1:]
        turned = ops.concatenate([weight, ops.convert_to_tensor(others.astype(np.float32))], axis=0)
    cosine, sine = ops.cos(turned), ops.sin(turned)
    return ops.concatenate([cosine, cosine], axis=-1), ops.concatenate([-sine, sine], axis=-1)


class Layout(NamedTuple):
    """Where the axes of heads are, and how axes (heads, tokens, features) of tables are put in their order."""

    tokens: int
    features: int
    order: tuple[int, int, int]


HEADS_FIRST = Layout(tokens=2, features=3, order=(0, 1, 2))  # (batch, heads, tokens, head_dim)
TRANSPOSED = Layout(tokens=3, features=2, order=(0, 2, 1))  # (batch, heads, head_dim, tokens)
TOKENS_FIRST = Layout(tokens=1, features=3, order=(1, 0, 2))  # (batch, tokens, heads, head_dim)


def turned(x: Any, tables: Tables, layout: Layout, *, scale: float = 1.0) -> Any:
    """Queries or keys turned by the angles of their positions.

    Args:
        x: the heads; only the first tokens where there are fewer of them than in the tables.
        tables: cosine and sine; of one token where all are turned as it is.
        layout: the order of the axes of `x`.
        scale: a factor for the result, which constants take up without cost.
    """
    axis = layout.features
    cosine, sine = (_fitting(table, x, layout, scale) for table in tables)
    half = x.shape[axis] // 2
    swapped = ops.concatenate([_part(x, axis, half, half), _part(x, axis, 0, half)], axis=axis)
    return x * cosine + swapped * sine


def _fitting(table: Any, x: Any, layout: Layout, scale: float) -> Any:
    table = table[..., : x.shape[layout.tokens], :]
    if isinstance(table, np.ndarray):
        table = table if table.ndim == 3 else table[None]
        fitting = np.ascontiguousarray(table.transpose(layout.order)) * np.float32(scale)
        # Where heads share a table and the axis before it is theirs, it broadcasts without one.
        fitting = fitting[0] if len(fitting) == 1 and layout is not TOKENS_FIRST else fitting
        return ops.cast(ops.convert_to_tensor(fitting), x.dtype)
    table = table if len(table.shape) == 3 else ops.expand_dims(table, 0)
    return ops.cast(ops.transpose(table, layout.order) * scale, x.dtype)


def _part(x: Any, axis: int, start: int, count: int) -> Any:
    batch, *sides = x.shape
    if batch is None:
        return x[..., start : start + count] if axis == 3 else x[:, :, start : start + count]
    # Traced for a fixed batch this is TFLite's SLICE, which XNNPACK takes; it leaves STRIDED_SLICE out.
    starts, sizes = [0, 0, 0, 0], [batch, *sides]
    starts[axis], sizes[axis] = start, count
    return ops.slice(x, starts, sizes)
