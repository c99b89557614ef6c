"""Relative positions of BEiT and Data2VecVision in transformers' names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, zeros
from vit_deploy.checkpoints.huggingface.names import WITHIN, Names
from vit_deploy.checkpoints.importing import without_rest
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.core.choices import RelativePositions
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.relative_tables import PREFIX_ROWS, table_rows
from vit_deploy.core.weights import RELATIVE
from vit_deploy.errors import CheckpointError

TABLE = "relative_position_bias.relative_position_bias_table"
OF_BLOCK = f"attention.attention.{TABLE}"
OF_ALL = f"encoder.{TABLE}"
INDEX = ".relative_position_index"  # a buffer of older files, which the grid says as well
POOLED_NORM = "pooler.layernorm"


def has_relative_positions(names: Names) -> bool:
    """Whether there is a table of them."""
    return names.has(OF_ALL) or any(f"{path}{OF_BLOCK}" in names.stored for path in names.blocks.values())


def relative_fields(names: Names) -> dict[str, Any]:
    """The fields of the config that these models say beside the others; empty for other models."""
    fields: dict[str, Any] = {"norm_after_pooling": True} if names.has(f"{POOLED_NORM}.weight") else {}
    if has_relative_positions(names):
        own = any(f"{path}{OF_BLOCK}" in names.stored for path in names.blocks.values())
        fields["relative_positions"] = RelativePositions.TABLE if own else RelativePositions.SHARED_TABLE
    return fields


def size_of_table(
    file: TensorFile, names: Names, patch: tuple[int, int], size: tuple[int, int] | None
) -> tuple[int, int]:
    """(height, width) in pixels of the images that the tables are for.

    Args:
        file: that is read.
        names: its names.
        patch: (height, width) in pixels.
        size: that somebody says.

    Raises:
        CheckpointError: the table is for another size, or nobody says one and it is for no square.
    """
    tables = (names.prefix + OF_ALL, *(f"{path}{OF_BLOCK}" for path in names.blocks.values()))
    rows = file.shape(next(name for name in tables if name in names.stored))[0]
    if size is not None:
        read = without_rest(size, patch)
        if table_rows((read[0] // patch[0], read[1] // patch[1]), 1) == rows:
            return read
        raise CheckpointError(
            f"its table of relative positions has {rows} rows, which images of {size[0]}x{size[1]} do not make",
            fix="correct config.json, or get the file again",
        )
    side = math.isqrt(max(rows - PREFIX_ROWS, 0))
    if side * side != rows - PREFIX_ROWS or side % 2 == 0:
        raise CheckpointError(
            f"its table of relative positions has {rows} rows, which no square image makes",
            fix='give the size it was made for: --config FILE.json with {"image_size": [height, width]}',
        )
    return ((side // 2 + 1) * patch[0], (side // 2 + 1) * patch[1])


def relative_origins(names: Names, config: ViTConfig) -> dict[str, Origin]:
    """The tables, of which a block's own and that of all are added up, and zeros for the keys' biases."""
    if config.relative_positions is RelativePositions.NONE:
        return {}
    shared = [names.prefix + OF_ALL] if names.has(OF_ALL) else []
    origins = {}
    if config.relative_positions is RelativePositions.SHARED_TABLE:
        origins[f"{RELATIVE}.table"] = _sum(shared)
    for index in range(config.num_layers):
        if config.relative_positions is RelativePositions.TABLE:
            own = [f"{names.within(index, ('',))}{OF_BLOCK}"]
            origins[f"block_{index}.attention.{RELATIVE}.table"] = _sum([*own, *shared])
        if config.qkv_bias and f"{names.within(index, WITHIN['attention.key'])}.bias" not in names.stored:
            origins[f"block_{index}.attention.key.bias"] = zeros(config.embed_dim)
    return origins


def _sum(tables: list[str]) -> Origin:
    return Origin(tuple(tables), lambda *given: np.sum(given, axis=0))
