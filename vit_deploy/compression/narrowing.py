"""A smaller ViT of some of the blocks, heads and hidden units of a larger one, its weights rearranged exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import PoolEnd, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import RELATIVE, Float32

ROLES = ("query", "key", "value")
BY_HEAD = 3  # axes of rotary frequencies that each head has learned: (2, heads, half a head)


@dataclass(frozen=True)
class Kept:
    """What stays of a ViT, by its numbers in the larger one, each in rising order.

    Args:
        blocks: of the encoder.
        heads: of each block that stays; as many in each.
        units: hidden units of each block that stays; as many in each.
    """

    blocks: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    units: tuple[tuple[int, ...], ...]


def narrow(checkpoint: Checkpoint, kept: Kept) -> Checkpoint:
    """A checkpoint of what stays.

    It computes what the larger one would compute if all other heads, units and blocks added nothing; norms in front of
    the last projection of a half (`attention_norm`, `ffn_norm`), and those of queries and keys across heads, are then
    over what stays. Ranges of activations do not hold for it, and are left out.

    Args:
        checkpoint: the larger model.
        kept: what stays; where all blocks share relative positions, the same heads in each.

    Raises:
        ValueError: heads that share relative positions and are not the same.
    """
    config = checkpoint.config
    weights = {name: weight for name, weight in checkpoint.weights.items() if not name.startswith("block_")}
    for name in [name for name in weights if name.startswith(f"{RELATIVE}.")]:
        if len(set(kept.heads)) > 1:
            raise ValueError("blocks that share relative positions keep the same heads")
        weights[name] = _of_heads(name, weights[name], kept.heads[0])
    for index, (block, heads, units) in enumerate(zip(kept.blocks, kept.heads, kept.units, strict=True)):
        prefix = f"block_{block}."
        for name, weight in checkpoint.weights.items():
            if name.startswith(prefix):
                part = name.removeprefix(prefix)
                weights[f"block_{index}.{part}"] = _narrowed(part, weight, config, heads, units)
    return dataclasses.replace(checkpoint, config=_config(config, kept), weights=weights, ranges={})


def _config(config: ViTConfig, kept: Kept) -> ViTConfig:
    return config.replace(
        num_layers=len(kept.blocks),
        num_heads=len(kept.heads[0]),
        head_width=config.head_dim,
        mlp_dim=len(kept.units[0]),
        **probe_sizes(config),
    )


def probe_sizes(config: ViTConfig) -> dict[str, int]:
    """The sizes of an attention pooling by themselves: the probe stays whole whatever becomes of the blocks."""
    if config.effective_pooling is not Pooling.MAP:
        return {}
    units = {"pool_mlp_dim": config.probe_mlp_dim} if config.pool_end is PoolEnd.FFN else {}
    return {"pool_heads": config.probe_heads, **units}


def _narrowed(part: str, weight: Float32, config: ViTConfig, heads: Sequence[int], units: Sequence[int]) -> Float32:
    half, _, name = part.partition(".")
    if half == "attention":
        if name.startswith(f"{RELATIVE}.") or weight.ndim == BY_HEAD:
            return _of_heads(name, weight, heads)
        features = columns_of(heads, config.head_dim)
        is_norm = name.startswith(("query_norm", "key_norm"))
        if name.startswith(ROLES) and not (is_norm and (weight.ndim == 0 or not config.qk_norm_across_heads)):
            return np.ascontiguousarray(weight[..., features])
        return _read(name, weight, features)
    if half == "ffn":
        if name.startswith(("gate.", "up.")):
            return np.ascontiguousarray(weight[..., np.array(units)])
        return _read(name, weight, np.array(units))
    return weight


def _read(name: str, weight: Float32, features: NDArray[np.int64]) -> Float32:
    """The last projection of a half, which reads these features, or the norm of them."""
    is_norm = name.startswith("norm.") and weight.ndim
    return weight[features] if is_norm or name in ("out.kernel", "down.kernel") else weight


def _of_heads(name: str, weight: Float32, heads: Sequence[int]) -> Float32:
    if name.endswith(".table"):
        return np.ascontiguousarray(weight[:, list(heads)])
    return np.ascontiguousarray(weight[list(heads)] if name.endswith(".scores") else weight[:, list(heads)])


def columns_of(heads: Sequence[int], width: int) -> NDArray[np.int64]:
    """The features of heads that lie side by side."""
    return (np.array(heads)[:, None] * width + np.arange(width)).reshape(-1)
