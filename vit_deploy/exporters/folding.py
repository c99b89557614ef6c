"""Weights of a ViT multiplied into others, so that fewer operators are left to run.

A norm ends in a scale and a bias that a product follows: (n * s + b) @ W + c = n @ (s[:, None] * W) + (b @ W + c).
In a post-norm block the norm's output also goes into the next residual sum, so there only the bias moves: into the
products and, for the sum, into the bias of the half's last projection. A layer scale follows a product:
(x @ W + c) * g = x @ (W * g) + c * g, and so does what dynamic tanh multiplies queries and keys by. Computed in
float64, rounded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.activation_functions import sigmoid
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import (
    FFNType,
    LayerScalePart,
    NormalizationPosition,
    NormalizationType,
    PoolEnd,
    Pooling,
)
from vit_deploy.core.config import HALVES, ViTConfig
from vit_deploy.core.reference import BAND_WIDTH
from vit_deploy.core.weights import Float32, weight_specs


@dataclass(frozen=True)
class Affine:
    """What the end of a norm multiplies and adds, `(features,)` each; None for nothing."""

    scale: Float32 | None
    bias: Float32 | None


MAP_OUT = "map_pool.attention.out"
ROLES = ("query", "key", "value")


def fold_layer_scales(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the same function without layer scales; the one given where it has none."""
    if not checkpoint.config.layer_scale:
        return checkpoint
    config, weights = checkpoint.config, dict(checkpoint.weights)
    scaled = (("attention.out", "ffn.down"), ("kernel", "bias"))
    if config.normalization_position is NormalizationPosition.RES_POST:
        config, weights = _with_scales(config, weights)
        scaled = (("norm1", "norm2"), ("scale", "bias"))
    for index in range(config.num_layers):
        for number, (half, layer) in enumerate(zip(HALVES, scaled[0], strict=True), 1):
            if half not in config.scaled_halves:
                continue
            gamma = weights.pop(f"block_{index}.scale{number}.gamma").astype(np.float64)
            for part in scaled[1]:
                name = f"block_{index}.{layer}.{part}"
                if name in weights:
                    weights[name] = (weights[name] * gamma).astype(np.float32)
    config = config.replace(layer_scale=False, layer_scale_part=LayerScalePart.BOTH)
    return dataclasses.replace(checkpoint, config=config, weights=weights)


def fold_norms(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the same function whose norms before projections have no bias, and where possible no scale.

    Its query, key and value have biases even where the original's have none, and a band RMS is an RMS norm.
    """
    config, weights = _with_scales(checkpoint.config.replace(qkv_bias=True), dict(checkpoint.weights))
    for index in range(config.num_layers):
        for role in ROLES:
            weights.setdefault(f"block_{index}.attention.{role}.bias", np.zeros(config.attention_dim, np.float32))
    for index in range(config.num_layers):
        if config.qk_norm:
            _fold_alphas(weights, f"block_{index}.attention")
        _fold_block(weights, config, index)
    for norm, into in _after_blocks(config):
        _fold(weights, norm, into)
    if config.projection_after_pool is not None and config.pool_end is PoolEnd.NONE:
        _move_bias(weights, MAP_OUT, [config.projection_after_pool])
    return dataclasses.replace(checkpoint, config=config, weights=weights)


def fold_preprocessing(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint that takes pixel values as they are: normalization is part of its patch embedding."""
    scale, offset = (values.astype(np.float64) for values in checkpoint.preprocess.scale_and_offset())
    kernel = checkpoint.weights["patch_embed.kernel"]
    bias = checkpoint.weights["patch_embed.bias"] + np.einsum("hwce,c->e", kernel, offset)
    weights = {
        **checkpoint.weights,
        "patch_embed.kernel": (kernel * scale[:, None]).astype(np.float32),
        "patch_embed.bias": bias.astype(np.float32),
    }
    channels = checkpoint.preprocess.channels
    as_they_are = dataclasses.replace(checkpoint.preprocess, mean=(0.0,) * channels, std=(1 / 255,) * channels)
    return dataclasses.replace(checkpoint, weights=weights, preprocess=as_they_are)


def _with_scales(config: ViTConfig, weights: dict[str, Float32]) -> tuple[ViTConfig, dict[str, Float32]]:
    kinds = (config.normalization_type, config.query_norm_type)
    if NormalizationType.BAND_RMS not in kinds:
        return config, weights
    of_all, of_queries = (NormalizationType.RMS_NORM if kind is NormalizationType.BAND_RMS else kind for kind in kinds)
    config = config.replace(normalization_type=of_all, qk_norm_type=of_queries if config.qk_norm else None)
    specs = weight_specs(config)
    for name in [name for name in weights if name.endswith(".band")]:
        scale = 1 - BAND_WIDTH + BAND_WIDTH * sigmoid(5 * weights.pop(name).astype(np.float64))
        renamed = name.removesuffix("band") + "scale"
        weights[renamed] = np.full(specs[renamed].shape, scale, np.float32)
    return config, weights


def moved_affines(checkpoint: Checkpoint, folded: Checkpoint) -> dict[str, Affine]:
    """What `fold_norms` took from norms whose results are outputs by name, which still have it.

    Args:
        checkpoint: the model before, and
        folded: after.

    Returns:
        A scale and a bias by `block_<i>`, where a block ends in a norm, by `norm` and by `map_pool`, for those that
        moved.
    """
    _, weights = _with_scales(checkpoint.config, dict(checkpoint.weights))
    norms = {"norm": "norm", "map_pool": MAP_OUT if checkpoint.config.pool_end is PoolEnd.NONE else "map_pool.norm"}
    if checkpoint.config.normalization_position is NormalizationPosition.POST:
        norms |= {f"block_{index}": f"block_{index}.norm2" for index in range(checkpoint.config.num_layers)}
    found = {}
    for output, norm in norms.items():
        changed = {
            part: weights[name]
            for part in ("scale", "bias")
            if (name := f"{norm}.{part}") in weights and not np.array_equal(weights[name], folded.weights[name])
        }
        if changed:
            found[output] = Affine(changed.get("scale"), changed.get("bias"))
    return found


def _fold_block(weights: dict[str, Float32], config: ViTConfig, index: int) -> None:
    block, following = f"block_{index}", f"block_{index + 1}"
    if config.attention_norm:
        _fold(weights, f"{block}.attention.norm", [f"{block}.attention.out"])
    if config.ffn_norm:
        _fold(weights, f"{block}.ffn.norm", [f"{block}.ffn.down"])
    up = ("up",) if config.ffn_type is FFNType.MLP else ("gate", "up")
    ffn_in = [f"{block}.ffn.{role}" for role in up]
    if config.normalization_position is NormalizationPosition.PRE:
        _fold(weights, f"{block}.norm1", [f"{block}.attention.{role}" for role in ROLES])
        _fold(weights, f"{block}.norm2", ffn_in)
    elif config.normalization_position is NormalizationPosition.PARALLEL:
        _fold(weights, f"{block}.norm1", [*(f"{block}.attention.{role}" for role in ROLES), *ffn_in])
    elif config.normalization_position is NormalizationPosition.POST:
        if index == 0 and config.pre_norm:
            into = [f"{block}.attention.{role}" for role in ROLES]
            _fold_bias(weights, "pre_norm", into, f"{block}.attention.out")
        _fold_bias(weights, f"{block}.norm1", ffn_in, f"{block}.ffn.down")
        if index + 1 < config.num_layers:
            into = [f"{following}.attention.{role}" for role in ROLES]
            _fold_bias(weights, f"{block}.norm2", into, f"{following}.attention.out")


def _after_blocks(config: ViTConfig) -> Iterator[tuple[str, list[str]]]:
    """The norms behind the blocks that nothing but projections read."""
    if config.effective_pooling is Pooling.MAP:
        after = config.projection_after_pool if config.pool_end is PoolEnd.NORM else None
        if config.pool_end is PoolEnd.FFN or after is not None:
            yield "map_pool.norm", [after or "map_pool.ffn.up"]
        keys_and_values = ["map_pool.attention.key", "map_pool.attention.value"]
        if config.last_norm and not config.norm_after_pooling:
            yield "norm", keys_and_values
        elif config.normalization_position is NormalizationPosition.POST:
            yield f"block_{config.num_layers - 1}.norm2", keys_and_values
    if config.projection_after_norm is not None:
        yield "norm", [config.projection_after_norm]


def _fold_alphas(weights: dict[str, Float32], attention: str) -> None:
    for role in ("query", "key"):
        alpha = weights.get(f"{attention}.{role}_norm.alpha")
        if alpha is not None:
            for name in (f"{attention}.{role}.kernel", f"{attention}.{role}.bias"):
                weights[name] = (weights[name] * alpha.astype(np.float64)).astype(np.float32)
            weights[f"{attention}.{role}_norm.alpha"] = np.ones_like(alpha)


def _fold(weights: dict[str, Float32], norm: str, into: Sequence[str]) -> None:
    _move_bias(weights, norm, into)
    scale = weights.get(f"{norm}.scale")
    if scale is None or (scale == 1).all():
        return
    for projection in into:
        kernel = weights[f"{projection}.kernel"]
        weights[f"{projection}.kernel"] = (_of_inputs(scale, kernel)[:, None] * kernel).astype(np.float32)
    weights[f"{norm}.scale"] = np.ones_like(scale)


def _fold_bias(weights: dict[str, Float32], norm: str, into: Sequence[str], last: str) -> None:
    moved = _move_bias(weights, norm, into)
    if moved is not None:
        weights[f"{last}.bias"] = (weights[f"{last}.bias"].astype(np.float64) + moved).astype(np.float32)


def _move_bias(weights: dict[str, Float32], norm: str, into: Sequence[str]) -> NDArray[np.float64] | None:
    bias = weights.get(f"{norm}.bias")
    if bias is None or not bias.any():
        return None
    exact = bias.astype(np.float64)
    for projection in into:
        kernel = weights[f"{projection}.kernel"]
        sums = _of_inputs(bias, kernel) @ kernel + weights[f"{projection}.bias"]
        weights[f"{projection}.bias"] = sums.astype(np.float32)
    weights[f"{norm}.bias"] = np.zeros_like(bias)
    return exact


def _of_inputs(values: Float32, kernel: Float32) -> NDArray[np.float64]:
    """What each input of a projection was multiplied by or has added; it may read several tokens side by side."""
    return np.tile(values.astype(np.float64), len(kernel) // len(values))
