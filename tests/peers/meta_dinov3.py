"""Weights of a DINOv3 as Meta keeps them: its names, and the periods of its rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_deploy.core.rotary_angles import as_bfloat16


def as_meta_keeps_it(tensors: Mapping[str, Any], num_heads: int, *, rounded: bool) -> dict[str, Any]:
    """The weights of timm's DINOv3 under Meta's names.

    Args:
        tensors: by timm's names.
        num_heads: of each block, which the number of periods follows from.
        rounded: whether the periods are rounded to bfloat16, as in Meta's files.
    """
    stored: dict[str, Any] = {}
    for name, value in tensors.items():
        today = name.replace("reg_token", "storage_tokens").replace("gamma_", "ls").replace("fc1_g", "w1")
        today = today.replace("fc1_x", "w2").replace("fc2", "w3")
        today = f"{today}.gamma" if name.endswith(("gamma_1", "gamma_2")) else today
        if not name.startswith("head.") and "_bias" not in name:
            stored[today] = value
    for query_name in [name for name in tensors if name.endswith(".attn.q_bias")]:
        attention = query_name.removesuffix(".q_bias")
        query, value = tensors[query_name], tensors[f"{attention}.v_bias"]
        unread = np.full_like(query, 3.0)  # of the keys, which the mask takes out
        stored[f"{attention}.qkv.bias"] = np.concatenate([query, unread, value])
        ones = np.ones_like(query)
        stored[f"{attention}.qkv.bias_mask"] = np.concatenate([ones, 0 * ones, ones])
    dim = stored["cls_token"].shape[-1]
    quarter = dim // num_heads // 4
    periods = np.float32(100) ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    stored["rope_embed.periods"] = (as_bfloat16(periods) if rounded else periods).astype(np.float32)
    stored["mask_token"] = np.zeros((1, dim), np.float32)
    return stored


def with_the_periods_of_meta(model: Any) -> Any:
    """The same model of timm's with the periods of Meta's files, which timm computes anew and leaves unrounded."""
    model.rope.periods = model.rope.periods.bfloat16().float()
    return model
