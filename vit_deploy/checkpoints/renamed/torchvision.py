"""torchvision's `VisionTransformer`: vit_b_16 to vit_h_14, with the names of its MLP before and since 0.13."""

from __future__ import annotations

import re

from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Interpolation, Preprocess

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TRAINED_SIZE, RESIZED = 224, 256  # of the IMAGENET1K_V1 weights
LARGER_SIZES = frozenset({384, 512, 518})  # of the SWAG weights, whose images are resized straight to them


def _preprocess(config: ViTConfig) -> Preprocess:
    height, width = config.image_size
    if height == width and height in LARGER_SIZES:
        return Preprocess(*IMAGENET, height, True, Interpolation.BICUBIC)
    if height != width:
        return Preprocess(*IMAGENET)
    return Preprocess(*IMAGENET, round(height * RESIZED / TRAINED_SIZE), True, Interpolation.BILINEAR)


DIALECT = Dialect(
    name="torchvision",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)conv_proj\.weight$"),
    names=(
        (r"^class_token$", "cls_token"),
        (r"^conv_proj\.", "patch_embed."),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"^encoder\.ln\.", "norm."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attention.packed."),
        (r"\.self_attention\.out_proj\.", ".attention.out."),
        (r"\.mlp\.(0|linear_1)\.", ".ffn.up."),
        (r"\.mlp\.(3|linear_2)\.", ".ffn.down."),
        (r"^heads\.(head\.)?(?=weight$|bias$)", "head."),
        (r"^heads\.(pre_logits\.)", r"\1"),
    ),
    heads=re.compile(r"(^|\.)heads\."),
    epsilon=1e-6,
    num_heads={1280: 16},
    preprocess=_preprocess,
    refused={r"^conv_proj\.\d|^patch_embed\.\d": "a convolutional stem"},
)


def torchvision() -> RenamedSource:
    """The source."""
    return RenamedSource(DIALECT)
