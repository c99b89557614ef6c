"""The part of a config.json of transformers that is about the ViT, where that is a tower of a larger model.

Everything that reads a tower sees a config.json as if the tower had been saved alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.checkpoints.documents import explained
from vit_deploy.core.config_checks import as_pair
from vit_deploy.errors import CheckpointError

INNER = ("vision_config", "image_config", "encoder", "backbone_config", "vlm_config")
"""Where a config.json has that of its tower; the last has another whole model's."""

TOWER_OF: Mapping[str, str] = {
    **{"altclip": "altclip_vision_model", "chinese_clip": "chinese_clip_vision_model"},
    **{"clipseg": "clipseg_vision_model", "metaclip_2": "metaclip_2_vision_model"},
    **{"owlvit": "owlvit_vision_model", "owlv2": "owlv2_vision_model", "git": "git_vision_model"},
    **{"blip": "blip_vision_model", "blip-2": "blip_2_vision_model", "instructblip": "instructblip_vision_model"},
    **{"instructblipvideo": "instructblipvideo_vision_model", "kosmos-2": "kosmos_2_vision_model"},
    **{"tipsv2": "tipsv2_vision_model", "aimv2": "aimv2_vision_model", "internvl": "internvl_vision"},
    **{"siglip2": "siglip2_vision_model", "janus": "janus_vision_model", "flava": "flava_image_model"},
    **{"idefics2": "idefics2_vision", "idefics3": "idefics3_vision", "smolvlm": "smolvlm_vision"},
    **dict.fromkeys(("llava", "llava_next", "llava_next_video", "vipllava", "video_llava"), "clip_vision_model"),
    **dict.fromkeys(("paligemma", "llava_onevision", "gemma3", "shieldgemma2", "aya_vision"), "siglip_vision_model"),
    **{"vision-encoder-decoder": "vit", "mlcd": "mlcd_vision_model", "vitpose": "vitpose_backbone"},
}
"""The model type of a tower by that of the whole, where the tower's own config does not say it."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "blip_vision_model": {"image_size": 384},
    "blip_2_vision_model": {"num_attention_heads": 16},
    "instructblip_vision_model": {"num_attention_heads": 16},
    "instructblipvideo_vision_model": {"num_attention_heads": 16},
    "kosmos_2_vision_model": {"num_attention_heads": 16},
    "owlvit_vision_model": {"image_size": 768},
    "owlv2_vision_model": {"image_size": 768},
    "janus_vision_model": {"num_attention_heads": 16, "image_size": 384},
    "idefics3_vision": {"num_attention_heads": 16},
    "smolvlm_vision": {"num_attention_heads": 16},
    "yolos": {"image_size": [512, 864]},
    "dpt": {"image_size": 384},
    "pixio": {"num_attention_heads": 16, "image_size": 256},
    "dinov3_vit": {"num_attention_heads": 6},
    "mlcd_vision_model": {"num_attention_heads": 16, "image_size": 336},
    "tipsv2_vision_model": {"image_size": 448},
    "aimv2_vision_model": {"num_attention_heads": 8},
    "pixtral": {"num_attention_heads": 16, "image_size": 1024},
    "internvl_vision": {"num_attention_heads": 16, "image_size": 448},
    "siglip2_vision_model": {"num_patches": 256, "patch_size": 16},
    "vitpose_backbone": {"image_size": [256, 192]},
}
"""What transformers does for a model type where it is not what most others do."""

SPECTROGRAM = "audio-spectrogram-transformer"  # whose images come of sound, by no processor of images
NAFLEX = "siglip2_vision_model"  # for images of any size, whose position table is that of a square
OF_OTHER_TASKS = frozenset({"yolos", "dpt", SPECTROGRAM})
"""Model types whose heads are for other tasks than telling classes of images, and are left out."""

CONVOLUTIONS = "convolutions instead of attention"
RESOLUTIONS = "stages of several resolutions"
UNLIKE: Mapping[str, str] = {
    **dict.fromkeys(("swin", "swinv2", "swin2sr", "donut-swin", "maskformer-swin"), RESOLUTIONS),
    **dict.fromkeys(("hiera", "pvt", "pvt_v2", "segformer", "levit", "cvt", "poolformer", "dinat"), RESOLUTIONS),
    **dict.fromkeys(("convnext", "convnextv2", "resnet", "bit", "regnet", "align_vision_model"), CONVOLUTIONS),
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2", "efficientnet", "focalnet"), CONVOLUTIONS),
    **dict.fromkeys(("vitdet", "sam_vision_model", "sam2_vision_model", "sam_hq_vision_model"), "attention in windows"),
    **dict.fromkeys(("vivit", "timesformer", "videomae", "vjepa2", "xclip_vision_model"), "frames of a video"),
    "groupvit_vision_model": "tokens that it groups on the way",
    "mllama_vision_model": "tiles and gates of its own",
}
"""What models have that are no such ViT, for the message."""

WITHOUT_HEAD = "--no-head"

LANES = (1, 4, 8, 16)  # floats that a processor computes at once


@dataclass(frozen=True)
class Tower:
    """A ViT in a file of transformers.

    Args:
        document: config.json as if it had been saved alone; empty where there is none.
        whole: the model type of what else is in the file and is left out, or "".
    """

    document: Mapping[str, Any]
    whole: str = ""


def tower_in(document: Mapping[str, Any], known: frozenset[str]) -> Tower:
    """The tower that a config.json describes; the model itself where it is one.

    Args:
        document: config.json, or nothing.
        known: the model types of ViTs that can be read.

    Raises:
        CheckpointError: the larger model has no such tower, or several; or the tower is no plain ViT.
    """
    whole = document.get("model_type")
    if not isinstance(whole, str):
        return Tower(document)
    with explained("config.json"):
        found = list(_inner(document))
        if not found or (whole in known and "backbone_config" not in document):
            return Tower(_settled(document, whole), whole if whole in OF_OTHER_TASKS else "")
        types = [str(tower.get("model_type") or TOWER_OF.get(whole)) for tower in found]
        chosen = [number for number, kind in enumerate(types) if kind in known] or [0]
        if len(chosen) > 1:
            raise CheckpointError(
                f"its config.json is that of a {whole} with {len(chosen)} towers of images: {', '.join(types)}",
                fix="put the weights of one of them into a folder of their own, with its config",
            )
        inner, model_type = found[chosen[0]], types[chosen[0]]
        projects = {"projects_pooled": True} if whole == "vision-text-dual-encoder" else {}
        alone = {**inner, "model_type": model_type, "architectures": [], **projects, **_of_a_classifier(document)}
        return Tower(_settled(alone, model_type), whole)


def _of_a_classifier(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the config of a larger model says of a classifier that it puts on its tower."""
    architectures = [str(name) for name in document.get("architectures") or []]
    classifiers = [name for name in architectures if name.endswith("ForImageClassification")]
    if not classifiers:
        return {}
    said = {name: document[name] for name in ("id2label", "num_labels") if name in document}
    return {"architectures": classifiers, **said}


def _inner(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in INNER:
        inner = document.get(key)
        if isinstance(inner, Mapping) and inner:
            deeper = list(_inner(inner)) if key == "vlm_config" else []
            yield from deeper or [inner]


def _settled(document: Mapping[str, Any], model_type: str) -> Mapping[str, Any]:
    """With what transformers fills in, and refused where the options are those of no plain ViT."""
    filled = {**DEFAULTS.get(model_type, {}), **document}
    problems = list(_problems(filled, model_type))
    if problems:
        raise CheckpointError(
            f"its config.json is that of a {model_type} with {'; '.join(problems)}, which no ViT here computes",
            fix=f"take the tokens: {WITHOUT_HEAD}" if WITHOUT_HEAD in problems[-1] else "give a model without it",
        )
    if model_type == SPECTROGRAM:
        size = [filled.get("num_mel_bins", 128), filled.get("max_length", 1024)]
        return {**filled, "image_size": size, "num_channels": 1}
    if model_type == NAFLEX:
        return {**filled, "image_size": math.isqrt(filled["num_patches"]) * filled["patch_size"]}
    return filled


def _problems(document: Mapping[str, Any], model_type: str) -> Iterator[str]:
    if document.get("use_mid_position_embeddings") and model_type == "yolos":
        yield "positions that are added again after every block"
    if model_type == "vitpose_backbone" and document.get("num_experts", 1) != 1:
        yield "a feed-forward that is another for each data set"
    if document.get("is_hybrid"):
        yield "a convolutional network for its stem"
    if document.get("use_qk_norm") and model_type == "janus_vision_model" and document["num_attention_heads"] != 1:
        yield (
            "a norm of queries and keys over the whole width, which transformers itself gives one head at a time and "
            "fails on"
        )
    yield from _problems_of_positions(document, model_type)
    if model_type == SPECTROGRAM:
        patch = document.get("patch_size", 16)
        strides = [document.get(f"{axis}_stride", 10) for axis in ("frequency", "time")]
        if strides != [patch, patch]:
            yield f"patches of {patch} that overlap, {strides[0]} and {strides[1]} apart"
        classifies = any(
            str(architecture).endswith("ForAudioClassification") for architecture in document.get("architectures") or []
        )
        if classifies and document.get("num_labels") != 0:
            yield f"a head behind the norm of the mean of two tokens ({WITHOUT_HEAD} gives the tokens)"
    if model_type in ("idefics2_vision", "idefics3_vision", "smolvlm_vision"):
        grid = {side // patch for side, patch in zip(*_sizes(document), strict=True)}
        if not all(map(places_are_kept, grid)):
            yield f"a grid of {max(grid)} patches whose places depend on how the machine rounds"


def _problems_of_positions(document: Mapping[str, Any], model_type: str) -> Iterator[str]:
    if model_type == NAFLEX and math.isqrt(document["num_patches"]) ** 2 != document["num_patches"]:
        yield f"a position table of {document['num_patches']} patches, which make no square"
    if model_type == "mlcd_vision_model" and document.get("num_key_value_groups", 1) != 1:
        yield "keys that several queries share"
    rotary = document.get("rope_parameters") or {}
    if model_type in ("mlcd_vision_model", "pixtral") and rotary.get("rope_type", "axial") != "axial":
        yield f"rotary positions of the kind {rotary['rope_type']}"


def _sizes(document: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    image = as_pair(document.get("image_size", 224), "image_size")
    return image, as_pair(document.get("patch_size", 32), "patch_size")


def places_are_kept(side: int) -> bool:
    """Whether each of so many patches along a side gets its own row of the position table.

    Idefics sorts the patches' places, as fractions, into as many buckets, in float32: of some numbers of patches, a few
    fall into their neighbour's bucket, and which ones depends on how many numbers the processor adds at once.
    """
    step = 1 / side
    places = np.minimum(np.arange(side, dtype=np.float32) * np.float32(step), np.float32(1 - 1e-6))
    numbers = np.arange(max(math.ceil((1 - step) / step), 0))
    for lanes in LANES:
        first = (step + step * (numbers // lanes * lanes)).astype(np.float32).astype(np.float64)
        buckets = np.searchsorted((first + step * (numbers % lanes)).astype(np.float32), places, side="right")
        if not np.array_equal(buckets, np.arange(side)):
            return False
    return True
