"""What timm knows of a model besides its weights: by its architecture's name and by the config.json of its hub."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.heads import ordered_labels
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.timm.architectures import Architecture, architecture_named, architectures, unsupported
from vit_deploy.checkpoints.timm.towers import Tower, tower_of
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import CheckpointError, closest

CONFIG = "config.json"
ASSUMED_PIXELS = "assumed"  # in the data of a preprocessing: that nothing of the file says it
ARCHITECTURE = "--architecture"  # the document that holds the name which the user gives
EPSILON = 1e-6  # of timm's own norm layers

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
UNSUPPORTED_ARGS: Mapping[str, str] = {
    "block_fn": "blocks of another kind",
    "attn_layer": "attention of another kind",
    "embed_layer": "a stem of another kind",
    "scale_mlp": "a norm inside the feed-forward",
    "mlp_layer": "a feed-forward of another kind",
}
OF_ANOTHER_KIND: Mapping[tuple[str, object], str] = {("attn_layer", "diff"): "differential attention"}
"""What values of them stand for, where that has a name."""

SHOWN_BY_WEIGHTS = frozenset(
    {
        *("patch_size", "in_chans", "embed_dim", "depth", "mlp_ratio", "qkv_bias", "qk_norm", "proj_bias"),
        *("init_values", "class_token", "pos_embed", "no_embed_class", "reg_tokens", "pre_norm", "fc_norm"),
        *("embed_norm_layer", "num_classes", "img_size", "use_abs_pos_emb", "use_rel_pos_bias"),
        *("scale_attn_norm", "scale_mlp_norm"),
        *("use_shared_rel_pos_bias", "swiglu_mlp", "use_fc_norm", "rel_pos_type", "rel_pos_dim", "shared_rel_pos"),
    }
)
AS_FIELDS: Mapping[str, str] = {
    **{"embed_dim": "embed_dim", "depth": "num_layers", "in_chans": "channels", "reg_tokens": "register_tokens"},
    **{name: name for name in ("patch_size", "qk_norm", "pre_norm", "class_token")},
}
"""Those of them that have to be what the weights show, by the fields of the config that they are."""

WITHOUT_EFFECT = frozenset(
    {
        *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
        *("weight_init", "fix_init", "dynamic_img_size", "strict_img_size", "device", "dtype"),
        "head_init_scale",
    }
)
READ_HERE = frozenset(
    {
        *("num_heads", "norm_layer", "act_layer", "final_norm", "global_pool", "pool_include_prefix"),
        *("dynamic_img_pad",),
    }
)
"""With the two above and `UNSUPPORTED_ARGS`, all arguments of timm's VisionTransformer; any other is refused."""

ACTIVATIONS: Mapping[str, Activation] = {
    **{"gelu": Activation.GELU, "gelu_tanh": Activation.GELU_TANH, "quick_gelu": Activation.QUICK_GELU},
    **{"relu": Activation.RELU, "relu6": Activation.RELU6, "elu": Activation.ELU, "sigmoid": Activation.SIGMOID},
    **{"silu": Activation.SILU, "swish": Activation.SILU, "tanh": Activation.TANH},
    **{"mish": Activation.MISH, "leaky_relu": Activation.LEAKY_RELU_TORCH},
    **{"hard_swish": Activation.HARD_SILU, "hardswish": Activation.HARD_SILU},
}
"""By timm's names, those that are the same function there."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VIT_DATA: Mapping[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.9}  # timm's own for its ViTs
DINOV2_DATA: Mapping[str, Any] = {"crop_pct": 1.0}  # of the facebookresearch files, which bring no config
CROP_FRACTION = 0.875  # of the resized image, where nothing is said


@dataclass(frozen=True)
class Hub:
    """What config.json and the architecture's name say.

    Args:
        architecture: the architecture that is named; None where nobody names one.
        named: the fields of the config that the name alone stands for.
        fields: the fields of the config that config.json says.
        states_width: whether config.json says the embed dim, so that the heads of the name are meant for it.
        sizes: (height, width) in pixels that the weights may be for, best first.
        pools_prefix: whether the pooling takes the prefix tokens too.
        pads: whether images are padded to whole patches.
        act_layer: the activation that is asked for, in place of the architecture's.
        data: the data of the preprocessing, by timm's names; None where there is no config.
        preprocess: the preprocessing for a config, where another program than timm says it.
        labels: names of the classes.
    """

    architecture: Architecture | None = None
    named: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    states_width: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    pools_prefix: bool = False
    pads: bool = False
    act_layer: Activation | None = None
    data: Mapping[str, Any] | None = None
    preprocess: Callable[[ViTConfig], Preprocess] | None = None
    labels: tuple[str, ...] = ()


def read_hub(file: TensorFile) -> Hub:
    """What the architecture's name and the config.json beside the weights say, if it is one of timm's.

    The architecture that the user names wins over that of config.json.

    Raises:
        CheckpointError: damaged, or of an architecture that is no such ViT.
    """
    found, given = file.documents.get(CONFIG), file.documents.get(ARCHITECTURE)
    document = found if isinstance(found, Mapping) and isinstance(found.get("architecture"), str) else {}
    if given is not None and architecture_named(str(given)) is None:
        usual = [known.name for known in architectures() if not known.needs]
        raise CheckpointError(
            f"timm has no architecture {str(given)!r} that is read here",
            fix=closest(str(given), usual) or "give timm's name of the model, as vit_base_patch16_224",
        )
    if (tower := tower_of(file.documents)) is not None and not document:
        return _of_tower(tower, given)
    if not document and given is None:
        return Hub()
    with explained(CONFIG):
        return hub_of(str(given or document["architecture"]).partition(".")[0], document)


def hub_of(name: str, document: Mapping[str, Any]) -> Hub:
    """What the name of an architecture stands for, with what a document says besides.

    Raises:
        CheckpointError: an architecture, or arguments, of no plain ViT.
    """
    arguments = dict(document.get("model_args") or {})
    architecture = _checked(name, arguments)
    data = data_of(document)
    sizes = [as_pair(arguments["img_size"], "img_size")] if arguments.get("img_size") else []
    if data.get("input_size"):
        sizes.append(as_pair(data["input_size"][1:], "input_size"))
    return Hub(
        architecture=architecture,
        named={**architecture.fields, "pooling": architecture.pooling},
        fields=_fields(name, document, arguments),
        states_width="embed_dim" in arguments,
        sizes=(*sizes, architecture.image_size),
        act_layer=ACTIVATIONS[arguments["act_layer"]] if arguments.get("act_layer") else None,
        pools_prefix=bool(arguments.get("pool_include_prefix", architecture.pools_prefix)),
        pads=bool(arguments.get("dynamic_img_pad")),
        data=data if document else None,
        labels=labels_of(document, data),
    )


def _of_tower(tower: Tower, given: object) -> Hub:
    name = str(given or tower.architecture).partition(".")[0]
    hub = hub_of(name, {} if tower.pooling is None else {"global_pool": tower.pooling})
    return dataclasses.replace(hub, sizes=(*tower.sizes, *hub.sizes), data=None, preprocess=tower.preprocess)


def _checked(name: str, arguments: Mapping[str, Any]) -> Architecture:
    """The architecture of a name, if it and its arguments are those of a plain ViT."""
    architecture = architecture_named(name)
    problems = ["the name of an architecture that may compute something else"] if architecture is None else []
    problems += [architecture.needs] if architecture is not None and architecture.needs else []
    problems += [
        OF_ANOTHER_KIND.get((argument, str(arguments[argument])), what)
        for argument, what in UNSUPPORTED_ARGS.items()
        if arguments.get(argument)
    ]
    if arguments.get("norm_layer") not in (None, *NORMS):
        problems.append(f"the norm {arguments['norm_layer']}")
    if arguments.get("act_layer") not in (None, *ACTIVATIONS):
        problems.append(f"the activation {arguments['act_layer']}")
    if arguments.get("final_norm", True) is False:
        problems.append("no last norm")
    known = {*SHOWN_BY_WEIGHTS, *WITHOUT_EFFECT, *READ_HERE, *UNSUPPORTED_ARGS}
    problems += [
        f"the argument {argument}"
        for argument, value in arguments.items()
        if value is not None and argument not in known
    ]
    if problems or architecture is None:
        raise unsupported(name, problems)
    return architecture


def _fields(name: str, document: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    said = {ours: arguments[theirs] for theirs, ours in AS_FIELDS.items() if arguments.get(theirs) is not None}
    fields: dict[str, Any] = dict(said)
    if "patch_size" in said:
        fields["patch_size"] = as_pair(said["patch_size"], "patch_size")
    if arguments.get("norm_layer"):
        fields["epsilon"] = EPSILON
    if arguments.get("act_layer"):
        fields["activation"] = ACTIVATIONS[arguments["act_layer"]]
    if arguments.get("num_heads"):
        fields["num_heads"] = arguments["num_heads"]
    pooling = arguments.get("global_pool", document.get("global_pool"))
    if pooling is not None:
        if pooling not in POOLINGS:
            raise unsupported(name, [f"the pooling {pooling}"])
        fields["pooling"] = POOLINGS[pooling]
    if classes := document.get("num_classes", arguments.get("num_classes")):
        fields["num_classes"] = classes
    return fields


def labels_of(document: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in a config.json and its `pretrained_cfg`."""
    names = document.get("label_names")
    if not names:  # those of the weights that a training began with stay where they were when the head is another
        names = data.get("label_names") or ()
        names = names if len(names) == document.get("num_classes") else ()
    if isinstance(names, Mapping):
        return ordered_labels({int(index): str(name) for index, name in names.items()}, f"label_names of {CONFIG}")
    return tuple(map(str, names))


def data_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """timm's `pretrained_cfg` in a config.json; the first that timm wrote have its entries beside all others.

    Where it says no mean or no deviation, timm takes ImageNet's, which is marked as assumed.
    """
    data = dict(document.get("pretrained_cfg", document) or {})
    if "pretrained_cfg" not in document and "labels" in document:
        data["label_names"] = document["labels"]
    silent = not data.get("mean") or not data.get("std")
    return {**data, ASSUMED_PIXELS: True} if silent else data


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
