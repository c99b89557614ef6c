"""Relative positions in timm's names: tables of BEiT and of timm's own, and small networks of the distance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.gathering import Origin
from vit_deploy.checkpoints.timm.names import Renamed
from vit_deploy.core.choices import RelativePositions
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.relative_positions import gathered
from vit_deploy.core.relative_tables import PREFIX_ROWS, table_rows
from vit_deploy.core.weights import RELATIVE, Float32
from vit_deploy.errors import CheckpointError

INDEX = re.compile(r"(^|\.)relative_position_index$")  # a buffer of BEiT's own files, which the grid says as well
TABLE, NETWORK = "relative_position_bias_table", "mlp.fc1.weight"
OF_BLOCKS = ("blocks.*.attn.", "blocks.*.attn.rel_pos.")
OF_ALL = ("rel_pos_bias.", "shared_rel_pos.")
GAIN = 16.0  # of the sigmoid behind the network in the manner of Swin v2, whose last layer has no bias
SPAN, BASE = 8.0, 8.0  # of its coordinates and their logarithm


def relative_shapes(view: Renamed) -> dict[str, Any]:
    """The fields of the config that relative positions say; empty where there are none."""
    own, shared = (_kind(view, owners) for owners in (OF_BLOCKS, OF_ALL))
    if own is None and shared is None:
        return {}
    if NETWORK in (own, shared):
        kind = RelativePositions.SCORES if own is not None else RelativePositions.SHARED_SCORES
    else:
        kind = RelativePositions.TABLE if own is not None else RelativePositions.SHARED_TABLE
    fields: dict[str, Any] = {"relative_positions": kind}
    if (heads := _heads(view)) is not None:
        fields["num_heads"] = heads
    return fields


def table_size(view: Renamed, prefix: int) -> int | None:
    """How many distances of patches the tables are for; None where there are none."""
    found = next((f"{owner}{TABLE}" for owner in (*OF_BLOCKS, *OF_ALL) if f"{owner}{TABLE}" in view.kinds), None)
    if found is None:
        return None
    return view.common_shape(found, 2)[0] - (PREFIX_ROWS if prefix else 0)


def grid_of_table(distances: int) -> tuple[int, int]:
    """The square grid whose patches have so many distances.

    Raises:
        CheckpointError: there is none.
    """
    side = math.isqrt(max(distances, 0))
    if side * side != distances or side % 2 == 0:
        raise CheckpointError(
            f"its table of relative positions is for {distances} distances of patches, which no square grid has",
            fix='give the size it was made for: --config FILE.json with {"image_size": [height, width]}',
        )
    return (side // 2 + 1, side // 2 + 1)


def fits_table(grid: tuple[int, int], distances: int) -> bool:
    """Whether the patches of a grid have so many distances."""
    return table_rows(grid, 0) == distances


def relative_origins(view: Renamed, config: ViTConfig) -> dict[str, Origin]:
    """The weights of relative positions; what a block has of its own and what all share are added up."""
    kind = config.relative_positions
    if kind is RelativePositions.NONE:
        return {}
    shared = [name for owner in OF_ALL for name in _stored(view, owner)]
    part = f"{RELATIVE}.{kind.removeprefix('shared_')}"
    if kind in (RelativePositions.SHARED_TABLE, RelativePositions.SHARED_SCORES):
        return {part: _origin(view, shared, config)}
    origins = {}
    for index in range(config.num_layers):
        own = [name for owner in OF_BLOCKS for name in _stored(view, owner.replace("*", str(index)))]
        origins[f"block_{index}.attention.{part}"] = _origin(view, [*own, *shared], config)
    return origins


def _kind(view: Renamed, owners: tuple[str, ...]) -> str | None:
    kinds = (part for owner in owners for part in (TABLE, NETWORK) if f"{owner}{part}" in view.kinds)
    return next(kinds, None)


def _heads(view: Renamed) -> int | None:
    for owner in (*OF_BLOCKS, *OF_ALL):
        if f"{owner}{TABLE}" in view.kinds:
            return view.common_shape(f"{owner}{TABLE}", 2)[1]
        if f"{owner}{NETWORK}" in view.kinds:
            return view.common_shape(f"{owner}mlp.fc2.weight", 2)[0]
    return None


def _stored(view: Renamed, owner: str) -> list[str]:
    """Names of what one table, or one network, is made of."""
    parts = (TABLE, *(f"mlp.fc{number}.{part}" for number in (1, 2) for part in ("weight", "bias")))
    return [name for part in parts if (name := f"{owner}{part}") in view.stored]


def _origin(view: Renamed, names: list[str], config: ViTConfig) -> Origin:
    tables = config.relative_positions in (RelativePositions.TABLE, RelativePositions.SHARED_TABLE)
    if tables:
        return Origin(tuple(names), lambda *given: np.sum(given, axis=0))

    def scores(*given: Float32) -> Float32:
        parts = dict(zip((name.partition("mlp.")[2] for name in names), given, strict=True))
        return _scores_of_network(parts, config).astype(np.float32)

    return Origin(tuple(names), scores)


def _scores_of_network(parts: Mapping[str, Float32], config: ViTConfig) -> NDArray[np.floating]:
    """What a network of the distance adds to the scores of patches; to those of prefix tokens nothing."""
    like_swin = "fc2.bias" not in parts
    exact = {name: part.astype(np.float64) for name, part in parts.items()}
    hidden = np.maximum(_log_distances(config.grid, like_swin=like_swin) @ exact["fc1.weight"].T + exact["fc1.bias"], 0)
    table = hidden @ exact["fc2.weight"].T
    table = GAIN / (1 + np.exp(-table)) if like_swin else table + exact["fc2.bias"]
    none = np.zeros((PREFIX_ROWS, table.shape[1]))
    return gathered(np.concatenate([table, none]), config.grid, config.num_prefix_tokens)


def _log_distances(grid: tuple[int, int], *, like_swin: bool) -> NDArray[np.float64]:
    """Signed logarithms of (down, across) of every distance of two patches, in the order of a table's rows.

    In float32, as timm computes and keeps them.
    """
    axes = np.meshgrid(*(np.arange(1 - side, side, dtype=np.float32) for side in grid), indexing="ij")
    distances = np.stack(axes, axis=-1).reshape(-1, 2)
    if like_swin:
        shares = distances / np.maximum(np.array(grid, np.float32) - 1, 1) * np.float32(SPAN)
        logarithms = np.log2(1 + np.abs(shares)) / np.float32(math.log2(BASE))
    else:
        logarithms = np.log(1 + np.abs(distances))
    return np.asarray(np.sign(distances) * logarithms, np.float64)
