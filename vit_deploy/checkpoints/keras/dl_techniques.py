"""`.keras` files of the ViT in NikolasMarkou/dl_techniques, read without its code.

The config of the whole model is in `config.json`; the parts are known by the attributes that hold them, or in a list by
their classes. Its blocks normalize after their halves unless told otherwise, and so it says in every file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.gathering import Origin, gather
from vit_deploy.checkpoints.importing import Settled, imported
from vit_deploy.checkpoints.keras.parts import Parts, first
from vit_deploy.checkpoints.keras.source import LISTS, STATES
from vit_deploy.checkpoints.source import Stated, TensorFile, settled_config
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import FFNType, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import BAND_WIDTH
from vit_deploy.errors import CheckpointError

FAMILY = "dl_techniques"
PACKAGE = "dl_techniques."
EPSILON = 1e-6  # which its factory gives to every norm, whatever the class of the norm has by itself
TRAINING = (
    *("name", "trainable", "dtype", "dropout_rate", "attention_dropout_rate", "pos_dropout_rate"),
    *("kernel_initializer", "kernel_regularizer", "bias_initializer", "bias_regularizer", "layer_scale_init_value"),
)
FUNCTION = (
    *("input_shape", "num_classes", "scale", "patch_size", "include_top", "pooling", "normalization_type"),
    *("normalization_kwargs", "normalization_position", "ffn_type", "activation", "use_layer_scale"),
)
# A gated feed-forward is named here by its gate, there by its class, which may be given another gate.
GATED = {"gelu": "geglu", "silu": "swiglu", "swish": "swiglu", "sigmoid": "glu"}
FFN_TYPES = ("mlp", "swiglu", "geglu", "glu")
NORM_CLASSES = ("layer_normalization", "rms_norm", "band_rms", "dynamic_tanh")
FREE_OF_NORMS = ("epsilon", "use_scale", "alpha_init_value")
TRAINING_OF_NORMS = ("_initializer", "_regularizer", "_constraint")
SPELLINGS = {
    "patch_embedding2d": "patch_embed",
    "positional_embedding": "pos_embed",
    **dict.fromkeys(NORM_CLASSES, "norm"),
}
BLOCK = re.compile(r"transformer_layer(?:_(\d+))?")
PACKED = ("query", "key", "value")
NORM_VARIABLES = {  # in the order in which they are numbered in the file
    NormalizationType.LAYER_NORM: ("scale", "bias"),
    NormalizationType.RMS_NORM: ("scale",),
    NormalizationType.DYNAMIC_TANH: ("alpha", "scale", "bias"),
    NormalizationType.BAND_RMS: ("band",),
}


class DlTechniquesSource:
    """The ViT of dl_techniques, alone in a `.keras` file."""

    heads = None

    def detects(self, file: TensorFile) -> bool:
        """Whether the class is from one of its modules."""
        document = file.documents.get("config.json", {}) if file.container == "keras" else {}
        ours = any(str(document.get(key)).startswith(PACKAGE) for key in ("module", "registered_name"))
        return ours and document.get("class_name") == "ViT"

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint, with the usual preprocessing: the file says nothing about it."""
        with explained("the config of its ViT"):
            values = file.documents["config.json"]["config"]
            norms = dict(values.get("normalization_kwargs") or {})
            config = _config(values, norms)
        names = _by_part(file.names())
        if (gate := names.get("block_0.ffn_layer.gate_proj.0")) and len(shape := file.shape(gate)) == 2:
            config = config.replace(mlp_dim=shape[1])  # which SwiGLU computes from the embed dim
        config = settled_config(config, stated)
        states = [name for name in file.names() if STATES & set(name.split("/"))]
        weights = gather(file, _origins(names, config, norms), config, ignored=states)
        return imported(Settled(config, {}), weights, family=FAMILY)


def _config(values: Mapping[str, Any], norms: dict[str, Any]) -> ViTConfig:
    kind = values["normalization_type"]
    problems = [f"the option {name}, which is not known" for name in sorted(set(values) - {*TRAINING, *FUNCTION})]
    ffn_type, activation = values["ffn_type"], values["activation"]
    if not isinstance(activation, str):
        problems.append("an activation of its own, which is code and is not run")
    if ffn_type not in FFN_TYPES:
        problems.append(f"ffn_type {ffn_type}, not one of {', '.join(FFN_TYPES)}")
    elif ffn_type in ("geglu", "glu") and activation not in GATED:
        problems.append(f"{ffn_type} with the activation {activation}, not one of {', '.join(GATED)}")
    if kind not in list(NormalizationType):
        problems.append(f"normalization_type {kind}, not one of {', '.join(NormalizationType)}")
    problems += _norm_problems(norms)
    if problems:
        raise CheckpointError(
            f"its ViT has {'; '.join(problems)}", fix="a model can be imported if it does without what is named above"
        )
    height, width, channels = values["input_shape"]
    return ViTConfig.from_scale(
        values["scale"],
        image_size=(height, width),
        channels=channels,
        patch_size=values["patch_size"],
        num_classes=values["num_classes"],
        include_top=values["include_top"],
        pooling=None if values["include_top"] else values["pooling"],  # its head takes the class token in any case
        normalization_type=kind,
        normalization_position=values["normalization_position"],
        epsilon=norms.get("epsilon", EPSILON),
        ffn_type=GATED[activation] if ffn_type in ("geglu", "glu") else ffn_type,
        activation=activation if ffn_type == "mlp" else "gelu",
        layer_scale=values.get("use_layer_scale", False),
    )


def _norm_problems(norms: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be said of a norm in a `ViTConfig`; the initializers and the like do not count."""
    usual = {"axis": -1, "max_band_width": BAND_WIDTH, "center": True, "scale": True, "rms_scaling": False}
    for name, value in norms.items():
        plain = value[0] if name == "axis" and isinstance(value, list) and len(value) == 1 else value
        if name in usual and plain != usual[name]:
            yield f"norms with {name} {value}, not {usual[name]}"
        elif name not in usual and name not in FREE_OF_NORMS and not name.endswith(TRAINING_OF_NORMS):
            yield f"norms with {name}, which is not known"


def _by_part(names: Iterable[str]) -> dict[str, str]:
    """Path through the attributes, with dots, to the name in the file, whichever way Keras took to the part."""
    found: dict[str, str] = {}
    for name in names:
        parts = [part for part in name.split("/") if part not in LISTS and part != "vars"]
        if block := BLOCK.fullmatch(parts[0]):
            parts[0] = f"block_{block[1] or 0}"
        else:
            parts[0] = SPELLINGS.get(parts[0], parts[0])
        if (path := ".".join(parts)) in found:
            raise CheckpointError(f"{path} is there twice: {found[path]} and {name}", fix="save the model again")
        found[path] = name
    return found


def _origins(names: Mapping[str, str], config: ViTConfig, norms: Mapping[str, Any]) -> dict[str, Origin]:
    table = Parts(names)
    table.dense("patch_embed", "patch_embed.proj")
    table.put("class_token.class", "0", first)
    table.put("pos_embed.table", "pos_embed.0", first)
    for index in range(config.num_layers):
        block = f"block_{index}"
        _norm(table, config, f"{block}.norm1", f"{block}.attention_norm", norms)
        _norm(table, config, f"{block}.norm2", f"{block}.output_norm", norms)
        attention, inside = f"{block}.attention", f"{block}.attention.cross_attention"
        roles = tuple(f"{attention}.{role}" for role in PACKED)
        table.split(roles, f"{attention}.qkv", f"{inside}.qkv_dense")
        table.dense(f"{attention}.out", f"{attention}.proj", f"{inside}.proj_dense")
        _ffn(table, config, f"{block}.ffn", f"{block}.ffn_layer")
        table.put(f"{block}.scale1.gamma", f"{block}.attention_layer_scale.0")
        table.put(f"{block}.scale2.gamma", f"{block}.ffn_layer_scale.0")
    _norm(table, config, "norm", "norm", norms)
    table.dense("head", "head")
    return table.origins


def _norm(table: Parts, config: ViTConfig, canonical: str, path: str, norms: Mapping[str, Any]) -> None:
    for index, role in enumerate(NORM_VARIABLES[config.normalization_type]):
        if role == "scale" and not norms.get("use_scale", True):
            table.constant(f"{canonical}.scale", 1, config.embed_dim)
        else:
            table.put(f"{canonical}.{role}", f"{path}.{index}")


def _ffn(table: Parts, config: ViTConfig, canonical: str, path: str) -> None:
    gate, up, down = (f"{canonical}.{role}" for role in ("gate", "up", "down"))
    if f"{path}.input_proj.0" in table.names:
        table.split((gate, up), f"{path}.input_proj")
    else:
        table.dense(gate, f"{path}.gate_proj")
        table.dense(up, f"{path}.fc1", f"{path}.value_proj", f"{path}.up_proj")
    table.dense(down, f"{path}.fc2", f"{path}.output_proj", f"{path}.down_proj")
    biased = any(f"{path}.{role}_proj.1" in table.names for role in ("gate", "up", "down", "value", "output"))
    if config.ffn_type is FFNType.SWIGLU and not biased:
        for name, size in ((gate, config.mlp_dim), (up, config.mlp_dim), (down, config.embed_dim)):
            table.constant(f"{name}.bias", 0, size)
