"""Our own ViT's `.keras` and `.weights.h5` files as checkpoints, read without Keras."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.checkpoints.documents import as_list, as_ranges, explained
from vit_deploy.checkpoints.gathering import gather
from vit_deploy.checkpoints.importing import alone
from vit_deploy.checkpoints.keras.folding import HOUSES, REGISTERED, fold
from vit_deploy.checkpoints.source import Stated, TensorFile, settled_config
from vit_deploy.core.checkpoint import Checkpoint, Ranges
from vit_deploy.core.config import LATER, ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import CheckpointError

# Arguments of the Keras model that say how it is trained or made, and nothing about the function.
TRAINING = (
    *("name", "trainable", "dtype", "dropout_rate", "attention_dropout_rate", "pos_dropout_rate"),
    *("stochastic_depth_rate", "seed", "kernel_initializer", "bias_initializer", "kernel_regularizer"),
    "bias_regularizer",
)
FUNCTION = (
    *("num_classes", "include_top", "pooling", "normalization_type", "normalization_position", "ffn_type"),
    *("activation", "epsilon", "patch_size", "class_token", "distillation_token", "register_tokens", "layer_scale"),
    *("qk_norm", "pre_norm", "norm_after_pooling", "pre_logits_dim", "rotary", *LATER),
)
SIZES = ("embed_dim", "num_heads", "num_layers", "mlp_dim")  # None leaves the scale's
TRAVELLING = ("input_shape", "scale", "attention_args", "preprocess", "labels", "provenance", "ranges")

# Keras names a layer in a file by the attribute that holds it or, in a list, by its class and a number.
LISTS = {"layers", "_layers", "transformer_layers"}
RENAMED = {
    "patch_embedding": "patch_embed",
    "prefix_tokens": "class_token",
    "position_embedding": "pos_embed",
    "map_pooling": "map_pool",
    "patch_norm": "patch_norm",
    "pixel_norm": "pixel_norm",
    "linear_pre_logits": "pre_logits",
    "relative_scores": "relative",
}
BLOCK = re.compile(r"transformer_block(?:_(\d+))?")
VIT_PREFIX = "layers/vi_t/"  # of the only ViT in a functional model or a sequence
HEAD = {"layers/dense/vars/0": "head.kernel", "layers/dense/vars/1": "head.bias"}
STATES = {"optimizer", "seed_generator"}  # of training; the function does not depend on them


class KerasSource:
    """Our ViT, alone or in a functional model or a sequence with a new head."""

    heads = None

    def detects(self, file: TensorFile) -> bool:
        """Any `.keras` file: `read` says what is in the way if it holds no ViT of ours."""
        return file.container == "keras"

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; a new head is folded into it."""
        document = file.documents["config.json"]
        if document.get("registered_name") == REGISTERED:
            return _alone(file, document, stated)
        kind = document.get("registered_name") or document.get("class_name")
        if kind in HOUSES:
            return _under_new_head(file, document, stated)
        raise CheckpointError(
            f"it holds a {kind}, which is not a ViT of vit-deploy, and no code of the file is run",
            fix="copy its weights into a vit_deploy.ViT and save that",
        )


class KerasWeightsSource:
    """What `save_weights` wrote of our ViT; its config is given."""

    heads = None

    def detects(self, file: TensorFile) -> bool:
        """An HDF5 file that has the patches' kernel and the positions where Keras puts them."""
        names = canonical_names(file.names(), "")
        return file.container == "h5" and {"patch_embed.kernel", "pos_embed.table"} <= set(names)

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint, with the usual preprocessing, as an assumption: the file says nothing about it."""
        settled = settled_config(None, stated)
        weights = gather(file, canonical_names(file.names(), ""), settled, ignored=_states(file))
        return alone(settled, weights)


def canonical_names(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """Canonical name to the path in the file, for the ViT whose paths begin with `prefix`."""
    names: dict[str, str] = {}
    for key in keys:
        parts = key.removeprefix(prefix).split("/")
        if key.startswith(prefix) and not STATES & set(parts):
            _put(names, ".".join(_renamed(part) for part in parts if part not in LISTS and part != "vars"), key)
    return names


def _states(file: TensorFile) -> set[str]:
    return {key for key in file.names() if STATES & set(key.split("/"))}


def _put(names: dict[str, str], name: str, key: str) -> None:
    if name in names:
        raise CheckpointError(f"{name} is there twice: {names[name]} and {key}", fix="save the model again")
    names[name] = key


def _renamed(part: str) -> str:
    if block := BLOCK.fullmatch(part):
        return f"block_{block[1] or 0}"
    return RENAMED.get(part, part)


@dataclass(frozen=True)
class _Described:
    """All that a `.keras` file says about a ViT besides its weights."""

    config: ViTConfig
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: tuple[Step, ...]
    ranges: Ranges


def _described(document: Mapping[str, Any]) -> _Described:
    with explained("the config of its ViT"):
        values = document["config"]
        config = vit_config(values)
        preprocess = values.get("preprocess")
        return _Described(
            config,
            Preprocess.from_dict(preprocess) if preprocess else Preprocess.for_channels(config.channels),
            tuple(map(str, as_list(values.get("labels", [])))),
            tuple(map(Step.from_dict, as_list(values.get("provenance", [])))),
            as_ranges(values.get("ranges", {})),
        )


def _alone(file: TensorFile, document: Mapping[str, Any], stated: Stated) -> Checkpoint:
    vit = _described(document)
    config = settled_config(vit.config, stated)
    weights = gather(file, canonical_names(file.names(), ""), config, ignored=_states(file))
    return Checkpoint(config, weights, vit.preprocess, vit.labels, vit.provenance, vit.ranges)


def _under_new_head(file: TensorFile, document: Mapping[str, Any], stated: Stated) -> Checkpoint:
    with explained("its config.json"):
        folded = fold(document)
    vit = _described(folded.vit)
    with explained(f"the head {folded.head!r}"):
        config = vit.config.replace(include_top=True, num_classes=folded.num_classes)
    config = settled_config(config, stated)
    names, states = canonical_names(file.names(), VIT_PREFIX), _states(file)
    for key in file.names():
        if not key.startswith(VIT_PREFIX) and key not in states:
            _put(names, HEAD.get(key, key), key)
    weights = gather(file, names, config, ignored=states)
    kernel = weights.get("head.kernel")
    # Only a kernel that was really read says that there are so many classes.
    width = config.pre_logits_dim or config.pooled_dim
    if not folded.use_bias and kernel is not None and kernel.shape == (width, config.num_classes):
        weights.setdefault("head.bias", np.zeros(config.num_classes, np.float32))
    labels = vit.labels if len(vit.labels) == config.num_classes else ()
    step = Step("fold", {"model": folded.name, "head": folded.head, "num_classes": config.num_classes})
    return Checkpoint(config, weights, vit.preprocess, labels, (*vit.provenance, step))


def vit_config(values: Mapping[str, Any]) -> ViTConfig:
    """The config behind the arguments of the Keras model's constructor.

    Raises:
        CheckpointError: arguments that this version does not know.
        ConfigError: values no ViT can have.
    """
    if unknown := sorted(set(values) - {*TRAINING, *FUNCTION, *SIZES, *TRAVELLING}):
        raise CheckpointError(
            f"its ViT has options that this version does not know: {', '.join(unknown)}", fix="update vit-deploy"
        )
    fields = {name: values[name] for name in FUNCTION if name in values}
    fields |= {name: values[name] for name in SIZES if values.get(name) is not None}
    height, width, channels = values.get("input_shape", (224, 224, 3))
    attention_args = values.get("attention_args") or {}
    return ViTConfig.from_scale(
        values.get("scale", "base"),
        image_size=(height, width),
        channels=channels,
        qkv_bias=attention_args.get("qkv_bias", True),
        **fields,
    )
