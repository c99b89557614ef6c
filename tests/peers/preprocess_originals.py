"""What timm and transformers make of an image file, with the settings of well-known models at a small input size.

timm's `create_transform` is its own; below it lie torchvision's transforms, from `torchvision_transforms` where
torchvision is not installed. transformers' image processors run as they are, on Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.core.preprocess import Interpolation, Preprocess

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC, LANCZOS = Interpolation.BILINEAR, Interpolation.BICUBIC, Interpolation.LANCZOS


@dataclass(frozen=True)
class Case:
    """Settings as a family records them, the model's input size, and how we record the same."""

    family: str
    like: str
    size: tuple[int, int]
    settings: dict[str, Any]
    ours: Preprocess


def _timm(like, input_size, ours, **settings):
    return Case("timm", like, input_size, {"interpolation": "bicubic", "crop_mode": "center", **settings}, ours)


def _transformers(like, processor, input_size, ours, **settings):
    return Case("transformers", like, input_size, {"image_processor_type": processor, **settings}, ours)


CASES = [
    _timm(
        "vit_base_patch16_224.augreg_in21k_ft_in1k",
        (32, 32),
        Preprocess(HALF, HALF, 35, True, BICUBIC),
        mean=HALF,
        std=HALF,
        crop_pct=0.9,
    ),
    _timm(
        "deit3_base_patch16_224.fb_in1k",
        (32, 32),
        Preprocess(IMAGENET_MEAN, IMAGENET_STD, 32, True, BICUBIC),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_pct=1.0,
    ),
    _timm(
        "vit_base_patch16_siglip_224.webli",
        (24, 32),
        Preprocess(HALF, HALF, (26, 35), True, BICUBIC),
        mean=HALF,
        std=HALF,
        crop_pct=0.9,
        crop_mode="squash",
    ),
    _timm(
        "vit_base_patch16_clip_224.openai",
        (32, 32),
        Preprocess(CLIP_MEAN, CLIP_STD, 36, True, BILINEAR),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        crop_pct=0.875,
        interpolation="bilinear",
    ),
    _timm(
        "vit_base_patch16_224.augreg_in1k, wide",
        (24, 32),
        Preprocess(HALF, HALF, (26, 35), True, BICUBIC, keep_aspect=True),
        mean=HALF,
        std=HALF,
        crop_pct=0.9,
    ),
    _transformers(
        "google/vit-base-patch16-224",
        "ViTImageProcessor",
        (24, 32),
        Preprocess(HALF, HALF, None, False, BILINEAR),
        size={"height": 24, "width": 32},
        resample=2,
        image_mean=list(HALF),
        image_std=list(HALF),
    ),
    _transformers(
        "facebook/deit-base-distilled-patch16-224",
        "DeiTImageProcessor",
        (32, 32),
        Preprocess(IMAGENET_MEAN, IMAGENET_STD, (37, 37), True, BICUBIC),
        size={"height": 37, "width": 37},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
        resample=3,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    ),
    _transformers(
        "facebook/dinov2-base",
        "BitImageProcessor",
        (32, 32),
        Preprocess(IMAGENET_MEAN, IMAGENET_STD, 36, True, BICUBIC),
        size={"shortest_edge": 36},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
        resample=3,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    ),
    _transformers(
        "openai/clip-vit-base-patch16",
        "CLIPImageProcessor",
        (24, 24),
        Preprocess(CLIP_MEAN, CLIP_STD, 24, True, BICUBIC),
        size={"shortest_edge": 24},
        crop_size={"height": 24, "width": 24},
        do_center_crop=True,
        resample=3,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    ),
    _transformers(
        "google/siglip-base-patch16-224",
        "SiglipImageProcessor",
        (24, 32),
        Preprocess(HALF, HALF, None, False, BICUBIC),
        size={"height": 24, "width": 32},
        resample=3,
        image_mean=list(HALF),
        image_std=list(HALF),
    ),
]


def original(case: Case, path: Any) -> np.ndarray[Any, Any]:
    """The family's own input `(height, width, channels)` for an image file."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    return _by_timm(case, image) if case.family == "timm" else _by_transformers(case, image)


def _by_timm(case: Case, image: Any) -> np.ndarray[Any, Any]:
    from tests.peers import torchvision_transforms

    torchvision_transforms.install()
    from timm.data.transforms_factory import create_transform

    transform = create_transform(input_size=(3, *case.size), is_training=False, **case.settings)
    return np.asarray(transform(image)).transpose(1, 2, 0)


def _by_transformers(case: Case, image: Any) -> np.ndarray[Any, Any]:
    import transformers

    settings = dict(case.settings)
    name = settings.pop("image_processor_type")
    processor = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    found = processor(**settings)(image, return_tensors="np")["pixel_values"][0]
    return np.asarray(found).transpose(1, 2, 0)
