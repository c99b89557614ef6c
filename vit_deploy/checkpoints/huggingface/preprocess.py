"""Preprocessing as a `preprocessor_config.json` of transformers describes it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.documents import PREPROCESS, explained
from vit_deploy.checkpoints.huggingface.processors import FILE, OF_A_PROCESSOR, OF_ANY_SIZE, plain_settings
from vit_deploy.checkpoints.importing import without_rest
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair, is_count
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.core.resize import resized_preprocess
from vit_deploy.errors import CheckpointError

SETTING = "image_processor"

RESAMPLING: Mapping[int, Interpolation] = {  # Pillow's numbers
    0: Interpolation.NEAREST,
    1: Interpolation.LANCZOS,
    2: Interpolation.BILINEAR,
    3: Interpolation.BICUBIC,
}
BILINEAR, BICUBIC = 2, 3
BYTE = 1 / 255  # the usual rescale_factor

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],  # Radford et al. 2021, of the images CLIP was trained on
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SHORTEST = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224, "resample": BICUBIC}
PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViT": {"size": 224, "resample": BILINEAR, **HALF},
    "DeiT": {"size": 256, "do_center_crop": True, "crop_size": 224, "resample": BICUBIC, **HALF},
    "Bit": {**SHORTEST, **OPENAI},
    "CLIP": {**SHORTEST, **OPENAI},
    "Siglip": {"size": 224, "resample": BICUBIC, **HALF},
    "Beit": {"size": 224, "resample": BICUBIC, "crop_size": 224, **HALF},
    "Blip": {"size": 384, "resample": BICUBIC, **OPENAI},
    "ChineseCLIP": {**SHORTEST, **OPENAI},
    "OwlViT": {"size": 768, "resample": BICUBIC, "crop_size": 768, **OPENAI},
    "Siglip2": {"size": 256, "resample": BILINEAR, **HALF},
    "Tipsv2": {"size": 448, "resample": BILINEAR, "do_normalize": False, **HALF},
    "GotOcr2": {"size": 384, "resample": BICUBIC, **OPENAI},
    "Pixtral": {"size": 1024, "resample": BICUBIC, **OPENAI},
    "DINOv3ViT": {"size": 224, "resample": BILINEAR, **IMAGENET},
    "Pvt": {"size": 224, "resample": BICUBIC, **IMAGENET},
    "Segformer": {"size": 512, "resample": BILINEAR, **IMAGENET},
    "ConvNext": {"size": {"shortest_edge": 384}, "crop_pct": 224 / 256, "resample": BICUBIC, **HALF},
    "EfficientNet": {"size": 346, "crop_size": 289, "include_top": True, "resample": BICUBIC, **HALF},
}
"""What an image processor does unless its file says otherwise, by the first word of its class."""

OF_THE_SHORTER_EDGE = ("Bit", "CLIP", "ChineseCLIP", "ConvNext")  # where the size is a single number


def settings_in(documents: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is recorded of the image processor; empty where nothing is."""
    found = documents.get(FILE)
    if found is None:
        found = documents.get(OF_A_PROCESSOR, {}).get(SETTING)
    return found if isinstance(found, Mapping) else {}


def preprocess_of(
    settings: Mapping[str, Any], processor: str, config: ViTConfig, input_size: tuple[int, int] | None = None
) -> Preprocess:
    """The preprocessing for the model's input size.

    Where the processor's images are of another size than the position table is for, as DINOv2's are, transformers
    resamples the positions whenever it is called; here the processor's sizes are scaled to the table's instead.

    Args:
        settings: the result of `settings_in`.
        processor: key of `PROCESSORS`, whose defaults fill what the settings leave out.
        config: the config of the model.
        input_size: (height, width) of the images that the model is for, where its patches leave some pixels unread.

    Raises:
        CheckpointError: what is recorded cannot be, or is nothing that a `Preprocess` can say.
    """
    if not settings and config.channels != 3:
        return Preprocess.for_channels(config.channels)
    word = _word(settings)
    if word in PROCESSORS:
        processor = word
    with explained(FILE):
        filled = plain_settings(word, {**PROCESSORS[processor], **settings})
        if word in OF_ANY_SIZE:
            filled = {**filled, "size": list(input_size or config.image_size)}
        mean, std = _normalization(filled, config.channels)
        plain = Preprocess(mean, std, interpolation=_interpolation(filled.get("resample")))
        return _sized(plain, filled, processor in OF_THE_SHORTER_EDGE, config, input_size or config.image_size)


def supposed_of(settings: Mapping[str, Any]) -> tuple[Assumed, ...]:
    """What is unlike its processor: one shape for all images, or fields that an unfamiliar program need not follow."""
    name = _class(settings)
    if _word(settings) in OF_ANY_SIZE:
        why = (
            f"{name} keeps the proportions of an image, and a model of one size has every image stretched to that size"
        )
        return (Assumed(PREPROCESS, name, f"{why}; give it images of that shape, or say otherwise with --config"),)
    if not name or _word(settings) in PROCESSORS:
        return ()
    why = f"{name} is none of the image processors that are known, and was read as one that does what its fields say"
    return (Assumed(PREPROCESS, name, f"{why}; compare with its own images, or say otherwise with --config"),)


def _word(settings: Mapping[str, Any]) -> str:
    """The first word of the processor's class; empty where none is recorded."""
    found = re.match(r"[A-Z]\w*?(?=ImageProcessor|FeatureExtractor)", _class(settings))
    return found[0] if found else ""


def _class(settings: Mapping[str, Any]) -> str:
    return str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")


def _normalization(filled: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for pixels scaled to 0..1, which (pixel * factor - mean) / std amounts to."""
    normalized = filled.get("do_normalize", True)
    mean = _channels(filled["image_mean"], channels) if normalized else (0.0,) * channels
    std = _channels(filled["image_std"], channels) if normalized else (1.0,) * channels
    factor = float(filled.get("rescale_factor", BYTE)) if filled.get("do_rescale", True) else 1.0
    if math.isclose(factor, BYTE, rel_tol=1e-6):
        return mean, std
    whole = 255 * factor  # what a white pixel becomes
    if not (math.isfinite(whole) and whole > 0):
        raise CheckpointError(f"{FILE} says rescale_factor {factor}; expected a positive number", fix=f"correct {FILE}")
    return tuple(value / whole for value in mean), tuple(value / whole for value in std)


def _channels(values: Any, channels: int) -> tuple[float, ...]:
    given = [float(value) for value in values] if isinstance(values, list) else [float(values)]
    if len(given) != channels and len(set(given)) == 1:
        return (given[0],) * channels
    return tuple(given)


def _interpolation(resample: Any) -> Interpolation:
    if not is_count(resample) or resample not in RESAMPLING:
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        raise CheckpointError(f"{FILE} says resample {resample!r}; expected one of {known}", fix=f"correct {FILE}")
    return RESAMPLING[resample]


def _sized(
    plain: Preprocess, filled: Mapping[str, Any], shorter: bool, config: ViTConfig, whole: tuple[int, int]
) -> Preprocess:
    resizes, crops = filled.get("do_resize", True), filled.get("do_center_crop", False)
    plain = _read_from(plain, whole, config)
    if not resizes:
        if crops:
            raise CheckpointError(
                f"{FILE} says to crop images that were not resized", fix="say do_resize, or leave do_center_crop out"
            )
        return plain
    resize = _edges(filled["size"], shorter)
    sized = dataclasses.replace(plain, resize=resize, crop=bool(crops))
    if crops:
        made = _edges(filled["crop_size"], shorter=False)
        if isinstance(made, int):
            raise CheckpointError(
                f"{FILE} says crop_size {filled['crop_size']}; expected height and width", fix=f"correct {FILE}"
            )
        if without_rest(made, config.patch_size) == config.image_size:
            return _read_from(sized, made, config)
        return _read_from(resized_preprocess(_read_from(sized, made, config), made, whole), whole, config)
    if isinstance(resize, int):
        return sized
    if without_rest(resize, config.patch_size) == config.image_size:
        return _read_from(plain, resize, config)
    return plain


def _read_from(preprocess: Preprocess, whole: tuple[int, int], config: ViTConfig) -> Preprocess:
    """With the size that it makes, where that is larger than what whole patches cover."""
    return dataclasses.replace(preprocess, input_size=None if whole == config.image_size else whole)


def _edges(size: Any, shorter: bool) -> int | tuple[int, int]:
    """(height, width), or the shorter edge."""
    if isinstance(size, Mapping):
        size = {side: pixels for side, pixels in size.items() if pixels is not None}
        if set(size) == {"shortest_edge"} and is_count(size["shortest_edge"]):
            return int(size["shortest_edge"])
        if set(size) == {"height", "width"}:
            return as_pair([size["height"], size["width"]], "size")
        raise CheckpointError(
            f"{FILE} says size {dict(size)}; expected height and width, or shortest_edge", fix=f"correct {FILE}"
        )
    if shorter and is_count(size):
        return int(size)
    return as_pair(size, "size")
