"""The reference against PyTorch's own encoder layers and timm's models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.peers.timm_models import timm_model
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward

Array = NDArray[Any]


@pytest.mark.peers
@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_pytorchs_own_encoder_layers_compute_the_same(
    make_checkpoint: Callable[..., Checkpoint], images: Array, position: str, activation: str
) -> None:
    torch = pytest.importorskip("torch")
    checkpoint = make_checkpoint(normalization_position=position, activation=activation)
    config = checkpoint.config
    w = {name: torch.from_numpy(value.astype(np.float64)) for name, value in checkpoint.weights.items()}
    with torch.no_grad():
        convolution = torch.nn.Conv2d(3, 12, config.patch_size, config.patch_size, dtype=torch.float64)
        convolution.weight.copy_(w["patch_embed.kernel"].permute(3, 2, 0, 1))
        convolution.bias.copy_(w["patch_embed.bias"])
        x = convolution(torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        x = torch.cat([w["class_token.class"].expand(len(x), 1, 12), x], dim=1) + w["pos_embed.table"]
        for index in range(config.num_layers):
            layer = torch.nn.TransformerEncoderLayer(
                12, 3, 20, 0.0, activation, config.epsilon, True, position == "pre", dtype=torch.float64
            )
            own = {
                name.removeprefix(f"block_{index}."): value for name, value in w.items() if f"block_{index}." in name
            }
            roles = [own[f"attention.{role}.kernel"].T for role in ("query", "key", "value")]
            layer.self_attn.in_proj_weight.copy_(torch.cat(roles))
            layer.self_attn.in_proj_bias.copy_(
                torch.cat([own[f"attention.{r}.bias"] for r in ("query", "key", "value")])
            )
            for module, name in (
                (layer.self_attn.out_proj, "attention.out"),
                (layer.linear1, "ffn.up"),
                (layer.linear2, "ffn.down"),
            ):
                module.weight.copy_(own[f"{name}.kernel"].T)
                module.bias.copy_(own[f"{name}.bias"])
            for module, name in ((layer.norm1, "norm1"), (layer.norm2, "norm2")):
                module.weight.copy_(own[f"{name}.scale"])
                module.bias.copy_(own[f"{name}.bias"])
            x = layer(x)
        x = torch.nn.functional.layer_norm(x, (12,), w["norm.scale"], w["norm.bias"], config.epsilon)
        expected = (x[:, 0] @ w["head.kernel"] + w["head.bias"]).numpy()
    np.testing.assert_allclose(forward(checkpoint, images), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_timms_vision_transformer_computes_the_same(
    make_checkpoint: Callable[..., Checkpoint], images: Array, timm: Any, pooling: str, qkv_bias: bool
) -> None:
    import torch

    checkpoint = make_checkpoint(pooling=pooling, qkv_bias=qkv_bias)
    model = timm_model(timm, checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(forward(checkpoint, images), expected, rtol=1e-10, atol=1e-12)


TIMM: dict[str, dict[str, Any]] = {
    "AugReg without class token": {"class_token": False, "pooling": "mean", "norm_after_pooling": True},
    "class token, fc_norm": {"pooling": "cls", "norm_after_pooling": True},
    "average behind a prefix": {"register_tokens": 2, "pooling": "mean"},
    "greatest patch": {"class_token": False, "pooling": "max"},
    "DINOv2": {"register_tokens": 3, "layer_scale": True, "ffn_type": "swiglu", "pooling": "cls"},
    "CLIP": {"pre_norm": True, "activation": "quick_gelu", "include_top": False, "pooling": "cls"},
    "SigLIP": {"class_token": False, "pooling": "map", "activation": "gelu_tanh", "include_top": False},
    "probe that sees registers too": {"register_tokens": 1, "pooling": "map", "qk_norm": True},
    "DeiT": {"distillation_token": True, "pooling": "cls_distillation"},
    "normalized queries and keys": {"qk_norm": True, "layer_scale": True, "qkv_bias": False},
}


@pytest.mark.peers
@pytest.mark.parametrize("changes", TIMM.values(), ids=TIMM)
def test_timm_computes_the_same_for_every_family(
    make_checkpoint: Callable[..., Checkpoint], images: Array, timm: Any, changes: dict[str, Any]
) -> None:
    import torch

    checkpoint = make_checkpoint(**changes)
    if checkpoint.config.pre_norm:
        weights = dict(checkpoint.weights) | {"patch_embed.bias": np.zeros(12, np.float32)}
        checkpoint = dataclasses.replace(checkpoint, weights=weights)
    model = timm_model(timm, checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(forward(checkpoint, images), expected, rtol=1e-10, atol=1e-12)
