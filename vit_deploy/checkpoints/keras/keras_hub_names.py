"""The places of keras-hub's weights in an HDF5 file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vit_deploy.checkpoints.gathering import Origin
from vit_deploy.checkpoints.keras.parts import Parts, first, reshaped
from vit_deploy.core.choices import FFNType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

ROLES = ("query", "key", "value")
UNNAMED = {"layers", "_layers", "encoder_layers", "vars"}
BACKBONE = re.compile(r"layers/(vi_t|dei_t|dinov2)_backbone/")


@dataclass(frozen=True)
class Layout:
    """The paths to the parts of one architecture, from its top or from a block.

    Args:
        embedding: the name of the token embedding.
        patches: the name of the convolution within it.
        block: the name of the first block; those after it have a number.
        norms: the names of a block's norms.
        attention: the name of a block's attention.
        up: first Dense of the mlp.
        down: second Dense of the mlp.
        norm: the last one.
    """

    embedding: str
    patches: str
    block: str
    norms: tuple[str, str]
    attention: str
    up: str
    down: str
    norm: str


LAYOUTS = {
    "ViT": Layout(
        embedding="vi_t_patching_and_embedding",
        patches="patch_embedding",
        block="vi_t_encoder.vi_t_encoder_block",
        norms=("layer_norm_1", "layer_norm_2"),
        attention="mha",
        up="mlp.dense_1",
        down="mlp.dense_2",
        norm="vi_t_encoder.layer_norm",
    ),
    "DeiT": Layout(
        embedding="dei_t_embeddings",
        patches="patch_embedding",
        block="dei_t_encoder.dei_t_encoder_block",
        norms=("layer_norm_1", "layer_norm_2"),
        attention="mha",
        up="mlp.dense",
        down="output_layer.dense",
        norm="dei_t_encoder.layer_norm",
    ),
    "DINOV2": Layout(
        embedding="dinov2_embedding",
        patches="patch_embeddings.projection",
        block="dinov2_encoder.dinov2_layer",
        norms=("norm1", "norm2"),
        attention="attention.attention",
        up="mlp.fc1",
        down="mlp.fc2",
        norm="layer_normalization",
    ),
}


@dataclass(frozen=True)
class Biases:
    """The parts that have biases; the attention's output has one where its inputs have."""

    patches: bool = True
    attention: bool = True
    mlp: bool = True


def by_path(names: Iterable[str]) -> dict[str, str]:
    """Path through the attributes, with dots, to the name in the file; the same within a classifier as alone.

    Raises:
        CheckpointError: two variables at the same path.
    """
    found: dict[str, str] = {}
    for name in names:
        parts = [part.removeprefix("_") for part in BACKBONE.sub("", name, count=1).split("/") if part not in UNNAMED]
        if (path := ".".join(parts)) in found:
            raise CheckpointError(f"{path} is there twice: {found[path]} and {name}", fix="save the model again")
        found[path] = name
    return found


def origins(names: dict[str, str], architecture: str, config: ViTConfig, biases: Biases) -> dict[str, Origin]:
    """Where each weight comes from.

    Args:
        names: the result of `by_path`.
        architecture: key of `LAYOUTS`.
        config: the config of the model.
        biases: that it has.
    """
    table, layout = Parts(names), LAYOUTS[architecture]
    dim, hidden = config.embed_dim, config.mlp_dim
    table.dense("patch_embed", f"{layout.embedding}.{layout.patches}")
    for index in range(config.num_layers):
        block, path = f"block_{index}", layout.block + (f"_{index}" if index else "")
        for number, norm in enumerate(layout.norms, start=1):
            _norm(table, f"{block}.norm{number}", f"{path}.{norm}")
        _attention(table, f"{block}.attention", f"{path}.{layout.attention}", config)
        if config.ffn_type is FFNType.SWIGLU:
            table.split((f"{block}.ffn.gate", f"{block}.ffn.up"), f"{path}.mlp.weights_in")
            table.dense(f"{block}.ffn.down", f"{path}.mlp.weights_out")
        else:
            table.dense(f"{block}.ffn.up", f"{path}.{layout.up}")
            table.dense(f"{block}.ffn.down", f"{path}.{layout.down}")
        for number in (1, 2) if config.layer_scale else ():
            table.put(f"{block}.scale{number}.gamma", f"{path}.layer_scale{number}.0")
        absent = [(f"{block}.attention.out", dim, biases.attention)]
        absent += [(f"{block}.ffn.up", hidden, biases.mlp), (f"{block}.ffn.down", dim, biases.mlp)]
        for part, size, present in absent:
            if not present:
                table.constant(f"{part}.bias", 0, size)
    if not biases.patches:
        table.constant("patch_embed.bias", 0, dim)
    _norm(table, "norm", layout.norm)
    heads = ["dense", "dense_1"]
    if config.pre_logits_dim:
        table.dense("pre_logits", heads.pop(0))
    table.dense("head", heads[0])
    return table.origins


def _norm(table: Parts, canonical: str, path: str) -> None:
    table.put(f"{canonical}.scale", f"{path}.0")
    table.put(f"{canonical}.bias", f"{path}.1")


def _attention(table: Parts, canonical: str, path: str, config: ViTConfig) -> None:
    dim, heads, width = config.embed_dim, config.num_heads, config.head_dim
    for role in ROLES:
        table.put(f"{canonical}.{role}.kernel", f"{path}.{role}_dense.0", reshaped((dim, heads, width), (dim, dim)))
        if config.qkv_bias:
            table.put(f"{canonical}.{role}.bias", f"{path}.{role}_dense.1", reshaped((heads, width), (dim,)))
    table.put(f"{canonical}.out.kernel", f"{path}.output_dense.0", reshaped((heads, width, dim), (dim, dim)))
    table.put(f"{canonical}.out.bias", f"{path}.output_dense.1")


def token_origins(
    names: dict[str, str], architecture: str, config: ViTConfig, *, mask_token: bool
) -> tuple[dict[str, Origin], list[str]]:
    """Where the tokens in front and the positions come from, and the variables that the function does without.

    DINOv2 keeps two position tables: the one that it was trained with, and the one of its own image size, which it adds
    to the patches, and which is taken here. (keras-hub makes the second again from the first when it loads a file; the
    two say the same, except after a training at another size.)
    """
    table, embedding = Parts(names), LAYOUTS[architecture].embedding
    if architecture == "ViT":
        table.put("class_token.class", f"{embedding}.0", first)
        table.put("pos_embed.table", f"{embedding}.position_embedding.0")
        return table.origins, []
    table.put("class_token.class", f"{embedding}.0", first)
    if architecture == "DeiT":
        table.put("class_token.distillation", f"{embedding}.1", first)
        table.put("pos_embed.table", f"{embedding}.2", first)
        return table.origins, []
    at = 1 + mask_token
    unused = [names[f"{embedding}.1"]] if mask_token and f"{embedding}.1" in names else []
    if config.register_tokens:
        table.put("class_token.registers", f"{embedding}.{at}", first)
        at += 1
    registers = np.zeros((config.register_tokens, config.embed_dim), np.float32)

    def positions(stored: Float32) -> Float32:
        own = first(stored)
        return np.vstack([own[:1], registers, own[1:]])

    table.put("pos_embed.table", f"{embedding}.{at}", positions)
    unused += [names[f"{embedding}.{at + 1}"]] if f"{embedding}.{at + 1}" in names else []
    return table.origins, unused
