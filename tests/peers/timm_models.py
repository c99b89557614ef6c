"""timm's own Vision Transformer with the weights of one of our checkpoints, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, Pooling
from vit_deploy.core.config import ViTConfig

POOLING = {None: "", "cls": "token", "mean": "avg", "max": "max", "map": "map", "cls_distillation": "token"}


def timm_model(timm: Any, checkpoint: Checkpoint) -> Any:
    import torch
    from timm.models.deit import VisionTransformerDistilled

    config = checkpoint.config
    plain = timm.models.vision_transformer.VisionTransformer
    model = (VisionTransformerDistilled if config.distillation_token else plain)(**_options(timm, config)).double()
    w = {name: torch.from_numpy(value.astype(np.float64)) for name, value in checkpoint.weights.items()}
    state = {
        "pos_embed": w["pos_embed.table"][None],
        "patch_embed.proj.weight": w["patch_embed.kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": w["patch_embed.bias"],
    }
    if config.pre_norm:  # timm has no bias there
        assert not state.pop("patch_embed.proj.bias").any()
        state |= _norm("norm_pre", "pre_norm", w)
    for theirs, ours in (("cls_token", "class"), ("dist_token", "distillation"), ("reg_token", "registers")):
        if f"class_token.{ours}" in w:
            state[theirs] = w[f"class_token.{ours}"][None]
    for index in range(config.num_layers):
        state |= _block(f"blocks.{index}", f"block_{index}", w, config)
    state |= _norm("fc_norm" if config.norm_after_pooling else "norm", "norm", w)
    if config.effective_pooling is Pooling.MAP:
        state |= _attention_pool(w)
    if config.distillation_token:  # the mean of two heads is one head of both vectors side by side
        state |= {"head.weight": 2 * w["head.kernel"][: config.embed_dim].T, "head.bias": w["head.bias"]}
        state |= {"head_dist.weight": 2 * w["head.kernel"][config.embed_dim :].T, "head_dist.bias": w["head.bias"]}
    elif config.include_top:
        state |= _dense("head", "head", w)
    model.load_state_dict(state)
    return model.eval()


def _options(timm: Any, config: ViTConfig) -> dict[str, Any]:
    import torch
    from timm.layers import Mlp, SwiGLU

    options = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_dim / config.embed_dim,
        "num_classes": config.num_classes if config.include_top else 0,
        "qkv_bias": config.qkv_bias,
        "qk_norm": config.qk_norm,
        "pre_norm": config.pre_norm,
        "init_values": 0.1 if config.layer_scale else None,
        "reg_tokens": config.register_tokens,
        "global_pool": POOLING[config.effective_pooling],
        "pool_include_prefix": config.effective_pooling is Pooling.MAP,
        "fc_norm": config.norm_after_pooling,
        "mlp_layer": SwiGLU if config.ffn_type is FFNType.SWIGLU else Mlp,
    }
    activations = {
        Activation.GELU: torch.nn.GELU,
        Activation.GELU_TANH: timm.layers.GELUTanh,
        Activation.QUICK_GELU: timm.layers.QuickGELU,
    }
    # A gated feed-forward takes the block's activation, whatever its own default is.
    options["act_layer"] = activations[config.activation] if config.ffn_type is FFNType.MLP else torch.nn.SiLU
    return options if config.distillation_token else options | {"class_token": config.class_token}


def _block(theirs: str, ours: str, w: dict[str, Any], config: ViTConfig) -> dict[str, Any]:
    state = _norm(f"{theirs}.norm1", f"{ours}.norm1", w) | _norm(f"{theirs}.norm2", f"{ours}.norm2", w)
    for part in ("kernel", "bias") if config.qkv_bias else ("kernel",):
        state[f"{theirs}.attn.qkv.{'weight' if part == 'kernel' else 'bias'}"] = _beside(
            [w[f"{ours}.attention.{role}.{part}"] for role in ("query", "key", "value")]
        )
    state |= _dense(f"{theirs}.attn.proj", f"{ours}.attention.out", w)
    if config.qk_norm:
        state |= _norm(f"{theirs}.attn.q_norm", f"{ours}.attention.query_norm", w)
        state |= _norm(f"{theirs}.attn.k_norm", f"{ours}.attention.key_norm", w)
    if config.layer_scale:
        state |= {f"{theirs}.ls{number}.gamma": w[f"{ours}.scale{number}.gamma"] for number in (1, 2)}
    gated = config.ffn_type is FFNType.SWIGLU
    names = {"fc1_g": "gate", "fc1_x": "up", "fc2": "down"} if gated else {"fc1": "up", "fc2": "down"}
    for name, own in names.items():
        state |= _dense(f"{theirs}.mlp.{name}", f"{ours}.ffn.{own}", w)
    return state


def _attention_pool(w: dict[str, Any]) -> dict[str, Any]:
    state = {"attn_pool.latent": w["map_pool.probe"][None]}
    for part, name in (("kernel", "weight"), ("bias", "bias")):
        state[f"attn_pool.kv.{name}"] = _beside([w[f"map_pool.attention.{role}.{part}"] for role in ("key", "value")])
    state |= _dense("attn_pool.q", "map_pool.attention.query", w)
    state |= _dense("attn_pool.proj", "map_pool.attention.out", w)
    state |= _norm("attn_pool.norm", "map_pool.norm", w)
    return (
        state | _dense("attn_pool.mlp.fc1", "map_pool.ffn.up", w) | _dense("attn_pool.mlp.fc2", "map_pool.ffn.down", w)
    )


def _beside(parts: list[Any]) -> Any:
    import torch

    joined = torch.cat(parts, dim=-1)
    return joined.T if joined.ndim == 2 else joined


def _dense(theirs: str, ours: str, w: dict[str, Any]) -> dict[str, Any]:
    return {f"{theirs}.weight": w[f"{ours}.kernel"].T, f"{theirs}.bias": w[f"{ours}.bias"]}


def _norm(theirs: str, ours: str, w: dict[str, Any]) -> dict[str, Any]:
    return {f"{theirs}.weight": w[f"{ours}.scale"], f"{theirs}.bias": w[f"{ours}.bias"]}
