"""Sizes of the tables of relative positions."""

from __future__ import annotations

PREFIX_ROWS = 3  # prefix token to patch, patch to prefix token, prefix token to prefix token


def table_rows(grid: tuple[int, int], prefix: int) -> int:
    """Rows of the table of relative positions of a grid of (height, width) patches behind `prefix` tokens."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + (PREFIX_ROWS if prefix else 0)
