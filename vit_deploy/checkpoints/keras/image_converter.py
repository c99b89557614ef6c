"""Image converters of keras-hub in terms of one resize, one crop and one normalization, or their refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.documents import PREPROCESS, explained
from vit_deploy.core.config import Size, ViTConfig, in_words
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import CheckpointError

FILE = "image_converter.json"
WHAT = "its image converter"
DEFAULTS: Mapping[str, Any] = {
    **{"image_size": None, "scale": None, "offset": None, "interpolation": "bilinear", "antialias": False},
    **{"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": False},
}
"""What keras-hub does unless its file says otherwise; earlier versions record less of it."""

EARLIER = (("height", "width"), ("mean", "variance"))  # for image_size, and for scale and offset
WITHOUT_EFFECT = ("name", "trainable", "dtype", "quantization_config", "bounding_box_format", "data_format")
INTERPOLATIONS: Mapping[str, Interpolation] = {
    **{str(kind): kind for kind in (Interpolation.NEAREST, Interpolation.BILINEAR, Interpolation.BICUBIC)},
    "lanczos3": Interpolation.LANCZOS,
}
FAMILIES = ("", "ViT", "DeiT", "DINOV2", "DINOV3", "CLIP", "MetaCLIP2", "SigLIP")
CONVERTERS = frozenset(f"keras_hub>{family}ImageConverter" for family in FAMILIES)


def preprocess_of(converter: Mapping[str, Any] | None, config: ViTConfig) -> Preprocess | None:
    """The preprocessing for the model's input size; None where no converter is recorded.

    Args:
        converter: what is recorded of it, its class and its config.
        config: the config of the model.

    Raises:
        CheckpointError: what is recorded cannot be, or is nothing that a `Preprocess` can say.
    """
    if converter is None:
        return None
    with explained(WHAT):
        values = _filled(converter["config"])
        if unknown := list(_unknown(values)):
            raise CheckpointError(
                f"{WHAT} says {', '.join(unknown)}, which no preprocessing here does",
                fix='say all that is done to your images with --config: {"preprocess": {"mean": …, "std": …, '
                '"resize": …, "crop": …}}',
            )
        mean, std = _normalization(values, config.channels)
        resized = _size(values) is not None
        plain = Preprocess(mean, std, interpolation=INTERPOLATIONS[values["interpolation"]])
        return _cropped(plain, config.image_size) if resized and values["crop_to_aspect_ratio"] else plain


def supposed_of(converter: Mapping[str, Any] | None, whole: Size) -> tuple[Assumed, ...]:
    """What is unlike its converter: filters and cuts, another size, or what a class of its own may do besides.

    Args:
        converter: what is recorded of it, as `preprocess_of` has accepted it; None where nothing is.
        whole: (height, width) in pixels of the model's images.
    """
    return () if converter is None else tuple(_supposed(converter, whole))


def _supposed(converter: Mapping[str, Any], whole: Size) -> Iterator[Assumed]:
    values = _filled(converter["config"])
    name = str(converter.get("registered_name") or converter.get("class_name"))
    if name not in CONVERTERS:
        why = f"{name} is none of keras-hub's image converters for this model, and was read as one of them"
        yield Assumed(PREPROCESS, name, f"{why}; compare with its own images, or say otherwise with --config")
    size, filter = _size(values), values["interpolation"]
    if size is not None and size != whole:
        why = f"{WHAT} makes images of {in_words(size)}, and the model takes {in_words(whole)}"
        yield Assumed(PREPROCESS, f"resized to {in_words(whole)}", f"{why}; --config says another way to that size")
    differences = []
    if not values["antialias"] and filter != Interpolation.NEAREST:
        differences.append("shrinks images without antialias, which Pillow's filters have")
    if values["crop_to_aspect_ratio"]:
        differences.append("cuts their middle out before it resizes them, here a little beside it")
    if size is not None and differences:
        why = f"{WHAT} {' and '.join(differences)}; images of {in_words(whole)} are left as they are by both"
        yield Assumed("interpolation", f"{INTERPOLATIONS[filter]} of Pillow", why)


def _filled(said: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a converter, those of earlier versions by their names of today."""
    earlier = {name: said[name] for pair in EARLIER if all(name in said for name in pair) for name in pair}
    values = {**DEFAULTS, **{name: value for name, value in said.items() if name not in earlier}}
    if "height" in earlier:
        values["image_size"] = [earlier["height"], earlier["width"]]
    if "mean" in earlier:
        stds = [math.sqrt(value) for value in earlier["variance"]]
        values["scale"] = [float(values["scale"]) / std for std in stds]
        values["offset"] = [-mean / std for mean, std in zip(earlier["mean"], stds, strict=True)]
    return values


def _unknown(values: Mapping[str, Any]) -> Iterator[str]:
    """What it does to pixels that no `Preprocess` says, in words."""
    if values["pad_to_aspect_ratio"] and _size(values) is not None:
        yield "pad_to_aspect_ratio True"
    if values["interpolation"] not in INTERPOLATIONS:
        yield f"interpolation {values['interpolation']!r}"
    yield from (f"{name} {values[name]!r}" for name in sorted(set(values) - {*DEFAULTS, *WITHOUT_EFFECT}))


def _size(values: Mapping[str, Any]) -> Size | None:
    """(height, width) of the images that it makes; None where it leaves their size as it is."""
    return None if values["image_size"] is None else as_pair(values["image_size"], "image_size")


def _normalization(values: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`pixel * scale + offset`, of numbers or lists of them, as mean and standard deviation of pixels in 0..1."""
    scales = _channels(1 if values["scale"] is None else values["scale"], channels)
    offsets = _channels(0 if values["offset"] is None else values["offset"], channels)
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f"scale is {values['scale']}; expected positive numbers")
    stds = tuple(1 / (255 * scale) for scale in scales)
    return tuple(-offset * std for offset, std in zip(offsets, stds, strict=True)), stds


def _channels(value: Any, channels: int) -> list[float]:
    given = [float(number) for number in value] if isinstance(value, list) else [float(value)]
    return given * channels if len(given) == 1 else given


def _cropped(plain: Preprocess, size: Size) -> Preprocess:
    """The largest window of the model's proportions: the middle of an image scaled so that it just covers the input."""
    height, width = size
    covering = {"resize": height} if height == width else {"resize": size, "keep_aspect": True}
    return Preprocess.from_dict({**plain.to_dict(), **covering, "crop": True})
