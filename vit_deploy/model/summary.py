"""A table of the parts of a ViT with their outputs, parameters and cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vit_deploy.core import cost
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig
from vit_deploy.core.weights import weight_specs


@dataclass(frozen=True)
class Part:
    """One layer of a ViT: the shape of an image's output, trainable numbers, multiply-accumulates an image."""

    name: str
    output: tuple[int, ...]
    parameters: int
    macs: int


def parts(config: ViTConfig) -> tuple[Part, ...]:
    """The layers of a ViT in the order in which an image passes them."""
    macs = {
        "patch_embed": cost.patch_macs(config),
        "map_pool": cost.pool_macs(config),
        "pre_logits": cost.pre_logits_macs(config),
        "head": cost.head_macs(config),
    }
    macs |= {f"block_{index}": cost.block_macs(config) for index in range(config.num_layers)}
    sequence = (config.sequence_length, config.embed_dim)
    shapes = {
        "patch_embed": (config.num_patches, config.embed_dim),
        "map_pool": (config.pooled_dim,),
        "pre_logits": (config.pre_logits_dim,),
        "head": config.output_shape,
    }
    if config.norm_after_pooling:
        shapes["norm"] = (config.pooled_dim,)
    parameters: dict[str, int] = {}
    for name, spec in weight_specs(config).items():
        part = name.partition(".")[0]
        parameters[part] = parameters.get(part, 0) + math.prod(spec.shape)
    return tuple(Part(name, shapes.get(name, sequence), size, macs.get(name, 0)) for name, size in parameters.items())


def summary_lines(name: str, config: ViTConfig) -> Iterator[str]:
    """A table of the parts, with the options above and the totals below."""
    (height, width), (patch_height, patch_width) = config.image_size, config.patch_size
    yield (
        f"{name}: {_scale_name(config)}, {height}x{width}x{config.channels} in patches of "
        f"{patch_height}x{patch_width}, {config.num_heads} heads, "
        f"{config.normalization_position}-{config.normalization_type}, {config.ffn_type} of {config.mlp_dim}"
    )
    rows = parts(config)
    total = Part("total", config.output_shape, sum(row.parameters for row in rows), sum(row.macs for row in rows))
    yield f"{'part':<12} {'output':>14} {'parameters':>12} {'MACs (M)':>10}"
    for row in (*rows, total):
        shape = "x".join(map(str, row.output))
        yield f"{row.name:<12} {shape:>14} {row.parameters:>12,} {row.macs / 1e6:>10,.1f}"


def _scale_name(config: ViTConfig) -> str:
    sizes = (config.embed_dim, config.num_heads, config.num_layers, config.mlp_dim / config.embed_dim)
    return next((name for name, scale in SCALE_CONFIGS.items() if tuple(scale) == sizes), "a scale of its own")
