"""Relative position bias: a number for each head and each distance between two tokens, added to attention's scores.

A table has a row for every distance of two patches of a grid, `(2 height - 1) (2 width - 1)` of them in row-major
order from the most negative, and where there are prefix tokens three more: what a prefix token adds to the score of a
patch, a patch to that of a prefix token, and a prefix token to that of another (Bao et al. 2021, arXiv 2106.08254).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import RelativePositions
from vit_deploy.core.relative_tables import PREFIX_ROWS, table_rows
from vit_deploy.core.weights import relative_names

__all__ = ["PREFIX_ROWS", "gather_relative_positions", "gathered", "relative_index", "table_rows"]

GATHERED = {
    RelativePositions.TABLE: RelativePositions.SCORES,
    RelativePositions.SHARED_TABLE: RelativePositions.SHARED_SCORES,
}


@functools.lru_cache(maxsize=8)
def relative_index(grid: tuple[int, int], prefix: int) -> NDArray[np.int32]:
    """The row of the table for each pair of a query and a key, `(tokens, tokens)`.

    Args:
        grid: patches along (height, width).
        prefix: tokens in front of the patches.
    """
    rows, columns = (axis.reshape(-1) for axis in np.indices(grid))
    down = rows[:, None] - rows[None, :] + grid[0] - 1
    across = columns[:, None] - columns[None, :] + grid[1] - 1
    patches = down * (2 * grid[1] - 1) + across
    first = (2 * grid[0] - 1) * (2 * grid[1] - 1)
    index = np.full((prefix + len(rows), prefix + len(rows)), first + 2, np.int32)
    index[prefix:, prefix:] = patches
    index[:prefix, prefix:] = first
    index[prefix:, :prefix] = first + 1
    return index


def gathered(table: NDArray[np.floating], grid: tuple[int, int], prefix: int) -> NDArray[np.floating]:
    """What a table `(distances, heads)` adds to the scores `(heads, tokens, tokens)`."""
    return np.ascontiguousarray(table[relative_index(grid, prefix)].transpose(2, 0, 1))


def gather_relative_positions(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the same function that holds what is added to the scores; the one given where it has no tables.

    Exported files hold these constants, so that no engine gathers anything.
    """
    config = checkpoint.config
    kind = GATHERED.get(config.relative_positions)
    if kind is None:
        return checkpoint
    weights = dict(checkpoint.weights)
    made = config.replace(relative_positions=kind)
    for table, scores in zip(relative_names(config), relative_names(made), strict=True):
        weights[scores] = gathered(weights.pop(table), config.grid, config.num_prefix_tokens)
    return dataclasses.replace(checkpoint, config=made, weights=weights)
