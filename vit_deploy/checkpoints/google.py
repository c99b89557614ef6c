"""Checkpoints of Google's ViTs: vision_transformer, AugReg, big_vision, SigLIP's image tower.

Their programs are google-research/vision_transformer and google-research/big_vision, written in Flax, whose GELU is the
tanh approximation and whose norms add 1e-6; the numbers that they give are the ones that count here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, check_layers, gather, same
from vit_deploy.checkpoints.importing import HEAD_WIDTH, Facts, image_size_of, imported, settle
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.resize import OF_THE_SIZE
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

FAMILY = "google"
DEFAULTS = {"activation": str(Activation.GELU_TANH), "epsilon": 1e-6}
ENCODER = re.compile(r"(?P<prefix>(?:.*/)?)Transformer/encoderblock(?:_(?P<index>\d{1,6}))?/")
# What is in front of the names of the model, most telling first, and what is then not of the model: the state of a
# training, the tower of texts and the two numbers of its loss.
BESIDE = {
    "params/img/": re.compile(r"(opt|chrono|extra)/|params/((txt|llm)/|[tb]$)"),
    "img/": re.compile(r"(txt|llm)/|[tb]$"),
    "opt/target/": re.compile(r"opt/state/"),
    "params/": re.compile(r"(opt|chrono|extra)/"),
    "": re.compile(r"(?!)"),
}
# What the same part has been called; the last one stands for it when there is none of them.
ATTENTION = ("MultiHeadDotProductAttention_1", "MHA_0", "MultiHeadDotProductAttention_0")
MLP = ("MlpBlock_3", "MlpBlock_0")
NORM2 = ("LayerNorm_2", "LayerNorm_1")
POSITIONS = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
ROLES = ("query", "key", "value")
PATCHES = "embedding/kernel"
OF_PATCHES = ("image_size", "patch_size", "channels")
MAX_PERIOD = 10_000.0  # of the slowest of the sines in a fixed position table


class GoogleSource:
    """A ViT of Google's programs, from any container."""

    heads = re.compile(r"(^|/)head/(kernel|bias)$")

    def detects(self, file: TensorFile) -> bool:
        """Whether the encoder's blocks have Google's names."""
        return any(ENCODER.match(name) for name in file.names())

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; unless stated otherwise with the GELU and the epsilon of Flax.

        A file without a position table is one with fixed sines (big_vision's `sincos2d`) if `image_size` is stated.
        """
        layout = _layout(file)
        if len(layout.shape(PATCHES)) != 4:  # an error anyway; nothing stated of the sizes could be brought in line
            stated = {name: value for name, value in stated.items() if name not in OF_PATCHES}
        settled = settle(_facts(layout, stated), stated)
        if sines := layout.may_have_sines and "image_size" in stated:
            settled = dataclasses.replace(settled, assumed={**settled.assumed, "positions": "sincos2d"})
        layers_a_tensor = layout.depth if layout.stacked else 1
        check_layers(file, settled.config, layers_a_tensor)
        origins = dict(_origins(layout, settled.config, sines=sines))
        ignored = [name for name in file.names() if layout.is_beside(name)]
        weights = gather(
            *(file, origins, settled.config),
            ignored=ignored,
            layers_a_tensor=layers_a_tensor,
            found=settled.problems,
        )
        return imported(settled, weights, family=FAMILY, **(OF_THE_SIZE if sines else {}))


@dataclass(frozen=True)
class _Layout:
    """Where a file keeps what.

    Args:
        file: that is read.
        prefix: the prefix of all names of the model.
        depth: number of blocks.
        stacked: whether a tensor of a block holds those of all blocks, along a first axis.
    """

    file: TensorFile
    prefix: str
    depth: int
    stacked: bool

    def is_beside(self, name: str) -> bool:
        """Whether a tensor is not of the model."""
        return bool(self.prefix in BESIDE and BESIDE[self.prefix].match(name))

    def has(self, name: str) -> bool:
        """Whether the model has a tensor or a part of that name."""
        whole = self.prefix + name
        return any(name == whole or name.startswith(f"{whole}/") for name in self.file.names())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; empty if there is none."""
        whole = self.prefix + name
        return self.file.shape(whole) if whole in self.file.names() else ()

    def width(self, *names: str) -> int:
        """The last side of the first of these tensors that is there; 0 if none is."""
        return next((shape[-1] for shape in map(self.shape, names) if shape), 0)

    def part(self, folder: str, spellings: tuple[str, ...]) -> str:
        """The path of a part that goes by several names."""
        paths = [f"{folder}{spelling}" for spelling in spellings]
        return next((path for path in paths if self.has(path)), paths[-1])

    def block(self, index: int) -> str:
        """The prefix of a block's names."""
        return "Transformer/encoderblock/" if self.stacked else f"Transformer/encoderblock_{index}/"

    @property
    def positions(self) -> str:
        """The position table; the last of its names if there is none."""
        return self.part("", POSITIONS)

    @property
    def may_have_sines(self) -> bool:
        """Whether there is no position table, and the program is one that does not always have one."""
        return not self.has(self.positions) and not self.has(f"{self.block(0)}{ATTENTION[0]}")

    @property
    def class_has_position(self) -> bool:
        """Whether the table has a row for the class token.

        It has where the token is put in front of the patches first; since big_vision the positions are added first, and
        its program takes a table with one row more than a square for an older one.
        """
        others = (self.shape(self.positions)[1:2] or (0,))[0] - 1
        older = self.positions != POSITIONS[-1] or (others >= 0 and isqrt(others) ** 2 == others)
        return self.has("cls") and older

    @property
    def map_head(self) -> str:
        """The prefix of the attention pooling's names, which an early program did not keep apart."""
        return "" if self.has("probe") else "MAPHead_0/"


def _layout(file: TensorFile) -> _Layout:
    found = [match for match in map(ENCODER.match, file.names()) if match]
    prefixes = dict.fromkeys(match["prefix"] for match in found)
    prefix = next((head for head in BESIDE if head in prefixes), None)
    if prefix is None and len(prefixes) > 1:
        raise CheckpointError(
            f"it holds {len(prefixes)} encoders, and none is known to be that of images: {', '.join(prefixes)}",
            fix="save the one that is meant in a file of its own",
        )
    prefix = next(iter(prefixes)) if prefix is None else prefix
    numbers = [match["index"] for match in found if match["prefix"] == prefix]
    if None not in numbers:
        return _Layout(file, prefix, 1 + max(map(int, numbers)), stacked=False)
    if any(number is not None for number in numbers):
        raise CheckpointError("its blocks are both stacked and single", fix="save the model again")
    stacks = [file.shape(name) for name in file.names() if name.startswith(f"{prefix}Transformer/encoderblock/")]
    depths = [shape[0] for shape in stacks if shape and 0 not in shape] or [1]
    return _Layout(file, prefix, max(set(depths), key=depths.count), stacked=True)


def _facts(layout: _Layout, stated: Stated) -> Facts:
    """What names and shapes say; where a tensor is missing anything will do, for `gather` then lists it."""
    usual, block, axis = ViTConfig(), layout.block(0), int(layout.stacked)
    dim = layout.width(PATCHES, "embedding/bias", "Transformer/encoder_norm/scale") or usual.embed_dim
    kernel = layout.shape(PATCHES)
    height, width, channels = kernel[:3] if len(kernel) == 4 else (1, 1, usual.channels)
    heads = [layout.shape(f"{layout.part(block, ATTENTION)}/{role}/kernel")[axis:] for role in ROLES]
    shapes: dict[str, Any] = {
        "patch_size": (height, width),
        "channels": channels,
        "embed_dim": dim,
        "num_heads": next((shape[1] for shape in heads if len(shape) == 3), max(dim // HEAD_WIDTH, 1)),
        "num_layers": layout.depth,
        "mlp_dim": layout.width(f"{layout.part(block, MLP)}/Dense_0/kernel") or 4 * dim,
        "class_token": layout.has("cls"),
        "include_top": layout.has("head"),
        "num_classes": layout.width("head/kernel", "head/bias"),
        "pre_logits_dim": layout.width("pre_logits/kernel", "pre_logits/bias"),
    }
    defaults: dict[str, Any] = dict(DEFAULTS)
    if layout.has(f"{layout.map_head}probe"):
        shapes["pooling"] = str(Pooling.MAP)
    else:
        defaults["pooling"] = str(Pooling.CLS if layout.has("cls") else Pooling.MEAN)
    if rows := layout.shape(layout.positions)[1:2]:
        patches = rows[0] - layout.class_has_position
        unknown = None if len(kernel) == 4 else (1, max(patches, 1))
        shapes["image_size"] = image_size_of(patches, (height, width), [stated.get("image_size"), unknown])
    else:
        defaults["image_size"] = tuple(
            pixels // side * side for pixels, side in zip(usual.image_size, (height, width), strict=True)
        )
    return Facts(shapes=shapes, defaults=defaults)


Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Tensor:
    """One tensor: its name within its part, its shape, and that of the canonical weight, which has the same numbers."""

    name: str
    shape: Shape
    canonical: Shape


def _attention(config: ViTConfig) -> Mapping[str, _Tensor]:
    dim, heads, width = config.embed_dim, config.num_heads, config.head_dim
    tensors = {
        "out.kernel": _Tensor("out/kernel", (heads, width, dim), (dim, dim)),
        "out.bias": _Tensor("out/bias", (dim,), (dim,)),
    }
    for role in ROLES:
        tensors[f"{role}.kernel"] = _Tensor(f"{role}/kernel", (dim, heads, width), (dim, dim))
        tensors[f"{role}.bias"] = _Tensor(f"{role}/bias", (heads, width), (dim,))
    return tensors


def _mlp(config: ViTConfig) -> Mapping[str, _Tensor]:
    dim, hidden = config.embed_dim, config.mlp_dim
    return {
        "up.kernel": _Tensor("Dense_0/kernel", (dim, hidden), (dim, hidden)),
        "up.bias": _Tensor("Dense_0/bias", (hidden,), (hidden,)),
        "down.kernel": _Tensor("Dense_1/kernel", (hidden, dim), (hidden, dim)),
        "down.bias": _Tensor("Dense_1/bias", (dim,), (dim,)),
    }


def _norm(config: ViTConfig) -> Mapping[str, _Tensor]:
    return {role: _Tensor(role, (config.embed_dim,), (config.embed_dim,)) for role in ("scale", "bias")}


Parts = Mapping[str, tuple[str, Mapping[str, _Tensor]]]
"""Canonical name of a part to its path in the file and its tensors."""


def _encoder_block(layout: _Layout, folder: str, config: ViTConfig) -> Parts:
    return {
        "norm1": (f"{folder}LayerNorm_0", _norm(config)),
        "attention": (layout.part(folder, ATTENTION), _attention(config)),
        "norm2": (layout.part(folder, NORM2), _norm(config)),
        "ffn": (layout.part(folder, MLP), _mlp(config)),
    }


def _map_pool(folder: str, config: ViTConfig) -> Parts:
    return {
        "map_pool.attention": (f"{folder}MultiHeadDotProductAttention_0", _attention(config)),
        "map_pool.norm": (f"{folder}LayerNorm_0", _norm(config)),
        "map_pool.ffn": (f"{folder}MlpBlock_0", _mlp(config)),
    }


def _origins(layout: _Layout, config: ViTConfig, *, sines: bool) -> Iterator[tuple[str, Origin]]:
    at, dim = layout.prefix, config.embed_dim
    for name, path in (("patch_embed", "embedding"), ("pre_logits", "pre_logits"), ("head", "head")):
        for role in ("kernel", "bias"):
            yield f"{name}.{role}", same(f"{at}{path}/{role}")
    yield "class_token.class", _origin(f"{at}cls", (1, 1, dim), (1, dim))
    yield "pos_embed.table", _positions(layout, config, sines=sines)
    for index in range(config.num_layers):
        row = (index, config.num_layers) if layout.stacked else None
        for part, (path, tensors) in _encoder_block(layout, layout.block(index), config).items():
            for role, tensor in tensors.items():
                origin = _origin(f"{at}{path}/{tensor.name}", tensor.shape, tensor.canonical, row)
                yield f"block_{index}.{part}.{role}", origin
    last: Parts = {"norm": ("Transformer/encoder_norm", _norm(config))}
    if config.effective_pooling is Pooling.MAP:
        yield "map_pool.probe", _origin(f"{at}{layout.map_head}probe", (1, 1, dim), (1, dim))
        last = {**last, **_map_pool(layout.map_head, config)}
    for part, (path, tensors) in last.items():
        for role, tensor in tensors.items():
            yield f"{part}.{role}", _origin(f"{at}{path}/{tensor.name}", tensor.shape, tensor.canonical)


def _origin(name: str, shape: Shape, canonical: Shape, row: tuple[int, int] | None = None) -> Origin:
    """A tensor of exactly that shape in another; `row` is the (index, number) of its row where rows are stacked."""
    if row is None and shape == canonical:
        return same(name)
    expected = shape if row is None else (row[1], *shape)

    def make(tensor: Float32) -> Float32:
        if tensor.shape != expected:
            raise ValueError(f"expected {expected}")
        return (tensor if row is None else tensor[row[0]]).reshape(canonical)

    return Origin((name,), make)


def _positions(layout: _Layout, config: ViTConfig, *, sines: bool) -> Origin:
    """The table with a row for every token; a class token that gets no position has a row of zeros."""
    dim, prefix_tokens = config.embed_dim, config.num_prefix_tokens
    if sines and dim % 4 == 0:
        return Origin((), lambda: np.vstack([np.zeros((prefix_tokens, dim)), sine_table(config.grid, dim)]))
    without = prefix_tokens and not layout.class_has_position
    expected = (1, config.sequence_length - without, dim)

    def make(tensor: Float32) -> Float32:
        if tensor.shape != expected:
            raise ValueError(f"expected {expected}")
        return np.vstack([np.zeros((int(without), dim), np.float32), tensor[0]])

    return Origin((layout.prefix + layout.positions,), make)


def sine_table(grid: tuple[int, int], dim: int) -> Float32:
    """Fixed positions (patches, dim): sines and cosines of column, then of row, as in MoCo v3 (Chen et al. 2021).

    Args:
        grid: patches along (height, width).
        dim: a multiple of 4.
    """
    frequencies = MAX_PERIOD ** -np.linspace(0, 1, dim // 4)
    rows, columns = (positions.reshape(-1, 1) * frequencies for positions in np.indices(grid))
    return np.hstack([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)]).astype(np.float32)
