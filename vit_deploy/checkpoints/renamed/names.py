"""One set of common names for torch checkpoints of ViTs that differ in little more than what their parts are called.

Common are `pixel_norm.*`, `patch_embed.weight`, `patch_norm.*`, `cls_token`, `pos_embed`, `pre_norm.*`,
`blocks.0.norm1.*`, `blocks.0.attention.packed.*` (or `query`, `key`, `value`), `blocks.0.attention.out.*`,
`blocks.0.ffn.up.*`, `blocks.0.ffn.down.*` (`ffn.packed` of a gated one, gate first), `blocks.0.scale1`, `norm.*`,
`pre_logits.*`, `head.*`, and `projection` for a matrix (inputs, outputs) in the head's place. Norms within are
`attention.query_norm.*`, `attention.key_norm.*`, `attention.norm.*` and `ffn.norm.*`; `attention.head_scale` multiplies
what each head gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.gathering import Origin, same, transposed, zeros
from vit_deploy.checkpoints.importing import image_size_of, without_rest
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.timm.names import BLOCK, Renamed, kind_of
from vit_deploy.core.choices import FFNType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

CLASS_TOKEN = "cls_token"
TABLES = frozenset({CLASS_TOKEN, "pos_embed"})  # as (rows, dim) here, whatever axes of one they have
QKV = ("query", "key", "value")
PACKED = "blocks.*.attention.packed.weight"
PACKED_GATES = "blocks.*.ffn.packed.weight"
HEAD_SCALE = "blocks.*.attention.head_scale"

Table = Callable[[tuple[int, int], int], Float32]
"""Positions `(patches, dim)` that are computed, from the grid (rows, columns) and the embed dim."""


@dataclass(frozen=True)
class Common(Renamed):
    """A file under common names; tokens and positions have two axes."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        shape = super().shape(name)
        if name not in TABLES:
            return shape
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        return shape if len(shape) != 1 else (1, *shape)

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        values = super().read(name)
        return values.reshape(self.shape(name)) if name in TABLES else values

    def has(self, kind: str) -> bool:
        """Whether there is a tensor of this kind: `norm.weight`, `blocks.*.norm1.bias`."""
        return kind in self.kinds


@dataclass(frozen=True)
class Known:
    """What a program's files say besides their names.

    Args:
        shapes: fields of the config that the tensors say.
        fixed: fields that the program, or a config of its own beside the weights, says.
        defaults: what the program does unless told otherwise.
        sizes: (height, width) in pixels that the weights may be for, best first.
        origins: the origins of weights that the common names do not give.
        preprocess: that is recorded beside the weights, for a config; None where none is.
        supposed: what of that is not taken as it is said, for a config.
        refused: what no ViT here computes, in words.
        fix: what to do about that.
    """

    shapes: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sequence[Any] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    preprocess: Callable[[ViTConfig], Preprocess] | None = None
    supposed: Callable[[ViTConfig], Sequence[Assumed]] = lambda config: ()
    refused: Sequence[str] = ()
    fix: str = ""


def common(
    file: TensorFile, mark: re.Pattern[str], names: Sequence[tuple[str, str]], outside: Sequence[tuple[str, str]]
) -> Common:
    """The file under common names.

    A tensor whose common name is taken keeps its own, and is then unexpected.

    Args:
        file: that is read.
        mark: matches the name of a tensor that such a file has, after a group `prefix` for what is around the encoder.
        names: patterns of the program's names in the encoder and what they become, in this order.
        outside: likewise of names without the prefix, which keep what is before the pattern to themselves.
    """
    stored_names = list(file.names())
    prefix = min((found["prefix"] for name in stored_names if (found := mark.match(name))), key=len)
    stored: dict[str, str] = {}
    for name in stored_names:
        here = name.removeprefix(prefix)
        for pattern, replacement in names if name.startswith(prefix) else outside:
            here = re.sub(pattern, replacement, here)
        if here == CLASS_TOKEN and 0 in file.shape(name):  # no rows: there is none
            continue
        stored[name if here in stored else here] = name
    return Common(file, stored)


def shapes_of(view: Common, flattened: tuple[int, int] | None = None) -> dict[str, Any]:
    """Fields of the config that names and shapes say, all but the image size.

    Args:
        view: the file.
        flattened: (height, width) of a patch where the patches' kernel is a matrix over flattened pixels.

    Raises:
        CheckpointError: a part that every ViT has is missing, or has a shape that no ViT has.
    """
    if not any(map(BLOCK.match, view.names())):
        raise CheckpointError("it has no blocks", fix="the file is damaged or of another network: get it again")
    patches = view.common_shape("patch_embed.weight", 2 if flattened else 4)
    embed_dim = patches[0]
    patch_size = flattened or patches[2:]
    channels = patches[1] // math.prod(patch_size) if flattened else patches[1]
    gated = view.has(PACKED_GATES)
    _, taken = view.common_shape("blocks.*.ffn.down.weight", 2)
    query = "attention.packed" if view.has(PACKED) else "attention.query"
    head = "head.weight" if view.has("head.weight") else "projection"
    heads = {}
    if view.has("blocks.*.attention.query_norm.weight"):
        heads["num_heads"] = embed_dim // view.common_shape("blocks.*.attention.query_norm.weight", 1)[0]
    return {
        "patch_size": tuple(patch_size),
        "channels": channels,
        "embed_dim": embed_dim,
        "num_layers": _depth(view),
        "mlp_dim": taken,
        "ffn_type": FFNType.SWIGLU if gated else FFNType.MLP,
        "qkv_bias": view.has(f"blocks.*.{query}.bias"),
        "layer_scale": view.has("blocks.*.scale1"),
        **({"qk_norm": True, **heads} if heads else {}),
        **{
            field: True
            for field, norm in (("attention_norm", "attention.norm"), ("ffn_norm", "ffn.norm"))
            if view.has(f"blocks.*.{norm}.weight")
        },
        "class_token": view.has("cls_token"),
        "pre_norm": view.has("pre_norm.weight"),
        "pixel_norm": view.has("pixel_norm.weight"),
        "patch_norm": view.has("patch_norm.weight"),
        "pre_logits_dim": view.common_shape("pre_logits.weight", 2)[0] if view.has("pre_logits.weight") else 0,
        "include_top": view.has(head),
        "num_classes": view.common_shape(head, 2)[head == "projection"] if view.has(head) else 0,
    }


def _depth(view: Common) -> int:
    depth = 1 + max(int(found[1]) for name in view.names() if (found := BLOCK.match(name)))
    if depth > len(view.stored):
        raise CheckpointError(
            f"it names {depth} blocks, and holds {len(view.stored)} tensors in all",
            fix="the file is damaged: get it again",
        )
    return depth


def positions_of(
    view: Common, shapes: Mapping[str, Any], sizes: Sequence[Any], *, placed: bool = True
) -> tuple[int, tuple[int, int], bool]:
    """Of what the position table has rows: prefix tokens, the image, and whether somebody said that size.

    Args:
        view: the file.
        shapes: fields of the config that its shapes say.
        sizes: (height, width) in pixels that somebody says, best first.
        placed: whether the class token has a row.

    Raises:
        CheckpointError: its patches are those of no size that is said, and make no square.
    """
    rows, _ = view.common_shape("pos_embed", 2)
    prefix = int(shapes["class_token"]) if placed else 0
    patch = shapes["patch_size"]
    for size in sizes:
        height, width = without_rest(as_pair(size, "image_size"), patch)
        if rows - prefix == (height // patch[0]) * (width // patch[1]):
            return prefix, (height, width), True
    return prefix, image_size_of(rows - prefix, patch, ()), False


def origins_of(
    view: Common, config: ViTConfig, prefix: int, table: Table | None, biasless: Collection[str]
) -> dict[str, Origin]:
    """Where each canonical weight comes from.

    Args:
        view: the file.
        config: whose weights they are.
        prefix: how many of the first prefix tokens have rows in the position table.
        table: computes the positions of the patches where the file has none.
        biasless: parts that may do without a bias: `patch_embed`, `attention.out`.
    """
    without_bias = config.pre_norm or "patch_embed" in biasless  # a norm that follows has one
    origins = {
        "patch_embed.kernel": Origin(("patch_embed.weight",), lambda kernel: _kernel(kernel, config)),
        "patch_embed.bias": _bias("patch_embed.bias", view, config.embed_dim if without_bias else 0),
        "class_token.class": same("cls_token"),
        "pos_embed.table": _positions(config, prefix, table),
        **_norm("pixel_norm", "pixel_norm"),
        **_norm("patch_norm", "patch_norm"),
        **_norm("pre_norm", "pre_norm"),
        **_norm("norm", "norm"),
        **_dense("pre_logits"),
        **_dense("head"),
    }
    if "projection" in view.stored:
        origins |= {"head.kernel": same("projection"), "head.bias": zeros(config.num_classes)}
    for index in range(config.num_layers):
        origins |= dict(_block(f"block_{index}", f"blocks.{index}", view, config, biasless))
    return origins


def _kernel(kernel: Float32, config: ViTConfig) -> Float32:
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    return kernel.T.reshape(*config.patch_size, config.channels, config.embed_dim)


def _positions(config: ViTConfig, prefix: int, table: Table | None) -> Origin:
    missing = np.zeros((config.num_prefix_tokens - prefix, config.embed_dim), np.float32)
    if table is not None:
        return Origin((), lambda: np.concatenate([missing, table(config.grid, config.embed_dim)]))
    return Origin(("pos_embed",), lambda rows: np.concatenate([rows[:prefix], missing, rows[prefix:]]))


def _block(
    ours: str, theirs: str, view: Common, config: ViTConfig, biasless: Collection[str]
) -> Iterator[tuple[str, Origin]]:
    dim = config.embed_dim
    for number in (1, 2):
        yield from _norm(f"{ours}.norm{number}", f"{theirs}.norm{number}").items()
        yield f"{ours}.scale{number}.gamma", same(f"{theirs}.scale{number}")
    for norm in ("attention.query_norm", "attention.key_norm", "attention.norm", "ffn.norm"):
        yield from _norm(f"{ours}.{norm}", f"{theirs}.{norm}").items()
    if view.has(PACKED):
        yield from _packed(f"{ours}.attention", QKV, f"{theirs}.attention.packed")
        if view.has(HEAD_SCALE):
            yield from scaled_values(f"{ours}.attention", f"{theirs}.attention").items()
    else:
        for role in QKV:
            yield f"{ours}.attention.{role}.kernel", transposed(f"{theirs}.attention.{role}.weight")
            yield f"{ours}.attention.{role}.bias", same(f"{theirs}.attention.{role}.bias")
    if view.has(PACKED_GATES):
        yield from _packed(f"{ours}.ffn", ("gate", "up"), f"{theirs}.ffn.packed")
    for part, outputs in (("attention.out", dim), ("ffn.up", config.mlp_dim), ("ffn.down", dim)):
        if view.has(f"blocks.*.{part}.weight"):
            yield f"{ours}.{part}.kernel", transposed(f"{theirs}.{part}.weight")
            yield f"{ours}.{part}.bias", _bias(f"{theirs}.{part}.bias", view, outputs if part in biasless else 0)


def _packed(ours: str, roles: tuple[str, ...], theirs: str) -> Iterator[tuple[str, Origin]]:
    """Dense layers that are packed along their outputs."""
    for index, role in enumerate(roles):
        yield f"{ours}.{role}.kernel", _part(f"{theirs}.weight", index, len(roles))
        yield f"{ours}.{role}.bias", _part(f"{theirs}.bias", index, len(roles))


def scaled_values(
    ours: str, theirs: str, parts: tuple[str, str] = ("packed.weight", "packed.bias")
) -> dict[str, Origin]:
    """Values of which each head has a factor, which the mean that attention takes of them lets through.

    Args:
        ours: canonical name of the attention.
        theirs: its name in the file.
        parts: names of the packed weight and bias of query, key and value within it.
    """

    def scaled(packed: Float32, factors: Float32) -> Float32:
        values = np.split(packed, len(QKV))[QKV.index("value")]
        by_row = np.repeat(factors.reshape(-1), len(values) // factors.size)
        return (values.T * by_row).astype(np.float32)

    return {
        f"{ours}.value.{name}": Origin((f"{theirs}.{part}", f"{theirs}.head_scale"), scaled)
        for name, part in zip(("kernel", "bias"), parts, strict=True)
    }


def _part(name: str, index: int, of: int) -> Origin:
    return Origin((name,), lambda tensor: np.split(tensor, of)[index].T)


def _norm(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.scale": same(f"{theirs}.weight"), f"{ours}.bias": same(f"{theirs}.bias")}


def _dense(part: str) -> dict[str, Origin]:
    return {f"{part}.kernel": transposed(f"{part}.weight"), f"{part}.bias": same(f"{part}.bias")}


def _bias(name: str, view: Common, zeros_instead: int) -> Origin:
    """The bias; or so many zeros where that is not none and no block has it."""
    return zeros(zeros_instead) if zeros_instead and not view.has(kind_of(name)) else same(name)
