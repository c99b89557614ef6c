"""CoCa's attention pooling as OpenCLIP has it: queries of another width, the first of which gives the vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, same, transposed
from vit_deploy.checkpoints.renamed.names import QKV, Common
from vit_deploy.core.choices import PoolEnd, Pooling
from vit_deploy.core.weights import Float32

POOLER = "attn_pool"
QUERY = f"{POOLER}.query"
OF_TWO = "an attention pooling for words and another for classes"
HEADS = 8  # of every CoCa, unless its config says otherwise
PACKED, OUT = f"{POOLER}.attention.packed", f"{POOLER}.attention.out"


def pools(view: Common) -> bool:
    """Whether there is such a pooling."""
    return view.has(QUERY)


def fields(view: Common, embed_dim: int) -> dict[str, Any]:
    """Fields of the config that its tensors say: the last norm is the keys', and another follows the attention."""
    _, width = view.common_shape(QUERY, 2)
    return {
        "pooling": Pooling.MAP,
        "pool_dim": 0 if width == embed_dim else width,
        "pool_end": PoolEnd.NORM,
        "norm_after_pooling": False,
    }


def origins(view: Common, epsilon: float) -> dict[str, Origin]:
    """Where the weights of the pooling come from, by canonical name.

    Args:
        view: the file under common names, where the norm behind the pooling is `norm`.
        epsilon: of the norm of the queries, which the same for all images become part of the probe.
    """
    table = {
        "map_pool.probe": Origin(
            (QUERY, f"{POOLER}.ln_q.weight", f"{POOLER}.ln_q.bias"),
            lambda queries, scale, bias: _normed(queries[:1], scale, bias, epsilon),
        ),
        "norm.scale": same(f"{POOLER}.ln_k.weight"),
        "norm.bias": same(f"{POOLER}.ln_k.bias"),
        "map_pool.norm.scale": same("norm.weight"),
        "map_pool.norm.bias": same("norm.bias"),
        "map_pool.attention.out.kernel": transposed(f"{OUT}.weight"),
        "map_pool.attention.out.bias": same(f"{OUT}.bias"),
    }
    for number, role in enumerate(QKV):
        table[f"map_pool.attention.{role}.kernel"] = _kernel(view, number, role)
        table[f"map_pool.attention.{role}.bias"] = _share(f"{PACKED}.bias", number)
    return table


def problems(view: Common, vision: Mapping[str, Any], *, mean: bool) -> Iterator[str]:
    """What the config of a tower says that is not this pooling, in words."""
    if isinstance(vision.get("attentional_pool"), str):
        yield OF_TWO
    elif vision.get("attentional_pool") and not pools(view):
        yield "attention pooling, of which it has no weights"
    elif pools(view) and mean:
        yield "the mean of several probes"


def heads_of(vision: Mapping[str, Any]) -> int:
    """Attention heads of the pooling, by the config of the tower."""
    return int(vision.get("attn_pooler_heads", HEADS))


def _kernel(view: Common, number: int, role: str) -> Origin:
    """Packed where keys are as wide as queries, as torch's attention has it, and a matrix of its own elsewhere."""
    if view.has(f"{PACKED}.weight"):
        return _share(f"{PACKED}.weight", number)
    return transposed(f"{POOLER}.attn.{role[0]}_proj_weight")


def _share(name: str, number: int) -> Origin:
    return Origin((name,), lambda packed: np.split(packed, len(QKV))[number].T)


def _normed(queries: Float32, scale: Float32, bias: Float32, epsilon: float) -> Float32:
    exact = queries.astype(np.float64)
    centred = exact - exact.mean(axis=-1, keepdims=True)
    unit = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    normed: Float32 = (unit * scale + bias).astype(np.float32)
    return normed
