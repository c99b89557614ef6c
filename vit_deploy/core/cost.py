"""Parameters of a ViT, and multiply-adds of one image."""

from __future__ import annotations

import math

from vit_deploy.core.choices import FFNType, PoolEnd, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import weight_specs


def num_parameters(config: ViTConfig) -> int:
    """Trainable numbers of a ViT; all blocks are alike, so that no more than two are ever listed."""
    one, two = (
        sum(math.prod(spec.shape) for spec in weight_specs(config.replace(num_layers=layers)).values())
        for layers in (1, 2)
    )
    return one + (config.num_layers - 1) * (two - one)


def macs(config: ViTConfig) -> int:
    """Multiply-accumulates of the matrix products for one image; norms and activations are not counted."""
    blocks = config.num_layers * block_macs(config)
    return patch_macs(config) + blocks + pool_macs(config) + pre_logits_macs(config) + head_macs(config)


def patch_macs(config: ViTConfig) -> int:
    """Multiply-adds of the patch embedding."""
    inputs = config.patch_size[0] * config.patch_size[1] * config.channels
    return config.num_patches * inputs * config.embed_dim


def block_macs(config: ViTConfig) -> int:
    """Multiply-adds of one encoder block: four projections, two attention matmuls, the feed-forward."""
    tokens, dim = config.sequence_length, config.embed_dim
    matrices = 2 if config.ffn_type is FFNType.MLP else 3
    attention = 4 * tokens * dim * config.attention_dim + 2 * tokens * tokens * config.attention_dim
    return attention + matrices * tokens * dim * config.mlp_dim


def pool_macs(config: ViTConfig) -> int:
    """Multiply-adds of attention pooling: keys and values of all tokens, two projections and a feed-forward of one.

    A pooling may have no feed-forward.
    """
    if config.effective_pooling is not Pooling.MAP:
        return 0
    tokens, dim = config.num_patches if config.pool_patches else config.sequence_length, config.pooled_dim
    hidden = config.probe_mlp_dim if config.pool_end is PoolEnd.FFN else 0
    return 2 * tokens * config.embed_dim * dim + 2 * tokens * dim + 2 * dim * dim + 2 * dim * hidden


def pre_logits_macs(config: ViTConfig) -> int:
    """Multiply-adds of the dense layer between pooling and head."""
    return config.pooled_dim * config.pre_logits_dim


def head_macs(config: ViTConfig) -> int:
    """Multiply-adds of the classification head."""
    return (config.pre_logits_dim or config.pooled_dim) * config.num_classes if config.include_top else 0
