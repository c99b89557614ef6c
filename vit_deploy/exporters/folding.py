"""Which weights of a ViT can be multiplied into others, so that fewer operators are left to run?

Each norm ends in a scale and a bias that a product follows: (n * s + b) @ W + c = n @ (s[:, None] * W) + (b @ W + c).
In a post-norm block the norm's output also goes into the next residual sum, so there only the bias moves: into the
products and, for the sum, into the bias of the half's last projection. Computed in float64, rounded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoint import Checkpoint
from vit_deploy.config import FFNType, NormalizationPosition, NormalizationType, ViTConfig
from vit_deploy.reference import BAND_WIDTH, sigmoid
from vit_deploy.weights import Float32


def fold_norms(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the same function whose norms before projections have no bias, and where possible no scale.

    Its query, key and value have biases even where the original's have none, and a band RMS is an RMS norm.
    """
    config, weights = _with_scales(checkpoint.config.replace(qkv_bias=True), dict(checkpoint.weights))
    for index in range(config.num_layers):
        for role in ("query", "key", "value"):
            weights.setdefault(f"block_{index}.attention.{role}.bias", np.zeros(config.embed_dim, np.float32))
    up = ("up",) if config.ffn_type is FFNType.MLP else ("gate", "up")
    attention_in = tuple(f"attention.{role}" for role in ("query", "key", "value"))
    ffn_in = tuple(f"ffn.{role}" for role in up)
    for index in range(config.num_layers):
        block, following = f"block_{index}", f"block_{index + 1}"
        if config.normalization_position is NormalizationPosition.PRE:
            _fold(weights, f"{block}.norm1", [f"{block}.{each}" for each in attention_in])
            _fold(weights, f"{block}.norm2", [f"{block}.{each}" for each in ffn_in])
        else:
            _fold_bias(weights, f"{block}.norm1", [f"{block}.{each}" for each in ffn_in], f"{block}.ffn.down")
            if index + 1 < config.num_layers:
                into = [f"{following}.{each}" for each in attention_in]
                _fold_bias(weights, f"{block}.norm2", into, f"{following}.attention.out")
    return Checkpoint(config, weights, checkpoint.preprocess, checkpoint.labels, checkpoint.provenance)


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
    return Checkpoint(checkpoint.config, weights, as_they_are, checkpoint.labels, checkpoint.provenance)


def _with_scales(config: ViTConfig, weights: dict[str, Float32]) -> tuple[ViTConfig, dict[str, Float32]]:
    if config.normalization_type is not NormalizationType.BAND_RMS:
        return config, weights
    for name in [name for name in weights if name.endswith(".band")]:
        scale = 1 - BAND_WIDTH + BAND_WIDTH * sigmoid(5 * weights.pop(name).astype(np.float64))
        weights[name.removesuffix("band") + "scale"] = np.full(config.embed_dim, scale, np.float32)
    return config.replace(normalization_type=NormalizationType.RMS_NORM), weights


def _fold(weights: dict[str, Float32], norm: str, into: Sequence[str]) -> None:
    _move_bias(weights, norm, into)
    scale = weights.get(f"{norm}.scale")
    if scale is None or (scale == 1).all():
        return
    for projection in into:
        kernel = weights[f"{projection}.kernel"]
        weights[f"{projection}.kernel"] = (scale.astype(np.float64)[:, None] * kernel).astype(np.float32)
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
        sums = exact @ weights[f"{projection}.kernel"] + weights[f"{projection}.bias"]
        weights[f"{projection}.bias"] = sums.astype(np.float32)
    weights[f"{norm}.bias"] = np.zeros_like(bias)
    return exact
