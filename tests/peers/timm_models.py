"""timm's own Vision Transformer with the weights of one of our checkpoints, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_deploy.checkpoint import Checkpoint

POOLING = {"cls": "token", "mean": "avg"}


def timm_model(timm: Any, checkpoint: Checkpoint) -> Any:
    import torch

    config = checkpoint.config
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.num_layers,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_dim / config.embed_dim,
        num_classes=config.num_classes,
        qkv_bias=config.qkv_bias,
        global_pool=POOLING[str(config.effective_pooling)],
        fc_norm=False,
    ).double()
    w = {name: torch.from_numpy(value.astype(np.float64)) for name, value in checkpoint.weights.items()}
    state = {
        "cls_token": w["class_token.class"][None],
        "pos_embed": w["pos_embed.table"][None],
        "patch_embed.proj.weight": w["patch_embed.kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": w["patch_embed.bias"],
        "norm.weight": w["norm.scale"],
        "norm.bias": w["norm.bias"],
        "head.weight": w["head.kernel"].T,
        "head.bias": w["head.bias"],
    }
    for index in range(config.num_layers):
        ours, theirs = f"block_{index}", f"blocks.{index}"
        for part in ("kernel", "bias") if config.qkv_bias else ("kernel",):
            joined = torch.cat([w[f"{ours}.attention.{role}.{part}"] for role in ("query", "key", "value")], dim=-1)
            state[f"{theirs}.attn.qkv.{'weight' if part == 'kernel' else 'bias'}"] = joined.t()
        for theirs_part, ours_part in (("attn.proj", "attention.out"), ("mlp.fc1", "ffn.up"), ("mlp.fc2", "ffn.down")):
            state[f"{theirs}.{theirs_part}.weight"] = w[f"{ours}.{ours_part}.kernel"].T
            state[f"{theirs}.{theirs_part}.bias"] = w[f"{ours}.{ours_part}.bias"]
        for norm in ("norm1", "norm2"):
            state[f"{theirs}.{norm}.weight"] = w[f"{ours}.{norm}.scale"]
            state[f"{theirs}.{norm}.bias"] = w[f"{ours}.{norm}.bias"]
    model.load_state_dict(state)
    return model.eval()
