"""Blocks of timm with several attentions, then several feed-forwards, side by side (Touvron et al. 2022, 2203.09795).

Each has a norm of its own in front, which differs from the others' in scale and bias alone: these are multiplied into
the projections that read them, and then all attentions are one with the heads of all, and all feed-forwards one with
their hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.gathering import Origin
from vit_deploy.checkpoints.timm.names import Renamed
from vit_deploy.core.choices import FFNType, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32

Exact = NDArray[np.float64]
FIRST = "blocks.*.attns.0.attn.qkv.weight"
ROLES = ("query", "key", "value")
OPTIONAL = ("shift", "gamma", "bias")


def count_of(view: Renamed) -> int:
    """How many attentions a block has."""
    count = 0
    while f"blocks.*.attns.{count}.attn.qkv.weight" in view.kinds:
        count += 1
    return max(count, 1)


def has_things(view: Renamed) -> bool:
    """Whether the blocks are of this kind."""
    return FIRST in view.kinds


def things_shapes(view: Renamed) -> dict[str, Any]:
    """The fields of the config that these blocks say, but for the width of a head."""
    layer_norm = "blocks.*.attns.0.norm.bias" in view.kinds
    return {
        "mlp_dim": count_of(view) * view.common_shape("blocks.*.ffns.0.mlp.fc1.weight", 2)[0],
        "ffn_type": FFNType.MLP,
        "normalization_type": NormalizationType.LAYER_NORM if layer_norm else NormalizationType.RMS_NORM,
        "qkv_bias": True,  # that of the norm at least
        "qk_norm": False,
        "layer_scale": False,  # which is part of the last projections
    }


def things_origins(ours: str, theirs: str, view: Renamed, config: ViTConfig) -> dict[str, Origin]:
    """The weights of one block."""
    count, dim = count_of(view), config.embed_dim
    attentions = [_thing(f"{theirs}.attns.{index}", "attn.qkv", "attn.proj", view) for index in range(count)]
    ffns = [_thing(f"{theirs}.ffns.{index}", "mlp.fc1", "mlp.fc2", view) for index in range(count)]
    origins: dict[str, Origin] = {}
    for part, role in enumerate(ROLES):
        piece = slice(part * dim, (part + 1) * dim)
        origins |= _read(f"{ours}.attention.{role}", attentions, piece)
    origins |= _read(f"{ours}.ffn.up", ffns, slice(None))
    origins |= _written(f"{ours}.attention.out", attentions) | _written(f"{ours}.ffn.down", ffns)
    for norm in ("norm1", "norm2"):
        origins[f"{ours}.{norm}.scale"] = Origin((), lambda: np.ones(dim, np.float32))
        origins[f"{ours}.{norm}.bias"] = Origin((), lambda: np.zeros(dim, np.float32))
    return origins


def _thing(path: str, first: str, last: str, view: Renamed) -> dict[str, str]:
    """The names of what one attention or feed-forward has, by what they are."""
    names = {
        **{"scale": f"{path}.norm.weight", "shift": f"{path}.norm.bias", "gamma": f"{path}.ls.gamma"},
        **{"kernel": f"{path}.{first}.weight", "bias": f"{path}.{first}.bias"},
        **{"out": f"{path}.{last}.weight", "out_bias": f"{path}.{last}.bias"},
    }
    return {what: name for what, name in names.items() if name in view.stored or what not in OPTIONAL}


def _read(layer: str, things: list[dict[str, str]], piece: slice) -> dict[str, Origin]:
    """A projection of what the norms give, all beside each other."""

    def kernel(scale: Float32, kernel: Float32) -> Exact:
        scaled: Exact = kernel[piece].T.astype(np.float64) * scale[:, None]
        return scaled

    def bias(kernel: Float32, *rest: Float32, names: tuple[str, ...]) -> Exact:
        given = dict(zip(names, rest, strict=True))
        sums = np.zeros(len(kernel[piece]))
        if "shift" in given:
            sums = kernel[piece].astype(np.float64) @ given["shift"]
        return sums + given["bias"][piece] if "bias" in given else sums

    return {
        f"{layer}.kernel": _joined(things, ("scale", "kernel"), lambda names, *given: kernel(*given), 1),
        f"{layer}.bias": _joined(
            things, ("kernel", "shift", "bias"), lambda names, *given: bias(*given, names=names[1:]), 0
        ),
    }


def _written(layer: str, things: list[dict[str, str]]) -> dict[str, Origin]:
    """A projection into the residual stream, whose inputs are beside each other and whose biases are added up."""

    def kernel(names: tuple[str, ...], out: Float32, *gamma: Float32) -> Exact:
        transposed = out.T.astype(np.float64)
        return transposed * gamma[0] if gamma else transposed

    def bias(names: tuple[str, ...], bias: Float32, *gamma: Float32) -> Exact:
        exact = bias.astype(np.float64)
        return exact * gamma[0] if gamma else exact

    return {
        f"{layer}.kernel": _joined(things, ("out", "gamma"), kernel, 0),
        f"{layer}.bias": _joined(things, ("out_bias", "gamma"), bias, None),
    }


def _joined(
    things: list[dict[str, str]], parts: tuple[str, ...], make: Callable[..., Exact], axis: int | None
) -> Origin:
    """What is made of some parts of each thing, one behind the other along an axis, or added up."""
    groups = [tuple(part for part in parts if part in thing) for thing in things]
    names = tuple(thing[part] for thing, group in zip(things, groups, strict=True) for part in group)

    def join(*tensors: Float32) -> Float32:
        made, start = [], 0
        for group in groups:
            made.append(make(group, *tensors[start : start + len(group)]))
            start += len(group)
        joined = np.sum(made, axis=0) if axis is None else np.concatenate(made, axis=axis)
        return np.asarray(joined, np.float32)

    return Origin(names, join)
