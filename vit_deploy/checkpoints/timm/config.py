"""What timm knows of a model besides its weights: by its architecture's name and from the `config.json` of its hub.

The table is read off `timm/models/vision_transformer.py` and `deit.py` of timm 1.0; tests hold it against the library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.heads import ordered_labels
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.core.config import Activation, Pooling, as_pair
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import CheckpointError

CONFIG = "config.json"
EPSILON = 1e-6  # of timm's own norm layers

# Of all that match a name the last one counts. Heads are 64 wide where nothing is said.
ARCHITECTURES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    (r"", {"epsilon": EPSILON, "activation": Activation.GELU}),
    (r"_clip_", {"epsilon": 1e-5}),
    (r"_quickgelu_", {"activation": Activation.QUICK_GELU}),
    # SigLIP 2 in the sizes that SigLIP had not; the others run with exact GELU in timm, whatever they were trained with
    (
        r"_(base_patch32|giantopt_patch16|so400m_patch16)_siglip_|_large_patch16_siglip_(gap_)?512",
        {"activation": Activation.GELU_TANH},
    ),
    (r"_(huge|gigantic|so400m|giantopt)_|^vit_giant_patch\d+_(224|clip|gap)|^vit_base_patch16_gap_", {"num_heads": 16}),
    (r"^test_vit2?$", {"num_heads": 2}),
    (r"^test_vit[34]$", {"num_heads": 3}),
)
# Embed dims that timm gives 16 heads of another width than 64 in every architecture that has them.
SIXTEEN_HEADS = frozenset({1152, 1280, 1408, 1664})

POOLINGS: Mapping[str, Pooling | None] = {
    "token": Pooling.CLS,
    "avg": Pooling.MEAN,
    "max": Pooling.MAX,
    "map": Pooling.MAP,
    "": None,
}
NORMS = ("layernorm", "rmsnorm")
# The architectures that are a plain ViT: one of these sizes, and nothing in the name but what is known here. Others may
# have the same weights and compute something else with them, as those with rotary positions do.
PLAIN = re.compile(
    r"vit_(tiny|xsmall|small|wee|little|medium|mediumd|betwixt|base|large|huge|giant|giantopt|gigantic|so150m2?|so400m"
    r"|intern300m)_patch\d+(_36x1)?(_plus)?(_reg\d+)?(_gap|_map|_clip|_clip_quickgelu|_siglip|_siglip_gap|_dinov2|_tipsv2"
    r"|_sam)?(_\d+)?(_(miil|dino|sam|clip_laion2b|clip_openai))?(_(in21k|in21ft1k))?"
    r"|deit3?_(tiny|small|medium|base|large|huge)(_distilled)?_patch\d+_\d+(_in21ft1k)?|vit_deit_\w+_patch\d+_\d+"
    r"|flexivit_(small|base|large)|eva_large_patch14_\d+|test_vit[234]?"
)
ROTARY = "rotary positions"
UNSUPPORTED_NAMES: Mapping[str, str] = {
    r"_rpn_": "norms behind the halves of a block and before their sums",
    r"_rope_|_dinov3|^eva02_|_pe_(core|lang|spatial)_|_lingbot|_sapiens2": ROTARY,
    r"_s?relpos_": "relative positions",
    r"_r\d*_s\d+_|_resnet\d+d_": "a convolutional network for its stem",
}
UNSUPPORTED_ARGS: Mapping[str, str] = {
    "block_fn": "blocks of another kind",
    "attn_layer": "attention of another kind",
    "embed_layer": "a stem of another kind",
    "scale_attn_norm": "a norm inside the attention",
    "scale_mlp_norm": "a norm inside the feed-forward",
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DINOV2_DATA: Mapping[str, Any] = {"crop_pct": 1.0}  # of the facebookresearch files, which bring no config
CROP_FRACTION = 0.875  # of the resized image, where nothing is said


@dataclass(frozen=True)
class Hub:
    """What config.json says.

    Args:
        fields: the fields of the config.
        sizes: (height, width) in pixels that the weights may be for, best first.
        pools_prefix: whether the pooling takes the prefix tokens too.
        act_layer: the activation that is asked for, in place of the architecture's.
        data: the data of the preprocessing, by timm's names; None where there is no config.
        labels: names of the classes.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    pools_prefix: bool = False
    act_layer: Activation | None = None
    data: Mapping[str, Any] | None = None
    labels: tuple[str, ...] = ()


def read_hub(file: TensorFile, embed_dim: int) -> Hub:
    """The config.json beside the weights, if it is one of timm's.

    Raises:
        CheckpointError: damaged, or of an architecture that is no such ViT.
    """
    document = file.documents.get(CONFIG)
    if document is None or not isinstance(document.get("architecture"), str):
        return Hub()
    with explained(CONFIG):
        architecture = document["architecture"].partition(".")[0]
        arguments = dict(document.get("model_args") or {})
        data = dict(document.get("pretrained_cfg") or {})
        _check_supported(architecture, arguments)
        sizes = [as_pair(arguments["img_size"], "img_size")] if arguments.get("img_size") else []
        if data.get("input_size"):
            sizes.append(as_pair(data["input_size"][1:], "input_size"))
        return Hub(
            fields=_fields(document, architecture, arguments, embed_dim),
            sizes=tuple(sizes),
            act_layer=Activation(arguments["act_layer"]) if arguments.get("act_layer") else None,
            pools_prefix=bool(arguments.get("pool_include_prefix", architecture == "test_vit3")),
            data=data,
            labels=_labels(document, data),
        )


def architecture_fields(architecture: str) -> dict[str, Any]:
    """Fields of the config that an architecture's name stands for."""
    found: dict[str, Any] = {}
    for pattern, fields in ARCHITECTURES:
        if re.search(pattern, architecture):
            found |= fields
    return found


def _check_supported(architecture: str, arguments: Mapping[str, Any]) -> None:
    problems = [what for pattern, what in UNSUPPORTED_NAMES.items() if re.search(pattern, architecture)]
    if not problems and not PLAIN.fullmatch(architecture):
        problems.append("the name of an architecture that may compute something else")
    problems += [what for name, what in UNSUPPORTED_ARGS.items() if arguments.get(name)]
    if arguments.get("norm_layer") not in (None, *NORMS):
        problems.append(f"the norm {arguments['norm_layer']}")
    if arguments.get("act_layer", Activation.GELU) not in (None, *Activation):
        problems.append(f"the activation {arguments['act_layer']}")
    if arguments.get("final_norm", True) is False:
        problems.append("no last norm")
    if problems:
        raise unsupported(architecture, problems)


def unsupported(what: str, problems: list[str]) -> CheckpointError:
    """The error of a model that is another network."""
    return CheckpointError(
        f"{what} is not a ViT that vit-deploy knows: it has {'; '.join(problems)}",
        fix="supported are timm's VisionTransformer with plain blocks, and its distilled DeiT; if it is one of them "
        "under a name of its own, write timm's name into config.json",
    )


def _fields(
    document: Mapping[str, Any], architecture: str, arguments: Mapping[str, Any], embed_dim: int
) -> dict[str, Any]:
    fields = architecture_fields(architecture)
    if "embed_dim" in arguments:  # the heads of the name are those of its own width
        fields.pop("num_heads", None)
    elif embed_dim % 64 == 0:
        fields.setdefault("num_heads", embed_dim // 64)
    if arguments.get("norm_layer"):
        fields["epsilon"] = EPSILON
    if arguments.get("act_layer"):
        fields["activation"] = Activation(arguments["act_layer"])
    if arguments.get("num_heads"):
        fields["num_heads"] = arguments["num_heads"]
    pooling = arguments.get("global_pool", document.get("global_pool"))
    if pooling is not None:
        if pooling not in POOLINGS:
            raise unsupported(architecture, [f"the pooling {pooling}"])
        fields["pooling"] = POOLINGS[pooling]
    if classes := document.get("num_classes", arguments.get("num_classes")):
        fields["num_classes"] = classes
    return fields


def _labels(document: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
    names = document.get("label_names")
    if not names:  # those of the weights that a training began with stay where they were when the head is another
        names = data.get("label_names") or ()
        names = names if len(names) == document.get("num_classes") else ()
    if isinstance(names, Mapping):
        return ordered_labels({int(index): str(name) for index, name in names.items()}, f"label_names of {CONFIG}")
    return tuple(map(str, names))


def preprocess_of(data: Mapping[str, Any], image_size: tuple[int, int], channels: int) -> Preprocess:
    """The preprocessing of timm's evaluation.

    The image is scaled so that a part of it, by default 7/8, fills the model's input: with its aspect kept ("center"),
    or without ("squash"). For an input that is not square, the scaled image just covers both of its sides.

    Args:
        data: timm's `pretrained_cfg`.
        image_size: (height, width) of the model's input.
        channels: the channels of the images.

    Raises:
        CheckpointError: values that no preprocessing has.
    """
    with explained("the pretrained_cfg in config.json"):
        mean, std = (tuple(data.get(name) or usual) for name, usual in zip(("mean", "std"), IMAGENET, strict=True))
        if len(mean) != channels or len(std) != channels:
            mean, std = (0.5,) * channels, (0.5,) * channels
        fraction = data.get("crop_pct") or CROP_FRACTION
        height, width = (math.floor(side / fraction) for side in image_size)
        mode = data.get("crop_mode") or "center"
        interpolation = data.get("interpolation") or "bicubic"
        if mode not in ("center", "squash"):
            raise ValueError(f"crop_mode is {mode!r}; expected center or squash")
        if mode == "squash":
            filled = (height, width) == image_size
            return Preprocess(mean, std, None if filled else (height, width), not filled, Interpolation(interpolation))
        filter = Interpolation(interpolation)
        if height == width:
            return Preprocess(mean, std, height, True, filter)
        return Preprocess(mean, std, (height, width), True, filter, keep_aspect=True)
