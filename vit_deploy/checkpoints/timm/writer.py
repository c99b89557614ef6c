"""A ViT as timm saves its VisionTransformer for a hub: weights under timm's names, and the config.json beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.checkpoints.containers.safetensors_file import write_safetensors
from vit_deploy.checkpoints.timm.config import ACTIVATIONS, CONFIG, POOLINGS, preprocess_of
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import (
    FFNType,
    LayerScalePart,
    NormalizationPosition,
    NormalizationType,
    PoolEnd,
    Pooling,
    RelativePositions,
)
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.weights import Float32
from vit_deploy.errors import OutputError

WEIGHTS = "model.safetensors"
BY_EPSILON: Mapping[float, str] = {1e-6: "vit_base_patch16_224", 1e-5: "vit_base_patch16_clip_224"}
"""An architecture whose norms have each epsilon that timm's have; `model_args` say all else."""
INIT_VALUES = 1e-5  # of layer scales; whatever it is, they are there
HALF = 0.5  # by which a number of hidden units or of pixels stays the whole part of a product with a ratio

State = dict[str, Float32]


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the weights and the config.json into a folder.

    Raises:
        OutputError: timm's VisionTransformer does not compute this function, or says such preprocessing in no way.
    """
    config = checkpoint.config
    data = _data(checkpoint.preprocess, config)
    problems = [*unlike(config), *([] if data else ["preprocessing that timm's configs cannot say"])]
    if problems:
        raise OutputError(
            f"timm's VisionTransformer is not such a model: it has {'; '.join(problems)}",
            fix="write it as .safetensors or .keras, which hold any model",
        )
    classes = config.num_classes if config.include_top else 0
    document: dict[str, Any] = {
        "architecture": BY_EPSILON[config.epsilon],
        "num_classes": classes,
        "num_features": config.embed_dim,
        "global_pool": _pool(config),
        "model_args": arguments_of(config),
        "pretrained_cfg": {"num_classes": classes, **data},
    }
    if checkpoint.labels:
        document["label_names"] = list(checkpoint.labels)
    write_safetensors(folder / WEIGHTS, state_of(checkpoint), {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def unlike(config: ViTConfig) -> Iterator[str]:
    """What a function has that timm's VisionTransformer has not, in words."""
    wanted: Mapping[str, tuple[bool, str]] = {
        "epsilon": (
            config.epsilon in BY_EPSILON,
            f"norms of epsilon {config.epsilon:g}, not timm's 1e-06 or 1e-05",
        ),
        "normalization_type": (
            config.normalization_type in (NormalizationType.LAYER_NORM, NormalizationType.RMS_NORM),
            f"the norm {config.normalization_type}",
        ),
        "normalization_position": (
            config.normalization_position is NormalizationPosition.PRE,
            f"norms at the position {config.normalization_position}",
        ),
        "ffn_type": (config.ffn_type is FFNType.MLP, f"the feed-forward {config.ffn_type}"),
        "activation": (config.activation in ACTIVATIONS.values(), f"the activation {config.activation}"),
        "distillation_token": (not config.distillation_token, "a distillation token"),
        "layer_scale_part": (
            config.layer_scale_part is LayerScalePart.BOTH,
            f"a layer scale of its {config.layer_scale_part} alone",
        ),
        "qk_norm_across_heads": (not config.qk_norm_across_heads, "norms of queries and keys over the whole width"),
        "qk_norm_type": (config.qk_norm_type is None, "norms of queries and keys of another kind than the blocks'"),
        "qk_norm_epsilon": (not config.qk_norm_epsilon, "norms of queries and keys with an epsilon of their own"),
        "rotary": (config.rotary is None, "rotary positions"),
        "relative_positions": (config.relative_positions is RelativePositions.NONE, "relative positions"),
        "patch_norm": (not config.patch_norm, "a norm of embedded patches"),
        "pixel_norm": (not config.pixel_norm, "a norm of each patch's pixels"),
        "patch_padding": (not config.patch_padding, "padded images"),
        "last_norm": (config.last_norm, "no last norm"),
        "pre_logits_dim": (not config.pre_logits_dim, "a dense layer between pooling and head"),
        "head_norm": (not config.head_norm, "a norm in front of the head"),
        "pooling": (config.effective_pooling in POOLINGS.values(), f"the pooling {config.effective_pooling}"),
        "pool_heads": (config.pool_heads in (0, config.num_heads), "attention pooling of other heads than a block's"),
        "pool_mlp_dim": (config.pool_mlp_dim in (0, config.mlp_dim), "attention pooling of other hidden units"),
        "pool_dim": (not config.pool_dim, "attention pooling into another width"),
        "pool_end": (config.pool_end is PoolEnd.FFN, "attention pooling without a feed-forward"),
        "probabilities": (str(config.probabilities) == "softmax", "classes that are each told by itself"),
    }
    if config.normalization_type is NormalizationType.RMS_NORM and config.epsilon != min(BY_EPSILON):
        yield f"RMS norms of epsilon {config.epsilon:g}, where timm's have {min(BY_EPSILON):g}"
    yield from (words for fits, words in wanted.values() if not fits)


def arguments_of(config: ViTConfig) -> dict[str, Any]:
    """What timm's `create_model` takes to make it, as plain JSON values, but for a width of its heads."""
    names = {ours: theirs for theirs, ours in reversed(list(ACTIVATIONS.items()))}
    found = {
        "img_size": list(config.image_size),
        "patch_size": list(config.patch_size),
        "in_chans": config.channels,
        "num_classes": config.num_classes if config.include_top else 0,
        "global_pool": _pool(config),
        "embed_dim": config.embed_dim,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
        "mlp_ratio": (config.mlp_dim + HALF) / config.embed_dim,
        "qkv_bias": config.qkv_bias,
        "qk_norm": config.qk_norm,
        "class_token": config.class_token,
        "no_embed_class": False,
        "reg_tokens": config.register_tokens,
        "pre_norm": config.pre_norm,
        "fc_norm": config.norm_after_pooling,
        "act_layer": names[config.activation],
    }
    if config.layer_scale:
        found["init_values"] = INIT_VALUES
    if config.normalization_type is NormalizationType.RMS_NORM:
        found["norm_layer"] = "rmsnorm"
    for field, argument in (("attention_norm", "scale_attn_norm"), ("ffn_norm", "scale_mlp_norm")):
        if getattr(config, field):
            found[argument] = True
    if config.effective_pooling is Pooling.MAP and config.num_prefix_tokens:
        found["pool_include_prefix"] = not config.pool_patches
    return found


def state_of(checkpoint: Checkpoint) -> State:
    """The weights by timm's names."""
    config, weights = checkpoint.config, checkpoint.weights
    table, bias = weights["pos_embed.table"], weights["patch_embed.bias"]
    state: State = {"patch_embed.proj.weight": weights["patch_embed.kernel"].transpose(3, 2, 0, 1)}
    if config.pre_norm:  # timm's patches have no bias in front of a norm, and their positions may have it
        exact = table.astype(np.float64)
        exact[config.num_prefix_tokens :] += bias
        table = exact.astype(np.float32)
    else:
        state["patch_embed.proj.bias"] = bias
    for ours, theirs in (("class", "cls_token"), ("registers", "reg_token")):
        if f"class_token.{ours}" in weights:
            state[theirs] = weights[f"class_token.{ours}"][None]
    state["pos_embed"] = table[None]
    state |= _norm(weights, "pre_norm", "norm_pre")
    for index in range(config.num_layers):
        state |= _block(weights, f"block_{index}", f"blocks.{index}")
    state |= _norm(weights, "norm", "fc_norm" if config.norm_after_pooling else "norm")
    if config.effective_pooling is Pooling.MAP:
        state |= _map_pool(weights)
    state |= _dense(weights, "head", "head")
    return {name: np.ascontiguousarray(tensor) for name, tensor in state.items()}


def _block(weights: Mapping[str, Float32], ours: str, theirs: str) -> State:
    state = {
        **_norm(weights, f"{ours}.norm1", f"{theirs}.norm1"),
        **_packed(weights, f"{ours}.attention", ("query", "key", "value"), f"{theirs}.attn.qkv"),
        **_norm(weights, f"{ours}.attention.query_norm", f"{theirs}.attn.q_norm"),
        **_norm(weights, f"{ours}.attention.key_norm", f"{theirs}.attn.k_norm"),
        **_norm(weights, f"{ours}.attention.norm", f"{theirs}.attn.norm"),
        **_dense(weights, f"{ours}.attention.out", f"{theirs}.attn.proj"),
        **_norm(weights, f"{ours}.norm2", f"{theirs}.norm2"),
        **_dense(weights, f"{ours}.ffn.up", f"{theirs}.mlp.fc1"),
        **_norm(weights, f"{ours}.ffn.norm", f"{theirs}.mlp.norm"),
        **_dense(weights, f"{ours}.ffn.down", f"{theirs}.mlp.fc2"),
    }
    for number in (1, 2):
        if f"{ours}.scale{number}.gamma" in weights:
            state[f"{theirs}.ls{number}.gamma"] = weights[f"{ours}.scale{number}.gamma"]
    return state


def _map_pool(weights: Mapping[str, Float32]) -> State:
    return {
        "attn_pool.latent": weights["map_pool.probe"][None],
        **_dense(weights, "map_pool.attention.query", "attn_pool.q"),
        **_packed(weights, "map_pool.attention", ("key", "value"), "attn_pool.kv"),
        **_dense(weights, "map_pool.attention.out", "attn_pool.proj"),
        **_norm(weights, "map_pool.norm", "attn_pool.norm"),
        **_dense(weights, "map_pool.ffn.up", "attn_pool.mlp.fc1"),
        **_dense(weights, "map_pool.ffn.down", "attn_pool.mlp.fc2"),
    }


def _norm(weights: Mapping[str, Float32], ours: str, theirs: str) -> State:
    parts = (("scale", "weight"), ("bias", "bias"))
    return {f"{theirs}.{part}": weights[f"{ours}.{own}"] for own, part in parts if f"{ours}.{own}" in weights}


def _dense(weights: Mapping[str, Float32], ours: str, theirs: str) -> State:
    parts = (("kernel", "weight"), ("bias", "bias"))
    return {f"{theirs}.{part}": weights[f"{ours}.{own}"].T for own, part in parts if f"{ours}.{own}" in weights}


def _packed(weights: Mapping[str, Float32], ours: str, roles: tuple[str, ...], theirs: str) -> State:
    state: State = {}
    for own, part in (("kernel", "weight"), ("bias", "bias")):
        names = [f"{ours}.{role}.{own}" for role in roles]
        if all(name in weights for name in names):
            state[f"{theirs}.{part}"] = np.concatenate([weights[name].T for name in names])
    return state


def _pool(config: ViTConfig) -> str:
    return next(theirs for theirs, ours in POOLINGS.items() if ours is config.effective_pooling)


def _data(preprocess: Preprocess, config: ViTConfig) -> dict[str, Any]:
    """timm's words for the preprocessing; empty where it has none."""
    size = preprocess.resize
    first = size if isinstance(size, int) else config.image_size[0] if size is None else size[0]
    shortest = min(config.image_size) if isinstance(size, int) else config.image_size[0]
    exact = shortest / first
    said = {
        "input_size": [config.channels, *config.image_size],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": str(preprocess.interpolation),
    }
    for fraction in (exact, round(exact, 3), shortest / (first + HALF)):
        for mode in ("center", "squash"):
            data = {**said, "crop_pct": fraction, "crop_mode": mode}
            if math.isfinite(fraction) and preprocess_of(data, config.image_size, config.channels) == preprocess:
                return data
    return {}
