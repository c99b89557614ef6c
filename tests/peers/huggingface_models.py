"""Small models of transformers, with weights that let nothing be left out unseen, and what they answer."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Size = tuple[int, int]

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TOWER = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
WIDE = {**TOWER, "intermediate_size": 40}
OBLONG = {"image_size": (16, 24), "patch_size": (8, 6)}
SQUARE = {"image_size": 16, "patch_size": 8}
LONG = {"image_size": (8, 32), "patch_size": 8}  # of as many patches as a square, which ViTMAE wants to begin with
LABELS = {"id2label": {0: "ant", 1: "bee", 2: "cat", 3: "dog", 4: "elk"}}
TEXT = {**WIDE, "vocab_size": 5, "max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
DECODER = {
    **{"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2},
    "decoder_intermediate_size": 8,
}


@dataclass(frozen=True)
class Case:
    """One model.

    Args:
        model: the class.
        config: its config's class.
        options: of the config.
        answer: what is compared, of the model's output.
        image_size: (height, width) of the images that it is given.
        newer: saved with the names that the newer versions use inside.
        shard: the most that one file holds.
        resized: another size to be compared at.
        call: options of a call at the other size.
        stated: what has to be said when it is loaded.
    """

    model: str
    config: str
    options: Mapping[str, Any]
    answer: str = "logits"
    image_size: Size = (16, 24)
    newer: bool = False
    shard: str = "1GB"
    resized: Size | None = None
    call: Mapping[str, Any] = field(default_factory=lambda: {"interpolate_pos_encoding": True})
    stated: Mapping[str, Any] = field(default_factory=dict)


def _vision(**options: Any) -> dict[str, Any]:
    return {"vision_config": {**WIDE, **SQUARE, **options}, "text_config": TEXT, "projection_dim": 7}


HIDDEN, POOLED = "last_hidden_state", "pooler_output"
CASES: Mapping[str, Case] = {
    "vit": Case(
        "ViTForImageClassification", "ViTConfig", {**WIDE, **OBLONG, **LABELS, "layer_norm_eps": 1e-3}, shard="10KB"
    ),
    "vit-newer": Case("ViTForImageClassification", "ViTConfig", {**WIDE, **OBLONG, "hidden_act": "relu"}, newer=True),
    "vit-model": Case("ViTModel", "ViTConfig", {**WIDE, **OBLONG, "qkv_bias": False}, HIDDEN),
    "vit-model-newer": Case("ViTModel", "ViTConfig", {**WIDE, **OBLONG}, HIDDEN, newer=True),
    "beit": Case(
        "BeitForImageClassification",
        "BeitConfig",
        {**WIDE, **SQUARE, **LABELS, "use_relative_position_bias": True},
        "logits",
        (16, 16),
        resized=(24, 40),
    ),
    "beit-shared": Case(
        "BeitForImageClassification",
        "BeitConfig",
        {
            **{**WIDE, **SQUARE, "use_shared_relative_position_bias": True, "use_mean_pooling": False},
            "use_absolute_position_embeddings": True,
        },
        "logits",
        (16, 16),
    ),
    "beit-model": Case(
        "BeitModel",
        "BeitConfig",
        {
            **{**WIDE, **SQUARE, "use_relative_position_bias": True, "use_shared_relative_position_bias": True},
            "layer_scale_init_value": 0.0,
        },
        POOLED,
        (16, 16),
    ),
    "data2vec": Case(
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {**WIDE, **SQUARE, "use_relative_position_bias": True},
        "logits",
        (16, 16),
    ),
    "vit-pooler": Case(
        "ViTModel", "ViTConfig", {**WIDE, **OBLONG}, POOLED, stated={"pooling": "cls", "pre_logits_dim": 24}
    ),
    "vit-square": Case(
        "ViTForImageClassification",
        "ViTConfig",
        {**WIDE, **SQUARE, "num_channels": 2},
        "logits",
        (16, 16),
        resized=(24, 40),
    ),
    "vit-classless": Case("ViTForImageClassification", "ViTConfig", {**WIDE, **OBLONG, "num_labels": 0}),
    "vit-masked": Case(
        "ViTForMaskedImageModeling", "ViTConfig", {**WIDE, **SQUARE, "encoder_stride": 8}, "vit", (16, 16)
    ),
    "msn": Case("ViTMSNForImageClassification", "ViTMSNConfig", {**WIDE, **OBLONG, **LABELS}),
    "ijepa": Case("IJepaForImageClassification", "IJepaConfig", {**WIDE, **OBLONG, **LABELS}),
    "ijepa-model-newer": Case(
        "IJepaModel", "IJepaConfig", {**WIDE, **SQUARE}, HIDDEN, (16, 16), True, resized=(24, 40)
    ),
    "deit": Case("DeiTForImageClassification", "DeiTConfig", {**WIDE, **OBLONG, **LABELS}),
    "deit-teacher": Case("DeiTForImageClassificationWithTeacher", "DeiTConfig", {**WIDE, **OBLONG, **LABELS}),
    "deit-teacher-newer": Case(
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        {**WIDE, **SQUARE},
        "logits",
        (16, 16),
        True,
        resized=(24, 8),
    ),
    "deit-model": Case("DeiTModel", "DeiTConfig", {**WIDE, **OBLONG}, HIDDEN),
    "dinov2": Case(
        "Dinov2ForImageClassification",
        "Dinov2Config",
        {**TOWER, **SQUARE, **LABELS, "use_swiglu_ffn": True},
        image_size=(16, 16),
        resized=(16, 40),
        call={},
    ),
    "dinov2-newer": Case(
        "Dinov2ForImageClassification",
        "Dinov2Config",
        {**TOWER, **SQUARE, "use_swiglu_ffn": True},
        "logits",
        (16, 16),
        True,
    ),
    "dinov2-model": Case("Dinov2Model", "Dinov2Config", {**TOWER, **SQUARE, "mlp_ratio": 2}, HIDDEN, (16, 16)),
    "dinov2-pooled": Case(
        "Dinov2Model",
        "Dinov2Config",
        {**TOWER, **SQUARE, "mlp_ratio": 2},
        POOLED,
        (16, 16),
        True,
        stated={"pooling": "cls"},
    ),
    "dinov2-backbone": Case("Dinov2Backbone", "Dinov2Config", {**TOWER, **SQUARE, "mlp_ratio": 2}, "map", (16, 16)),
    "dinov2-backbone-early": Case(
        "Dinov2Backbone",
        "Dinov2Config",
        {**TOWER, **SQUARE, "num_hidden_layers": 3, "mlp_ratio": 2, "out_features": ["stage2"]},
        "map",
        (16, 16),
    ),
    "registers": Case(
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**TOWER, **SQUARE, **LABELS, "num_register_tokens": 3, "mlp_ratio": 2},
        image_size=(16, 16),
        resized=(16, 40),
        call={},
    ),
    "registers-newer": Case(
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**TOWER, **SQUARE, "num_register_tokens": 3, "use_swiglu_ffn": True},
        HIDDEN,
        (16, 16),
        True,
    ),
    "registers-backbone": Case(
        "Dinov2WithRegistersBackbone",
        "Dinov2WithRegistersConfig",
        {**TOWER, **SQUARE, "num_register_tokens": 3, "mlp_ratio": 2},
        "map",
        (16, 16),
    ),
    "registers-backbone-early": Case(
        "Dinov2WithRegistersBackbone",
        "Dinov2WithRegistersConfig",
        {**TOWER, **SQUARE, "num_register_tokens": 3, "mlp_ratio": 2, "out_indices": [-2]},
        "map",
        (16, 16),
        True,
    ),
    "mae": Case("ViTMAEForPreTraining", "ViTMAEConfig", {**WIDE, **LONG, **DECODER, "mask_ratio": 0.0}, "mae", (8, 32)),
    "mae-newer": Case(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {**WIDE, **SQUARE, **DECODER, "mask_ratio": 0.0},
        "mae",
        (16, 16),
        True,
        resized=(24, 8),
    ),
    "mae-model": Case("ViTMAEModel", "ViTMAEConfig", {**WIDE, **LONG, "mask_ratio": 0.0}, HIDDEN, (8, 32)),
    "clip": Case("CLIPModel", "CLIPConfig", _vision(), "image", (16, 16), shard="20KB", resized=(24, 40)),
    "clip-vision": Case("CLIPVisionModel", "CLIPVisionConfig", {**WIDE, **SQUARE}, POOLED, (16, 16)),
    "clip-projection": Case(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**WIDE, **SQUARE, "projection_dim": 7},
        "image_embeds",
        (16, 16),
    ),
    "siglip": Case("SiglipModel", "SiglipConfig", _vision(), "image", (16, 16), resized=(24, 40)),
    "siglip-vision": Case("SiglipVisionModel", "SiglipVisionConfig", {**WIDE, **SQUARE}, POOLED, (16, 16)),
    "siglip-headless": Case(
        "SiglipVisionModel", "SiglipVisionConfig", {**WIDE, **SQUARE, "vision_use_head": False}, HIDDEN, (16, 16)
    ),
    "siglip-classifier": Case(
        "SiglipForImageClassification", "SiglipConfig", {**_vision(), **LABELS}, "logits", (16, 16)
    ),
    "siglip-rest": Case(
        "SiglipVisionModel", "SiglipVisionConfig", {**WIDE, "image_size": 19, "patch_size": 8}, POOLED, (19, 19)
    ),
}
"""By name; together they have every head, every layout and every option that is read."""


def library() -> Any:
    """Transformers; the models need no torchvision."""
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def build(case: Case) -> Any:
    """The model, every parameter drawn again: norms about one, layer scales about a half, all else about zero."""
    import torch

    transformers = library()
    model = getattr(transformers, case.model)(getattr(transformers, case.config)(**case.options)).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        spread = 0.25 * torch.randn(parameter.shape, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        parameter.data = spread + (1.0 if norm else 0.5 if "layer_scale" in name else 0.0)
    return model


def save(model: Any, case: Case, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size=case.shard, save_original_format=not case.newer)


def images_for(case: Case, size: Size) -> Array:
    """Two normalised images `(batch, height, width, channels)`."""
    shape = (2, *size, case.options.get("num_channels", 3))
    return np.random.default_rng(sum(size)).standard_normal(shape).astype(np.float32)


def answer(model: Any, case: Case, images: Array, **call: Any) -> Array:
    """What the model says to images, in the form of `reference.forward`'s output."""
    import torch

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    if case.config == "ViTMAEConfig":  # no patch is masked, and none is moved
        patches = images.shape[1] * images.shape[2] // case.options["patch_size"] ** 2
        call["noise"] = torch.arange(patches).expand(len(images), -1)
    with torch.no_grad():
        match case.answer:
            case "image":
                found = model.get_image_features(pixels, **call)
                found = found if isinstance(found, torch.Tensor) else found.pooler_output
            case "mae" | "vit":
                found = model.vit(pixels, **call).last_hidden_state
            case "map":
                found = model(pixels, **call).feature_maps[-1].flatten(2).transpose(1, 2)
            case attribute:
                found = model(pixels, **call)[attribute]
    result: Array = found.numpy()
    return result


def read_part(images: Array, case: Case) -> Array:
    """The pixels that whole patches cover."""
    patch = case.options.get("patch_size", 8)
    patch = patch if isinstance(patch, tuple) else (patch, patch)
    height, width = (side - side % step for side, step in zip(images.shape[1:3], patch, strict=True))
    return images[:, :height, :width]
