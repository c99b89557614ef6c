"""The options in which the families of published ViTs differ from the plain one, several at once, as config fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILIES: dict[str, dict[str, Any]] = {
    "DINOv2 with registers": {"register_tokens": 3, "layer_scale": True, "ffn_type": "swiglu", "pooling": "cls_mean"},
    "CLIP": {
        "pre_norm": True,
        "activation": "quick_gelu",
        "epsilon": 1e-5,
        "pooling": "cls",
        "include_top": False,
        "norm_after_pooling": True,
    },
    "SigLIP": {"class_token": False, "pooling": "map", "activation": "gelu_tanh", "include_top": False},
    "DeiT": {"distillation_token": True, "pooling": "cls_distillation"},
    "AugReg with pre-logits": {"pre_logits_dim": 9},
    "averaged patches, norm after": {
        "class_token": False,
        "pooling": "mean",
        "norm_after_pooling": True,
        "qk_norm": True,
    },
    "prefix of five, class token": {
        "distillation_token": True,
        "register_tokens": 3,
        "layer_scale": True,
        "qk_norm": True,
        "norm_after_pooling": True,
        "qkv_bias": False,
    },
    "sequence behind registers": {"class_token": False, "register_tokens": 2, "include_top": False, "pre_norm": True},
    "post-norm behind a norm, probe": {
        "normalization_position": "post",
        "pre_norm": True,
        "class_token": False,
        "pooling": "map",
        "norm_after_pooling": True,
    },
    "post-norm, RMS, probe": {
        "normalization_position": "post",
        "normalization_type": "rms_norm",
        "ffn_type": "swiglu",
        "qk_norm": True,
        "layer_scale": True,
        "pooling": "map",
        "pre_logits_dim": 12,
        "norm_after_pooling": True,
    },
    "band RMS, both tokens": {
        "normalization_type": "band_rms",
        "qk_norm": True,
        "pre_norm": True,
        "distillation_token": True,
        "register_tokens": 1,
        "pooling": "cls_distillation",
        "norm_after_pooling": True,
        "pre_logits_dim": 7,
    },
    "BEiT": {"relative_positions": "table", "layer_scale": True, "pooling": "mean", "norm_after_pooling": True},
    "shared distances, norms inside, class token": {
        "relative_positions": "shared_table",
        "normalization_position": "res_post",
        "register_tokens": 1,
        "qk_norm": True,
    },
    "AIMv2": {
        "patch_norm": True,
        "normalization_type": "rms_norm",
        "ffn_type": "swiglu",
        "qkv_bias": False,
        "class_token": False,
        "pooling": "map",
        "pool_end": "none",
    },
    "PIXIO": {"register_tokens": 2, "pooling": "prefix_mean", "include_top": False},
    "CoCa": {
        "pre_norm": True,
        "epsilon": 1e-5,
        "pooling": "map",
        "pool_heads": 2,
        "pool_dim": 10,
        "pool_end": "norm",
    },
    "ViTPose": {"patch_padding": 1, "class_token": False, "include_top": False, "layer_scale": True},
    "vit-pytorch": {"pixel_norm": True, "patch_norm": True, "qkv_bias": False, "epsilon": 1e-5, "pooling": "cls"},
    "ViT-22B": {"normalization_position": "parallel", "qk_norm": True, "layer_scale": True, "activation": "mish"},
    "dynamic tanh, greatest patch": {
        "normalization_type": "dynamic_tanh",
        "normalization_position": "post",
        "qk_norm": True,
        "layer_scale": True,
        "class_token": False,
        "register_tokens": 1,
        "pooling": "max",
        "norm_after_pooling": True,
    },
    "DINOv3": {"register_tokens": 2, "layer_scale": True, "rotary": "dinov3"},
    "EVA-02": {
        "ffn_type": "swiglu",
        "pooling": "mean",
        "norm_after_pooling": True,
        "qk_norm": True,
        "rotary": "eva",
        "attention_norm": True,
        "ffn_norm": True,
    },
    "Perception Encoder": {
        "pre_norm": True,
        "pooling": "map",
        "pool_heads": 2,
        "pool_mlp_dim": 16,
        "rotary": "pe",
        "ffn_norm": True,
    },
    "no last norm": {"pre_norm": True, "pooling": "mean", "layer_scale": True, "last_norm": False},
    "CLIP's classes from words": {
        "pre_norm": True,
        "activation": "quick_gelu",
        "pooling": "cls",
        "norm_after_pooling": True,
        "pre_logits_dim": 9,
        "pre_logits_linear": True,
        "head_norm": True,
    },
    "SigLIP's classes from words": {
        "class_token": False,
        "pooling": "map",
        "activation": "gelu_tanh",
        "head_norm": True,
        "probabilities": "sigmoid",
    },
    "wide heads": {
        "head_width": 8,
        "rotary": "dinov3",
        "qk_norm": True,
        "attention_norm": True,
        "layer_scale": True,
        "pooling": "map",
    },
    "few heads": {"num_heads": 2, "head_width": 4, "relative_positions": "table", "ffn_type": "geglu"},
    "one narrow head": {"num_heads": 1, "head_width": 5},
    "RoPE-ViT, mixed": {"include_top": False, "rotary": "rope_vit_mixed"},
    "MLCD": {"pre_norm": True, "pooling": "cls", "include_top": False, "rotary": "mlcd"},
}


def as_arguments(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same options as arguments of the Keras model."""
    plain = {name: value for name, value in changes.items() if name != "qkv_bias"}
    return plain | ({"attention_args": {"qkv_bias": changes["qkv_bias"]}} if "qkv_bias" in changes else {})
