"""keras-hub's own ViTs, small, with weights that hide nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import keras_hub
import numpy as np

SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 3, "hidden_dim": 12}
WIDE: dict[str, Any] = SIZES | {"image_shape": (24, 32, 3), "patch_size": (8, 4)}
SQUARE: dict[str, Any] = SIZES | {"image_shape": (16, 16, 3), "patch_size": 4, "intermediate_dim": 20}


def vit(**options: Any) -> Any:
    return keras_hub.models.ViTBackbone(**WIDE | {"mlp_dim": 20} | options)


def vit_classifier() -> Any:
    converter = keras_hub.layers.ViTImageConverter(image_size=(24, 32), scale=1 / 64, offset=[-0.5, 0.25, 1.0])
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    backbone = vit(layer_norm_epsilon=1e-3)
    return keras_hub.models.ViTImageClassifier(backbone, num_classes=5, preprocessor=preprocessor, intermediate_dim=7)


def vit_without_biases() -> Any:
    return vit(use_mha_bias=False, use_mlp_bias=False, use_patch_bias=False)


def vit_averaged() -> Any:
    return keras_hub.models.ViTImageClassifier(vit(use_class_token=False), num_classes=5, pooling="gap")


def deit_classifier() -> Any:
    backbone = keras_hub.models.DeiTBackbone(**WIDE | {"intermediate_dim": 20})
    return keras_hub.models.DeiTImageClassifier(backbone, num_classes=5)


def dinov2() -> Any:
    return keras_hub.models.DINOV2Backbone(**SQUARE | {"position_embedding_shape": (16, 16)})


def dinov2_registers() -> Any:
    options = {"num_register_tokens": 2, "use_swiglu_ffn": True, "use_mask_token": False}
    return keras_hub.models.DINOV2Backbone(**SQUARE | options | {"position_embedding_shape": (24, 24)})


def dinov3(**options: Any) -> Any:
    sizes = SIZES | {"patch_size": 4, "num_register_tokens": 2, "intermediate_dim": 20, "image_shape": (14, 24, 3)}
    return keras_hub.models.DINOV3Backbone(**sizes | {"use_key_bias": False, "rope_theta": 50.0} | options)


def dinov3_gated() -> Any:
    return dinov3(use_gated_mlp=True, hidden_activation="silu", use_mask_token=False, use_mlp_bias=False)


def tower(encoder: Any, **options: Any) -> Any:
    sizes = {"patch_size": 4, "hidden_dim": 12, "num_layers": 2, "num_heads": 3, "intermediate_dim": 20}
    return encoder(**sizes | {"image_shape": (14, 14, 3)} | options)


def texts(encoder: Any) -> Any:
    sizes = {"num_layers": 1, "num_heads": 2, "intermediate_dim": 10, "max_sequence_length": 7}
    return encoder(vocabulary_size=30, embedding_dim=12, hidden_dim=12, **sizes)


def clip() -> Any:
    models = keras_hub.models
    image, text = tower(models.CLIPVisionEncoder), texts(models.CLIPTextEncoder)
    return models.CLIPBackbone(vision_encoder=image, text_encoder=text, projection_dim=6)


def clip_tower() -> Any:
    return tower(keras_hub.models.CLIPVisionEncoder, intermediate_activation="gelu")


def metaclip_2() -> Any:
    models = keras_hub.models
    image, text = tower(models.MetaCLIP2VisionEncoder), texts(models.MetaCLIP2TextEncoder)
    return models.MetaCLIP2Backbone(vision_encoder=image, text_encoder=text, projection_dim=6)


def metaclip_2_tower() -> Any:
    return tower(keras_hub.models.MetaCLIP2VisionEncoder)


def siglip() -> Any:
    models = keras_hub.models
    image, text = tower(models.SigLIPVisionEncoder), texts(models.SigLIPTextEncoder)
    return models.SigLIPBackbone(vision_encoder=image, text_encoder=text)


def siglip_tower() -> Any:
    return tower(keras_hub.models.SigLIPVisionEncoder, intermediate_activation="gelu")


MODELS: dict[str, Callable[[], Any]] = {
    "vit_classifier": vit_classifier,
    "vit_without_biases": vit_without_biases,
    "vit_averaged": vit_averaged,
    "deit_classifier": deit_classifier,
    "dinov2": dinov2,
    "dinov2_registers": dinov2_registers,
    "dinov3": dinov3,
    "dinov3_gated": dinov3_gated,
    "clip": clip,
    "clip_tower": clip_tower,
    "metaclip_2": metaclip_2,
    "metaclip_2_tower": metaclip_2_tower,
    "siglip": siglip,
    "siglip_tower": siglip_tower,
}


def made(name: str) -> Any:
    """The model, every weight drawn again."""
    model = MODELS[name]()
    rng = np.random.default_rng(8)
    for weight in model.weights:
        if not np.issubdtype(weight.dtype, np.floating):  # rows of a table, in order as in presets
            weight.assign(np.arange(weight.shape[-1])[None] if name != "clip_tower" else np.zeros(weight.shape))
            continue
        about = 1.0 if weight.name in ("gamma", "lambda1") else 0.0
        weight.assign(about + 0.25 * rng.standard_normal(weight.shape))
    return model


def converted(pixels: Any, **options: Any) -> tuple[dict[str, Any], Any]:
    """An image converter as a preset records it, and what it makes of an image."""
    layer = keras_hub.layers.ViTImageConverter(scale=1 / 64, offset=[-0.5, 0.25, 1.0], **options)
    return keras.saving.serialize_keras_object(layer), np.asarray(layer(pixels))


def draw_images(height: int, width: int) -> Any:
    """Normalised images."""
    return np.random.default_rng(9).standard_normal((2, height, width, 3)).astype(np.float32)


def answered(model: Any) -> Any:
    """What the model computes for `draw_images` of its own size; the images' vectors of one with texts beside."""
    backbone = getattr(model, "backbone", model)
    shape = getattr(backbone, "vision_encoder", backbone).image_shape
    images = draw_images(*shape[:2])
    if hasattr(backbone, "get_vision_embeddings"):
        return np.asarray(backbone.get_vision_embeddings(images))
    return np.asarray(model({next(iter(model.input)): images} if isinstance(model.input, dict) else images))
