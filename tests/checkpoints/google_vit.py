"""Google's ViTs in plain NumPy, float64: from the paper and from the names and axes of Google's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Params = dict[str, Array]
IMAGE_SIZE, PATCH_SIZE, CHANNELS = (24, 32), (8, 4), 3
GRID = (3, 8)
DIM, HEADS, HIDDEN, DEPTH, CLASSES = 12, 3, 20, 2, 5


@dataclass(frozen=True)
class Names:
    """What one program calls the parts of a block, and where it keeps the positions."""

    attention: str
    norm2: str
    mlp: str
    positions: str
    class_position: bool  # whether the class token gets a position


VISION_TRANSFORMER = Names(
    *("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3", "Transformer/posembed_input/pos_embedding"), True
)
BIG_VISION = Names("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0", "pos_embedding", False)
BIG_VISION_BEFORE_2022 = Names(
    *("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0", "Transformer/pos_embedding"), True
)
MHA = Names("MHA_0", "LayerNorm_1", "MlpBlock_0", "pos_embedding", False)


@dataclass(frozen=True)
class Variant:
    """A model: the program it is of, and how it goes from tokens to its output."""

    names: Names = VISION_TRANSFORMER
    pool: str = "tok"
    pre_logits: int = 0
    classes: int = CLASSES


VARIANTS = {
    "vision_transformer": Variant(),
    "imagenet21k": Variant(pre_logits=9),
    "global average": Variant(pool="gap"),
    "no head": Variant(classes=0),
    "big_vision": Variant(BIG_VISION),
    "big_vision before 2022": Variant(BIG_VISION_BEFORE_2022),
    "big_vision average": Variant(BIG_VISION, pool="gap", pre_logits=7),
    "big_vision MHA": Variant(MHA, pool="gap"),
    "attention pooling": Variant(BIG_VISION, pool="map"),
    "SigLIP": Variant(BIG_VISION, pool="map", classes=0),
}


def draw(variant: Variant, seed: int = 5) -> Params:
    """Parameters as the program would keep them, with nothing at zero or one that could hide a part left out."""
    rng = np.random.default_rng(seed)
    params: Params = {}

    def put(name: str, *shape: int, about: float = 0.0) -> None:
        params[name] = (about + 0.25 * rng.standard_normal(shape)).astype(np.float32)

    def norm(name: str) -> None:
        put(f"{name}/scale", DIM, about=1.0)
        put(f"{name}/bias", DIM)

    def dense(name: str, inputs: int, outputs: int) -> None:
        put(f"{name}/kernel", inputs, outputs)
        put(f"{name}/bias", outputs)

    def attention(name: str) -> None:
        for role in ("query", "key", "value"):
            put(f"{name}/{role}/kernel", DIM, HEADS, DIM // HEADS)
            put(f"{name}/{role}/bias", HEADS, DIM // HEADS)
        put(f"{name}/out/kernel", HEADS, DIM // HEADS, DIM)
        put(f"{name}/out/bias", DIM)

    def mlp(name: str) -> None:
        dense(f"{name}/Dense_0", DIM, HIDDEN)
        dense(f"{name}/Dense_1", HIDDEN, DIM)

    names = variant.names
    put("embedding/kernel", *PATCH_SIZE, CHANNELS, DIM)
    put("embedding/bias", DIM)
    has_class = variant.pool == "tok"
    if has_class:
        put("cls", 1, 1, DIM)
    put(names.positions, 1, GRID[0] * GRID[1] + (has_class and names.class_position), DIM)
    for index in range(DEPTH):
        block = f"Transformer/encoderblock_{index}"
        norm(f"{block}/LayerNorm_0")
        attention(f"{block}/{names.attention}")
        norm(f"{block}/{names.norm2}")
        mlp(f"{block}/{names.mlp}")
    norm("Transformer/encoder_norm")
    if variant.pool == "map":
        put("MAPHead_0/probe", 1, 1, DIM)
        attention("MAPHead_0/MultiHeadDotProductAttention_0")
        norm("MAPHead_0/LayerNorm_0")
        mlp("MAPHead_0/MlpBlock_0")
    if variant.pre_logits:
        dense("pre_logits", DIM, variant.pre_logits)
    if variant.classes:
        dense("head", variant.pre_logits or DIM, variant.classes)
    return params


def draw_images(seed: int = 6) -> Array:
    """Normalised images `(batch, height, width, channels)`."""
    return np.random.default_rng(seed).standard_normal((3, *IMAGE_SIZE, CHANNELS)).astype(np.float32)


def forward(params: Mapping[str, Array], images: Array, variant: Variant) -> Array:
    """What the program computes: logits `(batch, classes)`, or without a head the pooled vector."""
    p = {name: value.astype(np.float64) for name, value in params.items()}
    names = variant.names
    (rows, columns), (height, width) = GRID, PATCH_SIZE
    tokens = []
    for row in range(rows):
        for column in range(columns):
            patch = images[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
            tokens.append(np.einsum("bhwc,hwcd->bd", patch, p["embedding/kernel"]) + p["embedding/bias"])
    x = np.stack(tokens, axis=1)
    if not names.class_position:
        x = x + p[names.positions]
    if variant.pool == "tok":
        x = np.concatenate([np.tile(p["cls"], (len(x), 1, 1)), x], axis=1)
    if names.class_position:
        x = x + p[names.positions]
    for index in range(DEPTH):
        block = f"Transformer/encoderblock_{index}"
        y = _norm(p, f"{block}/LayerNorm_0", x)
        x = x + _attention(p, f"{block}/{names.attention}", y, y)
        x = x + _mlp(p, f"{block}/{names.mlp}", _norm(p, f"{block}/{names.norm2}", x))
    x = _norm(p, "Transformer/encoder_norm", x)
    if variant.pool == "tok":
        x = x[:, 0]
    elif variant.pool == "gap":
        x = x.mean(axis=1)
    else:
        head = "MAPHead_0"
        probe = np.tile(p[f"{head}/probe"], (len(x), 1, 1))
        x = _attention(p, f"{head}/MultiHeadDotProductAttention_0", probe, x)
        x = (x + _mlp(p, f"{head}/MlpBlock_0", _norm(p, f"{head}/LayerNorm_0", x)))[:, 0]
    if variant.pre_logits:
        x = np.tanh(x @ p["pre_logits/kernel"] + p["pre_logits/bias"])
    return x @ p["head/kernel"] + p["head/bias"] if variant.classes else x


def _norm(p: Params, name: str, x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p[f"{name}/scale"] + p[
        f"{name}/bias"
    ]


def _attention(p: Params, name: str, x: Array, y: Array) -> Array:
    query = np.einsum("btd,dhw->bthw", x, p[f"{name}/query/kernel"]) + p[f"{name}/query/bias"]
    key = np.einsum("btd,dhw->bthw", y, p[f"{name}/key/kernel"]) + p[f"{name}/key/bias"]
    value = np.einsum("btd,dhw->bthw", y, p[f"{name}/value/kernel"]) + p[f"{name}/value/bias"]
    scores = np.exp(np.einsum("bqhw,bkhw->bhqk", query, key) / np.sqrt(query.shape[-1]))
    shares = scores / scores.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhw->bqhw", shares, value)
    return np.einsum("bqhw,hwd->bqd", mixed, p[f"{name}/out/kernel"]) + p[f"{name}/out/bias"]


def _mlp(p: Params, name: str, x: Array) -> Array:
    hidden = x @ p[f"{name}/Dense_0/kernel"] + p[f"{name}/Dense_0/bias"]
    hidden = hidden / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))  # GELU as nn.gelu has it
    return hidden @ p[f"{name}/Dense_1/kernel"] + p[f"{name}/Dense_1/bias"]


def stacked(params: Mapping[str, Array]) -> Params:
    """The same parameters with those of all blocks stacked, as of a scan over the depth."""
    first = "Transformer/encoderblock_0/"
    kept = {name: value for name, value in params.items() if "encoderblock_" not in name}
    for name in [param for param in params if param.startswith(first)]:
        rest = name.removeprefix(first)
        blocks = [params[f"Transformer/encoderblock_{index}/{rest}"] for index in range(DEPTH)]
        kept[f"Transformer/encoderblock/{rest}"] = np.stack(blocks)
    return kept
