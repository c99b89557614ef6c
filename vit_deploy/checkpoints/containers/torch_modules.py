"""What a pickled module says of its function besides its tensors, as attributes: heads, epsilon, activation, images.

A state dict does not have them. They are taken where all modules of a model agree; what no config here can say is
named, for whoever reads the model to refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vit_deploy.checkpoints.containers.torch_pickle import Inert
from vit_deploy.core.choices import Activation, NormalizationPosition, Pooling
from vit_deploy.core.config_checks import is_count

UNREAD = "unread"
"""The entry of what is found that lists, in words, what no config here can say."""

HEADS = ("num_heads", "num_attention_heads")
GATED = ("glu",)  # in names of classes whose activation is another thing
ACTIVATIONS: Mapping[str, Activation] = {
    **dict.fromkeys(("GELU", "GELUActivation"), Activation.GELU),
    **dict.fromkeys(
        ("GELUTanh", "PytorchGELUTanh", "NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation"),
        Activation.GELU_TANH,
    ),
    **dict.fromkeys(("QuickGELU", "QuickGELUActivation"), Activation.QUICK_GELU),
    **dict.fromkeys(("SiLU", "Swish", "SiLUActivation"), Activation.SILU),
    **dict.fromkeys(("Hardswish", "HardSwish"), Activation.HARD_SILU),
    **dict.fromkeys(("Mish", "MishActivation"), Activation.MISH),
    **{"ReLUSquaredActivation": Activation.SQUARED_RELU, "LeakyReLU": Activation.LEAKY_RELU_TORCH},
    **{"ReLU": Activation.RELU, "ReLU6": Activation.RELU6, "ELU": Activation.ELU},
}
"""By the name of the class, without its module."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {"LeakyReLU": {"negative_slope": 0.01}, "ELU": {"alpha": 1.0}}
"""What these have to be for that, where a module says it."""

ALONE: Mapping[str, Activation] = {"Tanh": Activation.TANH, "Sigmoid": Activation.SIGMOID}
"""Likewise, of those that a pooler or a head has beside the blocks' own."""

ACTIVATION = re.compile(
    r"(^|\.)(torch\.nn\.modules\.activation|timm\.layers\.activations\w*|transformers\.activations)\."
)
NO_ACTIVATION = ("MultiheadAttention", "Softmax", "LogSoftmax", "Softmax2d", "Softmin")
BACKBONE = re.compile(r"(^|\.)transformers\.models\..*Backbone$")
OF_TRANSFORMERS = re.compile(r"(^|\.)transformers\.models\.")
OF_TIMM = re.compile(r"(^|\.)timm\.models\.vision_transformer\.")
BLOCKS = re.compile(r"\w*Block$")
NORMED_BEFORE_SUMS = "ResPostBlock"
KNOWN_BLOCKS = ("Block", NORMED_BEFORE_SUMS, "ParallelScalingBlock")  # the last is told by its tensors' names
POOLINGS: Mapping[str, Pooling] = {"token": Pooling.CLS, "avg": Pooling.MEAN, "max": Pooling.MAX, "map": Pooling.MAP}


def facts_of(modules: Iterable[Inert]) -> dict[str, Any]:
    """Fields of the config that all of these modules agree in, and `UNREAD`."""
    found: dict[str, set[Any]] = {}
    alone: set[str] = set()
    unread: dict[str, None] = {}
    for module in modules:
        name = module.name.rpartition(".")[2]
        for field, value in _fields(module, name):
            found.setdefault(field, set()).add(value)
        if name in ALONE:
            alone.add(str(ALONE[name]))
        unread |= dict.fromkeys(_unread(module, name))
    if len(alone) == 1:
        found.setdefault("activation", alone)
    facts = {field: next(iter(values)) for field, values in found.items() if len(values) == 1}
    return {**facts, UNREAD: list(unread)} if unread else facts


def _fields(module: Inert, name: str) -> Iterator[tuple[str, Any]]:
    attributes = module.attributes
    yield from (("num_heads", value) for key in HEADS if is_count(value := attributes.get(key)) and value > 0)
    if name.endswith("Norm") and isinstance(attributes.get("eps"), float):
        yield "epsilon", attributes["eps"]
    if any(word in name.lower() for word in GATED):  # which agrees with nothing
        yield from (("activation", value) for value in ("", name))
    if name in ACTIVATIONS:
        tanh = attributes.get("approximate") == "tanh"
        yield "activation", str(Activation.GELU_TANH if tanh else ACTIVATIONS[name])
    pooling = attributes.get("global_pool") if OF_TIMM.search(module.name) and name == "VisionTransformer" else None
    if isinstance(pooling, str) and pooling in POOLINGS:
        yield "pooling", str(POOLINGS[pooling])
    if OF_TIMM.search(module.name) and name == NORMED_BEFORE_SUMS:
        yield "normalization_position", str(NormalizationPosition.RES_POST)
    if size := _size(_said_size(module, name)):
        yield "image_size", size


def _said_size(module: Inert, name: str) -> Any:
    """What timm's patches, or the config that transformers keeps in every module, say of the images."""
    if name == "PatchEmbed":
        return module.attributes.get("img_size")
    config = module.attributes.get("config") if OF_TRANSFORMERS.search(module.name) else None
    return config.attributes.get("image_size") if isinstance(config, Inert) else None


def _size(said: Any) -> tuple[int, int] | None:
    sides = (said, said) if is_count(said) else said
    if not isinstance(sides, tuple | list) or len(sides) != 2 or not all(is_count(side) and side > 0 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def _unread(module: Inert, name: str) -> Iterator[str]:
    if ACTIVATION.search(module.name) and name not in (*ACTIVATIONS, *ALONE, *NO_ACTIVATION):
        yield f"the activation {name}"
    for option, usual in OPTIONS.get(name, {}).items():
        if (said := module.attributes.get(option, usual)) != usual:
            yield f"the activation {name} with {option} {said}"
    if BACKBONE.search(module.name):
        yield f"the feature maps of {name}, whose stages its config says (save_pretrained keeps it)"
    if not OF_TIMM.search(module.name):
        return
    if BLOCKS.match(name) and name not in KNOWN_BLOCKS:
        yield f"the blocks {name}"
    if module.attributes.get("pool_include_prefix") is True and module.attributes.get("global_pool") in ("avg", "max"):
        yield "a pooling that takes its prefix tokens in"
    if module.attributes.get("global_pool") == "" and module.attributes.get("num_classes"):
        yield "a head for every token"
