"""Checkpoints of keras-hub's ViT, DeiT and DINOv2, read without keras-hub.

From a `.keras` file, or from a preset folder, which has the weights of the backbone and of the head in a file each.
The epsilon is that of the file's own config, and 1e-6 for DINOv2: what keras-hub computes with, even where the
checkpoint that it converted had another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.documents import STATED_PREPROCESS, explained
from vit_deploy.checkpoints.gathering import check_layers, gather
from vit_deploy.checkpoints.importing import Settled, imported
from vit_deploy.checkpoints.keras.folding import LINEAR, LOGITS
from vit_deploy.checkpoints.keras.image_converter import FILE as CONVERTER
from vit_deploy.checkpoints.keras.image_converter import preprocess_of, supposed_of
from vit_deploy.checkpoints.keras.keras_hub_names import LAYOUTS, Biases, by_path, origins, token_origins
from vit_deploy.checkpoints.keras.source import STATES
from vit_deploy.checkpoints.source import Stated, TensorFile, settled_config
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import FFNType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.errors import CheckpointError

FAMILY = "keras-hub"
BACKBONES = {f"keras_hub>{name}Backbone": name for name in LAYOUTS}
CLASSIFIERS = {f"keras_hub>{name}ImageClassifier": name for name in ("ViT", "DeiT")}
EPSILON = 1e-6  # which DINOv2 has in its code
POOLINGS = {"token": Pooling.CLS, "gap": Pooling.MEAN}

SIZES = ("image_shape", "patch_size", "num_layers", "num_heads", "hidden_dim")
TRAINING = ("name", "trainable", "dtype", "dropout_rate", "attention_dropout", "quantization_config")
OPTIONS = {
    "ViT": ("mlp_dim", "layer_norm_epsilon", "use_mha_bias", "use_mlp_bias", "use_class_token", "use_patch_bias"),
    "DeiT": ("intermediate_dim", "layer_norm_epsilon", "use_mha_bias"),
    "DINOV2": (
        *("intermediate_dim", "num_register_tokens", "use_mask_token", "use_swiglu_ffn"),
        # Of training and of loading; the last is about outputs of single blocks.
        *("layer_scale_init_value", "drop_path_rate", "position_embedding_shape", "antialias_in_interpolation"),
        "apply_layernorm",
    ),
}
OF_HEADS = (
    *("backbone", "preprocessor", "name", "trainable", "dtype", "dropout", "head_dtype"),
    *("num_classes", "pooling", "activation", "intermediate_dim"),
)


@dataclass(frozen=True)
class _Model:
    """The backbone that a document describes, and the head if there is one, by their options.

    Args:
        architecture: key of `OPTIONS`.
        backbone: its options.
        head: those of the head.
        converter: what is recorded of the image converter, class and config; None where nothing of it counts.
    """

    architecture: str
    backbone: Mapping[str, Any]
    head: Mapping[str, Any] | None
    converter: Mapping[str, Any] | None


class KerasHubSource:
    """A backbone or a classifier of keras-hub."""

    heads = None

    def detects(self, file: TensorFile) -> bool:
        """Whether the model's registered name is keras-hub's."""
        if file.container not in ("keras", "h5"):
            return False
        return file.documents.get("config.json", {}).get("registered_name") in {**BACKBONES, **CLASSIFIERS}

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; a backbone alone gives its whole sequence."""
        names = by_path(name for name in file.names() if not STATES & set(name.split("/")))
        with explained("the config of its model"):
            model = _model(file)
            values = model.backbone
            config = _config(model)
            preprocess = preprocess_of(model.converter, config)
            biases = Biases(*(values.get(f"use_{part}_bias", True) for part in ("patch", "mha", "mlp")))
            mask_token = bool(model.architecture == "DINOV2" and values["use_mask_token"])
        config = settled_config(config, stated)
        check_layers(file, config)
        tokens, unused = token_origins(names, model.architecture, config, mask_token=mask_token)
        table = origins(names, model.architecture, config, biases) | tokens
        ignored = [*unused, *(name for name in file.names() if STATES & set(name.split("/")))]
        weights = gather(file, table, config, ignored=ignored)
        supposed = supposed_of(model.converter, config.image_size)
        return imported(Settled(config, {}), weights, family=FAMILY, preprocess=preprocess, supposed=supposed)


def _model(file: TensorFile) -> _Model:
    document = file.documents["config.json"]
    beside = file.documents if file.container == "h5" else {}
    task = beside.get("task.json")
    if task is not None and task.get("registered_name") in CLASSIFIERS:
        document = task
    head = None
    backbone = document
    converter = beside.get(CONVERTER)
    if document["registered_name"] in CLASSIFIERS:
        head = document["config"]
        backbone = head["backbone"]
        converter = (head.get("preprocessor") or {}).get("config", {}).get("image_converter") or converter
    if backbone.get("registered_name") not in BACKBONES:
        raise CheckpointError(
            f"its classifier is on a {backbone.get('registered_name') or backbone.get('class_name')}, which is none of "
            f"{', '.join(BACKBONES)}, and no code of the file is run",
            fix="save a classifier on one of those",
        )
    architecture = BACKBONES[backbone["registered_name"]]
    whole = STATED_PREPROCESS in file.documents
    return _Model(architecture, backbone["config"], head, None if whole else converter or None)


def _config(model: _Model) -> ViTConfig:
    values, architecture = model.backbone, model.architecture
    problems = list(_problems(model))
    if problems:
        raise CheckpointError(
            f"its model has {'; '.join(problems)}", fix="a model can be imported if it does without what is named above"
        )
    height, width, channels = values["image_shape"]
    swiglu = values.get("use_swiglu_ffn", False)
    hidden = values["mlp_dim" if architecture == "ViT" else "intermediate_dim"]
    config = ViTConfig(
        image_size=(height, width),
        patch_size=as_pair(values["patch_size"], "patch_size"),
        channels=channels,
        embed_dim=values["hidden_dim"],
        num_heads=values["num_heads"],
        num_layers=values["num_layers"],
        mlp_dim=(int(hidden * 2 / 3) + 7) // 8 * 8 if swiglu else hidden,
        num_classes=0,
        include_top=False,
        ffn_type=FFNType.SWIGLU if swiglu else FFNType.MLP,
        epsilon=EPSILON if architecture == "DINOV2" else values["layer_norm_epsilon"],
        qkv_bias=values.get("use_mha_bias", True),
        class_token=values.get("use_class_token", True),
        distillation_token=architecture == "DeiT",
        register_tokens=values.get("num_register_tokens", 0),
        layer_scale=architecture == "DINOV2",
    )
    head = model.head
    if head is None:
        return config
    return config.replace(
        include_top=True,
        num_classes=head["num_classes"],
        pooling=POOLINGS[head["pooling"]],
        pre_logits_dim=head.get("intermediate_dim") or 0,
    )


def _problems(model: _Model) -> Iterator[str]:
    """What stands in the way of the import, in words."""
    known = {*SIZES, *TRAINING, *OPTIONS[model.architecture]}
    yield from (f"the option {name}, which is not known" for name in sorted(set(model.backbone) - known))
    if model.head is None:
        return
    yield from (f"a head with {name}, which is not known" for name in sorted(set(model.head) - set(OF_HEADS)))
    class_token = model.backbone.get("use_class_token", True)
    pooling, activation = model.head["pooling"], model.head["activation"]
    if pooling not in POOLINGS:
        yield f"the pooling {pooling!r}, not one of {', '.join(POOLINGS)}"
    elif pooling == "gap" and class_token:
        yield "the pooling 'gap' over class token and patches alike; a mean here leaves the class token out"
    elif pooling == "token" and not class_token:
        yield "the pooling 'token' of the first patch, for there is no class token"
    if activation not in LINEAR:
        yield f"a head with the activation {activation!r} ({LOGITS})"
