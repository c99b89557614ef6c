"""Blocks of timm whose attention and feed-forward read one norm side by side, as those of ViT-22B do.

`in_proj` is packed along its outputs: hidden units, queries, keys and values. Of the outputs there is one product each,
or one of both, whose inputs are packed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, same, transposed, zeros
from vit_deploy.checkpoints.timm.names import Renamed
from vit_deploy.core.choices import FFNType, NormalizationPosition, NormalizationType
from vit_deploy.core.config import ViTConfig

PACKED = "blocks.*.in_proj.weight"


def is_parallel(view: Renamed) -> bool:
    """Whether the blocks are of this kind."""
    return PACKED in view.kinds


def parallel_shapes(view: Renamed) -> dict[str, Any]:
    """The fields of the config that these blocks say."""
    kinds = view.kinds
    outputs, dim = view.common_shape(PACKED, 2)
    layer_norm = "blocks.*.in_norm.bias" in kinds
    fields: dict[str, Any] = {
        "normalization_position": NormalizationPosition.PARALLEL,
        "mlp_dim": outputs - 3 * dim,
        "ffn_type": FFNType.MLP,
        "normalization_type": NormalizationType.LAYER_NORM if layer_norm else NormalizationType.RMS_NORM,
        "qkv_bias": "blocks.*.in_proj.bias" in kinds,
        "qk_norm": "blocks.*.q_norm.weight" in kinds,
        "layer_scale": "blocks.*.ls.gamma" in kinds,
    }
    if fields["qk_norm"]:
        fields["num_heads"] = dim // view.common_shape("blocks.*.q_norm.weight", 1)[0]
    return fields


def parallel_origins(ours: str, theirs: str, view: Renamed, config: ViTConfig) -> dict[str, Origin]:
    """The weights of one block."""
    hidden, dim = config.mlp_dim, config.embed_dim
    parts = ("ffn.up", "attention.query", "attention.key", "attention.value")
    ends = [0, *np.cumsum([hidden, dim, dim, dim]).tolist()]
    origins: dict[str, Origin] = {}
    for index, part in enumerate(parts):
        piece = slice(ends[index], ends[index + 1])
        origins[f"{ours}.{part}.kernel"] = _piece(f"{theirs}.in_proj.weight", piece)
        origins[f"{ours}.{part}.bias"] = _piece(f"{theirs}.in_proj.bias", piece)
    if not config.qkv_bias:
        origins[f"{ours}.ffn.up.bias"] = same(f"{theirs}.mlp_bias")
    for norm, name in (("norm1", "in_norm"), ("attention.query_norm", "q_norm"), ("attention.key_norm", "k_norm")):
        origins |= {f"{ours}.{norm}.scale": same(f"{theirs}.{name}.weight")}
        origins |= {f"{ours}.{norm}.bias": same(f"{theirs}.{name}.bias")}
    origins |= {f"{ours}.scale{number}.gamma": same(f"{theirs}.ls.gamma") for number in (1, 2)}
    return origins | _outputs(ours, theirs, view, config)


def _piece(name: str, piece: slice) -> Origin:
    return Origin((name,), lambda tensor: tensor[piece].T)


def _outputs(ours: str, theirs: str, view: Renamed, config: ViTConfig) -> dict[str, Origin]:
    dim = config.embed_dim
    attention, ffn = f"{ours}.attention.out", f"{ours}.ffn.down"
    if "blocks.*.out_proj.weight" in view.kinds:
        both = (f"{theirs}.out_proj.weight",)
        bias = same(f"{theirs}.out_proj.bias") if "blocks.*.out_proj.bias" in view.kinds else zeros(dim)
        return {
            f"{attention}.kernel": Origin(both, lambda weight: weight[:, :dim].T),
            f"{ffn}.kernel": Origin(both, lambda weight: weight[:, dim:].T),
            f"{attention}.bias": bias,
            f"{ffn}.bias": zeros(dim),
        }
    origins = {}
    for layer, name in ((attention, "attn_out_proj"), (ffn, "mlp_out_proj")):
        there = f"blocks.*.{name}.bias" in view.kinds
        origins[f"{layer}.kernel"] = transposed(f"{theirs}.{name}.weight")
        origins[f"{layer}.bias"] = same(f"{theirs}.{name}.bias") if there else zeros(dim)
    return origins
