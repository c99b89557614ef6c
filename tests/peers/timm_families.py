"""Small models of every kind that timm's VisionTransformer has, with weights that hide nothing, as timm saves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SMALL: Mapping[str, Any] = {
    "img_size": [24, 32],
    "patch_size": [8, 4],
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": 5,
}


@dataclass(frozen=True)
class Case:
    """One kind of model.

    Args:
        architecture: by timm's name.
        arguments: that differ from the architecture's and from `SMALL`.
        unwritten: of the arguments, those that no config.json can hold.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unwritten: tuple[str, ...] = ()


CASES: Mapping[str, Case] = {
    "plain": Case("vit_tiny_patch16_224"),
    "no_qkv_bias": Case("vit_base_patch16_224_miil"),
    "qk_norm": Case("vit_tiny_patch16_224", {"qk_norm": True}),
    "features": Case("vit_small_patch16_224", {"num_classes": 0}),
    "distilled": Case("deit_tiny_distilled_patch16_224"),
    "distilled_features": Case("deit_tiny_distilled_patch16_224", {"num_classes": 0}),
    "deit3": Case("deit3_small_patch16_224"),
    "registers_gap": Case("vit_medium_patch16_reg4_gap_256"),
    "gap": Case("vit_base_patch16_gap_224"),
    "fc_norm": Case("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "max": Case("vit_tiny_patch16_224", {"global_pool": "max"}),
    "fc_norm_token": Case("vit_tiny_patch16_224", {"fc_norm": True}),
    "tokens": Case("vit_tiny_patch16_224", {"global_pool": "", "num_classes": 0}),
    "clip": Case("vit_base_patch32_clip_224"),
    "clip_quickgelu": Case("vit_base_patch32_clip_quickgelu_224"),
    "siglip": Case("vit_base_patch16_siglip_224"),
    "siglip2": Case("vit_base_patch32_siglip_256"),
    "siglip_gap": Case("vit_base_patch16_siglip_gap_224", {"num_classes": 5}),
    "dinov2": Case("vit_small_patch14_dinov2", {"num_classes": 0}),
    "dinov2_reg4": Case("vit_small_patch14_reg4_dinov2", {"num_classes": 0}),
    "dinov2_giant": Case("vit_giant_patch14_reg4_dinov2", {"num_classes": 0}),
    "rms_norm": Case("test_vit4"),
    "map_of_all": Case("test_vit3"),
    "swiglu_apart": Case("vit_tiny_patch16_224", {"mlp_layer": "SwiGLU", "act_layer": "silu"}, ("mlp_layer",)),
    "beit": Case("beit_base_patch16_224"),
    "beit_shared": Case("beit_base_patch16_224", {"use_shared_rel_pos_bias": True, "use_abs_pos_emb": True}),
    "relpos": Case("vit_relpos_small_patch16_224"),
    "relpos_like_swin": Case("vit_relpos_medium_patch16_cls_224", {"rel_pos_type": "mlp-swin", "global_pool": "token"}),
    "relpos_table": Case("vit_srelpos_small_patch16_224", {"rel_pos_type": "bias"}),
    "beit3": Case("beit3_base_patch16_224"),
    "rpn": Case("vit_base_patch16_rpn_224"),
    "naflex": Case("naflexvit_base_patch16_gap"),
    "naflex_apart": Case("naflexvit_base_patch16_parfac_gap"),
    "aimv2": Case("aimv2_large_patch14_224"),
    "parallel": Case("vit_pwee_patch16_reg1_gap_256"),
    "parallel_qk_norm": Case("vit_base_patch16_xp_224"),
    "mish": Case("vit_tiny_patch16_224", {"act_layer": "mish"}),
    "narrow_heads": Case("vit_tiny_patch16_224", {"attn_layer": "Narrow", "num_heads": 2}, ("attn_layer",)),
    "no_biases": Case("vit_tiny_patch16_224", {"proj_bias": False, "qkv_bias": False}),
}

RESIZED = (
    "plain",
    "distilled",
    "registers_gap",
    "clip",
    "siglip",
    "beit",
    "beit_shared",
    "relpos_table",
    "beit3",
)  # cases that are also run at another size
READ_AGAIN = ("naflex", "naflex_apart")  # those that are read again for it
NEW_SIZE = (40, 48)


def make(timm: Any, name: str, **changes: Any) -> Any:
    """The model of a case in evaluation mode, its weights drawn so that each of them shows in the output."""
    import torch
    from timm.layers import SwiGLU

    case = CASES[name]
    arguments = {**SMALL, **case.arguments, **changes}
    if arguments.get("attn_layer") == "Narrow":
        arguments["attn_layer"] = heads_of_width(5)
    if "mlp_layer" in arguments:
        arguments["mlp_layer"] = {"SwiGLU": SwiGLU}[arguments["mlp_layer"]]
    model = timm.create_model(case.architecture, **arguments).eval()
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            drawn = rng.standard_normal(tuple(parameter.shape))
            is_scale = parameter.ndim == 1 and key.endswith((".weight", ".gamma"))
            parameter.copy_(torch.from_numpy(0.25 * drawn + is_scale))
    return model


def heads_of_width(width: int) -> Any:
    """timm's attention with heads of a width of their own, which only a class can ask for."""
    from timm.layers import Attention

    class Narrow(Attention):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "attn_head_dim": width})

    return Narrow


def save(timm: Any, name: str, model: Any, folder: Path) -> None:
    """Write model.safetensors and config.json, as timm pushes them to the hub."""
    unwritten = CASES[name].unwritten
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=dict.fromkeys(unwritten))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for each in unwritten:
        del config["model_args"][each]
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def drawn_images(height: int, width: int) -> Any:
    """Three images `(batch, height, width, channels)`, normalised."""
    return np.random.default_rng(9).standard_normal((3, height, width, 3)).astype(np.float32)


def output(model: Any, images: Any) -> Any:
    """What the model makes of images `(batch, height, width, channels)`, in float64."""
    import torch

    with torch.no_grad():
        return model.double()(torch.from_numpy(images).double().permute(0, 3, 1, 2)).numpy()
